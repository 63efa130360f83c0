"""Shards of one store: logs of their own, keys in common, and seats that change hands."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner

from turnfold.api.kernel import Kernel
from turnfold.api.shard_kernel import shard_of_place
from turnfold.audit import Acceptance, Rule
from turnfold.enums import DeliveryClass, FailureClass, GateScope, Status
from turnfold.errors import (
    DiskError,
    InvalidInputError,
    KeyTakenError,
    LostStoreError,
    NotDeliveredError,
)
from turnfold.messages import Route
from turnfold.ports.store import Refused, Stored, Write
from turnfold.settings import Settings
from turnfold_adapters.stores.postgres import PostgresStore, ownership
from turnfold_adapters.stores.postgres import seats as seating
from turnfold_cli import app
from turnfold_cli.audit import Wanted, audits_of
from turnfold_cli.common import RefusedError
from turnfold_cli.head import read_heads
from turnfold_model.checks.store_kit import command, head_of, put, record, whole_log
from turnfold_model.testing.gateway import route, until
from turnfold_model.testing.platform import Platform, PlatformChannel, reject

from .postgres import Postgres, cut_link, kill


@asynccontextmanager
async def host(postgres: Postgres, schema: str) -> AsyncIterator[PostgresStore]:
    """One process on a store of four shards."""
    store = PostgresStore(postgres.address(schema) + "&shards=4")
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def handle(of: PostgresStore, shard: int) -> AsyncIterator[PostgresStore]:
    part = of.shard(shard)
    await part.open()
    try:
        yield part
    finally:
        await part.close()


async def test_each_shard_has_a_log_and_an_inbox_of_its_own(postgres: Postgres) -> None:
    async with (
        host(postgres, "h1") as store,
        handle(store, 1) as one,
        handle(store, 3) as other,
    ):
        logs = [await put(part, "store", "entry:a") for part in (one, other)]
        assert [await whole_log(part) for part in (one, other)] == logs
        assert [row.position for row in logs[1]] == [1, 2]
        await one.post([command("c1")])
        assert [c.id for c in await one.inbox()] == ["c1"]
        assert await other.inbox() == []
        assert [len((await part.load()).open) for part in (one, other)] == [2, 2]


async def test_a_key_belongs_to_one_shard(postgres: Postgres) -> None:
    async with (
        host(postgres, "h2") as store,
        handle(store, 1) as one,
        handle(store, 3) as other,
    ):
        await put(one, "entry:a")
        base = await head_of(one)
        first = Write(base=base, keys=[("k", "entry:a")])
        assert isinstance((await one.commit([first]))[0], Stored)
        await put(other, "entry:b")
        again = Write(base=await head_of(other), keys=[("k", "entry:b")])
        (answer,) = await other.commit([again])
        assert isinstance(answer, Refused)
        assert isinstance(answer.why, KeyTakenError)
        assert answer.why.stream == "entry:a"
        (posted,) = await other.post([command("c1", key="k", stream="entry:c")])
        assert (posted.stream, posted.new) == ("entry:a", False)


async def test_one_lease_answers_for_all_seats_of_a_host(postgres: Postgres) -> None:
    async with (
        host(postgres, "h3") as store,
        handle(store, 0) as one,
        handle(store, 1) as other,
    ):
        owners = [await part.ownership().take() for part in (one, other)]
        assert owners[0] == owners[1]
        rows = await postgres.execute("SELECT id FROM h3.worker")
        assert len(rows) == 1
        one.ownership().release()
        assert other.ownership().held
        assert not one.ownership().held


async def test_an_idle_host_sees_without_a_question_when_to_look(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bell, a process that is gone, a lease that is over; a seat that is freed rings."""
    async with (
        host(postgres, "h14") as left,
        host(postgres, "h14") as right,
        handle(left, 2) as old,
        handle(right, 3) as seat,
    ):
        assert await old.ownership().take()
        seats = right.seats()
        await seats.enter()
        stop = seat.doorbell().listen(lambda: None)
        sql = "SELECT FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND application_name = 'turnfold hears'"
        async with asyncio.timeout(20):
            while not await postgres.execute(sql):
                await asyncio.sleep(0.02)
        await seats.look()
        assert not seats.must_look()
        with monkeypatch.context() as patch:
            patch.setattr(ownership, "start_time", lambda _: None)
            assert seats.must_look()
        with monkeypatch.context() as patch:
            now = ownership.boot_time()
            patch.setattr(seating, "boot_time", lambda: now + 60)
            assert seats.must_look()
        assert not seats.must_look()
        old.ownership().release()
        await until(seats.must_look)
        assert 2 in (await seats.look()).free
        stop()
        await seats.leave()


