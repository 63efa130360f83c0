"""The word of an orchestrator: it says by name that an instance is gone.

A worker registers under the name that its orchestrator gives it (`instance` in the
address, or the variable TURNFOLD_INSTANCE): a unit of systemd, an allocation of Nomad, a
pod of Kubernetes. One process at a time has that name.

The word is believed when nothing in sight contradicts it:

- a life of this instance with a live lease is waited for until its lease is over. A
  lease that is renewed meanwhile proves that the word is wrong;
- a process that this machine sees alive is not dead, whatever its lease says;
- all lives of the instance are certified in one statement that locks them, or none is.

A process that this machine sees gone needs no word and no wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeVar

import asyncpg
from attrs import frozen

from turnfold.errors import ReadOnlyError
from turnfold.logs import lines
from turnfold_adapters.stores.postgres.connection import (
    FAILURES,
    STANDBY,
    Link,
    Place,
    Session,
    instance_name,
    of_reading,
)
from turnfold_adapters.stores.postgres.ownership import is_gone, room
from turnfold_adapters.stores.postgres.rows import kept
from turnfold_adapters.stores.postgres.schema import check
from turnfold_adapters.stores.processes import boot_id

_T = TypeVar("_T")
_Row = asyncpg.Record
_LOG = lines()
_AFTER_S = 0.05  # a little after the end of a lease
_LIVES = """
SELECT id, boot, room, pid, started, host, state, lease_until,
    extract(epoch FROM lease_until - clock_timestamp())::float8 AS left_s
FROM worker WHERE instance = $1 ORDER BY id
"""
# The row of a life that this machine sees gone. Nobody renews it any more.
_GONE = """
UPDATE worker SET state = 'dead', certified_by = $2 WHERE id = $1 AND state = 'alive'
RETURNING id
"""
# The conditions read the rows that the statement locks.
_DEAD = """
WITH lives AS (
    SELECT id, lease_until FROM worker
    WHERE instance = $1 AND state = 'alive' ORDER BY id FOR UPDATE)
UPDATE worker SET state = 'dead', certified_by = $2
WHERE id IN (SELECT id FROM lives)
    AND (SELECT bool_and(lease_until < clock_timestamp()) FROM lives)
RETURNING id
"""
_SILENT = """
SELECT id, instance, host, pid,
    extract(epoch FROM clock_timestamp() - lease_until)::float8 AS over_s
