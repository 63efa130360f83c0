"""Taking a message in: once, durably, with its cursor, and started if its lane is free."""

from attrs import field

from turnfold import canonical
from turnfold.decide.draft import Draft
from turnfold.decide.running import start_if_free
from turnfold.events import turn as t
from turnfold.events.ledger import CursorAdvanced
from turnfold.frozen import frozen
from turnfold.names import cursor_of, inbound_key
from turnfold.packing import pack_inbound
from turnfold.payloads import Inbound, identifier, token
from turnfold.words import TurnPhase


@frozen(kw_only=True)
class Acceptance:
    """`new` is false for a message that was there before; `status` is then where its
    turn stands, so that the caller can acknowledge, ignore or show the old answer."""

    turn_id: str
    status: TurnPhase
    new: bool | None  # None: only the owner of the store can know


@frozen(kw_only=True)
class SourceCursor:
    """How far a source has got, under a name of its own."""

    channel: str = field(validator=identifier)
    account: str = field(validator=identifier)
    value: str = field(validator=token)
    name: str = field(default="", validator=token)


def accept(
    draft: Draft, turn: str, inbound: Inbound, cursor: SourceCursor | None = None
) -> Acceptance:
    """`turn` is the stream that the message gets if it is new."""
    if cursor is not None:
        advance(draft, cursor)
    key = inbound_key(inbound)
    known = draft.lookup(key)
    if known is not None:
        # Ours already: an earlier COMMIT of this very call did reach the disk.
        status, new = draft.turn(known).phase, known == turn
        return Acceptance(turn_id=known, status=status, new=new)
    draft.fresh(turn)
    draft.emit(
        turn,
        t.Accepted(
            channel=inbound.channel,
            account=inbound.account,
            conversation=inbound.conversation,
            message_id=inbound.message_id,
            event=inbound.event,
            thread=inbound.thread,
            lane=inbound.route.lane,
            body=draft.body(turn, pack_inbound(inbound)),
            control=inbound.control,
        ),
    )
    draft.key(key, turn)
    start_if_free(draft, turn)
    return Acceptance(turn_id=turn, status=draft.turn(turn).phase, new=True)


def advance(draft: Draft, cursor: SourceCursor) -> None:
    """A cursor moves in the commit of what it has passed, never ahead of it."""
    name = cursor_of(cursor.channel, cursor.account, cursor.name)
    before = draft.cursor(name)
    if before is None or before.value != cursor.value:
        draft.emit(name, CursorAdvanced(cursor=cursor.value))


def inbound_of(body: bytes) -> dict[str, object]:
    """The body of a message as it was accepted."""
    value = canonical.loads(body)
    return value if isinstance(value, dict) else {}
