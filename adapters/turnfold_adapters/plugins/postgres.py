"""Plugin state as tables in the schema of a store in PostgreSQL.

The calls are synchronous, so the connection lives in a thread with a loop of its own,
and a call waits for the server: one round trip for a read, several for a write. Every
write takes the one row of `plugin_change` first. So limits are exact over all
processes, and a read that sees the number of a write sees the write.

A write survives the death of its process. Only `take` and a write with `expect` wait
for the server's disk.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import TimeoutError as LateError
from typing import Any, TypeVar

import asyncpg

from turnfold.errors import DiskError, NewerSchemaError
from turnfold.ports.plugins import Everything, Row, Space, Write, Wrote
from turnfold_adapters.stores.postgres.connection import (
    FAILURES,
    Link,
    Place,
    Session,
    of_reading,
)
from turnfold_adapters.stores.postgres.rows import kept, shown
from turnfold_adapters.stores.postgres.schema import quoted

_T = TypeVar("_T")
_LAYOUT = 1
_WAIT_S = 5.0  # a handler waits for it
_COPY_S = 300.0
_SWEEP = 100  # expired rows that one write removes (O05)
_TABLES = f"""
CREATE TABLE plugin_item (
    plugin text COLLATE "C" NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    data bytea NOT NULL,
    version bigint NOT NULL,
    schema int NOT NULL,
    expires bigint,
    PRIMARY KEY (plugin, namespace, key)
);
CREATE INDEX plugin_age ON plugin_item (plugin, namespace, version);
CREATE TABLE plugin_change (number bigint NOT NULL, layout int NOT NULL);
INSERT INTO plugin_change VALUES (0, {_LAYOUT});
"""
_HERE = "plugin = $1 AND namespace = $2"
_ROW = "SELECT key, data, version, schema, expires FROM plugin_item WHERE"
_GET = f"{_ROW} {_HERE} AND key = ANY ($3::text[])"
_ALL = f"{_ROW} {_HERE} AND (expires IS NULL OR expires > $3) ORDER BY version"
_FAULTS = (
    (
        "SELECT 1 FROM plugin_item, plugin_change WHERE version > number LIMIT 1",
        "a value has a version that was never given out",
    ),
    (
        "SELECT 1 FROM plugin_item GROUP BY version HAVING count(*) > 1 LIMIT 1",
        "two values have the same version",
    ),
)
_EVERY = """
SELECT number, plugin, namespace, key, data, version, schema, expires
FROM plugin_change LEFT JOIN plugin_item ON true ORDER BY version
"""
_LAST = "UPDATE plugin_change SET number = $1"
_COUNT = f"SELECT count(*) FROM plugin_item WHERE {_HERE}"
_NEXT = "UPDATE plugin_change SET number = number + 1 RETURNING number, layout"
_PUT = """
INSERT INTO plugin_item VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (plugin, namespace, key) DO UPDATE SET data = excluded.data,
    version = excluded.version, schema = excluded.schema, expires = excluded.expires
