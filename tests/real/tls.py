"""TLS before a real server. The server of the tests was built without it, so a relay speaks
TLS to the client and passes all bytes on to the server's socket."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from turnfold_cli.demo_server import SOCKET

_ASKS_FOR_TLS = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.root = folder, folder / "ca.crt"
        begin = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        out = ("-keyout", "ca.key", "-out", "ca.crt")
        self._openssl(*begin, "-subj", "/CN=an authority of a test", *usage, *out)

    def context(self, name: str) -> ssl.SSLContext:
        """Of a server with this name in its certificate."""
        ask = ("-keyout", "s.key", "-out", "s.csr", "-subj", f"/CN={name}")
        self._openssl("req", "-newkey", "rsa:2048", "-nodes", *ask)
        (self.folder / "ext").write_text(f"subjectAltName=DNS:{name}\n")
        sign = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
        out = ("-extfile", "ext", "-out", "s.crt")
        self._openssl("x509", "-req", "-in", "s.csr", *sign, *out)
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self.folder / "s.crt", self.folder / "s.key")
        return made

    def _openssl(self, *words: str) -> None:
        command = ["openssl", *words]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True)


@asynccontextmanager
async def speaking_tls(sockets: Path, context: ssl.SSLContext) -> AsyncIterator[int]:
    """The port of a relay to the server whose socket is in a folder. Without TLS it
    answers nobody."""
    busy: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        busy.add(task)
        with suppress(OSError, EOFError, asyncio.CancelledError):
            await _relay(reader, writer, sockets, context)
        writer.transport.abort()
        busy.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in [*busy]:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)


async def _relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    sockets: Path,
    context: ssl.SSLContext,
) -> None:
    if await reader.readexactly(len(_ASKS_FOR_TLS)) != _ASKS_FOR_TLS:
        return
    writer.write(b"S")
    await writer.start_tls(context)
    up_reader, up_writer = await asyncio.open_unix_connection(str(sockets / SOCKET))
    try:
        ways = [_pass(reader, up_writer), _pass(up_reader, writer)]
        tasks = [asyncio.ensure_future(way) for way in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        up_writer.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
