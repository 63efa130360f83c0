"""The rules of one turn, as its events show them (specs/rules.md)."""

from collections.abc import Sequence

from turnfold.audit.entries import Say
from turnfold.audit.findings import Rule
from turnfold.events import turn as t
from turnfold.machines.entry import Entry
from turnfold.machines.turn import Turn
from turnfold.words import AbortReason, Phase, Reason, TurnOutcome

HORIZON_MS = 30 * 24 * 3_600_000  # for so long a dedupe key of a message must hold
_STOPPED = (TurnOutcome.ABORTED, TurnOutcome.SUPERSEDED)
_NOT_FAILED = (TurnOutcome.REPLIED, TurnOutcome.SILENT)


class Messages:
    """The inbound messages that became turns, each with the time of its last key."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}  # the time of each key

    def check(self, before: Turn | None, event: t.TurnEvent, at: int, say: Say) -> None:
        match event:
            case t.Accepted():
                self._once(inbound_key(event, event), at, say)
            case t.Joined() if before is not None:
                self._once(inbound_key(before, event), at, say)
            case _:
                pass

    def _once(self, key: str, at: int, say: Say) -> None:
        seen = self._seen.get(key)
        if seen is not None and at - seen < HORIZON_MS:
            say(Rule.ONE_TURN, f"the message {key} was accepted before")
        self._seen[key] = at


def check(before: Turn, event: t.TurnEvent, say: Say) -> None:
    """Say the rules that a later event of a turn breaks."""
    match event:
        case t.Started():
            _started(before, event, say)
        case t.StepStarted() | t.StepDone():
            _stepped(before, event, say)
        case t.Released() | t.RunFailed() | t.LeftOpen():
            _run_over(before, event, say)
        case t.Answered():
            _answered(before, event, say)
        case t.Completed() | t.Failed() | t.TurnAborted():
            _over(event, say)
        case t.Resubmitted():
            _resubmitted(before, say)
        case t.Unheld() if not before.held:
            say(Rule.ONE_TURN, "let go, though nothing holds it")
        case t.Amended() if event.entry not in before.finals:
            text = f"amended by {event.entry}, which is no final of it"
            say(Rule.TURN_TRUTH, text)
        case _:
            pass


def _started(before: Turn, event: t.Started, say: Say) -> None:
    if event.run != before.run + 1:
        say(Rule.ONE_TURN, f"run {event.run} follows run {before.run}")
    if before.held:
        say(Rule.ONE_TURN, "started while it was held")
    if before.abort is not None:
        say(Rule.ABORT, f"started after an abort was requested ({before.abort})")


def _same_run(before: Turn, run: int, say: Say) -> None:
    if run != before.run:
        say(Rule.ONE_TURN, f"said by run {run}, but run {before.run} is under way")


def _run_over(
    before: Turn, event: t.Released | t.RunFailed | t.LeftOpen, say: Say
) -> None:
    _same_run(before, event.run, say)
    if isinstance(event, t.LeftOpen) and before.left_open is not None:
        say(Rule.ONE_TURN, "left open a second time")


def _stepped(before: Turn, event: t.StepStarted | t.StepDone, say: Say) -> None:
    _same_run(before, event.run, say)
    steps = dict(before.steps)
    if steps.get(event.key) is not None:
        say(Rule.ONE_TURN, f"step {event.key} is done and remembered")
    elif isinstance(event, t.StepDone) and event.key not in steps:
        say(Rule.ONE_TURN, f"step {event.key} was never started")


def _answered(before: Turn, event: t.Answered, say: Say) -> None:
    _same_run(before, event.run, say)
    if bool(event.finals) == (event.silent is not None):
        say(Rule.TURN_TRUTH, "answered needs finals, or the reason of its silence")
    if len(set(event.finals)) < len(event.finals):
        say(Rule.TURN_TRUTH, "answered names a final twice")


def _over(event: t.Completed | t.Failed | t.TurnAborted, say: Say) -> None:
    match event:
        case t.Failed(outcome=outcome) if outcome in _NOT_FAILED:
            say(Rule.TURN_TRUTH, f"failed, and yet {outcome}")
        case t.TurnAborted(outcome=outcome) if outcome not in _STOPPED:
            say(Rule.TURN_TRUTH, f"aborted, and yet {outcome}")
        case _:
            pass


def _resubmitted(before: Turn, say: Say) -> None:
    if before.resubmitted:
        say(Rule.ONE_TURN, "resubmitted a second time")
    if before.finals:
        say(Rule.ONE_TURN, "resubmitted, though the outbox owns its answer")
    if before.redacted:
        say(Rule.FROZEN_PLAN, "resubmitted after its bodies were erased")


def outcome_of(finals: Sequence[Entry]) -> TurnOutcome:
    """How a turn ended, by its finals (INV-10)."""
    phases = {entry.phase for entry in finals}
    if not finals:
        return TurnOutcome.SILENT
    if phases == {Phase.DELIVERED}:
        return TurnOutcome.REPLIED
    if any(entry.receipts for entry in finals):
        return TurnOutcome.PARTIALLY_REPLIED
    if Phase.FAILED in phases:
        expired = all(entry.reason == Reason.EXPIRED for entry in finals)
        return TurnOutcome.EXPIRED if expired else TurnOutcome.FAILED
    reasons = {entry.reason for entry in finals}
    if AbortReason.SUPERSEDED in reasons:
        return TurnOutcome.SUPERSEDED
    return TurnOutcome.ABORTED if AbortReason.USER in reasons else TurnOutcome.SILENT


def inbound_key(place: t.Accepted | Turn, message: t.Accepted | t.Joined) -> str:
    """The dedupe key of a message, as the log format writes it."""
    parts = (
        place.channel,
        place.account,
        place.conversation,
        message.message_id,
        message.event,
    )
    return "/".join(p.replace("%", "%25").replace("/", "%2F") for p in parts)
