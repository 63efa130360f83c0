"""The program of a lane (its worker, its recovery and its timer in one), and the program
of one attempt."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from turnfold.decide import attempting, enqueuing, settling
from turnfold.decide.attempting import Act, Step
from turnfold.decide.draft import AttemptRef
from turnfold.effects import (
    Append,
    Asked,
    Look,
    MakePlan,
    Prepare,
    Prepared,
    Program,
    Reconcile,
    Send,
    TakeUp,
)
from turnfold.errors import CorruptLogError, StoreError, UsageError
from turnfold.planning import Plan
from turnfold.ports.channel import Outcome, Rejected
from turnfold.programs.patience import insist, rest


def lane(name: str) -> Program:
    """Do what the lane needs until it needs nothing now, or an attempt is under way:
    the end of that moves the lane, and so starts this program again."""
    question = Look(partial(attempting.next_step, lane=name))
    while True:
        step: Step = yield question
        try:
            match step:
                case Step(act=Act.WAIT):
                    return step.until
                case Step(act=Act.SEND, attempt=AttemptRef() as attempt):
                    yield TakeUp(attempt)
                    return None
                case Step(act=Act.PREPARE, attempt=AttemptRef() as attempt):
                    yield from _prepare(attempt)
                case _:
                    yield from _DOES[step.act](step.entry)
        except (StoreError, UsageError) as exc:
            # Decided on a state that has moved, or a store that cannot write: look
            # again in a while, and say so.
            yield from rest(exc, name)


def send(attempt: AttemptRef) -> Program:
    """Ours and announced: exactly one Send for this attempt, and its outcome is kept in
    hand until it is recorded."""
    outcome: Outcome = yield Send(attempt)
    yield from _record(attempt, outcome)


def expiry(entry: str) -> Program:
    """An entry whose time is over, wherever it stands in its lane."""
    try:
        yield from insist(partial(settling.expire, stream=entry))
    except CorruptLogError:
        return  # set aside in the book, shown by health


def _decided(decision: Callable[..., None]) -> Callable[[str], Program]:
    def act(entry: str) -> Program:
        yield Append(partial(decision, stream=entry))

    return act


def _plan(entry: str) -> Program:
    made: Plan | Rejected = yield MakePlan(entry)
    if isinstance(made, Rejected):
        decision = partial(settling.refuse_plan, stream=entry, outcome=made)
        yield Append(decision)
    else:
        yield Append(partial(enqueuing.plan, stream=entry, made=made))


def _prepare(attempt: AttemptRef) -> Program:
    """Dispatch what could be prepared; its commit hands the attempt out."""
    ready: Prepared | Rejected = yield Prepare(attempt)
    if isinstance(ready, Rejected):
        yield from _record(attempt, ready)
        return
    dispatch = partial(_of(attempt, attempting.dispatch), prepared=ready.value)
    if not (yield from insist(dispatch)):
        yield from insist(_of(attempt, settling.withdraw))


def _record(attempt: AttemptRef, outcome: Outcome) -> Program:
    return insist(partial(_of(attempt, settling.settle), outcome=outcome))


def _of(attempt: AttemptRef, decision: Callable[..., object]) -> Callable[..., object]:
    a = attempt
    return partial(decision, stream=a.entry, part=a.part, number=a.number)


def _look_up(entry: str) -> Program:
    asked: Asked = yield Reconcile(entry)
    yield Append(
        partial(
            settling.look_up,
            stream=entry,
            verdict=asked.verdict,
            unsettled_ms=asked.unsettled_ms,
        )
    )


_DOES: Mapping[Act, Callable[[str], Program]] = MappingProxyType(
    {
        Act.PLAN: _plan,
        Act.ATTEMPT: _decided(attempting.attempt_now),
        Act.RECOVER: _decided(settling.recover),
        Act.LOOK_UP: _look_up,
        Act.SETTLE_DOUBT: _decided(settling.settle_doubt),
        Act.EXPIRE: _decided(settling.expire),
        Act.GIVE_UP: _decided(settling.give_up),
        Act.ABORT: _decided(settling.abort_now),
    }
)
