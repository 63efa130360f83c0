"""The state machine of an outbox entry (design 4): table, state, fold.

Rule of this file: everything that a log of `outbox.*` events means stands here. The
fold never looks at a policy, a clock or a channel, so a log written under other
settings replays the same. What may be *decided* is in `decide/`, guarded by `guards`.

Q, R and X imply that no attempt is in doubt. Doubt is sticky: it ends by evidence (a
receipt, a proven absence) or by a person's or policy's word, never by time.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from turnfold.events import outbox as o
from turnfold.frozen import frozen
from turnfold.machines.table import Row, illegal, targets
from turnfold.words import (
    AbortReason,
    BlindPolicy,
    DeliveryClass,
    FailureClass,
    Kind,
    Phase,
    Status,
)

Q, A, D, U, P, R = Phase.Q, Phase.A, Phase.D, Phase.U, Phase.P, Phase.R
OK, F, X = Phase.OK, Phase.F, Phase.X


def _to(*phases: Phase) -> frozenset[Phase]:
    return frozenset(phases)


_SENDING: Row = {
    o.PartDelivered: _to(Q),
    o.Delivered: _to(OK),
    o.Deferred: _to(Q),
    o.FailedRetryable: _to(R),
    o.OutcomeUnknown: _to(U),
    o.FailedTerminal: _to(F),
}
TRANSITIONS: Mapping[Phase | None, Row] = MappingProxyType(
    {
        None: {o.Queued: _to(Q), o.Imported: _to(Q, P, F)},
        Q: {
            o.Planned: _to(Q),
            o.Attempted: _to(A, D),
            o.FailedTerminal: _to(F),
            o.AbortRequested: _to(Q),
            o.Aborted: _to(X),
            o.LateReceipt: _to(Q, OK),
            o.Rescheduled: _to(Q),
            o.Doubted: _to(P),
            o.LaneYielded: _to(Q),
        },
        A: {
            **_SENDING,
            o.Dispatched: _to(D),
            o.AbortRequested: _to(A),
            o.LateReceipt: _to(A, Q, OK),
        },
        D: {**_SENDING, o.AbortRequested: _to(D), o.LateReceipt: _to(D, Q, OK)},
        U: {
            o.Attempted: _to(A, D),
            o.PartDelivered: _to(Q),
            o.Delivered: _to(OK),
            o.OutcomeUnknown: _to(U),
            o.Reconciled: _to(R, U),
            o.Parked: _to(P),
            o.Resolved: _to(R, U),
            o.FailedTerminal: _to(F),
            o.AbortRequested: _to(U),
            o.LateReceipt: _to(U, Q, OK),
            o.Rescheduled: _to(U),
        },
        P: {
            o.PartDelivered: _to(Q),
            o.Delivered: _to(OK),
            o.Reconciled: _to(R, P),
            o.Resolved: _to(R, U),
            o.FailedTerminal: _to(F),
            o.AbortRequested: _to(P),
            o.LateReceipt: _to(P, Q, OK),
            o.LaneYielded: _to(P),
        },
        R: {
            o.Attempted: _to(A, D),
            o.FailedTerminal: _to(F),
            o.AbortRequested: _to(R),
            o.Aborted: _to(X),
            o.LateReceipt: _to(R, Q, OK),
            o.Rescheduled: _to(R),
            o.Doubted: _to(P),
            o.LaneYielded: _to(R),
        },
        OK: {o.LateReceipt: _to(OK), o.Bounced: _to(OK), o.Redacted: _to(OK)},
        F: {
            o.LateReceipt: _to(F, OK),
            o.Redriven: _to(Q),
            o.Acknowledged: _to(F),
            o.LaneYielded: _to(F),
            o.Redacted: _to(F),
        },
        X: {o.LateReceipt: _to(X, OK), o.Redacted: _to(X)},
    }
)


# No slots: the fold makes a new state from the dict of the old one, three times as fast
# as copying 40 fields one by one, and the fold is on the path of every message.
@frozen(kw_only=True, slots=False)
class Entry:
    """The fold of an entry's log. `part` is the first part that is not settled;
    `attempt`, `used`, `doubt`, `first_at` and `asks` speak of that part."""

    stream: str
    version: int
    phase: Phase
    order: int  # position of its first event
    created: int
    updated: int
    kind: Kind
    channel: str
    account: str
    conversation: str
    lane: str
    body: tuple[str, ...]
    expires_at: int
    turn: str | None = None
    run: int | None = None
    key: str | None = None
    thread: str | None = None
    reply_to: str | None = None
    policy: BlindPolicy = BlindPolicy.HOLD
    due: int | None = None
    parts: tuple[o.PlannedPart, ...] = ()
    planned: bool = False
    ids: bool = True
    budget: int = 0
    part: int = 0
    attempt: int = 0
    used: int = 0  # budget units; a deferral gives one back
    doubt: bool = False  # an attempt of this part may have been accepted
    resend: bool = False  # a person or policy said: send again all the same
    marked: bool = False  # ... and show it
    first_at: int | None = None  # first attempt of this part
    last_at: int | None = None  # latest attempt of this part
    asks: int = 0  # look-ups that could not tell
    deaths: int = 0  # processes that died while attempting
    fence: int = 0
    owner: str | None = None
    target: str | None = None
    receipts: tuple[tuple[str, ...], ...] = ()  # one per settled part
    abort: AbortReason | None = None
    abort_by: str | None = None
    yielded: bool = False
    reason: str | None = None
    failure: FailureClass | None = None
    acknowledged: bool = False
    bounced: bool = False
    redacted: bool = False  # its bodies are erased

    @property
    def status(self) -> Status:
        return self.phase.status

    @property
    def open(self) -> bool:
        return not self.phase.closed

    @property
    def current(self) -> o.PlannedPart:
        return self.parts[self.part]

    @property
    def last(self) -> bool:
        """True if the current part is the last one."""
        return self.part + 1 >= len(self.parts)

    @property
    def classes(self) -> tuple[DeliveryClass, ...]:
        return self.current.classes


def evolve(
    entry: Entry | None, event: o.OutboxEvent, stream: str, at: int, position: int
) -> Entry:
    """The state after one more event. Raises off the table and changes nothing."""
    phase = entry.phase if entry else None
    allowed = targets(TRANSITIONS, phase, type(event), stream)
    if entry is None:
        born = _born(event, stream, at, position)
    else:
        changes = _moved(entry, event, at)
        changes["version"], changes["updated"] = entry.version + 1, at
        born = _with(entry, changes)
    if born.phase not in allowed:
        raise illegal(TRANSITIONS, phase, type(event), stream)
    return born


def _with(entry: Entry, changes: dict[str, Any]) -> Entry:
    """`attrs.evolve` of a class that neither converts nor validates: the dict of the
    old one with the changes, which takes a tenth of passing 40 arguments."""
    new = object.__new__(Entry)
    object.__setattr__(new, "__dict__", entry.__dict__ | changes)
    return new


def _born(event: o.OutboxEvent, stream: str, at: int, position: int) -> Entry:
    assert isinstance(event, o.Queued | o.Imported)  # noqa: S101  by the table
    imported = isinstance(event, o.Imported)
    return Entry(
        stream=stream,
        version=1,
        phase=Phase(event.phase) if isinstance(event, o.Imported) else Q,
        order=position,
        created=at,
        updated=at,
        kind=event.kind,
        channel=event.channel,
        account=event.account,
        conversation=event.conversation,
        lane=event.lane,
        body=event.body,
        expires_at=event.expires_at,
        turn=None if isinstance(event, o.Imported) else event.turn,
        run=None if isinstance(event, o.Imported) else event.run,
        key=event.key,
        thread=event.thread,
        reply_to=event.reply_to,
        policy=event.policy,
        due=None if isinstance(event, o.Imported) else event.not_before,
        doubt=imported and event.phase != Q,  # type: ignore[union-attr]  # imported
    )


# One case per event and no wildcard: mypy's exhaustive-match finds a forgotten one.
def _moved(e: Entry, event: o.OutboxEvent, at: int) -> dict[str, Any]:
    """The fields that an event changes."""
    match event:
        case o.Queued() | o.Imported():
            return {}  # the table lets neither get here
        case o.Planned():
            thread = event.thread if event.thread is not None else e.thread
            return dict(
                planned=True,
                parts=event.parts,
                budget=event.budget,
                thread=thread,
                ids=event.ids,
            )
        case o.Attempted():
            return _attempted(e, event, at)
        case o.Dispatched():
            return dict(phase=D)
        case o.PartDelivered() | o.Delivered():
            return _settled(e, event.receipt, event.thread)
        case o.Deferred():
            return dict(phase=Q, used=e.used - 1, due=event.due, failure=event.failure)
        case o.FailedRetryable():
            return dict(
                phase=R,
                due=event.due,
                failure=event.failure,
                target=event.target or e.target,
                deaths=e.deaths + (event.failure is FailureClass.OWNER_DIED),
            )
        case o.OutcomeUnknown():
            return dict(
                phase=U,
                doubt=True,
                due=event.due,
                reason=event.cause,
                deaths=e.deaths + (event.cause == FailureClass.OWNER_DIED),
            )
        case o.Reconciled():
            if not event.absent:
                return dict(due=event.due, asks=e.asks + (not event.early))
            return dict(
                phase=R, doubt=False, due=event.due, failure=FailureClass.ABSENT
            )
        case o.Parked():
            return dict(phase=P, due=None, reason=event.reason)
        case o.Resolved():
            if event.resend:
                return dict(
                    phase=U,
                    resend=True,
                    marked=event.marked,
                    due=at,
                    used=_one_more(e),
                )
            return dict(
                phase=R,
                doubt=False,
                due=at,
                failure=FailureClass.NOT_SENT,
                used=_one_more(e),
            )
        case o.FailedTerminal():
            return dict(phase=F, due=None, reason=event.reason, failure=event.failure)
        case o.AbortRequested():
            return dict(abort=event.reason, abort_by=event.by)
        case o.Aborted():
            return dict(phase=X, due=None, reason=event.reason)
        case o.LateReceipt():
            return _late(e, event)
        case o.Rescheduled():
            return dict(due=event.due)
        case o.Redriven():
            return _redriven(event)
        case o.Acknowledged():
            return dict(acknowledged=True)
        case o.Bounced():
            return dict(bounced=True)
        case o.Doubted():
            return dict(phase=P, doubt=True, due=None, reason=event.reason)
        case o.LaneYielded():
            return dict(yielded=True)
        case o.Redacted():
            return dict(redacted=True)


def _one_more(e: Entry) -> int:
    """A person's word to send is worth one attempt, though the budget be spent."""
    return min(e.used, max(e.budget - 1, 0))


