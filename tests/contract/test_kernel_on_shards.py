"""All that a kernel does, on a store of several shards: here in memory and in files."""

import asyncio
import json
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from turnfold import BlockingKernel, Inbound, Kernel, Settings, TurnHandle
from turnfold._log.events import Restored
from turnfold.api import keeping
from turnfold.api.keeping import Pruning
from turnfold.api.shard_kernel import ShardKernel, shard_of_id, shard_of_place
from turnfold.audit import Acceptance, Rule, Witness, audit_archive, audit_store
from turnfold.enums import (
    DeliveryClass,
    Status,
    TurnOutcome,
)
from turnfold.errors import (
    InvalidInputError,
    NotDeliveredError,
    NotOpenError,
    OwnedError,
    RuleBrokenError,
    ShardedStoreError,
)
from turnfold.inspect import Filter
from turnfold.ports.channel import Rate
from turnfold.ports.store import Store
from turnfold_adapters.stores.archive import ArchiveStore
from turnfold_adapters.stores.memory import MemoryStore
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_adapters.telemetry import Telemetry
from turnfold_model.testing.clock import FakeClock
from turnfold_model.testing.gateway import inbound, route, until
from turnfold_model.testing.platform import PlatformChannel

from .cluster import (
    SHARDS,
    Cluster,
    MemoryShards,
    Wanted,
    balance_of,
    cluster,
    echo,
    quick,
    seats_of,
    talk,
)

__all__ = ["cluster", "quick"]
FAR = 2**41


class FileShards(MemoryShards):
    """Each shard is a file: a store that can be pruned."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        super().__init__(cluster)
        self._folder = folder

    def shard(self, number: int) -> Any:
        return SqliteStore(self._folder / f"{number}.db")


async def all_seats(kernel: Kernel) -> None:
    await until(lambda: len(kernel.seats) == SHARDS)


async def answered(kernel: Kernel, *, per_shard: int = 1) -> list[str]:
    """Turns in every shard, each with a delivered reply."""
    taken = [
        await kernel.accept(inbound(f"{n}.{shard}", talk(shard)))
        for n in range(per_shard)
        for shard in range(SHARDS)
    ]
    for turn in taken:
        assert await turn.settled(5_000) is TurnOutcome.REPLIED
    await kernel.at_rest(5_000)
    return [turn.turn_id for turn in taken]


# --- one class for every store ---------------------------------------------------------


async def test_a_handler_sends_to_a_conversation_of_any_shard(cluster: Cluster) -> None:
    """`turn.kernel` is the kernel of the gateway, not that of the turn's shard."""
    sent: list[str] = []

    async def tells_another(turn: TurnHandle) -> str:
        assert turn.kernel is kernel
        told = await turn.kernel.enqueue(route(talk(2)), "a person waits for you")
        sent.append(told.entry_id)
        return "I have told them"

    kernel = cluster.made(tells_another)
    async with kernel:
        await all_seats(kernel)
        turn = await kernel.accept(inbound("1", talk(1)))
        assert await turn.settled(5_000) is TurnOutcome.REPLIED
        await kernel.settled(sent[0], 5_000)
    assert shard_of_id(sent[0], SHARDS) == 2


async def test_a_kernel_says_how_many_shards_it_has_and_which_are_here(
    cluster: Cluster,
) -> None:
    kernel = cluster.made()
    with pytest.raises(NotOpenError, match="not open"):
        assert kernel.shards
    assert kernel.seats == ()
    async with kernel:
        await all_seats(kernel)
        assert (kernel.shards, kernel.seats) == (SHARDS, (0, 1, 2, 3))
        assert kernel.health()["state"] == "open"
    assert kernel.seats == ()
    async with Kernel(MemoryStore()) as single:
        assert (single.shards, single.seats) == (1, (0,))
    async with Kernel(MemoryStore(), work=False) as client:
        assert client.seats == ()


async def test_what_needs_one_log_is_refused_with_the_way_out(cluster: Cluster) -> None:
    async with cluster.host() as one:
        with pytest.raises(ShardedStoreError, match=r"kernel\.look works on one"):
            await one.look(lambda draft: draft)
        with pytest.raises(ShardedStoreError, match=r"kernel\.inspect"):
            one.append(lambda draft: draft)
    with pytest.raises(InvalidInputError, match="each of the 4 shards has its own"):
        await Kernel(MemoryShards(cluster), clock=FakeClock()).open()


