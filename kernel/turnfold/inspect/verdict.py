"""What to tell somebody who wrote and waits for an answer: one sentence."""

from collections.abc import Sequence

from turnfold.inspect.views import EntryView, Next
from turnfold.machines.turn import Turn
from turnfold.words import Phase, TurnOutcome, TurnPhase


def verdict(turn: Turn, entries: Sequence[EntryView], next_: Next) -> str:
    """`entries`: all of the turn; `next_`: what happens next with it."""
    finals = [e for e in entries if e.id in turn.finals]
    match turn.phase:
        case TurnPhase.ACCEPTED | TurnPhase.RUNNING:
            return f"the message arrived and has no answer yet: {next_.text}"
        case TurnPhase.ANSWERED:
            return f"there is an answer, but it is not through: {next_.text}"
        case TurnPhase.COMPLETED | TurnPhase.FAILED | TurnPhase.ABORTED:
            return _over(turn, finals) + _notice(turn, entries)


def _over(turn: Turn, finals: Sequence[EntryView]) -> str:
    sent = sum(e.delivered for e in finals)
    parts = sum(len(e.parts) for e in finals)
    match turn.outcome:
        case TurnOutcome.REPLIED:
            receipts = [i for e in finals for p in e.parts for i in p.receipt]
            shown = f" (receipt {', '.join(receipts)})" if receipts else ""
            return f"answered: the platform accepted all {parts} part(s){shown}"
        case TurnOutcome.PARTIALLY_REPLIED:
            return f"answered in part: {sent} of {parts} part(s) got through"
        case TurnOutcome.SILENT:
            return f"no answer was meant ({turn.silent or turn.reason or 'suppressed'})"
        case TurnOutcome.EXPIRED:
            return "there was an answer, but its time was over before it got through"
        case TurnOutcome.ABORTED | TurnOutcome.SUPERSEDED:
            return f"it was stopped ({turn.outcome}) before an answer got through"
        case TurnOutcome.FAILED | None:
            return _failed(turn, finals)


def _failed(turn: Turn, finals: Sequence[EntryView]) -> str:
    if not finals:
        return f"there is no answer: {turn.reason or 'failed'}"
    if any(e.doubt and e.phase is not Phase.DELIVERED for e in finals):
        return "there was an answer; whether it arrived is not known"
    return f"there was an answer, but it did not get through ({turn.reason})"


def _notice(turn: Turn, entries: Sequence[EntryView]) -> str:
    told = next((e for e in entries if e.id == turn.notice), None)
    if told is None:
        return ""
    return f"; the user's notice is {told.status}"
