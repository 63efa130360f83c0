"""Inbound messages by the gateway, and missed ones by the history.

The gateway waits for no acknowledgement: events for a process that dies are lost. The
history of the channels is not. So the cursor records the taken messages, and becomes
durable with each of them. After each start, and after each session that Discord could
not resume, channels with other messages are read from the cursor on, oldest first,
before live messages.

Ids of messages ascend with time, but those of two channels may come in either order.
The cursor has a place in each recently active channel, up to `PLACES_MOST` and a
minute, and a floor below which all messages were taken. So each message is taken once,
from the gateway or from the history.

Discord does not list the private chats of a bot. The cursor names the `PRIVATE_MOST`
most recent ones, and they are read, too. Channels without the right to read the history
give live messages only.

An edit of a message has its event `edit` and a revision. Edits during a time without a
listener are lost. Interactions ask for an answer within three seconds, and are not
taken. `body` is the message as Discord sent it, with its `text` beside it.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from operator import itemgetter
from typing import Any

import discord
from attrs import field, frozen
from discord.errors import Forbidden, NotFound
from discord.gateway import DiscordWebSocket
from discord.http import Route

from turnfold.errors import InvalidInputError
from turnfold.inbound import Inbound
from turnfold.logs import lines

_log = lines("turnfold.discord")

PLACES_MOST = 16
PRIVATE_MOST = 32
_PAGE = 100
_MINUTE = 60_000 << 22  # of ids
_EPOCH_MS = 1_420_070_400_000  # of the ids, "Snowflakes" in Discord's reference
Message = Mapping[str, Any]


@frozen(kw_only=True)
class Listening:
    """The settings of a listener."""

    channel: str
    account: str
    token: str = field(repr=False)
    base_url: str
    gateway: str
    intents: discord.Intents | None
    bots: bool
    ready_s: float


@frozen
class Cursor:
    """The taken messages: all up to `floor`, and in each channel of `places` all up to
    its place. `private`: the most recent private chats."""

    floor: int
    places: Mapping[int, int] = field(factory=dict)
    private: tuple[int, ...] = ()

    @classmethod
    def of(cls, text: str) -> "Cursor":
        """Read a cursor from its text: `floor channel=message ... +chat ...`."""
        floor, *words = text.split(" ")
        places = dict(word.split("=") for word in words if "=" in word)
        chats = (int(word[1:]) for word in words if word.startswith("+"))
        numbers = {int(channel): int(at) for channel, at in places.items()}
        return cls(int(floor), numbers, tuple(chats))

    @classmethod
    def now(cls) -> "Cursor":
        return cls((time.time_ns() // 1_000_000 - _EPOCH_MS) << 22)

    def place(self, channel: int) -> int:
        return max(self.places.get(channel, 0), self.floor)

    def past(self, event: "Event") -> "Cursor":
        """The cursor behind a message."""
        channel, number = event.channel, int(event.message["id"])
        places = {**self.places, channel: max(self.place(channel), number)}
        newest, floor = max(places.values()), self.floor
        for one, at in sorted(places.items(), key=itemgetter(1)):
            if len(places) > PLACES_MOST or at < newest - _MINUTE:
                del places[one]
                floor = max(floor, at)
        others = [chat for chat in self.private if chat != channel]
        private = (channel, *others)[:PRIVATE_MOST] if event.private else self.private
        return Cursor(floor, places, private)

    def __str__(self) -> str:
        places = (f"{channel}={at}" for channel, at in self.places.items())
        return " ".join([str(self.floor), *places, *(f"+{c}" for c in self.private)])


@frozen
class Event:
    """Of the gateway: a message, an edit, a new session, or the end of its list of
    servers."""

    kind: str
    message: Message = field(factory=dict)
    private: bool = False

    @property
    def channel(self) -> int:
        return int(self.message["channel_id"])


_WANTED = {"READY": "session", "MESSAGE_CREATE": "message", "MESSAGE_UPDATE": "edit"}


class _Client(discord.Client):
    """Puts the events of the gateway into a queue, in their order. `at`: the newest
    message that was taken."""

    def __init__(self, how: Listening, at: Cursor) -> None:
        super().__init__(
            intents=how.intents or _intents(),
            enable_debug_events=True,  # the messages as Discord sent them
            guild_ready_timeout=how.ready_s,
            chunk_guilds_at_startup=False,
            member_cache_flags=discord.MemberCacheFlags.none(),
            max_messages=None,
        )
        self.at = at
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()
        _point_to(self, how)

    def dispatch(self, event: str, /, *args: Any, **kwargs: Any) -> None:
        """Every event of the library, in order; none once the client is closed."""
        if event == "socket_raw_receive":
            self._hear(*args)
        if event == "ready":
            self.events.put_nowait(Event("ready"))
        if not self.is_closed():
            super().dispatch(event, *args, **kwargs)

    def _hear(self, said: str) -> None:
        event = json.loads(said)
        kind, data = _WANTED.get(event.get("t") or ""), event.get("d")
        if kind == "session":
            self.events.put_nowait(Event(kind))
        elif kind is not None and _is_message(data):
            self.events.put_nowait(Event(kind, data, data.get("guild_id") is None))

    def behind(self) -> set[int]:
        """The channels of servers with messages that were not taken."""
        channels = [
            c for guild in self.guilds for c in (*guild.channels, *guild.threads)
        ]
        newest = {c.id: getattr(c, "last_message_id", None) or 0 for c in channels}
        return {c for c, last in newest.items() if last > self.at.place(c)}


def _is_message(said: Any) -> bool:
    """Skip a message without ids, at which discord.py breaks: the source then starts
    again, and must not meet it twice."""
    ids = [said.get(name) for name in ("id", "channel_id")] if said else [None]
    good = all(isinstance(one, str) and one.isascii() and one.isdigit() for one in ids)
    if not good:
        _log.error("a message without ids was skipped: %.200r", said)
    return good


def check_intents(given: object) -> None:
    """For the constructor of a channel. Raises InvalidInputError."""
    if given is not None and not isinstance(given, discord.Intents):
        problem = f"expected discord.Intents or None, got {type(given).__name__}"
        raise InvalidInputError(field="intents", problem=problem)


def _intents() -> discord.Intents:
    return discord.Intents(guilds=True, messages=True, message_content=True)


def _point_to(client: discord.Client, how: Listening) -> None:
    """Set the server's addresses, which the library keeps in variables of its
    classes."""
    http: Any = client.http
    request, ws_connect = http.request, http.ws_connect

    def asked(route: Route, **given: Any) -> Any:
        route.url = route.url.replace(Route.BASE, how.base_url, 1)
        return request(route, **given)

    def connected(url: str, **given: Any) -> Any:
        official = str(DiscordWebSocket.DEFAULT_GATEWAY)
        return ws_connect(url.replace(official, how.gateway, 1), **given)

    if how.base_url != Route.BASE:
        http.request = asked
    if how.gateway:
        http.ws_connect = connected


async def listen(
    how: Listening, cursor: str | None
) -> AsyncGenerator[tuple[Inbound | None, str], None]:
    """(message, cursor) pairs, for ever. Raises the error that ends the client:
    LoginFailure, PrivilegedIntentsRequired, errors of the connection; the kernel starts
    it again."""
    at = Cursor.now() if cursor is None else Cursor.of(cursor)
    if cursor is None:
        yield None, str(at)  # durable before the first message can be missed
    async with _Client(how, at) as client, _running(client, how.token) as running:
        async with aclosing(_in_order(client)) as events:
            async for event in events:
                if event.kind == "message":
                    client.at = client.at.past(event)
                yield _taken(client, how, event), str(client.at)
        await running


@asynccontextmanager
async def _running(
    client: _Client, token: str
) -> AsyncGenerator[asyncio.Future[None], None]:
    """The client's own loop. When it ends for any reason, the events end."""
    running = asyncio.ensure_future(client.start(token))
    running.add_done_callback(lambda _: client.events.put_nowait(None))
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _in_order(client: _Client) -> AsyncGenerator[Event, None]:
    """The missed messages before the live ones. Between a new session and the end of
    its list of servers the live messages wait. One that was read as missed may still
    come live, with other bytes, and is dropped."""
    waiting: list[Event] = []
    known: set[str] = set()
    behind = True
    while (event := await client.events.get()) is not None:
        if event.kind == "session":
            behind = True
        elif event.kind == "ready":
            missed = await _missed(client)
            known = {one.message["id"] for one in missed}
            late = [e for e in waiting if _is_new(e, known)]
            for one in [*missed, *late]:
                yield one
            behind, waiting = False, []
        elif behind:
            waiting.append(event)
        elif _is_new(event, known):
            yield event


