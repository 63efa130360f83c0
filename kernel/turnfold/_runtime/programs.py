"""Programs: generators that yield effects, and the effects. A driver answers them.

A driver may stop before an effect, or after an effect and before the program gets its
answer. These two are all possible crashes, because only effects change anything.

A program keeps no local across iterations of its outer loop: each iteration starts from
the folded state, so the worker and its recovery are the same code. A program without
work returns the log time at which it is started again, or None.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Any

from attrs import define
from msgspec import Struct

from turnfold._decide import (
    blame,
    gates,
    inbox,
    later,
    outbox,
    outcomes,
    schedule,
    trials,
    turns,
)
from turnfold._decide.plan import Plan
from turnfold._decide.schedule import Act, Step
from turnfold._decide.turns import TurnAct, TurnStep
from turnfold._decide.unit_of_work import AttemptRef, UnitOfWork
from turnfold.enums import FailureClass, Trial
from turnfold.errors import (
    CorruptLogError,
    NotOpenError,
    OwnedError,
    StoreError,
    UsageError,
)
from turnfold.ports.channel import Accepted, Outcome, Rejected
from turnfold.ports.store import Command

Decision = Callable[[UnitOfWork], Any]


class Append(Struct):
    """Decide and commit. Answer: the decision's result. Raises the decision's error."""

    decision: Decision


@define
class Look:
    """Ask folded state, outside a transaction. Answer: the question's result."""

    question: Decision


@define
class MakePlan:
    """Run the channel's plan for a queued entry. Answer: Plan, or Rejected."""

    entry: str


@define
class Prepare:
    """Upload, open, fetch a token. Answer: Prepared, or Rejected."""

    attempt: AttemptRef


@define
class Prepared:
    value: Any = None


@define
class TakeUp:
    """Start the program of an attempt, unless this process has taken it up before."""

    attempt: AttemptRef


class Send(Struct):
    """The one visible platform call of an attempt. Answer: an Outcome, always."""

    attempt: AttemptRef


@define
class Reconcile:
    """Look up a part of an entry after an attempt. Answer: Asked; None if the entry has
    moved on."""

    entry: str
    part: int
    attempt: int


@define
class Asked:
    """`unsettled_ms`: how long an old request may still take effect; 0 when it
    cannot."""

    verdict: Any
    unsettled_ms: int = 0


@define
class Hear:
    """Log every command in the inbox, all pages of it. Raises StoreError or
    NotOpenError if the store cannot do that now: then no decision may assume that the
    inbox was read."""


@define
class Work:
    """The store is taken over: start the programs of all open streams."""


@define
class Post:
    """Put a command into the inbox of the store, as a process that is not the owner.
    Answer: Posted."""

    command: Command


@define
class CallHandler:
    """Run the embedder's handler. Answer: RunEnd."""

    turn: str
    run: int


@define
class RunEnd:
    """`how`: "returned", "raised" (a bug), "stopped" (by the kernel), "not_now",
    "never" or "unread" (the message could not be read, and the handler was not called).
    `wait_ms`: how long the handler asked to wait."""

    how: str
    detail: str = ""
    wait_ms: int | None = None


@define
class Wait:
    """Let time pass. `trouble`: the error that caused the wait, for the log."""

    ms: int
    trouble: Exception | None = None
    where: str = ""


Effect = (
    Append
    | Look
    | MakePlan
    | Prepare
    | TakeUp
    | Send
    | Reconcile
    | Hear
    | Work
    | Post
    | CallHandler
    | Wait
)
Program = Generator[Effect, Any, Any]


# --- Waiting for a store that cannot take a decision now ---


BACK_OFF_MS = 250  # short, since a store that works again should be used again


def append_until_stored(decision: Decision) -> Program:
    """Append until it is stored. For outcomes: the program keeps the platform's answer
    until the log has it, and its lane sends nothing meanwhile (A06, A09)."""
    while True:
        try:
            answer: Any = yield Append(decision)
        except (CorruptLogError, OwnedError):
            raise  # waiting does not help
        except (StoreError, NotOpenError) as exc:
            yield from back_off(exc, "outcome")
        else:
            return answer


def back_off(trouble: Exception, where: str) -> Program:
    yield Wait(BACK_OFF_MS, trouble, where)


def _answered(question: Look, where: str) -> Program:
    """The answer of a look, however long the store cannot be read: state that is not in
    memory comes from there."""
    while True:
        try:
            return (yield question)
        except (CorruptLogError, OwnedError):
            raise  # waiting does not help
        except (StoreError, NotOpenError) as exc:
            yield from back_off(exc, where)


