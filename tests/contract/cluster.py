"""Several hosts on the shards of one store, in memory and in one loop."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from attrs import define, field

from turnfold import Kernel, TurnHandle
from turnfold.api import balance
from turnfold.api.shard_kernel import ShardKernel, shard_of_place
from turnfold.enums import DeliveryClass
from turnfold.errors import DiskError
from turnfold.ports.shards import Limit, Seating
from turnfold.ports.store import Listing
from turnfold_adapters.stores.memory import MemoryDisk, MemoryStore
from turnfold_model.testing.platform import Platform, PlatformChannel

SHARDS = 4


@define(eq=False)
class Cluster:
    """Four disks and the hosts on them."""

    disks: Sequence[MemoryDisk] = field(
        factory=lambda: [MemoryDisk() for _ in range(SHARDS)]
    )
    hosts: list["MemorySeats"] = field(factory=list)
    platform: Platform = field(factory=Platform)
    closed: int = 0  # channels
    at_close: Callable[[], None] = lambda: None  # of the store of all shards

    def made(
        self,
        handler: Any = None,
        cls: type[Kernel] | None = None,
        *,
        store: Any = None,
        **how: Any,
    ) -> Kernel:
        kernel = (cls or Kernel)(store or MemoryShards(self), **how)
        kernel.attach("t", Closable(self))
        kernel.on_turn(handler or echo)
        return kernel

    @asynccontextmanager
    async def host(
        self,
        handler: Any = None,
        sources: Any = (),
        *,
        work: bool = True,
        broken: bool = False,
    ) -> AsyncIterator[Kernel]:
        cls = Broken if broken else Kernel
        kernel = self.made(handler, cls, work=work)
        for name, stream in sources:
            kernel.source(name, stream)
        async with kernel:
            yield kernel


class Broken(Kernel):
    """It can take no message in."""

    async def accept(self, *_: Any, **__: Any) -> Any:
        raise DiskError(path="memory:", problem="full")


class Closable(PlatformChannel):
    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.platform, DeliveryClass.KEYED)
        self._cluster = cluster

    async def aclose(self) -> None:
        self._cluster.closed += 1


class MemoryShards(MemoryStore):
    """A handle of all of them, of one process."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self._cluster = cluster

    @property
    def shards(self) -> int:
        return SHARDS

    async def close(self) -> None:
        self._cluster.at_close()
        await super().close()

    def shard(self, number: int) -> MemoryStore:
        return MemoryStore(self._cluster.disks[number])

    def seats(self) -> "MemorySeats":
        return MemorySeats(self._cluster)


class MemorySeats:
    held = True

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self.looks = cluster, 0

    async def enter(self) -> None:
        """Again after a loss, which a test makes by `held` of this object."""
        self.__dict__.pop("held", None)
        if self not in self._cluster.hosts:
            self._cluster.hosts.append(self)

    async def leave(self) -> None:
        self._cluster.hosts.remove(self)

    def must_look(self) -> bool:
        return False

    async def look(self, gates: Sequence[str] = ()) -> Seating:
        self.looks += 1
        disks = self._cluster.disks
        free = [n for n, disk in enumerate(disks) if disk.room.holder is None]
        parts = [MemoryStore(disk) for disk in disks]
        limits: list[Limit] = []
        waiting, ends = [], {}
        for shard, part in enumerate(parts):
            await part.open()
            if await part.inbox(1):
                waiting.append(shard)
            ends[shard] = (await part.load()).head.position
            rows = await part.list(Listing(prefix="gate:", reasons=("rate_limited",)))
            gate = [row for row in rows if row.open and row.stream in gates]
            limits += [Limit(row.stream, row.updated, row.due or 0) for row in gate]
            await part.close()
        return Seating(
            free=free,
            hosts=len(self._cluster.hosts),
            waiting=waiting,
            ends=ends,
            limits=limits,
        )


def balance_of(kernel: Kernel) -> balance.Balance:
    assert kernel._shards is not None
    return kernel._shards.balance


def seats_of(kernel: Kernel) -> dict[int, ShardKernel]:
    return balance_of(kernel).seats


@define
class Wanted:
    """The target of an act."""

    id: str
    version: int | None = None


async def echo(turn: TurnHandle) -> None:
    await turn.reply(f"re {turn.inbound.message_id}")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "_POLL_S", 0.01)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def lies_in(conversation: str) -> int:
    return shard_of_place("t", "default", conversation, SHARDS)


def talk(shard: int) -> str:
    """A conversation of a shard."""
    return next(str(n) for n in range(1_000) if lies_in(str(n)) == shard)
