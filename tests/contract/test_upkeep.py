"""What a worker does when idle, and what it does when the seat is taken from it."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from turnfold.decide.draft import Fence
from turnfold.decide.settling import settle
from turnfold.errors import DiskError, NotOpenError
from turnfold.ports.channel import Rejected
from turnfold.ports.store import Mark
from turnfold.upkeep import IDLE_S, MARK_S, Upkeep
from turnfold.words import FailureClass, Phase, TurnPhase
from turnfold_adapters.stores.memory import MemoryStore
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_adapters.stores.sqlite_mark import MarkFile
from turnfold_model.gateway import (
    Gateway,
    driver_of,
    entry,
    in_file,
    inbound,
    peek,
    route,
    spin,
    story,
    turn,
    until,
)
from turnfold_model.platform import accept, wait_for


class Notes:
    """A store that only notes its upkeep, and fails when told to."""

    address = "notes:"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.left = False
        self.error: Exception | None = None

    def checkpoint(self) -> bool:
        self._note("checkpoint")
        return not self.left

    def sweep(self) -> int:
        self._note("sweep")
        return 0

    def mark(self, store: str) -> None:
        self._note(f"mark {store}")

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise self.error

    def told(self) -> list[str]:
        calls, self.calls = self.calls, []
        return calls


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def look(notes: Notes) -> Callable[..., list[str]]:
    store: Any = notes
    upkeep = Upkeep(store, lambda: "id")
    upkeep.trust()

    def look(now: float, position: int, *, worker: bool = True) -> list[str]:
        upkeep.look(now, position, worker=worker)
        return notes.told()

    look.upkeep = upkeep  # type: ignore[attr-defined]
    return look


def test_while_appends_come_only_the_mark_moves_now_and_then(look) -> None:
    calls = [look(step / 10, step) for step in range(121)]
    marked = [step / 10 for step, told in enumerate(calls) if told]
    assert [told for told in calls if told] == [["mark id"]] * 3
    assert marked == [0.0, MARK_S, 2 * MARK_S]


def test_a_second_without_appends_is_idle_and_each_is_used_once(look) -> None:
    look(0.0, 1)
    assert look(IDLE_S - 0.01, 1) == []
    assert look(IDLE_S, 1) == ["checkpoint", "mark id", "sweep"]
    assert look(100.0, 1) == []
    look(100.1, 2)
    assert look(100.1 + IDLE_S, 2) == ["checkpoint", "mark id"]  # swept once for ever


def test_what_could_not_be_moved_is_tried_again_a_second_later(look, notes) -> None:
    look(0.0, 1)
    notes.left = True
    assert look(1.0, 1) == ["checkpoint", "mark id", "sweep"]
    assert look(1.9, 1) == []
    notes.left = False
    assert look(2.0, 1) == ["checkpoint", "mark id"]
    assert look(9.0, 1) == []


@pytest.mark.parametrize("error", [DiskError(path="p", problem="full"), NotOpenError()])
def test_upkeep_that_fails_stops_nothing_and_is_told_once(
    look, notes, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    if isinstance(error, NotOpenError):
        error = NotOpenError(state="in doubt")
    look(0.0, 1)
    notes.error = error
    for second in (1.0, 2.0, 3.0):
        assert look(second, 1) == ["checkpoint", "mark id", "sweep"]
    assert look.upkeep.trouble is error
    assert len(caplog.records) == 1
    notes.error = None
    assert look(4.0, 1) == ["checkpoint", "mark id", "sweep"]
    assert look.upkeep.trouble is None


def test_a_client_keeps_nothing_up_but_its_own_erasing(look, notes) -> None:
    look(0.0, 1, worker=False)
    assert look(1.0, 1, worker=False) == []
    look.upkeep.owing = True
    look(2.0, 2, worker=False)
    notes.left = True
    assert look(3.0, 2, worker=False) == ["checkpoint"]
    notes.left = False
    assert look(4.0, 2, worker=False) == ["checkpoint"]
    assert not look.upkeep.owing


def test_no_mark_is_written_without_an_id_or_before_the_old_one_was_judged(
    notes,
) -> None:
    nameless, early = Upkeep(notes, lambda: None), Upkeep(notes, lambda: "id")
    nameless.trust()
    assert nameless.mark()
    assert early.mark()
    assert notes.told() == []
    early.trust()
    early.mark()
    assert notes.told() == ["mark id"]


async def test_an_idle_worker_moves_the_log_and_marks_how_far_it_got(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnfold.worker._POLL_S", 0.005)
    monkeypatch.setattr("turnfold.upkeep.IDLE_S", 0.02)
    gateway = Gateway(store=in_file(tmp_path / "g.db"))
    kernel = await gateway.start()
    await kernel.enqueue(route(), "x")
    store = kernel.store
    assert isinstance(store, SqliteStore)
    assert store._writing is not None
    await until(lambda: store._writing.wal.settled)
    await until(lambda: store.marked() is not None)
    assert kernel.health()["upkeep"] is None
    assert store.marked().head == store.head
    await gateway.end()


async def test_a_worker_that_closes_leaves_a_mark_and_a_client_does_not(
    gateway: Gateway,
) -> None:
    client = await gateway.start(work=False)
    await client.close()
    gateway.alive.clear()
    kernel = await gateway.start()
    await kernel.enqueue(route(), "x")
    await spin()
    head = peek(kernel).head
    await gateway.end()
    store = gateway.store()
    store.open()
    mark = store.marked()
    assert isinstance(mark, Mark)
    assert mark.head == head == store.head
    assert mark.store
    store.close()


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"null", b'{"hash":"zz","position":1,"store":"a"}\n', b"\0" * 80],
)
def test_a_mark_that_nobody_wrote_whole_is_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "s.db.mark").write_bytes(data)
    assert MarkFile(str(tmp_path / "s.db")).read() is None


def test_with_a_weaker_disk_only_what_is_durable_is_marked(tmp_path: Path) -> None:
    from turnfold_model.store_kit import put

    for level in ("NORMAL", "OFF"):
        store = SqliteStore(tmp_path / f"{level}.db", synchronous=level)
        store.open()
        put(store, "entry:a")
        store.mark("id")
        assert store.marked() is None
        assert store.checkpoint()
        store.mark("id")
        assert (store.marked() is not None) == (level == "NORMAL")
        store.close()


# --- the seat ------------------------------------------------------------------------


async def _seated(tmp_path: Path, **more: Any) -> Gateway:
    return Gateway(store=in_file(tmp_path / "g.db"), **more)


@pytest.mark.case("F09")
async def test_a_lock_file_removed_under_the_owner_ends_its_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await _seated(tmp_path)
    kernel = await gateway.start()
    assert kernel.health()["fences_lost"] == 0
    (tmp_path / "g.db.worker").unlink()
    await until(lambda: not kernel.working)  # the watch finds it by itself
    assert kernel.health()["fences_lost"] == 1
    assert [r.levelno for r in caplog.records] == [logging.ERROR]
    assert "no longer the worker" in caplog.text
    done = await kernel.enqueue(route(), "x")
    await spin()
    assert entry(kernel, done.entry_id).phase is Phase.QUEUED
    assert gateway.platform.messages == []
    await gateway.end()
    kernel = await gateway.start()
    await kernel.settled(done.entry_id, 5_000)
    assert gateway.platform.contents == ["x"]
    await gateway.end()


@pytest.mark.case("F09")
async def test_a_later_worker_in_the_log_ends_the_work_of_the_one_before(
    tmp_path: Path,
) -> None:
    gateway = await _seated(tmp_path)
    kernel = await gateway.start()
    await kernel.enqueue(route(), "x")
    await spin()
    worker = kernel._worker
    assert worker is not None
    assert worker.fence is not None
    worker.fence = Fence(epoch=worker.fence.epoch - 1, owner=worker.fence.owner)
    worker.check_seat()
    assert (kernel.working, kernel.health()["fences_lost"]) == (False, 1)
    worker.check_seat()
    assert kernel.health()["fences_lost"] == 1
    await gateway.end()


async def _lose(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "g.db.worker").unlink()
    (kernel,) = gateway.alive
    assert kernel._worker is not None
    kernel._worker.check_seat()
    await spin()
    assert not kernel.working


async def test_a_success_after_the_loss_is_recorded_as_evidence(tmp_path: Path) -> None:
    gateway, landed = await _seated(tmp_path), asyncio.Event()
    gateway.platform.plays(wait_for(landed), accept())
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), "x")
    after = await kernel.enqueue(route(), "y")
    await spin()
    assert entry(kernel, done.entry_id).phase is Phase.DISPATCHED
    await _lose(gateway, tmp_path)
    landed.set()
    await kernel.settled(done.entry_id, 5_000)
    assert story(kernel, done.entry_id)[-1] == "late_receipt"
    await spin()
    assert entry(kernel, after.entry_id).phase is Phase.QUEUED
    assert driver_of(kernel).live == {}
    await gateway.end()


async def test_a_failure_after_the_loss_is_for_the_next_worker_to_find(
    tmp_path: Path,
) -> None:
    gateway, landed = await _seated(tmp_path), asyncio.Event()
    gateway.platform.plays(wait_for(landed))
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), "x")
    await spin()
    await _lose(gateway, tmp_path)
    head = peek(kernel).head
    refused = Rejected(failure=FailureClass.PERMISSION)
    await kernel.append(
        partial(settle, stream=done.entry_id, part=0, number=1, outcome=refused)
    )
    assert peek(kernel).head == head
    landed.set()
    await kernel.settled(done.entry_id, 5_000)
    await gateway.end()


async def test_a_run_after_the_loss_may_not_speak_any_more(tmp_path: Path) -> None:
    go, ended = asyncio.Event(), []

    async def handler(handle: Any) -> None:
        await go.wait()
        try:
            await handle.reply("late")
        except Exception as exc:
            ended.append(type(exc).__name__)
            raise

    gateway = await _seated(tmp_path, handler=handler)
    kernel = await gateway.start()
    accepted = await kernel.accept(inbound())
    await spin()
    await _lose(gateway, tmp_path)
    go.set()
    await spin()
    assert ended == ["StaleRunError"]
    assert turn(kernel, accepted.turn_id).phase is not TurnPhase.ANSWERED
    assert gateway.platform.messages == []
    await gateway.end()


async def test_sources_stop_with_the_loss(tmp_path: Path) -> None:
    gateway, stopped = await _seated(tmp_path), asyncio.Event()

    async def source(_cursor: str | None) -> Any:
        try:
            await asyncio.Event().wait()
            yield None, None
        finally:
            stopped.set()

    kernel = await gateway.start()
    kernel.source("t", source)
    kernel._sources.start()
    await spin()
    await _lose(gateway, tmp_path)
    await asyncio.wait_for(stopped.wait(), 5)
    await gateway.end()


def test_a_memory_seat_is_held_by_one(tmp_path: Path) -> None:
    one = MemoryStore()
    one.open()
    assert one.ownership().take() is not None
    assert one.ownership().held
    one.close()
    assert not one.ownership().held
