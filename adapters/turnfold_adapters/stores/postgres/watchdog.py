"""A watchdog of one machine: it ends workers whose lease is over, and says that they are dead.

A worker that was stopped may wake up after any time and send. So other hosts wait for
`max_pause_ms`, or for a person. A watchdog beside the worker makes the end certain
instead: SIGKILL, a look whether the process is gone, and only then the word in
`worker.certified_by`. A process that is gone already is certified at once.

It ends nobody but a process that a row of this store names by boot, pid namespace, pid
and start time, that runs as its own user, and of which the server says just now that
each of its leases is over. It holds no lock on the server meanwhile: a watchdog that is
stopped itself would stop every take-over.
"""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
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
    of_reading,
)
from turnfold_adapters.stores.postgres.ownership import is_gone, room
from turnfold_adapters.stores.postgres.schema import check
from turnfold_adapters.stores.processes import UNKNOWN, boot_id, start_time

_T = TypeVar("_T")
_Row = asyncpg.Record
_LOG = lines()
# A worker that wakes up now may still stand down by itself.
_GRACE_S = 1.0
# An answer of the server that is older than this ends nobody.
_FRESH_S = 1.0
_DIES_S = 5.0  # a process that waits for a disk does not end before
_LIVES = """
SELECT pg_is_in_recovery() AS standby, w.id, w.boot, w.room, w.pid, w.started, w.host,
    w.lease_until < clock_timestamp() AS lease_over
FROM (SELECT) AS one LEFT JOIN worker AS w
    ON w.state = 'alive' AND w.boot = $1 AND w.room = $2
"""
# Of all lives of a process: one may have begun after another was given up.
_OVER = """
SELECT bool_and(lease_until < clock_timestamp()) AND NOT pg_is_in_recovery()
FROM worker
WHERE state = 'alive' AND boot = $1 AND room = $2 AND pid = $3 AND started = $4
"""
_DEAD = """
UPDATE worker SET state = 'dead', certified_by = $5
WHERE state = 'alive' AND boot = $1 AND room = $2 AND pid = $3 AND started = $4
RETURNING id
"""


@frozen(kw_only=True)
class Act:
    """One thing that the watchdog did about a process.

    `ended`: it was ended, and its workers are certified. `gone`: it had ended before.
    `left`: it should be ended and was not; `why` tells the reason.
    """

    did: Literal["ended", "gone", "left"]
    workers: tuple[str, ...]
    pid: int
    host: str
    why: str = ""


