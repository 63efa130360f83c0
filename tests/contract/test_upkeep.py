"""The upkeep of a store by its worker, and the end of work when the store is lost."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from turnfold import Kernel, Settings
from turnfold._runtime.worker import IDLE_S, MARK_S, Upkeep
from turnfold.clock import Lived
from turnfold.enums import FailureClass, Phase, Status, TurnOutcome, TurnPhase
from turnfold.errors import DiskError, NotOpenError, OwnedError
from turnfold.ports.channel import Rejected
from turnfold.ports.store import Watermark, now
from turnfold_adapters.stores.memory import MemoryStore
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_adapters.stores.sqlite.files import MarkFile
from turnfold_model.checks.store_kit import put
from turnfold_model.testing.clock import FakeClock
from turnfold_model.testing.gateway import (
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
from turnfold_model.testing.peek import Peek
from turnfold_model.testing.platform import accept, wait_for


class Notes:
    """The maintenance half of a store: it only notes its calls, and fails when told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.left = False
        self.error: Exception | None = None
        self.failing = ""  # the beginning of the calls that fail

    async def checkpoint(self) -> bool:
        self._note("checkpoint")
        return not self.left

    async def sweep(self) -> int:
        self._note("sweep")
        return 0

    async def note_watermark(self, store: str, lived: Lived | None = None) -> None:
        del lived
        self._note(f"mark {store}")

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if self.error is not None and call.startswith(self.failing):
            raise self.error

    def told(self) -> list[str]:
        calls, self.calls = self.calls, []
        return calls


@pytest.fixture
def notes() -> Notes:
    return Notes()


def upkeep_of(notes: Any, store_id: Callable[[], str | None] = lambda: "id") -> Upkeep:
    return Upkeep(notes, "notes:", store_id, FakeClock())


@pytest.fixture
def look(notes: Notes) -> Callable[..., list[str]]:
    """`look(seconds, position)`: the calls that the store then gets."""
    upkeep = upkeep_of(notes)
    upkeep.trust()

    def look(seconds: float, position: int) -> list[str]:
        now(upkeep.look(seconds, position))
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


