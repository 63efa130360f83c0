"""The files of a SQLite store: whose they are, who may read them, what is swept."""

import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from turnfold import File, Kernel
from turnfold.errors import DiskError, LostStoreError, TurnfoldError, UnsafeStoreError
from turnfold_adapters.stores.sqlite.files import BodyFolder, MarkFile
from turnfold_model.testing.gateway import driver_of, route, until

_LARGE = File(data=b"x" * 100_000, name="f")


def _gone(db: Path) -> None:
    db.unlink()


def _moved(db: Path) -> None:
    db.rename(f"{db}.old")


def _replaced(db: Path) -> None:
    copy = Path(f"{db}.copy")
    copy.write_bytes(db.read_bytes())
    copy.replace(db)


def _closed_by_another_library(db: Path) -> None:
    """Python's own SQLite in this process: closing it drops our locks."""
    conn = sqlite3.connect(db)
    conn.execute("SELECT count(*) FROM log").fetchone()
    conn.close()


def _wal_gone(db: Path) -> None:
    Path(f"{db}-wal").unlink()


_MEDDLE = [
    pytest.param(_gone, marks=pytest.mark.case("W01")),
    pytest.param(_moved, marks=pytest.mark.case("W01")),
    pytest.param(_closed_by_another_library, marks=pytest.mark.case("W02")),
    pytest.param(_wal_gone, marks=pytest.mark.case("W03")),
    pytest.param(_replaced, marks=pytest.mark.case("W04")),
]


@pytest.mark.parametrize("meddle", _MEDDLE)
async def test_nothing_is_called_durable_in_files_that_lost_their_name(
    tmp_path: Path, meddle: Callable[[Path], None]
) -> None:
    db = tmp_path / "g.db"
    kernel = Kernel(db)
    async with kernel:
        await kernel.enqueue(route(), "before")
        meddle(db)
        for _ in range(3):
            with pytest.raises(TurnfoldError):
                await kernel.enqueue(route(), "after")


@pytest.mark.case("W01")
async def test_a_worker_whose_database_is_gone_stands_down(tmp_path: Path) -> None:
    db = tmp_path / "g.db"
    kernel = Kernel(db)
    async with kernel:
        await kernel.enqueue(route(), "before")
        db.rename(tmp_path / "elsewhere")
        await until(lambda: not kernel.working)


@pytest.mark.case("W04", "S14")
async def test_health_answers_when_the_files_cannot_be_read(tmp_path: Path) -> None:
    db = tmp_path / "g.db"
    kernel = Kernel(db)
    async with kernel:
        await kernel.enqueue(route(), "before")
        os.truncate(f"{db}-wal", 0)
        for _ in range(3):
            with pytest.raises(TurnfoldError):
                await kernel.enqueue(route(), "after")
            assert kernel.health()["position"] > 0


async def test_a_pipe_in_the_place_of_the_mark_is_refused(tmp_path: Path) -> None:
    """Reading it would never end."""
    async with Kernel(tmp_path / "g.db"):
        pass
    mark = tmp_path / "g.db.mark"
    mark.unlink()
    os.mkfifo(mark)
    with pytest.raises(DiskError, match="no regular file; take it away"):
        await Kernel(tmp_path / "g.db").open()


def _open_to_others(folder: Path) -> dict[str, str]:
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in folder.rglob("*")}
    return {name: oct(mode) for name, mode in modes.items() if mode & 0o077}


