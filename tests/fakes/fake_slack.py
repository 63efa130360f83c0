"""A FAKE of Slack: its Web API over HTTP and Socket Mode over a websocket. It is not
Slack, and nothing of it was taken from Slack: its rules follow the official pages at
docs.slack.dev/reference/methods and docs.slack.dev/apis/events-api. What it cannot know
(real rate limits, when Slack's history shows a message) it does not show. It sends an
unanswered envelope again within a second, and for ever; Slack takes minutes and gives up.

Its list of messages is the witness. Faults are scripted call by call.
"""

import asyncio
import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from aiohttp import WSMsgType, web

TOKEN = "xoxb-fake-token-of-the-tests"
APP_TOKEN = "xapp-fake-token-of-the-tests"
BOT_USER, BOT_ID, TEAM = "U0BOT", "B0BOT", "T0TEAM"
VISIBLE = ("chat.postMessage", "chat.update", "files.completeUploadExternal")
HOLD_S = 60.0
AGAIN_S = 0.5
EVERY_SCOPE = frozenset({"history", "chat:write", "files:write"})


class Fault(StrEnum):
    CUT_AFTER = "cut_after"  # done, and the connection breaks before the answer
    CUT_BEFORE = "cut_before"  # the connection breaks, nothing is done
    SILENT = "silent"  # done; no answer for a minute
    RATE_LIMITED = "rate_limited"
    ARCHIVED = "archived"
    FATAL_ERROR = "fatal_error"  # done, and answered with this word
    INTERNAL_ERROR = "internal_error"  # nothing is done; answered with this word
    SERVER_ERROR = "server_error"  # done, and answered with 500
    PROXY_PAGE = "proxy_page"  # nothing is done; a page that is no JSON
    PLAIN_PAGE = "plain_page"  # as above, of plain text


class SlackError(Exception):
    """`ok: false` and a word."""


@dataclass
class Message:
    channel: str
    ts: str
    user: str
    text: str
    thread_ts: str | None = None
    metadata: dict[str, Any] | None = None
    files: list[dict[str, Any]] = field(default_factory=list)
    given: dict[str, Any] = field(default_factory=dict)
    edits: int = 0
    at: float = field(default_factory=time.monotonic)


