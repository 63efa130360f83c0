"""The rules that the audit checks event by event (specs/rules.md): the order of lanes,
the events of one turn, and `StreamRules`, which leads each event to its rules.

The order of a lane is that of the first events. A notice has its place behind the entry
that it tells of (INV-8)."""

from collections import deque
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._log.canonical import Record
from turnfold._log.events import Restored, WorkerStarted
from turnfold._log.ids import gates_of
from turnfold._state.entry import Entry
from turnfold._state.entry_fold import advance as advance_entry
from turnfold._state.fold import PERSON, Gate, State, advance, family
from turnfold._state.turn import Turn
from turnfold._state.turn import advance as advance_turn
from turnfold.audit.entry_rules import Say, Worker, by_worker, check_entry, check_queued
from turnfold.audit.findings import Findings, Rule
from turnfold.audit.joint import Find, Joint
from turnfold.enums import CLOSED, Phase, TurnOutcome, TurnPhase

Place = tuple[int, int]  # as `Entry.place`
_WAITING = (TurnPhase.ACCEPTED, TurnPhase.RUNNING)


# --- Lanes ---


class Lanes:
    """The streams of each lane that hold later ones back, in their order. A stream that
    left does not come back: after a reopening it holds no other stream back."""

    def __init__(self) -> None:
        self._holding: dict[str, Place] = {}
        self._rows: dict[str, deque[str]] = {}  # the first of each row holds the others

    def ahead_of(self, stream: str, lane: str, place: Place) -> str | None:
        """The stream that should have gone before this one."""
        row = self._rows.get(lane)
        if row is None or row[0] == stream:
            return None
        return row[0] if self._holding[row[0]] < place else None

    def join(self, stream: str, lane: str, place: Place) -> None:
        self._holding[stream] = place
        row = self._rows.get(lane)
        if row is None:
            self._rows[lane] = deque((stream,))
        else:
            row.append(stream)
            if place[0] < place[1]:
                waiting = filter(self._holding.__contains__, row)
                self._rows[lane] = deque(sorted(waiting, key=self._holding.__getitem__))

    def leave(self, stream: str, lane: str) -> None:
        """Let a stream leave. From the middle of a row it is removed only when it is
        the first: so a long row costs no more than a short one."""
        if self._holding.pop(stream, None) is None:
            return
        row = self._rows[lane]
        while row and row[0] not in self._holding:
            row.popleft()
        if not row:
            del self._rows[lane]


class EntryLanes(Lanes):
    """A lane is sent in order, unless its head yielded, and only while its gates are
    open."""

    def __init__(self) -> None:
        super().__init__()
        self._gates: dict[str, Gate] = {}  # the closed ones
        self._opened: set[str] = set()  # gates that were also open in this moment

    def gate(self, gate: Gate) -> None:
        before = self._gates.get(gate.stream)
        if gate.closed:
            if before is None or not before.holds(gate.updated):
                self._opened.add(gate.stream)
            self._gates[gate.stream] = gate
        else:
            self._gates.pop(gate.stream, None)

    def free(self, stream: str, lane: str, place: Place, at: int) -> bool:
        """True if an entry may be attempted."""
        if self.ahead_of(stream, lane, place) is not None:
            return False
        return not self._gates or self._closed(lane, at) is None

    def _closed(self, lane: str, at: int) -> str | None:
        """A gate of the lane that was closed during the whole moment: the log does not
        show whether an attempt was decided before or after a gate closed."""
        if lane.count("/") != 3:
            return None
        closed = (self._gates[name] for name in self._gates_of(lane))
        return next((gate.stream for gate in closed if gate.holds(at)), None)

    def _gates_of(self, lane: str) -> Iterator[str]:
        names = gates_of(lane)
        return (n for n in names if n in self._gates and n not in self._opened)

    def end_moment(self) -> None:
        self._opened.clear()

    def say(self, stream: str, lane: str, place: Place, at: int, say: Say) -> None:
        """Report the obstacles of an attempt."""
        head, gate = self.ahead_of(stream, lane, place), self._closed(lane, at)
        if head is not None:
            say(Rule.LANE_ORDER, f"attempted before {head}, which has not yielded")
        if gate is not None:
            say(Rule.GATE, f"attempted while {gate} is closed")

    def begun(self, entry: Entry) -> None:
        if entry.open:
            self.join(entry.stream, entry.lane, entry.place)

    def moved(self, entry: Entry) -> None:
        """Call after each event that may end the wait of other entries."""
        if entry.yielded or entry.phase in CLOSED:
            self.leave(entry.stream, entry.lane)


