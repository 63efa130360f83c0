"""The queue of another system, taken in as entries (specs/import.md).

Nobody knows which of these deliveries that system has sent. So the kernel never sends
one unasked: an entry is parked for a person, or becomes a dead letter with an unknown
outcome.
"""

from msgspec import Struct

from turnfold._decide.outbox import after_close, log_time, store_payloads
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._log import outbox_events as o
from turnfold._log.bodies import EncodedPayload
from turnfold._log.ids import outbound_key
from turnfold.enums import Kind, Reason
from turnfold.messages import Route


class Foreign(Struct, kw_only=True):
    """One delivery of another queue. `entry`: the stream that it gets if its `key` is
    new. `enqueued_at`: wall ms, if that queue knew. `dead`: that queue had given up."""

    entry: str
    route: Route
    kind: Kind
    packed: tuple[EncodedPayload, ...]
    key: str
    origin: str
    enqueued_at: int | None = None
    tries: int = 0
    detail: str = ""
    dead: bool = False


def bring_in(draft: UnitOfWork, foreign: Foreign) -> str:
    """Take a delivery in, once per key. Returns the stream of its entry."""
    name = outbound_key(foreign.key)
    known = draft.lookup(name)  # also of a command that waits, such as this one
    if known is not None and known != foreign.entry:
        return known
    if draft.find_entry(foreign.entry) is not None:  # a commit of unknown fate
        return foreign.entry
    event = _imported(draft, foreign)
    entry = draft.emit(foreign.entry, event)
    draft.key(name, foreign.entry)
    if foreign.dead or is_too_old(draft, event.expires_at):
        ended = o.FailedTerminal(reason=Reason.OUTCOME_UNKNOWN)
        entry = draft.emit(foreign.entry, ended)
    after_close(draft, entry)
    return foreign.entry


def _imported(draft: UnitOfWork, foreign: Foreign) -> o.Imported:
    stream, route = foreign.entry, foreign.route
    stored = store_payloads(draft, stream, foreign.packed)
    return o.Imported(
        kind=foreign.kind,
        channel=route.channel,
        account=route.account,
        conversation=route.conversation,
        lane=route.lane,
        thread=route.thread,
        reply_to=route.reply_to,
        body=tuple([stored[piece.identity] for piece in foreign.packed]),
        expires_at=_expiry(draft, foreign),
        origin=foreign.origin,
        key=foreign.key,
        enqueued_at=foreign.enqueued_at,
        tries=foreign.tries,
        detail=draft.text(stream, foreign.detail),
    )


def _expiry(draft: UnitOfWork, foreign: Foreign) -> int:
    """The time to live counts from when the other queue took the delivery. Where that
    time is not known, and while no clock can be trusted, the time to live counts from
    now."""
    since = log_time(draft, foreign.enqueued_at)
    if since is None or draft.sure_from:
        since = draft.now
    return max(1, min(since, draft.now) + draft.settings.ttl_ms(foreign.kind))


def is_too_old(draft: UnitOfWork, expires_at: int) -> bool:
    return draft.now >= expires_at
