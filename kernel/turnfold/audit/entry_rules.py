"""The rules of parts that have a placeholder, or that end one by one (specs/rules.md).

It uses no code of `_decide`, so that the audit does not share its mistakes.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from turnfold._log import outbox_events as o
from turnfold._state import entry
from turnfold._state.entry import SPOILED, Entry
from turnfold.audit.findings import Rule
from turnfold.enums import (
    AbortReason,
    DeliveryClass,
    FailureClass,
    Kind,
    PartAct,
    PartEnd,
    Phase,
    Reason,
    TrialEnd,
)

Say = Callable[[Rule, str], None]
_NEVER = (
    FailureClass.PERMISSION,
    FailureClass.TARGET_GONE,
    FailureClass.TOO_LONG,
    FailureClass.INVALID_PAYLOAD,
)
_IN_FLIGHT = (Phase.ATTEMPTED, Phase.DISPATCHED)


def act(before: Entry, event: o.Attempted, say: Say) -> None:
    """The rules that the call of an attempt breaks: a send, a placeholder, or an edit of it."""
    kind = event.act
    if not before.planned and kind is not PartAct.PLACEHOLDER:
        say(Rule.FROZEN_PLAN, "attempted before its parts were frozen")
        return
    if event.part != before.part or before.part >= before.count:
        return  # another rule reports it
    classes = before.classes if before.planned else event.classes
    if kind is not PartAct.SEND and DeliveryClass.EDITABLE not in classes:
        say(Rule.NO_DOUBLE, f"{kind} of a part that cannot be edited")
    if bool(before.handle) != (kind is PartAct.EDIT):
        stands = "stands" if before.handle else "does not stand"
        say(Rule.NO_DOUBLE, f"{kind}, though its placeholder {stands}")
    third = before.doubt and before.remade and not before.resend
    if kind is PartAct.PLACEHOLDER and third:
        say(Rule.NO_DOUBLE, "an empty placeholder was made again a second time")
    whole = before.doubt and before.act is PartAct.SEND and not before.resend
    if kind is PartAct.PLACEHOLDER and whole:
        say(Rule.NO_DOUBLE, "a placeholder beside a part that may be there whole")


def placed(before: Entry, event: o.Placed, _at: int, say: Say) -> None:
    if not event.handle or not all(event.handle):
        say(Rule.NO_LOSS, "called placed without a handle")
    if not 1 <= event.attempt <= before.made(event.part):
        text = f"placed by attempt {event.attempt} of part {event.part}"
        say(Rule.FENCE, f"{text}, which never began")
    if event.stray or event.part >= before.count:
        return
    state = entry.known(before.others, event.part)
    handle = before.handle if event.part == before.part else state and state.handle
    if before.ended(event.part) or handle:
        say(Rule.EVIDENCE, f"part {event.part} placed, though it needs no placeholder")
    if (
        before.planned
        and DeliveryClass.EDITABLE not in before.parts[event.part].classes
    ):
        say(Rule.NO_DOUBLE, f"part {event.part} placed, but it cannot be edited")
    if before.phase not in (Phase.DISPATCHED, Phase.IN_DOUBT):
        say(Rule.FENCE, f"placed in phase {before.phase}, when no placeholder was out")
    last = (before.part, before.attempt, PartAct.PLACEHOLDER)
    current = (event.part, event.attempt, before.act) == last
    if before.phase is Phase.DISPATCHED and not current:
        text = f"placed by attempt {event.attempt} of part {event.part}"
        say(Rule.FENCE, f"{text}, which is not the placeholder under way")


def refused(before: Entry, event: o.PartRefused, _at: int, say: Say) -> None:
    if event.part >= before.count or before.ended(event.part):
        say(Rule.EVIDENCE, f"part {event.part} refused, and it is not open")
    if event.failure not in _NEVER:
        say(Rule.NO_LOSS, f"refused for {event.failure}, which may pass")
    if before.doubtful:
        say(Rule.NO_DOUBLE, "called refused while an older attempt is in doubt")
    last = (before.part, before.attempt)
    if before.phase in _IN_FLIGHT and (event.part, event.attempt) != last:
        text = f"attempt {event.attempt} of part {event.part} is called refused"
        say(Rule.FENCE, f"{text}; the last one is {last[1]} of part {last[0]}")


def amended(before: Entry, event: o.AmendedPart, _at: int, say: Say) -> None:
    open_part = event.part < before.count and not before.ended(event.part)
    if not before.planned or not open_part:
        say(Rule.FROZEN_PLAN, f"part {event.part} was changed, and it is not open")
    if before.phase is Phase.IN_DOUBT:
        here = open_part and event.part == before.part
        if here and event.key != before.parts[event.part].key:
            say(Rule.NO_DOUBLE, "a part in doubt goes out again under another key")
        if not here:
            say(Rule.FROZEN_PLAN, f"part {event.part} was changed, and is not in doubt")
    elif any(part.key == event.key for part in before.parts):
        say(Rule.NO_DOUBLE, "a new body goes out under a key that was used")
    if open_part and event.dropped in before.parts[event.part].dropped:
        say(Rule.FROZEN_PLAN, f"part {event.part} goes without {event.dropped} already")


def resolved(before: Entry, event: o.Resolved, _at: int, say: Say) -> None:
    state = entry.known(before.others, event.part)
    here = event.part == before.part and before.doubt
    if not here and not (state is not None and state.doubt):
        say(Rule.NO_DOUBLE, f"part {event.part} resolved, and it is not in doubt")
    frozen = before.policy_of(event.part)
    if event.by.startswith("policy:") and event.by != f"policy:{frozen}":
        say(Rule.NO_DOUBLE, f"{event.by} spoke, but the plan says {frozen}")
    if event.expires_at is not None and event.expires_at <= before.expires_at:
        say(Rule.EXPIRY, "a word about a part in doubt takes time from its entry")


def doubted(before: Entry, _event: o.Doubted, _at: int, say: Say) -> None:
    here = len(before.parts) if before.planned else before.count
    if before.part >= here:  # a plan without parts has no doubt
        say(Rule.NO_DOUBLE, "called in doubt, though each part has ended")


def bounced(before: Entry, event: o.Bounced, _at: int, say: Say) -> None:
    state = entry.known(before.others, event.part)
    if state is None or state.end is not PartEnd.DELIVERED:
        say(Rule.EVIDENCE, f"part {event.part} bounced and was never accepted")


# --- The rules of one outbox entry, checked on its events (specs/rules.md) ---


_DEFERS = (
    FailureClass.NOT_CONNECTED,
    FailureClass.RATE_LIMITED,
    FailureClass.AUTH,
    FailureClass.DRAIN,
    FailureClass.STOPPED,
    FailureClass.TRANSIENT,
)
_RETRIES = (
    FailureClass.TARGET_MOVED,
    FailureClass.CANCELLED,
    FailureClass.OWNER_DIED,
    FailureClass.HANDLE_GONE,
    FailureClass.DECORATION,
)
# Only the platform's answer ends an attempt on the wire. Time and deaths prove nothing.
_BY_REFUSAL = (
    Reason.PERMANENT,
    Reason.REFUSED,
    Reason.ATTEMPTS_EXHAUSTED,
    Reason.OUTCOME_UNKNOWN,
)
_SHOWN = (PartEnd.DELIVERED, PartEnd.BOUNCED)
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


def check_queued(event: o.OutboxEvent, position: int, say: Say) -> None:
    """The rules that the first event of an entry breaks."""
    if not isinstance(event, o.Queued | o.Imported):
        return  # the fold refuses it
    if event.expires_at <= 0:
        say(Rule.EXPIRY, "it has no expiry")
    if isinstance(event, o.Queued) and event.turn is not None:
        scoped = event.run if event.run is not None else event.key
        if event.kind in _OF_A_RUN and not scoped:
            say(Rule.ONE_TURN, f"a {event.kind} of a turn, without a run or a key")
    if isinstance(event, o.Queued) and event.behind:
        if event.cause is None:
            say(Rule.LANE_ORDER, "no notice, and not at the end of its lane")
        if event.behind >= position:
            say(Rule.LANE_ORDER, "a notice behind an entry that comes later")


def check_entry(before: Entry, event: o.OutboxEvent, at: int, say: Say) -> None:
    """Report the rules that a later event of an entry breaks."""
    rules = _RULES.get(type(event))
    if rules is not None:
        rules(before, event, at, say)


def _planned(before: Entry, event: o.Planned, _at: int, say: Say) -> None:
    if before.planned:
        say(Rule.FROZEN_PLAN, "planned a second time")
    if len({part.key for part in event.parts}) < len(event.parts):
        say(Rule.FROZEN_PLAN, "two parts have one key")
    if not event.parts:
        say(Rule.FROZEN_PLAN, "planned without a part")
    if any(part.dropped for part in event.parts):
        say(Rule.FROZEN_PLAN, "planned without a decoration, before any was refused")
    if event.budget < 1:
        say(Rule.ATTEMPTS, "planned without a budget")


def _attempted(before: Entry, event: o.Attempted, at: int, say: Say) -> None:
    act(before, event, say)
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
    """A part in doubt is attempted again: under its key inside the window, or by a
    logged decision."""
    if before.resend:
        if before.marked and not event.marked:
            say(Rule.NO_DOUBLE, "sent again without the mark that was decided")
        return
    if event.act is not PartAct.SEND:
        return  # no reader sees it twice: see `act`
    part = before.parts[before.part] if before.part < len(before.parts) else None
    if part is None or DeliveryClass.KEYED not in part.classes:
        classes = ", ".join(part.classes) if part and part.classes else "blind"
        text = f"sent again while in doubt; its class is {classes} and no policy allowed it"
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
        return  # suppressed, or declared by a person: no receipt
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
        # A part in doubt goes on without its refused decoration; that proves nothing.
        also = (FailureClass.DECORATION,) if before.doubtful else ()
        _proven(event.failure, (*_DEFERS, *also), say)
    elif isinstance(event, o.FailedRetryable):
        if before.doubtful:
            text = "called `not accepted` while an older attempt is in doubt"
            say(Rule.NO_DOUBLE, text)
        _proven(event.failure, _RETRIES, say)
        if died and before.phase is Phase.DISPATCHED:
            say(
                Rule.NO_DOUBLE, "its sender died on the wire, yet it is called not sent"
            )


def _proven(failure: FailureClass, allowed: tuple[FailureClass, ...], say: Say) -> None:
    """An attempt is logged as not accepted: check the failure."""
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
    if before.part >= before.count and before.phase is Phase.QUEUED:
        said = Reason.PARTIAL if before.receipts else Reason.REFUSED
        if reason is not said:
            say(Rule.TURN_TRUTH, f"all parts have ended: that is {said}, not {reason}")
    _in_time(before, reason, at, say)
    if reason is Reason.ATTEMPTS_EXHAUSTED and before.used < before.budget:
        left = before.budget - before.used
        say(Rule.ATTEMPTS, f"ended as attempts_exhausted with {left} attempts left")


def _in_time(before: Entry, reason: Reason, at: int, say: Say) -> None:
    if reason is Reason.EXPIRED and at < before.expires_at:
        text = f"expired {before.expires_at - at} ms before its time"
        say(Rule.EXPIRY, text)
    if reason is Reason.TOO_OLD:
        _unseen(before, say)


def _unseen(before: Entry, say: Say) -> None:
    """Only a waiting entry that showed nothing may end by its age."""
    if before.phase not in (Phase.QUEUED, Phase.RETRYABLE):
        say(Rule.EXPIRY, f"ended as too_old in phase {before.phase}")
    shown = any(state.handle or state.end in _SHOWN for state in before.others)
    if shown or before.handle:
        say(Rule.EXPIRY, "ended as too_old, though a part of it was shown")


def _looked_up(before: Entry, event: o.Reconciled, _at: int, say: Say) -> None:
    if event.part != before.part:
        say(Rule.FENCE, f"a look-up of part {event.part}, not of part {before.part}")
    part = before.parts[before.part] if before.part < len(before.parts) else None
    if part is None or DeliveryClass.LOOKUP not in part.classes:
        say(Rule.NO_DOUBLE, "a look-up where nothing can be looked up")
    if event.failure is not None:
        _proven(event.failure, _DEFERS, say)


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
    """True if the worker of an event may write it (INV-5).

    `phase` and `fence`: of the entry before the event. `workers`: the worker at the
    event, and those that began later in the same moment.
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
    """Events without a sender: of a look-up, a person, an empty plan, or the expiry."""
    match event:
        case o.PartDelivered() | o.Delivered():
            by_other = event.by is not None or event.suppressed is not None
            return event.looked_up or by_other
        case o.FailedTerminal():
            return event.reason is not Reason.PERMANENT
        case _:
            return False


def _tried(before: Entry, event: o.Tried, _at: int, say: Say) -> None:
    if event.end is not None and not before.trying:
        say(Rule.FENCE, "the end of a plan or a look-up that never began")
    if event.end is TrialEnd.DIED and event.fence == before.fence:
        say(Rule.FENCE, "a worker says of its own plan or look-up that it died in it")


_RULES: Mapping[type, Callable[[Entry, Any, int, Say], None]] = MappingProxyType(
    {
        o.Planned: _planned,
        o.Attempted: _attempted,
        o.Tried: _tried,
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
        o.Resolved: resolved,
        o.Placed: placed,
        o.Doubted: doubted,
        o.PartRefused: refused,
        o.AmendedPart: amended,
        o.Bounced: bounced,
    }
)
