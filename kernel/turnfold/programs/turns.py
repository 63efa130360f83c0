"""The programs of turns: which one starts next, one run of the handler, an orphan."""

from functools import partial

from turnfold.decide import running
from turnfold.decide.draft import Draft
from turnfold.decide.running import TurnAct, TurnStep
from turnfold.effects import Append, CallHandler, Decision, Look, Program, RunEnd
from turnfold.errors import OwnedError, StoreError, UsageError
from turnfold.programs.patience import insist, rest
from turnfold.words import FailureClass


def turns(lane: str) -> Program:
    """Start what may start in a lane of turns, and take up what a death left."""
    return _step_by_step(lane, partial(running.next_turn, lane=lane))


def control(turn: str) -> Program:
    """The same for control input, which takes no lane and waits for nobody."""

    def question(draft: Draft) -> TurnStep:
        return running.turn_step(draft, draft.turn(turn))

    return _step_by_step(turn, question)


def _step_by_step(where: str, question: Decision) -> Program:
    while True:
        step: TurnStep = yield Look(question)
        try:
            match step.act:
                case TurnAct.WAIT:
                    return step.until
                case TurnAct.START:
                    yield Append(partial(running.start, stream=step.turn))
                case TurnAct.ORPHAN:
                    yield Append(partial(running.orphaned, stream=step.turn))
        except OwnedError:
            return None
        except (StoreError, UsageError) as exc:
            yield from rest(exc, where)


def run(turn: str, number: int) -> Program:
    """One run. It was started in the log before this program exists."""
    end: RunEnd = yield CallHandler(turn, number)
    try:
        yield from insist(_ending(end, turn, number))
    except OwnedError:
        return  # the next owner takes the turn up


def _ending(end: RunEnd, turn: str, number: int) -> Decision:
    match end.how:
        case "returned":
            return partial(running.returned, stream=turn, run=number)
        case "raised":
            return partial(
                running.run_failed,
                stream=turn,
                run=number,
                failure=FailureClass.TRANSIENT,
                detail=end.detail,
            )
        case _:
            return partial(running.released, stream=turn, run=number, reason=end.detail)
