"""A server that goes back to an earlier state while workers live, and whose connections
break while nobody uses them: so no statement ends with an unknown fate, and the next one
goes to the server that lacks commits. `specs/Lease.tla` has both plays.

The tables are put back by hand, which is quicker than a second server
(test_postgres_failover.py has one)."""

import asyncio
from collections.abc import Callable

import pytest

from turnfold import Kernel
from turnfold.errors import LostStoreError
from turnfold.messages import Route
from turnfold_adapters.stores.postgres import PostgresStore
from turnfold_model.checks.store_kit import put, whole_log
from turnfold_model.testing.platform import Platform, PlatformChannel

from .postgres import Postgres, kill
from .went_back import Standby

TO = Route(channel="t", conversation="1")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_worker_appends_nothing_to_a_log_that_lacks_what_it_stored(
    postgres: Postgres,
) -> None:
    """O10. Its seat and its token are in the older log, too."""
    platform, standby = Platform(), Standby(postgres, "b1")
    kernel = Kernel(postgres.address("b1"))
    kernel.attach("t", PlatformChannel(platform), on_unknown="hold")
    await kernel.open()
    first = await kernel.enqueue(TO, "first")
    await kernel.settled(first.entry_id, 20_000)
    await standby.falls_behind()
    second = await kernel.enqueue(TO, "second")
    await kernel.settled(second.entry_id, 20_000)
    await standby.promote()
    store = kernel.store
    assert isinstance(store, PostgresStore)
    store.drop()
    await asyncio.sleep(0)
    await kernel.enqueue(TO, "third")  # it waits in the inbox for another worker
    await until(lambda: not kernel.working)
    await kernel.enqueue(TO, "fourth", key="n")  # taken in by a client, as it is now
    assert not (await kernel.enqueue(TO, "fourth", key="n")).new
    assert not store.ownership().held
    assert platform.contents == ["first", "second"]
    copied = await postgres.execute("SELECT position FROM b1.log_copy")
    there = await postgres.execute("SELECT position FROM b1.log")
    assert len(there) == len(copied)
    await kernel.close()
    successor = Kernel(postgres.address("b1"))
    successor.attach("t", PlatformChannel(platform), on_unknown="hold")
    async with successor:
        await until(lambda: len(platform.contents) == 4)
    assert platform.contents == ["first", "second", "third", "fourth"]


async def test_a_worker_of_a_lost_take_shares_its_token_with_nobody(
    postgres: Postgres,
) -> None:
    """O1. The take went with the failover, and another host takes the same number."""
    address = postgres.address("b2")
    stores = [PostgresStore(address) for _ in range(3)]
    for store in stores:
        await store.open()
    dead, second, third = stores
    owner = await dead.ownership().take()
    assert owner is not None
    await put(dead, "entry:a")
    await second.certify(owner.id, "a test")
    standby = Standby(postgres, "b2")
    await standby.falls_behind()
    assert await second.ownership().take() is not None
    await second.load()
    await standby.promote()
    await third.certify(owner.id, "a test")
    assert await third.ownership().take() is not None
    tokens = [store.facts()["token"] for store in (second, third)]
    assert tokens == [2, 2]
    with pytest.raises(LostStoreError):
        await put(second, "entry:b")
    assert [r.stream for r in await whole_log(third)] == ["entry:a"]
    await put(third, "entry:b")
    for store in stores:
        await kill(store)
        await store.close()


async def test_nobody_waits_for_the_end_of_a_worker_that_has_stood_down(
    postgres: Postgres,
) -> None:
    """Its process lives on as a client. It renewed its lease for as long."""
    address = postgres.address("b3") + "&lease_ms=600&max_pause_ms=0"
    old, new = PostgresStore(address), PostgresStore(address)
    for store in (old, new):
        await store.open()
    assert await old.ownership().take() is not None
    await put(old, "entry:a")
    standby = Standby(postgres, "b3")
    await standby.falls_behind()
    await put(old, "entry:b")
    await standby.promote()
    with pytest.raises(LostStoreError):
        await old.load()
    async with asyncio.timeout(5):
        while await new.ownership().take() is None:
            await new.ownership().wait()
    await put(new, "entry:c")
    for store in (old, new):
        await store.close()


async def test_a_host_of_shards_takes_a_shard_again_whose_log_went_back(
    postgres: Postgres,
) -> None:
    """It keeps its lease, so nobody else could take it."""
    platform, standby = Platform(), Standby(postgres, "b4")
    kernel = Kernel(postgres.address("b4") + "&shards=2")
    kernel.attach("t", PlatformChannel(platform), on_unknown="hold")
    routes = [Route(channel="t", conversation=str(n)) for n in range(4)]

    async def told(text: str) -> None:
        for to in routes:
            await kernel.enqueue(to, text)
        await until(lambda: platform.contents.count(text) == len(routes))

    async with kernel:
        await told("first")
        await standby.falls_behind()
        await told("second")
        await standby.promote()
        await postgres.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        await told("third")
        assert kernel.health()["fences_lost"]
    assert sorted(platform.contents) == sorted(["first", "second", "third"] * 4)
