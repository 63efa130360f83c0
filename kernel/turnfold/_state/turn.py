"""The state machine of a turn (specs/design.md 5): table, state, fold. Rules as in entry.py."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from attrs import define

from turnfold._log import events as t
from turnfold._state.transitions import Row, illegal, targets
from turnfold.enums import (
    ACCEPTED,
    ANSWERED,
    CLOSED_TURNS,
    RUNNING,
    AbortReason,
    TurnOutcome,
    TurnPhase,
)

COMPLETED, FAILED, ABORTED = TurnPhase.COMPLETED, TurnPhase.FAILED, TurnPhase.ABORTED


def _to(*phases: TurnPhase) -> frozenset[TurnPhase]:
    return frozenset(phases)


_CLOSED: Row = {t.Amended: _to(COMPLETED, FAILED, ANSWERED)}
TRANSITIONS: Mapping[TurnPhase | None, Row] = MappingProxyType(
    {
        None: {t.Accepted: _to(ACCEPTED), t.Dead: _to(FAILED)},
        ACCEPTED: {
            t.Joined: _to(ACCEPTED),
            t.Started: _to(RUNNING),
            t.Failed: _to(FAILED),
            t.TurnAbortRequested: _to(ACCEPTED),
            t.TurnAborted: _to(ABORTED),
            t.Held: _to(ACCEPTED),
            t.Unheld: _to(ACCEPTED),
        },
        RUNNING: {
            t.StepStarted: _to(RUNNING),
            t.StepDone: _to(RUNNING),
            t.LeftOpen: _to(RUNNING),
            t.Released: _to(ACCEPTED),
            t.RunFailed: _to(ACCEPTED),
            t.Answered: _to(ANSWERED),
            t.Failed: _to(FAILED),
            t.TurnAbortRequested: _to(RUNNING),
            t.TurnAborted: _to(ABORTED),
            t.Held: _to(ACCEPTED),
        },
        ANSWERED: {
            t.Completed: _to(COMPLETED),
            t.Failed: _to(FAILED),
            t.TurnAbortRequested: _to(ANSWERED),
            t.TurnAborted: _to(ABORTED),
        },
        COMPLETED: {**_CLOSED, t.TurnRedacted: _to(COMPLETED)},
        FAILED: {**_CLOSED, t.Resubmitted: _to(ACCEPTED), t.TurnRedacted: _to(FAILED)},
        ABORTED: {**_CLOSED, t.TurnRedacted: _to(ABORTED)},
    }
)
DIED = "owner_died"  # the reason of a release by the death of a process
UNREAD = "unread"  # the reason of a turn with an unreadable update
_GOOD = frozenset(
    {TurnOutcome.REPLIED, TurnOutcome.PARTIALLY_REPLIED, TurnOutcome.SILENT}
)


@define
class Turn:
    """The fold of a turn's log. `failed_runs` counts against the limit of runs.
    `first`: its first event, for rarely used facts."""

    stream: str
    version: int
    phase: TurnPhase
    order: int
    created: int
    updated: int
    channel: str
    account: str
    conversation: str
    message_id: str
    event: str
    lane: str
    body: str
    first: t.Accepted | t.Dead
    thread: str | None = None
    control: bool = False
    joined: tuple[t.Joined, ...] = ()  # merged messages
    run: int = 0
    failed_runs: int = 0
    fence: int = 0
    owner: str | None = None
    due: int | None = None
    steps: tuple[tuple[str, str | None], ...] = ()  # key, result (none: in doubt)
    finals: tuple[str, ...] = ()
    silent: str | None = None
    outcome: TurnOutcome | None = None
    reason: str | None = None
    notice: str | None = None
    abort: AbortReason | None = None
    abort_by: str | None = None
    held: bool = False
    passed: bool = False  # was held, and later turns of its lane did not wait for it
    dead: bool = False  # its update was unreadable, or had the key of another message
    left_open: int | None = None  # log ms until which its answer may come by its id
    resubmitted: bool = False
    reopened: bool = False  # a final was redriven after its end: no run speaks for it
    forgiven: int = 0  # messages of runs up to this one count as not seen
    redacted: bool = False  # its bodies are erased
    bodies: int = 0  # body numbers used by its events
    deaths: int = 0  # of processes that ran it, in a row
    suspects: int = 0  # turns that may have caused the last death; 0: no death
    alone: int = 0  # deaths with nothing else under way, since a person let it run

    @property
    def asked(self) -> int:
        """Log ms at which the message was durable: it may have lain in the inbox."""
        first = self.first
        waited = first.waited_ms if isinstance(first, t.Accepted) else 0
        return self.created - waited

    def copied(self) -> "Turn":
        """A copy for the fold to change. Written out, since every decided event needs
        one: a copy through the constructor takes more than twice as long."""
        new = object.__new__(Turn)
        new.stream = self.stream
        new.version = self.version
        new.phase = self.phase
        new.order = self.order
        new.created = self.created
        new.updated = self.updated
        new.channel = self.channel
        new.account = self.account
        new.conversation = self.conversation
        new.message_id = self.message_id
        new.event = self.event
        new.lane = self.lane
        new.body = self.body
        new.first = self.first
        new.thread = self.thread
        new.control = self.control
        new.joined = self.joined
        new.run = self.run
        new.failed_runs = self.failed_runs
        new.fence = self.fence
        new.owner = self.owner
        new.due = self.due
        new.steps = self.steps
        new.finals = self.finals
        new.silent = self.silent
        new.outcome = self.outcome
        new.reason = self.reason
        new.notice = self.notice
        new.abort = self.abort
        new.abort_by = self.abort_by
        new.held = self.held
        new.passed = self.passed
        new.dead = self.dead
        new.left_open = self.left_open
        new.resubmitted = self.resubmitted
        new.reopened = self.reopened
        new.forgiven = self.forgiven
        new.redacted = self.redacted
        new.bodies = self.bodies
        new.deaths = self.deaths
        new.suspects = self.suspects
        new.alone = self.alone
        return new

    @property
    def on_trial(self) -> bool:
        """Was the turn the only suspect of its last death, after earlier deaths?"""
        return self.suspects == 1 and self.deaths > 1

    @property
    def open(self) -> bool:
        return self.phase not in CLOSED_TURNS


def evolve(
    turn: Turn | None, event: t.TurnEvent, stream: str, at: int, position: int
) -> Turn:
    """The state after one more event. Raises off the table and changes nothing."""
    return advance(turn and turn.copied(), event, stream, at, position)


def advance(
    turn: Turn | None, event: t.TurnEvent, stream: str, at: int, position: int
) -> Turn:
    """As `evolve`, in place: only for a state that no other code holds. The state must
    not be used after an error."""
    phase = None if turn is None else turn.phase
    allowed = targets(TRANSITIONS, phase, type(event), stream)
    if turn is None:
        turn = _born(event, stream, at, position)
    else:
        (_USUAL.get(type(event)) or _moved)(turn, event)
        turn.updated = at
    if turn.phase not in allowed:
        raise illegal(TRANSITIONS, phase, type(event), stream)
    turn.version += 1
    return turn


def _born(event: t.TurnEvent, stream: str, at: int, position: int) -> Turn:
    """A new turn, before its first event is counted in its version."""
    assert isinstance(event, t.Accepted | t.Dead)  # noqa: S101  by the table
    turn = Turn(
        stream=stream,
        version=0,
        phase=ACCEPTED,
        order=position,
        created=at,
        updated=at,
        channel=event.channel,
        account=event.account,
        conversation=event.conversation,
        message_id=event.message_id,
        event=event.event,
        lane=event.lane,
        body=event.body,
        first=event,
        thread=event.thread,
    )
    turn.control = event.control
    if isinstance(event, t.Accepted):
        turn.due = event.due
    else:
        turn.phase, turn.dead = FAILED, True
        turn.reason = UNREAD if event.differs is None else "differs"
        turn.outcome = TurnOutcome.FAILED
    return turn


def _moved(turn: Turn, event: t.TurnEvent) -> None:  # noqa: PLR0915  a case per event
    """Set the fields that an event changes."""
    match event:
        case t.Accepted() | t.Dead():
            pass  # the table excludes both
        case t.Joined():
            turn.joined = (*turn.joined, event)
            turn.due = turn.due if event.due is None else event.due
        case t.Started() | t.Answered() | t.Completed():
            _USUAL[type(event)](turn, event)
        case t.StepStarted():
            turn.steps = _step(turn, event.key, None)
        case t.StepDone():
            turn.steps = _step(turn, event.key, event.result)
        case t.LeftOpen():
            turn.left_open = event.until
        case t.Released():
            turn.phase = ACCEPTED
            turn.reason = event.reason
            turn.due = event.due
            _suspect(turn, event)
        case t.RunFailed():
            turn.deaths = turn.suspects = 0
            turn.phase = ACCEPTED
            turn.failed_runs = turn.failed_runs + 1
            turn.due = event.due
            turn.reason = event.failure
        case t.Failed():
            turn.phase = FAILED
            turn.outcome = event.outcome
            turn.reason = event.reason
            turn.notice = event.notice or turn.notice
            if event.reason == UNREAD:  # no run began; a person may try again
                turn.resubmitted = False
        case t.TurnAbortRequested():
            turn.abort = event.reason
            turn.abort_by = event.by
        case t.TurnAborted():
            turn.phase = ABORTED
            turn.outcome = event.outcome
        case t.Amended():
            turn.phase = _amended(event.outcome)
            turn.outcome = event.outcome
            if event.outcome is None:
                _reopened(turn)
        case t.Held():
            turn.phase = ACCEPTED
            turn.held = True
            turn.passed = True
            turn.reason = event.reason
            turn.left_open = None
        case t.Unheld():
            turn.held = False
            turn.deaths = turn.suspects = turn.alone = 0
        case t.Resubmitted():
            turn.phase = ACCEPTED
            turn.failed_runs = 0
            turn.deaths = turn.suspects = turn.alone = 0
            turn.due = None
            turn.outcome = None
            turn.resubmitted = True
            turn.forgiven = turn.run
        case t.TurnRedacted():
            turn.redacted = True


def _started(turn: Turn, event: t.Started) -> None:
    turn.phase = RUNNING
    turn.run = event.run
    turn.fence = event.fence
    turn.owner = event.owner
    turn.due = turn.left_open = None


def _answered(turn: Turn, event: t.Answered) -> None:
    turn.deaths = turn.suspects = 0
    turn.phase = ANSWERED
    turn.finals = event.finals
    turn.silent = event.silent


def _completed(turn: Turn, event: t.Completed) -> None:
    turn.phase = COMPLETED
    turn.outcome = event.outcome
    turn.notice = event.notice or turn.notice


# The events of every turn, found at once, as those of every entry (entry_fold.py).
_USUAL: Mapping[type[Any], Callable[[Turn, Any], None]] = {
    t.Started: _started,
    t.Answered: _answered,
    t.Completed: _completed,
}


def _suspect(turn: Turn, event: t.Released) -> None:
    """A death makes the turn a suspect. Any other end of a run clears it."""
    died = event.reason == DIED
    turn.deaths = turn.deaths + 1 if died else 0
    turn.suspects = event.suspects if died else 0
    turn.alone += event.beside == 0


def _reopened(turn: Turn) -> None:
    """Its end is taken back, and an abort with it. Its notice stays: it may have been
    read."""
    turn.reopened = True
    turn.reason = turn.abort = turn.abort_by = None


def _amended(outcome: TurnOutcome | None) -> TurnPhase:
    if outcome is None:
        return ANSWERED
    return COMPLETED if outcome in _GOOD else FAILED


def _step(
    turn: Turn, key: str, result: str | None
) -> tuple[tuple[str, str | None], ...]:
    others = tuple(step for step in turn.steps if step[0] != key)
    return (*others, (key, result))
