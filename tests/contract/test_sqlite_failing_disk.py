"""Disks that are full or fail, at every single write and sync of a commit.

After each failure the store is opened again without the fault: what was confirmed is
there, what was refused with DiskError is not, and what is in doubt is all or nothing.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from turnfold.errors import (
    DiskError,
    FateUnknownError,
    MissingBodyError,
    NotOpenError,
    StoreError,
)
from turnfold.ports.store import Append
from turnfold_adapters.stores import sqlite_bodies
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.store_kit import body, noise, put, record


class Faults:
    """Which operation on files fails, how, and whether it was reached."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.error: type[apsw.Error] = apsw.IOError
        self.fired = False

    def count(self) -> None:
        if self.left is None:
            return
        self.left -= 1
        if self.left < 0:
            self.fired = True
            raise self.error("injected")


class FaultyFile(apsw.VFSFile):
    def __init__(self, faults: Faults, name, flags) -> None:
        self.faults = faults
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self.faults.count()
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self.faults.count()
        super().xSync(flags)


class FaultyDisk(apsw.VFS):
    def __init__(self) -> None:
        self.faults = Faults()
        super().__init__("faulty", "", maxpathname=4096)

    def xOpen(self, name, flags) -> FaultyFile:
        return FaultyFile(self.faults, name, flags)


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    disk = FaultyDisk()
    yield disk
    disk.unregister()


def _refused(store: SqliteStore, *streams: str) -> StoreError | None:
    try:
        put(store, *streams)
    except StoreError as exc:
        return exc
    return None


def _positions(path: Path) -> int:
    store = SqliteStore(path)
    store.open()
    count = len(list(store.log()))
    assert store.head.position == count
    assert len(list(store.open_streams())) == 2
    store.close()
    return count


@pytest.mark.case("Q03", "F08", "A06")
@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError])
def test_a_failure_at_any_write_of_a_commit_is_loud_and_loses_nothing(
    tmp_path: Path, disk: FaultyDisk, error: type[apsw.Error]
) -> None:
    path, confirmed, point, seen = tmp_path / "store.db", 2, 0, set()
    store = SqliteStore(path, vfs="faulty", exclusive=True)
    store.open()
    put(store, "entry:a", "entry:b")
    while True:
        disk.faults.left, disk.faults.fired, disk.faults.error = point, False, error
        failure = _refused(store, "entry:a", "entry:b")
        disk.faults.left = None
        store.close()
        count = _positions(path)
        if not disk.faults.fired:
            break
        assert failure is not None, f"failure at write {point} passed in silence"
        seen.add(type(failure))
        allowed = {confirmed}
        if isinstance(failure, FateUnknownError):
            allowed.add(confirmed + 2)
        assert count in allowed, f"after {failure!r} at write {point}"
        confirmed, point = count, point + 1
        store.open()
    assert count == confirmed + 2
    assert point > 4
    assert seen == {DiskError if error is apsw.FullError else FateUnknownError}


def test_after_a_commit_of_unknown_fate_only_reopening_helps(
    tmp_path: Path, disk: FaultyDisk
) -> None:
    store = SqliteStore(tmp_path / "store.db", vfs="faulty", exclusive=True)
    store.open()
    put(store, "entry:a", "entry:b")
    disk.faults.left = 1
    with pytest.raises(FateUnknownError) as caught:
        put(store, "entry:a")
    disk.faults.left = None
    assert "injected" in caught.value.problem
    with pytest.raises(NotOpenError, match="doubt"):
        store.read("entry:a")
    with pytest.raises(NotOpenError, match="doubt"):
        put(store, "entry:a")
    store.close()
    store.open()
    assert store.head.position in (2, 3)
    put(store, "entry:a")
    store.close()


def test_a_checkpoint_that_fails_stops_no_work(
    tmp_path: Path, disk: FaultyDisk
) -> None:
    store = SqliteStore(tmp_path / "store.db", vfs="faulty", exclusive=True)
    store.open()
    put(store, "entry:a", "entry:b")
    disk.faults.left = 0
    assert not store.checkpoint()
    assert isinstance(store.checkpoint_failure, DiskError)
    disk.faults.left = None
    put(store, "entry:a")
    assert store.checkpoint()
    assert store.checkpoint_failure is None
    store.close()
    assert _positions(tmp_path / "store.db") == 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    done = subprocess.run(words, check=False, capture_output=True)
    if done.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.case("Q03")
def test_a_full_disk_is_loud_and_work_goes_on_when_there_is_room(
    small_disk: Path,
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(100_000))
    path = small_disk / "store.db"
    store = SqliteStore(path)
    store.open()
    records, failure = put(store, "entry:a", "entry:b"), None
    while failure is None:
        try:
            records += put(store, "entry:a", "entry:b")
        except StoreError as exc:
            failure = exc
    assert isinstance(failure, DiskError)
    assert "nothing of this call was stored" in str(failure)
    assert list(store.log()) == records
    ballast.unlink()
    records += put(store, "entry:a")
    store.close()
    store.open()
    assert list(store.log()) == records
    store.close()


@pytest.mark.case("Q03")
def test_a_large_body_that_finds_no_room_leaves_nothing(small_disk: Path) -> None:
    store = SqliteStore(small_disk / "store.db")
    store.open()
    put(store, "entry:a", "entry:b")
    large = body(noise(2_000_000))
    with pytest.raises(DiskError), store.write() as tx:
        tx.append(Append(bodies=[large]))
    with pytest.raises(MissingBodyError):
        store.body(large.digest)
    folder = small_disk / "store.db.bodies"
    assert list(folder.iterdir()) == []
    put(store, "entry:a")
    store.close()


def test_a_large_body_is_durable_before_the_commit_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fsync is recorded with what the log shows at that moment."""
    path, seen = tmp_path / "store.db", []
    store = SqliteStore(path)
    store.open()
    real = sqlite_bodies.os.fsync

    def fsync(handle: int) -> None:
        name = Path(f"/proc/self/fd/{handle}").readlink().name
        seen.append((name.partition(".")[2] or name, store.head.position))
        real(handle)

    monkeypatch.setattr(sqlite_bodies.os, "fsync", fsync)
    large = body(noise(100_000))
    with store.write() as tx:
        tx.append(Append(records=[record(1, "entry:a", 1)], bodies=[large]))
    store.close()
    kinds = [name.rpartition(".")[2] for name, _ in seen]
    assert kinds[-2:] == ["new", "bodies"]
    assert {position for _, position in seen} == {0}


def test_a_body_file_that_was_changed_or_lost_is_told(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    store.open()
    changed, lost = body(noise(100_000)), body(noise(100_001))
    with store.write() as tx:
        tx.append(Append(bodies=[changed, lost]))
    for file in (tmp_path / "store.db.bodies").iterdir():
        if file.stat().st_size == 100_000:
            file.write_bytes(b"something else")
        else:
            file.unlink()
    with pytest.raises(StoreError, match="digest"):
        store.body(changed.digest)
    with pytest.raises(MissingBodyError):
        store.body(lost.digest)
    store.close()
