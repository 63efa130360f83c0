"""The transition table of an outbox entry (specs/design.md 4).

It names the phases that an event may lead to from each phase; where there are several,
the event's data choose (`entry_fold`). A test compares it with another table.
"""

from collections.abc import Mapping
from types import MappingProxyType

from turnfold._log import outbox_events as o
from turnfold._state.transitions import Row
from turnfold.enums import Phase


def _to(*phases: Phase) -> frozenset[Phase]:
    return frozenset(phases)


# Targets of evidence for one part of an entry without doubt: it goes on or ends. With
# another part in doubt it would wait for a person.
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
    """Events that an open entry takes in every phase without a change of phase."""
    return {o.Planned: _to(phase), o.AbortRequested: _to(phase), o.Bounced: _to(phase)}


def _waiting(phase: Phase) -> Row:
    """QUEUED and RETRYABLE: no part is on the wire or in doubt."""
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
        None: {o.Queued: _to(Phase.QUEUED), o.Imported: _to(Phase.PARKED)},
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
            o.AmendedPart: _to(Phase.IN_DOUBT),
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