@pytest.mark.case("W08")
@pytest.mark.parametrize("umask", [0o022, 0o000])
async def test_nobody_else_may_read_what_is_made(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        async with Kernel(tmp_path / "g.db") as kernel:
            await kernel.enqueue(route(), _LARGE)
            assert _open_to_others(tmp_path) == {}
    finally:
        os.umask(before)


@pytest.mark.case("W08")
async def test_a_link_in_the_place_of_a_mark_is_not_written_through(
    tmp_path: Path,
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "g.db.mark.new").symlink_to(victim)
    async with Kernel(tmp_path / "g.db") as kernel:
        await kernel.enqueue(route(), "x")
    assert MarkFile(str(tmp_path / "g.db")).read() is not None
    assert victim.read_text() == "precious"


@pytest.mark.case("W07")
def test_a_sweep_sees_only_files_of_its_own_and_looks_through_no_link(
    tmp_path: Path,
) -> None:
    real = tmp_path / "g.db.bodies"
    real.mkdir()
    for name in ("README", "17-0", "17-0.4711.new"):
        (real / name).write_text("x")
    (real / "18-0").mkdir()
    (real / "19-0").symlink_to(real / "README")
    assert BodyFolder(str(tmp_path / "g.db")).names() == ["17-0", "17-0.4711.new"]
    (tmp_path / "h.db.bodies").symlink_to(real)
    assert BodyFolder(str(tmp_path / "h.db")).names() == []


@pytest.mark.case("Y12")
async def test_a_system_without_record_locks_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnfold_adapters.stores.sqlite.store._HAS_LOCKS", False)
    with pytest.raises(UnsafeStoreError, match="record locks"):
        await Kernel(tmp_path / "g.db").open()


def _cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda db: os.truncate(f"{db}{name}", size)


_CUTS = [_cut("-wal", 0), _cut("-wal", 32 + 3 * 4120), _cut("", 4096)]


@pytest.mark.case("W03", "W04")
@pytest.mark.parametrize(
    "meddle",
    [_wal_gone, _replaced, *_CUTS],
    ids=["log gone", "replaced", "log emptied", "log cut", "database cut"],
)
async def test_a_worker_whose_files_are_meddled_with_stands_down(
    tmp_path: Path, meddle: Callable[[Path], None]
) -> None:
    """Nothing more is called durable, and health says that nobody works."""
    db = tmp_path / "g.db"
    async with Kernel(db) as kernel:
        for number in range(20):
            await kernel.enqueue(route(), f"before {number}")
        await kernel.store.maintenance.checkpoint()
        for number in range(20):
            await kernel.enqueue(route(), f"later {number}")
        meddle(db)
        with pytest.raises(LostStoreError, match="under this process"):
            await kernel.enqueue(route(), "after")
        assert isinstance(driver_of(kernel).journal.replaced, LostStoreError)
        await until(lambda: not kernel.working)
        with pytest.raises(LostStoreError):
            await kernel.enqueue(route(), "after that")


def _bytes(file: Path) -> bytes:
    return file.read_bytes()


@pytest.mark.case("W03", "W04")
@pytest.mark.parametrize("meddle", [_wal_gone, _CUTS[0]], ids=["log gone", "log cut"])
async def test_a_worker_without_work_notices_that_its_log_is_lost(
    tmp_path: Path, meddle: Callable[[Path], None]
) -> None:
    db = tmp_path / "g.db"
    async with Kernel(db) as kernel:
        await kernel.enqueue(route(), "before")
        meddle(db)
        await until(lambda: not kernel.working)


@pytest.mark.case("W04")
async def test_what_is_left_of_a_log_that_was_cut_off_can_be_read(
    tmp_path: Path,
) -> None:
    """No part of the cut log is moved to the database when it is closed."""
    db = tmp_path / "g.db"
    async with Kernel(db) as kernel:
        for number in range(30):
            await kernel.enqueue(route(), f"before {number}")
        written, wal = db.stat().st_mtime_ns, Path(f"{db}-wal")
        frames = (len(_bytes(wal).rstrip(b"\0")) - 32) // 4120
        os.truncate(wal, 32 + (frames - 1) * 4120)
    assert db.stat().st_mtime_ns == written
    async with Kernel(db) as kernel:
        assert kernel.working
        assert await kernel.store.maintenance.integrity() == []
        assert kernel.health()["open_entries"] > 0


def _size(db: Path) -> int:
    return Path(f"{db}-wal").stat().st_size


async def test_a_log_that_another_process_moves_and_cuts_off_is_not_lost(
    tmp_path: Path,
) -> None:
    db = tmp_path / "g.db"
    async with Kernel(db) as kernel:
        await kernel.enqueue(route(), "before")
        other = apsw.Connection(str(db))
        other.execute("SELECT count(*) FROM log").fetchall()
        other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        other.close()
        assert _size(db) == 0
        await kernel.enqueue(route(), "after")
        assert kernel.health()["open_entries"] == 2


_ODD_PATHS = ["~nosuchuser/x.db", "x" * 255, "sur\udcffogate.db", "\0", "", "x/" * 3000]


@pytest.mark.case("W12")
@pytest.mark.parametrize("path", _ODD_PATHS)
async def test_an_odd_path_gives_one_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TurnfoldError) as caught:
        await Kernel(path).open()
    str(caught.value).encode()


@pytest.mark.case("W12")
async def test_a_store_with_two_names_is_refused(tmp_path: Path) -> None:
    async with Kernel(tmp_path / "g.db"):
        pass
    os.link(tmp_path / "g.db", tmp_path / "other.db")
    with pytest.raises(UnsafeStoreError, match="hard link"):
        await Kernel(tmp_path / "other.db").open()


@pytest.mark.case("W09")
async def test_only_its_user_may_lock_the_file_of_a_worker(tmp_path: Path) -> None:
    """An older release made it readable, and who may read it may hold a lock on it."""
    lock = tmp_path / "g.db.worker"
    lock.touch(0o644)
    async with Kernel(tmp_path / "g.db"):
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600
