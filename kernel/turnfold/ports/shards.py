"""A store of several shards, and the share that a host has of them."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from attrs import frozen

from turnfold.errors import ShardedStoreError
from turnfold.ports.store import Store

__all__ = ["Seating", "Seats", "Sharded", "one_shard"]


@frozen(kw_only=True)
class Seating:
    """`free`: shards that have no living worker, and none that may still send. `hosts`:
    how many count as alive and share the shards, this one among them."""

    free: Sequence[int]
    hosts: int


class Seats(Protocol):
    """The share of a host in the shards. It takes and frees them by the `ownership` of
    their handles; one lease answers for all of them."""

    async def enter(self) -> None:
        """Count as a host from now on."""

    async def look(self) -> Seating:
        """What can be taken. Hosts that are seen to be dead are noted as such."""

    async def leave(self) -> None:
        """Count no more. All shards were given back before."""

    @property
    def held(self) -> bool:
        """The lease of this host is not over."""


@runtime_checkable
class Sharded(Protocol):
    """A store that may have several shards. Each is a whole store with a log of its own;
    dedupe keys are unique over all of them."""

    @property
    def shards(self) -> int:
        """How many, for ever. Known when the store is open."""

    def shard(self, number: int) -> Store:
        """A handle of one of them, not open yet; they share this one's connections."""

    def seats(self) -> Seats: ...


def one_shard(store: Store) -> None:
    """Raises ShardedStoreError for a store of several shards."""
    shards = store.shards if isinstance(store, Sharded) else 1
    if shards > 1:
        raise ShardedStoreError(path=store.address, shards=shards)