# --- The program of a worker that has just taken its store ---


def take_over() -> Program:
    """Log the commands of the inbox, then start all open streams. A receipt or an abort
    in the inbox may forbid a send, so no attempt is made before. A store that cannot be
    read delays the start. Accounts that were held are tried again."""
    while True:
        try:
            yield Hear()
        except OwnedError:
            return
        except (StoreError, NotOpenError) as exc:
            yield from back_off(exc, "taking over")
        else:
            break
    try:
        if (yield from _answered(Look(blame.has_orphans), "taking over")):
            yield from append_until_stored(blame.bury)
        if (yield from _answered(Look(gates.gates_to_probe), "taking over")):
            yield from append_until_stored(gates.probe_gates)
    except OwnedError:
        return
    yield Work()


def probe(gate: str) -> Program:
    """A channel was attached: its account is tried, unless a person or a rate limit
    holds it."""
    try:
        yield from append_until_stored(partial(gates.probe_gates, only=gate))
    except OwnedError:
        return


# --- The program of a lane (its worker, its recovery and its timer in one), and the program ---


def lane(name: str) -> Program:
    """Do the steps of a lane until there is none now, or an attempt is under way: the
    end of the attempt moves the lane, and so starts this program again."""
    question = Look(partial(schedule.next_step, lane=name))
    while True:
        try:
            step: Step = yield from _answered(question, name)
        except OwnedError:
            return None
        try:
            match step:
                case Step(act=Act.WAIT):
                    return step.until
                case Step(act=Act.SEND, attempt=AttemptRef() as attempt):
                    yield TakeUp(attempt)
                    return None
                case Step(act=Act.PREPARE, attempt=AttemptRef() as attempt):
                    yield from _prepare(attempt, again=step.again)
                case Step(act=Act.PLAN, tried=True):
                    yield from _make_plan(step.entry)
                case _:
                    yield from _DOES[step.act](step.entry)
        except OwnedError:
            return None  # another process owns the store now
        except (StoreError, UsageError) as exc:
            # The state has moved, or the store cannot write: log it, and look again
            # after a pause.
            yield from back_off(exc, name)


def send(attempt: AttemptRef) -> Program:
    """Make exactly one Send for a dispatched attempt, and keep its outcome until it is
    recorded."""
    outcome: Outcome = yield Send(attempt)
    try:
        yield from _record(attempt, outcome)
    except OwnedError:
        if isinstance(outcome, Accepted):
            yield from _bear_witness(attempt, outcome)


def _bear_witness(attempt: AttemptRef, outcome: Accepted) -> Program:
    """Another process owns the store now: post a success as evidence. A failure is not
    recorded, since only the owner may do that (INV-5)."""
    while True:
        try:
            yield Post(inbox.receipt_command(attempt, outcome.receipt))
        except (StoreError, NotOpenError) as exc:
            yield from back_off(exc, "receipt")
        else:
            return


def expiry(entry: str) -> Program:
    """Expire an entry, at any place in its lane."""
    try:
        yield from append_until_stored(partial(outcomes.expire, stream=entry))
    except (CorruptLogError, OwnedError):
        return  # set aside in the book, shown by health


def _decided(decision: Callable[..., None]) -> Callable[[str], Program]:
    def act(entry: str) -> Program:
        yield Append(partial(decision, stream=entry))

    return act


def _resend(entry: str) -> Program:
    return _heard(partial(schedule.resend_now, stream=entry))


def _settle_doubt(entry: str) -> Program:
    return _heard(partial(outcomes.settle_doubt, stream=entry))


def _heard(decision: Decision) -> Program:
    """Read the inbox before a decision that may send a part in doubt again: a receipt,
    an abort or a person's verdict in there forbids it."""
    yield Hear()
    yield Append(decision)


def _plan(entry: str) -> Program:
    if (yield Append(_try(entry, Trial.PLAN))) is not None:
        yield from _make_plan(entry)


def _make_plan(entry: str) -> Program:
    made: Plan | Rejected = yield MakePlan(entry)
    if isinstance(made, Rejected):
        decision = partial(outcomes.refuse_plan, stream=entry, outcome=made)
        yield Append(decision)
    else:
        yield Append(partial(outbox.plan, stream=entry, made=made))


