"""The crash driver with a memory of each program's inputs, so that two moments
with the same future can be told to be the same.

A program is a pure function of its answers, and keeps no state across its outer loop:
so its inputs since the top of that loop determine its state.
"""

from collections.abc import Hashable
from functools import partial
from typing import Any

from turnfold._decide import schedule, turns
from turnfold._runtime.programs import Effect, Look
from turnfold_model.crash.driver import Act, CrashDriver, Live

_TOPS = (schedule.next_step, turns.next_turn)


class TracedDriver(CrashDriver):
    """One life; see `moment`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._told: dict[object, tuple[Hashable, ...]] = {}

    def _resume(self, live: Live) -> Effect | Act:
        given = _hashable(live.answer), _text(live.error)
        effect = super()._resume(live)
        if _is_top(effect):
            self._told[live.key] = ()
        else:
            self._told[live.key] = (*self._told.get(live.key, ()), given)
        return effect

    def _ended(self, live: Live, until: object) -> None:
        self._told.pop(live.key, None)
        super()._ended(live, until)

    def moment(self) -> Hashable:
        """Where every program stands, between two steps."""
        return (
            self.epoch,
            self.book.position,
            self.broken,
            tuple(self._where(live) for live in self.alive.values()),
            frozenset(self.timers.items()),
            frozenset(self._again),
            self.register.contents(),
        )

    def _where(self, live: Live) -> Hashable:
        given = _hashable(live.answer), _text(live.error)
        told = self._told.get(live.key, ())
        attempt = _hashable(live.attempt)
        return live.key, attempt, told, given, live.in_flight is None, live.until


def _is_top(effect: Effect | Act) -> bool:
    if not isinstance(effect, Look):
        return False
    question = effect.question
    return not isinstance(question, partial) or question.func in _TOPS


def _text(error: Exception | None) -> str:
    return "" if error is None else f"{error!r} {error}"


def _hashable(value: object) -> Hashable:
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value