class TurnLanes(Lanes):
    """The turns of a lane run one at a time, in order. Control input takes no lane."""

    def __init__(self) -> None:
        super().__init__()
        self._running: dict[str, set[str]] = {}

    def free(self, stream: str, lane: str, order: int) -> bool:
        """True if a turn may be started."""
        others = self._running.get(lane, set()) - {stream}
        return not others and self.ahead_of(stream, lane, (order, order)) is None

    def say(self, stream: str, lane: str, order: int, say: Say) -> None:
        """Report the obstacles of a start."""
        head = self.ahead_of(stream, lane, (order, order))
        if head is not None:
            say(Rule.TURN_LANE, f"started before {head} was answered")
        for other in self._running.get(lane, set()) - {stream}:
            say(Rule.TURN_LANE, f"started while {other} runs in its lane")

    def moved(self, before: TurnPhase | None, after: Turn) -> None:
        """Call after each event of a turn, with its phase before the event."""
        if after.control:
            return
        if before is None:
            self.join(after.stream, after.lane, (after.order, after.order))
        elif after.phase not in _WAITING or after.held or after.left_open is not None:
            self.leave(after.stream, after.lane)
        if after.phase is TurnPhase.RUNNING and after.left_open is None:
            self._running.setdefault(after.lane, set()).add(after.stream)
        elif before is TurnPhase.RUNNING:
            running = self._running.get(after.lane, set())
            running.discard(after.stream)
            if not running:
                self._running.pop(after.lane, None)


# --- The rules of one turn, checked on its events (specs/rules.md) ---


HORIZON_MS = 30 * 24 * 3_600_000  # how long a message's dedupe key must hold
_STOPPED = (TurnOutcome.ABORTED, TurnOutcome.SUPERSEDED)
_NOT_FAILED = (TurnOutcome.REPLIED, TurnOutcome.SILENT)


