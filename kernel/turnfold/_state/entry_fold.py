"""The transition table of an outbox entry (specs/design.md 4), keyed by its phase.

The table is of one piece with `transition_table` in the model, which is written apart.
The data of an event decide which of several targets follows: the fold is in `entry`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from turnfold._log import outbox_events as o
from turnfold._state import entry
from turnfold._state.transitions import Row, assign
from turnfold.enums import (
    CLOSED,
    FailureClass,
    PartAct,
    PartEnd,
    Phase,
    Reason,
)


def _to(*phases: Phase) -> frozenset[Phase]:
    return frozenset(phases)


# Evidence for one part: the entry goes on or comes to an end, or it waits for a person
# because another part is in doubt, which no part of a calm entry is.
_CALM_EVIDENCE = (Phase.QUEUED, Phase.DELIVERED, Phase.FAILED)
_EVIDENCE = (*_CALM_EVIDENCE, Phase.PARKED)
_SETTLING: Row = {
    o.PartDelivered: _to(Phase.QUEUED, Phase.PARKED),
    o.Delivered: _to(Phase.DELIVERED),
}
_SENDING: Row = {
    **_SETTLING,
    o.Deferred: _to(Phase.QUEUED, Phase.IN_DOUBT),
    o.FailedRetryable: _to(Phase.RETRYABLE),
    o.OutcomeUnknown: _to(Phase.IN_DOUBT),
    o.PartRefused: _to(Phase.QUEUED),
    o.FailedTerminal: _to(Phase.FAILED),
}


def _always(phase: Phase) -> Row:
    """An open entry takes these in every phase, and the phase stays."""
    return {
        o.Planned: _to(phase),
        o.AbortRequested: _to(phase),
        o.Bounced: _to(phase),
    }


def _waiting(phase: Phase) -> Row:
    """QUEUED and RETRYABLE: nothing is on the wire or in doubt."""
    return {
        **_always(phase),
        o.Attempted: _to(Phase.ATTEMPTED, Phase.DISPATCHED),
        o.Placed: _to(phase),
        o.PartRefused: _to(Phase.QUEUED),
        o.AmendedPart: _to(phase),
        o.FailedTerminal: _to(Phase.FAILED),
        o.Aborted: _to(Phase.ABORTED),
        o.LateReceipt: _to(*_CALM_EVIDENCE),
        o.Rescheduled: _to(phase),
        o.Doubted: _to(Phase.PARKED),
        o.LaneYielded: _to(phase),
    }


TRANSITIONS: Mapping[Phase | None, Row] = MappingProxyType(
    {
        None: {
            o.Queued: _to(Phase.QUEUED),
            o.Imported: _to(Phase.QUEUED, Phase.PARKED, Phase.FAILED),
        },
        Phase.QUEUED: {**_waiting(Phase.QUEUED), o.Tried: _to(Phase.QUEUED)},
        Phase.ATTEMPTED: {
            **_always(Phase.ATTEMPTED),
            **_SENDING,
            o.Dispatched: _to(Phase.DISPATCHED),
            o.Placed: _to(Phase.ATTEMPTED),
            o.LateReceipt: _to(Phase.ATTEMPTED, *_EVIDENCE),
        },
        Phase.DISPATCHED: {
            **_always(Phase.DISPATCHED),
            **_SENDING,
            o.Placed: _to(Phase.DISPATCHED, Phase.QUEUED, Phase.PARKED),
            o.LateReceipt: _to(Phase.DISPATCHED, *_EVIDENCE),
        },
        Phase.IN_DOUBT: {
            **_always(Phase.IN_DOUBT),
            **_SETTLING,
            o.Attempted: _to(Phase.ATTEMPTED, Phase.DISPATCHED),
            o.Placed: _to(Phase.IN_DOUBT, Phase.QUEUED, Phase.PARKED),
            o.Tried: _to(Phase.IN_DOUBT),
            o.OutcomeUnknown: _to(Phase.IN_DOUBT),
            o.Reconciled: _to(Phase.RETRYABLE, Phase.IN_DOUBT, Phase.PARKED),
            o.Parked: _to(Phase.PARKED),
            o.Resolved: _to(Phase.RETRYABLE, Phase.IN_DOUBT, Phase.PARKED),
            o.FailedTerminal: _to(Phase.FAILED),
            o.LateReceipt: _to(*_EVIDENCE),
            o.Rescheduled: _to(Phase.IN_DOUBT),
        },
        Phase.PARKED: {
            **_always(Phase.PARKED),
            **_SETTLING,
            o.Placed: _to(Phase.PARKED),
            o.Tried: _to(Phase.PARKED),
            o.Reconciled: _to(Phase.RETRYABLE, Phase.PARKED),
            o.Resolved: _to(Phase.RETRYABLE, Phase.IN_DOUBT, Phase.PARKED),
            o.FailedTerminal: _to(Phase.FAILED),
            o.LateReceipt: _to(*_EVIDENCE),
            o.LaneYielded: _to(Phase.PARKED),
        },
        Phase.RETRYABLE: _waiting(Phase.RETRYABLE),
        Phase.DELIVERED: {
            o.Placed: _to(Phase.DELIVERED),
            o.LateReceipt: _to(Phase.DELIVERED),
            o.Bounced: _to(Phase.FAILED),
            o.Redacted: _to(Phase.DELIVERED),
        },
        Phase.FAILED: {
            o.Placed: _to(Phase.FAILED),
            o.LateReceipt: _to(Phase.FAILED, Phase.DELIVERED),
            o.Redriven: _to(Phase.QUEUED, Phase.IN_DOUBT),
            o.Acknowledged: _to(Phase.FAILED),
            o.Bounced: _to(Phase.FAILED),
            o.LaneYielded: _to(Phase.FAILED),
            o.Redacted: _to(Phase.FAILED),
        },
        Phase.ABORTED: {
            o.Placed: _to(Phase.ABORTED),
            o.LateReceipt: _to(Phase.ABORTED, Phase.DELIVERED),
            o.Bounced: _to(Phase.ABORTED),
            o.Redacted: _to(Phase.ABORTED),
        },
    }
)


# --- What each event of an outbox entry means: the fields that it changes ---


if TYPE_CHECKING:
    from turnfold._state.entry import Entry

_ON_ITS_WAY = (Phase.ATTEMPTED, Phase.DISPATCHED)


# One case per event and no wildcard: mypy's exhaustive-match finds a forgotten one.
# What every message does sets its fields one by one: the fold is on its path.
def moved(e: "Entry", to: Any, event: o.OutboxEvent, at: int) -> None:  # noqa: PLR0915  a case per event
    """Set the fields that an event changes. `to` is `e`, to be written."""
    match event:
        case o.Attempted():
            _attempted(e, to, event, at)
        case o.Delivered() | o.PartDelivered():
            _accepted(e, to, event)
        case o.Planned():
            _planned(to, event)
        case o.Dispatched():
            to.phase = Phase.DISPATCHED
        case o.Queued() | o.Imported():
            pass  # the table lets neither get here
        case o.Placed():
            _placed(e, to, event)
        case o.Tried():
            assign(to, tries=e.tries + 1, fence=event.fence, owner=event.owner)
        case o.PartRefused():
            _refused(e, to, event)
        case o.AmendedPart():
            _amended(e, to, event)
        case o.Deferred():
            _deferred(e, to, event)
        case o.FailedRetryable():
            _retryable(e, to, event)
        case o.OutcomeUnknown():
            died = event.cause == FailureClass.OWNER_DIED
            assign(to, phase=Phase.IN_DOUBT, doubt=True, due=event.due)
            assign(to, reason=event.cause, deaths=e.deaths + died)
        case o.Reconciled():
            _reconciled(e, to, event)
        case o.Parked():
            assign(to, phase=Phase.PARKED, due=None, reason=event.reason)
            assign(to, resend=False, marked=False)
        case o.Resolved():
            _resolved(e, to, event, at)
        case o.FailedTerminal():
            assign(to, phase=Phase.FAILED, due=None)
            assign(to, reason=event.reason, failure=event.failure)
        case o.AbortRequested():
            assign(to, abort=event.reason, abort_by=event.by)
        case o.Aborted():
            assign(to, phase=Phase.ABORTED, due=None, reason=event.reason)
        case o.LateReceipt():
            _late(e, to, event)
        case o.Rescheduled():
            to.due = event.due
        case o.Redriven():
            _redriven(to, event)
        case o.Acknowledged():
            to.acknowledged = True
        case o.Bounced():
            _bounced(e, to, event)
        case o.Doubted():
            _doubted(to, event)
        case o.LaneYielded():
            to.yielded = True
        case o.Redacted():
            to.redacted = True


def _planned(to: Any, event: o.Planned) -> None:
    to.planned = True
    to.parts = event.parts
    to.budget = event.budget
    to.ids = event.ids
    to.tries = 0
    if event.thread is not None:
        to.thread = event.thread


def _attempted(e: "Entry", to: Any, event: o.Attempted, at: int) -> None:
    if event.part != e.part and not e.ended(event.part):
        entry.put_down(to)
        entry.take_up(to, event.part)
    to.phase = Phase.DISPATCHED if event.on_wire else Phase.ATTEMPTED
    to.attempt = event.attempt
    to.used = to.used + 1
    if to.first_at is None:
        to.first_at = at
    to.last_at = at
    to.fence = event.fence
    to.owner = event.owner
    to.due = None
    to.granted = to.resend
    to.resend = False
    to.marked = event.marked
    to.act = event.act
    if event.act is PartAct.PLACEHOLDER and to.doubt:
        to.remade = True
    if not e.planned:
        to.offered = event.classes
        to.offered_policy = event.policy


def _accepted(e: "Entry", to: Any, event: o.Delivered | o.PartDelivered) -> None:
    if event.part != e.part and not e.ended(event.part):
        entry.put_down(to)
        entry.take_up(to, event.part)
    _end_part(to, PartEnd.DELIVERED, event.receipt)
    if e.thread is None:
        to.thread = event.thread
    to.phase = _after_part(to)
    if to.phase is Phase.FAILED:
        to.phase = Phase.QUEUED  # `failed_terminal` follows in the same commit


def _end_part(to: Any, end: PartEnd, receipt: tuple[str, ...] = ()) -> None:
    """The part at hand is over: the next one comes to hand."""
    entry.put_down(to, end, receipt)
    _next_part(to)
    to.due = to.reason = None
    to.tries = 0


def _next_part(to: Any) -> None:
    doubted = entry.first_doubted(to.others)
    if doubted is None:
        doubted = entry.first_open(to.others, to.count)
    entry.take_up(to, doubted)


def _after_part(e: "Entry") -> Phase:
    """Where an open entry stands after one of its parts has ended."""
    if e.part >= e.count:
        whole = entry.all_delivered(e.others, e.count)
        return Phase.DELIVERED if whole else Phase.FAILED
    return Phase.PARKED if e.doubt else Phase.QUEUED


def _free(to: Any, calm: Phase) -> None:
    """The doubt about the part at hand is over, the part is not. `calm`: the phase if no
    other part is in doubt."""
    to.doubt = to.resend = to.granted = to.marked = False
    if entry.first_doubted(to.others) is not None:
        to.phase = Phase.PARKED
    else:
        to.phase = calm
    if to.others:
        entry.put_down(to)
        _next_part(to)


def _placed(e: "Entry", to: Any, event: o.Placed) -> None:
    """A placeholder is no failure: it gives its unit back."""
    if event.stray:
        return
    if event.part != e.part:
        entry.put_down(to)
        entry.take_up(to, event.part)
    to.handle = event.handle
    to.used = max(to.used - 1, 0)
    to.due = to.reason = None
    to.tries = 0
    _free(to, Phase.QUEUED)


def _refused(e: "Entry", to: Any, event: o.PartRefused) -> None:
    if event.part != e.part and not e.ended(event.part):
        entry.put_down(to)
        entry.take_up(to, event.part)
    _end_part(to, PartEnd.REFUSED)
    assign(to, phase=Phase.QUEUED, failure=event.failure)


def _amended(e: "Entry", to: Any, event: o.AmendedPart) -> None:
    to.parts = _changed(e.parts, event.part, body=event.body, key=event.key)
    if event.part == e.part:
        to.first_at = None  # the window of a new key begins with its first attempt


def _deferred(e: "Entry", to: Any, event: o.Deferred) -> None:
    """Costs nothing; the word that allowed this attempt allows another one."""
    to.phase = Phase.IN_DOUBT if e.doubtful else Phase.QUEUED
    assign(to, used=e.used - 1, due=event.due, failure=event.failure)
    to.resend = e.granted
    if not e.granted:
        to.marked = False
    _handle_gone(to, event.failure)


def _retryable(e: "Entry", to: Any, event: o.FailedRetryable) -> None:
    assign(to, phase=Phase.RETRYABLE, due=event.due, failure=event.failure)
    to.target = event.target or e.target
    to.deaths = e.deaths + (event.failure is FailureClass.OWNER_DIED)
    _handle_gone(to, event.failure)


def _handle_gone(to: Any, failure: FailureClass) -> None:
    if failure is FailureClass.HANDLE_GONE:
        to.handle = ()


def _reconciled(e: "Entry", to: Any, event: o.Reconciled) -> None:
    to.tries = 0
    to.due = event.due
    if event.absent:
        _free(to, Phase.RETRYABLE)
        to.failure = FailureClass.ABSENT
    elif not event.early:
        to.asks = e.asks + 1


def _resolved(e: "Entry", to: Any, event: o.Resolved, at: int) -> None:
    """A word to send is worth one attempt, though the budget be spent."""
    if event.part != e.part and not e.ended(event.part):
        entry.put_down(to)
        entry.take_up(to, event.part)
    to.due = at
    to.used = min(to.used, max(e.budget - 1, 0))
    if event.expires_at is not None:
        to.expires_at = event.expires_at
    if event.resend:
        to.phase = Phase.IN_DOUBT
        to.resend = True
        to.marked = event.marked
        to.resends = to.resends + event.by.startswith("policy:")
    else:
        _free(to, Phase.RETRYABLE)
        to.failure = FailureClass.NOT_SENT


def _late(e: "Entry", to: Any, event: o.LateReceipt) -> None:
    """Evidence for one part, whatever has become of the entry since. A closed entry is
    closed differently only if all of it has arrived by now."""
    before = entry.known(e.others, event.part)
    void = e.void if event.part == e.part else before.void if before else ()
    if event.part >= e.count or (void and event.receipt == void):
        return
    if before is not None and before.end in (PartEnd.DELIVERED, PartEnd.BOUNCED):
        return
    phase, reason, at_hand = e.phase, e.reason, event.part == e.part
    _settle(to, event)
    if e.thread is None:
        to.thread = event.thread
    after = _after_part(to)
    if phase in CLOSED:
        whole = after is Phase.DELIVERED
        to.phase, to.reason = (after, None) if whole else (phase, reason)
    elif phase in _ON_ITS_WAY and not at_hand and after in (Phase.QUEUED, Phase.PARKED):
        to.phase = phase
    else:
        to.phase = after
        to.reason = Reason.PARTIAL if after is Phase.FAILED else None


def _settle(to: Any, event: o.LateReceipt) -> None:
    """The part has arrived. If it is not at hand, the part at hand stays there, unless
    nothing is being sent and another one is in doubt or comes first."""
    hand = to.part
    if event.part == hand:
        _end_part(to, PartEnd.DELIVERED, event.receipt)
        return
    keep = (to.resend, to.granted, to.marked)
    entry.put_down(to)
    to.others = entry.reopened(to.others, event.part)
    entry.take_up(to, event.part)
    entry.put_down(to, PartEnd.DELIVERED, event.receipt)
    if to.phase in _ON_ITS_WAY:
        entry.take_up(to, hand)
        to.resend, to.granted, to.marked = keep
    else:
        _next_part(to)
        to.due = None


def _bounced(e: "Entry", to: Any, event: o.Bounced) -> None:
    """The receipt no longer counts. A delivered entry is a dead letter now."""
    state = entry.known(e.others, event.part)
    if state is None or state.end is not PartEnd.DELIVERED:
        return
    bad = entry.PartState(
        part=event.part,
        end=PartEnd.BOUNCED,
        void=state.receipt,
        attempt=state.attempt,
    )
    to.others = entry.with_part(e.others, bad)
    if e.phase is Phase.DELIVERED:
        assign(to, phase=Phase.FAILED, reason="bounced")


def _doubted(to: Any, event: o.Doubted) -> None:
    """Each part that has not ended may have been sent."""
    entry.put_down(to)
    for part in range(to.count):
        if not to.ended(part):
            entry.take_up(to, part)
            to.doubt = True
            entry.put_down(to)
    _next_part(to)
    assign(to, phase=Phase.PARKED, due=None, reason=event.reason)


def _redriven(to: Any, event: o.Redriven) -> None:
    """Parts that were refused or bounced are open again, under new keys."""
    entry.put_down(to)
    spoiled = [state.part for state in to.others if state.end in entry.SPOILED]
    for part, key in zip(spoiled, event.keys, strict=False):
        to.parts = _changed(to.parts, part, key=key)
    to.others = tuple([entry.renewed(state) for state in to.others])
    assign(to, budget=event.budget, expires_at=event.expires_at, acknowledged=False)
    assign(to, abort=None, abort_by=None, due=None, reason=None, tries=0)
    _next_part(to)
    if to.doubt:
        assign(to, phase=Phase.IN_DOUBT, resend=True)
    else:
        to.phase = Phase.QUEUED


def _changed(
    planned: tuple[o.PlannedPart, ...], part: int, **changes: Any
) -> tuple[o.PlannedPart, ...]:
    """The frozen parts with one of them changed, if it is there."""
    new = [attrs.evolve(p, **changes) for p in planned[part : part + 1]]
    return (*planned[:part], *new, *planned[part + 1 :])
