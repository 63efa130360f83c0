"""A store of several shards, a host's share of them, and the hosts of a store."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from attrs import Factory, frozen

from turnfold.ports.store import Store

__all__ = ["Announcing", "Host", "Limit", "Seating", "Seats", "Sharded", "chains_of"]


@frozen
class Limit:
    """A shard was told to wait by the platform: its `gate` is closed from `since` to
    `until` (log ms)."""

    gate: str
    since: int
    until: int


@frozen(kw_only=True)
class Seating:
    """`free`: shards without a living worker, and without one that may still send.
    `hosts`: how many hosts count as alive and share the shards, including this one.
    `waiting`: shards with commands in their inbox. `ends`: the position at which the log
    of each shard ends. `limits`: those of shards that this host does not have, which are
    advice."""

    free: Sequence[int]
    hosts: int
    waiting: Sequence[int] = ()
    ends: Mapping[int, int] = Factory(dict)
    limits: Sequence[Limit] = ()


class Seats(Protocol):
    """A host's share of the shards. The host takes and frees shards by the `ownership`
    of their handles; one lease covers all of them."""

    async def enter(self) -> None:
        """Count as a host from now on."""

    async def look(self, gates: Sequence[str] = ()) -> Seating:
        """All shards, in one round trip: a host asks a few times a second. Hosts that
        are found dead are recorded as dead. `gates`: whose limits are wanted."""

    def must_look(self) -> bool:
        """Has something happened since the last look that the next one would show: a
        bell, the end of a process of this machine, the end of a lease? It asks
        nobody. False proves nothing."""

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


@frozen(kw_only=True)
class Host:
    """A worker that counts as alive. `attached`: its accounts, as `account_scope` names
    them; None if it has not said so. `works`: it has the store, or a shard of it."""

    id: str
    host: str
    pid: int
    attached: frozenset[str] | None
    works: bool


@runtime_checkable
class Announcing(Protocol):
    """A store by which its hosts know of each other."""

    def announce(self, accounts: Iterable[str]) -> None:
        """This process has these accounts attached. Others read it soon, if it is a
        worker."""

    async def hosts(self) -> Sequence[Host]:
        """The workers that count as alive, by their ids."""


def chains_of(store: Store) -> Sequence[Store]:
    """A handle of each shard of an open store, in order; the store itself if it has one."""
    if not isinstance(store, Sharded) or store.shards == 1:
        return (store,)
    return [store.shard(number) for number in range(store.shards)]
