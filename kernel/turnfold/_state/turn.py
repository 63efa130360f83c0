"""The state machine of a turn (specs/design.md 5): table, state, fold. Rules as in entry.py."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from turnfold._log import events as t
from turnfold._log.frozen import frozen
from turnfold._state.transitions import (
    Row,
    assign,
    beginner,
    copier,
    illegal,
    targets,
)
from turnfold.enums import AbortReason, TurnOutcome, TurnPhase

ACCEPTED, RUNNING, ANSWERED = TurnPhase.ACCEPTED, TurnPhase.RUNNING, TurnPhase.ANSWERED
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
        FAILED: {
            **_CLOSED,
            t.Resubmitted: _to(ACCEPTED),
            t.TurnRedacted: _to(FAILED),
        },
        ABORTED: {**_CLOSED, t.TurnRedacted: _to(ABORTED)},
    }
)
_GOOD = frozenset(
    {TurnOutcome.REPLIED, TurnOutcome.PARTIALLY_REPLIED, TurnOutcome.SILENT}
)


@frozen(kw_only=True)
class Turn:
    """The fold of a turn's log. `failed_runs` counts against the limit of runs."""

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
    thread: str | None = None
    control: bool = False
    joined: tuple[str, ...] = ()  # bodies of merged messages
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
    dead: bool = False  # nobody could read it
    left_open: int | None = None  # its answer comes from elsewhere, until then
    resubmitted: bool = False
    forgiven: int = 0  # what runs up to this one have shown does not count any more
    redacted: bool = False  # its bodies are erased
    bodies: int = 0  # numbers of bodies that its events have used up

    @property
    def open(self) -> bool:
        return not self.phase.closed


def evolve(
    turn: Turn | None, event: t.TurnEvent, stream: str, at: int, position: int
) -> Turn:
    """The state after one more event. Raises off the table and changes nothing."""
    return advance(turn and copier(Turn)(turn), event, stream, at, position)


def advance(
    turn: Turn | None, event: t.TurnEvent, stream: str, at: int, position: int
) -> Turn:
    """As `evolve`, in place: for a state that nobody else holds. What is left of it
    when this raises must not be used."""
    phase = turn.phase if turn else None
    allowed = targets(TRANSITIONS, phase, type(event), stream)
    after: Any = turn  # frozen for everybody else
    if turn is None:
        after = _born(event, stream, at, position)
    else:
        _moved(turn, after, event)
        after.updated = at
    if after.phase not in allowed:
        raise illegal(TRANSITIONS, phase, type(event), stream)
    after.version += 1
    moved: Turn = after
    return moved


def _born(event: t.TurnEvent, stream: str, at: int, position: int) -> Turn:
    assert isinstance(event, t.Accepted | t.Dead)  # noqa: S101  by the table
    first: Any = type(event)
    born: Any = beginner(Turn, first)(event)
    assign(born, stream=stream, version=0, order=position, created=at, updated=at)
    if isinstance(event, t.Dead):
        assign(born, phase=FAILED, dead=True, reason="dead")
        born.outcome = TurnOutcome.FAILED
    else:
        born.phase = ACCEPTED
    made: Turn = born
    return made


def _moved(turn: Turn, to: Any, event: t.TurnEvent) -> None:
    """Set the fields that an event changes. `to` is `turn`, to be written."""
    match event:
        case t.Accepted() | t.Dead():
            pass  # the table lets neither get here
        case t.Joined():
            to.joined = (*turn.joined, event.body)
        case t.Started():
            to.phase = RUNNING
            to.run = event.run
            to.fence = event.fence
            to.owner = event.owner
            to.due = to.left_open = None
        case t.StepStarted():
            to.steps = _step(turn, event.key, None)
        case t.StepDone():
            to.steps = _step(turn, event.key, event.result)
        case t.LeftOpen():
            to.left_open = event.until
        case t.Released():
            assign(to, phase=ACCEPTED, reason=event.reason, due=event.due)
        case t.RunFailed():
            assign(
                to,
                phase=ACCEPTED,
                failed_runs=turn.failed_runs + 1,
                due=event.due,
                reason=event.failure,
            )
        case t.Answered():
            to.phase = ANSWERED
            to.finals = event.finals
            to.silent = event.silent
        case t.Completed():
            to.phase = COMPLETED
            to.outcome = event.outcome
        case t.Failed():
            assign(
                to,
                phase=FAILED,
                outcome=event.outcome,
                reason=event.reason,
                notice=event.notice,
            )
        case t.TurnAbortRequested():
            assign(to, abort=event.reason, abort_by=event.by)
        case t.TurnAborted():
            assign(to, phase=ABORTED, outcome=event.outcome)
        case t.Amended():
            assign(to, phase=_amended(event.outcome), outcome=event.outcome)
        case t.Held():
            assign(to, phase=ACCEPTED, held=True, passed=True, reason=event.reason)
            to.left_open = None
        case t.Unheld():
            to.held = False
        case t.Resubmitted():
            assign(
                to,
                phase=ACCEPTED,
                failed_runs=0,
                due=None,
                outcome=None,
                resubmitted=True,
                forgiven=turn.run,
            )
        case t.TurnRedacted():
            to.redacted = True


def _amended(outcome: TurnOutcome | None) -> TurnPhase:
    if outcome is None:
        return ANSWERED
    return COMPLETED if outcome in _GOOD else FAILED


def _step(
    turn: Turn, key: str, result: str | None
) -> tuple[tuple[str, str | None], ...]:
    others = tuple(step for step in turn.steps if step[0] != key)
    return (*others, (key, result))
