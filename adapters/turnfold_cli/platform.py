"""A stand-in for a chat platform: a real HTTP server, for the demo and for tests.

Standard library only, and no code of turnfold: a witness must not share a mistake with
turnfold.

    POST /messages      a part, as `webhook_wire` documents it -> {"id", "n"}
    GET  /messages?key= look-up (mode lookup) -> {"found", "id", "key", "conversation"}
    PUT  /messages/ID   (mode editable) the message shows this part instead, or 404
                        {"found": false}
    DELETE /messages/ID (mode editable) the message is gone
    GET  /witness       {"messages": [...]}: everything accepted, in order; in mode
                        editable what the messages show now, without placeholders
    GET  /requests      {"requests": [...]}: every POST and PUT of a message, with its
                        headers and its fault
    GET  /stats         counters, also of faults
    POST /faults        {"faults": [{"kind", "times", "delay_ms", ...}]}: for the next
                        requests; see platform_book.Fault

In mode keyed, a key that is known answers the same id and `Idempotent-Replayed: true`,
with another body 422 `key_reused`; in lookup and blind the key is only noted.

Run as `python -m turnfold_cli.platform --class keyed --seed 7 --cuts 3`; the first line
on stdout is {"port", "url"}. In a test: `with Platform(Mode.KEYED) as platform`.
"""

import argparse
import contextlib
import json
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Self, cast
from urllib.parse import parse_qs, urlsplit

from attrs import asdict

from turnfold_cli.platform_book import (
    Book,
    Fault,
    FaultKind,
    KeyReusedError,
    Message,
    Mode,
)

BODY_BYTES = 64 * 1024 * 1024
IDLE_S = 60.0