async def test_another_thread_calls_through_the_portal(cluster: Cluster) -> None:
    async with cluster.host() as one:
        portal = one.portal()
        call = portal.call, one.enqueue, route(talk(2)), "from a thread"
        sent = await asyncio.to_thread(*call)
        assert await sent.settled(5_000) is Status.DELIVERED


def test_a_blocking_kernel_works_on_all_shards(cluster: Cluster) -> None:
    kernel = cluster.made()
    with BlockingKernel(kernel) as blocking:
        turns = [blocking.accept(inbound(f"{n}", talk(n))) for n in range(SHARDS)]
        assert [t.settled(5_000) for t in turns] == [TurnOutcome.REPLIED] * SHARDS
        sent = blocking.enqueue(route(talk(1)), "x", key="k")
        assert blocking.settled(sent.entry_id, 5_000) is Status.DELIVERED
        assert blocking.ask(lambda k: k.working)
    assert threading.active_count() >= 1
    assert cluster.hosts == []


# --- attached while it is open ---------------------------------------------------------


async def test_a_channel_that_is_attached_later_sends_what_waits_in_every_shard(
    cluster: Cluster,
) -> None:
    late = PlatformChannel(cluster.platform, DeliveryClass.KEYED)
    async with cluster.host() as one, cluster.host() as two:
        await until(lambda: len(one.seats) == len(two.seats) == 2)
        places = [evolve(route(f"{n}"), channel="late") for n in range(8)]
        waits = [await one.enqueue(place, "x") for place in places]
        for host in (one, two):
            host.attach("late", late, rate=Rate(account=1_000), max_entry_age_ms=FAR)
            with pytest.raises(InvalidInputError, match="attached already"):
                host.attach("late", late)
        for sent in waits:
            assert await sent.settled(5_000) is Status.DELIVERED
        part = seats_of(one)[one.seats[0]]
        assert part._rates["gate:late/default"] == Rate(account=1_000 / SHARDS)
        assert part._views["late", "default"].max_age_ms == FAR


