"""One worker per shard, over many hosts: a lease in the database, and proof of death.

An expired lease proves only that its worker may not write any more. The worker may
still send: it can be stopped between a commit and the wire, and wake up later. So no
host takes a store over until the last worker is known to be dead:

- it ended itself (`close`), or
- a process of the same machine and pid namespace sees that its process is gone, or
- a person or an orchestrator certifies it (`turnfold certify`), or
- its lease is over for `max_pause_ms`. This rests on the assumption that no process
  sleeps for longer and then goes on.

`expired` and `dead` are final. A worker that comes back finds its token outdated: its
commits are refused.

A `Life` is one row in `worker`: one lease and one renewal for all the shards that the
process has. A seat is its right to one of them. A seat can be handed over while its
host lives: that statement takes a new token, so that no earlier statement is stored
after it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import asyncpg
from attrs import evolve, frozen

from turnfold.errors import StoreError
from turnfold.logs import lines
from turnfold.ports.store import BLANK, Owner
from turnfold_adapters.stores.postgres.bell import channel
from turnfold_adapters.stores.postgres.connection import (
    FAILURES,
    Link,
    Place,
    Session,
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
_LOG = lines()
# Releases under way: a take in the same loop waits for them.
_LEAVING: set[asyncio.Task[None]] = set()
_SHARDS = """
SELECT s.shard, s.token, s.freed, w.id, w.boot, w.pid, w.started, w.host, w.room, w.state,
    w.instance, w.attached,
    w.lease_until < clock_timestamp() AS lease_over,
    w.lease_until + make_interval(secs => $1) < clock_timestamp() AS lapsed
FROM shard AS s LEFT JOIN worker AS w ON w.id = s.owner
"""
_LAST = f"{_SHARDS} WHERE s.shard = SHARD"
_REGISTER = """
INSERT INTO worker (id, boot, room, pid, started, host, seats, instance, attached,
    state, lease_until)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'alive',
    clock_timestamp() + make_interval(secs => $10))
"""
# The conditions read the rows that the statement locks.
_TAKE = """
WITH me AS (
    SELECT id FROM worker
    WHERE id = $1 AND state = 'alive' AND lease_until > clock_timestamp() FOR UPDATE)
UPDATE shard SET token = token + 1, owner = me.id FROM me
WHERE shard = SHARD AND token = $2
RETURNING token
"""
# `$3`: the highest token that this seat has asked for. Where an answer was lost, the
# shard has any token from `$2` to it; the new one is above all of them, so no statement
# that comes late finds a token that it expects.
_FREE = """
UPDATE shard SET token = $3 + 1, freed = $3 + 1
WHERE shard = SHARD AND owner = $1 AND token >= $2 AND token <= $3
RETURNING pg_notify($4, 'SHARD')  -- an idle host looks at once
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
UPDATE worker SET lease_until = clock_timestamp() + make_interval(secs => $2),
    attached = $3
