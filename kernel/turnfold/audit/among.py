"""One event after the other, each on top of its stream: what it breaks there and among
streams (lanes, workers, finals), and the state after it."""

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Any

from turnfold.audit.commits import Commits
from turnfold.audit.entries import USUAL, Moment, broken_by
from turnfold.audit.findings import Findings, Rule
from turnfold.audit.lanes import EntryLanes, TurnLanes
from turnfold.audit.turns import FindEntry, Turns
from turnfold.events import outbox as o
from turnfold.events import turn as t
from turnfold.events.ledger import WorkerStarted
from turnfold.fold import STORE, State, advance, family
from turnfold.machines import turn as turn_machine
from turnfold.machines.entry import Entry
from turnfold.machines.entry import advance as advance_entry
from turnfold.machines.ledger import StoreState
from turnfold.machines.turn import Turn
from turnfold.records import Record

_Broken = Iterable[tuple[Rule, str]]
_Step = Callable[[Record, Any, Any], State]
# What no lane has to be told of: from an open phase to an open one.
STAYING = frozenset({o.Planned, o.Attempted, o.Dispatched})


def _plainly(record: Record, before: State | None, event: Any) -> State:
    return advance(before, event, record.stream, record.at, record.position)


class Among:
    """`begin` a record, then `step` through its events: that notes what an event
    breaks, which says more than that it is illegal, and folds it in. One way for each
    family of streams, since that is asked only once."""

    def __init__(
        self, findings: Findings, find: FindEntry, aside: Collection[str]
    ) -> None:
        self._findings = findings
        self._lanes, self._turn_lanes = EntryLanes(), TurnLanes()
        self._turns = Turns(find, aside)
        self._commits = Commits(findings)
        self._now = Moment(-1, 0, None)
        self._steps: dict[str, _Step] = {
            "entry": self._new_entry,
            "turn": self._turn,
            "store": self._worker,
        }

    def begin(self, record: Record, later: tuple[int, str] | None = None) -> None:
        """`later`: the worker that begins in the same commit, behind this record."""
        self._commits.begin(record)
        now = self._now
        if record.at != now.at or now.later != later:
            self._now = Moment(record.at, now.epoch, now.owner, later)

    def step(self, record: Record, before: State | None, event: Any) -> State:
        """The state after the event. `before` moves on in place. Raises off the table,
        and what may be raised for events of another family."""
        if type(before) is not Entry:  # most of all are
            way: _Step = self._steps.get(family(record.stream), _plainly)
            return way(record, before, event)
        kind, was, now = type(event), before.phase, self._now
        if kind is o.Attempted:
            self._in_order(record, before)
        usual = USUAL.get(kind)
        if usual is None or not usual(before, event, now):
            broken = broken_by(before, event, now)
            self._findings.add_all(broken, record.position, record.stream)
        # The states share the time of their commit, too: fewer numbers to keep.
        after = advance_entry(before, event, record.stream, now.at, record.position)
        if kind not in STAYING:
            self._lanes.moved(was, after)
        return after

    def _in_order(self, record: Record, entry: Entry) -> None:
        place = record.stream, entry.lane, entry.order
        if self._lanes.ahead_of(*place) is not None:
            self._commits.check(record, partial(self._lanes.overtakes, *place))

    def _new_entry(self, record: Record, _before: None, event: Any) -> Entry:
        stream, position = record.stream, record.position
        if type(event) is o.Queued and event.turn is not None:
            broken = self._turns.queued(stream, event, position)
            self._findings.add_all(broken, position, stream)
        after = advance_entry(None, event, stream, self._now.at, position)
        self._lanes.moved(None, after)
        return after

    def _turn(self, record: Record, before: Turn | None, event: Any) -> Turn:
        stream, position = record.stream, record.position
        was = None if before is None else before.phase
        held = before is not None and before.held
        if before is not None and type(event) is t.Started and not before.control:
            place = stream, before.lane, before.order
            self._commits.check(record, partial(self._turn_lanes.overtakes, *place))
        broken: _Broken = self._turns.broken_by(before, stream, event, self._now)
        self._findings.add_all(broken, position, stream)
        joint = self._turns.joint(before, stream, event)
        after = turn_machine.advance(before, event, stream, record.at, position)
        if joint is not None:
            self._commits.check(record, joint)
        self._turn_lanes.moved(was, after, held=held)
        return after

    def _worker(self, record: Record, before: State | None, event: Any) -> State:
        now = self._now
        if isinstance(event, WorkerStarted) and event.epoch <= now.epoch:
            text = f"epoch {event.epoch} begins after epoch {now.epoch}"
            self._findings.add(Rule.FENCE, text, record.position, record.stream)
        after = _plainly(record, before, event)
        if isinstance(after, StoreState) and after.stream == STORE:
            self._now = Moment(record.at, after.epoch, after.owner)
        return after

    def end(self) -> Iterator[tuple[Rule, str, int, str]]:
        self._commits.end()
        return self._turns.end()