async def test_what_is_attached_while_a_seat_is_taken_is_not_missed(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, go = ShardKernel.open, asyncio.Event()

    async def slow(part: ShardKernel) -> None:
        if part._work:
            await go.wait()
        await opened(part)

    monkeypatch.setattr(ShardKernel, "open", slow)
    kernel, starts = Kernel(MemoryShards(cluster)), []

    async def source(_: str | None) -> AsyncIterator[tuple[Inbound, str]]:
        starts.append("t")
        yield inbound("1", talk(2)), "1"
        await asyncio.Event().wait()

    async with kernel:
        await until(lambda: len(balance_of(kernel).coming) == SHARDS)
        kernel.attach("t", PlatformChannel(cluster.platform, DeliveryClass.KEYED))
        kernel.on_turn(echo)
        kernel.source("t", source)
        go.set()
        await until(lambda: len(cluster.platform.messages) == 1)
        await answered(kernel)
    assert starts == ["t"]


async def test_a_handler_that_is_registered_later_runs_what_waits(
    cluster: Cluster,
) -> None:
    kernel = Kernel(MemoryShards(cluster))
    kernel.attach("t", PlatformChannel(cluster.platform, DeliveryClass.KEYED))
    async with kernel:
        await all_seats(kernel)
        kernel.on_turn(echo)
        await answered(kernel)
        with pytest.raises(InvalidInputError, match="a handler is registered already"):
            kernel.on_turn(echo)


async def test_a_source_that_is_added_later_runs_where_its_shard_is(
    cluster: Cluster,
) -> None:
    starts: list[str] = []

    def source(name: str) -> Any:
        async def stream(_: str | None) -> AsyncIterator[tuple[Inbound, str]]:
            starts.append(name)
            yield inbound("1", talk(2)), "1"
            await asyncio.Event().wait()

        return stream

    async with cluster.host() as one, cluster.host() as two:
        await until(lambda: len(one.seats) == len(two.seats) == 2)
        one.source("t", source("one"))
        two.source("t", source("two"))
        with pytest.raises(InvalidInputError, match="a source t/default already"):
            one.source("t", source("again"))
        await until(lambda: len(cluster.platform.messages) == 1)
        home = shard_of_place("t", "default", "", SHARDS)
        assert starts == ["one" if home in one.seats else "two"]


# --- acts ------------------------------------------------------------------------------


async def test_a_lane_is_stopped_in_its_shard(cluster: Cluster) -> None:
    begun = asyncio.Event()

    async def slow(_: TurnHandle) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with cluster.host(slow) as one, cluster.host(work=False) as client:
        await all_seats(one)
        turns = [await one.accept(inbound(n, talk(1))) for n in ("a", "b")]
        other = await one.accept(inbound("c", talk(2)))
        await begun.wait()
        done = await client.abort_lane(route(talk(1)), by="ann")
        assert sorted(done.stopped) == sorted(turn.turn_id for turn in turns)
        (row,) = await one.inspect.rows((other.turn_id,))
        assert row.status == "running"
        await one.abort(other.turn_id, by="ann")


async def test_many_acts_are_done_in_their_shards_and_told_in_order(
    cluster: Cluster,
) -> None:
    async with cluster.host() as one, cluster.host(work=False) as client:
        await all_seats(one)
        waits = [
            await one.enqueue(route(talk(n % SHARDS)), "x", not_before=FAR)
            for n in range(8)
        ]
        want = [sent.entry_id for sent in waits]
        acted = client.act_on("abort", [Wanted(name) for name in want], by="ann")
        told = [one async for one in acted]
        assert [one.id for one in told] == want
        assert [one.done for one in told] == ["aborted"] * 8


async def test_an_answer_that_comes_later_finds_its_turn(cluster: Cluster) -> None:
    left = asyncio.Semaphore(0)

    async def later(turn: TurnHandle) -> None:
        await turn.later(within_ms=60_000)
        left.release()

    async with cluster.host(later) as one, cluster.host(work=False) as client:
        await all_seats(one)
        for shard, host in ((1, one), (2, client)):
            turn = await one.accept(inbound(f"{shard}", talk(shard)))
            await left.acquire()
            sent = await host.answer(turn.turn_id, "at last")
            assert await sent.settled(5_000) is Status.DELIVERED
            assert await turn.settled(5_000) is TurnOutcome.REPLIED


async def test_a_copy_is_declared_in_every_shard(cluster: Cluster) -> None:
    async with cluster.host(work=False) as client:
        sent = [await client.enqueue(route(talk(n)), "x") for n in range(SHARDS)]
        assert await client.taken_up()
        assert await client.declare_restored(by="ann", wait=False) is False
    async with cluster.host() as one:
        await all_seats(one)
        for entry in sent:
            with pytest.raises(NotDeliveredError, match="parked"):
                await one.receipt(entry.entry_id, 5_000)
        assert cluster.platform.messages == []
        assert await one.declare_restored(by="ann")


async def test_an_account_that_is_off_waits_in_every_shard(cluster: Cluster) -> None:
    async with cluster.host() as one:
        await all_seats(one)
        await one.disconnected("t")
        sent = [await one.enqueue(route(talk(n)), "x") for n in range(SHARDS)]
        await asyncio.sleep(0.05)
        assert cluster.platform.messages == []
        await one.connected("t", by="ann")
        for entry in sent:
            assert await entry.settled(5_000) is Status.DELIVERED


# --- rest, and the end -----------------------------------------------------------------


async def test_at_rest_waits_for_every_shard(cluster: Cluster) -> None:
    async with cluster.host() as one:
        await one.enqueue(route(talk(3)), "x")
        await one.at_rest(5_000)
        assert len(cluster.platform.messages) == 1
        await one.enqueue(route(talk(3)), "x", not_before=FAR)
        with pytest.raises(TimeoutError):
            await one.at_rest(50)
        async with cluster.host() as two:
            await until(lambda: len(one.seats) == len(two.seats) == 2)
            with pytest.raises(OwnedError, match="hosts that have shards"):
                await one.at_rest(5_000)
        async with cluster.host(work=False) as client:
            with pytest.raises(OwnedError):
                await client.at_rest(5_000)


async def test_a_host_that_drains_keeps_its_seats_and_sends_nothing_new(
    cluster: Cluster,
) -> None:
    async with cluster.host() as one:
        await all_seats(one)
        await one.drain(1_000)
        sent = [await one.enqueue(route(talk(n)), "x") for n in range(SHARDS)]
        looks = cluster.hosts[0].looks
        async with cluster.host() as two:
            await until(lambda: cluster.hosts[1].looks > 10)
            assert cluster.hosts[0].looks == looks
            assert (len(one.seats), two.seats) == (SHARDS, ())
            assert cluster.platform.messages == []
            await one.close()
            for entry in sent:
                assert await two.settled(entry.entry_id, 5_000) is Status.DELIVERED


async def test_a_host_runs_until_a_signal_and_gives_its_seats_back(
    cluster: Cluster,
) -> None:
    kernel = cluster.made()
    task = asyncio.create_task(kernel.run())
    await all_seats(kernel)
    signal.raise_signal(signal.SIGTERM)
    await task
    assert cluster.hosts == []
    assert [disk.room.holder for disk in cluster.disks] == [None] * SHARDS


async def test_each_shard_finds_out_that_it_is_an_older_copy(
    cluster: Cluster, tmp_path: Path
) -> None:
    copies = [tmp_path / f"{shard}.db" for shard in range(SHARDS)]
    told: list[Restored] = []

    async def live() -> None:
        kernel = cluster.made(store=FileShards(cluster, tmp_path))
        kernel.hooks.on_restored(told.append)
        async with kernel:
            await all_seats(kernel)
            for shard in range(SHARDS):
                await kernel.enqueue(route(talk(shard)), "x", not_before=FAR)

    await live()
    older = [path.read_bytes() for path in copies]
    await live()
    assert told == []
    for path, data in zip(copies, older, strict=True):
        path.write_bytes(data)
    await live()
    assert len({event.hash for event in told}) == SHARDS


# --- keeping it small ------------------------------------------------------------------


async def test_every_shard_is_pruned_and_passes_the_audit(
    cluster: Cluster, tmp_path: Path
) -> None:
    kernel = cluster.made(store=FileShards(cluster, tmp_path))
    told: list[Pruning] = []
    async with kernel:
        await all_seats(kernel)
        turns = await answered(kernel, per_shard=2)
        kept = await kernel.enqueue(route(talk(1)), "x", not_before=FAR)
        await asyncio.sleep(0.01)
        wish: dict[str, Any] = {"older_ms": 1, "by": "ann", "clock_is_right": True}
        done = await kernel.prune(**wish, batch=3, tell=told.append)
        assert done.streams == 0, "their keys are kept for dedupe_ms"
        assert sum(done.left.values()) == len(turns)
        assert [sum(one.left.values()) for one in told] == [3, 6, 8]
    kernel = cluster.made(
        store=FileShards(cluster, tmp_path), settings=Settings(dedupe_ms=1)
    )
    async with kernel:
        await all_seats(kernel)
        done = await kernel.prune(**wish)
        assert done.streams == 2 * len(turns)
        assert not await kernel.inspect.list(Filter(what="turn"))
        assert (await kernel.inspect.show(kept.entry_id)).id == kept.entry_id
    for shard in range(SHARDS):
        assert (await audit_store(await opened(tmp_path, shard))).passed


async def opened(folder: Path, shard: int) -> Store:
    store = SqliteStore(folder / f"{shard}.db")
    await store.open(read_only=True)
    return store


async def test_the_settings_prune_every_shard(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_FIRST_S", 0.1)
    monkeypatch.setattr(keeping, "_EVERY_S", 0.1)
    settings = Settings(dedupe_ms=1, prune_after_ms=1)
    kernel = cluster.made(store=FileShards(cluster, tmp_path), settings=settings)
    async with kernel:
        await all_seats(kernel)
        for shard in range(SHARDS):
            await kernel.enqueue(route(talk(shard)), "x")
        for shard in range(SHARDS):
            maintenance = seats_of(kernel)[shard].store.maintenance
            assert isinstance(maintenance, keeping.Keeping)
            async with asyncio.timeout(10):
                while not await maintenance.pruned():
                    await asyncio.sleep(0.01)


async def test_each_shard_is_archived_in_files_of_its_own(
    cluster: Cluster, tmp_path: Path
) -> None:
    settings = Settings(dedupe_ms=1)
    kernel = cluster.made(store=FileShards(cluster, tmp_path), settings=settings)
    folder = tmp_path / "archive"
    folder.mkdir()
    told: list[int] = []
    async with kernel:
        await all_seats(kernel)
        turns = await answered(kernel)
        await asyncio.sleep(0.01)
        done = await kernel.archive(
            folder,
            older_ms=1,
            by="ann",
            clock_is_right=True,
            tell=lambda now: told.append(now.groups),
        )
        assert (done.groups, done.pruned.streams) == (SHARDS, 2 * SHARDS)
        assert (len(done.files), told[-1]) == (SHARDS, SHARDS)
        for path in done.files:
            archive = ArchiveStore(path)
            await archive.open(read_only=True)
            (name,) = archive.manifest.groups
            turns.remove(name)
            of = seats_of(kernel)[shard_of_id(name, SHARDS)].store
            assert (await audit_archive(archive, of=of)).passed
    assert turns == []


async def test_a_queue_of_another_gateway_comes_into_its_shards(
    cluster: Cluster, tmp_path: Path
) -> None:
    names = [f"d{n}" for n in range(8)]
    for name in names:
        fields = {"id": name, "channel": "t", "to": name, "payloads": [{"text": name}]}
        (tmp_path / f"{name}.json").write_text(json.dumps(fields))
    kernel = cluster.made(import_from=tmp_path)
    async with kernel:
        await all_seats(kernel)
        found = await kernel.inspect.list(Filter(what="entry", limit=20))
        assert {row.conversation for row in found} == {*names}
        for row in found:
            assert shard_of_id(row.id, SHARDS) == shard_of_place(
                "t", "default", row.conversation, SHARDS
            )
        done = await kernel.import_queue(tmp_path)
        assert (done.found, done.moved) == (0, 0)
    assert len([*(tmp_path / "imported").iterdir()]) == len(names)


async def test_what_is_erased_is_said_by_the_worker_of_its_shard(
    cluster: Cluster,
) -> None:
    async with cluster.host() as one, cluster.host(work=False) as client:
        await all_seats(one)
        turns = await answered(one)
        assert await one.redact(turns[0].partition(":")[2], by="ann")
        assert await client.redact(turns[1], by="ann") is False
        wanted = [Wanted(turn) for turn in turns[2:]]
        told = [acted async for acted in one.act_on("redact", wanted, by="ann")]
        assert [acted.error for acted in told] == [None, None]
        with pytest.raises(RuleBrokenError):
            await one.retry(turns[0], by="ann")


async def test_plugin_state_is_of_the_whole_store(cluster: Cluster) -> None:
    async with cluster.host() as one:
        asked = one.state("p").open("asked")
        asked.register("a", 1)
        assert one.state("p").open("asked").lookup("a") == 1
        assert one.health()["plugin_state"]["failing"] is None


# --- what is measured and proven -------------------------------------------------------


async def test_the_list_of_a_platform_is_held_against_all_shards(
    cluster: Cluster,
) -> None:
    async with cluster.host() as one:
        await all_seats(one)
        await answered(one)
    shown = [Acceptance(m.key, m.id) for m in cluster.platform.messages if m.key]
    assert len(shown) == SHARDS

    async def rules(witness: list[Acceptance]) -> list[list[Rule]]:
        joint = Witness(witness, logs=SHARDS)
        found = []
        for disk in cluster.disks:
            store = MemoryStore(disk)
            await store.open(read_only=True)
            report = await audit_store(store, witness=joint)
            found.append([finding.rule for finding in report.findings])
        return found

    assert await rules(shown) == [[]] * SHARDS
    assert await rules([*shown, Acceptance("k")]) == [[], [], [], [Rule.WRITE_AHEAD]]
    assert await rules([*shown, shown[0]]) == [[], [], [], [Rule.NO_DOUBLE]]
    lost = await rules(shown[1:])
    assert [rule for some in lost for rule in some] == [Rule.NO_LOSS]


async def test_every_shard_is_measured_by_the_host_that_has_it(
    cluster: Cluster,
) -> None:
    meters = [InMemoryMetricReader() for _ in range(2)]
    async with cluster.host() as one, cluster.host() as two:
        await until(lambda: len(one.seats) == len(two.seats) == 2)
        hosts = [
            Telemetry(host, meter_provider=MeterProvider([meter]))
            for host, meter in zip((one, two), meters, strict=True)
        ]
        for telemetry in hosts:
            await telemetry.read()
        for shard in range(SHARDS):
            turn = await one.accept(inbound(f"{shard}", talk(shard)))
            await turn.settled(5_000)
        await one.enqueue(route(talk(0)), "x", not_before=FAR)
        await one.enqueue(route(talk(1)), "x", not_before=FAR)
        await one.taken_up()
        for telemetry in hosts:
            await telemetry.read()
    assert [measured(m, "turnfold.inbound") for m in meters] == [2, 2]
    assert sum(measured(m, "turnfold.open_entries") for m in meters) == 2


def measured(meter: InMemoryMetricReader, name: str) -> float:
    data = meter.get_metrics_data()
    assert data is not None
    return sum(
        getattr(point, "value", 0)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    )
