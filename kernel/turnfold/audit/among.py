"""One event after the other, each on top of its stream: the rules that it breaks there
and among streams (lanes, workers, commits), and the state after it."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from turnfold.audit import turns
from turnfold.audit.entries import Say, Worker, by_worker, check, check_first
from turnfold.audit.findings import Findings, Rule
from turnfold.audit.joint import Find, Joint
from turnfold.audit.lanes import EntryLanes, TurnLanes
from turnfold.events import outbox as o
from turnfold.events import turn as t
from turnfold.events.ledger import Restored, WorkerStarted
from turnfold.fold import State, advance, family
from turnfold.machines.entry import Entry
from turnfold.machines.entry import advance as advance_entry
from turnfold.machines.ledger import Gate
from turnfold.machines.turn import Turn
from turnfold.machines.turn import advance as advance_turn
from turnfold.records import Record
from turnfold.words import CLOSED, Phase

# From an open phase to an open one: no lane and no turn has to hear of these.
_STAYING = frozenset({o.Planned, o.Attempted, o.Dispatched})


_Check = Callable[[Say], None]


class Among:
    """`step` says the rules that an event breaks, which tells more than that the event
    is illegal, and folds the event in. There is one way for each family of streams.

    The streams of one commit have no order among each other. So a rule between streams
    that looks broken is asked again when the moment is over.
    """

    def __init__(self, findings: Findings, find: Find, aside: Collection[str]) -> None:
        self._findings = findings
        self._lanes, self._turn_lanes = EntryLanes(), TurnLanes()
        self._messages = turns.Messages()
        self._joint = Joint(find, aside, self._say_of)
        self._at = -1
        self.restored: set[tuple[int, str]] = set()  # marks that the log accounts for
        self._workers: list[Worker] = [(0, None)]  # of this moment; the last one holds
        self._again: list[tuple[int, str, _Check]] = []
        self._position, self._stream = 0, ""

    def _say(self, rule: Rule, text: str) -> None:
        self._findings.add(rule, text, self._position, self._stream)

    def _say_of(self, position: int, stream: str, rule: Rule, text: str) -> None:
        self._findings.add(rule, text, position, stream)

    def _ask_again(self, check: _Check) -> None:
        self._again.append((self._position, self._stream, check))

    def begin(self, at: int) -> None:
        """A new moment. Call before the first record of another time."""
        self.end()
        self._at = at

    def end(self) -> None:
        """The moment is over: judge what had to stand together in it."""
        again, self._again = self._again, []
        for self._position, self._stream, ask in again:
            ask(self._say)
        self._joint.end()
        self._lanes.end_moment()
        del self._workers[:-1]

    def step(self, record: Record, before: State | None, event: Any) -> State:
        """The state after the event. `before` moves on in place. Raises off the table,
        and what may be raised for events of another family."""
        self._position, self._stream = record.position, record.stream
        if type(before) is Entry:  # most of all events are of one
            return self._entry(record, before, event)
        match family(record.stream):
            case "entry":
                return self._new_entry(record, before, event)
            case "turn":
                return self._turn(record, before, event)
            case "gate":
                return self._gate(record, before, event)
            case "store":
                return self._worker(record, before, event)
            case _:
                return _plainly(record, before, event)

    def _entry(self, record: Record, before: Entry, event: Any) -> Entry:
        stream, kind, at, phase = record.stream, type(event), self._at, before.phase
        check(before, event, at, self._say)
        if not by_worker(phase, before.fence, event, self._workers[-1:]):
            facts = phase, before.fence, event, len(self._workers) - 1
            self._ask_again(partial(self._by_worker, *facts))
        if kind is o.Attempted:
            place = stream, before.lane, before.order, at
            if not self._lanes.free(*place):
                self._ask_again(partial(self._lanes.say, *place))
        # The states share the time of their moment: fewer numbers to keep.
        after = advance_entry(before, event, stream, at, record.position)
        if kind not in _STAYING:
            self._lanes.moved(after)
            if phase not in CLOSED and after.phase in CLOSED:
                self._joint.closed(stream)
            elif kind is o.Redriven:
                self._joint.redriven(stream)
        return after

    def _by_worker(
        self, phase: Phase, fence: int, event: Any, held: int, say: Say
    ) -> None:
        """`held`: the place of the worker that held the store at the event."""
        if not by_worker(phase, fence, event, self._workers[held:]):
            said = getattr(event, "fence", fence), getattr(event, "owner", None)
            say(Rule.FENCE, f"said by {said}, but the worker is {self._workers[-1]}")

    def _new_entry(self, record: Record, _before: State | None, event: Any) -> Entry:
        check_first(event, self._say)
        after = advance_entry(None, event, record.stream, self._at, record.position)
        self._lanes.begun(after)
        if isinstance(event, o.Queued):
            self._joint.queued(record.position, record.stream, event)
        return after

    def _turn(self, record: Record, before: Any, event: Any) -> Turn:
        was = None if before is None else before.phase
        self._messages.check(before, event, record.at, self._say)
        if before is not None:
            turns.check(before, event, self._say)
            if isinstance(event, t.Started):
                self._started(before, event)
        after = advance_turn(before, event, record.stream, record.at, record.position)
        self._turn_lanes.moved(was, after)
        self._joint.turn(record.position, record.stream, event)
        return after

    def _started(self, turn: Turn, event: t.Started) -> None:
        if (event.fence, event.owner) != self._workers[-1]:
            held = len(self._workers) - 1
            self._ask_again(partial(self._by_runner, event, held))
        place = turn.stream, turn.lane, turn.order
        if not turn.control and not self._turn_lanes.free(*place):
            self._ask_again(partial(self._turn_lanes.say, *place))

    def _by_runner(self, event: t.Started, held: int, say: Say) -> None:
        said = event.fence, event.owner
        if said not in self._workers[held:]:
            text = f"started by {said}, but the worker is {self._workers[-1]}"
            say(Rule.FENCE, text)

    def _gate(self, record: Record, before: State | None, event: Any) -> State:
        after = _plainly(record, before, event)
        if isinstance(after, Gate):
            self._lanes.gate(after)
        return after

    def _worker(self, record: Record, before: State | None, event: Any) -> State:
        epoch = self._workers[-1][0]
        if isinstance(event, Restored):
            self.restored.add((event.position_seen, event.hash))
        if isinstance(event, WorkerStarted):
            if event.epoch <= epoch:
                self._say(Rule.FENCE, f"epoch {event.epoch} begins after epoch {epoch}")
            self._workers.append((event.epoch, event.owner))
        return _plainly(record, before, event)


def _plainly(record: Record, before: State | None, event: Any) -> State:
    return advance(before, event, record.stream, record.at, record.position)