@pytest.mark.parametrize(
    "error", [DiskError(path="p", problem="full"), NotOpenError(state="in doubt")]
)
def test_upkeep_that_fails_stops_nothing_and_is_told_once(
    look, notes, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    look(0.0, 1)
    notes.error = error
    for second in (1.0, 2.0, 3.0):
        assert look(second, 1) == ["checkpoint", "mark id", "sweep"]
    assert look.upkeep.trouble is error
    assert len(caplog.records) == 1
    notes.error = None
    assert look(4.0, 1) == ["checkpoint", "mark id", "sweep"]
    assert look.upkeep.trouble is None


def test_one_kind_of_upkeep_that_fails_is_told_once_beside_the_others(
    look, notes, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a folder that has become read-only: the mark is a new file each time."""
    look(0.0, 1)
    notes.error, notes.failing = DiskError(path="p", problem="read-only"), "mark"
    for second in (1.0, 2.0, 3.0):
        look(second, 1)
        assert look.upkeep.trouble is notes.error
    assert len(caplog.records) == 1
    notes.error = None
    look(4.0, 1)
    assert look.upkeep.trouble is None


def test_an_erasing_that_could_not_end_is_owed_until_it_does(look, notes) -> None:
    look(0.0, 1)
    look(1.0, 1)
    notes.left = True
    assert not now(look.upkeep.erase())
    assert notes.told() == ["checkpoint"]
    assert look.upkeep.owing
    assert look(2.0, 1) == ["checkpoint", "mark id"]
    assert look.upkeep.owing
    notes.left = False
    assert look(3.0, 1) == ["checkpoint", "mark id"]
    assert not look.upkeep.owing
    assert look(9.0, 1) == []


def test_a_store_without_maintenance_needs_none() -> None:
    upkeep = upkeep_of(None)
    upkeep.trust()
    for second in range(5):
        now(upkeep.look(float(second), 1))
    assert now(upkeep.erase())
    assert now(upkeep.lost_history("id")) is None


def test_no_mark_is_written_without_an_id_or_before_the_old_one_was_judged(
    notes,
) -> None:
    nameless, early = upkeep_of(notes, lambda: None), upkeep_of(notes)
    nameless.trust()
    assert now(nameless.note_watermark())
    assert now(early.note_watermark())
    assert notes.told() == []
    early.trust()
    now(early.note_watermark())
    assert notes.told() == ["mark id"]


async def test_an_idle_worker_moves_the_log_and_marks_how_far_it_got(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnfold._runtime.worker.POLL_S", 0.005)
    monkeypatch.setattr("turnfold._runtime.worker.IDLE_S", 0.02)
    gateway = Gateway(store=in_file(tmp_path / "g.db"))
    kernel = await gateway.start()
    await kernel.enqueue(route(), "x")
    store = kernel.store
    assert isinstance(store, SqliteStore)
    assert store._writing is not None
    await until(lambda: store._writing.wal.settled)
    await until(lambda: _marked(kernel) == peek(kernel).head)
    assert kernel.health()["upkeep"] is None
    await gateway.end()


def _marked(kernel: Kernel) -> Any:
    mark = peek(kernel).watermark()
    return None if mark is None else mark.head


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
    await store.open()
    mark = Peek(store).watermark()
    assert isinstance(mark, Watermark)
    assert mark.head == head == Peek(store).head
    assert mark.store
    await store.close()


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"null", b'{"hash":"zz","position":1,"store":"a"}\n', b"\0" * 80],
)
def test_a_mark_that_nobody_wrote_whole_is_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "s.db.mark").write_bytes(data)
    assert MarkFile(str(tmp_path / "s.db")).read() is None


async def test_with_a_weaker_disk_only_what_is_durable_is_marked(
    tmp_path: Path,
) -> None:
    for level in ("NORMAL", "OFF"):
        store = SqliteStore(tmp_path / f"{level}.db", synchronous=level)
        await store.open()
        await put(store, "entry:a")
        await store.note_watermark("id")
        assert await store.watermark() is None
        assert await store.checkpoint()
        await store.note_watermark("id")
        assert (await store.watermark() is not None) == (level == "NORMAL")
        await store.close()


# --- a store that is lost ------------------------------------------------------------


async def _lose(gateway: Gateway) -> None:
    """Another process could become the owner now, and the worker has noticed it."""
    (kernel,) = gateway.alive
    lock = Path(f"{kernel.store.address}.worker")
    lock.unlink()  # noqa: ASYNC240  nothing else runs
    assert kernel._worker is not None
    kernel._worker.check_ownership()
    await spin()
    assert not kernel.working


async def _next(gateway: Gateway) -> Kernel:
    """The worker after this one, when it has logged what lay in the inbox."""
    await gateway.end()
    kernel = await gateway.start()
    assert kernel.working
    await until(lambda: not peek(kernel).inbox())
    return kernel


@pytest.mark.case("F09")
async def test_a_lock_file_removed_under_the_owner_ends_its_work(
    filed: Gateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = await filed.start()
    assert kernel.health()["fences_lost"] == 0
    (tmp_path / "g.db.worker").unlink()
    await until(lambda: not kernel.working)  # the watch finds it by itself
    assert kernel.health()["fences_lost"] == 1
    assert [r.levelno for r in caplog.records] == [logging.ERROR]
    assert "no longer the worker" in caplog.text
    head = peek(kernel).head
    done = await kernel.enqueue(route(), "x")  # as any client may
    await spin()
    assert [c.stream for c in peek(kernel).inbox()] == [done.entry_id]
    assert peek(kernel).head == head
    assert filed.platform.messages == []
    kernel = await _next(filed)
    await kernel.settled(done.entry_id, 5_000)
    assert filed.platform.contents == ["x"]


@pytest.mark.case("F09")
async def test_a_later_worker_in_the_log_ends_the_work_of_the_one_before(
    filed: Gateway,
) -> None:
    """The later one is found by the log alone, as where a lock does not hold."""
    earlier = await filed.start()
    await earlier.enqueue(route(), "x")
    await spin()
    released = earlier._worker.ownership  # type: ignore[union-attr]
    released.release()
    earlier._worker.ownership = _Deceived()  # type: ignore[union-attr]
    later = await filed.start()
    assert later.working
    done = await later.enqueue(route(), "y")
    await later.settled(done.entry_id, 5_000)
    posted = await earlier.enqueue(route(), "z")  # refused here, so it goes there
    await later.settled(posted.entry_id, 5_000)
    await until(lambda: not earlier.working)
    assert earlier.health()["fences_lost"] == 1
    earlier._worker.check_ownership()  # type: ignore[union-attr]
    assert earlier.health()["fences_lost"] == 1
    assert (later.working, later.health()["fences_lost"]) == (True, 0)
    assert filed.platform.contents == ["x", "y", "z"]


async def test_waiting_for_an_end_outlives_the_loss(filed: Gateway) -> None:
    """The one who waits in the process that lost the store learns of the end that the
    next worker brings."""
    earlier = await filed.start()
    await earlier.disconnected("t")
    done = await earlier.enqueue(route(), "x")
    accepted = await earlier.accept(inbound())
    waiting = [
        asyncio.ensure_future(earlier.settled(done.entry_id)),
        asyncio.ensure_future(accepted.settled()),
    ]
    await spin()
    await _lose(filed)
    earlier._worker.ownership.release()  # type: ignore[union-attr]
    filed.handler = _silent
    later = await filed.start()
    await later.connected("t")
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waiting) == [
            Status.DELIVERED,
            TurnOutcome.SILENT,
        ]


async def _silent(handle: Any) -> None:
    await handle.silent("nothing_to_say")


async def test_a_client_cannot_look_into_memory_that_it_does_not_have(
    filed: Gateway,
) -> None:
    client = await filed.start(work=False)
    with pytest.raises(OwnedError):
        await client.look(lambda draft: draft.open_count)


class _Deceived:
    """The ownership of a process that cannot see that it has lost the lock."""

    held = True

    def release(self) -> None:
        pass


async def test_a_success_after_the_loss_is_recorded_as_evidence(filed: Gateway) -> None:
    landed = asyncio.Event()
    filed.platform.plays(wait_for(landed), accept())
    kernel = await filed.start()
    done = await kernel.enqueue(route(), "x")
    after = await kernel.enqueue(route(), "y")
    await spin()
    assert entry(kernel, done.entry_id).phase is Phase.DISPATCHED
    await _lose(filed)
    head = peek(kernel).head
    landed.set()
    await until(lambda: peek(kernel).inbox())
    await until(lambda: not driver_of(kernel).live)
    assert entry(kernel, after.entry_id).phase is Phase.QUEUED
    assert peek(kernel).head == head
    kernel = await _next(filed)
    assert entry(kernel, done.entry_id).phase is Phase.DELIVERED
    assert "late_receipt" in story(kernel, done.entry_id)
    await kernel.settled(after.entry_id, 5_000)
    assert filed.platform.contents == ["x", "y"]


async def test_a_late_success_after_the_loss_is_evidence_too(
    filed: Gateway, impatient: None
) -> None:
    """Its call had been given up: nobody waits for it any more."""
    landed = asyncio.Event()
    filed.platform.plays(wait_for(landed, deaf=True))
    filed.settings = Settings(attempt_deadline_ms=20)
    kernel = await filed.start()
    done = await kernel.enqueue(route(), "x")
    await until(lambda: entry(kernel, done.entry_id).doubt)
    await _lose(filed)
    landed.set()
    await until(lambda: peek(kernel).inbox())
    kernel = await _next(filed)
    assert entry(kernel, done.entry_id).phase is Phase.DELIVERED
    assert filed.platform.contents == ["x"]


async def test_a_failure_after_the_loss_is_for_the_next_worker_to_find(
    filed: Gateway,
) -> None:
    landed = asyncio.Event()
    refused = Rejected(failure=FailureClass.PERMISSION)
    filed.platform.plays(
        evolve(wait_for(landed), lands=False, honest=False, answer=refused)
    )
    kernel = await filed.start()
    done = await kernel.enqueue(route(), "x")
    await spin()
    await _lose(filed)
    head = peek(kernel).head
    landed.set()
    await until(lambda: not driver_of(kernel).live)
    assert peek(kernel).head == head
    assert not peek(kernel).inbox()
    kernel = await _next(filed)
    assert entry(kernel, done.entry_id).doubt


async def test_a_run_after_the_loss_may_not_speak_any_more(
    filed: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    go, ended = asyncio.Event(), []

    async def handler(handle: Any) -> None:
        await go.wait()
        try:
            await handle.reply("late")
        except Exception as exc:
            ended.append(type(exc).__name__)
            raise

    filed.handler = handler
    kernel = await filed.start()
    accepted = await kernel.accept(inbound())
    await spin()
    await _lose(filed)
    go.set()
    await spin()
    assert ended == ["StaleRunError"]
    assert turn(kernel, accepted.turn_id).phase is TurnPhase.RUNNING
    assert filed.platform.messages == []
    assert "the handler raised" not in caplog.text


async def test_sources_stop_with_the_loss(filed: Gateway) -> None:
    stopped = asyncio.Event()

    async def source(_cursor: str | None) -> Any:
        try:
            await asyncio.Event().wait()
            yield None, None
        finally:
            stopped.set()

    kernel = await filed.start()
    kernel.source("t", source)
    kernel._sources.start()
    await spin()
    await _lose(filed)
    await asyncio.wait_for(stopped.wait(), 5)


async def test_a_memory_store_is_owned_by_one() -> None:
    one = MemoryStore()
    await one.open()
    assert await one.ownership().take() is not None
    assert one.ownership().held
    await one.close()
    assert not one.ownership().held
