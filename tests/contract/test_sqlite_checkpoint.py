"""The log of a busy store is moved in a thread, and nothing of it is lost."""

import errno
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from turnfold.errors import DiskError
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_adapters.stores.sqlite import wal as log_file
from turnfold_adapters.stores.sqlite.wal import Wal
from turnfold_model.checks.store_kit import head_of, put, running, whole_log

SMALL = 2 * 1024 * 1024  # of a log: 127 pages, and the thread begins


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "store.db", wal_bytes=SMALL)
    await store.open()
    yield store
    await store.close()


def _wal(store: SqliteStore) -> Wal:
    assert store._writing is not None
    return store._writing.wal


def _size(store: SqliteStore) -> int:
    return Path(f"{store.path}-wal").stat().st_size


async def _until_passed(store: SqliteStore, passed: list[object]) -> None:
    """Write until the thread has been at work once more, and a bit."""
    wanted = len(passed) + 2
    for number in range(2000):
        await put(store, f"entry:{number}")
        if len(passed) >= wanted:
            break
    for number in range(3):
        await put(store, f"entry:after {number}")
    assert len(passed) >= wanted


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The thread of each pass."""
    passed, real = [], log_file.flush

    def flush(path: str, last: int) -> int:
        passed.append(threading.current_thread())
        return real(path, last)

    monkeypatch.setattr(log_file, "flush", flush)
    return passed


async def test_while_there_is_work_the_log_is_moved_in_a_thread(
    store: SqliteStore, passed: list[threading.Thread]
) -> None:
    most, real = [0], _wal(store)._checkpoint

    def checkpoint(mode: int) -> bool:
        wal = _wal(store)
        before = wal._conn.execute("PRAGMA main.wal_checkpoint(NOOP)").fetchall()
        most.append(before[0][1] - before[0][2])
        return real(mode)

    _wal(store)._checkpoint = checkpoint  # type: ignore[method-assign]
    for _ in range(3):
        await _until_passed(store, passed)
    assert threading.main_thread() not in passed
    assert len(most) > 1
    assert min(most[1:]) < 60, "the loop's share should be a small rest"
    assert _size(store) <= SMALL, "it begins anew long before its cap"
    records = await whole_log(store)
    assert await head_of(store) == running(records)
    await store.reopen()
    assert await whole_log(store) == records


async def test_closing_waits_for_the_thread(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = threading.Event()

    def flush(_path: str, _last: int) -> int:
        began.set()
        time.sleep(0.05)
        return -1

    monkeypatch.setattr(log_file, "flush", flush)
    number = 0
    while not began.is_set():
        await put(store, f"entry:{number}")
        number += 1
    await store.close()
    names = [thread.name for thread in threading.enumerate()]
    assert "turnfold-checkpoint" not in names
    await store.open()
    assert (await head_of(store)).position == number


def _failing(handle: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO), handle)


async def test_after_a_sync_that_failed_the_log_is_kept_until_it_is_moved_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of a page that it lost only once: a checkpoint that goes well
    afterwards says nothing of those before."""
    monkeypatch.setattr(log_file, "_sync", _failing)
    number = 0
    while store.checkpoint_failure is None and number < 2000:
        await put(store, f"entry:{number}")
        number += 1
    monkeypatch.undo()
    assert isinstance(store.checkpoint_failure, DiskError)
    kept = _wal(store).pages
    assert not await store.checkpoint()
    for more in range(200):  # work goes on, at the end of the log
        await put(store, f"entry:{number + more}")
    assert _wal(store).pages > kept
    assert not await store.checkpoint()
    assert isinstance(store.checkpoint_failure, DiskError)
    records = await whole_log(store)
    await store.close()
    assert _frames(Path(f"{store.path}-wal")) >= kept
    await store.open()
    assert await whole_log(store) == records
    await put(store, "entry:new")
    assert await store.checkpoint()
    assert store.checkpoint_failure is None


def _frames(wal: Path) -> int:
    """Frames of the log with the salt of its header: those that a recovery reads."""
    data = wal.read_bytes()
    salt, count = data[16:24], 0
    while data[32 + count * 4120 + 8 : 32 + count * 4120 + 16] == salt:
        count += 1
    return count


async def test_a_thread_that_cannot_work_is_no_reason_to_stop(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the log is moved where it is written."""

    def refuse(_self: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for number in range(300):
        await put(store, f"entry:{number}")
    assert _size(store) <= SMALL
    assert await store.checkpoint()
    assert store.checkpoint_failure is None


async def test_one_connection_alone_needs_no_thread(
    tmp_path: Path, passed: list[threading.Thread]
) -> None:
    store = SqliteStore(tmp_path / "store.db", wal_bytes=SMALL, exclusive=True)
    await store.open()
    for number in range(300):
        await put(store, f"entry:{number}")
    assert passed == []
    await store.close()


async def test_a_second_descriptor_is_never_opened_for_the_sync(tmp_path: Path) -> None:
    """Closing one would drop the locks of this process: another process could then
    take the store for one that nobody has open."""
    path = str(tmp_path / "store.db")
    store = SqliteStore(path)
    await store.open()
    before = sorted(log_file.handles(path))
    assert before
    used = log_file.flush(path)
    assert used in before
    assert log_file.flush(path, used) == used
    other = os.open("/dev/null", os.O_RDONLY)
    assert log_file.flush(path, other) in before, "it is another file's by now"
    os.close(other)
    assert sorted(log_file.handles(path)) == before
    await store.close()
    assert list(log_file.handles(path)) == []
    assert log_file.flush(path, used) == -1
    with pytest.raises(apsw.Error):
        apsw.Connection(str(tmp_path / "none.db"), flags=apsw.SQLITE_OPEN_READONLY)
    log_file.flush(str(tmp_path / "none.db"))  # nothing to write
