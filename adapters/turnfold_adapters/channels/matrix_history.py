"""Reading a room's history backwards: for a look-up and for the gaps of a sync."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import nio  # type: ignore[import-untyped]  # ships no types

from turnfold.enums import FailureClass
from turnfold.ports.channel import (
    Absent,
    CannotTell,
    Found,
    Part,
    Receipt,
    Rejected,
    Verdict,
)
from turnfold_adapters.channels.matrix_client import TRANSPORT, MatrixClient, classify
from turnfold_adapters.channels.matrix_content import KEY_FIELD
from turnfold_adapters.channels.matrix_outcomes import RefusedError

Event = Mapping[str, Any]
PAGE = 100
# Own events of one room inside a look-up's window; with more the look-up cannot tell.
LOOKUP_PAGES_MAX = 50


async def pages(
    client: MatrixClient,
    room_id: str,
    *,
    start: str | None,
    stop: str | None = None,
    only: Mapping[str, Any],
) -> AsyncIterator[list[Event]]:
    """Pages of events, newest first, from token `start` (None: now) back to `stop`.

    `only` is a Matrix event filter. Ends when the server has no more. A page may be
    empty without being the last. Raises `RefusedError` or a transport error.
    """
    while True:
        body = await client.ask(
            nio.Api.room_messages(
                "", room_id, start, stop, limit=PAGE, message_filter=dict(only)
            ),
            f"history of {room_id}",
        )
        chunk = body.get("chunk")
        yield dicts(chunk)
        end = body.get("end")
        if not isinstance(end, str) or end == start:
            return
        start = end


def dicts(value: object) -> list[Event]:
    """The objects in a foreign list."""
    return [e for e in value if isinstance(e, dict)] if isinstance(value, list) else []


async def look_up(client: MatrixClient, part: Part, since_ms: int) -> Verdict:
    """Is the part in its room? `since_ms` includes the margin for clock skew.

    Absent needs proof that the search went far enough: an own event from before
    `since_ms`, or the bot's own joining of the room. The end of a purged history proves
    nothing, nor does a server that does not answer.
    """
    try:
        return await _search(client, part, since_ms)
    except (RefusedError, *TRANSPORT) as exc:
        return _unanswered(exc)


def _unanswered(exc: Exception) -> CannotTell:
    """No answer: a look-up may always be repeated."""
    detail, meant = str(exc) or type(exc).__name__, classify(exc)
    if not isinstance(meant, Rejected):
        return CannotTell(detail=detail, failure=FailureClass.TRANSIENT)
    return CannotTell(
        detail=detail,
        failure=meant.failure,
        retry_after_ms=meant.retry_after_ms,
        scope=meant.scope,
    )


async def _search(client: MatrixClient, part: Part, since_ms: int) -> Verdict:
    room_id = part.route.conversation
    doubtful = False
    turned = 0
    found = pages(client, room_id, start=None, only={"senders": [client.user_id]})
    async for page in found:
        own = [e for e in page if e.get("sender") == client.user_id]
        match = next((e for e in own if carries(e, part.key)), None)
        if match is not None:
            receipt = Receipt(ids=(str(match["event_id"]),), thread=part.route.thread)
            return Found(receipt=receipt)
        doubtful = doubtful or any(_erased(e) for e in own if _at(e) >= since_ms)
        if _far_enough(own, client.user_id, since_ms):
            return _absent(doubtful=doubtful)
        turned += 1
        if turned >= LOOKUP_PAGES_MAX:
            return CannotTell(detail=f"more than {turned} pages of own events")
    return CannotTell(detail="the history ends before the time of the attempt")


def carries(event: Event, key: str) -> bool:
    """Is this the event of that key? By our field in the content, else by the
    transaction id that the server shows to the device that sent it."""
    if not isinstance(event.get("event_id"), str):
        return False
    content, unsigned = event.get("content"), event.get("unsigned")
    ours = content.get(KEY_FIELD) if isinstance(content, dict) else None
    theirs = unsigned.get("transaction_id") if isinstance(unsigned, dict) else None
    return key in (ours, theirs)


def _absent(*, doubtful: bool) -> Verdict:
    if doubtful:
        return CannotTell(
            detail="an own event of that time was redacted, perhaps this part"
        )
    return Absent()


def _erased(event: Event) -> bool:
    """True for a redacted event, which has lost its content and so the key."""
    unsigned = event.get("unsigned")
    return isinstance(unsigned, dict) and "redacted_because" in unsigned


def _far_enough(own: list[Event], user_id: str, since_ms: int) -> bool:
    """Is a whole page older than the attempt, or does it hold the bot's joining?

    A part of a page is not enough: a server whose clock was set back has old times
    among new ones.
    """
    older = bool(own) and all(_at(event) < since_ms for event in own)
    return older or any(_entrance(event, user_id) for event in own)


def _entrance(event: Event, user_id: str) -> bool:
    if event.get("type") == "m.room.create":
        return True
    return membership(event, user_id) == "join" and not was_member(event)


def membership(event: Event, user_id: str) -> str | None:
    """The membership in a member event about this user; None for any other event."""
    if event.get("type") != "m.room.member" or event.get("state_key") != user_id:
        return None
    content = event.get("content")
    value = content.get("membership") if isinstance(content, dict) else None
    return value if isinstance(value, str) else None


def was_member(event: Event) -> bool:
    """Was the subject of this member event in the room before it?"""
    unsigned = event.get("unsigned")
    before = unsigned.get("prev_content") if isinstance(unsigned, dict) else None
    return isinstance(before, dict) and before.get("membership") == "join"


def _at(event: Event) -> int:
    """The time of an event by the server's clock; an event without a time counts as
    new."""
    value = event.get("origin_server_ts")
    return value if isinstance(value, int) else 2**53
