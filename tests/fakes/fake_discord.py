"""A FAKE of Discord: its HTTP API for messages and its gateway. It is not Discord, and
nothing of it was taken from Discord: its rules follow the official pages ("Message",
"Rate Limits", "Opcodes and Status Codes", "Gateway"). What it cannot know (real rate
limits, how long Discord remembers a nonce, what becomes of a request that arrives late)
it does not show.

Its list of messages is the witness. Faults are scripted call by call.
"""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from aiohttp import web

from .fake_discord_rules import ApiError, Rooms, check_message, json_answer

TOKEN = "fake-token-of-the-tests"
BOT_ID = "100"
GUILD_ID = "900"
EPOCH_MS = 1_420_070_400_000
API = "/api/v10"


APPLICATION = {
    "id": "1",
    "name": "a bot",
    "description": "",
    "icon": None,
    "bot_public": False,
    "bot_require_code_grant": False,
    "verify_key": "",
    "owner": {
        "id": "2",
        "username": "owner",
        "discriminator": "0",
        "global_name": None,
        "avatar": None,
    },
}


class Fault(StrEnum):
    CUT_AFTER = "cut_after"  # done, and the connection breaks before the answer
    CUT_BEFORE = "cut_before"  # the connection breaks, nothing is done
    SILENT = "silent"  # done; no answer for a minute
    RATE_LIMITED = "rate_limited"
    FORBIDDEN = "forbidden"
    SERVER_ERROR = "server_error"  # done, and answered with 500
    PROXY_PAGE = "proxy_page"  # nothing is done; an answer that is no JSON


@dataclass
class Message:
    channel: str
    id: str
    text: str
    author: str
    given: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    edits: int = 0


@dataclass
class Session:
    """Of the gateway. It outlives its connection until the fake forgets it."""

    id: str
    socket: web.WebSocketResponse
    wire: asyncio.Transport
    said: list[dict[str, Any]] = field(default_factory=list)


