"""Hosts of shards that have lost their lease, since the server stood still, come back by
themselves in a new life. No shard changes hands while a call of its channels hangs."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from turnfold import Kernel, Route, Settings
from turnfold.api.shard_kernel import shard_of_place
from turnfold.enums import DeliveryClass, Status
from turnfold.errors import DiskError
from turnfold_adapters.stores.postgres import PostgresStore
from turnfold_model.testing.gateway import until
from turnfold_model.testing.platform import Platform, PlatformChannel, wait_for

from .postgres import Postgres, cut_link
from .test_postgres_killed import verdicts

LEASE_MS = 1000
WAITS = f"&lease_ms={LEASE_MS}&max_pause_ms=3600000"  # nobody is taken as dead by time


@asynccontextmanager
async def locked(postgres: Postgres, table: str) -> AsyncIterator[None]:
    """A person's transaction has locked a table."""
    made = await asyncpg.connect(postgres.address().partition("&")[0])
    try:
        async with made.transaction():
            await made.execute(f"LOCK TABLE {table}")
            yield
    finally:
        await made.close()


def host(address: str, platform: Platform) -> Kernel:
    kernel = Kernel(address, settings=Settings(drain_ms=300))
    channel = PlatformChannel(platform, DeliveryClass.LOOKUP, settle_ms=0)
    kernel.attach("t", channel, on_unknown="hold")
    return kernel


def lost(kernel: Kernel) -> bool:
    return kernel.health()["stood_down"] is not None


async def test_hosts_come_back_when_the_server_has_stood_still_for_two_leases(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody restarts a process, and nothing is shown twice."""
    caplog.set_level(logging.WARNING, "turnfold")
    address = postgres.address() + WAITS + "&shards=4"
    schema = address.partition("schema=")[2].partition("&")[0]
    platform = Platform()
    async with host(address, platform) as one, host(address, platform) as two:
        await until(lambda: len(one.seats) == len(two.seats) == 2, 30)
        sent = [await enqueue(one, number) for number in range(8)]
        async with locked(postgres, f"{schema}.worker"):
            await until(lambda: lost(one) and lost(two), 30)
            await until(lambda: one.seats == two.seats == (), 30)
            for kernel in (one, two):
                assert not kernel.is_well()
                assert "comes back by itself" in kernel.is_well().reasons[0]
            sent += [await enqueue(two, number) for number in range(8, 16)]
        await until(lambda: len(one.seats) + len(two.seats) == 4, 60)
        await until(lambda: len(one.seats) == len(two.seats) == 2, 60)
        for each in sent:
            assert await each.settled(20_000) is Status.DELIVERED
        for kernel in (one, two):
            await until(kernel.is_well, 30)
            assert kernel.health()["fences_lost"] >= 1
        again = [line for line in caplog.messages if "in a new life" in line]
        assert len(again) == 2
    assert sorted(each.content for each in platform.messages) == sorted(
        f"m{number}" for number in range(16)
    )
    assert await verdicts(address) == [(0, None)] * 4
    sql = f"SELECT state, certified_by, count(*) FROM {schema}.worker GROUP BY 1, 2"
    assert [tuple(row) for row in await postgres.execute(sql)] == [
        ("dead", "itself", 4)
    ]


async def enqueue(kernel: Kernel, number: int) -> Any:
    to = Route(channel="t", conversation=str(number))
    return await kernel.enqueue(to, f"m{number}", key=f"k{number}")


async def test_a_life_whose_end_had_no_answer_is_ended_by_the_next_try(
    postgres: Postgres,
) -> None:
    """Else the others would wait for it, and it is this process that lives."""
    address = postgres.address() + WAITS + "&shards=2"
    schema = address.partition("schema=")[2].partition("&")[0]
    store = PostgresStore(address)
    await store.open()
    seats, life = store.seats(), store._shared.life
    await seats.enter()
    first = life.owner
    assert first is not None
    life.lose("a test")
    cut_link(store._shared.links[2], False, at="state = 'dead'")
    with pytest.raises(DiskError):
        await seats.enter()
    assert not seats.held
    await seats.enter()
    assert seats.held
    sql = f"SELECT id, state FROM {schema}.worker"
    states = {row["id"]: row["state"] for row in await postgres.execute(sql)}
    assert life.owner is not None
    assert states == {first.id: "dead", life.owner.id: "alive"}
    await seats.leave()
    await store.close()


def lies_in(number: int) -> int:
    return shard_of_place("t", "default", str(number), 2)


@asynccontextmanager
async def let_end(event: asyncio.Event) -> AsyncIterator[None]:
    """Else a test that fails waits for its calls."""
    try:
        yield
    finally:
        event.set()


@pytest.mark.parametrize("why", ["lease", "share", "close"])
async def test_no_shard_changes_hands_while_its_call_hangs(
    postgres: Postgres, why: str
) -> None:
    """Its call ends when it may, and not when it is cut off. The next owner would look,
    find nothing and send, and then the call lands: it was shown twice."""
    address = postgres.address() + WAITS + "&shards=2"
    schema = address.partition("schema=")[2].partition("&")[0]
    platform, may_end = Platform(), asyncio.Event()
    platform.plays(*[wait_for(may_end, deaf=True)] * 2)
    numbers = [next(n for n in range(99) if lies_in(n) == shard) for shard in (0, 1)]
    async with host(address, platform) as one, let_end(may_end):
        await until(lambda: len(one.seats) == 2, 30)
        for number in numbers:
            await enqueue(one, number)
        await until(lambda: len(platform.calls) == 2, 30)
        async with host(address, platform) as two, let_end(may_end):
            if why == "lease":
                async with locked(postgres, f"{schema}.worker"):
                    await until(lambda: lost(one) and one.seats == (), 30)
            if why == "close":
                await one.close()
            await asyncio.sleep(3 * LEASE_MS / 1000)
            assert (two.seats, len(platform.calls)) == ((), 2)
            may_end.set()
            await until(lambda: bool(two.seats), 30)
            for number in numbers:
                again = await enqueue(two, number)
                assert await again.settled(20_000) is Status.DELIVERED
    assert len(platform.messages) == 2
    assert await verdicts(address) == [(0, None)] * 2
    sql = f"SELECT DISTINCT state, certified_by FROM {schema}.worker"
    assert [tuple(row) for row in await postgres.execute(sql)] == [("dead", "itself")]


async def test_a_store_of_one_shard_is_kept_while_a_call_hangs(
    postgres: Postgres,
) -> None:
    """`close()` returns; a standby takes over when the call has ended."""
    address = postgres.address() + WAITS
    platform, may_end = Platform(), asyncio.Event()
    platform.plays(wait_for(may_end, deaf=True))
    async with host(address, platform) as one, let_end(may_end):
        await until(lambda: one.working, 30)
        await enqueue(one, 1)
        await until(lambda: len(platform.calls) == 1, 30)
        async with host(address, platform) as two, let_end(may_end):
            await one.close()
            await asyncio.sleep(3 * LEASE_MS / 1000)
            assert (one.keeps_store, two.working, len(platform.calls)) == (
                True,
                False,
                1,
            )
            may_end.set()
            await until(lambda: two.working, 30)
            again = await enqueue(two, 1)
            assert await again.settled(20_000) is Status.DELIVERED
    assert len(platform.messages) == 1
