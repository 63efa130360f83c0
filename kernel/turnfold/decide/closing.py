"""What follows from the end of an entry: the lane moves on, its turn may be over.

All of it in the commit that closed the entry (INV-10), so that no crash can come
between the end of a reply and the end of its turn (A18).
"""

from turnfold import guards
from turnfold.decide.draft import Draft
from turnfold.decide.queueing import Intent, queue
from turnfold.events import outbox as o
from turnfold.events import turn as t
from turnfold.machines.entry import Entry
from turnfold.machines.turn import Turn
from turnfold.names import reply_entry
from turnfold.packing import pack
from turnfold.payloads import Route, Text
from turnfold.words import (
    AbortReason,
    Kind,
    Phase,
    Reason,
    TurnOutcome,
    TurnPhase,
)

# What the user is told, by why the reply was not delivered. What may have arrived is
# never called undelivered, and where the conversation is gone nobody would read it.
_NOTICE = {
    Reason.PERMANENT: "undeliverable",
    Reason.ATTEMPTS_EXHAUSTED: "undeliverable",
}
_WHY = {
    TurnOutcome.ABORTED: AbortReason.USER,
    TurnOutcome.SUPERSEDED: AbortReason.SUPERSEDED,
}
_NO_ONE_THERE = ("permission", "target_gone")


def after_close(draft: Draft, entry: Entry) -> None:
    """Call when this draft has parked or closed an entry."""
    let_pass(draft, entry)
    if entry.turn is None:
        return
    stream = entry.stream
    turn = draft.find_turn(entry.turn)
    if turn is None or stream not in turn.finals:
        return
    if turn.phase is TurnPhase.ANSWERED:
        conclude(draft, turn.stream)
    elif turn.phase.closed and entry.phase.closed:
        amend(draft, turn, stream)


def let_pass(draft: Draft, entry: Entry) -> None:
    if entry.phase not in (Phase.PARKED, Phase.FAILED) or entry.yielded:
        return
    if draft.settings.yield_closed:
        draft.emit(entry.stream, o.LaneYielded(reason=entry.phase.status))


def conclude(draft: Draft, stream: str) -> None:
    """End an answered turn if all its final entries are closed."""
    turn = draft.turn(stream)
    finals = [draft.entry(name) for name in turn.finals]
    if turn.phase is not TurnPhase.ANSWERED or any(e.open for e in finals):
        return
    outcome = outcome_of(finals)
    match outcome:
        case TurnOutcome.FAILED | TurnOutcome.EXPIRED:
            reason = next((e.reason for e in finals if e.reason), "failed")
            fail(draft, stream, outcome, reason, _notice_for(finals))
        case TurnOutcome.ABORTED | TurnOutcome.SUPERSEDED:
            draft.emit(stream, t.TurnAborted(outcome=outcome, by=turn.abort_by))
            _stop_the_rest(draft, turn, _WHY[outcome])
        case _:
            draft.emit(stream, t.Completed(outcome=outcome))


def _stop_the_rest(draft: Draft, turn: Turn, reason: AbortReason) -> None:
    """Nothing more of an aborted turn goes out: its blocks and tools stop, too, also
    when it was its reply alone that a user stopped (INV-11)."""
    for name in draft.entries_of(turn.stream):
        entry = draft.entry(name)
        if not entry.open or entry.abort is not None:
            continue
        if guards.abortable_as_unsent(entry):
            draft.emit(name, o.Aborted(reason=reason, by=turn.abort_by))
        else:
            draft.emit(name, o.AbortRequested(reason=reason, by=turn.abort_by))


def outcome_of(finals: list[Entry]) -> TurnOutcome:
    """INV-10: how a turn ended follows from its final entries alone."""
    if not finals:
        return TurnOutcome.SILENT
    if all(e.phase is Phase.DELIVERED for e in finals):
        return TurnOutcome.REPLIED
    if any(e.receipts for e in finals):
        return TurnOutcome.PARTIALLY_REPLIED
    if any(e.phase is Phase.FAILED for e in finals):
        expired = all(e.reason == Reason.EXPIRED for e in finals)
        return TurnOutcome.EXPIRED if expired else TurnOutcome.FAILED
    if any(e.reason == AbortReason.SUPERSEDED for e in finals):
        return TurnOutcome.SUPERSEDED
    if any(e.reason == AbortReason.USER for e in finals):
        return TurnOutcome.ABORTED
    return TurnOutcome.SILENT  # all suppressed


def _notice_for(finals: list[Entry]) -> str | None:
    for entry in finals:
        if entry.failure in _NO_ONE_THERE:
            return None
        if entry.reason in _NOTICE:
            return _NOTICE[Reason(entry.reason)]
    return None


def amend(draft: Draft, turn: Turn, stream: str) -> None:
    """A final entry of a turn that was over has changed. What was aborted after a
    redrive leaves the turn as it had failed; but where a part had arrived, an abort of
    the rest and then a bounce of this part leave nothing that was replied."""
    outcome = outcome_of([draft.entry(name) for name in turn.finals])
    stays = outcome in _WHY and turn.phase is not TurnPhase.COMPLETED
    if outcome is not turn.outcome and not stays:
        draft.emit(turn.stream, t.Amended(outcome=outcome, entry=stream))


def fail(
    draft: Draft, stream: str, outcome: TurnOutcome, reason: str, notice: str | None
) -> None:
    """End a turn without a reply; the user's notice is queued in the same commit."""
    turn = draft.turn(stream)
    told = _queue_notice(draft, turn, notice) if notice else None
    draft.emit(stream, t.Failed(outcome=outcome, reason=reason, notice=told))


def _queue_notice(draft: Draft, turn: Turn, notice: str) -> str | None:
    text = draft.settings.notices.get(notice)
    name = reply_entry(turn.stream, Kind.NOTICE, turn.run, "notice")
    if not text or draft.find_entry(name) is not None:
        return None
    route = Route(
        channel=turn.channel,
        account=turn.account,
        conversation=turn.conversation,
        thread=turn.thread,
        reply_to=turn.message_id,
    )
    packed = (pack(Text(text)),)
    intent = Intent(
        entry=name, route=route, kind=Kind.NOTICE, packed=packed, turn=turn.stream
    )
    queue(draft, intent)
    return name