class Messages:
    """The inbound messages that became turns, by key, with the time of the last one."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}  # the time of each key

    def check(self, before: Turn | None, event: t.TurnEvent, at: int, say: Say) -> None:
        match event:
            case t.Dead() if (event.copy > 0) != (event.differs is not None):
                say(Rule.ONE_TURN, "a copy, and only a copy, differs from another turn")
            case t.Accepted() | t.Dead():
                self._once(inbound_key(event, event), at, say)
            case t.Joined() if before is not None:
                self._once(inbound_key(before, event), at, say)
            case _:
                pass

    def _once(self, key: str | None, at: int, say: Say) -> None:
        if key is None:
            return
        seen = self._seen.get(key)
        if seen is not None and at - seen < HORIZON_MS:
            say(Rule.ONE_TURN, f"the message {key} was accepted before")
        self._seen[key] = at


def check_turn(before: Turn, event: t.TurnEvent, say: Say) -> None:
    """Report the rules that a later event of a turn breaks."""
    match event:
        case t.Started():
            _started(before, event, say)
        case t.Joined() if before.run:
            say(Rule.ONE_TURN, f"joined after run {before.run} had begun")
        case t.StepStarted() | t.StepDone():
            _stepped(before, event, say)
        case t.Released() | t.RunFailed() | t.LeftOpen():
            _run_over(before, event, say)
        case t.Answered():
            _answered(before, event, say)
        case t.Completed() | t.Failed() | t.TurnAborted():
            _over(event, say)
        case t.Resubmitted():
            _resubmitted(before, say)
        case t.Unheld() if not before.held:
            say(Rule.ONE_TURN, "let go, though nothing holds it")
        case t.Amended() if event.entry not in before.finals:
            text = f"amended by {event.entry}, which is no final of it"
            say(Rule.TURN_TRUTH, text)
        case _:
            pass


def _started(before: Turn, event: t.Started, say: Say) -> None:
    if event.run != before.run + 1:
        say(Rule.ONE_TURN, f"run {event.run} follows run {before.run}")
    if before.held:
        say(Rule.ONE_TURN, "started while it was held")
    if before.abort is not None:
        say(Rule.ABORT, f"started after an abort was requested ({before.abort})")


def _same_run(before: Turn, run: int, say: Say) -> None:
    if run != before.run:
        say(Rule.ONE_TURN, f"said by run {run}, but run {before.run} is under way")


def _run_over(
    before: Turn, event: t.Released | t.RunFailed | t.LeftOpen, say: Say
) -> None:
    _same_run(before, event.run, say)
    died = isinstance(event, t.Released) and event.reason == "owner_died"
    if isinstance(event, t.Released) and event.beside is not None and not died:
        say(Rule.TRANSITION, "only a death has something beside it")
    if isinstance(event, t.LeftOpen) and before.left_open is not None:
        say(Rule.ONE_TURN, "left open a second time")


def _stepped(before: Turn, event: t.StepStarted | t.StepDone, say: Say) -> None:
    _same_run(before, event.run, say)
    steps = dict(before.steps)
    if steps.get(event.key) is not None:
        say(Rule.ONE_TURN, f"step {event.key} is done and remembered")
    elif isinstance(event, t.StepDone) and event.key not in steps:
        say(Rule.ONE_TURN, f"step {event.key} was never started")


def _answered(before: Turn, event: t.Answered, say: Say) -> None:
    _same_run(before, event.run, say)
    if bool(event.finals) == (event.silent is not None):
        say(Rule.TURN_TRUTH, "answered needs finals, or the reason of its silence")
    if len(set(event.finals)) < len(event.finals):
        say(Rule.TURN_TRUTH, "answered names a final twice")


def _over(event: t.Completed | t.Failed | t.TurnAborted, say: Say) -> None:
    match event:
        case t.Failed(outcome=outcome) if outcome in _NOT_FAILED:
            say(Rule.TURN_TRUTH, f"failed, and yet {outcome}")
        case t.TurnAborted(outcome=outcome) if outcome not in _STOPPED:
            say(Rule.TURN_TRUTH, f"aborted, and yet {outcome}")
        case _:
            pass


def _resubmitted(before: Turn, say: Say) -> None:
    if before.resubmitted:
        say(Rule.ONE_TURN, "resubmitted a second time")
    if before.finals:
        say(Rule.ONE_TURN, "resubmitted, though the outbox owns its answer")
    if before.redacted:
        say(Rule.FROZEN_PLAN, "resubmitted after its bodies were erased")


def inbound_key(
    place: t.Accepted | t.Dead | Turn, message: t.Accepted | t.Dead | t.Joined
) -> str | None:
    """The dedupe key of a message in the log format; None without one."""
    parts = [place.channel, place.account]
    if message.key is not None:
        parts += ["", message.key]
    elif not message.message_id or not place.conversation:
        return None
    else:
        parts += [place.conversation, message.message_id, message.event]
        parts += [] if message.revision is None else [message.revision]
    if isinstance(message, t.Dead) and message.copy:
        parts += ["", str(message.copy)]
    return "/".join(p.replace("%", "%25").replace("/", "%2F") for p in parts)


# --- Event by event: the rules that each one breaks in its stream ---


# From an open phase to an open one: no lane and no turn depends on these.
_STAYING = frozenset({o.Planned, o.Attempted, o.Dispatched})
_ENDING = (o.PartDelivered, o.PartRefused)  # a part, and not its entry


_Check = Callable[[Say], None]


class StreamRules:
    """`step` reports the rules that an event breaks, which says more than "illegal
    event", and folds the event in. Each family of streams has its own method.

    The streams of one commit have no order among each other. So a rule between streams
    that looks broken is checked again when the moment is over.
    """

    def __init__(self, findings: Findings, find: Find, aside: Collection[str]) -> None:
        self._findings = findings
        self._lanes, self._turn_lanes = EntryLanes(), TurnLanes()
        self._messages = Messages()
        self._joint = Joint(find, aside, self._say_of)
        self._at = -1
        self.restored: set[tuple[int, str]] = set()  # marks that the log explains
        self._workers: list[Worker] = [(0, None)]  # of this moment; the last one works
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
        """The moment is over: judge the events that had to come together in it."""
        again, self._again = self._again, []
        for self._position, self._stream, ask in again:
            ask(self._say)
        self._joint.end()
        self._lanes.end_moment()
        del self._workers[:-1]

    def step(self, record: Record, before: State | None, event: Any) -> State:
        """The state after the event; `before` is changed in place. Raises for an event
        that the table does not allow, and any of UNFOLDABLE for an event of another
        family."""
        self._position, self._stream = record.position, record.stream
        if type(before) is Entry:  # most events belong to an entry
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
        check_entry(before, event, at, self._say)
        if not by_worker(phase, before.fence, event, self._workers[-1:]):
            facts = phase, before.fence, event, len(self._workers) - 1
            self._ask_again(partial(self._by_worker, *facts))
        if kind is o.Attempted:
            place = stream, before.lane, before.place, at
            if not self._lanes.free(*place):
                self._ask_again(partial(self._lanes.say, *place))
        # The states share one time object per moment, which saves memory.
        after = advance_entry(before, event, stream, at, record.position)
        if kind is o.Planned and before.live:
            self._joint.sealed(record.position, stream)
        if kind not in _STAYING:
            self._moved(record, phase, after, kind)
        return after

    def _moved(self, record: Record, phase: Phase, after: Entry, kind: type) -> None:
        """`phase`: the one before the event."""
        self._lanes.moved(after)
        if phase not in CLOSED and after.phase in CLOSED:
            self._joint.closed(record.stream)
        elif kind is o.Redriven:
            self._joint.redriven(record.position, record.stream)
        elif kind in _ENDING:
            self._joint.part_ended(record.position, record.stream)

    def _by_worker(
        self, phase: Phase, fence: int, event: Any, held: int, say: Say
    ) -> None:
        """`held`: the index of the worker at the event."""
        if not by_worker(phase, fence, event, self._workers[held:]):
            said = getattr(event, "fence", fence), getattr(event, "owner", None)
            say(Rule.FENCE, f"said by {said}, but the worker is {self._workers[-1]}")

    def _new_entry(self, record: Record, _before: State | None, event: Any) -> Entry:
        check_queued(event, record.position, self._say)
        after = advance_entry(None, event, record.stream, self._at, record.position)
        self._lanes.begun(after)
        if isinstance(event, o.Queued):
            self._joint.queued(record.position, record.stream, event)
        return after

    def _turn(self, record: Record, before: Any, event: Any) -> Turn:
        was = None if before is None else before.phase
        self._messages.check(before, event, record.at, self._say)
        if before is not None:
            check_turn(before, event, self._say)
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
        if isinstance(before, Gate) and _held(before) and not event.by:
            self._say(Rule.GATE, "a person closed this gate, and only one opens it")
        after = _plainly(record, before, event)
        if isinstance(after, Gate):
            self._lanes.gate(after)
        return after

    def _worker(self, record: Record, before: State | None, event: Any) -> State:
        epoch = self._workers[-1][0]
        if isinstance(event, Restored):
            self.restored.add((event.position_seen, event.hash))
            if event.by is not None and event.position_seen != event.position_found:
                seen, found = event.position_seen, event.position_found
                text = (
                    f"a person declared it, and it names two positions: {seen}, {found}"
                )
                self._say(Rule.MARK, text)
        if isinstance(event, WorkerStarted):
            if event.epoch <= epoch:
                self._say(Rule.FENCE, f"epoch {event.epoch} begins after epoch {epoch}")
            self._workers.append((event.epoch, event.owner))
        return _plainly(record, before, event)


def _held(gate: Gate) -> bool:
    return gate.closed and gate.until is None and gate.reason == PERSON


def _plainly(record: Record, before: State | None, event: Any) -> State:
    return advance(before, event, record.stream, record.at, record.position)
