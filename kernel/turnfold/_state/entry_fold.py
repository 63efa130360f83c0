"""The fold of an outbox entry (specs/design.md 4).

`evolve` and `advance` look an event up in the transition table (`entry_table`), set the
fields that it changes, and check the new phase against the table.
"""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from turnfold._log import outbox_events as o
from turnfold._state.entry import (
    NOT_BLAMED,
    SPOILED,
    Entry,
    PartState,
    all_delivered,
    first_doubted,
    first_open,
    gathered,
    is_void,
    known,
    put_down,
    renewed,
    reopened,
    take_up,
    with_part,
)
from turnfold._state.entry_table import TRANSITIONS
from turnfold._state.transitions import illegal, targets
from turnfold.enums import (
    CLOSED,
    DELIVERED,
    DISPATCHED,
    FAILED,
    ON_ITS_WAY,
    PLACEHOLDER,
    QUEUED,
    FailureClass,
    PartEnd,
    Phase,
    Reason,
    TrialEnd,
)


def evolve(
    entry: Entry | None, event: o.OutboxEvent, stream: str, at: int, position: int
) -> Entry:
    """The state after one more event, as a new object; `entry` stays as it is.

    `at`: log time of the event in ms. `position`: of its record. Raises
    IllegalTransitionError if the table has no such edge.
    """
    return advance(entry and entry.copied(), event, stream, at, position)


def advance(
    entry: Entry | None, event: o.OutboxEvent, stream: str, at: int, position: int
) -> Entry:
    """As `evolve`, but `entry` itself is changed. Only for a state that no other code
    holds. If this raises, `entry` may be half changed and must not be used."""
    phase = None if entry is None else entry.phase
    allowed = targets(TRANSITIONS, phase, type(event), stream)
    if entry is None:
        entry = _born(event, stream, at, position)
    else:
        (_USUAL.get(type(event)) or _moved)(entry, event, at)
        entry.updated = at
    if entry.phase not in allowed:
        raise illegal(TRANSITIONS, phase, type(event), stream)
    entry.version += 1
    return entry


def _born(event: o.OutboxEvent, stream: str, at: int, position: int) -> Entry:
    """A new entry, before its first event is counted in its version."""
    assert isinstance(event, o.Queued | o.Imported)  # noqa: S101  by the table
    entry = Entry(
        stream=stream,
        version=0,
        phase=QUEUED,
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
        since=at,
        key=event.key,
        thread=event.thread,
        reply_to=event.reply_to,
    )
    if isinstance(event, o.Imported):
        entry.phase, entry.doubt, entry.reason = Phase.PARKED, True, "imported"
    else:
        entry.policy, entry.live, entry.behind = event.policy, event.live, event.behind
        entry.turn, entry.run, entry.due = event.turn, event.run, event.not_before
        if event.waited_ms or event.not_before:
            entry.since = max(at - event.waited_ms, event.not_before or 0)
    return entry


SHUTDOWN = "shutdown"  # the kernel's stop ended the call: no budget is spent
_FREE = (SHUTDOWN, FailureClass.OWNER_DIED)  # no verdict on the message


