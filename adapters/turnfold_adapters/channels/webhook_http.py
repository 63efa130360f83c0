"""The small HTTP/1.1 server under the webhook inbox: asyncio streams, parsed by h11.

h11 because it comes with httpx, is strict about framing (no request smuggling through
odd Content-Length and Transfer-Encoding pairs) and does no I/O of its own, so this
module sets every bound: header bytes, body bytes, time per request, connections. Beyond
a bound the peer gets an answer (431, 413, 408, 503) and the connection is closed.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from turnfold.arguments import Some, check_fields
from turnfold.errors import InvalidInputError, MissingExtraError
from turnfold.wrong_calls import explained

if TYPE_CHECKING:
    import h11

READ_BYTES = 16 * 1024
LINGER_MS = 500


@explained
@frozen(kw_only=True)
class Limits:
    """The limits of peers. `per_address`: connections of one address, so that one peer
    does not take the places of all; a proxy in front needs more. `request_ms` is for a
    whole request, so that a peer that drips a byte a second is cut off as well; it is
    also the idle time between two requests. `drain_ms`: how long closing waits for
    requests under way."""

    header_bytes: Some = 16 * 1024
    body_bytes: Some = 1024 * 1024
    request_ms: Some = 10_000
    connections: Some = 256
    per_address: Some = 128
    drain_ms: int = 10_000

    def __attrs_post_init__(self) -> None:
        check_fields(self)


@frozen(kw_only=True)
class Request:
    """A complete request. Header names are lower case; `path` is without the query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@frozen(kw_only=True)
class Answer:
    """A status and a JSON object, with headers of its own if it needs them."""

    status: int
    content: Mapping[str, Any]
    headers: Mapping[str, str] = field(factory=dict)


class RefusedError(Exception):
    """A request that is answered before it is understood. Never leaves this module."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        content = {"error": "http", "problem": problem}
        headers = {"retry-after": "1"} if status == 503 else {}
        self.answer = Answer(status=status, content=content, headers=headers)


Respond = Callable[[Request], Awaitable[Answer]]


class HttpServer:
    """Answers every complete request with the result of `respond`."""

    def __init__(self, respond: Respond, *, host: str, port: int, limits: Limits):
        self._h11 = _load_h11()
        self._respond = respond
        self._address = (host, port)
        self._limits = limits
        self._server: asyncio.Server | None = None
        self._busy: dict[asyncio.Task[None], bool] = {}  # task -> is answering
        self._of: Counter[str] = Counter()  # connections by address
        self._closing = False

    @property
    def port(self) -> int:
        if self._server is None:
            problem = "it does not listen; call start() first, or use `async with`"
            raise InvalidInputError(field="port", problem=problem)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Listen. Raises OSError when the address is taken."""
        host, port = self._address
        self._closing = False
        self._server = await asyncio.start_server(
            self._connected, host, port, limit=READ_BYTES
        )

    async def aclose(self) -> None:
        """Stop listening, let requests under way finish, then cut off the rest."""
        if self._server is None:
            return
        self._closing = True
        self._server.close()
        for task, answering in list(self._busy.items()):
            if not answering:
                task.cancel()
        if self._busy:
            await asyncio.wait(list(self._busy), timeout=self._limits.drain_ms / 1000)
        left = list(self._busy)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  streams run us in a task
        self._busy[task] = False
        peer = _Peer(self._h11, reader, writer, self._limits)
        self._of[peer.address] += 1
        try:
            await self._talk(peer, task)
        except ConnectionError:
            pass  # the peer has left; nothing to answer or undo
        except asyncio.CancelledError:
            # Only aclose() cancels these tasks, and asyncio would log it as an error.
            if not self._closing:
                raise
        finally:
            del self._busy[task]
            self._of[peer.address] -= 1
            self._of += Counter()  # drops those at zero
            writer.close()

    async def _talk(self, peer: "_Peer", task: asyncio.Task[None]) -> None:
        try:
            self._admit(peer)
            while (request := await peer.request()) is not None:
                self._busy[task] = True
                answer = await self._respond(request)
                again = await peer.answer(answer, last=self._closing)
                self._busy[task] = False
                if not again:
                    return
        except RefusedError as exc:
            await peer.answer(exc.answer, last=True)
            await peer.linger()

    def _admit(self, peer: "_Peer") -> None:
        if len(self._busy) > self._limits.connections or self._closing:
            raise RefusedError(503, "too many connections")
        if self._of[peer.address] > self._limits.per_address:
            raise RefusedError(503, "too many connections of one address")


