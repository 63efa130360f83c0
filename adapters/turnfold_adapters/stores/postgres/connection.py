"""One connection to the server: made at first use, and made again after it broke.

`translated` turns an error of the server into one of the port: surely nothing was
stored, or the outcome is unknown. specs/postgres.md has the table of SQLSTATEs.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
from attrs import frozen

from turnfold.errors import (
    BusyError,
    DiskError,
    FateUnknownError,
    InvalidInputError,
    NoAccessError,
    NotAStoreError,
    ReadOnlyError,
    StoreError,
    UnsafeStoreError,
)
from turnfold_adapters.stores.postgres.hosts import Host, check_role, parts_of, several
from turnfold_adapters.stores.postgres.options import check_connection, of_service
from turnfold_adapters.stores.postgres.primary import Way

MAX_SHARDS = 256
INSTANCE = "TURNFOLD_INSTANCE"
_CONNECT_S = 10.0
_INSTANCE_MAX = 300  # a node, a pod and its uid in Kubernetes
_NAME_MAX = 63  # bytes of a name in PostgreSQL
_STATEMENTS = 2_000  # prepared statements that are kept: some for each shard
_ANSWER_S = 30.0  # the server's time for one statement
# InternalClientError: also raised by the next statement on a connection that the server
# has ended while idle, before the client sees the end.
_GONE = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    TimeoutError,
    asyncio.IncompleteReadError,
)
FAILURES = (asyncpg.PostgresError, *_GONE)

# A pooler reports the backend of its own connection, and runs statements on others.
_MINE = "SELECT pg_backend_pid()"
_POOLER = (
    "a pooler stands before the server, and takes settings and statements away from their"
    " connection; give the address of the server itself"
)
# The prepared statement of another client is there, or ours is not.
_POOLED = {"42P05", "26000"}

STANDBY = (
    "on a standby, which can only be read; to change it, give the address of the primary,"
    " or promote this server"
)

# SQLSTATEs. A state in none of these sets leaves the outcome of a commit unknown.
_BUSY = {"40001", "40P01", "55P03"}
_NO_ROOM = {"53000", "53100", "53200", "53300", "53400"}
_NOTHING_SENT = {"08001", "08004", "57P03"}
# If the wait of a commit for a synchronous standby is ended, the server reports a
# success with a warning: the commit is on the primary alone, and a failover would lose
# it.
_ALONE = ("01000", "for synchronous replication")
_LAST_WORDS = {"57P01", "57P02", "57P04", "57P05", "25P03"}  # then it closes
_VALUE = {"22021", "22003", "54000", "22001", "22P05"}
_NO_STORE = {"42P01", "42703", "3D000", "3F000"}
_NO_ACCESS = {
    "28P01": "check user and password",
    "28000": "check the user, and what the server's pg_hba.conf asks for (TLS: sslmode)",
    "42501": "use another role, or let the owner of the tables grant this right",
}
_UNKNOWN_SERVER = (
    "check `sslrootcert`, and with sslmode=verify-full that the certificate has the name"
    " that the address has"
)
_NO_TLS = "rejected SSL upgrade"  # asyncpg gives it no class
# Limits that an administrator sets for all sessions would cut commits off in the middle,
# and end connections that wait for rings. The client has its own limit (`_ANSWER_S`).
_LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
# The two that older servers do not know. `synchronous_commit` keeps its value, as one of
# this session: what the server's files say of it later does not weaken it.
_SET = """
SELECT set_config('synchronous_commit', current_setting('synchronous_commit'), false)
    AS synchronous_commit,
    current_setting('fsync') AS fsync,
    current_setting('full_page_writes') AS full_page_writes,
    CASE WHEN current_setting('idle_session_timeout', true) IS NOT NULL
        THEN set_config('idle_session_timeout', '0', false) END,
    CASE WHEN current_setting('transaction_timeout', true) IS NOT NULL
        THEN set_config('transaction_timeout', '0', false) END
