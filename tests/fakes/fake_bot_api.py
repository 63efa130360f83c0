"""A FAKE of the Telegram Bot API, over HTTP. It is not Telegram, and nothing of it was
taken from Telegram: its rules follow the official page core.telegram.org/bots/api, its
error texts are those that bots meet. What it cannot know (real rate limits, what Telegram
does with a request that arrives late) it does not show.

Its list of messages is the witness. Faults are scripted call by call.
"""

import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl

from .fake_bot_rules import ApiError, Chats, check_text

TOKEN = "123456:fake-token-of-the-tests"
VISIBLE = (
    *("sendmessage", "sendphoto", "senddocument", "sendpoll", "editmessagetext"),
    "sendmediagroup",
)
HOLD_S = 60.0


class Fault(StrEnum):
    CUT_AFTER = "cut_after"  # done, and the connection breaks before the answer
    CUT_BEFORE = "cut_before"  # the connection breaks, nothing is done
    SILENT = "silent"  # done; no answer for a minute
    RATE_LIMITED = "rate_limited"
    BLOCKED = "blocked"
    ENTITIES = "entities"  # nothing is done; the entities are refused
    SERVER_ERROR = "server_error"  # done, and answered with 500
    PROXY_PAGE = "proxy_page"  # nothing is done; an answer that is no JSON


@dataclass(frozen=True)
class Answer:
    """An answer as it stands, in the place of a usual one. `done`: the call is done all
    the same. `method`: the next call of this method gets it; else the next visible one."""

    status: int
    raw: bytes
    done: bool = False
    method: str = ""


@dataclass
class Message:
    chat: str
    id: int
    text: str
    file: bytes | None = None
    given: dict[str, Any] = field(default_factory=dict)
    edits: int = 0


