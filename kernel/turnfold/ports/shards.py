"""A store of several shards, and a host's share of them."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from attrs import frozen

from turnfold.ports.store import Store

__all__ = ["Limit", "Seating", "Seats", "Sharded", "chains_of"]


@frozen(kw_only=True)
class Seating:
    """`free`: shards without a living worker, and without one that may still send.
    `hosts`: how many hosts count as alive and share the shards, including this one."""

    free: Sequence[int]
    hosts: int


@frozen
class Limit:
    """A shard was told to wait by the platform: its `gate` is closed from `since` to
    `until` (log ms)."""

    gate: str
    since: int
    until: int


class Seats(Protocol):
    """A host's share of the shards. The host takes and frees shards by the `ownership`
    of their handles; one lease covers all of them."""

    async def enter(self) -> None:
        """Count as a host from now on."""

    async def look(self) -> Seating:
        """The shards that can be taken. Hosts that are found dead are recorded as
        dead."""

    async def limits(self, gates: Sequence[str], but: Sequence[int]) -> Sequence[Limit]:
        """The limits at these gates in all shards `but` these. It is advice, and may
        lag behind."""

    async def leave(self) -> None:
        """Count as a host no more. All shards were released before."""

    @property
    def held(self) -> bool:
        """True until the lease of this host is over."""


@runtime_checkable
class Sharded(Protocol):
    """A store that may have several shards. Each is a whole store with a log of its own;
    dedupe keys are unique over all of them."""

    @property
    def address(self) -> str:
        """The name of this store for people."""

    @property
    def shards(self) -> int:
        """The number of shards, which never changes. Known when the store is open."""

    def shard(self, number: int) -> Store:
        """A handle of one shard, not open yet; all handles share the connections of
        this store."""

    def seats(self) -> Seats: ...


def chains_of(store: Store) -> Sequence[Store]:
    """A handle of each shard of an open store, in order; the store itself if it has one."""
    if not isinstance(store, Sharded) or store.shards == 1:
        return (store,)
    return [store.shard(number) for number in range(store.shards)]
