"""The state machine of an outbox entry (specs/design.md 4): table, state, fold.

Rule of this file: everything that a log of `outbox.*` events means stands here. The
fold never looks at a policy, a clock or a channel, so a log written under other
settings replays the same. What may be *decided* is in `decide/`, guarded by `guards`.

QUEUED, RETRYABLE and ABORTED imply that no attempt is in doubt. Doubt is sticky: it ends by evidence (a
receipt, a proven absence) or by a person's or policy's word, never by time.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from turnfold.events import outbox as o
from turnfold.frozen import frozen
from turnfold.machines.table import Row, assign, beginner, copier, illegal, targets
from turnfold.words import (
    CLOSED,
    AbortReason,
    BlindPolicy,
    DeliveryClass,
    FailureClass,
    Kind,
    Phase,
    Status,
)


def _to(*phases: Phase) -> frozenset[Phase]:
    return frozenset(phases)


_SENDING: Row = {
    o.PartDelivered: _to(Phase.QUEUED),
    o.Delivered: _to(Phase.DELIVERED),
    o.Deferred: _to(Phase.QUEUED),
    o.FailedRetryable: _to(Phase.RETRYABLE),
    o.OutcomeUnknown: _to(Phase.IN_DOUBT),
    o.FailedTerminal: _to(Phase.FAILED),
}
TRANSITIONS: Mapping[Phase | None, Row] = MappingProxyType(
    {
        None: {
            o.Queued: _to(Phase.QUEUED),
            o.Imported: _to(Phase.QUEUED, Phase.PARKED, Phase.FAILED),
        },
        Phase.QUEUED: {
            o.Planned: _to(Phase.QUEUED),
            o.Attempted: _to(Phase.ATTEMPTED, Phase.DISPATCHED),
            o.FailedTerminal: _to(Phase.FAILED),
            o.AbortRequested: _to(Phase.QUEUED),
            o.Aborted: _to(Phase.ABORTED),
            o.LateReceipt: _to(Phase.QUEUED, Phase.DELIVERED),
            o.Rescheduled: _to(Phase.QUEUED),
            o.Doubted: _to(Phase.PARKED),
            o.LaneYielded: _to(Phase.QUEUED),
        },
        Phase.ATTEMPTED: {
            **_SENDING,
            o.Dispatched: _to(Phase.DISPATCHED),
            o.AbortRequested: _to(Phase.ATTEMPTED),
            o.LateReceipt: _to(Phase.ATTEMPTED, Phase.QUEUED, Phase.DELIVERED),
        },
        Phase.DISPATCHED: {
            **_SENDING,
            o.AbortRequested: _to(Phase.DISPATCHED),
            o.LateReceipt: _to(Phase.DISPATCHED, Phase.QUEUED, Phase.DELIVERED),
        },
        Phase.IN_DOUBT: {
            o.Attempted: _to(Phase.ATTEMPTED, Phase.DISPATCHED),
            o.PartDelivered: _to(Phase.QUEUED),
            o.Delivered: _to(Phase.DELIVERED),
            o.OutcomeUnknown: _to(Phase.IN_DOUBT),
            o.Reconciled: _to(Phase.RETRYABLE, Phase.IN_DOUBT),
            o.Parked: _to(Phase.PARKED),
            o.Resolved: _to(Phase.RETRYABLE, Phase.IN_DOUBT),
            o.FailedTerminal: _to(Phase.FAILED),
            o.AbortRequested: _to(Phase.IN_DOUBT),
            o.LateReceipt: _to(Phase.IN_DOUBT, Phase.QUEUED, Phase.DELIVERED),
            o.Rescheduled: _to(Phase.IN_DOUBT),
        },
        Phase.PARKED: {
            o.PartDelivered: _to(Phase.QUEUED),
            o.Delivered: _to(Phase.DELIVERED),
            o.Reconciled: _to(Phase.RETRYABLE, Phase.PARKED),
            o.Resolved: _to(Phase.RETRYABLE, Phase.IN_DOUBT),
            o.FailedTerminal: _to(Phase.FAILED),
            o.AbortRequested: _to(Phase.PARKED),
            o.LateReceipt: _to(Phase.PARKED, Phase.QUEUED, Phase.DELIVERED),
            o.LaneYielded: _to(Phase.PARKED),
        },
        Phase.RETRYABLE: {
            o.Attempted: _to(Phase.ATTEMPTED, Phase.DISPATCHED),
            o.FailedTerminal: _to(Phase.FAILED),
            o.AbortRequested: _to(Phase.RETRYABLE),
            o.Aborted: _to(Phase.ABORTED),
            o.LateReceipt: _to(Phase.RETRYABLE, Phase.QUEUED, Phase.DELIVERED),
            o.Rescheduled: _to(Phase.RETRYABLE),
            o.Doubted: _to(Phase.PARKED),
            o.LaneYielded: _to(Phase.RETRYABLE),
        },
        Phase.DELIVERED: {
            o.LateReceipt: _to(Phase.DELIVERED),
            o.Bounced: _to(Phase.DELIVERED),
            o.Redacted: _to(Phase.DELIVERED),
        },
        Phase.FAILED: {
            o.LateReceipt: _to(Phase.FAILED, Phase.DELIVERED),
            o.Redriven: _to(Phase.QUEUED),
            o.Acknowledged: _to(Phase.FAILED),
            o.LaneYielded: _to(Phase.FAILED),
            o.Redacted: _to(Phase.FAILED),
        },
        Phase.ABORTED: {
            o.LateReceipt: _to(Phase.ABORTED, Phase.DELIVERED),
            o.Redacted: _to(Phase.ABORTED),
        },
    }
)


@frozen(kw_only=True)
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
    bodies: int = 0  # numbers of bodies that its events have used up

    @property
    def status(self) -> Status:
        return self.phase.status

    @property
    def open(self) -> bool:
        return self.phase not in CLOSED

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
    return advance(entry and copier(Entry)(entry), event, stream, at, position)


def advance(
    entry: Entry | None, event: o.OutboxEvent, stream: str, at: int, position: int
) -> Entry:
    """As `evolve`, in place: for a state that nobody else holds. What is left of it
    when this raises must not be used."""
    phase = None if entry is None else entry.phase
    allowed = targets(TRANSITIONS, phase, type(event), stream)
    after: Any = entry  # frozen for everybody else
    if entry is None:
        after = _born(event, stream, at, position)
    else:
        _moved(entry, after, event, at)
        after.updated = at
    if after.phase not in allowed:
        raise illegal(TRANSITIONS, phase, type(event), stream)
    after.version += 1
    moved: Entry = after
    return moved


def _born(event: o.OutboxEvent, stream: str, at: int, position: int) -> Entry:
    first: Any = type(event)
    born: Any = beginner(Entry, first)(event)
    born.stream = stream
    born.version = 0
    born.order = position
    born.created = born.updated = at
    if isinstance(event, o.Queued):
        born.phase = Phase.QUEUED
        born.due = event.not_before
    else:
        assert isinstance(event, o.Imported)  # noqa: S101  by the table
        born.phase = Phase(event.phase)
        born.doubt = event.phase != Phase.QUEUED
    made: Entry = born
    return made


# One case per event and no wildcard: mypy's exhaustive-match finds a forgotten one.
# What every message does sets its fields one by one: the fold is on its path.
def _moved(e: Entry, to: Any, event: o.OutboxEvent, at: int) -> None:
    """Set the fields that an event changes. `to` is `e`, to be written."""
    match event:
        case o.Attempted():
            _attempted(e, to, event, at)
        case o.Delivered() | o.PartDelivered():
            _settled(e, to, event.receipt, event.thread)
        case o.Planned():
            _planned(to, event)
        case o.Dispatched():
            to.phase = Phase.DISPATCHED
        case o.Queued() | o.Imported():
            pass  # the table lets neither get here
        case o.Deferred():
            assign(
                to,
                phase=Phase.QUEUED,
                used=e.used - 1,
                due=event.due,
                failure=event.failure,
            )
        case o.FailedRetryable():
            assign(
                to,
                phase=Phase.RETRYABLE,
                due=event.due,
                failure=event.failure,
                target=event.target or e.target,
                deaths=e.deaths + (event.failure is FailureClass.OWNER_DIED),
            )
        case o.OutcomeUnknown():
            assign(
                to,
                phase=Phase.IN_DOUBT,
                doubt=True,
                due=event.due,
                reason=event.cause,
                deaths=e.deaths + (event.cause == FailureClass.OWNER_DIED),
            )
        case o.Reconciled():
            _reconciled(e, to, event)
        case o.Parked():
            assign(to, phase=Phase.PARKED, due=None, reason=event.reason)
        case o.Resolved():
            _resolved(e, to, event, at)
        case o.FailedTerminal():
            assign(
                to,
                phase=Phase.FAILED,
                due=None,
                reason=event.reason,
                failure=event.failure,
            )
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
            to.bounced = True
        case o.Doubted():
            assign(to, phase=Phase.PARKED, doubt=True, due=None, reason=event.reason)
        case o.LaneYielded():
            to.yielded = True
        case o.Redacted():
            to.redacted = True


def _planned(to: Any, event: o.Planned) -> None:
    to.planned = True
    to.parts = event.parts
    to.budget = event.budget
    to.ids = event.ids
    if event.thread is not None:
        to.thread = event.thread


def _attempted(e: Entry, to: Any, event: o.Attempted, at: int) -> None:
    to.phase = Phase.DISPATCHED if event.on_wire else Phase.ATTEMPTED
    to.attempt = event.attempt
    to.used = e.used + 1
    if e.first_at is None:
        to.first_at = at
    to.last_at = at
    to.fence = event.fence
    to.owner = event.owner
    to.due = None
    to.resend = False
    to.marked = event.marked


def _settled(e: Entry, to: Any, receipt: tuple[str, ...], thread: str | None) -> None:
    """The current part is done: on to the next one, or delivered."""
    to.phase = Phase.DELIVERED if e.last else Phase.QUEUED
    to.part = e.part + 1
    to.receipts = (*e.receipts, receipt)
    if e.thread is None:
        to.thread = thread
    to.attempt = to.used = to.asks = to.deaths = 0
    to.doubt = to.resend = to.marked = False
    to.first_at = to.last_at = to.due = to.reason = None


def _reconciled(e: Entry, to: Any, event: o.Reconciled) -> None:
    to.due = event.due
    if event.absent:
        to.phase = Phase.RETRYABLE
        to.doubt = False
        to.failure = FailureClass.ABSENT
    elif not event.early:
        to.asks = e.asks + 1


def _resolved(e: Entry, to: Any, event: o.Resolved, at: int) -> None:
    """A person's word to send is worth one attempt, though the budget be spent."""
    to.due = at
    to.used = min(e.used, max(e.budget - 1, 0))
    if event.resend:
        to.phase = Phase.IN_DOUBT
        to.resend = True
        to.marked = event.marked
    else:
        to.phase = Phase.RETRYABLE
        to.doubt = False
        to.failure = FailureClass.NOT_SENT


def _late(e: Entry, to: Any, event: o.LateReceipt) -> None:
    """Evidence for one part. It can settle the current part of an open entry, and
    close a closed one only when nothing is left to send."""
    if event.part != e.part or e.phase is Phase.DELIVERED:
        return
    phase, reason, finishes = e.phase, e.reason, e.open or e.last
    _settled(e, to, event.receipt, event.thread)
    if not finishes:
        to.phase = phase
        to.reason = reason


def _redriven(to: Any, event: o.Redriven) -> None:
    assign(to, phase=Phase.QUEUED, budget=event.budget, expires_at=event.expires_at)
    assign(to, used=0, asks=0, deaths=0, doubt=False, acknowledged=False)
    assign(to, abort=None, abort_by=None, due=None, reason=None)
