"""A schema that is filled under another name, and renamed when it is complete."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import parse_qsl, urlencode

import asyncpg

from turnfold.errors import DiskError, InvalidInputError
from turnfold_adapters.stores.postgres import history
from turnfold_adapters.stores.postgres.connection import (
    FAILURES,
    Link,
    Place,
    of_reading,
)
from turnfold_adapters.stores.postgres.schema import quoted

_T = TypeVar("_T")
_SUFFIX = "_copying"
# The same answer means the same tables: a server, a start of it, a database, a schema.
_TABLES_OF = """
SELECT concat_ws('/', extract(epoch FROM pg_postmaster_start_time()), d.oid, n.oid)
FROM pg_database AS d, pg_namespace AS n
WHERE d.datname = current_database() AND n.nspname = $1
"""


class StagedSchema:
    """`target`: the store in its final place; `address`: the same for people; `url`: of
    the unfinished store; `shards`: as many as the address says. Raises InvalidInputError
    for a name without room for the temporary suffix."""

    def __init__(self, url: str) -> None:
        self._place = Place.parsed(url)
        self.target, self.address = url, self._place.address
        self.shards = self._place.shards
        self._staged = self._place.schema + _SUFFIX
        self.url = _with(url, schema=self._staged, shards=None)
        Place.parsed(self.url)

    def new(self, shards: int) -> str:
        """The address that makes the unfinished store."""
        return _with(self.url, shards=str(shards))

    async def clear(self) -> None:
        """Remove an unfinished copy."""
        await self._run(f"DROP SCHEMA IF EXISTS {quoted(self._staged)} CASCADE")

    async def into_place(self) -> None:
        """Rename the schema, in one statement. Raises InvalidInputError if the name is
        taken, DiskError if the server is another one than at the begin of the copy."""
        if await self.exists():
            problem = f"the database has a schema {self._place.schema} already"
            raise InvalidInputError(field="target", problem=problem)
        if not await _on(self._place, self._renamed):
            problem = (
                "the server failed over during the copy, and may lack a part of it"
            )
            raise DiskError(path=self.address, problem=f"{problem}; copy again")

    async def _renamed(self, connection: asyncpg.Connection) -> bool:
        """False, and nothing is renamed, if the server has another history than the one
        in which the tables of the copy were made: a standby may lack their last rows."""
        old, new = quoted(self._staged), quoted(self._place.schema)
        found = await history.name(connection) or ""
        sql = f"SELECT bool_and(history = $1) FROM {old}.mark"
        if not await connection.fetchval(sql, found):
            return False
        await connection.execute(f"ALTER SCHEMA {old} RENAME TO {new}")
        return True

    async def exists(self) -> bool:
        """Is there a schema with the final name?"""
        return await self._has(self._place.schema)

    async def is_begun(self) -> bool:
        return await self._has(self._staged)

    async def is_one_with(self, source: str) -> bool:
        """Is the store at `source` the store at the final place? One store has many
        addresses."""
        if not source.startswith("postgresql:"):
            return False
        places = (Place.parsed(source), self._place)
        ours, theirs = [await _asked(p, _TABLES_OF, p.schema) for p in places]
        return ours is not None and ours == theirs

    async def _has(self, name: str) -> bool:
        sql = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)"
        return bool(await self._run(sql, name))

    async def _run(self, sql: str, *values: str) -> object:
        return await _asked(self._place, sql, *values)


async def _asked(place: Place, sql: str, *values: str) -> object:
    return await _on(place, lambda connection: connection.fetchval(sql, *values))


async def _on(place: Place, ask: Callable[[asyncpg.Connection], Awaitable[_T]]) -> _T:
    link = Link(place, "copies")
    try:
        async with link.used() as session:
            # Not by the session: a name may contain the word SHARD.
            return await ask(session.connection)
    except FAILURES as exc:
        raise of_reading(exc, place.address) from exc
    finally:
        await link.close()


def _with(url: str, **options: str | None) -> str:
    """The address with these options; one that is None is left out."""
    base, _, query = url.partition("?")
    pairs = dict(parse_qsl(query, keep_blank_values=True)) | options
    kept = {name: value for name, value in pairs.items() if value is not None}
    return f"{base}?{urlencode(kept, safe='/')}" if kept else base
