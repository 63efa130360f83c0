"""Several hosts at work on the shards of one store, here in memory and in one loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from attrs import evolve

from turnfold import Inbound, Kernel, TurnHandle
from turnfold.api import balance
from turnfold.api.sent import Sent
from turnfold.api.shard_kernel import (
    ShardKernel,
    part_of,
    shard_of_id,
    shard_of_place,
)
from turnfold.enums import (
    DeliveryClass,
    FailureClass,
    GateScope,
    Status,
    TurnOutcome,
)
from turnfold.errors import (
    DiskError,
    NotFoundError,
    NotOpenError,
    OtherShardError,
    RuleBrokenError,
)
from turnfold.inspect import Filter, TurnView
from turnfold.ports.channel import Rate
from turnfold.ports.shards import Limit, Seating
from turnfold_adapters.stores.memory import MemoryStore
from turnfold_model.testing.gateway import driver_of, inbound, route, until
from turnfold_model.testing.platform import PlatformChannel, reject

from .cluster import (
    SHARDS,
    Cluster,
    MemorySeats,
    MemoryShards,
    Wanted,
    balance_of,
    cluster,
    quick,
    seats_of,
    talk,
)

__all__ = ["cluster", "quick"]


async def test_a_message_is_answered_in_its_shard_whichever_host_it_comes_to(
    cluster: Cluster,
) -> None:
    async with cluster.host() as one, cluster.host() as two:
        await until(lambda: len(one.seats) == len(two.seats) == 2)
        assert {*one.seats, *two.seats} == {0, 1, 2, 3}
        taken = [
            await host.accept(inbound(f"{shard}-{host is one}", talk(shard)))
            for shard in range(SHARDS)
            for host in (one, two)
        ]
        assert [shard_of_id(t.turn_id, SHARDS) for t in taken] == [
            0,
            0,
            1,
            1,
            2,
            2,
            3,
            3,
        ]
        for turn in taken:
            assert await turn.settled(5_000) is TurnOutcome.REPLIED
            for host in (one, two):
                assert await host.settled(turn.turn_id, 5_000) is TurnOutcome.REPLIED
        sent = await one.enqueue(route(talk(1)), "hello", key="k")
        assert await sent.settled(5_000) is Status.DELIVERED
        assert (await two.receipt(sent.entry_id, 5_000)).ids
    assert len(cluster.platform.messages) == 9
    assert [len(disk.log) > 0 for disk in cluster.disks] == [True] * SHARDS


async def test_seats_are_shared_out_again_when_a_host_comes_or_goes(
    cluster: Cluster,
) -> None:
    async with cluster.host() as one:
        await until(lambda: len(one.seats) == SHARDS)
        async with cluster.host() as two:
            await until(lambda: len(one.seats) == len(two.seats) == 2)
            async with cluster.host(work=False) as client:
                assert not client.working
                turn = await client.accept(inbound())
                assert await turn.settled(5_000) is TurnOutcome.REPLIED
        await until(lambda: len(one.seats) == SHARDS)
        assert one.health()["fences_lost"] == 0
        assert one.is_well()
        assert cluster.closed == 2  # by `two` and by the client, which are gone


async def test_a_host_without_a_lease_takes_no_shard(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemorySeats, "held", False)
    async with cluster.host() as one:
        await asyncio.sleep(0.1)
        assert one.seats == ()


async def test_a_host_whose_lease_is_over_is_not_well(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster.host() as one, cluster.host(work=False) as client:
        await until(lambda: len(one.seats) == SHARDS)
        assert one.health()["fences_lost"] == 0
        for seat in seats_of(one).values():
            monkeypatch.setattr(type(seat.store.ownership()), "held", False)
        monkeypatch.setattr(MemorySeats, "held", False)
        await until(lambda: not seats_of(one))
        assert one.health()["fences_lost"] == SHARDS
        assert "comes back by itself" in one.is_well().reasons[0]
        assert client.is_well()  # it has no lease
        async with cluster.host() as two:  # without a seat
            assert two.health()["fences_lost"] == 1
            assert not two.is_well()


async def test_a_host_with_nothing_to_do_asks_rarely_until_something_happens(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balance, "_IDLE", 1_000_000)
    async with cluster.host() as one:
        mine = cluster.hosts[0]
        await until(lambda: len(one.seats) == SHARDS and balance_of(one)._calm)
        looks = mine.looks
        await asyncio.sleep(0.1)
        assert mine.looks == looks
        async with cluster.host() as two:
            await asyncio.sleep(0.1)
            assert (mine.looks, two.seats) == (looks, ())
            monkeypatch.setattr(MemorySeats, "must_look", lambda _: True)
            await until(lambda: len(one.seats) == len(two.seats) == 2)


@pytest.mark.parametrize(
    "error", [DiskError(path="memory:", problem="down"), RuntimeError("odd")]
)
async def test_a_host_that_cannot_share_says_so_and_goes_on(
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    looks: list[None] = []

    async def fails(_: MemorySeats, __: Any) -> Seating:
        looks.append(None)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(MemorySeats, "look", fails)
        async with cluster.host() as one:
            await until(lambda: len(looks) > 2)
            assert str(error) in one.health()["failing"]["the balance of shards"]
            assert "the balance of shards fails" in one.is_well().reasons[0]
            patch.undo()
            await until(lambda: len(one.seats) == SHARDS)
            assert one.health()["failing"] == {}
            assert one.is_well()
    assert [str(error) in line for line in caplog.messages].count(True) == 1


async def test_a_shard_that_cannot_be_taken_is_named(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, opened = cluster.disks[2], ShardKernel.open

    async def fails(kernel: ShardKernel) -> None:
        if kernel._work and kernel._shard == 2:
            raise DiskError(path="memory:", problem="full")
        await opened(kernel)

    with monkeypatch.context() as patch:
        patch.setattr(ShardKernel, "open", fails)
        async with cluster.host() as one:
            await until(lambda: one.health()["failing"])
            await until(lambda: one.seats == (0, 1, 3))
            assert "shard 2 fails: DiskError" in one.is_well().reasons[0]
            disk.room.holder = object()  # another host has taken it
            await until(lambda: one.health()["failing"] == {})
            disk.room.holder = None
            patch.undo()
            await until(lambda: len(one.seats) == SHARDS)


async def test_a_silent_host_that_is_waited_for_is_named(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster.host(work=False) as client:
        assert client.health()["waits_for"] is None
        monkeypatch.setattr(MemoryStore, "facts", lambda _: {"waits_for": "w1"})
        assert client.health()["waits_for"] == "w1"


async def test_a_kernel_that_is_not_open_says_so(cluster: Cluster) -> None:
    kernel = Kernel(MemoryShards(cluster))

    async def check(state: str) -> None:
        with pytest.raises(NotOpenError, match=state):
            kernel.health()
        with pytest.raises(NotOpenError, match=state):
            kernel.is_well()
        with pytest.raises(NotOpenError, match=state):
            await kernel.abort("entry:1", by="ann")
        with pytest.raises(NotOpenError, match=state):
            async for _ in kernel.act_on("abort", [Wanted("entry:1")], by="ann"):
                pass

    await check("not open")
    async with kernel:
        assert kernel.is_well()
    await check("closed")


async def test_a_host_opens_and_closes_once_for_all_who_call(cluster: Cluster) -> None:
    kernel = cluster.made()
    for _ in range(2):
        await asyncio.gather(kernel.open(), kernel.open())
        assert len(cluster.hosts) == 1
        await until(lambda: len(kernel.seats) == SHARDS)
        await asyncio.gather(kernel.close(), kernel.close())
        assert cluster.hosts == []
        assert [disk.room.holder for disk in cluster.disks] == [None] * SHARDS
    assert cluster.closed == 2


async def test_a_handler_may_close_its_host(cluster: Cluster) -> None:
    """The store is closed after its run has ended, which goes on meanwhile."""
    told: list[str] = []

    async def handler(turn: TurnHandle) -> None:
        await kernel.close()
        await asyncio.sleep(0.3)  # the end of a host that does not wait takes less
        await kernel.enqueue(route(talk(2)), "to another shard", key="k")
        await turn.reply("bye")
        told.append("the run")

    kernel = cluster.made(handler)
    cluster.at_close = lambda: told.append("the store")
    await kernel.open()
    await until(lambda: len(kernel.seats) == SHARDS)
    turn = await kernel.accept(inbound("1", talk(1)))
    await until(lambda: len(told) == 2)
    assert told == ["the run", "the store"]
    await kernel.open()
    assert await kernel.settled(turn.turn_id, 5_000) is TurnOutcome.REPLIED
    await kernel.close()
    assert len(cluster.platform.messages) == 2


async def test_nothing_stays_of_an_opening_that_fails(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, entered = cluster.made(), MemorySeats.enter

    async def fails(seats: MemorySeats) -> None:
        await entered(seats)
        raise DiskError(path="memory:", problem="its answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(MemorySeats, "enter", fails)
        with pytest.raises(DiskError, match="lost"):
            await kernel.open()
    assert cluster.hosts == []
    async with kernel:
        await until(lambda: len(kernel.seats) == SHARDS)


async def test_a_shard_is_handed_over_after_its_runs_and_its_wire(
    cluster: Cluster,
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(turn: TurnHandle) -> None:
        begun.set()
        await go.wait()
        await turn.reply("done")

    async with cluster.host(slow) as one:
        await until(lambda: len(one.seats) == SHARDS)
        turns = [await one.accept(inbound(f"{n}", talk(n))) for n in range(SHARDS)]
        await begun.wait()
        async with cluster.host() as two:
            await until(lambda: len(balance_of(one).moving) == 1)
            assert len(two.seats) == 0
            go.set()
            await until(lambda: len(one.seats) == len(two.seats) == 2)
            ends = [await turn.settled(5_000) for turn in turns]
    assert ends == [TurnOutcome.REPLIED] * SHARDS
    assert [m.content for m in cluster.platform.messages] == ["done"] * SHARDS


async def test_a_handle_goes_on_when_its_shard_is_handed_over(cluster: Cluster) -> None:
    async with cluster.host() as one:
        await until(lambda: len(one.seats) == SHARDS)
        far = [
            await one.enqueue(route(talk(n)), "x", not_before=2**41) for n in range(4)
        ]
        waits = [asyncio.ensure_future(sent.settled(5_000)) for sent in far]
        async with cluster.host() as two:
            await until(lambda: len(one.seats) == len(two.seats) == 2)
            for sent in far:
                done = await two.abort(sent.entry_id, by="ann")
                assert done.aborted
            assert await asyncio.gather(*waits) == [Status.ABORTED] * SHARDS


async def test_a_reply_into_another_shard_is_refused(cluster: Cluster) -> None:
    errors: list[str] = []

    async def elsewhere(turn: TurnHandle) -> None:
        try:
            await turn.block("no", key="1", route=route(talk(2)))
        except OtherShardError as exc:
            errors.append(str(exc))
        await turn.reply("yes")

    async with cluster.host(elsewhere) as one:
        turn = await one.accept(inbound("1", talk(1)))
        assert await turn.settled(5_000) is TurnOutcome.REPLIED
    assert ["lies in shard 2, the turn in shard 1" in text for text in errors] == [True]
    assert [m.content for m in cluster.platform.messages] == ["yes"]


async def test_a_source_reads_on_one_host_for_all_shards(cluster: Cluster) -> None:
    starts: list[str | None] = []

    async def source(cursor: str | None) -> AsyncIterator[Any]:
        starts.append(cursor)
        for n in range(SHARDS) if cursor is None else ():
            yield inbound(f"{n}", talk(n)), str(n)
        await asyncio.Event().wait()

    home = shard_of_place("t", "default", "", SHARDS)
    async with cluster.host(sources=[("t", source)]) as one:
        await until(lambda: len(cluster.platform.messages) == SHARDS)
        await until(lambda: "cursor:t/default" in cluster.disks[home].streams)
        assert len(await one.inspect.list(Filter(what="turn"))) == SHARDS
    async with cluster.host(sources=[("t", source)]):
        await until(lambda: len(starts) == 2)
    assert starts == [None, str(SHARDS - 1)]


@pytest.mark.parametrize("key", ["1", None])
async def test_a_message_of_a_source_that_comes_again_is_known(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    """With a key of its own, and by the cursor that came with it: a host ends after it
    has stored the message, before the cursor moves."""
    home = shard_of_place("t", "default", "", SHARDS)

    async def source(cursor: str | None) -> AsyncIterator[Any]:
        if cursor is None:
            message: Inbound = inbound("1", talk((home + 1) % SHARDS))
            yield evolve(message, message_id=key), "1"
        await asyncio.Event().wait()

    async def full(*_: object) -> None:
        raise DiskError(path="memory:", problem="full")

    with monkeypatch.context() as patch:
        patch.setattr(ShardKernel, "advance", full)
        async with cluster.host(sources=[("t", source)]):
            await until(lambda: len(cluster.platform.messages) == 1)
    assert "cursor:t/default" not in cluster.disks[home].streams
    async with cluster.host(sources=[("t", source)]) as two:
        await until(lambda: "cursor:t/default" in cluster.disks[home].streams)
        assert len(await two.inspect.list(Filter(what="turn"))) == 1


async def test_a_source_is_behind_its_messages(cluster: Cluster) -> None:
    """While a message cannot be stored, its cursor does not move."""

    async def source(cursor: str | None) -> AsyncIterator[Any]:
        if cursor is None:
            yield inbound("1", talk((home + 1) % SHARDS)), "1"
        await asyncio.Event().wait()

    home = shard_of_place("t", "default", "", SHARDS)
    async with cluster.host(sources=[("t", source)], broken=True) as one:
        await until(lambda: home in one.seats)
        facts = seats_of(one)[home].health
        await until(lambda: facts()["sources"]["t/default"]["error"])
        assert "cursor:t/default" not in cluster.disks[home].streams


async def test_acts_find_their_shard_and_an_account_is_held_in_all(
    cluster: Cluster,
) -> None:
    async with cluster.host() as one:
        await until(lambda: len(one.seats) == SHARDS)
        await one.hold_back("t/default", by="ann")
        sent = [await one.enqueue(route(talk(n)), "x") for n in range(SHARDS)]
        await asyncio.sleep(0.05)
        assert cluster.platform.messages == []
        assert await one.let_go("t/default", by="ann") == ["gate:t/default"]
        for entry in sent:
            assert await entry.settled(5_000) is Status.DELIVERED
        await one.hold_back(f"t/default/{talk(1)}", by="ann")
        held = await one.enqueue(route(talk(1)), "y")
        short = held.entry_id.partition(":")[2]
        assert await one.discard(short, by="ann") == "aborted"
        with pytest.raises(NotFoundError):
            await one.discard("nothing", by="ann")


async def test_an_account_that_is_held_in_one_shard_is_let_go(cluster: Cluster) -> None:
    async with cluster.host() as one:
        await until(lambda: len(one.seats) == SHARDS)
        await seats_of(one)[2].hold_back("t/default", by="ann")
        assert await one.let_go("t/default", by="ann") == ["gate:t/default"]
        with pytest.raises(RuleBrokenError, match="nothing holds it back"):
            await one.let_go("t/default", by="ann")


async def test_all_shards_are_read_as_one_list_in_pages(cluster: Cluster) -> None:
    async with cluster.host() as one:
        await until(lambda: len(one.seats) == SHARDS)
        turns = [await one.accept(inbound(f"{n}", f"{n}")) for n in range(12)]
        for turn in turns:
            await turn.settled(5_000)
        inspect = one.inspect
        seen: list[str] = []
        want = Filter(what="turn", limit=5)
        while True:
            page = await inspect.page(want)
            seen += [row.id for row in page.rows]
            assert len(seen) <= len(turns)
            if page.before is None:
                break
            want = evolve(want, before=page.before)
        assert sorted(seen) == sorted(turn.turn_id for turn in turns)
        times = [
            row.created for row in await inspect.list(Filter(what="turn", limit=12))
        ]
        assert times == sorted(times, reverse=True)
        shown = await inspect.show(turns[7].turn_id)
        assert isinstance(shown, TurnView)


async def test_what_a_person_wrote_is_found_in_every_shard(cluster: Cluster) -> None:
    async with cluster.host() as one:
        await until(lambda: len(one.seats) == SHARDS)
        own = [
            await one.accept(inbound(f"{n}", talk(n), sender="7"))
            for n in range(SHARDS)
        ]
        await one.accept(inbound("9", talk(2), sender="8"))
        found = await one.inspect.of_sender("7")
        assert found.turns == tuple(turn.turn_id for turn in own)


def test_each_shard_has_its_part_of_a_rate() -> None:
    assert part_of(Rate(account=8, conversation=1), 4) == Rate(
        account=2, conversation=1
    )


async def test_a_limit_of_an_account_reaches_the_other_hosts(cluster: Cluster) -> None:
    """The host that was not refused sends nothing until the limit is over."""
    async with AsyncExitStack() as hosts:
        kernels = []
        for _ in range(2):
            kernel = Kernel(MemoryShards(cluster))
            kernel.attach("t", PlatformChannel(cluster.platform, DeliveryClass.KEYED))
            kernels.append(await hosts.enter_async_context(kernel))
        await until(lambda: all(len(seats_of(k)) == SHARDS // 2 for k in kernels))
        mine, other = (next(iter(seats_of(kernel))) for kernel in kernels)
        wait = reject(
            FailureClass.RATE_LIMITED, retry_after_ms=900, scope=GateScope.ACCOUNT
        )
        cluster.platform.plays(wait, conversation=talk(mine))
        first = await kernels[0].enqueue(route(talk(mine)), "x")
        flow = driver_of(seats_of(kernels[1])[other]).flow
        await until(lambda: "gate:t/default" in flow.tried())
        second = await kernels[1].enqueue(route(talk(other)), "x")
        await until(lambda: flow.waiting().get("gate:t/default"))
        assert len(cluster.platform.calls) == 1
        for sent in (first, second):
            assert await sent.settled(5_000) is Status.DELIVERED
        assert len(cluster.platform.calls) == 3


@pytest.mark.parametrize(
    ("since", "end", "times"),
    [(0, 40_000, 1), (9**9, 9**9 + 40_000, 1), (-500, -100, 0)],
)
async def test_a_limit_of_another_host_lasts_no_longer_than_the_platform_said(
    cluster: Cluster, since: int, end: int, times: int
) -> None:
    """The other clock may be ahead or behind. The same limit is heeded once."""
    async with Kernel(MemoryShards(cluster)) as kernel:
        await until(lambda: len(kernel.seats) == SHARDS)
        seat = seats_of(kernel)[0]
        now = seat._clock.now()
        limit = Limit("gate:t/default", now + since, now + end)
        told: list[int] = []
        seat.wait_out = lambda _, wait_ms: told.append(wait_ms)  # type: ignore[method-assign]
        for _ in range(2):
            seat.heed(limit)
        assert len(told) == times
        assert all(10_000 < wait <= 40_000 for wait in told)


@pytest.mark.parametrize("rate", [None, Rate(account=4_000)])
async def test_a_limit_of_an_account_is_told_to_all_shards_of_a_host(
    cluster: Cluster, rate: Rate | None
) -> None:
    kernel = Kernel(MemoryShards(cluster))
    channel = PlatformChannel(cluster.platform, DeliveryClass.KEYED)
    kernel.attach("t", channel, rate=rate)

    async def limited(scope: GateScope) -> Sent:
        wait = reject(FailureClass.RATE_LIMITED, retry_after_ms=400, scope=scope)
        cluster.platform.plays(wait, conversation=talk(0))
        sent = await kernel.enqueue(route(talk(0)), "x")
        await until(lambda: seats_of(kernel)[0].health()["gates"])
        return sent

    async with kernel:
        await until(lambda: len(kernel.seats) == SHARDS)
        first = await limited(GateScope.ACCOUNT)
        flows = [driver_of(part).flow for part in seats_of(kernel).values()]
        if rate is None:  # with a rate, the next moment to send is put off
            assert all("gate:t/default" in flow.tried() for flow in flows)
        others = [await kernel.enqueue(route(talk(n)), "x") for n in range(1, SHARDS)]
        await asyncio.sleep(0.05)
        assert len(cluster.platform.calls) == 1
        for sent in (first, *others):
            assert await sent.settled(5_000) is Status.DELIVERED
        assert len(cluster.platform.calls) == 1 + SHARDS
        await limited(GateScope.CONVERSATION)
        tried = [driver_of(part).flow.tried() for part in seats_of(kernel).values()]
        assert tried == [{f"gate:t/default/{talk(0)}"}, set(), set(), set()]
