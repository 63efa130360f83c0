"""Inbound messages from /sync, without a gap and without losing one.

The cursor is the sync token. A round is one sync with all its gaps filled. Its messages
come with the cursor of the round before, and only the last one carries the new cursor.
So a process that stops in between reads the whole round again, and the kernel's dedupe
keys drop the known messages.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from typing import Any

import aiohttp
import nio  # type: ignore[import-untyped]  # ships no types
from attrs import frozen

from turnfold.enums import FailureClass
from turnfold.inbound import Inbound
from turnfold.logs import lines
from turnfold_adapters.channels.matrix_client import TRANSPORT, MatrixClient
from turnfold_adapters.channels.matrix_content import inbound_of
from turnfold_adapters.channels.matrix_history import (
    Event,
    dicts,
    membership,
    pages,
    was_member,
)
from turnfold_adapters.channels.matrix_outcomes import RefusedError

_log = lines("turnfold.matrix")

_PASSING = frozenset(
    {FailureClass.TRANSIENT, FailureClass.RATE_LIMITED, FailureClass.NOT_CONNECTED}
)
_BACKOFF_MAX_MS = 60_000
# How much longer than the long poll an answer may take before the poll counts as lost.
_POLL_GRACE_MS = 15_000


@frozen(kw_only=True)
class Listening:
    """The settings of a listener. `channel` and `account` are this bot's names in the
    kernel."""

    channel: str
    account: str
    event_types: tuple[str, ...]
    auto_join: bool
    poll_ms: int = 30_000
    timeline: int = 100  # events per room and round; the rest is fetched as a gap


@frozen(kw_only=True)
class Round:
    messages: tuple[Inbound, ...]
    cursor: str


async def listen(
    client: MatrixClient, how: Listening, cursor: str | None
) -> AsyncGenerator[tuple[Inbound | None, str], None]:
    """(message or none, cursor) pairs, for ever. `cursor=None` starts at now.

    During an outage it waits. Raises `RefusedError` when only an operator can help.
    """
    while True:
        since = cursor
        done = await _patiently(lambda: _round(client, how, since))  # noqa: B023  awaited here
        for message in done.messages[:-1]:
            yield message, since or done.cursor
        yield (done.messages[-1] if done.messages else None), done.cursor
        cursor = done.cursor


async def _patiently(work: Callable[[], Awaitable[Round]]) -> Round:
    """Repeat a round until it succeeds; until then the cursor does not move."""
    failed = 0
    while True:
        try:
            return await work()
        except RefusedError as exc:
            if exc.rejected.failure not in _PASSING:
                raise
            problem, asked_ms = str(exc), exc.rejected.retry_after_ms
        except TRANSPORT as exc:
            problem, asked_ms = str(exc) or type(exc).__name__, None
        wait_ms = asked_ms or min(1000 << min(failed, 10), _BACKOFF_MAX_MS)
        failed += 1
        _log.warning("sync failed (%s); again in %d ms", problem, wait_ms)
        await asyncio.sleep(wait_ms / 1000)


async def _round(client: MatrixClient, how: Listening, since: str | None) -> Round:
    poll_ms = how.poll_ms if since else 0
    body = await client.ask(
        nio.Api.sync("", since=since, timeout=poll_ms, filter=_filter(how, since)),
        "sync",
        timeout_ms=poll_ms + _POLL_GRACE_MS if since else None,
    )
    token = body.get("next_batch")
    if not isinstance(token, str) or not token:
        raise aiohttp.ClientPayloadError("sync answered without next_batch")
    rooms = _mapping(body.get("rooms"))
    if how.auto_join:
        for room_id in _mapping(rooms.get("invite")):
            await _join(client, room_id)
    if since is None:  # messages from before the bot first ran are not for it
        return Round(messages=(), cursor=token)
    messages: list[Inbound] = []
    for section in ("join", "leave"):  # a room that removed the bot may hold messages
        for room_id, room in _mapping(rooms.get(section)).items():
            events = await _events(client, how, room_id, room, since)
            messages.extend(_inbound(client, how, room_id, events))
    return Round(messages=tuple(messages), cursor=token)


def _filter(how: Listening, since: str | None) -> dict[str, Any]:
    """The filter of a sync: messages, and member events to find the bot's joining."""
    nothing: dict[str, Any] = {"types": []}
    return {
        "presence": nothing,
        "account_data": nothing,
        "room": {
            "timeline": {"limit": how.timeline if since else 1, **_only(how)},
            "state": nothing,
            "ephemeral": nothing,
            "account_data": nothing,
            "include_leave": False,  # rooms left long ago; a fresh leave comes anyway
        },
    }


def _only(how: Listening) -> dict[str, Any]:
    return {"types": [*how.event_types, "m.room.member"]}


async def _events(
    client: MatrixClient, how: Listening, room_id: str, room: object, since: str
) -> list[Event]:
    """The events of a room since the cursor, oldest first, gap included."""
    timeline = _mapping(_mapping(room).get("timeline"))
    events = dicts(timeline.get("events"))
    before = timeline.get("prev_batch")
    if timeline.get("limited") is True and isinstance(before, str):
        events = await _gap(client, how, room_id, before, since) + events
    return _since_entrance(events, client.user_id)


async def _gap(
    client: MatrixClient, how: Listening, room_id: str, before: str, since: str
) -> list[Event]:
    """The events between the cursor and the oldest event of a limited timeline."""
    newest_first: list[Event] = []
    try:
        async for page in pages(
            client, room_id, start=before, stop=since, only=_only(how)
        ):
            newest_first.extend(page)
    except RefusedError as exc:
        if exc.rejected.failure in (*_PASSING, FailureClass.AUTH):
            raise
        # The server never shows this room: go on with the readable rooms.
        _log.error("messages of %s are out of reach: %s", room_id, exc)
    return newest_first[::-1]


def _since_entrance(events: list[Event], user_id: str) -> list[Event]:
    """The events since the bot was invited (or joined uninvited).

    A new room arrives with its older history. The first event about the bot's own
    membership shows if the bot was in the room before.
    """
    for index, event in enumerate(events):
        what = membership(event, user_id)
        if what is not None:
            entered = what in ("invite", "join") and not was_member(event)
            return events[index:] if entered else events
    return events


def _inbound(
    client: MatrixClient, how: Listening, room_id: str, events: Iterable[Event]
) -> list[Inbound]:
    wanted = (
        event
        for event in events
        if event.get("type") in how.event_types
        and event.get("sender") != client.user_id
    )
    found = (
        inbound_of(event, room_id=room_id, channel=how.channel, account=how.account)
        for event in wanted
    )
    return [message for message in found if message is not None]


async def _join(client: MatrixClient, room_id: str) -> None:
    """Accept an invite. A refused one is logged and must not stop the others."""
    try:
        await client.ask(nio.Api.join("", room_id), f"join {room_id}")
    except RefusedError as exc:
        if exc.rejected.failure is FailureClass.RATE_LIMITED:
            raise
        _log.warning("invite not accepted: %s", exc)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