# One case per event and no wildcard: mypy's exhaustive-match finds a forgotten one.
# The events of every message set fields one by one: the fold is on their path.
def _moved(e: Entry, event: o.OutboxEvent, at: int) -> None:  # noqa: PLR0915  a case per event
    """Set the fields that an event changes."""
    match event:
        case o.Attempted() | o.Delivered() | o.PartDelivered() | o.Planned():
            _USUAL[type(event)](e, event, at)
        case o.Dispatched():
            e.phase = Phase.DISPATCHED
        case o.Queued() | o.Imported():
            pass  # the table excludes both
        case o.Placed():
            _placed(e, event)
        case o.Tried():
            _tried(e, event)
        case o.PartRefused():
            _refused(e, event)
        case o.AmendedPart():
            _amended(e, event)
        case o.Deferred():
            _deferred(e, event)
        case o.FailedRetryable():
            _retryable(e, event)
        case o.OutcomeUnknown():
            e.phase = Phase.IN_DOUBT
            e.doubt = True
            e.due = event.due
            e.reason = event.cause
            e.used = e.used - (event.cause in _FREE)
            _blame(e, event, event.cause)
        case o.Reconciled():
            _reconciled(e, event)
        case o.Parked():
            e.phase = Phase.PARKED
            e.due = None
            e.reason = event.reason
            e.resend = e.marked = False
        case o.Resolved():
            _resolved(e, event, at)
        case o.FailedTerminal():
            e.phase = Phase.FAILED
            e.due = None
            e.reason = event.reason
            e.failure = event.failure
        case o.AbortRequested():
            e.abort = event.reason
            e.abort_by = event.by
        case o.Aborted():
            e.phase = Phase.ABORTED
            e.due = None
            e.reason = event.reason
        case o.LateReceipt():
            _late(e, event)
        case o.Rescheduled():
            e.due, e.since = event.due, max(at, event.due)
        case o.Redriven():
            _redriven(e, event, at)
        case o.Acknowledged():
            e.acknowledged = True
        case o.Bounced():
            _bounced(e, event)
        case o.Doubted():
            _doubted(e, event)
        case o.LaneYielded():
            e.yielded = True
        case o.Redacted():
            e.redacted = True


def _planned(e: Entry, event: o.Planned, _at: int) -> None:
    e.planned = True
    e.parts = event.parts
    e.budget = event.budget
    e.ids = event.ids
    if event.thread is not None:
        e.thread = event.thread


def _attempted(e: Entry, event: o.Attempted, at: int) -> None:
    if event.part != e.part and not e.ended(event.part):
        put_down(e)
        take_up(e, event.part)
    e.phase = DISPATCHED if event.on_wire else Phase.ATTEMPTED
    e.attempt = event.attempt
    e.used = e.used + 1
    if e.first_at is None:
        e.first_at = at
    e.last_at = at
    e.fence = event.fence
    e.owner = event.owner
    e.due = None
    e.target = event.target
    e.granted = e.resend
    e.resend = False
    e.marked = event.marked
    e.act = event.act
    if e.doubt and event.act is PLACEHOLDER:
        e.remade = True
    if not e.planned:
        e.offered = event.classes
        e.offered_policy = event.policy


def _accepted(e: Entry, event: o.Delivered | o.PartDelivered, _at: int) -> None:
    if event.part != e.part and not e.ended(event.part):
        put_down(e)
        take_up(e, event.part)
    _end_part(e, PartEnd.DELIVERED, event.receipt)
    if e.thread is None:
        e.thread = event.thread
    e.phase = _after_part(e)
    if e.phase is FAILED:
        e.phase = QUEUED  # `failed_terminal` follows in the same commit


# The events of every message, found at once: `match` makes a set, a list and a tuple
# for each case that it tries.
_USUAL: Mapping[type[Any], Callable[[Entry, Any, int], None]] = {
    o.Attempted: _attempted,
    o.Planned: _planned,
    o.Delivered: _accepted,
    o.PartDelivered: _accepted,
}


def _end_part(e: Entry, end: PartEnd, receipt: tuple[str, ...] = ()) -> None:
    """End the part at hand, and take up the next one."""
    put_down(e, end, receipt)
    _next_part(e)
    e.due = e.reason = None
    e.backoffs = 0
    e.blame = NOT_BLAMED


def _blame(e: Entry, event: o.OutcomeUnknown | o.FailedRetryable, cause: str) -> None:
    """A death makes what was under way suspect. Any other end of an attempt clears it."""
    again = e.blame.after_death(event.beside, event.suspects)
    e.blame = again if cause == FailureClass.OWNER_DIED else NOT_BLAMED


def _tried(e: Entry, event: o.Tried) -> None:
    e.fence, e.owner = event.fence, event.owner
    e.tried = e.version + 1 if event.end is None else 0
    if event.end is TrialEnd.DIED:
        e.blame = e.blame.after_death(event.beside, event.suspects)
        e.due = event.due


