"""The transition table of an outbox entry (specs/design.md 4), keyed by its phase.

The table is of one piece with `transition_table` in the model, which is written apart.
The data of an event decide which of several targets follows: the fold is in `entry`.
"""

from collections.abc import Mapping
from types import MappingProxyType

from turnfold.events import outbox as o
from turnfold.machines.table import Row
from turnfold.words import Phase


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
