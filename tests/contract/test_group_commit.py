"""Group commits: appends of one tick share one, and nobody learns of anything before it."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from turnfold import Kernel
from turnfold._decide import gates
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold.enums import Flush, Phase
from turnfold.errors import (
    BusyError,
    DiskError,
    NotFoundError,
    NotOpenError,
    RuleBrokenError,
    StoreError,
)
from turnfold.ports.store import Listing, Refused, Store, Stored, Write
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.testing.faulty_store import FaultyStore
from turnfold_model.testing.gateway import (
    Gateway,
    driver_of,
    entry,
    in_file,
    inbound,
    peek,
    route,
    spin,
    until,
)
from turnfold_model.testing.platform import wait_for

from .slow_disk import SLOW_S, SlowDisk, stalls


class Held:
    """A store whose commits wait until the test lets them go on: before the store has
    them, or `stored` and not told yet."""

    def __init__(self, store: Store, *, stored: bool = False) -> None:
        self._store, self._stored = store, stored
        self.go = asyncio.Event()
        self.go.set()
        self.begun = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def hold(self) -> None:
        self.go.clear()
        self.begun = 0

    async def commit(self, writes: Sequence[Write]) -> Sequence[Stored | Refused]:
        answers = await self._store.commit(writes) if self._stored else None
        self.begun += 1
        await self.go.wait()
        return await self._store.commit(writes) if answers is None else answers


@pytest.fixture
async def threaded(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway whose commits are made in a thread."""
    made = Gateway(store=in_file(tmp_path / "g.db", Flush.THREAD))
    yield made
    await made.end()


async def _held(gateway: Gateway, *, stored: bool = False) -> tuple[Kernel, Held]:
    """A kernel at rest, whose next commits wait."""
    found: list[Held] = []

    def wrap(store: Store) -> Any:
        found.append(Held(store, stored=stored))
        return found[0]

    kernel = await gateway.start(wrap=wrap)
    await spin()
    found[0].hold()
    return kernel, found[0]


# --- the loop ------------------------------------------------------------------------


@pytest.fixture
def disk() -> Iterator[SlowDisk]:
    disk = SlowDisk()
    yield disk
    disk.unregister()


