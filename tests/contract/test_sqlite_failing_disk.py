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
    NotOpenError,
    StoreError,
)
from turnfold_adapters.stores.sqlite import SqliteStore, files
from turnfold_model.checks.store_kit import (
    body,
    body_in,
    head_of,
    noise,
    put,
    read,
    record,
    running,
    whole_log,
    write,
)


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


async def _refused(store: SqliteStore, *streams: str) -> StoreError | None:
    try:
        await put(store, *streams)
    except StoreError as exc:
        return exc
    return None


async def _positions(path: Path) -> int:
    store = SqliteStore(path)
    await store.open()
    records = await whole_log(store)
    loaded = await store.load()
    assert loaded.head == running(records)
    assert len(loaded.open) == 2
    await store.close()
    return len(records)


@pytest.mark.case("Q03", "F08", "A06")
@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError])
async def test_a_failure_at_any_write_of_a_commit_is_loud_and_loses_nothing(
    tmp_path: Path, disk: FaultyDisk, error: type[apsw.Error]
) -> None:
    path, confirmed, point, seen = tmp_path / "store.db", 2, 0, set()
    store = SqliteStore(path, vfs="faulty", exclusive=True)
    await store.open()
    await put(store, "entry:a", "entry:b")
    while True:
        disk.faults.left, disk.faults.fired, disk.faults.error = point, False, error
        failure = await _refused(store, "entry:a", "entry:b")
        disk.faults.left = None
        await store.close()
        count = await _positions(path)
        if not disk.faults.fired:
            break
        assert failure is not None, f"failure at write {point} passed in silence"
        seen.add(type(failure))
        allowed = {confirmed}
        if isinstance(failure, FateUnknownError):
            allowed.add(confirmed + 2)
        assert count in allowed, f"after {failure!r} at write {point}"
        confirmed, point = count, point + 1
        await store.open()
    assert count == confirmed + 2
    assert point > 4
    assert seen == {DiskError if error is apsw.FullError else FateUnknownError}


async def test_after_a_commit_of_unknown_fate_only_reopening_helps(
    tmp_path: Path, disk: FaultyDisk
) -> None:
    store = SqliteStore(tmp_path / "store.db", vfs="faulty", exclusive=True)
    await store.open()
    await put(store, "entry:a", "entry:b")
    disk.faults.left = 1
    with pytest.raises(FateUnknownError) as caught:
        await put(store, "entry:a")
    disk.faults.left = None
    assert "injected" in caught.value.problem
    with pytest.raises(NotOpenError, match="doubt"):
        await read(store, "entry:a")
    with pytest.raises(NotOpenError, match="doubt"):
        await put(store, "entry:a")
    await store.close()
    await store.open()
    assert (await head_of(store)).position in (2, 3)
    await put(store, "entry:a")
    await store.close()


async def test_a_checkpoint_that_fails_stops_no_work(
    tmp_path: Path, disk: FaultyDisk
) -> None:
    store = SqliteStore(tmp_path / "store.db", vfs="faulty", exclusive=True)
    await store.open()
    await put(store, "entry:a", "entry:b")
    disk.faults.left = 0
    assert not await store.checkpoint()
    assert isinstance(store.checkpoint_failure, DiskError)
    disk.faults.left = None
    await put(store, "entry:a")
    assert await store.checkpoint()
    assert store.checkpoint_failure is None
    await store.close()
    assert await _positions(tmp_path / "store.db") == 3


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
async def test_a_full_disk_is_loud_and_work_goes_on_when_there_is_room(
    small_disk: Path,
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(100_000))
    path = small_disk / "store.db"
    store = SqliteStore(path)
    await store.open()
    records, failure = await put(store, "entry:a", "entry:b"), None
    while failure is None:
        try:
            records += await put(store, "entry:a", "entry:b")
        except StoreError as exc:
            failure = exc
    assert isinstance(failure, DiskError)
    assert "nothing of this call was stored" in str(failure)
    assert await whole_log(store) == records
    ballast.unlink()
    records += await put(store, "entry:a")
    await store.close()
    await store.open()
    assert await whole_log(store) == records
    await store.close()


@pytest.mark.case("Q03")
async def test_a_large_body_that_finds_no_room_leaves_nothing(small_disk: Path) -> None:
    store = SqliteStore(small_disk / "store.db")
    await store.open()
    await put(store, "entry:a", "entry:b")
    large = body("entry:a", 1, noise(2_000_000))
    with pytest.raises(DiskError):
        await write(store, bodies=[large])
    assert await body_in(store, "entry:a", 1) is None
    folder = small_disk / "store.db.bodies"
    assert list(folder.iterdir()) == []
    await put(store, "entry:a")
    await store.close()


@pytest.mark.parametrize("flush", ["loop", "auto"])
async def test_a_large_body_is_durable_before_the_commit_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush: str
) -> None:
    """Each fsync is recorded with the end of the log at that moment."""
    path, seen = tmp_path / "store.db", []
    store = SqliteStore(path, flush=flush)
    await store.open()
    real = files.os.fsync

    def fsync(handle: int) -> None:
        name = Path(f"/proc/self/fd/{handle}").readlink().name
        end = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        count = end.execute("SELECT count(*) FROM log").get
        end.close()
        seen.append((name.partition(".")[2] or name, count))
        real(handle)

    monkeypatch.setattr(files.os, "fsync", fsync)
    large = body("entry:a", 1, noise(100_000))
    await write(store, records=[record(1, "entry:a", 1)], bodies=[large])
    await store.close()
    kinds = [name.rpartition(".")[2] for name, _ in seen]
    assert kinds[-2:] == ["new", "bodies"]
    assert {position for _, position in seen} == {0}


async def test_a_body_file_that_was_changed_or_lost_is_told(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    changed, lost = (body("entry:a", n, noise(100_000)) for n in (1, 2))
    kept = body("entry:a", 3, b"kept")
    records = [record(1, "entry:a", 1)]
    await write(store, records=records, bodies=[changed, lost, kept])
    folder = tmp_path / "store.db.bodies"
    (folder / "1-1").write_bytes(b"something else")
    (folder / "1-2").unlink()
    found = await body_in(store, "entry:a", 1)
    assert found is not None
    assert found.data == b"something else", "its digest will not fit"
    assert await body_in(store, "entry:a", 2) is None
    assert [b.number for b in await store.bodies()] == [1, 3]
    assert [b.number for b in await store.bodies(("entry:a", 1), 1)] == [3]
    (folder / "1-1").unlink()
    (folder / "1-1").mkdir()
    with pytest.raises(DiskError):
        await body_in(store, "entry:a", 1)
    await store.close()