"""
_DELETE = f"DELETE FROM plugin_item WHERE {_HERE} AND key = $3"
_CLEAR = f"DELETE FROM plugin_item WHERE {_HERE}"
_SOME = f"{_CLEAR} AND key IN (SELECT key FROM plugin_item WHERE {_HERE}"
_SWEEP_SOME = f"{_SOME} AND expires <= $3 LIMIT {_SWEEP})"
_EVICT = f"{_SOME} ORDER BY version LIMIT $3)"

_Connection = Session
_Ask = Callable[[_Connection], Awaitable[_T]]


class _Thread:
    """A loop for one process, separate from the loops of its callers."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        run = self._loop.run_forever
        threading.Thread(target=run, name="turnfold plugins", daemon=True).start()

    def run(
        self, work: Coroutine[Any, Any, _T], address: str, wait_s: float = _WAIT_S
    ) -> _T:
        """Raises DiskError for a server that does not answer."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(wait_s)
        except (LateError, TimeoutError) as exc:
            future.cancel()
            problem = f"no answer in {wait_s:.0f} s"
            raise DiskError(path=address, problem=problem) from exc


_THREAD: list[_Thread] = []


def _thread() -> _Thread:
    """The thread of this process. After a fork the child needs one of its own."""
    if not _THREAD or _THREAD[0].pid != os.getpid():
        _THREAD[:] = [_Thread()]
    return _THREAD[0]


class PostgresPluginStore:
    """`url`: of the store. Not thread-safe: the kernel has a lock around it."""

    def __init__(self, url: str) -> None:
        self._place = Place.parsed(url if "://" in url else f"postgresql:{url}")
        self._link: Link | None = None
        self._pid = 0
        self._mine = 0  # writes of this process

    @property
    def address(self) -> str:
        return self._place.address

    # --- the port ---

    def write(self, space: Space, write: Write) -> Wrote:
        return self._writing(
            lambda c, number: _write(c, _keys(space), write, number),
            wait=write.expect is not None,
        )

    def get(self, space: Space, keys: Sequence[str], now: int) -> list[Row | None]:
        rows = self._reading(
            lambda c: c.fetch(_GET, *_keys(space), [kept(key) for key in keys])
        )
        found = {row.key: row for row in map(_row, rows or ()) if row.lives(now)}
        return [found.get(key) for key in keys]

    def take(self, space: Space, key: str, now: int, schema: int) -> Row | None:
        async def take(connection: _Connection, _: int) -> Row | None:
            row = await _live(connection, _keys(space), key, now)
            if row is None or row.schema > schema:
                return None
            await connection.execute(_DELETE, *_keys(space), kept(key))
            return row

        return self._writing(take, wait=True)

    def drop(self, space: Space, key: str | None, now: int) -> int:
        async def drop(connection: _Connection, _: int) -> int:
            place = _keys(space)
            if key is None:
                live = await connection.fetch(_ALL, *place, now)
                await connection.execute(_CLEAR, *place)
                return len(live)
            row = await _live(connection, place, key, now)
            await connection.execute(_DELETE, *place, kept(key))
            return int(row is not None)

        return self._writing(drop, wait=False)

    def rows(self, space: Space, now: int) -> list[Row]:
        rows = self._reading(lambda c: c.fetch(_ALL, *_keys(space), now))
        return [_row(row) for row in rows or ()]

    def every(self) -> Everything:
        rows = self._reading(lambda c: c.fetch(_EVERY), _COPY_S) or ()
        if not rows:
            return Everything()
        found = [(_space(row), _row(row[3:])) for row in rows if row[1] is not None]
        return Everything(rows[0][0], found)

    def bring(self, everything: Everything) -> None:
        async def bring(connection: _Connection, _: int) -> None:
            rows = [
                (*_keys(space), kept(r.key), r.data, r.version, r.schema, r.expires)
                for space, r in everything.rows
            ]
            await connection.executemany(_PUT, rows)
            await connection.execute(_LAST, everything.last)

        self._writing(bring, wait=True, wait_s=_COPY_S)

    def changed(self) -> int:
        number = self._reading(lambda c: c.fetchval("SELECT number FROM plugin_change"))
        return 0 if number is None else number - self._mine

    def faults(self) -> list[str]:
        """A look, which a standby may answer. All else needs the state of now."""
        link = Link(self._place, "plugins")
        link.open(read_only=True)
        return _thread().run(self._faults(link), self.address) or []

    async def _faults(self, link: Link) -> list[str] | None:
        async def ask(connection: _Connection) -> list[str]:
            found = [(await connection.fetchval(sql), text) for sql, text in _FAULTS]
            return [text for one, text in found if one is not None]

        try:
            return await self._read(ask, link)
        finally:
            await link.close()

    def close(self) -> None:
        """Close the connection, unless it belongs to a parent process."""
        link, self._link = self._link, None
        if link is not None and self._pid == os.getpid():
            _thread().run(link.close(), self.address)

    # --- the connection ---

    def _reading(self, ask: _Ask[_T], wait_s: float = _WAIT_S) -> _T | None:
        """Read; None before the first write. Asks once more if the connection broke."""
        return _thread().run(self._read(ask, self._linked()), self.address, wait_s)

    async def _read(self, ask: _Ask[_T], link: Link) -> _T | None:
        for last in (False, True):
            try:
                async with link.used() as connection:
                    return await ask(connection)
            except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
                return None
            except FAILURES as exc:
                if last or not link.broken:
                    raise of_reading(exc, self.address) from exc
        raise AssertionError  # the loop returns or raises

    def _writing(
        self,
        ask: Callable[[_Connection, int], Awaitable[_T]],
        *,
        wait: bool,
        wait_s: float = _WAIT_S,
    ) -> _T:
        answer = _thread().run(self._write(ask, wait=wait), self.address, wait_s)
        self._mine += 1
        return answer

    async def _write(
        self, ask: Callable[[_Connection, int], Awaitable[_T]], *, wait: bool
    ) -> _T:
        try:
            async with self._linked().used() as connection:
                await self._prepare(connection)
                async with connection.transaction():
                    if not wait:
                        sql = "SET LOCAL synchronous_commit = off"
                        await connection.execute(sql)
                    ((number, layout),) = await connection.fetch(_NEXT)
                    if layout > _LAYOUT:
                        raise NewerSchemaError(
                            path=self.address, found=layout, known=_LAYOUT
                        )
                    return await ask(connection, number)
        except FAILURES as exc:
            raise of_reading(exc, self.address) from exc

    async def _prepare(self, connection: _Connection) -> None:
        """Make the tables once; other processes may do so at the same moment."""
        schema = quoted(self._place.schema)
        there, table = "SELECT to_regclass($1)", f"{schema}.plugin_change"
        if await connection.fetchval(there, table) is not None:
            return
        async with connection.transaction():
            sql = "SELECT pg_advisory_xact_lock(hashtext($1))"
            await connection.execute(sql, self._place.schema)
            if await connection.fetchval(there, table) is None:
                # Not by the session: a name may contain the word SHARD.
                made = connection.connection
                await made.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
                await connection.execute(_TABLES)

    def _linked(self) -> Link:
        if self._link is None or self._pid != os.getpid():
            self._link, self._pid = Link(self._place, "plugins"), os.getpid()
            self._mine = 0
        return self._link


async def _write(
    connection: _Connection, place: tuple[str, str], write: Write, number: int
) -> Wrote:
    there = await _live(connection, place, write.key, write.now)
    version = 0 if there is None else there.version
    if write.expect is not None and write.expect != version:
        return Wrote(there, stored=False, count=await _count(connection, place))
    await connection.execute(_SWEEP_SOME, *place, write.now)
    if there is None and not await _room(connection, place, write):
        count = await _count(connection, place)
        return Wrote(None, stored=False, count=count, full=True)
    row = Row(write.key, write.data, number, write.schema, write.expires)
    values = (kept(row.key), row.data, number, row.schema, row.expires)
    await connection.execute(_PUT, *place, *values)
    return Wrote(row, stored=True, count=await _count(connection, place))


async def _room(connection: _Connection, place: tuple[str, str], write: Write) -> bool:
    """Make room for one more row; an eviction removes only the oldest of this
    namespace. An expired row with the same key is replaced."""
    over = await _count(connection, place) - write.most + 1
    if over > 0 and write.evict:
        await connection.execute(_EVICT, *place, over)
        return True
    replaced = bool(await connection.fetch(_GET, *place, [kept(write.key)]))
    return over <= int(over > 0 and replaced)


async def _count(connection: _Connection, place: tuple[str, str]) -> int:
    count: int = await connection.fetchval(_COUNT, *place)
    return count


async def _live(
    connection: _Connection, place: tuple[str, str], key: str, now: int
) -> Row | None:
    rows = await connection.fetch(_GET, *place, [kept(key)])
    row = _row(rows[0]) if rows else None
    return row if row is not None and row.lives(now) else None


def _keys(space: Space) -> tuple[str, str]:
    return kept(space.plugin), kept(space.namespace)


def _space(row: asyncpg.Record) -> Space:
    return Space(shown(row[1]), shown(row[2]))


def _row(row: asyncpg.Record) -> Row:
    key, data, version, schema, expires = row
    return Row(shown(key), data, version, schema, expires)
