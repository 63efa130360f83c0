"""The rules of one outbox entry, as its events show them (specs/rules.md).

This reading is written apart from `guards` and `decide`, and uses nothing of them: an
audit that asked a guard could not find that the guard is wrong. Each function says
the rules that an event breaks, given the entry as it was before the event. Whether the
transition table allows the event is asked by the fold.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from turnfold.audit import part_rules
from turnfold.audit.findings import Rule
from turnfold.events import outbox as o
from turnfold.machines.entry import Entry
from turnfold.machines.parts import SPOILED
from turnfold.words import (
    AbortReason,
    DeliveryClass,
    FailureClass,
    Kind,
    PartAct,
    Phase,
    Reason,
)

Say = Callable[[Rule, str], None]
_IN_FLIGHT = (Phase.ATTEMPTED, Phase.DISPATCHED)
_DEFERS = (
    FailureClass.NOT_CONNECTED,
    FailureClass.RATE_LIMITED,
    FailureClass.AUTH,
    FailureClass.DRAIN,
    FailureClass.STOPPED,
)
_RETRIES = (
    *_DEFERS,
    FailureClass.TRANSIENT,
    FailureClass.TARGET_MOVED,
    FailureClass.CANCELLED,
    FailureClass.OWNER_DIED,
    FailureClass.HANDLE_GONE,
    FailureClass.DECORATION,
)
# An attempt on the wire ends by the word of the platform. Time and deaths prove nothing.
_BY_REFUSAL = (
    Reason.PERMANENT,
    Reason.REFUSED,
    Reason.ATTEMPTS_EXHAUSTED,
    Reason.OUTCOME_UNKNOWN,
)
_OF_A_RUN = (Kind.BLOCK, Kind.TOOL)
_OF_SENDER = frozenset(
    {
        o.Dispatched,
        o.PartDelivered,
        o.Delivered,
        o.Deferred,
        o.FailedRetryable,
        o.OutcomeUnknown,
        o.PartRefused,
        o.FailedTerminal,
    }
)
_Outcome = (
    o.PartDelivered
    | o.Delivered
    | o.Deferred
    | o.FailedRetryable
    | o.OutcomeUnknown
    | o.Dispatched
)


def check_first(event: o.OutboxEvent, say: Say) -> None:
    """The rules that the first event of an entry breaks."""
    if not isinstance(event, o.Queued | o.Imported):
        return  # the fold refuses it
    if event.expires_at <= 0:
        say(Rule.EXPIRY, "it has no expiry")
    scoped = isinstance(event, o.Queued) and event.turn is not None
    if scoped and event.kind in _OF_A_RUN and not getattr(event, "run", None):
        say(Rule.ONE_TURN, f"a {event.kind} of a turn that names no run")


def check(before: Entry, event: o.OutboxEvent, at: int, say: Say) -> None:
    """Say the rules that a later event of an entry breaks."""
    rules = _RULES.get(type(event))
    if rules is not None:
        rules(before, event, at, say)


def _planned(before: Entry, event: o.Planned, _at: int, say: Say) -> None:
    if before.planned:
        say(Rule.FROZEN_PLAN, "planned a second time")
    if len({part.key for part in event.parts}) < len(event.parts):
        say(Rule.FROZEN_PLAN, "two parts have one key")
    if event.budget < 1:
        say(Rule.ATTEMPTS, "planned without a budget")


def _attempted(before: Entry, event: o.Attempted, at: int, say: Say) -> None:
    part_rules.act(before, event, say)
    if before.planned and event.part >= len(before.parts):
        say(Rule.FROZEN_PLAN, f"attempted part {event.part}, which it does not have")
    if event.part > before.part:
        text = f"part {event.part} attempted while part {before.part} is not settled"
        say(Rule.FROZEN_PLAN, text)
    if event.part == before.part and event.attempt != before.attempt + 1:
        text = f"attempt {event.attempt} of part {event.part} follows {before.attempt}"
        say(Rule.ATTEMPTS, text)
    if before.used >= before.budget and before.planned:
        text = f"attempted with {before.used} of {before.budget} attempts spent"
        say(Rule.ATTEMPTS, text)
    _may_go_out(before, event.part, at, "attempted", say)
    if event.part == before.part and before.doubt:
        _resent(before, event, at, say)


def _dispatched(before: Entry, event: o.Dispatched, at: int, say: Say) -> None:
    _current(before, event, say)
    _may_go_out(before, event.part, at, "dispatched", say)


def _may_go_out(before: Entry, part: int, at: int, what: str, say: Say) -> None:
    if part < before.part or before.ended(part):
        say(Rule.EVIDENCE, f"part {part} {what} again after it was settled")
    if at >= before.expires_at:
        late = at - before.expires_at
        say(Rule.EXPIRY, f"{what} {late} ms after it had expired")
    if before.abort is not None:
        say(Rule.ABORT, f"{what} after an abort was requested ({before.abort})")


def _resent(before: Entry, event: o.Attempted, at: int, say: Say) -> None:
    """A part in doubt is attempted again: under its key in time, or by a logged word."""
    if before.resend:
        if before.marked and not event.marked:
            say(Rule.NO_DOUBLE, "sent again without the mark that was decided")
        return
    if event.act is not PartAct.SEND:
        return  # it shows nothing twice: see `part_rules.act`
    part = before.parts[before.part] if before.part < len(before.parts) else None
    if part is None or DeliveryClass.KEYED not in part.classes:
        classes = ", ".join(part.classes) if part and part.classes else "blind"
        text = f"sent again while in doubt; its class is {classes} and no policy spoke"
        say(Rule.NO_DOUBLE, text)
        return
    since = at - (before.first_at if before.first_at is not None else at)
    window = part.key_window_ms
    if window is not None and 2 * since >= window:
        text = f"sent again under its key {since} ms after the first attempt"
        say(Rule.NO_DOUBLE, f"{text}; half of the key's window is {window // 2} ms")


def _current(before: Entry, event: _Outcome, say: Say) -> None:
    last = (before.part, before.attempt)
    if (event.part, event.attempt) != last:
        text = f"about part {event.part}, attempt {event.attempt}"
        say(Rule.FENCE, f"{text}; the last one is part {last[0]}, attempt {last[1]}")


def _delivered(
    before: Entry, event: o.PartDelivered | o.Delivered, _at: int, say: Say
) -> None:
    _current(before, event, say)
    if event.suppressed is not None or event.by is not None:
        return  # the channel shows nothing, or a person says so: there is no receipt
    _receipt(before, event.receipt, say)
    if not event.looked_up and before.phase not in _IN_FLIGHT:
        say(Rule.FENCE, f"delivered in phase {before.phase}, when nobody was sending")


def _receipt(before: Entry, receipt: tuple[str, ...], say: Say) -> None:
    if before.ids and not (receipt and all(receipt)):
        say(Rule.NO_LOSS, "called delivered without the platform's receipt")


def _late(before: Entry, event: o.LateReceipt, _at: int, say: Say) -> None:
    _receipt(before, event.receipt, say)
    if event.part >= len(before.parts):
        say(Rule.EVIDENCE, f"a receipt for part {event.part}, which it does not have")
    if not 1 <= event.attempt <= before.made(event.part):
        text = f"a receipt for part {event.part}, attempt {event.attempt}"
        say(Rule.FENCE, f"{text}, which never began")


def _not_delivered(
    before: Entry,
    event: o.Deferred | o.FailedRetryable | o.OutcomeUnknown,
    _at: int,
    say: Say,
) -> None:
    _current(before, event, say)
    why = event.cause if isinstance(event, o.OutcomeUnknown) else event.failure
    died = why == FailureClass.OWNER_DIED
    if isinstance(event, o.Deferred):
        _proven(event.failure, _DEFERS, say)
    elif isinstance(event, o.FailedRetryable):
        if before.doubtful:
            text = "called `not accepted` while an older attempt is in doubt"
            say(Rule.NO_DOUBLE, text)
        _proven(event.failure, _RETRIES, say)
        if died and before.phase is Phase.DISPATCHED:
            say(
                Rule.NO_DOUBLE,
                "its sender died on the wire, yet it is called not sent",
            )


def _proven(failure: FailureClass, allowed: tuple[FailureClass, ...], say: Say) -> None:
    """An attempt is called not accepted."""
    if failure not in allowed:
        say(Rule.NO_LOSS, f"put off for {failure}, which is no reason to try again")


def _ended(before: Entry, event: o.FailedTerminal, at: int, say: Say) -> None:
    reason, unknown = event.reason, event.reason is Reason.OUTCOME_UNKNOWN
    if before.doubtful and not unknown:
        say(Rule.EXPIRY, f"ended as {reason}, though it may have been delivered")
    if before.phase is Phase.DISPATCHED:
        if reason not in _BY_REFUSAL:
            say(Rule.EXPIRY, f"ended as {reason} while it was on the wire")
    elif unknown and not before.doubtful:
        say(Rule.EXPIRY, "ended as outcome_unknown, though nothing is in doubt")
    if reason is Reason.PARTIAL and (before.part < before.count or not before.spoiled):
        say(Rule.TURN_TRUTH, "ended as partial, though parts are left to be sent")
    if reason is Reason.EXPIRED and at < before.expires_at:
        text = f"expired {before.expires_at - at} ms before its time"
        say(Rule.EXPIRY, text)
    if reason is Reason.ATTEMPTS_EXHAUSTED and before.used < before.budget:
        left = before.budget - before.used
        say(Rule.ATTEMPTS, f"ended as attempts_exhausted with {left} attempts left")


def _looked_up(before: Entry, event: o.Reconciled, _at: int, say: Say) -> None:
    if event.part != before.part:
        say(Rule.FENCE, f"a look-up of part {event.part}, not of part {before.part}")
    part = before.parts[before.part] if before.part < len(before.parts) else None
    if part is None or DeliveryClass.LOOKUP not in part.classes:
        say(Rule.NO_DOUBLE, "a look-up where nothing can be looked up")


def _redriven(before: Entry, event: o.Redriven, at: int, say: Say) -> None:
    unknown = before.doubtful or before.reason == Reason.OUTCOME_UNKNOWN
    if unknown and not event.accept_duplicate:
        say(Rule.NO_DOUBLE, "redriven out of doubt, and no duplicate was accepted")
    if before.redacted:
        say(Rule.FROZEN_PLAN, "redriven after its bodies were erased")
    if event.expires_at <= at:
        say(Rule.EXPIRY, "redriven with an expiry in the past")
    if event.budget < 1:
        say(Rule.ATTEMPTS, "redriven without a budget")
    spoiled = [s for s in before.others if s.end in SPOILED]
    known = {part.key for part in before.parts}
    fresh = len(set(event.keys)) == len(spoiled) and not known.intersection(event.keys)
    if not fresh or len(event.keys) != len(spoiled):
        text = "redriven without a new key for each part that was refused or bounced"
        say(Rule.NO_DOUBLE, text)


def _aborted(before: Entry, event: o.Aborted, _at: int, say: Say) -> None:
    if before.doubtful:
        say(Rule.ABORT, "aborted, though an attempt of it is in doubt")
    if event.reason is AbortReason.RERUN and before.kind not in _OF_A_RUN:
        say(Rule.ONE_TURN, f"aborted for a rerun, but a {before.kind} is of no run")


Worker = tuple[int, str | None]  # its epoch and owner


def by_worker(
    phase: Phase, fence: int, event: o.OutboxEvent, workers: Sequence[Worker]
) -> bool:
    """True if an event is of a worker that may write it (INV-5).

    `phase` and `fence`: of the entry before the event. `workers`: the one that held the
    store at the event, and those that began later in the same moment.
    """
    kind: Any = type(event)
    if kind is o.Attempted or kind is o.Tried:
        said: Any = event
        return (said.fence, said.owner) in workers
    if kind not in _OF_SENDER or phase not in _IN_FLIGHT:
        return True
    current = fence == workers[-1][0]
    if _died(event):
        return not current
    return current or _of_no_sender(event) or any(fence == w[0] for w in workers)


def _died(event: o.OutboxEvent) -> bool:
    match event:
        case o.OutcomeUnknown():
            return event.cause == FailureClass.OWNER_DIED
        case o.FailedRetryable():
            return event.failure is FailureClass.OWNER_DIED
        case _:
            return False


def _of_no_sender(event: o.OutboxEvent) -> bool:
    """A look-up, a person, a plan that shows nothing, or the end of the entry's time."""
    match event:
        case o.PartDelivered() | o.Delivered():
            by_other = event.by is not None or event.suppressed is not None
            return event.looked_up or by_other
        case o.FailedTerminal():
            return event.reason is not Reason.PERMANENT
        case _:
            return False


_RULES: Mapping[type, Callable[[Entry, Any, int, Say], None]] = MappingProxyType(
    {
        o.Planned: _planned,
        o.Attempted: _attempted,
        o.Dispatched: _dispatched,
        o.PartDelivered: _delivered,
        o.Delivered: _delivered,
        o.Deferred: _not_delivered,
        o.FailedRetryable: _not_delivered,
        o.OutcomeUnknown: _not_delivered,
        o.Reconciled: _looked_up,
        o.FailedTerminal: _ended,
        o.Aborted: _aborted,
        o.LateReceipt: _late,
        o.Redriven: _redriven,
        o.Resolved: part_rules.resolved,
        o.Placed: part_rules.placed,
        o.Doubted: part_rules.doubted,
        o.PartRefused: part_rules.refused,
        o.AmendedPart: part_rules.amended,
        o.Bounced: part_rules.bounced,
    }
)
