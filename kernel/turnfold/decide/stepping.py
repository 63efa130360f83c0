"""Side effects that a handler remembers, so that a later run does not repeat them."""

from turnfold import canonical
from turnfold.decide.draft import Draft
from turnfold.decide.running import check_run
from turnfold.events import turn as t
from turnfold.frozen import frozen


@frozen
class StepState:
    """`done` with the digest of its result; neither: begun by an earlier run that did
    not live to say how it went."""

    begun_before: bool
    done: bool = False
    result: str | None = None


def begin_step(draft: Draft, stream: str, run: int, key: str) -> StepState:
    turn = check_run(draft, stream, run)
    known = dict(turn.steps)
    if known.get(key) is not None:
        return StepState(begun_before=True, done=True, result=known[key])
    if key in known:
        return StepState(begun_before=True)
    draft.emit(stream, t.StepStarted(run=run, key=key))
    return StepState(begun_before=False)


def end_step(draft: Draft, stream: str, run: int, key: str, result: object) -> None:
    check_run(draft, stream, run)
    digest = draft.body(stream, canonical.dumps(result))
    draft.emit(stream, t.StepDone(run=run, key=key, result=digest))
