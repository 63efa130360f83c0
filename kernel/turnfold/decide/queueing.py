"""How an entry is born: `queued`, and `planned` with it where its channel is attached."""

from turnfold import packing
from turnfold.decide.draft import Draft
from turnfold.events import outbox as o
from turnfold.frozen import frozen, maker
from turnfold.machines.entry import Entry
from turnfold.packing import Packed
from turnfold.payloads import Route
from turnfold.planning import Plan
from turnfold.words import AbortReason, BlindPolicy, Kind

_Identity = tuple[bytes, bytes | None]
_queued, _planned = maker(o.Queued), maker(o.Planned)
_part = maker(o.PlannedPart)


@frozen(kw_only=True)
class Intent:
    """What is to be sent. `entry` is its stream, fixed before anything is decided, so
    that deciding twice queues once. `plan` is none if the channel is not here."""

    entry: str
    route: Route
    kind: Kind
    packed: tuple[Packed, ...]
    plan: Plan | None = None
    turn: str | None = None
    run: int | None = None
    key: str | None = None  # the caller's idempotency key
    policy: BlindPolicy | None = None
    not_before: int | None = None
    expires_at: int | None = None
    fresh: bool = False  # `entry` was made for this intent alone
    promised: bool = False  # it was durable in the inbox: back-pressure came before


def queue(draft: Draft, intent: Intent) -> Entry:
    """`queued`, and `planned` with it if the channel is here. Nothing is attempted."""
    route, settings = intent.route, draft.settings
    stream = intent.entry
    stored: dict[_Identity, str] = {}
    for packed in intent.packed:  # equal payloads share a body
        if packed.identity not in stored:
            stored[packed.identity] = packing.store(draft, stream, packed)
    queued = _queued(
        kind=intent.kind,
        channel=route.channel,
        account=route.account,
        conversation=route.conversation,
        thread=route.thread,
        reply_to=route.reply_to,
        lane=route.lane,
        body=tuple([stored[p.identity] for p in intent.packed]),
        turn=intent.turn,
        run=intent.run,
        key=intent.key,
        policy=intent.policy or settings.blind,
        not_before=intent.not_before,
        expires_at=intent.expires_at or draft.now + settings.ttl_ms(intent.kind),
    )
    events: list[o.OutboxEvent] = [queued]
    if intent.not_before is not None and intent.not_before > draft.now:
        # A reminder for tomorrow must not hold back today's replies.
        events.append(o.LaneYielded(reason="not_before"))
    if intent.plan is not None:
        events.append(frozen_plan(draft, stream, intent.plan, stored))
    return draft.emit(intent.entry, *events)


def frozen_plan(
    draft: Draft, stream: str, made: Plan, stored: dict[_Identity, str]
) -> o.Planned | o.Aborted:
    """The event that freezes a plan, or ends an entry that its channel suppresses."""
    if not made.parts:
        return o.Aborted(reason=AbortReason.SUPPRESSED)
    parts = []
    for part in made.parts:
        packed, offer = part.packed, part.offer
        planned = _part(
            kind=packed.kind,
            # a part that is the whole payload shares its body
            body=stored.get(packed.identity) or packing.store(draft, stream, packed),
            key=part.key,
            classes=offer.classes,
            key_window_ms=offer.key_window_ms,
            settle_ms=offer.settle_ms,
        )
        parts.append(planned)
    budget = draft.settings.attempts
    return _planned(parts=tuple(parts), budget=budget, ids=made.ids)
