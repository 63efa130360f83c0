"""Where a SQLite store waits for its disk: never on the event loop."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from turnfold.errors import FateUnknownError, NotOpenError
from turnfold.ports.store import Stored, Wanted, Write
from turnfold_adapters.stores.sqlite import SqliteStore, writing
from turnfold_adapters.stores.sqlite.writing import WriteQueue
from turnfold_model.checks.store_kit import (
    body,
    body_in,
    command,
    head_of,
    noise,
    put,
    read,
    record,
    running,
    whole_log,
    write,
)

from .slow_disk import SLOW_S, Lag, SlowDisk, stalls


@pytest.fixture
def disk() -> Iterator[SlowDisk]:
    disk = SlowDisk()
    yield disk
    disk.unregister()


@pytest.fixture
async def slow(disk: SlowDisk, tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """An open store that commits in a thread, on a disk where a sync takes 200 ms."""
    store = SqliteStore(tmp_path / "s.db", vfs="slow", flush="thread")
    await store.open()
    await put(store, "entry:a")
    disk.sync_s = SLOW_S
    yield store
    disk.sync_s = 0
    await store.close()


async def _reading(store: SqliteStore, until: Callable[[], bool]) -> int:
    """Every kind of read, until told to stop; how often."""
    wanted = Wanted(
        streams=frozenset({"entry:a"}),
        keys=frozenset({"k"}),
        bodies=frozenset({("entry:a", 1), ("entry:a", 2)}),
    )
    times = 0
    while not until():
        await store.fetch(wanted)
        await store.inbox(10)
        await store.load()
        await store.log(0, 10)
        times += 1
        await asyncio.sleep(0.005)
    return times


@pytest.mark.case("A06", "W11")
async def test_the_loop_never_waits_for_the_disk(
    slow: SqliteStore, disk: SlowDisk
) -> None:
    """Commits, posts, bodies in files, erasing, a checkpoint, a watermark, the right to
    be the worker: 200 ms a sync, and the loop stands still for less than 20."""
    bodies = [body("entry:a", 1, b"text"), body("entry:a", 2, noise(100_000))]
    await write(slow, bodies=bodies)

    async def everything() -> None:
        number = len(await whole_log(slow))
        over = False
        reading = asyncio.ensure_future(_reading(slow, lambda: over))
        await asyncio.gather(
            put(slow, f"entry:{number}"),
            slow.post([command(f"{number}", bodies=(noise(5_000),))]),
            slow.checkpoint(),
            slow.note_watermark("id"),
            slow.ownership().take(),
            slow.sweep(),
        )
        await write(slow, erase=[("entry:a", 1), ("entry:a", 2)])
        over = True
        assert await reading > 20, "reads went on all the time"
        await slow.reopen()
        slow.ownership().release()

    over_s = await stalls(everything)
    assert min(over_s) < 0.02, over_s
    assert "MainThread" not in disk.syncs
    assert len(disk.syncs) > 5


async def test_reads_do_not_wait_for_a_commit(slow: SqliteStore) -> None:
    pending = asyncio.ensure_future(put(slow, "entry:b"))
    await asyncio.sleep(0.05)
    began = time.perf_counter()
    assert [r.stream for r in await whole_log(slow)] == ["entry:a"]
    assert time.perf_counter() - began < SLOW_S / 2
    assert not pending.done()
    await pending
    assert len(await whole_log(slow)) == 2


async def test_nothing_is_told_before_the_commit_is_made(
    slow: SqliteStore, disk: SlowDisk
) -> None:
    before = len(disk.syncs)
    pending = asyncio.ensure_future(slow.post([command("1")]))
    await asyncio.sleep(SLOW_S / 2)
    assert len(disk.syncs) == before + 1
    assert not pending.done()
    assert list(await slow.inbox()) == []
    await pending
    assert [c.id for c in await slow.inbox()] == ["1"]


async def test_a_cancelled_caller_does_not_cancel_its_commit(slow: SqliteStore) -> None:
    base = await head_of(slow)
    item = Write(base=base, records=[record(2, "entry:b", 1)])
    task = asyncio.ensure_future(slow.commit([item]))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await slow.post([command("1")])  # comes after it
    assert len(await read(slow, "entry:b")) == 1
    assert await head_of(slow) == running(await whole_log(slow))


async def test_calls_keep_their_order(slow: SqliteStore, disk: SlowDisk) -> None:
    disk.sync_s = 0.02
    base = await head_of(slow)
    done: list[int] = []
    items = []
    for position in range(2, 12):
        new = [record(position, f"entry:{position}", 1)]
        items.append(Write(base=base, records=new))
        base = running(new, base)

    async def commit(number: int, item: Write) -> None:
        (answer,) = await slow.commit([item])
        assert isinstance(answer, Stored)
        done.append(number)

    await asyncio.gather(*(commit(n, item) for n, item in enumerate(items)))
    assert done == list(range(10))
    assert await head_of(slow) == base


async def test_closing_waits_for_a_commit(slow: SqliteStore, disk: SlowDisk) -> None:
    owner = await slow.ownership().take()
    pending = asyncio.ensure_future(put(slow, "entry:b"))
    await asyncio.sleep(0.05)
    disk.sync_s = 0.05
    await slow.close()
    assert pending.done()
    assert not slow.ownership().held
    with pytest.raises(NotOpenError):
        await head_of(slow)
    names = [thread.name for thread in threading.enumerate()]
    assert not any(name.startswith("turnfold-writer") for name in names)
    await slow.open()
    assert (await head_of(slow)).position == 2
    assert owner == await slow.ownership().current()


async def test_ownership_is_let_go_after_the_commit_that_is_under_way(
    slow: SqliteStore,
) -> None:
    other = SqliteStore(slow.path)
    await other.open()
    assert await slow.ownership().take() is not None
    pending = asyncio.ensure_future(put(slow, "entry:b"))
    await asyncio.sleep(0.05)
    slow.ownership().release()
    assert not slow.ownership().held
    assert await other.ownership().take() is None, "a commit is under way"
    await pending
    await asyncio.sleep(0.01)
    assert await other.ownership().take() is not None
    await other.close()


async def test_while_it_is_opened_anew_a_store_says_so(slow: SqliteStore) -> None:
    await put(slow, "entry:b")
    opening = asyncio.ensure_future(slow.reopen())
    await asyncio.sleep(0)
    for call in (head_of(slow), slow.post([command("1")]), slow.checkpoint()):
        with pytest.raises(NotOpenError, match="anew"):
            await call
    await opening
    assert len(await whole_log(slow)) == 2


async def test_a_large_body_is_read_beside_the_loop(slow: SqliteStore) -> None:
    large = body("entry:a", 1, noise(3_000_000))
    await write(slow, bodies=[large])
    assert await body_in(slow, "entry:a", 1) == large


# --- inline or in the thread -----------------------------------------------------


async def test_a_slow_disk_is_noticed_and_a_quick_one_too(
    disk: SlowDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_SELDOM", 0)
    store = SqliteStore(tmp_path / "s.db", vfs="slow")
    await store.open()
    disk.sync_s, number = 0.01, 0
    while store.facts()["flush"] != "thread":
        number += 1
        await put(store, f"entry:{number}")
        assert number < 100
    assert set(disk.syncs) == {"MainThread"}
    await put(store, "entry:a")
    assert disk.syncs[-1].startswith("turnfold-writer")
    disk.sync_s = 0
    # Where the machine is busy a thread waits for the processor, too, so it may take
    # a while until commits are on the loop again.
    while store.facts()["flush"] != "loop":
        number += 1
        await put(store, f"entry:{number}")
        assert number < 1000
    await store.close()


@pytest.mark.parametrize("flush", ["auto", "loop"])
async def test_on_a_quick_disk_a_commit_does_not_suspend(
    tmp_path: Path, flush: str
) -> None:
    store = SqliteStore(tmp_path / "s.db", flush=flush)
    await store.open()
    for position in range(1, 20):
        base = await head_of(store)
        store._queue.threaded = False  # whatever a busy machine made of it
        call = store.commit(
            [Write(base=base, records=[record(position, "store", position)])]
        )
        with pytest.raises(StopIteration) as end:
            call.send(None)
        assert isinstance(end.value.value[0], Stored)
    await store.close()


async def test_a_commit_on_the_loop_does_not_wait_for_another_process(
    tmp_path: Path,
) -> None:
    store = SqliteStore(tmp_path / "s.db")
    await store.open()
    store._queue.threaded = False
    other = apsw.Connection(store.path)
    other.execute("BEGIN IMMEDIATE")
    async with Lag() as lag:
        pending = asyncio.ensure_future(put(store, "entry:a"))
        posting = asyncio.ensure_future(store.post([command("1")]))
        await asyncio.sleep(0.1)
    assert not pending.done()
    assert not posting.done()
    assert lag.longest_s < 1, "it waits for 2 s, in the thread"
    other.execute("ROLLBACK")
    other.close()
    await asyncio.gather(pending, posting)
    assert (await head_of(store)).position == 1
    await store.close()


async def test_a_queue_runs_one_piece_after_the_other() -> None:
    queue = WriteQueue(writing.Flush.AUTO)
    assert queue.inline
    seen: list[int] = []
    go = threading.Event()

    def work(number: int) -> int:
        go.wait(10)
        seen.append(number)
        return number

    first = asyncio.ensure_future(queue.there(lambda: work(1)))
    await asyncio.sleep(0)
    assert not queue.inline, "a commit must wait for its turn"
    queue.after(lambda: work(2))
    go.set()
    assert await queue.there(lambda: work(3)) == 3
    assert await first == 1
    assert seen == [1, 2, 3]
    assert queue.inline
    assert queue.here(lambda: work(4)) == 4
    queue.close()


async def test_an_error_in_the_thread_is_its_callers_and_no_others() -> None:
    queue = WriteQueue(writing.Flush.THREAD)

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await queue.there(fail)
    task = asyncio.ensure_future(queue.there(fail))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await queue.there(lambda: 5) == 5
    assert queue.idle
    queue.close()


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="sometimes"):
        SqliteStore("x.db", flush="sometimes")


async def test_closing_a_store_in_doubt_ends_its_thread(
    slow: SqliteStore, disk: SlowDisk
) -> None:
    disk.sync_s = 0
    writes = slow._writing
    assert writes is not None

    def failing(sql: str, *bindings: Any) -> Any:
        if sql == "COMMIT":
            raise apsw.IOError("injected")
        return writes.own.run(sql, *bindings)

    writes._run = failing
    with pytest.raises(FateUnknownError):
        await put(slow, "entry:b")
    with pytest.raises(NotOpenError, match="doubt"):
        await head_of(slow)
    await slow.close()
    names = [thread.name for thread in threading.enumerate()]
    assert not any(name.startswith("turnfold-writer") for name in names)
