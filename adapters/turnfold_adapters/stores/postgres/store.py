"""The store port over a PostgreSQL database that several hosts share.

One host is the worker; the others post into the inbox. Each commit is one statement in
one round trip; commits of several shards share it. `specs/postgres.md` describes a lost host, a lost connection and a
failover.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from turnfold.errors import (
    InvalidInputError,
    LostStoreError,
    NotOpenError,
    ReadOnlyError,
)
from turnfold.ports.shards import Host
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
    Place,
    Session,
    of_reading,
    translated,
)
from turnfold_adapters.stores.postgres.ownership import LeaseOwnership
from turnfold_adapters.stores.postgres.rows import kept
from turnfold_adapters.stores.postgres.schema import migrate
from turnfold_adapters.stores.postgres.seats import LeaseSeats, hosts_of
from turnfold_adapters.stores.postgres.shared import Shared
from turnfold_adapters.stores.postgres.upkeep import PostgresMaintenance

_T = TypeVar("_T")
# A standby that was just started has replayed nothing since its checkpoint.
_AS_OF = """
    SELECT (extract(epoch FROM coalesce(pg_last_xact_replay_timestamp(), checkpoint_time))
        * 1000)::bigint
    FROM pg_control_checkpoint() WHERE pg_is_in_recovery()