@pytest.mark.case("A06")
async def test_the_loop_of_a_gateway_never_waits_for_the_disk(
    disk: SlowDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that accepts, answers, sends and keeps its store up, and a client that
    posts, on a disk where a sync takes 200 ms: the loop stands still for less than 20.
    """
    monkeypatch.setattr("turnfold._runtime.worker.IDLE_S", 0.1)
    monkeypatch.setattr("turnfold._runtime.worker.MARK_S", 0.1)

    def store() -> Store:
        return SqliteStore(tmp_path / "g.db", vfs="slow", flush=Flush.THREAD)

    async def answer(handle: Any) -> None:
        await handle.reply(f"re: {handle.inbound.text}")

    gateway = Gateway(store=store, handler=answer)
    kernel = await gateway.start()
    client = await gateway.start(work=False)
    disk.sync_s, number = SLOW_S, 0

    async def messages() -> None:
        nonlocal number
        number += 1
        mine, theirs = inbound(f"a{number}", "1"), inbound(f"b{number}", "2")
        accepted = [await kernel.accept(mine), await client.accept(theirs)]
        sent = await client.enqueue(route("3"), "text", key=f"k{number}")
        await asyncio.gather(*[turn.settled(20_000) for turn in accepted])
        await client.settled(sent.entry_id, 20_000)
        await client.redact(sent.entry_id, by="me")
        await asyncio.sleep(0.5)  # idle: the checkpoint, the mark

    over_s = await stalls(messages)
    disk.sync_s = 0
    assert min(over_s) < 0.02, over_s
    assert "MainThread" not in disk.syncs
    assert len(disk.syncs) > 10
    assert kernel.health()["flush"] == "thread"
    assert len(gateway.platform.messages) == 3 * number
    await gateway.end()


# --- one commit for many -------------------------------------------------------------


async def test_the_appends_of_one_tick_make_one_commit(gateway: Gateway) -> None:
    kernel, held = await _held(gateway)
    held.go.set()
    many = [kernel.accept(inbound(str(n), str(n))) for n in range(30)]
    turns = await asyncio.gather(*many)
    assert all(turn.new for turn in turns)
    assert held.begun == 1
    assert peek(kernel).head.position == 1 + 30


async def test_appends_that_come_meanwhile_make_the_next_commit(
    gateway: Gateway,
) -> None:
    kernel, held = await _held(gateway)
    first = asyncio.ensure_future(kernel.accept(inbound("1")))
    await until(lambda: held.begun)
    others = [
        asyncio.ensure_future(kernel.accept(inbound(str(n), str(n))))
        for n in range(2, 30)
    ]
    await asyncio.sleep(0.01)
    assert held.begun == 1
    held.go.set()
    await asyncio.gather(first, *others)
    assert held.begun == 2


@pytest.mark.parametrize("stored", [False, True])
async def test_nothing_moves_before_the_commit_is_made(
    gateway: Gateway, stored: bool
) -> None:
    """And none of the callers is told, though the store may have it already."""
    kernel, held = await _held(gateway, stored=stored)
    pending = asyncio.ensure_future(kernel.enqueue(route(), "x"))
    await until(lambda: held.begun)
    await asyncio.sleep(0.02)
    assert not pending.done()
    assert not gateway.platform.calls
    assert driver_of(kernel).book.open_count == 0
    held.go.set()
    name = (await pending).entry_id
    await kernel.settled(name, 5_000)
    assert gateway.platform.contents == ["x"]


async def test_a_decision_that_is_refused_leaves_its_neighbours_alone(
    gateway: Gateway,
) -> None:
    kernel, held = await _held(gateway)
    held.go.set()
    results = await asyncio.gather(
        kernel.enqueue(route("1"), "one"),
        kernel.abort("entry:unknown"),
        kernel.enqueue(route("2"), "two"),
        kernel.append(_emits_and_fails),
        return_exceptions=True,
    )
    assert [type(r).__name__ for r in results] == [
        "Sent",
        "NotFoundError",
        "Sent",
        "RuleBrokenError",
    ]
    assert isinstance(results[1], NotFoundError)
    for done in (results[0], results[2]):
        await kernel.settled(done.entry_id, 5_000)  # type: ignore[union-attr]
    assert peek(kernel).state("gate:t/default") is None


def _gates(draft: UnitOfWork, account: str) -> str:
    """A decision that writes one event."""
    gates.disconnected(draft, channel="t", account=account)
    return account


def _emits_and_fails(draft: UnitOfWork) -> None:
    _gates(draft, "default")
    raise RuleBrokenError(stream="gate:t/default", rule="injected", why="a test")


# --- a commit that fails -------------------------------------------------------------


@pytest.mark.case("Q02")
@pytest.mark.parametrize(("fault", "error"), [("full", DiskError), ("busy", BusyError)])
async def test_a_commit_that_surely_failed_is_its_callers_error(
    threaded: Gateway, fault: str, error: type[StoreError]
) -> None:
    kernel = await threaded.start(wrap=FaultyStore)
    kernel.store.fails(fault)  # type: ignore[attr-defined]
    with pytest.raises(error):
        await kernel.accept(inbound("1"))
    assert peek(kernel).head.position == 1
    turn = await kernel.accept(inbound("1"))
    again = await kernel.accept(inbound("1"))
    assert turn.new
    assert turn.turn_id == again.turn_id


@pytest.mark.case("Q02")
@pytest.mark.parametrize("fault", ["lost", "landed"])
async def test_a_commit_of_unknown_fate_is_read_and_decided_again(
    threaded: Gateway, fault: str
) -> None:
    kernel = await threaded.start(wrap=FaultyStore)
    kernel.store.fails(fault)  # type: ignore[attr-defined]
    turn = await kernel.accept(inbound("1"))
    again = await kernel.accept(inbound("1"))
    assert turn.new
    assert not again.new
    assert turn.turn_id == again.turn_id
    assert peek(kernel).names().count("turn.accepted") == 1
    kernel.store.fails(fault)  # type: ignore[attr-defined]
    sent = await kernel.enqueue(route(), "x")
    await kernel.settled(sent.entry_id, 5_000)
    assert threaded.platform.contents == ["x"]


@pytest.mark.case("F08")
async def test_a_commit_of_unknown_fate_that_nobody_repeats_is_found_by_the_poll(
    threaded: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stored, the store could not be opened anew, and its caller has gone. The
    probe of a store that refuses appends would find it, too, later."""
    monkeypatch.setattr("turnfold._runtime.group_commit.PROBE_S", 3_600)
    kernel = await threaded.start(wrap=FaultyStore)
    kernel.store.fails("landed")  # type: ignore[attr-defined]
    kernel.store.unopenable = 1  # type: ignore[attr-defined]
    with pytest.raises(DiskError):
        await kernel.enqueue(route(), "x")
    await until(lambda: threaded.platform.contents == ["x"])


# --- callers that go away ------------------------------------------------------------


async def test_a_cancelled_caller_does_not_cancel_its_append(threaded: Gateway) -> None:
    """Neither while its commit is made nor while it waits for the next one."""
    kernel, held = await _held(threaded)
    first = asyncio.ensure_future(kernel.accept(inbound("1", "1")))
    await until(lambda: held.begun)
    second = asyncio.ensure_future(kernel.accept(inbound("2", "2")))
    await asyncio.sleep(0.01)
    for caller in (first, second):
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
    held.go.set()
    for number in ("1", "2"):
        assert not (await kernel.accept(inbound(number, number))).new


async def test_callers_learn_their_results_though_the_consequences_break(
    threaded: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = await threaded.start()
    group_commit = driver_of(kernel).group_commit

    def breaks(_: Any) -> None:
        raise ZeroDivisionError

    follows, group_commit._stored = group_commit._stored, breaks
    turn = await kernel.accept(inbound())
    group_commit._stored = follows
    assert turn.new
    assert "the commit is stored" in caplog.text
    assert not (await kernel.accept(inbound())).new


# --- the end -------------------------------------------------------------------------


async def test_closing_waits_for_the_commit_under_way(threaded: Gateway) -> None:
    kernel, held = await _held(threaded)
    pending = asyncio.ensure_future(kernel.accept(inbound("1")))
    await until(lambda: held.begun)
    closing = asyncio.ensure_future(threaded.end())
    await asyncio.sleep(0.05)
    assert not closing.done()
    held.go.set()
    await closing
    turn = (await pending).turn_id
    with pytest.raises(NotOpenError):
        await kernel.accept(inbound("2"))
    other = await threaded.start(work=False)
    assert peek(other).state(turn) is not None


@pytest.mark.case("A06")
async def test_a_drain_waits_for_an_outcome_that_no_task_waits_for(
    gateway: Gateway,
) -> None:
    kernel, held = await _held(gateway)
    held.go.set()
    answer = asyncio.Event()
    gateway.platform.plays(wait_for(answer))
    done = await kernel.enqueue(route(), "x")
    await until(lambda: gateway.platform.calls)
    held.hold()
    answer.set()
    await until(lambda: held.begun)
    driver = driver_of(kernel)
    driver.mend()
    assert list(driver.live.values()) == [None]
    draining = asyncio.ensure_future(kernel.drain(5_000))
    await asyncio.sleep(0.02)
    assert not draining.done()
    held.go.set()
    await draining
    assert entry(kernel, done.entry_id).phase is Phase.DELIVERED


async def test_a_closed_queue_refuses_everything(threaded: Gateway) -> None:
    kernel, held = await _held(threaded)
    group_commit = driver_of(kernel).group_commit
    under_way = group_commit.submit(partial(_gates, account="a"))
    await until(lambda: held.begun)
    queued = group_commit.submit(partial(_gates, account="b"))
    closing = asyncio.ensure_future(group_commit.close())
    await asyncio.sleep(0)
    with pytest.raises(NotOpenError):
        await queued
    with pytest.raises(NotOpenError):
        await group_commit.submit(partial(_gates, account="c"))
    await asyncio.sleep(0.05)
    assert not closing.done()  # it waits for the commit under way
    held.go.set()
    await closing
    assert await under_way == "a"
    gates = peek(kernel).list(Listing(prefix="gate:"))
    assert [row.stream for row in gates] == ["gate:t/a"]


async def test_a_crash_tells_nobody(threaded: Gateway) -> None:
    kernel, held = await _held(threaded)
    pending = asyncio.ensure_future(kernel.enqueue(route(), "x"))
    await until(lambda: held.begun)
    await threaded.crash(kernel)
    held.go.set()
    await asyncio.sleep(0.02)
    assert not threaded.platform.calls
    assert not pending.done() or pending.exception() is not None
    pending.cancel()
    kernel = await threaded.start()
    done = await kernel.enqueue(route(), "y")
    await kernel.settled(done.entry_id, 5_000)
    assert entry(kernel, done.entry_id).phase is Phase.DELIVERED


async def test_a_message_leaves_nothing_to_the_collector(tmp_path: Path) -> None:
    """A circle of references per message would be the collector's work for each."""
    gateway = Gateway(in_file(tmp_path / "s.db"))
    kernel = await gateway.start()
    for n in range(20):
        if n == 10:
            gc.collect()
            gc.disable()
        done = await kernel.enqueue(route(), str(n))
        await kernel.settled(done.entry_id, 5_000)
    try:
        assert gc.collect() < 20  # twice as many for each circle in a message
    finally:
        gc.enable()
        await gateway.end()