class FakeBotApi:
    """The server and its state. The state outlives `stop` and `start`."""

    def __init__(self, port: int = 0) -> None:
        self.chats = Chats()
        self.messages: list[Message] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.confirmed = 0  # the highest offset that was asked for
        self.retry_after = 1
        self.port = port
        self._updates: list[dict[str, Any]] = []
        self._next_update, self._next_message = 1000, 0
        self._script: list[Fault | Answer | None] = []
        self._changed = threading.Condition()
        self._polls = 0  # of getUpdates; a newer one ends an older one
        self._server: ThreadingHTTPServer | None = None

    # --- life ---

    def start(self) -> None:
        handler = type("Handler", (_Handler,), {"api": self})
        self._server = _Server(("127.0.0.1", self.port), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,)).start()

    def stop(self) -> None:
        """Close the port and end every call that waits."""
        server, self._server = self._server, None
        with self._changed:
            self._script.clear()
            self._changed.notify_all()
        if server is not None:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def up(self) -> bool:
        return self._server is not None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/bot"

    # --- what a test says and asks ---

    def script(self, *faults: Fault | Answer | None) -> None:
        """The fates of the next visible calls; None: as usual."""
        with self._changed:
            self._script.extend(faults)

    def says(self, chat: int, text: str, **more: Any) -> int:
        """A user writes. Returns the id of the message."""
        with self._changed:
            self._next_message += 1
            message = {
                "message_id": self._next_message,
                "date": int(time.time()),
                "chat": {"id": chat, "type": "private"},
                "from": {"id": chat, "is_bot": False, "first_name": "Ann"},
                "text": text,
                **more,
            }
            self.chats.known(chat).add(self._next_message)
        self.update(message=message)
        return int(message["message_id"])

    def update(self, **what: Any) -> int:
        with self._changed:
            self._next_update += 1
            self._updates.append({"update_id": self._next_update, **what})
            self._changed.notify_all()
            return self._next_update

    @property
    def waiting(self) -> int:
        """Updates that were not confirmed."""
        return len(self._updates)

    def visible_calls(self) -> int:
        return sum(method in VISIBLE for method, _ in self.calls)

    def texts(self, chat: int | None = None) -> list[str]:
        return [m.text for m in self.messages if chat in (None, int(m.chat))]

    # --- one call ---

    def take_fault(self, method: str) -> Fault | Answer | None:
        with self._changed:
            wanted = getattr(self._script[0], "method", "") if self._script else ""
            if self._script and (method == wanted if wanted else method in VISIBLE):
                return self._script.pop(0)
        return None

    def hold(self) -> None:
        """Until the server stops, or a minute."""
        with self._changed:
            self._changed.wait_for(lambda: self._server is None, HOLD_S)

    def do(self, method: str, given: dict[str, Any], files: dict[str, bytes]) -> Any:
        """The result of a method. Raises ApiError."""
        act = getattr(self, f"_{method}", None)
        if act is None:
            raise ApiError(404, "Not Found")
        if method == "getupdates":
            return act(given)
        with self._changed:
            return act({**given, "files": files})

    def _getme(self, given: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": 123456,
            "is_bot": True,
            "first_name": "Fake",
            "username": "fake_bot",
            "can_join_groups": True,
            "can_read_all_group_messages": False,
            "supports_inline_queries": False,
        }

    def _deletewebhook(self, given: dict[str, Any]) -> bool:
        return True

    def _getupdates(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        offset = int(given.get("offset", 0))
        with self._changed:
            self._polls += 1
            mine = self._polls
            self._changed.notify_all()
            if offset > 0:
                self.confirmed = max(self.confirmed, offset)
                kept = [u for u in self._updates if u["update_id"] >= offset]
                self._updates[:] = kept
            ready = lambda: self._updates or self._polls != mine or not self.up  # noqa: E731
            self._changed.wait_for(ready, float(given.get("timeout", 0)))
            if self._polls != mine:
                text = "Conflict: terminated by other getUpdates request"
                raise ApiError(409, text)
            return self._updates[: int(given.get("limit", 100))]

    def _sendmessage(self, given: dict[str, Any]) -> dict[str, Any]:
        text = check_text(given, "text", 4096)
        self.chats.check(given)
        return self._accept(given, text)

    def _sendphoto(self, given: dict[str, Any]) -> dict[str, Any]:
        return self._media(given, "photo")

    def _senddocument(self, given: dict[str, Any]) -> dict[str, Any]:
        return self._media(given, "document")

    def _sendpoll(self, given: dict[str, Any]) -> dict[str, Any]:
        self.chats.check(given)
        return self._accept(given, str(given["question"]))

    def _media(self, given: dict[str, Any], kind: str) -> dict[str, Any]:
        caption = check_text(given, "caption", 1024, needed=False)
        self.chats.check(given)
        data = given["files"].get(given.get(kind))
        if data is None or len(given["files"]) != 1:
            raise ApiError(400, f"Bad Request: there is no {kind} in the request")
        name = given[kind]
        if not data:
            raise ApiError(400, "Bad Request: file must be non-empty")
        return self._accept(given, f"{name} {caption}".strip(), data)

    def _sendmediagroup(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        self.chats.check(given)
        shown = []
        for one in json.loads(given["media"]):
            name = given.get(one["media"].removeprefix("attach://"))
            if name not in given["files"]:
                raise ApiError(400, "Bad Request: wrong file identifier specified")
            text = f"{name} {one.get('caption', '')}".strip()
            shown.append(self._accept(given, text, given["files"][name]))
        return shown

    def _accept(
        self, given: dict[str, Any], text: str, data: bytes | None = None
    ) -> dict[str, Any]:
        self._next_message += 1
        chat = str(given["chat_id"])
        self.messages.append(Message(chat, self._next_message, text, data, given))
        self.chats.known(int(chat)).add(self._next_message)
        return self._shown(self.messages[-1])

    def _shown(self, message: Message) -> dict[str, Any]:
        return {
            "message_id": message.id,
            "date": int(time.time()),
            "chat": {"id": int(message.chat), "type": "private"},
            "text": message.text,
        }

    def _editmessagetext(self, given: dict[str, Any]) -> dict[str, Any]:
        text = check_text(given, "text", 4096)
        message = self._own(given, "edit")
        entities = given.get("entities", "[]")
        if (text, entities) == (message.text, message.given.get("entities", "[]")):
            words = (
                "specified new message content and reply markup are exactly the same"
            )
            raise ApiError(400, f"Bad Request: message is not modified: {words}")
        message.text, message.given["entities"] = text, entities
        message.edits += 1
        return self._shown(message)

    def _deletemessage(self, given: dict[str, Any]) -> bool:
        self.messages.remove(self._own(given, "delete"))
        return True

    def _own(self, given: dict[str, Any], what: str) -> Message:
        wanted = (str(given["chat_id"]), int(given["message_id"]))
        for message in self.messages:
            if (message.chat, message.id) == wanted:
                return message
        raise ApiError(400, f"Bad Request: message to {what} not found")


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that was killed in the middle of a request is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    api: FakeBotApi
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        _, _, path = self.path.partition("/bot")
        token, _, method = path.partition("/")
        method = method.lower()  # "All methods in the Bot API are case-insensitive"
        given, files = _parameters(self.headers.get("content-type", ""), body)
        if token != TOKEN:
            self._answer(401, {"ok": False, "description": "Unauthorized"})
            return
        self.api.calls.append((method, given))
        self._run(method, given, files, self.api.take_fault(method))

    def _run(
        self,
        method: str,
        given: dict[str, Any],
        files: dict[str, bytes],
        fault: Fault | Answer | None,
    ) -> None:
        if isinstance(fault, Answer):
            self._odd(method, given, files, fault)
            return
        if fault is Fault.CUT_BEFORE:
            self.close_connection = True
            return
        if fault is Fault.PROXY_PAGE:
            self._raw(403, b"<html>blocked</html>")
            return
        try:
            if fault is Fault.RATE_LIMITED:
                wait = self.api.retry_after
                words = f"Too Many Requests: retry after {wait}"
                raise ApiError(429, words, {"retry_after": wait})  # noqa: TRY301  one way out
            if fault is Fault.BLOCKED:
                words = "Forbidden: bot was blocked by the user"
                raise ApiError(403, words)  # noqa: TRY301  one way out
            if fault is Fault.ENTITIES:
                words = "Bad Request: can't parse entities: odd"
                raise ApiError(400, words)  # noqa: TRY301  one way out
            result = self.api.do(method, given, files)
        except ApiError as exc:
            self._answer(exc.status, exc.body())
            return
        self._after(fault, {"ok": True, "result": result})

    def _odd(
        self,
        method: str,
        given: dict[str, Any],
        files: dict[str, bytes],
        answer: Answer,
    ) -> None:
        if answer.done:
            with suppress(ApiError):
                self.api.do(method, given, files)
        self._raw(answer.status, answer.raw)

    def _after(self, fault: Fault | None, answer: dict[str, Any]) -> None:
        if fault is Fault.SILENT:
            self.api.hold()
        if fault in (Fault.CUT_AFTER, Fault.SILENT):
            self.close_connection = True
        elif fault is Fault.SERVER_ERROR:
            words = "Internal Server Error"
            self._answer(500, {"ok": False, "error_code": 500, "description": words})
        else:
            self._answer(200, answer)

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        self._raw(status, json.dumps(body).encode())

    def _raw(self, status: int, raw: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)
        except OSError:
            self.close_connection = True  # the client was killed

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""


def _parameters(kind: str, body: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Form fields and files (by their names) of a request. The field of a file has the
    name of the file."""
    if not kind.startswith("multipart/"):
        return dict(parse_qsl(body.decode(), keep_blank_values=True)), {}
    head = f"Content-Type: {kind}\r\n\r\n".encode()
    given: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    for part in BytesParser(policy=HTTP).parsebytes(head + body).iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        filename = part.get_filename()
        if filename is None:
            given[str(name)] = content.decode()
        else:
            given[str(name)], files[filename] = filename, content
    return given, files