def _next_part(e: Entry) -> None:
    doubted = first_doubted(e.others)
    if doubted is None:
        doubted = first_open(e.others, e.parts, len(e.parts) or 1)
    take_up(e, doubted)


def _after_part(e: Entry) -> Phase:
    """The phase of an open entry after one of its parts has ended."""
    count = len(e.parts) or 1
    if e.part >= count:
        return DELIVERED if all_delivered(e.others, count) else FAILED
    return Phase.PARKED if e.doubt else Phase.QUEUED


def _free(e: Entry, calm: Phase) -> None:
    """End the doubt about the part at hand, which stays open. `calm`: the phase if no
    other part is in doubt."""
    e.doubt = e.resend = e.granted = e.marked = False
    e.phase = calm if first_doubted(e.others) is None else Phase.PARKED
    if e.others:
        put_down(e)
        _next_part(e)


def _placed(e: Entry, event: o.Placed) -> None:
    """A placeholder is no failure: the budget gets its unit back."""
    if event.stray:
        return
    if event.part != e.part:
        put_down(e)
        take_up(e, event.part)
    e.handle = event.handle
    e.used = max(e.used - 1, 0)
    e.due = e.reason = None
    e.blame = NOT_BLAMED
    _free(e, Phase.QUEUED)


def _refused(e: Entry, event: o.PartRefused) -> None:
    if event.part != e.part and not e.ended(event.part):
        put_down(e)
        take_up(e, event.part)
    _end_part(e, PartEnd.REFUSED)
    e.phase = Phase.QUEUED
    e.failure = event.failure


def _amended(e: Entry, event: o.AmendedPart) -> None:
    if event.part < len(e.parts):
        lost = (*e.parts[event.part].dropped, event.dropped)
        new = {"body": event.body, "key": event.key, "dropped": lost}
        e.parts = _changed(e.parts, event.part, **new)
    if event.part == e.part and e.phase is not Phase.IN_DOUBT:
        e.first_at = None  # the window of a new key begins with its first attempt
        e.used = max(e.used - 1, 0)  # each decoration is dropped once: no need to count


def _deferred(e: Entry, event: o.Deferred) -> None:
    """Spends no budget; a permission to send again stays valid."""
    e.phase = Phase.IN_DOUBT if e.doubtful else Phase.QUEUED
    e.used = e.used - 1
    e.due = event.due
    e.backoffs = e.backoffs + (event.due is not None)
    e.failure = event.failure
    e.resend = e.granted
    e.blame = NOT_BLAMED
    if not e.granted:
        e.marked = False
    _handle_gone(e, event.failure)


def _retryable(e: Entry, event: o.FailedRetryable) -> None:
    e.phase = Phase.RETRYABLE
    e.due = event.due
    e.failure = event.failure
    e.target = event.target or e.target
    e.used = e.used - (event.failure is FailureClass.OWNER_DIED)
    _blame(e, event, event.failure)
    _handle_gone(e, event.failure)


def _handle_gone(e: Entry, failure: FailureClass) -> None:
    if failure is FailureClass.HANDLE_GONE:
        e.handle = ()


def _reconciled(e: Entry, event: o.Reconciled) -> None:
    e.due = event.due
    if event.absent:
        _free(e, Phase.RETRYABLE)
        e.failure = FailureClass.ABSENT
    elif not event.early:
        e.asks = e.asks + 1
    elif event.failure is not None:
        e.failure = event.failure
        e.backoffs = e.backoffs + 1


def _resolved(e: Entry, event: o.Resolved, at: int) -> None:
    """A decision to send again allows one attempt, even if the budget is spent."""
    if event.part != e.part and not e.ended(event.part):
        put_down(e)
        take_up(e, event.part)
    e.due = at
    e.used = min(e.used, max(e.budget - 1, 0))
    if event.expires_at is not None:
        e.expires_at = event.expires_at
    policy = event.by.startswith("policy:")
    if not policy:
        e.blame, e.since = NOT_BLAMED, at
    if event.resend:
        e.phase = Phase.IN_DOUBT
        e.resend = True
        e.marked = event.marked
        e.resends = e.resends + policy
    else:
        _free(e, Phase.RETRYABLE)
        e.failure = FailureClass.NOT_SENT


