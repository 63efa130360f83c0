"""The program of a lane: its worker, its recovery and its timer in one."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from turnfold.decide import attempting, enqueuing, settling
from turnfold.decide.attempting import Act, Step
from turnfold.decide.draft import Draft
from turnfold.effects import (
    Append,
    Asked,
    Leg,
    Look,
    MakePlan,
    Prepare,
    Prepared,
    Program,
    Reconcile,
    Send,
)
from turnfold.errors import CorruptLogError, StoreError, UsageError
from turnfold.planning import Plan
from turnfold.ports.channel import Outcome, Rejected
from turnfold.programs.patience import insist, rest
from turnfold.words import Phase


def lane(name: str) -> Program:
    """Do what the lane needs until it needs nothing now."""
    question = Look(partial(attempting.next_step, lane=name))
    while True:
        step: Step = yield question
        if step.act is Act.WAIT:
            return step.until
        try:
            if step.leg is None:
                yield from _DOES[step.act](step.entry)
            elif (yield from _carry(step.leg)):
                return None  # the lane has moved, and is started again if need be
        except (StoreError, UsageError) as exc:
            # Decided on a state that has moved, or a store that cannot write: look
            # again in a while, and say so.
            yield from rest(exc, name)


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


_NOTHING = Prepared()


def _carry(leg: Leg) -> Program:
    """Ours and durable: exactly one Send for this attempt, and its outcome kept until
    it is recorded. True if the log has moved by it."""
    prepared = _NOTHING
    if leg.phase is Phase.ATTEMPTED:
        ready: Prepared | Rejected = yield Prepare(leg)
        if isinstance(ready, Rejected):
            return (yield from _record(leg, ready))
        prepared = ready
        if not (yield from insist(_at(leg, attempting.dispatch))):
            yield from insist(_at(leg, settling.withdraw))
            return False
    outcome: Outcome = yield Send(leg, prepared.value)
    return (yield from _record(leg, outcome))


def _at(leg: Leg, decision: Callable[..., object]) -> Callable[[Draft], object]:
    return partial(decision, stream=leg.entry, part=leg.part, number=leg.attempt)


def _record(leg: Leg, outcome: Outcome) -> Program:
    return insist(
        partial(
            settling.settle,
            stream=leg.entry,
            part=leg.part,
            number=leg.attempt,
            outcome=outcome,
        )
    )


def _ask(entry: str) -> Program:
    leg: Leg = yield Look(partial(attempting.leg_of, stream=entry))
    asked: Asked = yield Reconcile(leg)
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
        Act.ASK: _ask,
        Act.SETTLE_DOUBT: _decided(settling.settle_doubt),
        Act.EXPIRE: _decided(settling.expire),
        Act.GIVE_UP: _decided(settling.give_up),
        Act.ABORT: _decided(settling.abort_now),
    }
)
