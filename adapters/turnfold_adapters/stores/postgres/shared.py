"""The shared part of all handles of one process on one store: connections, bells, and
its life as a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from turnfold.errors import InvalidInputError, ReadOnlyError
from turnfold.ports.store import BLANK
from turnfold_adapters.stores.postgres.bell import Bells
from turnfold_adapters.stores.postgres.combining import Combiner
from turnfold_adapters.stores.postgres.connection import (
    FAILURES,
    STANDBY,
    Link,
    Place,
    Session,
    is_cancelled_by_recovery,
    of_reading,
)
from turnfold_adapters.stores.postgres.ownership import Life
from turnfold_adapters.stores.postgres.primary import Way
from turnfold_adapters.stores.postgres.schema import check, prepare
from turnfold_adapters.stores.postgres.seats import LeaseSeats

_T = TypeVar("_T")
_TRIES = 3  # of a question
_SILENT_MS = 2_000  # a statement that waits for longer is told


class Shared:
    """Open while one of its handles is open."""

    def __init__(self, place: Place) -> None:
        self.place, self.shards = place, place.shards or 1
        self._open = 0
        names = ("writes", "reads", "seats", "lease", "rings", "hears")
        # All connections lead to one server.
        self._way = Way(place.hosts, place.address)
        self.links = tuple(Link(place, name, self._way) for name in names)
        self.write, self._read, seats, lease, rings, hears = self.links
        self.commits = Combiner(self.write)
        self.renewals = 0  # how often all connections were made anew
        self._renewing = asyncio.Lock()
        self.life = Life(seats, lease, self.write, place)
        self.bells = Bells(rings, hears)
        self.seats = LeaseSeats(self.life, self.bells)

    async def enter(self, *, read_only: bool) -> None:
        """One more handle is open."""
        self._open += 1
        if self._open > 1:
            return
        for link in self.links:
            link.open(read_only=read_only)
        try:
            await self.asked(lambda c: self._prepare(c, read_only=read_only))
        except BaseException:
            self._open -= 1
            await self._read.close()
            raise

    async def _prepare(self, session: Session, *, read_only: bool) -> None:
        place, connection = self.place, session.connection
        if not read_only:
            if await connection.fetchval("SELECT pg_is_in_recovery()"):
                raise ReadOnlyError(path=place.address, problem=STANDBY)
            await prepare(connection, place.schema, BLANK.hash, place.shards or 1)
        made = await check(connection, place.schema, place.address, read_only=read_only)
        if place.shards not in (None, made):
            found = (
                f"the store has {made} shards, not {place.shards}, which cannot change"
            )
            way = "leave `shards` out of the address, or begin in another `schema`"
            problem = f"{found}: {way}"
            raise InvalidInputError(field="shards", problem=problem)
        self.shards, self.commits.several = made, made > 1

    async def leave(self) -> None:
        """One handle fewer; the last one closes everything."""
        self._open -= 1
        if self._open:
            return
        await self.life.end()
        await self.bells.stop()
        for link in self.links:
            await link.close()

    def facts(self) -> dict[str, object]:
        """For `health()`: the primary among several hosts, and for how long a statement
        has had no answer."""
        waits = max(link.waiting_ms for link in self.links)
        found: dict[str, object] = {}
        if waits >= _SILENT_MS:
            found["statement_waits_ms"] = waits
        if self._way.primary is not None:
            found["primary"] = str(self._way.primary)
        return found

    async def renew(self, since: int | None) -> None:
        """End all connections: the next use makes them anew. Commits of several shards
        that failed together are one reason: `since`, the number of `renewals` at the
        failure, is out of date for all but the first of them."""
        async with self._renewing:
            if since in (None, self.renewals):
                for link in self.links:
                    await link.close()
                self.renewals += 1

    async def asked(
        self, ask: Callable[[Session], Awaitable[_T]], shard: int = 0
    ) -> _T:
        """Ask, and again if the connection broke or a standby cancelled it."""
        for left in reversed(range(_TRIES)):
            try:
                async with self._read.used(shard) as connection:
                    return await ask(connection)
            except FAILURES as exc:
                broken = self._read.broken and left == _TRIES - 1
                if not (broken or (left and is_cancelled_by_recovery(exc))):
                    raise of_reading(exc, self.place.address) from exc
        raise AssertionError  # the loop returns or raises
