"""Two servers with group commit, as references from outside Python.

Each server is a process of its own on the loopback, at a free port, with its files in a
temporary folder on the disk of the run. A message is published, delivered and
acknowledged. The bench installs neither server: `redis-server` and `nats-server` are
looked for on the PATH, the latter also beside the interpreter.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tests.bench.ours import PAYLOAD

_PATIENCE_S = 10


class UnavailableError(Exception):
    """A server or its client is not installed, or did not start as required."""


class Server:
    """`lifecycle(lane)` sends one message and waits for its acknowledgement."""

    name = ""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._waiting: dict[Any, asyncio.Future[None]] = {}
        self._early: set[Any] = set()  # acknowledged before the sender knew the id
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def started(cls, folder: Path) -> Server:
        raise NotImplementedError

    async def _publish(self) -> Any:
        """Send one message; its id."""
        raise NotImplementedError

    async def lifecycle(self, lane: int) -> None:
        del lane  # neither server orders by conversation
        message_id = await self._publish()
        if message_id in self._early:
            self._early.remove(message_id)
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting[message_id] = future
        await future

    def _acknowledged(self, message_id: Any) -> None:
        future = self._waiting.pop(message_id, None)
        if future is None:
            self._early.add(message_id)
        else:
            future.set_result(None)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._disconnect()
        _end(self._process)

    async def _disconnect(self) -> None:
        raise NotImplementedError


class RedisStreams(Server):
    """`appendfsync always`: XADD, XREADGROUP, XACK."""

    name = "Redis Streams"

    def __init__(self, process: subprocess.Popen[bytes], client: Any) -> None:
        super().__init__(process)
        self._client = client

    @classmethod
    async def started(cls, folder: Path) -> Server:
        try:
            from redis import asyncio as redis
        except ImportError as exc:
            raise UnavailableError(f"the Python client is missing: {exc}") from exc
        port = _free_port()
        process = _start(
            _found("redis-server"),
            *("--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)),
            *("--appendonly", "yes", "--appendfsync", "always"),
            *("--save", ""),  # no snapshots
        )
        # a sender and an acknowledgement hold a connection each; the pool that waits
        # for a free connection costs the client a third of its rate
        pool = redis.ConnectionPool(host="127.0.0.1", port=port, max_connections=300)
        client = redis.Redis(connection_pool=pool)
        server = cls(process, client)
        try:
            await _until(client.ping, process, redis.ConnectionError)
            found = await client.config_get("append*")
            level = found["appendonly"], found["appendfsync"]
            if level != ("yes", "always"):
                raise UnavailableError(f"its durability is {level}")  # noqa: TRY301
            await client.xgroup_create("q", "g", id="0", mkstream=True)
        except BaseException:
            await server.close()
            raise
        server._spawn(server._read())
        return server

    async def _publish(self) -> Any:
        return await self._client.xadd("q", {"d": PAYLOAD})

    async def _read(self) -> None:
        while True:
            found = await self._client.xreadgroup(
                "g", "w", {"q": ">"}, count=100, block=200
            )
            for _, items in found or ():
                for message_id, _ in items:
                    self._spawn(self._acknowledge(message_id))

    async def _acknowledge(self, message_id: Any) -> None:
        await self._client.xack("q", "g", message_id)
        self._acknowledged(message_id)

    async def _disconnect(self) -> None:
        await self._client.aclose()
        await self._client.connection_pool.disconnect()


class JetStream(Server):
    """A file store with `sync_interval: always`: publish, deliver, `ack_sync`."""

    name = "NATS JetStream"

    def __init__(self, process: subprocess.Popen[bytes], client: Any) -> None:
        super().__init__(process)
        self._client = client
        self._stream = client.jetstream()

    @classmethod
    async def started(cls, folder: Path) -> Server:
        try:
            import nats
            from nats.js.api import AckPolicy, ConsumerConfig, StorageType, StreamConfig
        except ImportError as exc:
            raise UnavailableError(f"the Python client is missing: {exc}") from exc
        port, monitor = _free_port(), _free_port()
        config = folder / "server.conf"
        config.write_text(
            f'listen: "127.0.0.1:{port}"\nhttp: "127.0.0.1:{monitor}"\n'
            f'jetstream {{ store_dir: "{folder}", sync_interval: always }}\n'
        )
        process = _start(_found("nats-server"), "-c", str(config))
        try:
            await _until(lambda: _level_of_nats(monitor), process, OSError)
            client = await nats.connect(f"nats://127.0.0.1:{port}")
        except BaseException:
            _end(process)
            raise
        server = cls(process, client)
        await server._stream.add_stream(
            StreamConfig(name="q", subjects=["q"], storage=StorageType.FILE)
        )
        await server._stream.subscribe(
            "q",
            durable="w",
            cb=server._delivered,
            manual_ack=True,
            config=ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=1000),
        )
        return server

    async def _publish(self) -> Any:
        return (await self._stream.publish("q", PAYLOAD.encode())).seq

    async def _delivered(self, message: Any) -> None:
        self._spawn(self._acknowledge(message))

    async def _acknowledge(self, message: Any) -> None:
        await message.ack_sync()
        self._acknowledged(message.metadata.sequence.stream)

    async def _disconnect(self) -> None:
        await self._client.close()


ALL: tuple[type[Server], ...] = (RedisStreams, JetStream)


async def started(folder: Path, missing: Callable[[str, str], None]) -> list[Server]:
    """All servers that can be had; `missing` is told the name and the reason of each
    other one."""
    found: list[Server] = []
    for kind in ALL:
        home = folder / kind.__name__
        home.mkdir()
        try:
            server = await kind.started(home)
            await server.lifecycle(0)
        except UnavailableError as exc:
            missing(kind.name, str(exc))
        else:
            found.append(server)
    return found


def _found(program: str) -> str:
    beside = Path(sys.executable).parent / program
    path = shutil.which(program) or (str(beside) if beside.exists() else None)
    if path is None:
        raise UnavailableError(f"{program} is not on the PATH")
    return path


def _start(*command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


async def _until(
    answers: Callable[[], Any],
    process: subprocess.Popen[bytes],
    refused: type[Exception],
) -> None:
    """Wait until a server answers a call; `refused` means that it does not listen."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _PATIENCE_S
    while True:
        try:
            await answers()
        except refused as exc:
            if process.poll() is not None or loop.time() > until:
                raise UnavailableError(f"the server does not answer: {exc}") from exc
            await asyncio.sleep(0.05)
        else:
            return


async def _level_of_nats(port: int) -> None:
    def ask() -> Any:
        with urlopen(f"http://127.0.0.1:{port}/jsz?config=true", timeout=5) as answer:
            return json.load(answer)

    config = (await asyncio.to_thread(ask))["config"]
    if config.get("sync_always") is not True:
        raise UnavailableError(f"its durability is {config}")
