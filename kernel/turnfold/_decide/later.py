"""A turn that is left open: its run ends without an answer. The answer comes later, by
the turn's id.

From `left_open` on, no run may answer the turn and no new run starts. The wait ends
with the answer, with an abort, or at the time that the handler has named.
"""

from turnfold._decide import rules
from turnfold._decide.outbox import Enqueued, Intent, conclude, enqueue, fail
from turnfold._decide.schedule import attempt_if_free
from turnfold._decide.turns import check_run
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._log import events as t
from turnfold.enums import TurnOutcome
from turnfold.errors import AlreadyRepliedError, StaleRunError


def leave_open(draft: UnitOfWork, stream: str, run: int, within_ms: int) -> None:
    """Record that a run left its turn open. The run is over for the turn, even if the
    handler has not returned."""
    turn = check_run(draft, stream, run)
    if rules.not_answered(turn) and turn.left_open is None:
        draft.emit(stream, t.LeftOpen(run=run, until=draft.now + within_ms))


def answer(draft: UnitOfWork, stream: str, intent: Intent) -> Enqueued:
    """The reply of a turn that was left open, once."""
    turn = draft.turn(stream)
    if intent.entry in turn.finals:
        first = enqueue(draft, intent)
        if first.differs:
            raise AlreadyRepliedError(turn=stream, entry=first.entry_id)
        return first
    if not rules.waits_for_answer(turn):
        why = turn.abort or turn.outcome or f"it is {turn.phase}, and not left open"
        raise StaleRunError(turn=stream, run=turn.run, why=str(why))
    owned = enqueue(draft, intent)
    draft.emit(stream, t.Answered(run=turn.run, finals=(intent.entry,)))
    conclude(draft, stream)
    return owned


def expire(draft: UnitOfWork, stream: str) -> None:
    """No answer came in time: the turn ends, and its reader gets a notice."""
    turn = draft.turn(stream)
    if rules.waits_for_answer(turn) and rules.wait_is_over(turn, draft.now):
        fail(draft, stream, TurnOutcome.EXPIRED, "left_open", "runs_exhausted")
        notice = draft.turn(stream).notice
        if notice:
            attempt_if_free(draft, draft.entry(notice).lane)