class _Peer:
    """One connection: h11 state and streams."""

    def __init__(
        self,
        lib: Any,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        limits: Limits,
    ) -> None:
        name = writer.get_extra_info("peername")
        self.address = name[0] if isinstance(name, tuple) else ""  # "": a local socket
        self._h11 = lib
        self._reader = reader
        self._writer = writer
        self._limits = limits
        self._conn: h11.Connection = lib.Connection(
            lib.SERVER, max_incomplete_event_size=limits.header_bytes
        )
        self._begun = False
        self._head_only = False

    async def request(self) -> Request | None:
        """The next request, None when the peer is done. Raises RefusedError."""
        self._begun = False
        try:
            async with asyncio.timeout(self._limits.request_ms / 1000):
                return await self._read()
        except TimeoutError as exc:
            if not self._begun:
                return None  # an idle connection, not a slow request
            raise RefusedError(408, "the request took too long") from exc
        except self._h11.RemoteProtocolError as exc:
            raise RefusedError(exc.error_status_hint, str(exc)) from exc

    async def _read(self) -> Request | None:
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._conn.next_event()
            if event is self._h11.NEED_DATA:
                await self._feed()
            elif isinstance(event, self._h11.Request):
                head = event
                self._head_only = event.method == b"HEAD"
                self._refuse_size(_declared(event))
            elif isinstance(event, self._h11.Data):
                body += event.data
                self._refuse_size(len(body))
            elif isinstance(event, self._h11.EndOfMessage):
                assert head is not None  # noqa: S101  h11 orders its events
                return _request(head, bytes(body))
            else:  # ConnectionClosed, or PAUSED after a request to close
                return None

    async def _feed(self) -> None:
        if self._conn.they_are_waiting_for_100_continue:
            go_on = self._h11.InformationalResponse(status_code=100, headers=[])
            await self._write(self._conn.send(go_on))
        data = await self._reader.read(READ_BYTES)
        self._begun = self._begun or bool(data)
        self._conn.receive_data(data)

    def _refuse_size(self, size: int) -> None:
        if size > self._limits.body_bytes:
            problem = f"the body may have {self._limits.body_bytes} bytes"
            raise RefusedError(413, problem)

    async def answer(self, answer: Answer, *, last: bool) -> bool:
        """Send an answer. True if the connection can take another request."""
        body = json.dumps(answer.content, separators=(",", ":")).encode()
        headers = [("content-type", "application/json"), *answer.headers.items()]
        headers.append(("content-length", str(len(body))))
        if last:
            headers.append(("connection", "close"))
        response = self._h11.Response(status_code=answer.status, headers=headers)
        events = [response, self._h11.EndOfMessage()]
        if not self._head_only:
            events.insert(1, self._h11.Data(data=body))
        await self._write(b"".join(self._conn.send(event) or b"" for event in events))
        if last or self._conn.our_state is not self._h11.DONE:
            return False
        self._conn.start_next_cycle()
        return True

    async def _write(self, data: bytes | None) -> None:
        self._writer.write(data or b"")
        try:
            async with asyncio.timeout(self._limits.request_ms / 1000):
                await self._writer.drain()
        except TimeoutError as exc:
            self._writer.transport.abort()
            raise ConnectionAbortedError("the peer does not read") from exc

    async def linger(self) -> None:
        """Read and drop the rest of the peer's bytes. Closing with unread bytes makes
        the operating system send a reset, which can destroy the answer before the peer
        reads it."""
        if self._writer.can_write_eof():
            self._writer.write_eof()
        try:
            async with asyncio.timeout(LINGER_MS / 1000):
                while await self._reader.read(READ_BYTES):
                    pass
        except TimeoutError:
            self._writer.transport.abort()


def _declared(head: "h11.Request") -> int:
    # h11 has checked that there is at most one Content-Length, and that it is a number.
    return next((int(v) for name, v in head.headers if name == b"content-length"), 0)


def _request(head: "h11.Request", body: bytes) -> Request:
    target = head.target.decode("ascii", "replace")
    return Request(
        method=head.method.decode("ascii"),
        path=target.partition("?")[0],
        headers={n.decode("ascii"): v.decode("latin-1") for n, v in head.headers},
        body=body,
    )


def _load_h11() -> Any:
    try:
        import h11  # noqa: PLC0415  an extra: this module imports without it
    except ImportError as exc:
        raise MissingExtraError(extra="webhook", package="h11") from exc
    return h11