FROM worker WHERE state = 'alive' AND lease_until < clock_timestamp()
ORDER BY lease_until, id
"""


@frozen(kw_only=True)
class Verdict:
    """The verdict on the word that an instance is gone.

    `certified`: it counts as dead from now on. `ended`: it counted as ended before.
    `lives`: something contradicts the word, see `why`; nothing was certified but lives
    that this machine sees gone. `unknown`: no worker of this name has ever begun.
    `workers`: the ids of its lives that are meant.
    """

    instance: str
    did: Literal["certified", "ended", "lives", "unknown"]
    workers: tuple[str, ...] = ()
    why: str = ""


@frozen(kw_only=True)
class Silent:
    """A worker that counts as alive, and whose lease is over: other hosts wait until its
    end is known. `instance`: None if it began without a name."""

    worker: str
    instance: str | None
    host: str
    pid: int
    silent_ms: int  # since the end of its lease


class Certifier:
    """Says that instances are gone, for the store at an address. It needs the rights
    USAGE on the schema, SELECT on its tables, UPDATE on `worker`."""

    def __init__(self, address: str) -> None:
        self._place = Place.parsed(address)
        self._link = Link(self._place, "certifier")

    async def open(self) -> None:
        """Raises NotAStoreError, another layout's error, NoAccessError, DiskError,
        ReadOnlyError on a standby."""
        place = self._place
        self._link.open(read_only=False)

        async def checked(session: Session) -> None:
            made = session.connection
            if await made.fetchval("SELECT pg_is_in_recovery()"):
                raise ReadOnlyError(path=place.address, problem=STANDBY)
            await check(made, place.schema, place.address, read_only=False)

        await self._asked(checked)

    async def close(self) -> None:
        await self._link.close()

    async def silent(self) -> Sequence[Silent]:
        """The workers that other hosts wait for, the longest silence first. Raises
        StoreError."""
        rows = await self._asked(lambda c: c.fetch(_SILENT))
        return [
            Silent(
                worker=row["id"],
                instance=row["instance"],
                host=row["host"],
                pid=row["pid"],
                silent_ms=round(row["over_s"] * 1000),
            )
            for row in rows
        ]

    async def certify(self, instance: str, by: str, *, wait: bool = True) -> Verdict:
        """Say that an instance is gone, so that another host takes over. `by`: who says
        so, with a reason; the table keeps it. `wait`: until its lease is over; without,
        an instance with a live lease `lives`. Raises InvalidInputError, StoreError.

        Saying it again is harmless.
        """
        name, word = kept(instance_name(instance)), kept(by)
        rows = await self._lives(name)
        if not rows:
            return Verdict(instance=instance, did="unknown", why=_UNKNOWN)
        gone = [row for row in rows if row["state"] == "alive" and is_gone(row)]
        done = [await self._certify(_GONE, row["id"], word) for row in gone]
        ids = [each for found in done for each in found]
        while True:
            alive = [row for row in await self._lives(name) if row["state"] == "alive"]
            why = _contradicts(alive, rows, wait=wait)
            if why:
                lives = tuple(row["id"] for row in alive)
                return Verdict(instance=instance, did="lives", workers=lives, why=why)
            ids += await self._certify(_DEAD, name, word) if alive else []
            left = [row["left_s"] for row in alive if row["id"] not in ids]
            if not left:
                return self._done(instance, tuple(ids), rows, word)
            await asyncio.sleep(max(0.0, *left) + _AFTER_S)

    async def _lives(self, name: str) -> Sequence[_Row]:
        rows: Sequence[_Row] = await self._asked(lambda c: c.fetch(_LIVES, name))
        return rows

    async def _certify(self, sql: str, name: str, word: str) -> Sequence[str]:
        rows = await self._asked(lambda c: c.fetch(sql, name, word))
        return [row["id"] for row in rows]

    def _done(
        self, instance: str, ids: tuple[str, ...], rows: Sequence[_Row], word: str
    ) -> Verdict:
        if not ids:
            every = tuple(row["id"] for row in rows)
            return Verdict(instance=instance, did="ended", workers=every)
        text = "%s: worker %s of instance %s counts as dead, by the word of %s"
        _LOG.warning(text, self._place.address, ", ".join(ids), instance, word)
        return Verdict(instance=instance, did="certified", workers=ids)

    async def _asked(self, ask: Callable[[Session], Awaitable[_T]]) -> _T:
        try:
            async with self._link.used() as connection:
                return await ask(connection)
        except FAILURES as exc:
            raise of_reading(exc, self._place.address) from exc


_UNKNOWN = "no worker has begun under this name"


def _contradicts(alive: Sequence[_Row], before: Sequence[_Row], *, wait: bool) -> str:
    """The sign that a worker of this instance lives; empty if there is none. `before`:
    the rows of the first look."""
    leases = {row["id"]: row["lease_until"] for row in before}
    for row in alive:
        if _is_here(row) and not is_gone(row):
            return f"process {row['pid']} runs on this machine"
        if leases.get(row["id"]) != row["lease_until"]:
            return f"worker {row['id']} on {row['host']} has renewed its lease or just begun"
        if row["left_s"] > 0 and not wait:
            return f"the lease of worker {row['id']} has {row['left_s']:.1f} s left"
    return ""


def _is_here(row: _Row) -> bool:
    return bool(row["boot"]) and (row["boot"], row["room"]) == (boot_id(), room())
