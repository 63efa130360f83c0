"""Look-ups: is a part in its conversation? The search uses the metadata of the bot's
messages, or the name of the file.

"Not there" needs the whole history since the attempt, read to its end. If that fails
(no scope, no answer, too many pages, a channel given by name), the look-up cannot tell.
"""

import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from attrs import frozen

from turnfold.messages import Native, Text, files_of
from turnfold.ports.channel import Absent, CannotTell, Found, Part, Receipt, Verdict
from turnfold_adapters.channels.slack_client import Identity, SlackClient
from turnfold_adapters.channels.slack_content import (
    KEY_FIELD,
    MARKER,
    PLACEHOLDER_FIELD,
    POST,
    file_tag,
    native_call,
    where,
    words_of,
)
from turnfold_adapters.channels.slack_errors import RefusedError, cannot_tell

Message = Mapping[str, Any]
PAGE = 200
# With more the look-up cannot tell.
PAGES_MOST = 50


@frozen
class Place:
    """The place of a sent part."""

    channel: str
    thread: str | None


async def look_up(
    client: SlackClient, part: Part, since_ms: int, *, reply_in_thread: bool
) -> Verdict:
    """`since_ms` includes the margin for clock skew."""
    try:
        place = _place(part, reply_in_thread=reply_in_thread)
        if isinstance(place, CannotTell):
            return place
        place = await _opened(client, place)
        return await _search(client, part, place, since_ms)
    except RefusedError as exc:
        return cannot_tell(exc)


def _place(part: Part, *, reply_in_thread: bool) -> Place | CannotTell:
    given: Mapping[str, Any] = where(part, reply_in_thread=reply_in_thread)
    if isinstance(part.payload, Native):
        method, given = native_call(
            part.payload, part, marked=False, reply_in_thread=reply_in_thread
        )
        if method != POST:
            return CannotTell(detail=f"{method} leaves no metadata")
    channel, thread = given.get("channel"), given.get("thread_ts")
    if not isinstance(channel, str) or channel[:1] not in "CDGUW":
        return CannotTell(detail=f"not the id of a conversation: {channel!r:.80}")
    return Place(channel, thread if isinstance(thread, str) else None)


async def _opened(client: SlackClient, place: Place) -> Place:
    """Open the conversation of a user, if the route names one; opening it twice is
    harmless."""
    if place.channel[:1] not in "UW":
        return place
    said = await client.ask("conversations.open", {"users": place.channel})
    channel = said.get("channel")
    found = channel.get("id") if isinstance(channel, dict) else None
    return Place(str(found or place.channel), place.thread)


async def _search(
    client: SlackClient, part: Part, place: Place, since_ms: int
) -> Verdict:
    who = await client.identity()
    doubtful = False
    turned = 0
    async for page in _pages(client, place, since_ms):
        own = [m for m in page if _is_own(m, who)]
        match = next((m for m in own if _carries(m, part)), None)
        if match is not None:
            return Found(receipt=_receipt(match, part, place))
        doubtful = doubtful or any(_unnamed_twin(m, part, since_ms) for m in own)
        turned += 1
        if turned >= PAGES_MOST:
            return CannotTell(detail=f"more than {turned} pages of messages")
    if doubtful:
        return CannotTell(detail="an own message has the same words and no metadata")
    return Absent()


async def _pages(
    client: SlackClient, place: Place, since_ms: int
) -> AsyncIterator[list[Message]]:
    given: dict[str, Any] = {
        "channel": place.channel,
        "oldest": f"{since_ms // 1000}.000000",
        "inclusive": True,
        "include_all_metadata": True,
        "limit": PAGE,
    }
    method = "conversations.history"
    if place.thread is not None:
        method, given["ts"] = "conversations.replies", place.thread
    while True:
        body = await client.ask(method, given)
        messages = body.get("messages")
        found = messages if isinstance(messages, list) else []
        yield [m for m in found if isinstance(m, dict)]
        more = body.get("response_metadata")
        cursor = more.get("next_cursor") if isinstance(more, dict) else None
        if not isinstance(cursor, str) or not cursor or cursor == given.get("cursor"):
            return
        given["cursor"] = cursor


def _is_own(message: Message, who: Identity) -> bool:
    """Is the message by this bot? Others may copy the metadata, so only own messages
    are evidence."""
    return bool(who.ids & {str(message.get("user")), str(message.get("bot_id"))})


def _carries(message: Message, part: Part) -> bool:
    if not isinstance(message.get("ts"), str):
        return False
    if files_of(part.payload):
        return _file_of(message, part) is not None
    return _key_of(message) == part.key


def _key_of(message: Message) -> object:
    return _said_by(message).get(KEY_FIELD)


def _said_by(message: Message) -> Mapping[str, Any]:
    """The payload in the metadata of a message."""
    said = message.get("metadata")
    payload = said.get("event_payload") if isinstance(said, dict) else None
    return payload if isinstance(payload, dict) else {}


def _file_of(message: Message, part: Part) -> str | None:
    files = message.get("files")
    for file in files if isinstance(files, list) else []:
        named = isinstance(file, dict) and file_tag(part.key) in str(file.get("name"))
        if named and isinstance(file.get("id"), str):
            return str(file["id"])
    return None


def _receipt(message: Message, part: Part, place: Place) -> Receipt:
    ts = str(message["ts"])
    file = _file_of(message, part)
    return Receipt(ids=receipt_ids(ts, file, place.channel, part), thread=place.thread)


def receipt_ids(
    ts: str | None, file: str | None, channel: str, part: Part
) -> tuple[str, ...]:
    """The receipt ids. Of a message: its time stamp, and its channel if the route does
    not name it. Of a file: its id, and the time stamp of its message if Slack gives it
    by then."""
    there = () if channel == part.route.conversation else (channel,)
    stamp = () if ts is None else (ts, *there)
    return stamp if file is None else (file, *stamp)


def _unnamed_twin(message: Message, part: Part, since_ms: int) -> bool:
    """Is there an own message with the words of the part and without any key, so that
    Slack may have dropped the metadata?"""
    named = {KEY_FIELD, PLACEHOLDER_FIELD} & _said_by(message).keys()
    if files_of(part.payload) or named:
        return False
    words = part.payload.body.get("text") if isinstance(part.payload, Native) else None
    if isinstance(part.payload, Text):
        words = words_of(part.payload)["text"]
    said = str(message.get("text"))
    late = _at_ms(message) >= since_ms
    return late and bool(words) and said in (str(words), f"{MARKER}{words}")


def _at_ms(message: Message) -> float:
    try:
        return float(str(message.get("ts"))) * 1000
    except ValueError:
        return time.time() * 1000