def _attempted(e: Entry, event: o.Attempted, at: int) -> dict[str, Any]:
    return dict(
        phase=D if event.on_wire else A,
        attempt=event.attempt,
        used=e.used + 1,
        first_at=at if e.first_at is None else e.first_at,
        last_at=at,
        fence=event.fence,
        owner=event.owner,
        due=None,
        resend=False,
        marked=event.marked,
    )


def _settled(e: Entry, receipt: tuple[str, ...], thread: str | None) -> dict[str, Any]:
    """The current part is done: on to the next one, or delivered."""
    return dict(
        phase=OK if e.last else Q,
        part=e.part + 1,
        receipts=(*e.receipts, receipt),
        thread=e.thread if e.thread is not None else thread,
        attempt=0,
        used=0,
        asks=0,
        deaths=0,
        doubt=False,
        resend=False,
        marked=False,
        first_at=None,
        last_at=None,
        due=None,
        reason=None,
    )


def _late(e: Entry, event: o.LateReceipt) -> dict[str, Any]:
    """Evidence for one part. It can settle the current part of an open entry, and
    close a closed one only when nothing is left to send."""
    if event.part != e.part or e.phase is OK:
        return {}
    if e.open or e.last:
        return _settled(e, event.receipt, event.thread)
    settled = _settled(e, event.receipt, event.thread)
    return {**settled, "phase": e.phase, "reason": e.reason}


def _redriven(event: o.Redriven) -> dict[str, Any]:
    return dict(
        phase=Q,
        budget=event.budget,
        expires_at=event.expires_at,
        used=0,
        asks=0,
        deaths=0,
        doubt=False,
        abort=None,
        abort_by=None,
        due=None,
        reason=None,
        acknowledged=False,
    )