class Watchdog:
    """The watchdog of this machine for the store at an address. Linux only: a process
    is held by a pidfd, so that no other process of the same id is ever ended."""

    def __init__(self, address: str) -> None:
        self._place = Place.parsed(address)
        self._link = Link(self._place, "watchdog")
        self._told: set[Act] = set()

    @staticmethod
    def can_work() -> bool:
        """Does this system name its boot and hold processes by a pidfd?"""
        try:
            os.close(os.pidfd_open(os.getpid()))
        except (AttributeError, OSError):
            return False
        return bool(boot_id())

    async def open(self) -> None:
        """Raises NotAStoreError, another layout's error, NoAccessError, DiskError."""
        place = self._place
        self._link.open(read_only=False)

        async def checked(session: Session) -> None:
            made = session.connection
            await check(made, place.schema, place.address, read_only=False)

        await self._asked(checked)

    async def close(self) -> None:
        await self._link.close()

    async def look(self) -> Sequence[Act]:
        """Look once at the workers of this machine, and act. Raises StoreError if the
        server does not answer: then nobody was ended, or the one that was is found gone
        by the next look."""
        rows = await self._asked(_lives)
        if any(row["standby"] for row in rows):
            raise ReadOnlyError(path=self._place.address, problem=STANDBY)
        processes = [*{_name(r): r for r in rows if r["id"] is not None}.values()]
        gone = [row for row in processes if is_gone(row)]
        acts = [await self._certify(row, "gone") for row in gone]
        over = [r for r in processes if r not in gone and await self._is_over(r)]
        if over:
            await asyncio.sleep(_GRACE_S)
        acts += [act for row in over for act in await self._end(row)]
        acts = [act for act in acts if act.workers]
        for act in acts:
            self._tell(act)
        return acts

    async def _is_over(self, row: _Row) -> bool:
        """Does the server say that each lease of this process is over?"""
        return bool(await self._asked(lambda c: c.fetchval(_OVER, *_name(row))))

    async def _end(self, row: _Row) -> Sequence[Act]:
        """End a process and certify it; nothing if it needs no end any more."""
        with _held(row) as ours:
            asked = _now()
            if not await self._is_over(row):
                return []
            if isinstance(ours, str):
                return [_left(row, ours)]
            if ours is not None:
                if _now() - asked > _FRESH_S:
                    return []  # this process was stopped, or the answer was late
                signal.pidfd_send_signal(ours, signal.SIGKILL)
                self._tell_of_the_end(row)
            if not await _ends(row):
                return [_left(row, f"it does not end within {_DIES_S:g} s of SIGKILL")]
        return [await self._certify(row, "gone" if ours is None else "ended")]

    async def _certify(self, row: _Row, did: Literal["ended", "gone"]) -> Act:
        words = {"ended": "ended by", "gone": "seen gone by"}
        by = f"{words[did]} the watchdog on {platform.node()}"
        found = await self._asked(lambda c: c.fetch(_DEAD, *_name(row), by))
        ids = tuple(each["id"] for each in found)
        if did == "ended":  # a host of this machine may have certified it first
            ids = ids or (row["id"],)
        return Act(did=did, workers=ids, pid=row["pid"], host=row["host"])

    async def _asked(self, ask: Callable[[Session], Awaitable[_T]]) -> _T:
        try:
            async with self._link.used() as connection:
                return await ask(connection)
        except FAILURES as exc:
            raise of_reading(exc, self._place.address) from exc

    def _tell_of_the_end(self, row: _Row) -> None:
        text = "%s: worker %s (pid %d on %s) is ended: its lease is over"
        facts = (row["id"], row["pid"], row["host"])
        _LOG.warning(text, self._place.address, *facts)

    def _tell(self, act: Act) -> None:
        """Log it; what is left is logged once."""
        if act in self._told:
            return
        facts = (", ".join(act.workers), act.pid, act.host)
        if act.did == "left":
            self._told.add(act)
            text = "%s: the lease of worker %s (pid %d on %s) is over, and it is not ended: %s"
            _LOG.error(text, self._place.address, *facts, act.why)
        else:
            text = "%s: worker %s (pid %d on %s) counts as dead: its process is gone"
            _LOG.warning(text, self._place.address, *facts)


async def _lives(connection: Session) -> Sequence[_Row]:
    rows: Sequence[_Row] = await connection.fetch(_LIVES, boot_id(), room())
    return rows


def _name(row: _Row) -> tuple[str, str, int, int]:
    """The process of a row, as no other process is named."""
    return row["boot"], row["room"], row["pid"], row["started"]


def _left(row: _Row, why: str) -> Act:
    workers, pid, host = (row["id"],), row["pid"], row["host"]
    return Act(did="left", workers=workers, pid=pid, host=host, why=why)


@contextmanager
def _held(row: _Row) -> Iterator[int | str | None]:
    """A pidfd of the process of this row; None if it is gone; else why it may not be
    ended. The process is held first and compared then: its id may be given to another
    one between two looks."""
    pid = row["pid"]
    if pid == os.getpid():
        yield "it is the watchdog's own process"
        return
    try:
        held = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    except OSError as exc:
        yield f"it cannot be held: {exc.strerror}"
        return
    try:
        yield _checked(row, held)
    finally:
        os.close(held)


def _checked(row: _Row, held: int) -> int | str | None:
    if is_gone(row):
        return None
    if UNKNOWN in (start_time(row["pid"]), row["started"]):
        return "its start time is hidden, so it may be another process"
    user = _user(row["pid"])
    if user != os.geteuid():
        return f"it runs as user {user}; run the watchdog as that user"
    return held


def _user(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except FileNotFoundError:
        return None


async def _ends(row: _Row) -> bool:
    """Wait until the process is gone, by the look that every host has."""
    end = _now() + _DIES_S
    while not is_gone(row):
        if _now() > end:
            return False
        await asyncio.sleep(0.02)
    return True


def _now() -> float:
    """Seconds of a clock that includes sleep of the machine."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