async def test_a_seat_changes_hands_while_its_host_lives(postgres: Postgres) -> None:
    async with (
        host(postgres, "h4") as left,
        host(postgres, "h4") as right,
        handle(left, 2) as old,
        handle(left, 3) as kept,
        handle(right, 2) as new,
    ):
        assert await old.ownership().take()
        assert await kept.ownership().take()
        assert await new.ownership().take() is None
        records = await put(old, "entry:a")
        base = await head_of(old)
        old.ownership().release()
        await old.ownership().left()
        assert await new.ownership().take()
        write = Write(base=base, records=[record(2, "entry:b", 1)])
        assert isinstance((await new.commit([write]))[0], Stored)
        assert (await whole_log(new))[:1] == records
        assert kept.ownership().held


async def test_a_seat_whose_hand_over_was_lost_is_freed_at_the_next_look(
    postgres: Postgres,
) -> None:
    """The server is away in that moment. The host lives on, so no lease ends it."""
    async with (
        host(postgres, "h15") as first,
        host(postgres, "h15") as second,
        handle(first, 0) as kept,
        handle(first, 1) as given,
        handle(second, 1) as wanted,
    ):
        await first.seats().enter()
        for part in (kept, given):
            assert await part.ownership().take() is not None
        cut_link(first._shared.links[2], stored=False, at="freed = ")
        given.ownership().release()
        await given.ownership().left()
        assert 1 not in (await second.seats().look()).free
        await first.seats().look()
        assert 1 in (await second.seats().look()).free
        assert await wanted.ownership().take() is not None
        assert kept.ownership().held
        await first.seats().look()
        assert wanted.ownership().held
        assert 0 not in (await second.seats().look()).free
        await put(wanted, "entry:a")
        await put(kept, "entry:a")


async def test_no_statement_of_before_is_stored_after_a_hand_over(
    postgres: Postgres,
) -> None:
    """It waits inside the server while its owner frees the seat."""
    async with host(postgres, "h5") as store, handle(store, 1) as part:
        await part.ownership().take()
        seat = part.ownership().seat
        base = await head_of(part)
        part.ownership().release()
        await part.ownership().left()
        write = Write(base=base, records=[record(1, "entry:a", 1)])
        with pytest.raises(LostStoreError):
            await part._committer.store(write, seat)
        assert await whole_log(part) == []


async def unanswered(store: PostgresStore, part: PostgresStore, stored: bool) -> Any:
    """The seat that has asked for a new token, and got no answer."""
    asking = part.ownership()._seat
    cut_link(store._shared.life._link, stored, at="SET token")
    with pytest.raises(DiskError):
        await part.ownership().renew_token()
    return asking


async def test_a_seat_is_freed_though_its_new_token_had_no_answer(
    postgres: Postgres,
) -> None:
    async with host(postgres, "t1") as store, handle(store, 1) as part:
        await part.ownership().take()
        await unanswered(store, part, stored=True)
        part.ownership().release()
        await part.ownership().left()
        sql = "SELECT freed = token AS free FROM t1.shard WHERE shard = 1"
        assert [row["free"] for row in await postgres.execute(sql)] == [True]


async def test_a_new_token_that_is_asked_for_late_is_nobodys(
    postgres: Postgres,
) -> None:
    """Two statements wait somewhere; a third one is answered before they run."""
    async with host(postgres, "t2") as store, handle(store, 1) as part:
        await part.ownership().take()
        late = [await unanswered(store, part, stored=False) for _ in range(2)]
        assert await part.ownership().renew_token()
        for seat in late:
            ask = partial(ownership._next, seat=seat)
            assert await store._shared.life.asked(ask, 1) is None
        await put(part, "entry:a")


async def test_only_a_host_that_counts_as_alive_takes_a_seat(
    postgres: Postgres,
) -> None:
    async with (
        host(postgres, "h6") as store,
        handle(store, 0) as one,
        handle(store, 1) as other,
    ):
        await one.ownership().take()
        await postgres.execute("UPDATE h6.worker SET state = 'dead'")
        assert await other.ownership().take() is None
        await postgres.execute("UPDATE h6.worker SET state = 'alive'")
        sql = "UPDATE h6.worker SET lease_until = clock_timestamp() - interval '1 s'"
        await postgres.execute(sql)
        assert await other.ownership().take() is None


