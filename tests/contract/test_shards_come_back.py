"""A host of shards that has lost its lease comes back by itself, in memory: not before
the sends of its lost seats have ended, and not while the store does not answer. No seat
is free while a call of its shard hangs."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from turnfold import Kernel, Settings
from turnfold.enums import DeliveryClass, Status
from turnfold.errors import DiskError
from turnfold.ports.channel import Accepted
from turnfold_model.testing.gateway import route, until
from turnfold_model.testing.platform import PlatformChannel

from .cluster import (
    SHARDS,
    Cluster,
    MemorySeats,
    cluster,
    quick,
    seats_of,
    talk,
)

__all__ = ["cluster", "quick"]


def lose(cluster: Cluster, kernel: Kernel, patch: pytest.MonkeyPatch) -> None:
    """The lease of the only host is over; `patch` is undone for the next seats."""
    for seat in seats_of(kernel).values():
        patch.setattr(type(seat.store.ownership()), "held", False)
    cluster.hosts[0].held = False


async def test_a_host_comes_back_in_a_new_life(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster.host() as one:
        await until(lambda: len(one.seats) == SHARDS)
        with pytest.MonkeyPatch.context() as patch:
            lose(cluster, one, patch)
            await until(lambda: not seats_of(one))
        await until(lambda: len(one.seats) == SHARDS)
        assert one.is_well()
        facts = one.health()
        assert (facts["fences_lost"], facts["stood_down"]) == (SHARDS, None)
        with pytest.MonkeyPatch.context() as patch:
            lose(cluster, one, patch)
            await until(lambda: not seats_of(one))
        await until(lambda: len(one.seats) == SHARDS)
        assert one.health()["fences_lost"] == 2 * SHARDS
    lines = [line for line in caplog.messages if "restart" in line]
    assert lines == []


async def test_a_host_without_a_seat_comes_back(cluster: Cluster) -> None:
    for disk in cluster.disks:
        disk.room.holder = object()  # another host has them all
    async with cluster.host() as one:
        cluster.hosts[0].held = False
        await until(lambda: one.health()["fences_lost"] == 1)
        await until(one.is_well)
        for disk in cluster.disks:
            disk.room.holder = None
        await until(lambda: len(one.seats) == SHARDS)
        assert one.health()["fences_lost"] == 1


async def test_a_host_waits_for_a_store_that_does_not_answer(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_: MemorySeats) -> None:
        raise DiskError(path="memory:", problem="still down")

    async with cluster.host() as one:
        await until(lambda: len(one.seats) == SHARDS)
        with pytest.MonkeyPatch.context() as patch:
            lose(cluster, one, patch)
            patch.setattr(MemorySeats, "enter", fails)
            await until(lambda: not seats_of(one) and one.health()["failing"])
            reasons = one.is_well().reasons
            assert "comes back by itself" in reasons[0]
            assert "still down" in reasons[1]
            assert not one.seats
        await until(lambda: len(one.seats) == SHARDS)
        assert one.is_well()


class Hanging(PlatformChannel):
    """Its first call ends when it may, and not when it is cancelled."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.platform, DeliveryClass.LOOKUP, settle_ms=0)
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()

    async def send(self, *how: Any) -> Accepted:
        first = not self.begun.is_set()
        self.begun.set()
        if first:
            with suppress(asyncio.CancelledError):
                await self.may_end.wait()
            await self.may_end.wait()
        return await super().send(*how)


def hangs(cluster: Cluster, channel: Hanging) -> Kernel:
    kernel = cluster.made(settings=Settings(drain_ms=50))
    kernel.attach("h", channel, on_unknown="hold")
    return kernel


async def begun(kernel: Kernel, channel: Hanging, shard: int) -> Any:
    """Its call hangs in this shard."""
    await until(lambda: len(kernel.seats) == SHARDS)
    sent = await kernel.enqueue(route(talk(shard), channel="h"), "x", key="x")
    await channel.begun.wait()
    return sent


async def test_a_host_with_a_call_that_hangs_does_not_come_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its old life would be declared dead while it sends. The call ends: it comes back."""
    channel = Hanging(cluster)
    async with hangs(cluster, channel) as one:
        sent = await begun(one, channel, 0)
        with pytest.MonkeyPatch.context() as patch:
            lose(cluster, one, patch)
            await until(lambda: not seats_of(one))
        await asyncio.sleep(0.1)
        assert one.seats == ()
        assert cluster.disks[0].room.holder is not None
        assert "have not ended; restart the process" in one.is_well().reasons[0]
        channel.may_end.set()
        await until(lambda: len(one.seats) == SHARDS)
        assert await sent.settled(5_000) is Status.DELIVERED
        assert one.is_well()
    assert [message.content for message in cluster.platform.messages] == ["x"]


async def test_a_shard_is_not_handed_over_while_its_call_hangs(
    cluster: Cluster,
) -> None:
    """The next owner would look, find nothing and send, and then the call lands."""
    channel = Hanging(cluster)
    async with hangs(cluster, channel) as one:
        await until(lambda: len(one.seats) == SHARDS)
        shard = next(iter(seats_of(one)))  # the first one that goes
        sent = await begun(one, channel, shard)
        async with hangs(cluster, channel) as two:
            await until(lambda: shard not in one.seats and len(two.seats) == 1)
            await asyncio.sleep(0.1)
            assert shard not in two.seats
            assert len(one.seats) == SHARDS // 2
            (reason,) = one.is_well().reasons
            said = "1 call(s) of channels have not ended, and its seat is kept"
            assert reason.startswith(f"shard {shard} fails: {said}")
            channel.may_end.set()
            await until(lambda: len(one.seats) == len(two.seats) == SHARDS // 2)
            assert await sent.settled(5_000) is Status.DELIVERED
            assert one.is_well()
    assert [message.content for message in cluster.platform.messages] == ["x"]


async def test_a_host_that_closes_keeps_the_shard_of_a_call_that_hangs(
    cluster: Cluster,
) -> None:
    channel = Hanging(cluster)
    async with hangs(cluster, channel) as one:
        await begun(one, channel, 0)
    async with hangs(cluster, channel) as two:
        await until(lambda: len(two.seats) == SHARDS - 1)
        await asyncio.sleep(0.1)
        assert 0 not in two.seats
        channel.may_end.set()
        await until(lambda: len(two.seats) == SHARDS)
        again = await two.enqueue(route(talk(0), channel="h"), "x", key="x")
        assert await again.settled(5_000) is Status.DELIVERED
    assert [message.content for message in cluster.platform.messages] == ["x"]