WHERE id = $1 AND state = 'alive' AND lease_until > clock_timestamp()
RETURNING true
"""
_NEXT = """
UPDATE shard SET token = $3 + 1
WHERE shard = SHARD AND owner = $1 AND token >= $2 AND token <= $3
RETURNING token
"""


class Life:
    """The row of this process in `worker`: registered with its first seat, ended after
    its last one, unless it `stays`."""

    def __init__(self, link: Link, renewals: Link, writes: Link, place: Place) -> None:
        self._link, self.terms = link, place
        self._renewals = renewals  # renewals do not wait for a take
        self._writes = writes  # of the shards
        self.owner: Owner | None = None
        self.seated: set[int] = set()  # shards with a seat of this process
        self.stays = False
        self.waits_for: tuple[str, ...] = ()  # silent workers whose end is not known
        self.attached: tuple[str, ...] | None = None  # accounts; None: not said
        self.strangers: tuple[str, ...] = ()  # workers that have none of them
        self._told: set[str] = set()  # silent workers and strangers that were logged
        self._until = 0.0  # of the lease, on the boot-time clock of this machine
        self._renewing: asyncio.Task[None] | None = None
        self._unanswered: set[str] = set()  # registrations with a lost answer

    @property
    def held(self) -> bool:
        return self.owner is not None and boot_time() < self._until

    @property
    def left_ms(self) -> int:
        return max(0, round((self._until - boot_time()) * 1000))

    async def begin(self, connection: Session) -> Owner | None:
        """The living owner of this process, or a new one; None while a lost owner still
        has seats."""
        if self.owner is not None:
            if self.held:
                return self.owner
            if self.seated:
                return None
            await self._end_lost(connection)
        for needed in (self._renewals, self._writes):
            async with needed.used():
                pass  # bells do not take the last connection of a limit
        owner, asked = this_process(), boot_time()
        lease = self.terms.lease_ms / 1000
        values = (owner.boot, room(), owner.pid, owner.started, owner.host)
        self._unanswered.add(owner.id)
        more = (self.stays, self.terms.instance, self.attached, lease)
        await connection.execute(_REGISTER, owner.id, *values, *more)
        self._unanswered.discard(owner.id)
        self.owner, self._until, self.waits_for = owner, asked + lease, ()
        self._renewing = asyncio.get_running_loop().create_task(self._renew())
        return owner

    def leave(self, work: Callable[[Session], Awaitable[None]], shard: int) -> None:
        """Release a seat in the background; `left` waits for it."""
        task = asyncio.get_running_loop().create_task(self._leave(work, shard))
        _LEAVING.add(task)
        task.add_done_callback(_LEAVING.discard)

    async def _leave(
        self, work: Callable[[Session], Awaitable[None]], shard: int
    ) -> None:
        async def last(connection: Session) -> None:
            await work(connection)
            self.seated.discard(shard)
            if not self.seated and not self.stays:
                await self._end(connection)

        try:
            await self.asked(last, shard)
        except StoreError as exc:
            text = "%s: the seat is not released yet; %s: %s"
            way = "the next look does it" if self.stays else "its lease runs out"
            _LOG.warning(text, self.terms.address, way, exc)
        finally:
            self.seated.discard(shard)
            if not self.seated and not self.stays:
                self._forget()

    async def end(self) -> None:
        """End the row of this host."""
        self.stays = False
        await self.left()
        if self.owner is None or self.seated:
            return
        try:
            await self.asked(self._end)
        except StoreError as exc:
            _LOG.warning(
                "%s: its lease is not ended, it runs out: %s", self.terms.address, exc
            )
            self._forget()

    async def _end_lost(self, connection: Session) -> None:
        """End a life whose lease is over. If that fails, the next try ends it: nobody
        else knows that nothing of it is under way."""
        owner = self.owner
        try:
            await self._end(connection)
        except BaseException:
            self.owner = owner
            raise

    async def _end(self, connection: Session) -> None:
        owner = self.owner
        self._forget()
        if owner is not None:
            await connection.fetchval(_CERTIFY, owner.id, "itself")

    def _forget(self) -> None:
        self.owner = None
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None

    async def left(self) -> None:
        """Wait until every release of this loop has reached the server."""
        own = [t for t in _LEAVING if t.get_loop() is asyncio.get_running_loop()]
        await asyncio.gather(*own, return_exceptions=True)

    async def dead_of(
        self, connection: Session, rows: Sequence[asyncpg.Record]
    ) -> set[str]:
        """Certify the dead ones among these workers that count as alive, and return
        them. The take waits for the silent ones among the others."""
        dead = {row["id"] for row in rows if await self.is_over(connection, row)}
        silent = [r for r in rows if r["lease_over"] and r["id"] not in dead]
        for row in silent:
            self._tell_of(row)
        self.waits_for = tuple(row["id"] for row in silent)
        self._see([row for row in rows if not row["lease_over"]])
        return dead

    def _see(self, living: Sequence[asyncpg.Record]) -> None:
        """Note the workers that have attached none of this process's accounts: a gateway
        of its own that was given the schema of this one."""
        mine = {*(self.attached or ())}
        other = [r for r in living if mine and r["attached"]]
        other = [r for r in other if mine.isdisjoint(r["attached"])]
        self.strangers = tuple(map(_stranger, other))
        for row in other:
            if (name := f"stranger {row['id']}") not in self._told:
                self._told.add(name)
                text = (
                    "%s: %s shares this store, and has attached none of the accounts of"
                    " this process (%s): give each gateway its own `schema`, or attach"
                    " alike on every host"
                )
                facts = (_stranger(row), ", ".join(sorted(mine)))
                _LOG.warning(text, self.terms.address, *facts)

    async def is_over(self, connection: Session, row: asyncpg.Record) -> bool:
        """Certify this worker if it is known to be dead. True if it was certified."""
        if is_gone(row):
            return bool(await connection.fetchval(_CERTIFY, row["id"], "same machine"))
        if row["id"] in self._unanswered:  # it is this process, which never worked
            return bool(await connection.fetchval(_CERTIFY, row["id"], "itself"))
        if not row["lapsed"]:
            return False
        pause = self.terms.max_pause_ms / 1000
        expired = bool(await connection.fetchval(_EXPIRE, row["id"], pause))
        if expired:
            text = "%s: worker %s on %s is silent for %d ms beyond its lease: taken as dead"
            facts = (row["id"], row["host"], self.terms.max_pause_ms)
            _LOG.warning(text, self.terms.address, *facts)
        return expired

    def _tell_of(self, row: asyncpg.Record) -> None:
        """Log once that this host waits for a silent worker, and how the wait ends."""
        if row["id"] in self._told:
            return
        self._told.add(row["id"])
        text = (
            "%s: worker %s on %s is silent and may still send: it is waited for until"
            " its lease is over for %d ms, or `turnfold certify %s` says it is dead"
        )
        who = row["host"]
        if row["instance"] is not None:
            who = f"{who} (instance {row['instance']})"
        facts = (row["id"], who, self.terms.max_pause_ms, row["id"])
        _LOG.warning(text, self.terms.address, *facts)

    async def _renew(self) -> None:
        """Keep the lease. The local lease counts from before the request."""
        lease = self.terms.lease_ms / 1000
        while (owner := self.owner) is not None:
            await asyncio.sleep(lease / 4)
            asked = boot_time()
            try:
                ok = await self._renewed(owner.id, lease)
            except StoreError as exc:
                if not self.left_ms:
                    self.lose(f"its lease was over before it was renewed: {exc}")
                    return
                text = "%s: the lease cannot be renewed, %d ms are left: %s"
                _LOG.warning(text, self.terms.address, self.left_ms, exc)
                continue
            if not ok:
                self.lose("its lease was over before it was renewed")
                return
            self._until = asked + lease

    async def _renewed(self, owner: str, lease: float) -> bool:
        try:
            async with self._renewals.used() as connection:
                return bool(
                    await connection.fetchval(_RENEW, owner, lease, self.attached)
                )
        except FAILURES as exc:
            raise of_reading(exc, self.terms.address) from exc

    def lose(self, why: str) -> None:
        _LOG.error("%s: no longer the worker: %s", self.terms.address, why)
        self._until = 0.0

    def end_lease(self, shard: int) -> None:
        """Renew no more if this was the only shard. Else the next worker would wait for
        the end of this process, which may go on for long as a client."""
        if not self.stays and self.seated == {shard} and self._renewing is not None:
            self._renewing.cancel()
            self._until = 0.0

    async def asked(
        self, ask: Callable[[Session], Awaitable[_T]], shard: int = 0
    ) -> _T:
        try:
            async with self._link.used(shard) as connection:
                return await ask(connection)
        except FAILURES as exc:
            raise of_reading(exc, self.terms.address) from exc


@frozen(kw_only=True)
class Seat:
    """`asked`: the highest token that was asked for. Its answer may be lost; then the
    shard may have it, and no other host."""

    owner: Owner
    token: int
    asked: int


class LeaseOwnership:
    """The ownership of one shard by one handle.

    `check_writable` raises NotOpenError or ReadOnlyError.
    """

    def __init__(
        self, life: Life, shard: int, check_writable: Callable[[], None]
    ) -> None:
        self._life, self._shard = life, shard
        self._check_writable = check_writable
        self._seat: Seat | None = None
        self._lost = False  # another worker has taken this shard over
        # The last head that the handle stored or loaded. A new seat has none in hand: the
        # watermark says whether its server went back.
        self.head = BLANK

    # --- the port --------------------------------------------------------------------

    async def take(self) -> Owner | None:
        """None while another worker lives or may live. Raises DiskError."""
        self._check_writable()
        await self._life.left()
        if self._seat is not None or self._shard in self._life.seated:
            return None
        return await self._life.asked(self._take, self._shard)

    async def current(self) -> Owner | None:
        return await self._life.asked(_current, self._shard)

    async def taken(self) -> bool | None:
        """By its process on the owner's machine, elsewhere by its lease. None for an owner
        there that is silent: it may live."""
        row = await self._life.asked(lambda c: c.fetchrow(_LAST, 0.0))
        if row["state"] != "alive" or row["freed"] == row["token"]:
            return False
        if (row["boot"], row["room"]) == (boot_id(), room()):
            return is_alive(_owner(row))
        return None if row["lease_over"] else True

    @property
    def stopped(self) -> bool:
        """A lease runs out all the same, so nobody has to wait for its process."""
        return False

    @property
    def ended(self) -> bool:
        """No lease outlives its kernel, whatever became of the event loop."""
        return False

    def release(self) -> None:
        seat, self._seat, self._lost = self._seat, None, False
        if seat is not None:
            schema = self._life.terms.schema
            free = partial(free_seat, seat=seat, bell=channel(schema))
            self._life.leave(free, self._shard)

    @property
    def held(self) -> bool:
        life, seat = self._life, self._seat
        mine = seat is not None and seat.owner is life.owner and not self._lost
        return mine and life.held

    async def wait(self) -> None:
        await asyncio.sleep(POLL_S)

    # --- for the store ------------------------------------------------------------------

    @property
    def seat(self) -> tuple[str, int] | None:
        """Owner and token, for a commit; None for a handle that is not the owner."""
        return None if self._seat is None else (self._seat.owner.id, self._seat.token)

    async def renew_token(self) -> bool:
        """Take a new token after a commit of unknown outcome, which can then never be
        stored. False if another worker owns the shard now. Raises DiskError if the
        answer is lost; the next try knows both tokens."""
        seat = self._seat
        if seat is None:
            return True
        self._seat = evolve(seat, asked=seat.asked + 1)
        ask = partial(_next, seat=seat)
        token = await self._life.asked(ask, self._shard)
        if token is None:
            self.lose("another worker has taken the store over")
            return False
        self._seat = Seat(owner=seat.owner, token=token, asked=token)
        return True

    def lose(self, why: str) -> None:
        """Give this shard up: another worker owns it, or its log has changed."""
        _LOG.error("%s: no longer the worker: %s", self._life.terms.address, why)
        self._lost = True
        self._life.end_lease(self._shard)

    async def left(self) -> None:
        """Wait until every release of this loop has reached the server."""
        await self._life.left()

    async def certify(self, worker: str, by: str) -> bool:
        """A person certifies that a worker's process is dead. False if the worker is
        not alive in the database: it has ended, or was taken as dead before."""
        self._check_writable()
        ask = self._life.asked
        return bool(await ask(lambda c: c.fetchval(_CERTIFY, worker, by)))

    def facts(self) -> dict[str, object]:
        life = self._life
        if self._seat is None:
            named = {"waits_for": life.waits_for, "strangers": life.strangers}
            return {name: ", ".join(found) for name, found in named.items() if found}
        return {"lease_left_ms": life.left_ms, "token": self._seat.token}

    async def _take(self, connection: Session) -> Owner | None:
        life = self._life
        row = await connection.fetchrow(_LAST, life.terms.max_pause_ms / 1000)
        if not (is_free(row, life) or await life.dead_of(connection, [row])):
            return None
        owner = await life.begin(connection)
        if owner is None or self._shard in life.seated:
            return None
        life.seated.add(self._shard)
        token = None
        try:
            token = await connection.fetchval(_TAKE, owner.id, row["token"])
        finally:
            if token is None:  # another host took it first, or the answer is lost
                life.seated.discard(self._shard)
        if token is None:
            return None
        self._seat, self.head = Seat(owner=owner, token=token, asked=token), BLANK
        return owner


def _stranger(row: asyncpg.Record) -> str:
    return f"worker {row['id']} on {row['host']} ({', '.join(row['attached'])})"


def is_free(row: asyncpg.Record, life: Life) -> bool:
    """Is the shard free? It has no worker, or a dead one; or this process took it and
    lost the answer."""
    mine = life.owner is not None and row["id"] == life.owner.id
    return row["state"] != "alive" or row["freed"] == row["token"] or mine


async def free_seat(connection: Session, seat: Seat, bell: str) -> None:
    await connection.fetchval(_FREE, seat.owner.id, seat.token, seat.asked, bell)


async def _next(connection: Session, seat: Seat) -> int | None:
    values = (seat.owner.id, seat.token, seat.asked)
    token: int | None = await connection.fetchval(_NEXT, *values)
    return token


async def _current(connection: Session) -> Owner | None:
    row = await connection.fetchrow(_LAST, 0.0)
    return None if row["id"] is None else _owner(row)


def _owner(row: asyncpg.Record) -> Owner:
    names = ("id", "boot", "pid", "started", "host")
    return Owner(**{name: row[name] for name in names})


def is_gone(row: asyncpg.Record) -> bool:
    """True only if this process can see that the other one has ended: both have the
    same boot and pid namespace, and its process id is free or has another start
    time."""
    if not row["boot"] or row["boot"] != boot_id() or row["room"] != room():
        return False
    started = start_time(row["pid"])
    if started is None:
        return True
    return bool(started and row["started"] and started != row["started"])


def room() -> str:
    """The pid namespace of this process: process ids differ between namespaces."""
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return f"unknown to {os.getpid()}"


def boot_time() -> float:
    """Seconds of a clock that includes sleep of the machine."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)