def _is_new(event: Event, known: set[str]) -> bool:
    return event.kind == "edit" or event.message["id"] not in known


async def _missed(client: _Client) -> list[Event]:
    """The messages that were not taken, oldest first. Reading may be repeated, and
    waits for rate limits as discord.py does."""
    found: list[Event] = []
    private = set(client.at.private)
    for channel in client.behind() | private:
        after = client.at.place(channel)
        try:
            while page := await client.http.logs_from(channel, _PAGE, after=after):
                found += [Event("message", one, channel in private) for one in page]
                after = max(int(one["id"]) for one in page)
        except (Forbidden, NotFound) as exc:
            _log.warning(
                "the messages missed in channel %s are not read: %s", channel, exc
            )
    return sorted(found, key=lambda event: int(event.message["id"]))


def _taken(client: _Client, how: Listening, event: Event) -> Inbound | None:
    """The inbound message of an event. None for messages of this bot or other bots, and
    for updates that are no edits: Discord sends one after the preview of a link."""
    message, edit = event.message, event.kind == "edit"
    author = message.get("author")
    if not isinstance(author, dict) or author.get("id") == _id_of(client):
        return None
    if author.get("bot") and not how.bots:
        return None
    if edit and not message.get("edited_timestamp"):
        return None
    return inbound_of(message, how, edit=edit)


def _id_of(client: _Client) -> str:
    return "" if client.user is None else str(client.user.id)


def inbound_of(message: Message, how: Listening, *, edit: bool = False) -> Inbound:
    """The inbound message of a Discord message, live or from the history."""
    text = message.get("content")
    return Inbound(
        how.channel,
        account=how.account,
        conversation=message["channel_id"],
        message_id=message["id"],
        event="edit" if edit else "message",
        revision=message.get("edited_timestamp") if edit else None,
        sender=message["author"]["id"],
        sent_at=_when(message.get("timestamp")),
        body={**message, "text": text if isinstance(text, str) else ""},
    )


def _when(stamp: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(stamp))
    except ValueError:
        return None
    return found if found.tzinfo else None
