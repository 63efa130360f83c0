"""Stopping what is no longer wanted: by a user, or because something newer replaces it.

What is surely unsent is aborted in the same commit as the request. What is on the wire
or in doubt keeps its truth: it can still turn out delivered (INV-11).
"""

from turnfold import guards
from turnfold.decide.attempting import attempt_if_free
from turnfold.decide.closing import after_close, conclude
from turnfold.decide.draft import Draft
from turnfold.decide.settling import fail_entry
from turnfold.events import outbox as o
from turnfold.events import turn as t
from turnfold.frozen import frozen
from turnfold.machines.entry import Entry
from turnfold.machines.turn import Turn
from turnfold.words import AbortReason, Phase, Reason, TurnOutcome, TurnPhase

_OUTCOMES = {
    AbortReason.USER: TurnOutcome.ABORTED,
    AbortReason.SUPERSEDED: TurnOutcome.SUPERSEDED,
}


@frozen(kw_only=True)
class Abortion:
    """`aborted`: nothing more will be sent. False: too late, or still on the wire;
    `status` says where it stands."""

    aborted: bool
    status: str


def abort_entry(
    draft: Draft, stream: str, reason: AbortReason, by: str | None = None
) -> Abortion:
    entry = draft.entry(stream)
    if entry.open and entry.abort is None:
        _stop(draft, entry, reason, by)
        attempt_if_free(draft, entry.lane)
    after = draft.entry(stream)
    return Abortion(aborted=after.phase is Phase.ABORTED, status=after.status)


def _stop(draft: Draft, entry: Entry, reason: AbortReason, by: str | None) -> None:
    stream = entry.stream
    if guards.abortable_as_unsent(entry):
        after_close(draft, draft.emit(stream, o.Aborted(reason=reason, by=by)))
        return
    after = draft.emit(stream, o.AbortRequested(reason=reason, by=by))
    if after.phase is Phase.PARKED:
        fail_entry(draft, after, Reason.OUTCOME_UNKNOWN)


def abort_turn(
    draft: Draft, stream: str, reason: AbortReason, by: str | None = None
) -> Abortion:
    """Stop a turn and everything of it that is still open."""
    turn = draft.turn(stream)
    if turn.open and turn.abort is None:
        if turn.phase is TurnPhase.ANSWERED:
            _abort_answered(draft, turn, reason, by)
        else:
            outcome = _OUTCOMES.get(reason, TurnOutcome.ABORTED)
            draft.emit(stream, t.TurnAborted(outcome=outcome, by=by))
            _cascade(draft, turn, reason, by)
    after = draft.turn(stream)
    return Abortion(aborted=after.phase is TurnPhase.ABORTED, status=after.phase)


def _abort_answered(
    draft: Draft, turn: Turn, reason: AbortReason, by: str | None
) -> None:
    """The outbox owns the answer: the end of the turn follows from its entries."""
    draft.emit(turn.stream, t.TurnAbortRequested(reason=reason, by=by))
    _cascade(draft, turn, reason, by)
    if draft.turn(turn.stream).open:
        conclude(draft, turn.stream)


def _cascade(draft: Draft, turn: Turn, reason: AbortReason, by: str | None) -> None:
    lanes = set()
    for entry in list(draft.entries(turn.stream)):
        if entry.open and entry.abort is None:
            _stop(draft, entry, reason, by)
            lanes.add(entry.lane)
    for lane in sorted(lanes):
        attempt_if_free(draft, lane)
