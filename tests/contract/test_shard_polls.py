"""One look of a host answers for all its shards: what a lost ring has left is found, and
an idle shard asks its store nothing."""

import asyncio
from typing import Any

import pytest

from turnfold.errors import DiskError
from turnfold.ports.shards import Seating
from turnfold_adapters.stores.memory_disk import MemoryDoorbell
from turnfold_model.testing.gateway import driver_of, inbound, until

from .cluster import (
    SHARDS,
    Cluster,
    MemorySeats,
    balance_of,
    cluster,
    quick,
    seats_of,
    talk,
)

__all__ = ["cluster", "quick"]


@pytest.fixture
def no_bells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryDoorbell, "ring", lambda _: None)


async def _all_here(kernel: Any) -> None:
    await until(lambda: len(kernel.seats) == SHARDS)
    await until(lambda: not balance_of(kernel).moving)


async def test_an_idle_shard_asks_its_store_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster.host() as kernel:
        await _all_here(kernel)
        await asyncio.sleep(0.1)  # the first ring of each seat
        asked: list[str] = []
        for seat in seats_of(kernel).values():
            for name in ("inbox", "log"):
                monkeypatch.setattr(seat.store, name, _noted(asked, name))
        await asyncio.sleep(0.6)  # longer than two polls
        assert asked == []


def _noted(asked: list[str], name: str) -> Any:
    async def call(*_: Any) -> list[Any]:
        asked.append(name)
        return []

    return call


async def test_a_command_whose_ring_is_lost_is_found_by_the_look_of_its_host(
    cluster: Cluster, no_bells: None
) -> None:
    async with cluster.host() as worker, cluster.host(work=False) as client:
        await _all_here(worker)
        for shard in range(SHARDS):
            turn = await client.accept(inbound("1", conversation=talk(shard)))
            await turn.settled(5_000)


async def test_a_log_that_ends_behind_what_memory_knows_is_read(
    cluster: Cluster, no_bells: None
) -> None:
    """A commit of unknown outcome that was stored: no ring tells of it."""
    async with cluster.host() as kernel:
        await _all_here(kernel)
        await asyncio.sleep(0.1)
        seat, woken = seats_of(kernel)[1], list[int]()
        assert seat._worker is not None
        seat._worker.wake = lambda: woken.append(end)  # type: ignore[method-assign]
        known = driver_of(seat).book.position
        for end in (known - 1, known, known + 1):
            seat.stir(Seating(free=(), hosts=1, ends={1: end}))
        assert woken == [known + 1]


async def test_a_commit_under_way_is_no_log_that_ends_behind(
    cluster: Cluster, no_bells: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster.host() as kernel:
        await _all_here(kernel)
        await asyncio.sleep(0.1)
        seat, woken, told = seats_of(kernel)[1], list[int](), asyncio.Event()
        assert seat._worker is not None
        seat._worker.wake = lambda: woken.append(1)  # type: ignore[method-assign]
        driver, commit = driver_of(seat), seat.store.commit

        async def answers_late(writes: Any) -> Any:
            answer = await commit(writes)
            await told.wait()
            return answer

        monkeypatch.setattr(seat.store, "commit", answers_late)
        accepted = asyncio.ensure_future(
            kernel.accept(inbound("1", conversation=talk(1)))
        )
        await until(lambda: driver.group_commit.waiting_ms() is not None)
        seat.stir(Seating(free=(), hosts=1, ends={1: driver.book.position + 1}))
        assert not woken
        told.set()
        await accepted


async def test_a_shard_with_a_commit_of_unknown_outcome_asks_by_itself(
    cluster: Cluster, no_bells: None
) -> None:
    async with cluster.host() as kernel:
        await _all_here(kernel)
        await asyncio.sleep(0.1)
        journal = driver_of(seats_of(kernel)[2]).journal
        journal.cut_off()
        await until(lambda: not journal.lost)


async def test_a_shard_asks_by_itself_while_its_host_cannot_look(
    cluster: Cluster, no_bells: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any) -> Any:
        raise DiskError(path="memory:", problem="down")

    async with cluster.host() as worker, cluster.host(work=False) as client:
        await _all_here(worker)
        monkeypatch.setattr(MemorySeats, "look", fails)
        await until(lambda: not balance_of(worker).looks)
        turn = await client.accept(inbound("1", conversation=talk(3)))
        await turn.settled(5_000)