class FakeDiscord:
    """The server and its state. The state outlives `stop` and `start`."""

    def __init__(self, port: int = 0) -> None:
        self.rooms = Rooms()
        self.history: list[Message] = []  # of everybody
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.nonce_s = 180.0  # how long a nonce is remembered
        self.retry_after = 0.25
        self.limit_scope = "user"
        self.port = port
        self.sessions: dict[str, Session] = {}
        self._nonces: dict[str, tuple[float, Message]] = {}
        self._script: list[Fault | None] = []
        self._numbers = self._logins = 0
        self._wires: dict[int, asyncio.Transport] = {}
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event | None = None

    # --- life ---

    def start(self) -> None:
        up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(up)))
        self._thread.start()
        assert up.wait(20)

    def stop(self) -> None:
        """Close the port and every connection; sessions of the gateway stay."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        assert self._loop is not None
        assert self._stopping is not None
        self._script.clear()
        self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join(20)
        self._loop = None

    async def _serve(self, up: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        app = web.Application()
        app.router.add_route("*", "/gateway", self._gateway)
        app.router.add_route("*", API + "/{rest:.*}", self._http)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = runner.addresses[0][1]
        up.set()
        await self._stopping.wait()
        for session in self.sessions.values():
            session.wire.abort()
        await runner.cleanup()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}{API}"

    @property
    def gateway(self) -> str:
        return f"ws://127.0.0.1:{self.port}/gateway"

    # --- what a test says and asks ---

    def script(self, *faults: Fault | None) -> None:
        """The fates of the next visible calls; None: as usual."""
        with self._lock:
            self._script.extend(faults)

    def says(self, channel: int, text: str, author: str = "7", **more: Any) -> str:
        """A user writes. Returns the id of the message."""
        message = self._add(str(channel), text, author, more)
        self._tell("MESSAGE_CREATE", self.shown(message, live=True))
        return message.id

    def changes(self, message_id: str, text: str) -> None:
        """A user edits a message."""
        message = next(m for m in self.history if m.id == message_id)
        message.text, message.edits = text, message.edits + 1
        self._tell("MESSAGE_UPDATE", self.shown(message, live=True))

    def tell(self, what: str, data: dict[str, Any]) -> None:
        """An event of the gateway, whatever it holds."""
        self._tell(what, data)

    def forget_sessions(self) -> None:
        """No session can be resumed any more; their connections break."""
        with self._lock:
            gone, self.sessions = list(self.sessions.values()), {}
        for session in gone:
            self._break(session)

    def break_sessions(self) -> None:
        """The connections break; the sessions can be resumed."""
        for session in list(self.sessions.values()):
            self._break(session)

    @property
    def messages(self) -> list[Message]:
        """Of the bot."""
        return [m for m in self.history if m.author == BOT_ID]

    def texts(self, channel: int | None = None) -> list[str]:
        return [m.text for m in self.messages if channel in (None, int(m.channel))]

    def visible_calls(self) -> int:
        return sum(method in ("POST", "PATCH") for method, _, _ in self.calls)

    # --- HTTP ---

    async def _http(self, request: web.Request) -> web.StreamResponse:
        given, files = await _parameters(request)
        rest, method = request.match_info["rest"], request.method
        if request.headers.get("Authorization") != f"Bot {TOKEN}":
            body = {"message": "401: Unauthorized", "code": 0}
            return json_answer(body, 401)
        self.calls.append((method, rest, given))
        visible = method in ("POST", "PATCH")
        fault = self._script.pop(0) if visible and self._script else None
        try:
            answer = self._do(method, rest, given, files, fault, dict(request.query))
        except ApiError as exc:
            return exc.answer()
        return await self._after(request, fault, answer)

    def _do(
        self,
        method: str,
        rest: str,
        given: dict[str, Any],
        files: dict[str, bytes],
        fault: Fault | None,
        query: dict[str, str],
    ) -> Any:
        if fault in (Fault.CUT_BEFORE, Fault.PROXY_PAGE):
            return None
        if fault is Fault.RATE_LIMITED:
            raise ApiError.limit(self.retry_after, self.limit_scope)
        if fault is Fault.FORBIDDEN:
            raise ApiError(403, 50013, "Missing Permissions")
        match [method, *rest.split("/")]:
            case ["GET", "users", "@me"]:
                return {**_user(BOT_ID), "bot": True}
            case ["GET", "oauth2", "applications", "@me"]:
                return APPLICATION
            case ["GET", "channels", channel, "messages"]:
                return self._read(channel, query)
            case ["POST", "channels", channel, "messages"]:
                return self._create(channel, given, files)
            case ["PATCH", "channels", channel, "messages", message]:
                return self._edit(channel, message, given)
            case ["DELETE", "channels", channel, "messages", message]:
                self.history.remove(self._own(channel, message))
                return None
        raise ApiError(404, 0, "404: Not Found")

    async def _after(
        self, request: web.Request, fault: Fault | None, answer: Any
    ) -> web.StreamResponse:
        assert self._stopping is not None
        if fault is Fault.SILENT:
            async with asyncio.timeout(60):
                await self._stopping.wait()
        if fault in (Fault.CUT_AFTER, Fault.CUT_BEFORE, Fault.SILENT):
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if fault is Fault.SERVER_ERROR:
            body = {"message": "500: Internal Server Error", "code": 0}
            return json_answer(body, 500)
        if fault is Fault.PROXY_PAGE:
            page = "<html>blocked</html>"
            return web.Response(status=403, text=page, content_type="text/html")
        if answer is None:
            return web.Response(status=204)
        return json_answer(answer)

    def _read(self, channel: str, query: dict[str, str]) -> list[dict[str, Any]]:
        self.rooms.check(channel, read=True)
        after, limit = int(query.get("after", 0)), int(query.get("limit", 50))
        newer = [m for m in self.history if m.channel == channel and int(m.id) > after]
        return [self.shown(m) for m in reversed(newer[:limit])]  # newest first

    def _create(
        self, channel: str, given: dict[str, Any], files: dict[str, bytes]
    ) -> dict[str, Any]:
        with self._lock:
            known = self._known(given)
            if known is not None:
                return self.shown(known)
            self.rooms.check(channel)
            check_message(given, files, {m.id for m in self.history})
            names = " ".join(files)
            text = f"{names} {given.get('content') or ''}".strip()
            message = self._add(channel, text, BOT_ID, given)
            message.files = files
            if given.get("enforce_nonce") and given.get("nonce"):
                self._nonces[given["nonce"]] = (time.monotonic(), message)
        self._tell("MESSAGE_CREATE", self.shown(message, live=True))
        return self.shown(message)

    def _known(self, given: dict[str, Any]) -> Message | None:
        if not given.get("enforce_nonce"):
            return None
        at, message = self._nonces.get(given.get("nonce", ""), (0.0, None))
        return message if time.monotonic() - at < self.nonce_s else None

    def _edit(
        self, channel: str, message_id: str, given: dict[str, Any]
    ) -> dict[str, Any]:
        message = self._own(channel, message_id)
        check_message(given, {}, set())
        message.text, message.edits = given["content"], message.edits + 1
        return self.shown(message)

    def _own(self, channel: str, message_id: str) -> Message:
        self.rooms.check(channel)
        for message in self.messages:
            if (message.channel, message.id) == (channel, message_id):
                return message
        raise ApiError(404, 10008, "Unknown Message")

    # --- messages ---

    def _add(self, channel: str, text: str, author: str, given: Any) -> Message:
        with self._lock:
            self._numbers += 1
            now_ms = time.time_ns() // 1_000_000 - EPOCH_MS
            number = (now_ms << 22) + self._numbers % (1 << 22)
            last = max((int(m.id) for m in self.history), default=0)
            message = Message(channel, str(max(number, last + 1)), text, author, given)
            self.history.append(message)
            return message

    def shown(self, message: Message, *, live: bool = False) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat()
        home = message.channel not in self.rooms.private
        return {
            "id": message.id,
            "channel_id": message.channel,
            **({"guild_id": GUILD_ID} if live and home else {}),
            "author": {**_user(message.author), "bot": message.author == BOT_ID},
            "content": message.text,
            "timestamp": now,
            "edited_timestamp": now if message.edits else None,
            "tts": False,
            "mention_everyone": False,
            **{n: [] for n in ("mentions", "mention_roles", "attachments", "embeds")},
            "pinned": False,
            "type": 0,
        }

    # --- the gateway ---

    async def _gateway(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        assert request.transport is not None
        self._wires[id(socket)] = request.transport
        await socket.send_json({"op": 10, "d": {"heartbeat_interval": 41_250}})
        async for frame in socket:
            said = json.loads(frame.data)
            answers: dict[int, Callable[..., Awaitable[None]]] = {
                1: self._heartbeat,
                2: self._identify,
                6: self._resume,
            }
            if said["op"] in answers:
                await answers[said["op"]](socket, said["d"])
        return socket

    async def _heartbeat(self, socket: web.WebSocketResponse, _: Any) -> None:
        await socket.send_json({"op": 11})

    async def _identify(self, socket: web.WebSocketResponse, given: Any) -> None:
        if given["token"] != TOKEN:
            await socket.close(code=4004)
            return
        self._logins += 1
        session = Session(str(self._logins), socket, self._wires[id(socket)])
        self.sessions[session.id] = session
        ready = {
            "v": 10,
            "user": {**_user(BOT_ID), "bot": True},
            "guilds": [{"id": GUILD_ID, "unavailable": True}],
            "session_id": session.id,
            "resume_gateway_url": self.gateway,
            "application": {"id": "1", "flags": 0},
        }
        await _dispatch(session, "READY", ready)
        newest = {m.channel: m.id for m in self.history}
        await _dispatch(session, "GUILD_CREATE", self.rooms.guild(GUILD_ID, newest))

    async def _resume(self, socket: web.WebSocketResponse, given: Any) -> None:
        session = self.sessions.get(given["session_id"])
        if session is None:
            await socket.send_json({"op": 9, "d": False})
            return
        session.socket, session.wire = socket, self._wires[id(socket)]
        for event in [e for e in session.said if e["s"] > given["seq"]]:
            await socket.send_json(event)
        await _dispatch(session, "RESUMED", {})

    def _tell(self, what: str, data: dict[str, Any]) -> None:
        if self._loop is None:
            return

        async def tell() -> None:
            for session in list(self.sessions.values()):
                await _dispatch(session, what, data)

        asyncio.run_coroutine_threadsafe(tell(), self._loop)

    def _break(self, session: Session) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(session.wire.abort)


async def _dispatch(session: Session, what: str, data: Any) -> None:
    event = {"op": 0, "t": what, "s": len(session.said) + 1, "d": data}
    session.said.append(event)
    if not session.socket.closed:
        with suppress(ConnectionError):  # the process was killed; it may resume
            await session.socket.send_json(event)


def _user(user_id: str) -> dict[str, Any]:
    return {
        "id": user_id,
        "username": f"user{user_id}",
        "discriminator": "0",
        "global_name": None,
        "avatar": None,
    }


async def _parameters(request: web.Request) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The JSON and the files (by their names) of a request."""
    if not request.content_type.startswith("multipart/"):
        raw = await request.read()
        return (json.loads(raw) if raw else {}), {}
    given: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    async for part in await request.multipart():
        data = bytes(await part.read(decode=True))
        if part.name == "payload_json":
            given = json.loads(data)
        else:
            files[str(part.filename)] = data
    return given, files