async def test_a_take_compares_the_token_that_it_found_free(
    postgres: Postgres,
) -> None:
    """Two find the shard free; the one that waits for the other's lock must not win."""
    async with (
        host(postgres, "h7") as left,
        host(postgres, "h7") as right,
        handle(left, 2) as one,
        handle(right, 2) as two,
    ):
        blocker = await asyncpg.connect(postgres.address("h7").partition("&")[0])
        lock = blocker.transaction()
        await lock.start()
        await blocker.execute("SELECT FROM h7.shard WHERE shard = 2 FOR UPDATE")
        takes = [asyncio.ensure_future(p.ownership().take()) for p in (one, two)]
        sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while (await postgres.execute(sql))[0][0] < 2:
            await asyncio.sleep(0.01)
        await lock.rollback()
        await blocker.close()
        taken = await asyncio.gather(*takes)
        assert sum(owner is not None for owner in taken) == 1


async def test_the_shards_of_a_dead_host_are_seen_to_be_free(
    postgres: Postgres,
) -> None:
    async with host(postgres, "h8") as left, host(postgres, "h8") as right:
        for store in (left, right):
            await store.seats().enter()
        assert await right.seats().look() == await left.seats().look()
        part = left.shard(1)
        await part.open()
        await part.ownership().take()
        seen = await right.seats().look()
        assert (tuple(seen.free), seen.hosts) == ((0, 2, 3), 2)
        await kill(left)
        await postgres.execute("UPDATE h8.worker SET pid = 99999999 WHERE pid > 0")
        sql = "UPDATE h8.worker SET started = 1, pid = $1 WHERE id = $2"
        assert right._shared.life.owner is not None
        mine = right._shared.life.owner
        await postgres.execute(sql, mine.pid, mine.id)
        seen = await right.seats().look()
        assert (tuple(seen.free), seen.hosts) == ((0, 1, 2, 3), 1)
        await part.close()


async def test_a_silent_host_is_told_of_once_beside_a_living_one(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        host(postgres, "h12") as silent,
        host(postgres, "h12") as living,
        Kernel(postgres.address("h12")) as kernel,
    ):
        for store in (silent, living):
            await store.seats().enter()
        life = silent._shared.life
        assert life.owner is not None
        assert life._renewing is not None
        life._renewing.cancel()
        sql = "UPDATE h12.worker SET lease_until = now() - interval '1 s' WHERE id = $1"
        await postgres.execute(sql, life.owner.id)
        async with asyncio.timeout(20):
            while kernel.health()["waits_for"] is None:
                await asyncio.sleep(0.02)
        for _ in range(3):
            await living.seats().look()
        own = "%s: worker %s on %s is silent"
        told = [r for r in caplog.records if str(r.msg).startswith(own)]
        assert len(told) == 2, "once by each host that waits"
        assert kernel.health()["waits_for"] == life.owner.id
        await living.certify(life.owner.id, "ann")
        async with asyncio.timeout(20):
            while kernel.health()["waits_for"] is not None:
                await asyncio.sleep(0.02)


async def test_the_number_of_shards_is_for_ever(postgres: Postgres) -> None:
    async with host(postgres, "h9") as store:
        with pytest.raises(
            InvalidInputError, match="4 shards, not 5, which cannot change: leave"
        ):
            await PostgresStore(postgres.address("h9") + "&shards=5").open()
        with pytest.raises(InvalidInputError, match="no shard 4"):
            store.shard(4)
    async with host(postgres, "h9") as store:
        assert store.shards == 4
    async with Kernel(postgres.address("h9"), work=False) as kernel:
        assert kernel.shards == 4


async def test_a_gateway_on_shards_passes_the_audit_of_every_chain(
    postgres: Postgres,
) -> None:
    address = postgres.address("h11") + "&shards=4"
    platform = Platform()
    kernel = Kernel(address)
    kernel.attach("t", PlatformChannel(platform, DeliveryClass.KEYED))
    async with kernel:
        for place in ("1", "2", "3", "4"):
            route = Route(channel="t", conversation=place)
            sent = await kernel.enqueue(route, "hello", key=place)
            assert await sent.settled(20_000) is Status.DELIVERED
        again = await kernel.enqueue(Route(channel="t", conversation="9"), "x", key="1")
        assert await again.settled(20_000) is Status.DELIVERED
    assert len(platform.messages) == 4
    head = ["head", "--json", "--store", address]
    said = await asyncio.to_thread(CliRunner().invoke, app(head), head)
    heads = read_heads(said.output.encode())
    shown = [Acceptance(m.key, m.id) for m in platform.messages]
    wanted = Wanted(marks=(heads,), witness=shown)
    reports = await asyncio.to_thread(audits_of, address, wanted)
    assert [report.passed for report in reports] == [True] * 4
    wanted = Wanted(marks=(heads[::-1],), witness=[*shown, Acceptance("k")])
    reports = await asyncio.to_thread(audits_of, address, wanted)
    assert {f.rule for r in reports for f in r.findings} >= {Rule.WRITE_AHEAD}
    assert not all(report.passed for report in reports[:3])
    with pytest.raises(RefusedError, match=r"of 3 shard\(s\) is held against 4"):
        await asyncio.to_thread(audits_of, address, Wanted(marks=(heads[:3],)))