"""
_Ask = Callable[[Session], Awaitable[_T]]


class PostgresStore:
    """The store at `postgresql://user@host/database?schema=name`.

    `schema`: of the tables, `turnfold` by default. `lease_ms`: how long a worker counts
    as alive without a renewal, 10,000 by default. `max_pause_ms`: how long after that a
    silent worker is taken as dead, 30,000 by default. `shards`: the number of shards of
    a new store, 1 by default. The rest of the address goes to the server.
    """

    def __init__(self, url: str) -> None:
        url = url if "://" in url else f"postgresql:{url}"
        self._be(Shared(Place.parsed(url)), None)

    def _be(self, shared: Shared, part: int | None) -> None:
        """Set up this handle. `part`: its shard; None for a handle of the whole store.
        `shared`: of all handles of the host."""
        number = part or 0
        self._shared, self._part, self._number = shared, part, number
        self._place, self._state = shared.place, "not open"
        self._committer = Committer(self.address, number, shared.commits)
        self._failed: int | None = None  # the connections at the last failed commit
        self._ownership = LeaseOwnership(shared.life, number, self._check_writable)
        is_open = lambda: self._state == "open"  # noqa: E731  three words
        self._doorbell = NotifyDoorbell(shared.bells, number, is_open)

    @property
    def address(self) -> str:
        return self._place.address

    @staticmethod
    def plugin_store(url: str) -> PostgresPluginStore:
        """The store of plugin state: tables in the schema of the store."""
        return PostgresPluginStore(url)

    # --- shards ----------------------------------------------------------------------

    @property
    def shards(self) -> int:
        """The number of shards, once it is open; 1 for a handle of a shard."""
        return self._shared.shards if self._part is None else 1

    def shard(self, number: int) -> PostgresStore:
        """A handle of one shard, not open yet, over the connections of this one. It is
        a whole store with a log of its own; keys are unique over all shards. The number
        of shards is known when the store is open, or by its address."""
        if not 0 <= number < self.shards:
            problem = f"there is no shard {number} of {self.shards}"
            raise InvalidInputError(field="shard", problem=problem)
        part = object.__new__(PostgresStore)
        part._be(self._shared, number)
        return part

    def seats(self) -> LeaseSeats:
        """This host's share of the shards."""
        return self._shared.seats

    # --- life ------------------------------------------------------------------------

    async def open(self, *, read_only: bool = False) -> None:
        """Open, and make the tables where there are none. Raises NotAStoreError,
        NewerSchemaError, UnsafeStoreError, DiskError, InvalidInputError for another
        number of shards."""
        if self._state.startswith("open"):
            return
        await self._shared.enter(read_only=read_only)
        self._state = "open for reading only" if read_only else "open"

    async def close(self) -> None:
        self._ownership.release()
        await self._ownership.left()
        was, self._state = self._state, "closed"
        if was.startswith("open"):
            await self._shared.leave()

    async def reopen(self) -> None:
        """New connections, the same ownership. An owner takes a new token first: then
        the commit of unknown outcome is stored already, or never will be.

        Raises LostStoreError if another worker owns the store now, or if the log lacks
        a commit of this handle: a failover lost commits.
        """
        self._check_open()
        failed, self._failed = self._failed, None
        await self._shared.renew(failed)
        self._committer.forget()
        if not await self._ownership.renew_token():
            problem = "another worker has taken this store over"
            raise LostStoreError(path=self.address, problem=problem)
        await self._check_history()

    async def _check_history(self) -> None:
        head = self._ownership.head
        if head == BLANK:
            return
        if not await self._reading(lambda c: reads.contains_head(c, head)):
            raise self._lost()

    def _lost(self) -> LostStoreError:
        """The error for a log without this handle's head; the worker stands down."""
        problem = (
            f"the log does not contain position {self._ownership.head.position}, which was stored:"
            " the server went back to an earlier state"
        )
        self._ownership.lose(problem)
        return LostStoreError(path=self.address, problem=problem)

    async def as_of(self) -> int | None:
        """See `Following`."""
        found: int | None = await self._reading(lambda c: c.fetchval(_AS_OF))
        return found

    # --- the owner -------------------------------------------------------------------

    async def load(self) -> Loaded:
        """See the port. Raises LostStoreError for an owner if the log lacks its
        commits: its idle connection broke, and the next one leads to a server that went
        back."""
        loaded = await self._reading(reads.load)
        if self._ownership.seat is not None:
            await self._check_history()
        self._ownership.head = loaded.head
        return loaded

    async def commit(self, writes: Sequence[Write]) -> Sequence[Stored | Refused]:
        """See the port. If its caller is cancelled, a commit that was sent may be stored
        or not."""
        self._check_writable()
        check_shards(writes)
        return [await self._store(write) for write in writes]

    async def _store(self, write: Write) -> Stored | Refused:
        seat = self._ownership.seat
        try:
            answer = await self._committer.store(write, seat)
        except asyncio.CancelledError:  # its outcome is unknown
            self._committer.forget()
            raise
        except FAILURES as exc:
            self._committer.failed()
            self._failed = self._shared.renewals
            raise translated(exc, self.address) from exc
        if isinstance(answer, Stored):
            self._ownership.head = answer.head
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
            async with self._shared.write.used(self._number) as connection:
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
            self._noting,
            self._check_writable,
            self._committer.forget,
            lambda: self._ownership.head,
            self._lost,
            self._place,
        )

    def facts(self) -> Mapping[str, object]:
        return self._ownership.facts() | self._shared.facts()

    def ownership(self) -> LeaseOwnership:
        return self._ownership

    def doorbell(self) -> NotifyDoorbell:
        return self._doorbell

    def announce(self, accounts: Iterable[str]) -> None:
        """See `Announcing`. The next renewal of the lease tells it."""
        self._shared.life.attached = tuple(sorted(map(kept, accounts)))

    async def hosts(self) -> Sequence[Host]:
        """See `Announcing`."""
        return await self._reading(hosts_of)

    async def certify(self, worker: str, by: str) -> bool:
        """A person certifies that the process of a worker is dead: another host takes
        over without waiting. `by`: the person, with a reason. False if `worker` is no
        living worker."""
        return await self._ownership.certify(kept(worker), kept(by))

    async def migrate(self, *, dry: bool = False) -> tuple[int, int]:
        """Bring the tables up to the layout of this turnfold, on a store that is not
        open. Returns the old layout and the new one."""
        place, link = self._place, self._shared.write
        link.open(read_only=False)
        try:
            async with link.used() as session:
                made = session.connection
                return await migrate(made, place.schema, self.address, dry=dry)
        except FAILURES as exc:
            raise of_reading(exc, self.address) from exc
        finally:
            await link.close()

    def drop(self) -> None:
        """End all connections at once, as the death of the process would."""
        for link in self._shared.links:
            link.drop()

    # --- inside ----------------------------------------------------------------------

    def _check_open(self) -> None:
        if not self._state.startswith("open"):
            raise NotOpenError(state=self._state)

    def _check_writable(self) -> None:
        self._check_open()
        if self._state != "open":
            raise ReadOnlyError(path=self.address)

    async def _reading(self, ask: _Ask[_T]) -> _T:
        self._check_open()
        return await self._shared.asked(ask, self._number)

    async def _writing(self, ask: _Ask[_T]) -> _T:
        self._check_writable()
        try:
            async with self._shared.write.used(self._number) as connection:
                return await ask(connection)
        except FAILURES as exc:
            raise translated(exc, self.address) from exc

    async def _noting(self, ask: _Ask[_T]) -> _T:
        """No commit waits for the notes of all shards: they have another connection."""
        self._check_writable()
        return await self._shared.life.asked(ask, self._number)


def _first_of_each(commands: Sequence[Command]) -> list[Command]:
    """The commands that do not repeat an id or a key of an earlier one."""
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