class FakeSlack:
    """The server and its state, in a thread. The state outlives `stop` and `start`."""

    def __init__(self) -> None:
        self.port = 0
        self.messages: list[Message] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.channels: dict[str, str | None] = {}  # and the error of writing there
        self.scopes = set(EVERY_SCOPE)
        self.keeps_metadata = True
        self.history_lag_s = 0.0
        self.page = 200
        self.retry_after = 1
        self.uploads: dict[str, dict[str, Any]] = {}
        self.unanswered: dict[str, dict[str, Any]] = {}  # envelopes
        self._ids = 0
        self._script: list[Fault | None] = []
        self._sockets: list[web.WebSocketResponse] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()

    # --- life ---

    def start(self) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(ready)), daemon=True
        )
        self._thread.start()
        assert ready.wait(10)

    def stop(self) -> None:
        """Close the port and end every call that waits."""
        if self._thread is not None and self._loop and self._stopping:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(10)
        self._thread = None
        self._script.clear()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/"

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/api/{method}", self._method)
        app.router.add_post("/upload/{id}", self._uploaded)
        app.router.add_get("/socket", self._socket)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = runner.addresses[0][1]
        ready.set()
        await self._stopping.wait()
        for socket in self._sockets:
            with contextlib.suppress(ConnectionError):
                await socket.close()
        await runner.cleanup()

    # --- what a test says and asks ---

    def script(self, *faults: Fault | None) -> None:
        """The fates of the next visible calls; None: as usual."""
        with self._lock:
            self._script.extend(faults)

    def says(self, channel: str, text: str, user: str = "U0ANN", **more: Any) -> str:
        """A user writes. Returns the time stamp of the message."""
        with self._lock:
            self.channels.setdefault(channel, None)
            ts = self._ts()
            self.messages.append(Message(channel, ts, user, text))
        event = {
            "type": "message",
            "channel": channel,
            "user": user,
            "text": text,
            "ts": ts,
            "event_ts": ts,
            "client_msg_id": str(uuid.uuid4()),
            **more,
        }
        self.tell(event)
        return ts

    def tell(self, event: dict[str, Any]) -> str:
        """An event, until it is answered. Returns its id."""
        body = event_body(event)
        envelope = {
            "type": "events_api",
            "envelope_id": str(uuid.uuid4()),
            "payload": body,
            "accepts_response_payload": False,
        }
        with self._lock:
            self.unanswered[str(envelope["envelope_id"])] = envelope
        return str(body["event_id"])

    def visible_calls(self) -> int:
        return sum(method in VISIBLE for method, _ in self.calls)

    def own(self, channel: str | None = None) -> list[Message]:
        """What the bot wrote, oldest first."""
        mine = (m for m in self.messages if m.user == BOT_USER)
        return [m for m in mine if channel in (None, m.channel)]

    def texts(self, channel: str | None = None) -> list[str]:
        return [message.text for message in self.own(channel)]

    # --- one call ---

    async def _method(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        given = await _arguments(request)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        with self._lock:
            self.calls.append((method, given))
            fault = self._take_fault(method)
        if fault is Fault.CUT_BEFORE:
            return _cut(request)
        if fault is Fault.RATE_LIMITED:
            return self._limited()
        if fault in (Fault.PROXY_PAGE, Fault.PLAIN_PAGE):
            kind = "text/plain" if fault is Fault.PLAIN_PAGE else "text/html"
            return web.Response(status=403, text="blocked", content_type=kind)
        if fault is Fault.INTERNAL_ERROR:
            return _said("internal_error")
        if fault is Fault.ARCHIVED:
            return _said("is_archived")
        try:
            with self._lock:
                result = self._do(method, given, token)
        except SlackError as exc:
            return _said(str(exc))
        return await self._after(request, fault, {"ok": True, **result})

    async def _after(
        self, request: web.Request, fault: Fault | None, answer: dict[str, Any]
    ) -> web.StreamResponse:
        if fault is Fault.SILENT:
            assert self._stopping is not None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), HOLD_S)
        if fault in (Fault.CUT_AFTER, Fault.SILENT):
            return _cut(request)
        if fault is Fault.FATAL_ERROR:
            return _said("fatal_error")
        if fault is Fault.SERVER_ERROR:
            return web.json_response({"ok": False, "error": "oops"}, status=500)
        return web.json_response(answer)

    def _take_fault(self, method: str) -> Fault | None:
        return self._script.pop(0) if method in VISIBLE and self._script else None

    def _limited(self) -> web.Response:
        return web.json_response(
            {"ok": False, "error": "ratelimited"},
            status=429,
            headers={"Retry-After": str(self.retry_after)},
        )

    def _do(self, method: str, given: dict[str, Any], token: str) -> dict[str, Any]:
        act: Callable[[dict[str, Any]], dict[str, Any]] | None
        act = getattr(self, "_" + method.replace(".", "_"), None)
        if act is None:
            raise SlackError("unknown_method")
        if token != (APP_TOKEN if method == "apps.connections.open" else TOKEN):
            raise SlackError("invalid_auth")
        return act(given)

    def _auth_test(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"user_id": BOT_USER, "bot_id": BOT_ID, "team_id": TEAM, "user": "bot"}

    def _apps_connections_open(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"url": f"ws://127.0.0.1:{self.port}/socket"}

    def _conversations_open(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"channel": {"id": self._opened(str(given.get("users")))}}

    def _chat_postMessage(self, given: dict[str, Any]) -> dict[str, Any]:
        channel = self._writable(given)
        text = str(given.get("text") or "")
        if not text and not given.get("blocks"):
            raise SlackError("no_text")
        thread = given.get("thread_ts")
        if thread is not None and self._find(channel, str(thread)) is None:
            raise SlackError("thread_not_found")
        metadata = given.get("metadata") if self.keeps_metadata else None
        message = self._accept(channel, text[:40_000], thread, metadata, given)
        return {"channel": channel, "ts": message.ts, "message": _shown(message, {})}

    def _chat_update(self, given: dict[str, Any]) -> dict[str, Any]:
        message = self._mine(given, "cant_update_message")
        text = str(given.get("text") or "")
        if len(text) > 4_000:
            raise SlackError("msg_too_long")
        message.text, message.edits = text, message.edits + 1
        if given.get("metadata") and self.keeps_metadata:
            message.metadata = given["metadata"]
        return {"channel": message.channel, "ts": message.ts, "text": text}

    def _chat_delete(self, given: dict[str, Any]) -> dict[str, Any]:
        message = self._mine(given, "cant_delete_message")
        self.messages.remove(message)
        return {"channel": message.channel, "ts": message.ts}

    def _conversations_history(self, given: dict[str, Any]) -> dict[str, Any]:
        channel = self._readable(given)
        found = (m for m in self.messages if m.channel == channel)
        roots = [m for m in found if m.thread_ts in (None, m.ts)]
        return self._page(list(reversed(roots)), given)

    def _conversations_replies(self, given: dict[str, Any]) -> dict[str, Any]:
        channel, ts = self._readable(given), str(given.get("ts"))
        if self._find(channel, ts) is None:
            raise SlackError("thread_not_found")
        found = [m for m in self.messages if ts in (m.ts, m.thread_ts)]
        return self._page([m for m in found if m.channel == channel], given)

    def _page(self, found: list[Message], given: dict[str, Any]) -> dict[str, Any]:
        oldest = float(given.get("oldest") or 0)
        late = time.monotonic() - self.history_lag_s
        shown = [m for m in found if float(m.ts) >= oldest and m.at <= late]
        first = int(given.get("cursor") or 0)
        size = min(int(given.get("limit", 100)), self.page)
        after = first + size
        return {
            "messages": [_shown(m, given) for m in shown[first:after]],
            "has_more": after < len(shown),
            "response_metadata": {
                "next_cursor": str(after) if after < len(shown) else ""
            },
        }

    def _files_getUploadURLExternal(self, given: dict[str, Any]) -> dict[str, Any]:
        self._needs("files:write")
        if not given.get("filename") or not int(given.get("length", 0)):
            raise SlackError("invalid_arguments")
        self._ids += 1
        file = f"F{self._ids}"
        self.uploads[file] = {"id": file, "name": given["filename"]}
        url = f"http://127.0.0.1:{self.port}/upload/{file}"
        return {"upload_url": url, "file_id": file}

    async def _uploaded(self, request: web.Request) -> web.Response:
        file = self.uploads.get(request.match_info["id"])
        if file is None:
            return web.Response(status=404, text="no such upload")
        file["data"] = await request.read()
        return web.Response(text="OK")

    def _files_completeUploadExternal(self, given: dict[str, Any]) -> dict[str, Any]:
        self._needs("files:write")
        files = []
        for asked in given["files"]:
            file = self.uploads.pop(asked["id"], None)
            if file is None or "data" not in file:
                raise SlackError("file_not_found")
            files.append({**file, "title": asked.get("title", file["name"])})
        channel = self._writable({"channel": given.get("channel_id")})
        text = str(given.get("initial_comment") or "")
        if text:
            given = {k: v for k, v in given.items() if k != "blocks"}  # ignored then
        message = self._accept(channel, text, given.get("thread_ts"), None, given)
        message.files = files
        return {"files": [{"id": f["id"], "title": f["title"]} for f in files]}

    # --- rules ---

    def _accept(
        self,
        channel: str,
        text: str,
        thread: Any,
        metadata: Any,
        given: dict[str, Any],
    ) -> Message:
        message = Message(
            channel, self._ts(), BOT_USER, text, thread, metadata, given=given
        )
        self.messages.append(message)
        return message

    def _ts(self) -> str:
        self._ids += 1
        return f"{int(time.time())}.{self._ids:06d}"

    def _opened(self, channel: str) -> str:
        return f"D{channel}" if channel.startswith("U") else channel

    def _writable(self, given: dict[str, Any]) -> str:
        self._needs("chat:write")
        channel = self._opened(str(given.get("channel")))
        if channel[:1] not in "CDG":
            raise SlackError("channel_not_found")
        problem = self.channels.setdefault(channel, None)
        if problem is not None:
            raise SlackError(problem)
        return channel

    def _readable(self, given: dict[str, Any]) -> str:
        self._needs("history")
        channel = str(given.get("channel"))
        if channel not in self.channels:
            raise SlackError("channel_not_found")
        return channel

    def _needs(self, scope: str) -> None:
        if scope not in self.scopes:
            raise SlackError("missing_scope")

    def _find(self, channel: str, ts: str) -> Message | None:
        for message in self.messages:
            if (message.channel, message.ts) == (channel, ts):
                return message
        return None

    def _mine(self, given: dict[str, Any], problem: str) -> Message:
        self._needs("chat:write")
        message = self._find(str(given.get("channel")), str(given.get("ts")))
        if message is None:
            raise SlackError("message_not_found")
        if message.user != BOT_USER:
            raise SlackError(problem)
        return message

    # --- Socket Mode ---

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._sockets.append(socket)
        await socket.send_json({"type": "hello", "num_connections": 1})
        sending = asyncio.create_task(self._send_events(socket))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    answer = json.loads(message.data)
                    with self._lock:
                        self.unanswered.pop(str(answer.get("envelope_id")), None)
        finally:
            sending.cancel()
            self._sockets.remove(socket)
        return socket

    async def _send_events(self, socket: web.WebSocketResponse) -> None:
        """Each unanswered envelope, and again until it is answered."""
        sent: dict[str, float] = {}
        while not socket.closed:
            with self._lock:
                waiting = list(self.unanswered.items())
            now = time.monotonic()
            for name, envelope in waiting:
                if now - sent.get(name, -AGAIN_S) >= AGAIN_S:
                    sent[name] = now
                    with contextlib.suppress(ConnectionError):
                        await socket.send_json(envelope)
            await asyncio.sleep(0.01)


