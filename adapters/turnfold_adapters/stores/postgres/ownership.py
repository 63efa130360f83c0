"""One worker per store, over many hosts: a lease in the database, and proof of death.

A lease that is over proves only that its worker may not write any more. The worker may
still send: it can be stopped between a commit and the wire, and wake up later. So
nobody takes a store over until the last worker is known to be dead:

- it said so itself (`close`), or
- a process of the same machine and pid namespace sees that its process is gone, or
- a person says so (`turnfold certify`), or
- its lease is over for `max_pause_ms`: an assumption, that nothing sleeps for longer and
  then goes on.

`expired` and `dead` are final. A worker that comes back finds its token outdated: its
commits are refused.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import asyncpg
from attrs import frozen

from turnfold.errors import StoreError
from turnfold.ports.store import Owner
from turnfold_adapters.stores.postgres.connection import (
    FAILURES,
    Link,
    Place,
    of_reading,
)
from turnfold_adapters.stores.processes import (
    boot_id,
    is_alive,
    start_time,
    this_process,
)

_T = TypeVar("_T")
POLL_S = 0.25
_LOG = logging.getLogger("turnfold")
# Releases that are under way: a take in the same loop waits for them.
_LEAVING: set[asyncio.Task[None]] = set()

_LAST = """
SELECT w.id, w.boot, w.pid, w.started, w.host, w.room, w.state,
    w.lease_until < clock_timestamp() AS lease_over,
    w.lease_until + make_interval(secs => $1) < clock_timestamp() AS lapsed
FROM shard AS s JOIN worker AS w ON w.id = s.owner WHERE s.shard = 0
"""
# The guard reads the row that the statement locks, and that of a worker whose state can
# never change again.
_TAKE = """
WITH mine AS (
    INSERT INTO worker VALUES ($1, $2, $3, $4, $5, $6, 'alive',
        clock_timestamp() + make_interval(secs => $7), NULL)
    RETURNING id)
UPDATE shard SET token = token + 1, owner = mine.id FROM mine
WHERE shard = 0 AND owner IS NOT DISTINCT FROM $8
RETURNING token
"""
_EXPIRE = """
UPDATE worker SET state = 'expired', certified_by = 'max_pause_ms'
WHERE id = $1 AND state = 'alive'
    AND lease_until + make_interval(secs => $2) < clock_timestamp()
