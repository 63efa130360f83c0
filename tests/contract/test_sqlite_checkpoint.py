"""The log of a busy store is moved in a thread, and nothing of it is lost."""

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from turnfold.errors import DiskError
from turnfold_adapters.stores import sqlite_mover
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_adapters.stores.sqlite_wal import Wal
from turnfold_model.store_kit import put, running

SMALL = 2 * 1024 * 1024  # of a log: 127 pages, and the thread begins


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "store.db", wal_bytes=SMALL)
    store.open()
    yield store
    store.close()


def _wal(store: SqliteStore) -> Wal:
    assert store._writing is not None
    return store._writing.wal


def _until_passed(store: SqliteStore, passed: list[object]) -> None:
    """Write until the thread has been at work once more, and a bit."""
    wanted = len(passed) + 2
    for number in range(2000):
        put(store, f"entry:{number}")
        if len(passed) >= wanted:
            break
    for number in range(3):
        put(store, f"entry:after {number}")
    assert len(passed) >= wanted


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The thread of each pass."""
    passed, real = [], sqlite_mover.flush

    def flush(path: str, last: int) -> int:
        passed.append(threading.current_thread())
        return real(path, last)

    monkeypatch.setattr(sqlite_mover, "flush", flush)
    return passed


def test_while_there_is_work_the_log_is_moved_in_a_thread(
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
        _until_passed(store, passed)
    assert threading.main_thread() not in passed
    assert len(most) > 1
    assert min(most[1:]) < 60, "the loop's share should be a small rest"
    wal = Path(f"{store.path}-wal")
    assert wal.stat().st_size <= SMALL, "it begins anew long before its cap"
    records = list(store.log())
    assert store.head == running(records)
    store.reopen()
    assert list(store.log()) == records


def test_closing_waits_for_the_thread(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = threading.Event()

    def flush(_path: str, _last: int) -> int:
        began.set()
        time.sleep(0.05)
        return -1

    monkeypatch.setattr(sqlite_mover, "flush", flush)
    number = 0
    while not began.is_set():
        put(store, f"entry:{number}")
        number += 1
    store.close()
    names = [thread.name for thread in threading.enumerate()]
    assert "turnfold-checkpoint" not in names
    store.open()
    assert store.head.position == number


def _failing(handle: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO), handle)


def test_after_a_sync_that_failed_the_log_is_kept_until_it_is_moved_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of a page that it lost only once: a checkpoint that goes well
    afterwards says nothing of those before."""
    monkeypatch.setattr(sqlite_mover, "_sync", _failing)
    number = 0
    while store.checkpoint_failure is None and number < 2000:
        put(store, f"entry:{number}")
        number += 1
    monkeypatch.undo()
    assert isinstance(store.checkpoint_failure, DiskError)
    kept = _wal(store).pages
    assert not store.checkpoint()
    for more in range(200):  # work goes on, at the end of the log
        put(store, f"entry:{number + more}")
    assert _wal(store).pages > kept
    assert not store.checkpoint()
    assert isinstance(store.checkpoint_failure, DiskError)
    records = list(store.log())
    store.close()
    assert _frames(Path(f"{store.path}-wal")) >= kept
    store.open()
    assert list(store.log()) == records
    put(store, "entry:new")
    assert store.checkpoint()
    assert store.checkpoint_failure is None


def _frames(wal: Path) -> int:
    """Frames of the log with the salt of its header: those that a recovery reads."""
    data = wal.read_bytes()
    salt, count = data[16:24], 0
    while data[32 + count * 4120 + 8 : 32 + count * 4120 + 16] == salt:
        count += 1
    return count


def test_a_thread_that_cannot_work_is_no_reason_to_stop(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the log is moved where it is written."""

    def refuse(_self: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for number in range(300):
        put(store, f"entry:{number}")
    assert Path(f"{store.path}-wal").stat().st_size <= SMALL
    assert store.checkpoint()
    assert store.checkpoint_failure is None


def test_one_connection_alone_needs_no_thread(
    tmp_path: Path, passed: list[threading.Thread]
) -> None:
    store = SqliteStore(tmp_path / "store.db", wal_bytes=SMALL, exclusive=True)
    store.open()
    for number in range(300):
        put(store, f"entry:{number}")
    assert passed == []
    store.close()


def test_a_second_descriptor_is_never_opened_for_the_sync(tmp_path: Path) -> None:
    """Closing one would drop the locks of this process: another process could then
    take the store for one that nobody has open."""
    path = str(tmp_path / "store.db")
    store = SqliteStore(path)
    store.open()
    before = sorted(sqlite_mover._handles(path))
    assert before
    used = sqlite_mover.flush(path)
    assert used in before
    assert sqlite_mover.flush(path, used) == used
    other = os.open("/dev/null", os.O_RDONLY)
    assert sqlite_mover.flush(path, other) in before, "it is another file's by now"
    os.close(other)
    assert sorted(sqlite_mover._handles(path)) == before
    store.close()
    assert list(sqlite_mover._handles(path)) == []
    assert sqlite_mover.flush(path, used) == -1
    with pytest.raises(apsw.Error):
        apsw.Connection(str(tmp_path / "none.db"), flags=apsw.SQLITE_OPEN_READONLY)
    sqlite_mover.flush(str(tmp_path / "none.db"))  # nothing to write