def event_body(event: dict[str, Any]) -> dict[str, Any]:
    """The payload that carries an event."""
    return {
        "type": "event_callback",
        "event_id": f"Ev{uuid.uuid4().hex[:9].upper()}",
        "event_time": int(time.time()),
        "team_id": TEAM,
        "api_app_id": "A0APP",
        "authorizations": [{"team_id": TEAM, "user_id": BOT_USER, "is_bot": True}],
        "event": event,
    }


def _shown(message: Message, given: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "type": "message",
        "user": message.user,
        "text": message.text,
        "ts": message.ts,
    }
    if message.user == BOT_USER:
        shown["bot_id"] = BOT_ID
    if message.thread_ts is not None:
        shown["thread_ts"] = message.thread_ts
    if message.metadata and given.get("include_all_metadata"):
        shown["metadata"] = message.metadata
    if message.files:
        kept = ("id", "name", "title")
        shown["files"] = [{k: f[k] for k in kept} for f in message.files]
    return shown


def _said(error: str) -> web.Response:
    return web.json_response({"ok": False, "error": error})


def _cut(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _arguments(request: web.Request) -> dict[str, Any]:
    if request.content_type == "application/json":
        body = await request.json()
        return body if isinstance(body, dict) else {}
    form = await request.post()
    return {name: _read(str(value)) for name, value in form.items()}


def _read(value: str) -> Any:
    """Slack's forms carry booleans and objects as JSON; a time stamp is text."""
    structured = value[:1] in "[{" or value in ("true", "false")
    return json.loads(value) if structured else value