class Platform:
    """The server in a thread. `url`: its base, `book`: its records."""

    def __init__(
        self,
        mode: Mode | str = Mode.BLIND,
        *,
        port: int = 0,
        seed: int = 0,
        cuts: int = 0,
        among: int | None = None,
        journal: str | Path | None = None,
    ) -> None:
        self.book = Book(Mode(mode), seed=seed, cuts=cuts, among=among, journal=journal)
        self._server = _Server(self.book, port)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def script(self, *faults: Fault | FaultKind | str) -> None:
        """Queue faults for the next requests, one after the other."""
        self.book.script(
            f if isinstance(f, Fault) else Fault(kind=FaultKind(f)) for f in faults
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, end all delays, close every connection."""
        self._server.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.book.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close() joins them, so nothing outlives a test
    request_queue_size = 128

    def __init__(self, book: Book, port: int) -> None:
        self.book = book
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._cut: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
            is_cut = request in self._cut
            self._cut.discard(request)
        if is_cut:
            self.close_request(request)  # a shutdown first would be a polite FIN
        else:
            super().shutdown_request(request)

    def cut(self, connection: socket.socket) -> None:
        """Make the client see a reset: no linger, so that closing sends RST."""
        no_linger = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
        with self._open_lock:
            self._cut.add(connection)

    def server_close(self) -> None:
        with self._open_lock:
            for connection in self._open:
                with contextlib.suppress(OSError):  # the client has closed it already
                    connection.shutdown(socket.SHUT_RDWR)
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)
        # else: the client hung up, which is what clients do after a fault


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout: ClassVar[float | None] = IDLE_S

    @property
    def _home(self) -> _Server:
        return cast("_Server", self.server)

    @property
    def _book(self) -> Book:
        return self._home.book

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        if path == "/messages":
            self._post_message()
        elif path == "/faults":
            self._post_faults()
        elif self._body() is not None:  # an unread body would look like a request
            self._answer(404, {"error": "not_found"})

    def do_PUT(self) -> None:
        self._post_message(self._named())

    def do_DELETE(self) -> None:
        found = self._book.delete(self._named())
        self._answer(200 if found else 404, {"found": found})

    def _named(self) -> str:
        """The message id in the path; None if messages cannot be edited."""
        editable = self._book.mode is Mode.EDITABLE
        path = urlsplit(self.path).path
        return path.removeprefix("/messages/") if editable else "-"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        lists: dict[str, Callable[[], dict[str, Any]]] = {
            "/witness": lambda: {"messages": [asdict(m) for m in self._book.witness()]},
            "/requests": lambda: {"requests": self._book.requests()},
            "/stats": self._book.stats,
        }
        if url.path in lists:
            self._answer(200, lists[url.path]())
        elif url.path == "/messages":
            self._look_up(parse_qs(url.query).get("key", [""])[0])
        else:
            self._answer(404, {"error": "not_found"})

    def _post_message(self, edited: str = "") -> None:
        """`edited`: the message that the part replaces."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault = self._book.asked(headers)
        if fault is not None and fault.kind is FaultKind.CUT_BEFORE:
            self._cut()
            return
        body = self._body()
        if body is None or (fault is not None and self._refused(fault)):
            return
        if fault is not None and fault.kind is FaultKind.LAND_LATE:
            self._home.stopping.wait(fault.delay_ms / 1000)
        self._accept(headers.get("idempotency-key", ""), body, fault, edited)

    def _refused(self, fault: Fault) -> bool:
        """Answer with a fault that refuses a part. True if there is one."""
        match fault.kind:
            case FaultKind.RATE_LIMITED:
                extra = {"Retry-After": fault.retry_after}
                self._answer(429, {"error": "rate_limited"}, extra)
            case FaultKind.ERROR_BEFORE:
                self._answer(500, {"error": "internal"})
            case FaultKind.STATUS:
                self._answer(fault.status, fault.content)
            case _:
                return False
        return True

    def _accept(self, key: str, body: bytes, fault: Fault | None, edited: str) -> None:
        shape = _message_shape(body)
        if shape is None or not key:
            problem = "needs Idempotency-Key and a JSON object with conversation"
            self._answer(400, {"error": "invalid", "problem": problem})
            return
        if edited:
            message = self._book.edit(edited, key, body, shape)
            if message is None:
                self._answer(404, {"found": False})
                return
            self._answer_accepted(message, fault, replayed=False)
            return
        try:
            message, replayed = self._book.accept(key, body, shape)
        except KeyReusedError:
            self._answer(422, {"error": "key_reused"})
            return
        self._answer_accepted(message, fault, replayed=replayed)

    def _answer_accepted(
        self, message: Message, fault: Fault | None, *, replayed: bool
    ) -> None:
        kind = None if fault is None else fault.kind
        if kind is FaultKind.CUT_AFTER:
            self._cut()
            return
        if kind is FaultKind.ERROR_AFTER:
            self._answer(500, {"error": "internal"})
            return
        if fault is not None and kind is FaultKind.DELAY:
            self._home.stopping.wait(fault.delay_ms / 1000)
        extra = {"Idempotent-Replayed": "true"} if replayed else {}
        content = {"id": message.id, "n": message.n, "thread": message.thread}
        self._answer(200, content, extra)

    def _look_up(self, key: str) -> None:
        if self._book.mode is not Mode.LOOKUP:
            self._answer(405, {"error": "no look-up in this mode"})
            return
        message = self._book.find(key)
        if message is None:
            self._answer(404, {"found": False, "key": key})
            return
        fields = ("id", "key", "conversation", "thread", "at_ms", "n")
        found = {name: getattr(message, name) for name in fields}
        self._answer(200, {"found": True, **found})

    def _post_faults(self) -> None:
        body = self._body()
        if body is None:
            return
        try:
            self._book.script([Fault(**f) for f in json.loads(body)["faults"]])
        except (ValueError, TypeError, KeyError) as exc:
            self._answer(400, {"error": "invalid", "problem": repr(exc)})
            return
        self._answer(200, self._book.stats())

    def _body(self) -> bytes | None:
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > BODY_BYTES:
            close = {"Connection": "close"}  # which the base class obeys as well
            self._answer(413 if length else 411, {"error": "length"}, close)
            return None
        return self.rfile.read(int(length))

    def _cut(self) -> None:
        self.close_connection = True
        self._home.cut(self.connection)

    def _answer(
        self,
        status: int,
        content: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  as inherited
        """No log lines: /requests and /stats have the facts."""


def _message_shape(body: bytes) -> Mapping[str, Any] | None:
    try:
        shape = json.loads(body)
    except ValueError:
        return None
    if not isinstance(shape, dict) or not isinstance(shape.get("conversation"), str):
        return None
    return shape


def _arguments(argv: Iterable[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m turnfold_cli.platform",
        description="A chat platform to try turnfold against.",
    )
    parser.add_argument("--port", type=int, default=0, help="0 = any free port")
    parser.add_argument(
        "--class", dest="mode", default="blind", choices=[m.value for m in Mode]
    )
    parser.add_argument("--seed", type=int, default=0, help="which requests to cut")
    parser.add_argument("--cuts", type=int, default=0, help="connections to cut")
    parser.add_argument(
        "--among", type=int, help="cut among the first N requests (default 2 x cuts)"
    )
    parser.add_argument("--journal", help="JSONL file that survives a restart")
    parser.add_argument(
        "--until-eof", action="store_true", help="end when stdin does, too"
    )
    return parser.parse_args(None if argv is None else list(argv))


def _until_eof(done: threading.Event) -> None:
    sys.stdin.read()
    done.set()


def main(argv: Iterable[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, or until the parent process is gone."""
    given = _arguments(argv)
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    with Platform(
        given.mode,
        port=given.port,
        seed=given.seed,
        cuts=given.cuts,
        among=given.among,
        journal=given.journal,
    ) as platform:
        line = json.dumps({"port": platform.port, "url": platform.url})
        print(line, flush=True)  # noqa: T201  read by the parent process
        if given.until_eof:
            threading.Thread(target=_until_eof, args=(done,), daemon=True).start()
        done.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