def _prepare(attempt: AttemptRef, *, again: bool) -> Program:
    """Prepare and dispatch an attempt; the commit of the dispatch hands it out.
    `again`: an older attempt of this part is in doubt."""
    ready: Prepared | Rejected = yield Prepare(attempt)
    if isinstance(ready, Rejected):
        yield from _record(attempt, ready)
        return
    if again:
        yield Hear()
    dispatch = partial(_of(attempt, schedule.dispatch), prepared=ready.value)
    if not (yield from append_until_stored(dispatch)):
        yield from append_until_stored(_of(attempt, outcomes.withdraw))


def _record(attempt: AttemptRef, outcome: Outcome) -> Program:
    decision = _of(attempt, outcomes.settle)
    return append_until_stored(partial(decision, outcome=outcome, act=attempt.act))


def _of(attempt: AttemptRef, decision: Callable[..., object]) -> Callable[..., object]:
    a = attempt
    return partial(decision, stream=a.entry, part=a.part, number=a.number)


def _try(entry: str, act: Trial) -> Decision:
    return partial(trials.begin, stream=entry, act=act)


def _look_up(entry: str) -> Program:
    place: tuple[int, int] | None = yield Append(_try(entry, Trial.LOOK_UP))
    if place is None:
        return
    asked: Asked | None = yield Reconcile(entry, *place)
    if asked is None:
        return
    decision = partial(
        outcomes.look_up,
        stream=entry,
        place=place,
        verdict=asked.verdict,
        unsettled_ms=asked.unsettled_ms,
    )
    yield from _heard(decision)


_DOES: Mapping[Act, Callable[[str], Program]] = MappingProxyType(
    {
        Act.PLAN: _plan,
        Act.ATTEMPT: _decided(schedule.attempt_now),
        Act.RESEND: _resend,
        Act.RECOVER: _decided(outcomes.recover),
        Act.LOOK_UP: _look_up,
        Act.SETTLE_DOUBT: _settle_doubt,
        Act.EXPIRE: _decided(outcomes.expire),
        Act.TOO_OLD: _decided(outcomes.end_old),
        Act.GIVE_UP: _decided(outcomes.give_up),
        Act.ABORT: _decided(outcomes.abort_now),
    }
)


# --- The programs of turns: which one starts next, one run of the handler, an orphan ---


def turn_lane(lane: str) -> Program:
    """Start the next turn of a lane, and take up a run that a death ended."""
    return _step_by_step(lane, partial(turns.next_turn, lane=lane))


def control(turn: str) -> Program:
    """The same for control input, which takes no lane and waits for no other turn."""

    def question(draft: UnitOfWork) -> TurnStep:
        return turns.turn_step(draft, draft.turn(turn))

    return _step_by_step(turn, question)


def _step_by_step(where: str, question: Decision) -> Program:
    while True:
        try:
            step: TurnStep = yield from _answered(Look(question), where)
        except OwnedError:
            return None
        try:
            match step.act:
                case TurnAct.WAIT:
                    return step.until
                case TurnAct.START:
                    yield Append(partial(turns.start, stream=step.turn))
                case TurnAct.ORPHAN:
                    yield Append(partial(blame.orphaned, stream=step.turn))
                case TurnAct.EXPIRE:
                    yield Append(partial(later.expire, stream=step.turn))
        except OwnedError:
            return None
        except (StoreError, UsageError) as exc:
            yield from back_off(exc, where)


def run(turn: str, number: int) -> Program:
    """One run of a turn. Its start was logged before this program began."""
    end: RunEnd = yield CallHandler(turn, number)
    try:
        yield from append_until_stored(_ending(end, turn, number))
    except OwnedError:
        return  # the next owner takes the turn up


def let_go(turn: str, number: int) -> Program:
    """End a run whose program was cut off: nobody else would. If the program had
    recorded its end, this changes nothing."""
    release = partial(turns.released, stream=turn, run=number, reason="cut_off")
    with suppress(OwnedError):  # the next owner takes the turn up
        yield from append_until_stored(release)


def _ending(end: RunEnd, turn: str, number: int) -> Decision:
    match end.how:
        case "returned":
            return partial(turns.returned, stream=turn, run=number)
        case "raised":
            return partial(
                turns.run_failed,
                stream=turn,
                run=number,
                failure=FailureClass.TRANSIENT,
                detail=end.detail,
            )
        case "not_now":
            wait = end.wait_ms
            return partial(turns.not_now, stream=turn, run=number, wait_ms=wait)
        case "never":
            return partial(turns.never, stream=turn, run=number, detail=end.detail)
        case "unread":
            return partial(turns.unread, stream=turn, run=number, detail=end.detail)
        case _:
            return partial(turns.released, stream=turn, run=number, reason=end.detail)
