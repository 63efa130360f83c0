"""The files of a SQLite store: whose they are, who may read them, what is swept."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from turnfold import File, Kernel
from turnfold.errors import TurnfoldError, UnsafeStoreError
from turnfold_adapters.stores.sqlite.files import BodyFolder, MarkFile
from turnfold_model.testing.gateway import route, until

_LARGE = File(data=b"x" * 100_000, name="f")


def _gone(db: Path) -> None:
    db.unlink()


def _moved(db: Path) -> None:
    db.rename(f"{db}.old")


def _replaced(db: Path) -> None:
    copy = Path(f"{db}.copy")
    copy.write_bytes(db.read_bytes())
    copy.replace(db)


def _wal_gone(db: Path) -> None:
    Path(f"{db}-wal").unlink()


_MEDDLE = [
    pytest.param(_gone, marks=pytest.mark.case("W01")),
    pytest.param(_moved, marks=pytest.mark.case("W01")),
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
