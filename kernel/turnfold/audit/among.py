"""What an event breaks, in its stream and among streams: lanes, workers, finals."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from turnfold.audit import entries
from turnfold.audit.entries import Moment
from turnfold.audit.findings import Rule
from turnfold.audit.lanes import EntryLanes, TurnLanes
from turnfold.audit.turns import FindEntry, Turns
from turnfold.events import Event
from turnfold.events import outbox as o
from turnfold.events import turn as t
from turnfold.events.ledger import WorkerStarted
from turnfold.fold import STORE, State
from turnfold.machines.entry import Entry
from turnfold.machines.ledger import StoreState
from turnfold.machines.turn import Turn

_Broken = Sequence[tuple[Rule, str]]
_First = Callable[[str, State | None, Any, int], _Broken]


class Among:
    """Asked what an event breaks before it is folded in, told the state after it."""

    def __init__(self, find: FindEntry, aside: Collection[str]) -> None:
        self._lanes, self._turn_lanes = EntryLanes(), TurnLanes()
        self._turns = Turns(find, aside)
        self._now = Moment(-1, 0, None)
        self._first: dict[type, _First] = {
            o.Queued: self._queued,
            o.Attempted: self._attempted,
            t.Started: self._started,
            WorkerStarted: self._worker,
        }

    def broken_by(
        self, stream: str, before: State | None, event: Any, at: int, position: int
    ) -> Iterable[tuple[Rule, str]]:
        """An empty sequence, or something that knows more when it is iterated."""
        if at != self._now.at:  # the events of a commit share theirs
            self._now = Moment(at, self._now.epoch, self._now.owner)
        rest: Iterable[tuple[Rule, str]] = ()
        if isinstance(before, Entry):
            rest = entries.broken_by(before, event, self._now)
        elif stream.startswith("turn:"):
            known = before if isinstance(before, Turn) else None
            rest = self._turns.broken_by(known, stream, event, self._now)
        look = self._first.get(type(event))
        if look is None:
            return rest
        first = look(stream, before, event, position)
        return chain(first, rest) if first else rest

    def _queued(
        self, stream: str, _: State | None, event: o.Queued, position: int
    ) -> _Broken:
        return self._turns.queued(stream, event, position)

    def _attempted(self, _s: str, before: State | None, _e: Event, _p: int) -> _Broken:
        return self._lanes.overtakes(before) if isinstance(before, Entry) else ()

    def _started(self, _s: str, before: State | None, _e: Event, _p: int) -> _Broken:
        return self._turn_lanes.overtakes(before) if isinstance(before, Turn) else ()

    def _worker(
        self, _s: str, _b: State | None, event: WorkerStarted, _p: int
    ) -> _Broken:
        if event.epoch > self._now.epoch:
            return ()
        text = f"epoch {event.epoch} begins after epoch {self._now.epoch}"
        return [(Rule.FENCE, text)]

    def moved(self, was: Any, after: State, *, held: bool) -> None:
        """`was`: the phase before, none for a new stream; `held`: was the turn held?"""
        if isinstance(after, Entry):
            self._lanes.moved(was, after)
        elif isinstance(after, Turn):
            self._turn_lanes.moved(was, after, held=held)
        elif isinstance(after, StoreState) and after.stream == STORE:
            self._now = Moment(self._now.at, after.epoch, after.owner)

    def end(self) -> Iterator[tuple[Rule, str, int, str]]:
        return self._turns.end()
