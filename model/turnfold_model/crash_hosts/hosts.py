"""One host: a process with an event loop of its own, stopped beside any statement.

A stopped host is a loop that nobody runs. What it has not sent is never sent, and what
it was answered is never read, so it is dead, or paused until somebody runs the loop
again. Each statement and each request to the platform passes `Host.asked`.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import Any, ClassVar, Final, Protocol

import asyncpg
from attrs import frozen

from turnfold.clock import Clock
from turnfold.errors import DiskError
from turnfold_adapters.stores.postgres import PostgresStore
from turnfold_adapters.stores.postgres.connection import Link
from turnfold_model.testing.virtual_time import Machine, VirtualLoop

_START_MS = 1_800_000_000_000
_SHARD = re.compile(r"shard = (\d+)")
_ROUNDS = 20  # of a loop that is taken apart
_CLOSING = 3  # more of them, in which its connections end


class How(Enum):
    """What happens to a host at a statement."""

    BEFORE = "dies before it"
    AFTER = "dies before its answer"
    LATE = "dies, and it runs when another host has the shard"
    PAUSED = "sleeps beyond max_pause_ms, and goes on"
    SILENT = "sleeps beyond its lease, and goes on"
    CUT_BEFORE = "loses the connection before it"
    CUT_AFTER = "loses the connection before its answer"
    CUT_LATE = "loses the connection, and it runs later"
    BACK_BEFORE = "the server goes back before it"
    BACK_AFTER = "the server goes back before its answer"
    BACK_IDLE = "the server goes back after its answer"
    BACK_BESIDE = "the server goes back after its answer, and another host begins"


DEATHS: Final = (How.BEFORE, How.AFTER, How.LATE)
SLEEPS: Final = (How.PAUSED, How.SILENT)
BACKS: Final = (How.BACK_BEFORE, How.BACK_AFTER, How.BACK_IDLE, How.BACK_BESIDE)

# The first words that stand in a statement name it; the order matters.
_NAMES: Final = {
    "pg_backend_pid()": "setup",
    "set_config('synchronous_commit'": "setup",
    "INSERT INTO worker": "register",
    "freed = $3": "free",
    "SET token = token + 1, owner": "take",
    "SET token = $3": "next",
    "'max_pause_ms'": "expire",
    "state = 'dead'": "certify",
    "FULL JOIN worker": "look",
    "SET lease_until": "renew",
    "INSERT INTO log": "commit",
    "INSERT INTO inbox": "post",
    "UPDATE mark": "mark",
    "pg_notify": "ring",
    "LISTEN": "listen",
    "DELETE FROM answer": "trim",
    "pg_control_system": "history",
}
READS: Final = frozenset({"read", "look", "listen", "setup", "history"})
# After these a statement of a lost connection is still under way.
_LEAVES_LATE: Final = READS | {"connect", "ring", "send", "edit"}


def name_of(sql: str) -> str:
    return next((name for words, name in _NAMES.items() if words in sql), "read")


def _shards_of(sql: str, args: tuple[Any, ...]) -> frozenset[int]:
    """The shards that a statement changes, as far as it names them."""
    named = frozenset(map(int, _SHARD.findall(sql)))
    several = args[0] if args and isinstance(args[0], list) else ()
    return named | {n for n in several if isinstance(n, int)}


@frozen
class Stop:
    """At the `nth` statement (from 1) of this name."""

    name: str
    nth: int
    how: How


class Failover(Protocol):
    """A server that fails over while a host runs (`failover.Standby`)."""

    async def wrote(self, name: str) -> None:
        """A statement of this name was stored."""

    async def promoted(self) -> None:
        """From now on the standby is the server."""


class Watched(asyncpg.Connection):
    """A connection whose statements pass its host."""

    __slots__ = ()
    host: ClassVar[Host]

    async def fetch(self, query: str, *args: Any, **how: Any) -> Any:
        return await self._passes(super().fetch, query, *args, **how)

    async def fetchrow(self, query: str, *args: Any, **how: Any) -> Any:
        return await self._passes(super().fetchrow, query, *args, **how)

    async def fetchval(self, query: str, *args: Any, **how: Any) -> Any:
        return await self._passes(super().fetchval, query, *args, **how)

    async def execute(self, query: str, *args: Any, **how: Any) -> Any:
        return await self._passes(super().execute, query, *args, **how)

    async def executemany(self, command: str, args: Any, **how: Any) -> Any:
        return await self._passes(super().executemany, command, args, **how)

    async def add_listener(self, channel: str, callback: Any) -> None:
        """A ring comes at any moment; a deaf host does the same in each play."""
        if not self.host.deaf:
            await super().add_listener(channel, callback)

    async def close(self, **how: Any) -> None:
        await self.host.answered(partial(super().close, **how))

    def is_closed(self) -> bool:
        return self in self.host.hidden or super().is_closed()

    async def _passes(self, call: Any, sql: str, *args: Any, **how: Any) -> Any:
        return await self.host.statement(
            self, sql, args, partial(call, sql, *args, **how)
        )


class Host:
    """`stop`: where it is stopped; none for a host that only counts its statements.
    `cut`: where it loses a connection before that. `now_s`: the time of its start."""

    def __init__(
        self, stop: Stop | None = None, now_s: float = 0.0, cut: Stop | None = None
    ) -> None:
        self.loop = VirtualLoop()
        self.loop.now_s = now_s
        self._kind: Any = type("Watched", (Watched,), {"host": self, "__slots__": ()})
        self.stop, self.cut, self.reached = stop, cut, Counter[str]()
        self.stopped = False
        self.dead = False
        self.over = False
        self.hold = ""  # stand after the next statement of this name
        self.deaf = False  # it hears no rings
        self.late_shards: frozenset[int] = (
            frozenset()
        )  # of the statement that comes late
        self.woke = False  # it slept, and others took it for dead
        self.lives: set[str] = set()  # the rows of this host in `worker`
        self.backends: set[int] = set()  # the server's processes for it
        self.stores: list[PostgresStore] = []
        self.hidden: set[asyncpg.Connection] = set()
        self.late: tuple[asyncpg.Connection, Callable[[], Awaitable[Any]]] | None = None
        self.landed = 0  # statements that came late, and ran
        self.standby: Failover | None = None
        self.timeline = ""  # of the server that was promoted
        self._made: list[asyncpg.Connection] = []
        self._standing = False
        self._goes_on = asyncio.Event()
        self._lands = asyncio.Event()
        self._main: asyncio.Task[Any] | None = None

    @property
    def excused(self) -> bool:
        """May it lose its place?"""
        return self.woke or (self.standby is not None and bool(self.timeline))

    # --- for the director ----------------------------------------------------------------

    def clock(self) -> Clock:
        return Machine(self.loop, _START_MS).clock(jitter=lambda: 1000)

    def store(self, address: str) -> PostgresStore:
        """A handle whose connections pass this host."""
        store = PostgresStore(address)
        for link in store._shared.links:  # noqa: SLF001  the model looks inside
            self._watch(link)
        self.stores.append(store)
        return store

    def _watch(self, link: Link) -> None:
        made, prepare = link._made, link._prepare  # noqa: SLF001

        async def prepared(connection: asyncpg.Connection) -> None:
            """Its first statement is the next one."""
            connection.__class__ = self._kind
            await prepare(connection)

        async def noted() -> asyncpg.Connection:
            """Also one that a stopped host never gets must be ended."""
            connection = await made()
            self.keep(connection)
            self.backends.add(connection.get_server_pid())
            return connection

        async def watched() -> asyncpg.Connection:
            connection: asyncpg.Connection = await self.asked("connect", noted)
            return connection

        link._made = watched  # type: ignore[method-assign]  # noqa: SLF001
        link._prepare = prepared  # type: ignore[method-assign]  # noqa: SLF001

    def keep(self, connection: asyncpg.Connection) -> None:
        """End it with this host."""
        self._made.append(connection)

    def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        self._main = self.loop.create_task(work)
        self._main.add_done_callback(lambda _: self.loop.stop())

    def run(self) -> bool:
        """Run until the work is done, or the host stands. True if the work is done;
        raises what the work raised."""
        assert self._main is not None  # noqa: S101  `begin` comes first
        self.loop.run_forever()
        if self._main.done():
            self._main.result()
        return self._main.done()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run some work to its end."""
        self.begin(work)
        while not self.run():
            pass
        return self._main.result()  # type: ignore[union-attr]  # it is done

    def run_until(self, now_s: float) -> None:
        """Run until this time, or the end of the work, or the host stands."""
        alarm = self.loop.call_at(now_s, self.loop.stop)
        self.loop.run_forever()
        alarm.cancel()

    @property
    def done(self) -> bool:
        """Is the work done? Raises what the work raised."""
        if self._main is None or not self._main.done():
            return False
        self._main.result()
        return True

    def go_on(self, now_s: float) -> None:
        """A paused host wakes up."""
        self.loop.now_s = max(self.loop.now_s, now_s)
        self._standing = False
        self._goes_on.set()

    def stand(self) -> None:
        """The loop stands at the next turn, and everything that would go out waits."""
        self._goes_on.clear()
        self._standing = True
        self.loop.stop()

    @property
    def stands(self) -> bool:
        return self._standing

    def land(self) -> None:
        """The statement of a dead host runs, and nothing else of it."""
        if self.stop is not None and self.stop.how is How.LATE and self.stopped:
            self._lands.set()
            self.loop.run_forever()

    def die(self) -> None:
        """The system ends the connections of a process that is gone."""
        self.dead = True
        for link in [link for store in self.stores for link in store._shared.links]:  # noqa: SLF001
            connection = link._connection  # noqa: SLF001
            transport = getattr(connection, "_transport", None)
            wire = None if transport is None else transport.get_extra_info("socket")
            if wire is not None:
                with suppress(OSError):
                    wire.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Take the loop apart. Nothing more goes out."""
        self.over = True
        self.hidden.clear()
        for connection in self._made:
            connection.terminate()
        self.loop.set_exception_handler(lambda *_: None)
        for _ in range(_ROUNDS):
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            self._turns_once()
            if not tasks:
                break
        for _ in range(_CLOSING):
            self._turns_once()
        self.loop.close()

    def _turns_once(self) -> None:
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    # --- what goes out -----------------------------------------------------------------

    async def statement(
        self,
        connection: asyncpg.Connection,
        sql: str,
        args: tuple[object, ...],
        call: Callable[[], Awaitable[Any]],
    ) -> Any:
        name = name_of(sql)
        if name == "setup":
            return await self.answered(call)
        if name == "register":
            self.lives.add(str(args[0]))
        if not self.stopped:
            self.late_shards = _shards_of(sql, args)
        answer = await self.asked(name, call, connection)
        if name == "history" and self.timeline:
            return f"{answer.partition('/')[0]}/{self.timeline}"
        return answer

    async def asked(
        self,
        name: str,
        call: Callable[[], Awaitable[Any]],
        connection: asyncpg.Connection | None = None,
    ) -> Any:
        """A statement; or a new connection, or a request to the platform."""
        await self._gate()
        self.reached[name] += 1
        stop = self.stop
        if self.cut and self._is_at(self.cut, name):
            how, self.cut = self.cut.how, None
            return await self._stopped(how, call, connection)
        if stop and not self.stopped and self._is_at(stop, name):
            self.stopped = True
            if stop.how in BACKS:
                return await self._goes_back(stop, call)
            return await self._stopped(stop.how, call, connection)
        answer = await self.answered(call)
        await self._wrote(name)
        if name == self.hold:
            self.hold = ""
            self.stand()
        await self._gate()
        if name not in _LEAVES_LATE and stop and stop.name != "commit":
            await self.land_cut()
        return answer

    def _is_at(self, stop: Stop, name: str) -> bool:
        return stop.name == name and stop.nth == self.reached[name]

    async def answered(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """No time passes while the server works."""
        self.loop.busy_threads += 1
        try:
            return await call()
        finally:
            self.loop.busy_threads -= 1

    async def _gate(self) -> None:
        while self._standing and not self.over:
            await self._goes_on.wait()
        if self.over:
            raise asyncio.CancelledError

    async def _stopped(
        self,
        how: How,
        call: Callable[[], Awaitable[Any]],
        connection: asyncpg.Connection | None,
    ) -> Any:
        if how in (How.CUT_BEFORE, How.CUT_AFTER, How.CUT_LATE):
            return await self._cut(how, call, connection)
        if how is How.AFTER:
            await self.answered(call)
        self.stand()
        if how is How.LATE:
            await self._lands.wait()
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
                await self.answered(call)
                self.landed += 1
            self.stand()
        await self._gate()
        answer = await self.answered(call)  # only one that was paused comes here
        await self._gate()
        return answer

    async def _wrote(self, name: str) -> None:
        if self.standby is not None:
            await self.answered(partial(self.standby.wrote, name))

    async def _goes_back(self, stop: Stop, call: Callable[[], Awaitable[Any]]) -> Any:
        """The server fails over, and with it go all connections."""
        assert self.standby is not None  # noqa: S101  the play has one
        answer = None
        if stop.how is not How.BACK_BEFORE:
            answer = await self.answered(call)
            await self._wrote(stop.name)
        await self.answered(self.standby.promoted)
        if stop.how is How.BACK_BESIDE:
            self.stand()
        await self._gate()
        if stop.how in (How.BACK_BEFORE, How.BACK_AFTER):
            raise asyncpg.ConnectionDoesNotExistError("the server failed over")
        return answer

    async def _cut(
        self,
        how: How,
        call: Callable[[], Awaitable[Any]],
        connection: asyncpg.Connection | None,
    ) -> Any:
        if connection is None:  # it would be a new one
            raise DiskError(path="the server", problem="refused by the search")
        if how is How.CUT_AFTER:
            await self.answered(call)
        if how is How.CUT_LATE:
            self.hidden.add(connection)
            self.late = connection, call
        else:
            connection.terminate()
        raise asyncpg.ConnectionDoesNotExistError("cut by the search")

    async def land_cut(self) -> None:
        """The statement of a lost connection runs now."""
        late, self.late = self.late, None
        if late is None:
            return
        connection, call = late
        self.hidden.discard(connection)
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
            await self.answered(call)
            self.landed += 1
        connection.terminate()