async def test_every_shard_is_pruned_and_restored_and_has_the_same_plugin_state(
    postgres: Postgres,
) -> None:
    address = postgres.address("h13") + "&shards=4"
    platform = Platform()
    kernel = Kernel(address, settings=Settings(dedupe_ms=1))
    kernel.attach("t", PlatformChannel(platform, DeliveryClass.KEYED))
    async with kernel, Kernel(address, work=False) as client:
        sent = [await client.enqueue(sent_to(f"{n}"), "x") for n in range(8)]
        for one in sent:
            assert await one.settled(20_000) is Status.DELIVERED
        done = await client.prune(older_ms=1, by="ann", clock_is_right=True)
        assert done.streams == len(sent)
        kernel.state("p").open("n").register("a", 1)
        taken = client.state("p").open("n").consume("a")
        assert taken is not None
        assert taken.durable
        far = await kernel.enqueue(sent_to("9"), "x", not_before=2**41)
    reports = await asyncio.to_thread(audits_of, address, Wanted())
    assert [report.passed for report in reports] == [True] * 4
    async with Kernel(address, work=False) as client:
        assert not await client.declare_restored(by="ann", wait=False)
    async with Kernel(address) as again:
        with pytest.raises(NotDeliveredError):
            await again.receipt(far.entry_id, 20_000)


def sent_to(place: str) -> Route:
    return Route(channel="t", conversation=place)


async def test_no_commit_goes_into_a_transaction_that_somebody_left_open(
    postgres: Postgres,
) -> None:
    """All shards of a host share a connection. It would say `stored`, and then roll
    everything back."""
    async with host(postgres, "h10") as store, handle(store, 1) as part:
        await part.ownership().take()
        link = store._shared.write
        async with link.used() as connection:
            await connection.execute("BEGIN")
        records = await put(part, "entry:a")
        await store.seats().look()
        assert await whole_log(part) == records
        waits = asyncio.Event()

        async def cancelled() -> None:
            async with link.used() as connection, connection.transaction():
                waits.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(cancelled())
        await waits.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        records += await put(part, "entry:b")
        assert await whole_log(part) == records


async def test_a_limit_that_one_host_met_reaches_the_other(postgres: Postgres) -> None:
    """An account is refused once, and the other host is not refused at all."""
    address = postgres.address("h20") + "&shards=4"
    platform = Platform()
    async with AsyncExitStack() as hosts:
        kernels = []
        for _ in range(2):
            kernel = Kernel(address)
            kernel.attach("t", PlatformChannel(platform, DeliveryClass.KEYED))
            kernels.append(await hosts.enter_async_context(kernel))
        await until(lambda: all(len(kernel.seats) == 2 for kernel in kernels), 20.0)
        mine, other = (_talk_of(kernel) for kernel in kernels)
        wait = reject(
            FailureClass.RATE_LIMITED, retry_after_ms=2_000, scope=GateScope.ACCOUNT
        )
        platform.plays(wait, conversation=mine)
        first = await kernels[0].enqueue(route(mine), "x")
        await until(lambda: _waits(kernels[1]), 20.0)
        second = await kernels[1].enqueue(route(other), "x")
        assert len(platform.calls) == 1
        for sent in (first, second):
            assert await sent.settled(20_000) is Status.DELIVERED
        assert len(platform.calls) == 3


def _talk_of(kernel: Kernel) -> str:
    names = map(str, range(100))
    return next(
        n for n in names if shard_of_place("t", "default", n, 4) in kernel.seats
    )


def _waits(kernel: Kernel) -> bool:
    assert kernel._shards is not None
    seats = kernel._shards.balance.seats.values()
    flows = [seat._driver.flow for seat in seats if seat._driver is not None]
    return len(flows) == 2 and all("gate:t/default" in f.tried() for f in flows)
