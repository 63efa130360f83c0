"""Telling the embedder what must not pass in silence: dead letters, parks, bounces.

Hooks run after the commit and can change nothing about it: what they raise is logged
and goes no further (A10). The same news goes to the logger `turnfold`.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from turnfold.events import outbox as o
from turnfold.events import turn as t
from turnfold.events.ledger import Restored
from turnfold.fold import State
from turnfold.journal import Commit
from turnfold.machines.entry import Entry
from turnfold.machines.turn import Turn

_LOG = logging.getLogger("turnfold")
Told = TypeVar("Told")
Hook = Callable[[Entry], None]
HeldHook = Callable[[Turn], None]
RestoredHook = Callable[[Restored], None]


_NEWS = {o.FailedTerminal, o.Parked, o.Doubted, o.Bounced, t.Held, Restored}


class Hooks:
    """Lists of plain functions that get the folded Entry, the Turn or the event."""

    def __init__(self) -> None:
        self.terminal: list[Hook] = []
        self.parked: list[Hook] = []
        self.bounced: list[Hook] = []
        self.held: list[HeldHook] = []
        self.restored: list[RestoredHook] = []

    def on_terminal(self, hook: Hook) -> Hook:
        """An entry ended undelivered."""
        self.terminal.append(hook)
        return hook

    def on_parked(self, hook: Hook) -> Hook:
        """An entry waits for a person: nobody knows if it was sent."""
        self.parked.append(hook)
        return hook

    def on_bounced(self, hook: Hook) -> Hook:
        """A delivered entry was refused afterwards."""
        self.bounced.append(hook)
        return hook

    def on_held(self, hook: HeldHook) -> HeldHook:
        """A turn waits for a person: nobody knows if it was answered."""
        self.held.append(hook)
        return hook

    def on_restored(self, hook: RestoredHook) -> RestoredHook:
        """The store was found to be an older copy of itself."""
        self.restored.append(hook)
        return hook

    def tell(self, commit: Commit) -> None:
        for stream, event in commit.emitted:
            if type(event) not in _NEWS:
                continue
            state = commit.moved.get(stream)
            match event:
                case o.FailedTerminal(reason=reason):
                    self._call(self.terminal, state, f"ended undelivered: {reason}")
                case o.Parked(reason=reason):
                    self._call(self.parked, state, f"is parked, in doubt: {reason}")
                case o.Doubted(reason=reason):
                    self._call(self.parked, state, f"is parked, in doubt: {reason}")
                case t.Held(reason=reason):
                    self._call_held(state, reason)
                case Restored():
                    self._call_restored(event)
                case o.Bounced():
                    self._call(self.bounced, state, "bounced")
                case _:
                    pass

    @staticmethod
    def _call(hooks: list[Hook], state: State | None, news: str) -> None:
        if not isinstance(state, Entry):
            return
        _LOG.warning("%s to %s %s", state.stream, state.lane, news)
        _tell(hooks, state)

    def _call_held(self, state: State | None, reason: str) -> None:
        if isinstance(state, Turn):
            _LOG.warning("%s of %s is held: %s", state.stream, state.lane, reason)
            _tell(self.held, state)

    def _call_restored(self, event: Restored) -> None:
        _LOG.error(
            "the store is an older copy of itself: it ends at position %s and had got "
            "to %s; what is open in it waits for a person",
            event.position_found,
            event.position_seen,
        )
        _tell(self.restored, event)


def _tell(hooks: Sequence[Callable[[Told], None]], what: Told) -> None:
    for hook in hooks:
        try:
            hook(what)
        except Exception:  # noqa: BLE001  a hook may raise anything
            _LOG.exception("a hook failed; what it was told of is not affected")