"""
# Anything else may lose a commit that was confirmed.
_SAFE = {
    "fsync": ("on",),
    "full_page_writes": ("on",),
    "synchronous_commit": ("on", "local", "remote_write", "remote_apply"),
}


@frozen(kw_only=True)
class Place:
    """The place of a store: the server's address, and the schema with its tables.
    `shards`: their number, for a new store.

    `lease_ms`: how long a worker counts as alive without a renewal. `max_pause_ms`: how
    long after that a silent worker is taken as dead. `hosts`: if they are several; then
    `dsn` names none.
    """

    dsn: str
    schema: str
    address: str  # for people: without a password
    lease_ms: int
    max_pause_ms: int
    shards: int | None = None  # None: as many as the store has
    hosts: tuple[Host, ...] = ()
    instance: str | None = None  # of this process, as its orchestrator names it

    @classmethod
    def parsed(cls, url: str) -> Place:
        """From `postgresql://user@host/database?schema=name`. turnfold's own parameters
        are `schema` (turnfold), `lease_ms` (10,000), `max_pause_ms` (30,000), `shards`
        and `instance` (the variable TURNFOLD_INSTANCE); all others go to the server.
        Raises InvalidInputError."""
        given = parts_of(url)
        parts = urlsplit(f"postgresql://{given.rest}")
        pairs = dict(parse_qsl(parts.query, keep_blank_values=True))
        named = bool(given.hosts or pairs.get("host"))
        pairs = {**of_service(pairs, hosts=named), **pairs}
        check_connection(pairs)
        check_role(pairs)
        hosts = several(given.hosts, pairs)
        schema = pairs.pop("schema", "turnfold")
        if not schema or "\0" in schema or len(schema.encode()) > _NAME_MAX:
            problem = f"schema is not a name of 1 to {_NAME_MAX} bytes: {schema!r}"
            raise InvalidInputError(field="address", problem=problem)
        lease_ms = _number("lease_ms", pairs.pop("lease_ms", "10000"), at_least=500)
        pause_ms = _number("max_pause_ms", pairs.pop("max_pause_ms", "30000"))
        shards = pairs.pop("shards", None)
        count = None if shards is None else _number("shards", shards, 1, MAX_SHARDS)
        instance = pairs.pop("instance", None) or os.environ.get(INSTANCE) or None
        # The kernel looks for the primary itself, whatever PGTARGETSESSIONATTRS says.
        rest = urlencode(pairs | {"target_session_attrs": "any"}, safe="/")
        shown = ",".join(map(str, hosts)) or given.hosts or pairs.get("host", "")
        user = given.login.partition(":")[0]
        at = "@" if user else ""
        address = f"postgresql://{user}{at}{shown}{parts.path}?schema={schema}"
        login = f"{given.login}@" if given.login else ""
        netloc = login if hosts else login + given.hosts
        dsn = urlunsplit(("postgresql", netloc, parts.path, rest, ""))
        return cls(
            dsn=dsn,
            schema=schema,
            address=address,
            lease_ms=lease_ms,
            max_pause_ms=pause_ms,
            shards=count,
            hosts=hosts,
            instance=None if instance is None else instance_name(instance),
        )


def instance_name(text: str) -> str:
    """The name of an instance. Raises InvalidInputError."""
    if text and len(text) <= _INSTANCE_MAX and text.isprintable():
        return text
    problem = f"an instance is not a name of 1 to {_INSTANCE_MAX} characters: {text!r}"
    raise InvalidInputError(field="instance", problem=problem)


def _number(name: str, text: str, at_least: int = 0, most: int = 10**9) -> int:
    if text.isascii() and text.isdigit() and at_least <= int(text) <= most:
        return int(text)
    problem = f"{name} is not a number from {at_least} to {most}: {text!r}"
    raise InvalidInputError(field="address", problem=problem)


class Session:
    """A connection for one shard: `SHARD` in a statement is its number. The number
    stands in the text and is no parameter, so that the server plans for that shard."""

    def __init__(self, connection: asyncpg.Connection, shard: int) -> None:
        self.connection, self._shard = connection, shard

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    async def fetch(self, sql: str, *values: object) -> Any:
        return await self.connection.fetch(_of(sql, self._shard), *values)

    async def fetchrow(self, sql: str, *values: object) -> Any:
        return await self.connection.fetchrow(_of(sql, self._shard), *values)

    async def fetchval(self, sql: str, *values: object) -> Any:
        return await self.connection.fetchval(_of(sql, self._shard), *values)

    async def execute(self, sql: str, *values: object) -> Any:
        return await self.connection.execute(_of(sql, self._shard), *values)

    async def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        await self.connection.executemany(_of(sql, self._shard), rows)


@lru_cache(maxsize=4096)
def _of(sql: str, shard: int) -> str:
    return sql.replace("SHARD", str(shard))


class _AloneError(asyncpg.InterfaceError):
    """A commit is on the primary alone, without the synchronous standby."""


class Link:
    """One connection, used by one call at a time. `way`: of all connections of a process
    that must lead to one server."""

    def __init__(self, place: Place, purpose: str, way: Way | None = None) -> None:
        self.place, self._purpose = place, purpose
        self._way = way or Way(place.hosts, place.address)
        self._way.add(self)
        self._turn = 0  # of the way, when the connection was made
        self._lock = asyncio.Lock()
        self._connection: asyncpg.Connection | None = None
        self._read_only = False
        self._alone = ""  # the server's warning about a commit that no standby has
        self._since: float | None = None  # when the use under way began

    def open(self, *, read_only: bool) -> None:
        self._read_only = read_only

    @asynccontextmanager
    async def used(self, shard: int = 0) -> AsyncIterator[Session]:
        """The connection, for this block alone. Raises DiskError if there is none. A
        cancelled block ends its connection: else the next block would inherit its
        statement or its open transaction."""
        async with self._lock:
            self._since, connection = time.monotonic(), None
            try:
                connection, self._alone = await self._there(), ""
                with self._way.watched(self._made_to):
                    yield Session(connection, shard)
                self._check_replicated()
            except asyncio.CancelledError:
                if connection is not None:
                    connection.terminate()
                raise
            except asyncpg.PostgresError as exc:
                # Its end may not be seen yet.
                if connection is not None and exc.sqlstate in _LAST_WORDS:
                    connection.terminate()
                raise
            finally:
                self._since = None

    @property
    def waiting_ms(self) -> int:
        """For how long the use under way has waited for the server; 0 if there is
        none."""
        since = self._since
        return 0 if since is None else round((time.monotonic() - since) * 1000)

    def _check_replicated(self) -> None:
        if self._alone:
            raise _AloneError(self._alone)

    def _hear(self, _: object, message: asyncpg.PostgresLogMessage) -> None:
        said = str(message)
        state, words = _ALONE
        if message.sqlstate == state and words in said:
            self._alone = said

    @property
    def broken(self) -> bool:
        """True if the connection was made, and the server or the network has ended
        it."""
        return self._connection is not None and self._connection.is_closed()

    async def _there(self) -> asyncpg.Connection:
        """The connection, made anew if necessary. One inside a transaction is not
        reused: a commit in there would not be durable."""
        there = self._connection
        if there is not None and not there.is_closed() and there.is_in_transaction():
            there.terminate()
        if there is not None and self._turn != self._way.turn:
            there.terminate()  # another server is the primary now
        if there is None or there.is_closed():
            self._connection = there = await self._made()
        return there

    async def _made(self) -> asyncpg.Connection:
        if not self.place.hosts:
            return await self._made_to(None)
        find = self._way.connection
        made, self._turn = await find(self._made_to, looks=self._read_only)
        return made

    async def _made_to(self, host: Host | None) -> asyncpg.Connection:
        """A new connection to one of several hosts, or to the host of the address."""
        place = self.place
        try:
            connection: asyncpg.Connection = await asyncpg.connect(
                place.dsn,
                host=None if host is None else host.name,
                port=None if host is None else host.port,
                timeout=_CONNECT_S,
                command_timeout=_ANSWER_S,
                statement_cache_size=_STATEMENTS,
                server_settings=self._settings(),
            )
            await self._prepare(connection)
        except FAILURES as exc:
            raise _unconnected(exc, place.address) from exc
        connection.add_log_listener(self._hear)
        return connection

    async def _prepare(self, connection: asyncpg.Connection) -> None:
        """The first questions of a new connection. Nobody holds it yet, so it is ended
        here if one fails or the caller is cancelled."""
        try:
            mine = await connection.fetchval(_MINE) == connection.get_server_pid()
            (found,) = await connection.fetch(_SET)
        except BaseException:
            connection.terminate()
            raise
        unsafe = self._unsafe(found) if mine else _POOLER
        if unsafe:
            connection.terminate()
            raise UnsafeStoreError(path=self.place.address, problem=unsafe)

    def _unsafe(self, found: asyncpg.Record) -> str:
        """Why the server may lose a confirmed commit, if it may and this link writes."""
        for name, safe in _SAFE.items():
            if found[name] not in safe and not self._read_only:
                problem = (
                    f"the server has {name} = {found[name]}, so it may forget commits"
                )
                return f"{problem}; set it to {safe[0]}"
        return ""

    def _settings(self) -> dict[str, str]:
        quoted = self.place.schema.replace('"', '""')
        return {
            "application_name": f"turnfold {self._purpose}",
            "search_path": f'"{quoted}"',
            "default_transaction_isolation": "read committed",
            "default_transaction_read_only": "on" if self._read_only else "off",
            **dict.fromkeys(_LIMITS, "0"),
        }

    async def close(self) -> None:
        """Close the connection after the call under way."""
        async with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None and not connection.is_closed():
                try:
                    await connection.close(timeout=1.0)
                except FAILURES:
                    connection.terminate()

    def leave(self) -> None:
        """See `Way`."""
        if self._turn != self._way.turn:
            self.drop()

    def drop(self) -> None:
        """End the connection at once, even during a call."""
        if self._connection is not None:
            self._connection.terminate()


def _unconnected(exc: Exception, address: str) -> StoreError:
    """The error of the port for a connection that could not be made."""
    state, problem = getattr(exc, "sqlstate", None), _said(exc)
    if isinstance(exc, ssl.SSLCertVerificationError):
        return NoAccessError(path=address, problem=problem, advice=_UNKNOWN_SERVER)
    if "startup parameter" in problem or state in _POOLED:
        return UnsafeStoreError(path=address, problem=_POOLER)
    if state in _NO_ACCESS:
        return NoAccessError(path=address, problem=problem, advice=_NO_ACCESS[state])
    if _NO_TLS in problem:
        advice = "set up TLS on the server, or take `sslmode` out of the address"
        return NoAccessError(path=address, problem=problem, advice=advice)
    if state in _NO_STORE:
        return NotAStoreError(path=address, problem=problem)
    return DiskError(path=address, problem=f"no connection: {problem}")


def translated(exc: Exception, address: str) -> StoreError | InvalidInputError:
    """The error of the port for one of `FAILURES` in a sent statement."""
    state = getattr(exc, "sqlstate", None)
    problem = _said(exc)
    if state in _BUSY:
        return BusyError(path=address, waited_ms=0)
    if state in _NO_ROOM or state in _NOTHING_SENT:
        return DiskError(path=address, problem=problem)
    if state in _VALUE:
        return InvalidInputError(field="value", problem=problem)
    if state in _NO_ACCESS:
        return NoAccessError(path=address, problem=problem, advice=_NO_ACCESS[state])
    if state in _NO_STORE:
        return NotAStoreError(path=address, problem=problem)
    if state == "25006":
        return ReadOnlyError(path=address, problem=STANDBY)
    if isinstance(exc, asyncpg.DataError):
        return InvalidInputError(field="value", problem=problem)
    return FateUnknownError(path=address, problem=problem)


def stored_nothing(exc: Exception) -> bool:
    """Is it sure of this error that its statement stored nothing? A value and a
    constraint are refused before the end of the statement."""
    state = getattr(exc, "sqlstate", None) or ""
    if state[:2] in ("22", "23"):
        return True
    return not isinstance(translated(exc, ""), FateUnknownError)


def is_cancelled_by_recovery(exc: Exception) -> bool:
    """Has a standby ended this question, because it was in the way of what the primary
    did? For a question that stores nothing: it can be asked again."""
    return getattr(exc, "sqlstate", None) == "40001"


def _said(exc: Exception) -> str:
    return str(exc) or type(exc).__name__


def of_reading(exc: Exception, address: str) -> StoreError | InvalidInputError:
    """As `translated`, for a statement that stores nothing."""
    error = translated(exc, address)
    if isinstance(error, FateUnknownError):
        return DiskError(path=address, problem=error.problem)
    return error