def _late(e: Entry, event: o.LateReceipt) -> None:
    """Evidence for one part, in any phase of the entry. A closed entry changes its end
    only if all its parts have arrived by now."""
    before = known(e.others, event.part)
    if event.part >= e.count or is_void(e, event.part, event.receipt):
        return
    if before is not None and before.end in (PartEnd.DELIVERED, PartEnd.BOUNCED):
        return
    phase, reason, at_hand = e.phase, e.reason, event.part == e.part
    _settle(e, event)
    if e.thread is None:
        e.thread = event.thread
    after = _after_part(e)
    if phase in CLOSED:
        whole = after is Phase.DELIVERED
        e.phase, e.reason = (after, None) if whole else (phase, reason)
    elif phase in ON_ITS_WAY and not at_hand and after in (Phase.QUEUED, Phase.PARKED):
        e.phase = phase
    else:
        e.phase = after
        e.reason = Reason.PARTIAL if after is Phase.FAILED else None


def _settle(e: Entry, event: o.LateReceipt) -> None:
    """The part has arrived. If it is another one, the part at hand stays, unless no
    part is being sent and another one is in doubt or comes first."""
    hand = e.part
    if event.part == hand:
        _end_part(e, PartEnd.DELIVERED, event.receipt)
        return
    keep = (e.resend, e.granted, e.marked)
    put_down(e)
    e.others = reopened(e.others, event.part)
    take_up(e, event.part)
    put_down(e, PartEnd.DELIVERED, event.receipt)
    if e.phase in ON_ITS_WAY:
        take_up(e, hand)
        e.resend, e.granted, e.marked = keep
    else:
        _next_part(e)
        e.due = None


def _bounced(e: Entry, event: o.Bounced) -> None:
    """The receipt no longer counts. A delivered entry is a dead letter now."""
    state = known(e.others, event.part)
    if state is None or state.end is not PartEnd.DELIVERED:
        return
    bad = PartState(
        part=event.part,
        end=PartEnd.BOUNCED,
        void=state.receipt,
        attempt=state.attempt,
    )
    e.others = with_part(e.others, bad)
    if e.phase is Phase.DELIVERED:
        e.phase = Phase.FAILED
        e.reason = "bounced"


def _doubted(e: Entry, event: o.Doubted) -> None:
    """Put each open part in doubt: it may have been sent."""
    put_down(e)
    for part in range(e.count):
        if not e.ended(part):
            take_up(e, part)
            e.doubt = True
            put_down(e)
    _next_part(e)
    e.phase = Phase.PARKED
    e.due = None
    e.reason = event.reason


def _redriven(e: Entry, event: o.Redriven, at: int) -> None:
    """Open the refused and bounced parts again, under new keys."""
    put_down(e)
    spoiled = [state.part for state in e.others if state.end in SPOILED]
    for part, key in zip(spoiled, event.keys, strict=False):
        e.parts = _changed(e.parts, part, key=key)
    e.others = gathered([renewed(state) for state in e.others])
    e.budget = event.budget
    e.expires_at, e.since = event.expires_at, at
    e.acknowledged = False
    e.abort = None
    e.abort_by = None
    e.due = None
    e.reason = None
    e.backoffs = 0
    e.blame = NOT_BLAMED
    _next_part(e)
    if e.doubt:
        e.phase = Phase.IN_DOUBT
        e.resend = True
    else:
        e.phase = Phase.QUEUED


def _changed(
    planned: tuple[o.PlannedPart, ...], part: int, **changes: Any
) -> tuple[o.PlannedPart, ...]:
    """The frozen parts with one of them changed, if it is there."""
    new = [replace(p, **changes) for p in planned[part : part + 1]]
    return (*planned[:part], *new, *planned[part + 1 :])
