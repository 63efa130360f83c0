"""The store port over a PostgreSQL database that several hosts share.

One host is the worker; the others post into the inbox. Each commit is one statement in
one round trip. `specs/postgres.md` says what a lost host, a lost connection and a
failover mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import asyncpg

from turnfold.errors import LostStoreError, NotOpenError, ReadOnlyError
from turnfold.ports.store import (
    BLANK,
    Body,
    BodyRef,
    Command,
    Count,
    Found,
    Listing,
    Loaded,
    Posted,
    Record,
    Refused,
    Stored,
    Summary,
    Wanted,
    Write,
)
from turnfold_adapters.plugins.postgres import PostgresPluginStore
from turnfold_adapters.stores.checking import check_command, check_shards
from turnfold_adapters.stores.postgres import reads
from turnfold_adapters.stores.postgres.bell import NotifyDoorbell
from turnfold_adapters.stores.postgres.commit import Committer
from turnfold_adapters.stores.postgres.connection import (
    FAILURES,
    Link,
    Place,
    of_reading,
    translated,
)
from turnfold_adapters.stores.postgres.ownership import LeaseOwnership
from turnfold_adapters.stores.postgres.rows import kept
from turnfold_adapters.stores.postgres.schema import (
    check,
    check_durable,
    migrate,
    prepare,
)
from turnfold_adapters.stores.postgres.upkeep import PostgresMaintenance

_T = TypeVar("_T")
_Ask = Callable[[asyncpg.Connection], Awaitable[_T]]


class PostgresStore:
    """The store at `postgresql://user@host/database?schema=name`.

    `schema`: where the tables lie, `turnfold` if it is left out. `lease_ms`: how long a
    worker counts as alive without a word, 10,000 if left out. `max_pause_ms`: how long
    after that a worker of which nobody knows the end is taken as dead, 30,000 if left
    out. The rest of the address is the server's own.
    """

    def __init__(self, url: str) -> None:
        url = url if "://" in url else f"postgresql:{url}"
        self._place = Place.parsed(url)
        self._state = "not open"
        links = (Link(self._place, name) for name in ("writes", "reads", "lease"))
        self._write, self._read, self._lease = links
        self._ring, self._hear = (Link(self._place, n) for n in ("rings", "hears"))
        self._committer = Committer(self.address)
        self._ownership = LeaseOwnership(self._lease, self._place, self._check_writable)
        self._doorbell = NotifyDoorbell(
            self._ring, self._hear, self._place.schema, lambda: self._state == "open"
        )
        self._head = BLANK  # the last head that this handle stored or loaded

    @property
    def address(self) -> str:
        return self._place.address

    @staticmethod
    def plugin_store(url: str) -> PostgresPluginStore:
        """Where plugins keep their state: tables in the schema of the store."""
        return PostgresPluginStore(url)

    # --- life ------------------------------------------------------------------------

    async def open(self, *, read_only: bool = False) -> None:
        """Makes the tables where there are none. Raises NotAStoreError, NewerSchemaError,
        UnsafeStoreError, DiskError."""
        if self._state.startswith("open"):
            return
        for link in self._links:
            link.open(read_only=read_only)
        try:
            await self._asked(
                self._read, lambda c: self._prepare(c, read_only=read_only)
            )
        except BaseException:
            await self._read.close()
            raise
        self._state = "open for reading only" if read_only else "open"

    async def _prepare(
        self, connection: asyncpg.Connection, *, read_only: bool
    ) -> None:
        schema = self._place.schema
        if not read_only:
            await prepare(connection, schema, BLANK.hash)
            await check_durable(connection, self.address)
        await check(connection, schema, self.address, read_only=read_only)

    async def close(self) -> None:
        self._ownership.release()
        await self._ownership.left()
        await self._doorbell.stop()
        self._state = "closed"
        for link in self._links:
            await link.close()

    async def reopen(self) -> None:
        """New connections, the same ownership. An owner takes a new token first: then
        the commit of unknown fate is stored already, or never.

        Raises LostStoreError if the store is another worker's now, or if the log lacks
        what this handle has stored: a failover lost commits.
        """
        self._check_open()
        for link in self._links:
            await link.close()
        self._committer.forget()
        if not await self._ownership.renew_token():
            problem = "another worker has taken this store over"
            raise LostStoreError(path=self.address, problem=problem)
        await self._check_history()

    async def _check_history(self) -> None:
        head = self._head
        if head == BLANK:
            return
        if not await self._asked(self._read, lambda c: reads.contains_head(c, head)):
            raise self._lost()

    def _lost(self) -> LostStoreError:
        """The worker stands down: it is not asked again what it knows."""
        problem = (
            f"the log does not contain position {self._head.position}, which was stored:"
            " the server went back to an earlier state"
        )
        self._ownership.lose(problem)
        return LostStoreError(path=self.address, problem=problem)

    # --- the owner -------------------------------------------------------------------

    async def load(self) -> Loaded:
        loaded = await self._reading(reads.load)
        self._head = loaded.head
        return loaded

    async def commit(self, writes: Sequence[Write]) -> Sequence[Stored | Refused]:
        """A commit that has begun goes on when its caller is cancelled."""
        self._check_writable()
        check_shards(writes)
        if not writes:
            return []
        return [await asyncio.shield(asyncio.ensure_future(self._store(writes[0])))]

    async def _store(self, write: Write) -> Stored | Refused:
        token = self._ownership.token
        try:
            async with self._write.used() as connection:
                answer = await self._committer.store(connection, write, token)
        except FAILURES as exc:
            self._committer.forget()
            raise translated(exc, self.address) from exc
        if isinstance(answer, Stored):
            self._head = answer.head
        return answer

    async def inbox(self, limit: int = 100) -> Sequence[Command]:
        return await self._reading(lambda c: reads.inbox(c, limit))

    # --- everybody -------------------------------------------------------------------

    async def post(self, commands: Sequence[Command]) -> Sequence[Posted]:
        self._check_writable()
        for command in commands:
            check_command(command)
        first = _first_of_each(commands)
        if not first:
            return []
        try:
            async with self._write.used() as connection:
                posted = await reads.post(connection, first)
        except FAILURES as exc:
            raise translated(exc, self.address) from exc
        return _in_order(commands, first, posted)

    async def fetch(self, wanted: Wanted) -> Found:
        return await self._reading(lambda c: reads.fetch(c, wanted))

    async def log(self, after: int = 0, limit: int = 1000) -> Sequence[Record]:
        return await self._reading(lambda c: reads.log(c, after, limit))

    async def list(self, listing: Listing) -> Sequence[Summary]:
        return await self._reading(lambda c: reads.find(c, listing))

    async def count(self, listing: Listing, by: Sequence[str] = ()) -> Sequence[Count]:
        return await self._reading(lambda c: reads.count(c, listing, by))

    async def places(self) -> Sequence[str]:
        return await self._reading(reads.places)

    async def last(self) -> Record | None:
        return await self._reading(reads.last)

    async def bodies(
        self, after: BodyRef | None = None, limit: int = 100
    ) -> Sequence[Body]:
        return await self._reading(lambda c: reads.every_body(c, after, limit))

    async def keys(
        self, after: str = "", limit: int = 1000, part: str = ""
    ) -> Sequence[tuple[str, str]]:
        return await self._reading(lambda c: reads.keys(c, after, limit, part))

    # --- its means -------------------------------------------------------------------

    @property
    def maintenance(self) -> PostgresMaintenance:
        return PostgresMaintenance(
            self._reading,
            self._writing,
            self._check_writable,
            self._committer.forget,
            lambda: self._head,
            self._lost,
            self._place,
        )

    def facts(self) -> Mapping[str, object]:
        return self._ownership.facts()

    def ownership(self) -> LeaseOwnership:
        return self._ownership

    def doorbell(self) -> NotifyDoorbell:
        return self._doorbell

    async def certify(self, worker: str, by: str) -> bool:
        """A person's word that the process of a worker is dead: another host takes over
        without waiting. `by`: the person, with a reason. False if it is no living
        worker."""
        return await self._ownership.certify(kept(worker), kept(by))

    async def migrate(self, *, dry: bool = False) -> tuple[int, int]:
        """Bring the tables up to the layout of this turnfold, on a store that is not
        open. The layout before, and the one of now."""
        place = self._place
        self._write.open(read_only=False)
        try:
            async with self._write.used() as connection:
                return await migrate(connection, place.schema, self.address, dry=dry)
        except FAILURES as exc:
            raise of_reading(exc, self.address) from exc
        finally:
            await self._write.close()

    def drop(self) -> None:
        """End all connections without a word, as the death of the process would."""
        for link in self._links:
            link.drop()

    # --- inside ----------------------------------------------------------------------

    @property
    def _links(self) -> tuple[Link, ...]:
        return self._write, self._read, self._lease, self._ring, self._hear

    def _check_open(self) -> None:
        if not self._state.startswith("open"):
            raise NotOpenError(state=self._state)

    def _check_writable(self) -> None:
        self._check_open()
        if self._state != "open":
            raise ReadOnlyError(path=self.address)

    async def _reading(self, ask: _Ask[_T]) -> _T:
        self._check_open()
        return await self._asked(self._read, ask)

    async def _writing(self, ask: _Ask[_T]) -> _T:
        self._check_writable()
        try:
            async with self._write.used() as connection:
                return await ask(connection)
        except FAILURES as exc:
            raise translated(exc, self.address) from exc

    async def _asked(self, link: Link, ask: _Ask[_T]) -> _T:
        """A question is asked once more if its connection broke."""
        for last in (False, True):
            try:
                async with link.used() as connection:
                    return await ask(connection)
            except FAILURES as exc:
                if last or not link.broken:
                    raise of_reading(exc, self.address) from exc
        raise AssertionError  # the loop returns or raises


def _first_of_each(commands: Sequence[Command]) -> list[Command]:
    """Without those that repeat an id or a key of an earlier one."""
    first: list[Command] = []
    ids: set[str] = set()
    keys: set[str] = set()
    for command in commands:
        if command.id in ids or command.key in keys:
            continue
        first.append(command)
        ids.add(command.id)
        if command.key is not None:
            keys.add(command.key)
    return first


def _in_order(
    commands: Sequence[Command], first: Sequence[Command], posted: Mapping[str, Posted]
) -> list[Posted]:
    by_key = {command.key: posted[command.id] for command in first}
    told: set[str] = set()
    answers = []
    for command in commands:
        own = posted.get(command.id)
        answer = by_key[command.key] if own is None else own
        if own is None or command.id in told:
            answer = Posted(stream=answer.stream, new=False)
        told.add(command.id)
        answers.append(answer)
    return answers
