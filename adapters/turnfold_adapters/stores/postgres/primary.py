"""The primary among the hosts of an address.

All hosts are asked at the same time: a machine that is gone answers nothing, and an
attempt that waited for it would take longer than a lease. A standby is skipped. It is
taken only for a look, and only where no primary answers.

All connections of a `Way` lead to one server. When one of them finds another primary,
the others leave theirs: after a failover the old primary may still answer. It is known
by its timeline, which is the lower one, and is not used. A statement that gets no answer
makes them look, too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import asyncpg
from attrs import evolve, frozen

from turnfold.errors import (
    DiskError,
    NoAccessError,
    NotAStoreError,
    StoreError,
    UnsafeStoreError,
)
from turnfold.logs import lines
from turnfold_adapters.stores.postgres import history
from turnfold_adapters.stores.postgres.hosts import Host

_LOG = lines()
_CONNECT_S = 10.0  # without any answer
# How long the silent hosts are waited for after an answer. Another primary must be seen;
# a host that is gone must not take the time of a lease.
_AFTER_PRIMARY_S = 1.0
_AFTER_STANDBY_S = 3.0
_SILENT_S = 2.0  # a statement without an answer: then the other hosts are asked
_KNOWN_S = 5.0  # connections that are made in this time ask only the primary
_ROLE = "SELECT pg_is_in_recovery(), pg_postmaster_start_time()::text"
_GONE = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    EOFError,
)
_SERIOUS = (NoAccessError, NotAStoreError, UnsafeStoreError)

Make = Callable[[Host], Awaitable[asyncpg.Connection]]


class _Leaves(Protocol):
    def leave(self) -> None:
        """End the connection, unless it leads to the primary that is known now."""


@frozen(kw_only=True)
class Server:
    """A server and its life. `system`: of its cluster, empty if it does not say;
    `timeline`: grows with each promotion; `started`: when its process began."""

    system: str
    timeline: int
    started: str


@frozen(kw_only=True)
class Answer:
    """A host that answered. `server`: None on a standby."""

    host: Host
    connection: asyncpg.Connection
    server: Server | None


class Way:
    """The way of one process to the primary of one store. `address`: for people.
    `turn`: grows when another server is the primary."""

    def __init__(self, hosts: Sequence[Host], address: str) -> None:
        self._hosts, self._address = hosts, address
        self.turn = 0
        self._known: Server | None = None
        self._host: Host | None = None
        self._seen_at = 0.0
        self._told = ""
        self._users: list[_Leaves] = []

    @property
    def primary(self) -> Host | None:
        """The host that is the primary, if the address has several."""
        return self._host

    def add(self, user: _Leaves) -> None:
        self._users.append(user)

    async def connection(
        self, make: Make, *, looks: bool
    ) -> tuple[asyncpg.Connection, int]:
        """A connection to the primary, made by `make`, and the turn in which it was the
        primary. `looks`: a standby will do if no primary answers. Raises StoreError."""
        host = self._host
        if host is not None and time.monotonic() - self._seen_at < _KNOWN_S:
            answer = await self._again(make, host)
            if answer is not None:
                return answer.connection, self.turn
        return await self._found(make, looks=looks)

    @contextmanager
    def watched(self, make: Make) -> Iterator[None]:
        """While a statement is under way: look around if it gets no answer for some time.
        A machine that is gone says nothing, and a statement has 30 s for its answer."""
        if not self._hosts:
            yield
            return
        looks: list[asyncio.Task[None]] = []

        def begin() -> None:
            looks.append(asyncio.ensure_future(self._look_around(make)))

        timer = asyncio.get_running_loop().call_later(_SILENT_S, begin)
        try:
            yield
        finally:
            timer.cancel()
            for look in looks:
                look.cancel()

    async def _look_around(self, make: Make) -> None:
        """If another host is the primary now, all connections leave theirs."""
        while True:
            try:
                connection, _ = await self._found(make, looks=False)
            except StoreError as exc:
                self._tell(f"a statement waits for its answer, and {_words(exc)}", {})
            else:
                connection.terminate()
            await asyncio.sleep(_SILENT_S)

    async def _again(self, make: Make, host: Host) -> Answer | None:
        """The host that was the primary a moment ago, if it is the same server."""
        try:
            answer = await _ask(make, host)
        except StoreError:
            return None
        if answer.server == self._known:
            return answer
        answer.connection.terminate()
        return None

    async def _found(
        self, make: Make, *, looks: bool
    ) -> tuple[asyncpg.Connection, int]:
        """Ask all hosts. Connections that are not chosen are ended, also if the caller
        is cancelled."""
        tasks = [asyncio.ensure_future(_ask(make, host)) for host in self._hosts]
        best: Answer | None = None
        try:
            await _until_known(tasks)
            answers = [t.result() for t in tasks if _is_good(t)]
            failures = {
                host: _failure(task)
                for host, task in zip(self._hosts, tasks, strict=True)
                if not _is_good(task)
            }
            best = self._best(answers, failures, looks=looks)
            turn = self.turn
        finally:
            _end(tasks, but=best)
        return best.connection, turn

    def _best(
        self,
        answers: Sequence[Answer],
        failures: Mapping[Host, StoreError],
        *,
        looks: bool,
    ) -> Answer:
        said = {host: _words(exc) for host, exc in failures.items()}
        standbys = [answer for answer in answers if answer.server is None]
        said |= {answer.host: "a standby" for answer in standbys}
        best = self._primary(answers, said)
        if best is not None:
            self._go(best)
            self._tell(
                f"the primary is {best.host}", said, bad=len(said) > len(standbys)
            )
            return best
        if looks and standbys:
            best = standbys[0]
            del said[best.host]
            self._tell(f"no primary answers; looks ask the standby {best.host}", said)
            return best
        for host, exc in failures.items():
            if isinstance(exc, _SERIOUS) and not standbys:
                raise evolve(exc, problem=f"{host}: {exc.problem}")
        raise DiskError(
            path=self._address, problem=f"no primary answers: {_list(said)}"
        )

    def _primary(
        self, answers: Sequence[Answer], said: dict[Host, str]
    ) -> Answer | None:
        """The primary among the hosts. Why another one is none goes into `said`. Raises
        UnsafeStoreError if two could be it."""
        found: dict[Server, Answer] = {}  # two names may lead to one server
        for answer in answers:
            if answer.server is not None:
                found.setdefault(answer.server, answer)
        for server in [*found]:
            if self._is_past(server):
                said[found.pop(server).host] = f"a primary of before ({_name(server)})"
        if not found:
            return None
        newest = max(found, key=lambda server: server.timeline)
        best = found.pop(newest)
        for server, other in found.items():
            if server.system != newest.system or server.timeline == newest.timeline:
                raise self._two(best, other)
            said[other.host] = f"a primary of before ({_name(server)}): stop it"
        return best

    def _is_past(self, server: Server) -> bool:
        """True for a server that this process must not go back to."""
        known = self._known
        if known is None or not (known.system and server.system):
            return False
        return server.system != known.system or server.timeline < known.timeline

    def _two(self, one: Answer, other: Answer) -> UnsafeStoreError:
        problem = (
            f"{one.host} and {other.host} are both primaries, and neither is the later"
            " one; stop the wrong one, or take its host out of the address"
        )
        return UnsafeStoreError(path=self._address, problem=problem)

    def _go(self, best: Answer) -> None:
        """From now on this is the primary."""
        self._host, self._seen_at = best.host, time.monotonic()
        if best.server == self._known:
            return
        before, self._known = self._known, best.server
        if before is not None:
            self.turn += 1
            for user in self._users:
                user.leave()

    def _tell(self, what: str, said: Mapping[Host, str], *, bad: bool = True) -> None:
        """Log what the hosts said, once until they say something else."""
        text = f"{what}; skipped: {_list(said)}" if said else what
        if text != self._told:
            self._told = text
            say = _LOG.warning if bad else _LOG.info
            say("%s: %s", self._address, text)


async def _ask(make: Make, host: Host) -> Answer:
    """Connect to a host, and ask which server it is."""
    connection = await make(host)
    try:
        [(standby, started)] = await connection.fetch(_ROLE)
        name = None if standby else await history.name(connection)
    except BaseException as exc:
        connection.terminate()
        if isinstance(exc, _GONE):
            raise DiskError(path=str(host), problem=str(exc)) from exc
        raise
    server = None if name is None else _server(name, started)
    return Answer(host=host, connection=connection, server=server)


def _server(name: str, started: str) -> Server:
    system, _, timeline = name.rpartition("/")
    return Server(
        system=system, timeline=int(timeline, 16) if timeline else 0, started=started
    )


async def _until_known(tasks: Sequence[asyncio.Task[Answer]]) -> None:
    """Wait for all hosts, and not for long after the first that answers."""
    end, waiting = time.monotonic() + _CONNECT_S, set(tasks)
    while waiting and (left := end - time.monotonic()) > 0:
        done, waiting = await asyncio.wait(
            waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED
        )
        for task in filter(_is_good, done):
            standby = task.result().server is None
            more = _AFTER_STANDBY_S if standby else _AFTER_PRIMARY_S
            end = min(end, time.monotonic() + more)


def _end(tasks: Sequence[asyncio.Task[Answer]], but: Answer | None) -> None:
    """End all connections but one, made or still being made."""

    def ended(task: asyncio.Task[Answer]) -> None:
        if _is_good(task) and task.result() is not but:
            task.result().connection.terminate()

    for task in tasks:
        task.cancel()
        if task.done():
            ended(task)
        else:
            task.add_done_callback(ended)


def _is_good(task: asyncio.Task[Answer]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _failure(task: asyncio.Task[Answer]) -> StoreError:
    """Why a host is not used. Raises what is no failure of a host."""
    exc = task.exception() if task.done() else None
    if exc is None:
        return DiskError(path="", problem="no answer")
    if not isinstance(exc, StoreError):
        raise exc
    return exc


def _words(exc: StoreError) -> str:
    problem: str = getattr(exc, "problem", "") or str(exc)
    return problem.removeprefix("no connection: ")


def _list(said: Mapping[Host, str]) -> str:
    return "; ".join(f"{host}: {words}" for host, words in said.items())


def _name(server: Server) -> str:
    return f"{server.system}/{server.timeline:X}"
