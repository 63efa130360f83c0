"""All shards of a store as one read-only store.

Rows of several shards are in the order of their time. The stream `store`, and gates and
cursors of an account, exist once in each shard: for such a name the first shard that
has the stream answers.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from heapq import merge
from itertools import islice
from typing import NoReturn, TypeVar

from attrs import evolve
from msgspec.structs import replace

from turnfold.errors import ReadOnlyError
from turnfold.ports.shards import Sharded
from turnfold.ports.store import (
    Body,
    BodyRef,
    Command,
    Count,
    Doorbell,
    Following,
    Found,
    Listing,
    Loaded,
    Maintenance,
    Ownership,
    Posted,
    Record,
    Refused,
    Store,
    Stored,
    Summary,
    Wanted,
    Write,
)

_K = TypeVar("_K")
_V = TypeVar("_V")
_CREATED = 80  # bits of an order over all shards: the time, the shard, the position
_SHARD = 64


class AllShards:
    """`parts`: a handle of each shard, in their order. `whole`: the store of all
    shards, if it is to be closed with them."""

    def __init__(self, parts: Sequence[Store], whole: Store | None = None) -> None:
        self.parts, self._whole = parts, whole

    @property
    def address(self) -> str:
        return self.parts[0].address

    async def open(self, *, read_only: bool = False) -> None:
        for part in self.parts:
            await part.open(read_only=read_only)

    async def close(self) -> None:
        for part in self.parts:
            await part.close()
        if self._whole is not None:
            await self._whole.close()

    async def reopen(self) -> None:
        for part in self.parts:
            await part.reopen()

    # --- reading ---------------------------------------------------------------------

    async def fetch(self, wanted: Wanted) -> Found:
        """For each name, the rows of the first shard that has any."""
        whole = Found()
        for part in self.parts:
            found = await part.fetch(wanted)
            whole = Found(
                streams=_filled(whole.streams, found.streams),
                summaries=_filled(whole.summaries, found.summaries),
                keys=_filled(whole.keys, found.keys),
                bodies=_filled(whole.bodies, found.bodies),
                children=_filled(whole.children, found.children),
                answers=_filled(whole.answers, found.answers),
                waiting=whole.waiting | found.waiting,
            )
        return whole

    async def list(self, listing: Listing) -> Sequence[Summary]:
        pages = [
            [_placed(row, shard) for row in await part.list(_page(listing, shard))]
            for shard, part in enumerate(self.parts)
        ]
        rows = merge(*pages, key=lambda row: row.order, reverse=not listing.oldest)
        return [*islice(rows, max(listing.limit, 0))]

    async def count(self, listing: Listing, by: Sequence[str] = ()) -> Sequence[Count]:
        whole: Counter[tuple[int | str, ...]] = Counter()
        for part in self.parts:
            for one in await part.count(listing, by):
                whole[one.values] += one.count
        return [Count(values, count) for values, count in whole.items()]

    async def places(self) -> Sequence[str]:
        return sorted({name for part in self.parts for name in await part.places()})

    async def inbox(self, limit: int = 100) -> Sequence[Command]:
        found = [c for part in self.parts for c in await part.inbox(limit)]
        return sorted(found, key=lambda command: command.at)[:limit]

    async def last(self) -> Record | None:
        """The last record of the shard that was written to last."""
        found = [r for part in self.parts if (r := await part.last()) is not None]
        return max(found, key=lambda record: record.at, default=None)

    async def log(self, after: int = 0, limit: int = 1000) -> Sequence[Record]:
        """The log of the first shard: each shard has a log of its own."""
        return await self.parts[0].log(after, limit)

    async def load(self) -> Loaded:
        """The head of the first shard, and the open streams of all shards."""
        loaded = [await part.load() for part in self.parts]
        rows = [row for one in loaded for row in one.open]
        return evolve(loaded[0], open=rows)

    async def bodies(
        self, after: BodyRef | None = None, limit: int = 100
    ) -> Sequence[Body]:
        return await self.parts[0].bodies(after, limit)

    async def keys(
        self, after: str = "", limit: int = 1000, part: str = ""
    ) -> Sequence[tuple[str, str]]:
        pages = [await one.keys(after, limit, part) for one in self.parts]
        return sorted(pair for page in pages for pair in page)[:limit]

    async def as_of(self) -> int | None:
        part = self.parts[0]
        return await part.as_of() if isinstance(part, Following) else None

    # --- parts of a store
    # --------------------------------------------------------------

    @property
    def maintenance(self) -> Maintenance | None:
        return self.parts[0].maintenance

    def facts(self) -> Mapping[str, object]:
        return {**self.parts[0].facts(), "shards": len(self.parts)}

    def ownership(self) -> Ownership:
        return self.parts[0].ownership()

    def doorbell(self) -> Doorbell:
        return self.parts[0].doorbell()

    async def commit(self, _: Sequence[Write]) -> Sequence[Stored | Refused]:
        self._refuse()

    async def post(self, _: Sequence[Command]) -> Sequence[Posted]:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ReadOnlyError(path=self.address)


async def read_all(store: Store) -> Store:
    """An open store with all its shards, for reading; a store of one shard is returned
    unchanged."""
    if not isinstance(store, Sharded) or store.shards == 1:
        return store
    whole = AllShards([store.shard(n) for n in range(store.shards)], store)
    await whole.open(read_only=True)
    return whole


def shards_of(store: Store) -> Sequence[Store]:
    """The shards of a store by `read_all`, each with a log of its own."""
    return store.parts if isinstance(store, AllShards) else (store,)


def _filled(whole: Mapping[_K, _V], more: Mapping[_K, _V]) -> dict[_K, _V]:
    return {name: whole.get(name) or value for name, value in more.items()}


def _placed(row: Summary, shard: int) -> Summary:
    """The row with its order among the rows of all shards."""
    order = (row.created << _CREATED) | (shard << _SHARD) | row.order
    return replace(row, order=order)


def _page(listing: Listing, shard: int) -> Listing:
    """The listing of one shard for a page over all shards. `created` never falls with
    the position, so a time and a position cut the rows at one place."""
    if listing.before is None:
        return listing
    created = listing.before >> _CREATED
    at, position = (listing.before >> _SHARD) & 0xFFFF, listing.before & (2**64 - 1)
    if shard == at:
        return evolve(listing, before=position)
    until = created + (shard < at)
    if listing.until is not None:
        until = min(until, listing.until)
    return evolve(listing, before=None, until=until)
