"""A TCP proxy for HTTP/1.1 that loses what networks lose, at the moment you choose.

It understands just enough HTTP to count requests and to see where one ends; bodies
pass as they come. A fault hits the next `times` requests of the given method
(and path, if a piece of one is given):

- `CUT_AFTER`: the server gets the whole request and answers; the answer is lost. The
  proxy waits for the answer, so the server has certainly done its work.
- `CUT_BEFORE`: the request is read and never reaches the server.
- `DELAY`: the answer comes `delay_s` late.
- `LIMITED`: the proxy itself answers with a rate limit, as a homeserver would.

`refuse()` closes the port (connection refused) until `accept()` opens it again.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self


class Fault(StrEnum):
    CUT_AFTER = "cut_after"
    CUT_BEFORE = "cut_before"
    DELAY = "delay"
    LIMITED = "limited"


_LIMIT = (
    b'{"errcode":"M_LIMIT_EXCEEDED","error":"Too Many Requests","retry_after_ms":500}'
)


@dataclass(frozen=True)
class Seen:
    """A request whose head came in."""

    method: str
    path: str


@dataclass
class _Plan:
    fault: Fault
    method: str
    paths: tuple[str, ...]  # a piece of one of them
    times: int
    delay_s: float


@dataclass
class CuttingProxy:
    """Between a client and `127.0.0.1:upstream_port`. Use as an async context."""

    upstream_port: int
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    _plans: list[_Plan] = field(default_factory=list)
    _server: asyncio.Server | None = None
    # Each connection of a client, with the ends that it has open: both sides of us.
    _links: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = field(
        default_factory=dict
    )
    _refusing: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def count(self, method: str) -> int:
        """How many requests of a method came in."""
        return sum(one.method == method for one in self.seen)

    @property
    def sends(self) -> int:
        """How many requests to send a Matrix event came in."""
        return sum("/send/" in one.path for one in self.seen)

    @property
    def planned(self) -> int:
        """How many faults are still to come."""
        return sum(plan.times for plan in self._plans)

    def plan(
        self,
        fault: Fault,
        *,
        method: str = "PUT",
        path: str | tuple[str, ...] = "",
        times: int = 1,
        delay_s: float = 0,
    ) -> None:
        paths = (path,) if isinstance(path, str) else path
        self._plans.append(_Plan(fault, method, paths, times, delay_s))

    def forget(self) -> None:
        """No fault that is still to come will."""
        self._plans.clear()

    async def accept(self) -> None:
        self._refusing.clear()
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, limit=1 << 20
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Close the port and every open connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._refusing.set()
        for writers in self._links.values():
            for writer in writers:
                writer.transport.abort()
        await asyncio.gather(*self._links)

    async def hold(self, seconds: float) -> None:
        """Keep an answer back, but not beyond the end of the proxy."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._refusing.wait(), seconds)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        link = asyncio.current_task()
        assert link is not None
        ends = self._links[link] = [writer]
        try:
            await _Link(self, reader, writer, ends).run()
        except (OSError, asyncio.IncompleteReadError):
            pass  # one side hung up, which is this proxy's trade
        finally:
            del self._links[link]
            await _close(writer)

    def take(self, seen: Seen) -> _Plan | None:
        """Count a request and say what is to happen to it."""
        self.seen.append(seen)
        for plan in self._plans:
            named = any(path in seen.path for path in plan.paths)
            if plan.method == seen.method and named and plan.times:
                plan.times -= 1
                return plan
        return None


@dataclass
class _Link:
    """One connection of a client and its connection to the server."""

    proxy: CuttingProxy
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ends: list[asyncio.StreamWriter]

    async def run(self) -> None:
        up_reader, up_writer = await asyncio.open_connection(
            "127.0.0.1", self.proxy.upstream_port, limit=1 << 20
        )
        self.ends.append(up_writer)
        try:
            while await self._exchange(up_reader, up_writer):
                pass
        finally:
            await _close(up_writer)

    async def _exchange(
        self, up_reader: asyncio.StreamReader, up_writer: asyncio.StreamWriter
    ) -> bool:
        """One request and its answer. False when the connection is to be cut."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        method, path, _ = head.split(b" ", 2)
        plan = self.proxy.take(Seen(method.decode(), path.decode()))
        body = await _body(self.reader, head)
        fault = plan.fault if plan else None
        if fault is Fault.CUT_BEFORE:
            return False
        if fault is Fault.LIMITED:
            head = (
                b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\n"
            )
            self.writer.write(
                head + b"Content-Length: %d\r\n\r\n" % len(_LIMIT) + _LIMIT
            )
            await self.writer.drain()
            return True
        up_writer.write(head + body)
        await up_writer.drain()
        answer = await self._answer(up_reader)
        if fault is Fault.CUT_AFTER:
            return False
        if plan is not None:
            await self.proxy.hold(plan.delay_s)
        self.writer.write(answer)
        await self.writer.drain()
        return True

    async def _answer(self, up_reader: asyncio.StreamReader) -> bytes:
        """The whole answer; given up when the client has gone or the proxy ends."""
        head = await up_reader.readuntil(b"\r\n\r\n")
        return head + await _body(up_reader, head)


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """The raw body that follows a head: by length, in chunks, or none."""
    fields = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    if fields.get(b"transfer-encoding", b"").lower() != b"chunked":
        return await reader.readexactly(int(fields.get(b"content-length", b"0")))
    whole = b""
    while True:
        size_line = await reader.readuntil(b"\r\n")
        size = int(size_line.split(b";")[0], 16)
        whole += size_line + await reader.readexactly(size + 2)
        if size == 0:
            return whole


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):  # the other side was faster
        await writer.wait_closed()