RETURNING true
"""
_CERTIFY = """
UPDATE worker SET state = 'dead', certified_by = $2 WHERE id = $1 AND state = 'alive'
RETURNING true
"""
_RENEW = """
UPDATE worker SET lease_until = clock_timestamp() + make_interval(secs => $2)
WHERE id = $1 AND state = 'alive' AND lease_until > clock_timestamp()
RETURNING true
"""
_NEXT = """
UPDATE shard SET token = token + 1 WHERE shard = 0 AND owner = $1 AND token = $2
RETURNING token
"""
_FORGET = "DELETE FROM worker WHERE id = $1"


@frozen(kw_only=True)
class _Seat:
    owner: Owner
    token: int


class LeaseOwnership:
    """The ownership of one store by one handle.

    `check_writable` raises NotOpenError or ReadOnlyError.
    """

    def __init__(
        self, link: Link, place: Place, check_writable: Callable[[], None]
    ) -> None:
        self._link, self._address, self._terms = link, place.address, place
        self._check_writable = check_writable
        self._seat: _Seat | None = None
        self._until = 0.0  # of the lease, on the boot-time clock of this machine
        self._renewing: asyncio.Task[None] | None = None
        self._waits_for: str | None = None  # a silent worker of which no end is known
        self._unanswered: set[str] = set()  # takes whose answer was lost

    # --- the port --------------------------------------------------------------------

    async def take(self) -> Owner | None:
        """None while another one lives or may live. Raises DiskError."""
        self._check_writable()
        if self._seat is not None:
            return None
        leaving = [t for t in _LEAVING if t.get_loop() is asyncio.get_running_loop()]
        await asyncio.gather(*leaving, return_exceptions=True)
        return await self._asked(self._take)

    async def current(self) -> Owner | None:
        return await self._asked(_current)

    async def taken(self) -> bool | None:
        """As far as its host can tell; another host cannot."""
        owner = await self.current()
        if owner is None:
            return False
        return is_alive(owner) if owner.host == platform.node() else None

    def release(self) -> None:
        seat, self._seat = self._seat, None
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None
        if seat is not None:
            task = asyncio.get_running_loop().create_task(self._left(seat.owner.id))
            _LEAVING.add(task)
            task.add_done_callback(_LEAVING.discard)

    @property
    def held(self) -> bool:
        return self._seat is not None and _now() < self._until

    async def wait(self) -> None:
        await asyncio.sleep(POLL_S)

    # --- for the store ------------------------------------------------------------------

    @property
    def token(self) -> int | None:
        """The token for a commit; None for a handle that never was the owner."""
        return None if self._seat is None else self._seat.token

    async def renew_token(self) -> bool:
        """After a commit of unknown fate: from here on it can never be stored. False
        if the store is somebody else's now."""
        seat = self._seat
        if seat is None:
            return True
        values = (seat.owner.id, seat.token)
        token = await self._asked(lambda c: c.fetchval(_NEXT, *values))
        if token is None:
            self.lose("another worker has taken the store over")
            return False
        self._seat = _Seat(owner=seat.owner, token=token)
        return True

    async def left(self) -> None:
        """Wait until every release of this loop has reached the server."""
        own = [t for t in _LEAVING if t.get_loop() is asyncio.get_running_loop()]
        await asyncio.gather(*own, return_exceptions=True)

    async def certify(self, worker: str, by: str) -> bool:
        """A person's word that a worker's process is dead. False if it is not alive in
        the database: it ended, or was taken as dead, before."""
        self._check_writable()
        return bool(await self._asked(lambda c: c.fetchval(_CERTIFY, worker, by)))

    def facts(self) -> dict[str, object]:
        if self._seat is None:
            return {} if self._waits_for is None else {"waits_for": self._waits_for}
        left = max(0, round((self._until - _now()) * 1000))
        return {"lease_left_ms": left, "token": self._seat.token}

    # --- taking and keeping -------------------------------------------------------------

    async def _take(self, connection: asyncpg.Connection) -> Owner | None:
        row = await connection.fetchrow(_LAST, self._terms.max_pause_ms / 1000)
        if row is not None and not await self._is_over(connection, row):
            return None
        owner, asked = this_process(), _now()
        values = (owner.boot, _room(), owner.pid, owner.started, owner.host)
        lease = self._terms.lease_ms / 1000
        last = None if row is None else row["id"]
        self._unanswered.add(owner.id)
        token = await connection.fetchval(_TAKE, owner.id, *values, lease, last)
        self._unanswered.discard(owner.id)
        if token is None:  # another one was quicker
            await connection.execute(_FORGET, owner.id)
            return None
        self._seat = _Seat(owner=owner, token=token)
        self._until, self._waits_for = asked + lease, None
        self._renewing = asyncio.get_running_loop().create_task(self._renew())
        return owner

    async def _is_over(
        self, connection: asyncpg.Connection, row: asyncpg.Record
    ) -> bool:
        """True if the last worker is dead, or certified now."""
        if row["state"] != "alive":
            return True
        if _is_gone(row):
            return bool(await connection.fetchval(_CERTIFY, row["id"], "same machine"))
        if row["id"] in self._unanswered:  # it is this handle, which never worked
            return bool(await connection.fetchval(_CERTIFY, row["id"], "itself"))
        if not row["lapsed"]:
            self._tell_of(row)
            return False
        pause = self._terms.max_pause_ms / 1000
        expired = bool(await connection.fetchval(_EXPIRE, row["id"], pause))
        if expired:
            text = "%s: worker %s on %s is silent for %d ms beyond its lease: taken as dead"
            facts = (self._address, row["id"], row["host"], self._terms.max_pause_ms)
            _LOG.warning(text, *facts)
        return expired

    def _tell_of(self, row: asyncpg.Record) -> None:
        """Say once that this host waits for a silent worker, and how that ends."""
        if row["lease_over"] and self._waits_for != row["id"]:
            text = (
                "%s: worker %s on %s is silent and may still send: it is waited for until"
                " its lease is over for %d ms, or `turnfold certify %s` says it is dead"
            )
            facts = (row["id"], row["host"], self._terms.max_pause_ms, row["id"])
            _LOG.warning(text, self._address, *facts)
        self._waits_for = row["id"] if row["lease_over"] else None

    async def _renew(self) -> None:
        """Keep the lease. The local lease counts from before the request."""
        lease = self._terms.lease_ms / 1000
        while (seat := self._seat) is not None:
            await asyncio.sleep(lease / 4)
            asked = _now()
            try:
                ask = partial(_renewed, owner=seat.owner.id, lease=lease)
                ok = await self._asked(ask)
            except StoreError as exc:
                text = "%s: the lease cannot be renewed, %d ms are left: %s"
                left = max(0, round((self._until - _now()) * 1000))
                _LOG.warning(text, self._address, left, exc)
                continue
            if not ok:
                self.lose("its lease was over before it was renewed")
                return
            self._until = asked + lease

    def lose(self, why: str) -> None:
        _LOG.error("%s: no longer the worker: %s", self._address, why)
        self._until = 0.0

    async def _left(self, owner: str) -> None:
        try:
            await self._asked(lambda c: c.fetchval(_CERTIFY, owner, "itself"))
        except StoreError as exc:
            text = "%s: could not say goodbye; the next worker waits for the lease: %s"
            _LOG.warning(text, self._address, exc)

    async def _asked(self, ask: Callable[[asyncpg.Connection], Awaitable[_T]]) -> _T:
        try:
            async with self._link.used() as connection:
                return await ask(connection)
        except FAILURES as exc:
            raise of_reading(exc, self._address) from exc


async def _renewed(connection: asyncpg.Connection, owner: str, lease: float) -> bool:
    return bool(await connection.fetchval(_RENEW, owner, lease))


async def _current(connection: asyncpg.Connection) -> Owner | None:
    row = await connection.fetchrow(_LAST, 0.0)
    if row is None:
        return None
    names = ("id", "boot", "pid", "started", "host")
    return Owner(**{name: row[name] for name in names})


def _is_gone(row: asyncpg.Record) -> bool:
    """True only if this process can see that the other one has ended: it is of the same
    boot and pid namespace, and its process id is free or has another start time."""
    if not row["boot"] or row["boot"] != boot_id() or row["room"] != _room():
        return False
    started = start_time(row["pid"])
    if started is None:
        return True
    return bool(started and row["started"] and started != row["started"])


def _room() -> str:
    """The pid namespace of this process: others see other process ids."""
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return f"unknown to {os.getpid()}"


def _now() -> float:
    """Seconds that go on while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)
