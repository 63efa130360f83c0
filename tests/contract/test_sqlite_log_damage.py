"""Damage in the write-ahead log of SQLite is told from a torn end."""

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from turnfold import Kernel
from turnfold.enums import Phase
from turnfold.errors import DamagedError
from turnfold_adapters.stores.sqlite.files import MarkFile
from turnfold_adapters.stores.sqlite.log_damage import lost_commits
from turnfold_adapters.stores.sqlite.wal import FRAME, HEADER
from turnfold_model.testing.gateway import entry, route

_KILLED = """
import asyncio, os, sys
from turnfold import Kernel
from turnfold_model.testing.gateway import route
async def main():
    kernel = Kernel(sys.argv[1])
    await kernel.open()
    if sys.argv[2] == "moved":
        await kernel.enqueue(route(), "moved to the database")
        await kernel.store.maintenance.checkpoint()
    for number in range(20):
        await kernel.enqueue(route(), f"before {number}")
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A store whose worker was killed, with a log that begins behind 2 records."""
    db = tmp_path / "g.db"
    subprocess.run([sys.executable, "-c", _KILLED, str(db), "moved"], check=False)
    return db


def _flip(db: Path, place: int) -> None:
    wal = Path(f"{db}-wal")
    data = bytearray(wal.read_bytes())
    data[place] ^= 4
    wal.write_bytes(data)


def _frames(db: Path) -> int:
    return (len(Path(f"{db}-wal").read_bytes().rstrip(b"\0")) - HEADER) // FRAME


_PLACES: dict[str, Callable[[Path], int]] = {
    "the header of the log": lambda db: 20,
    "the first frame": lambda db: HEADER + 500,
    "the salts of a frame": lambda db: HEADER + 7 * FRAME + 9,
    "the middle": lambda db: HEADER + _frames(db) // 2 * FRAME + 3000,
}


@pytest.mark.case("W06")
@pytest.mark.parametrize("place", list(_PLACES))
async def test_commits_that_a_damaged_log_lost_make_the_rest_doubtful(
    killed: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    _flip(killed, _PLACES[place](killed))
    async with Kernel(killed, work=False) as kernel:  # whoever opens it first
        await kernel.enqueue(route(), "in between")
    async with Kernel(killed) as kernel:
        assert "its log is damaged" in caplog.text
        assert "older copy of itself" in caplog.text
        assert kernel.health()["parked"] == kernel.health()["open_entries"] - 1
    caplog.clear()
    async with Kernel(killed) as kernel:
        assert caplog.messages == [m for m in caplog.messages if "damaged" not in m]
        mark = MarkFile(str(killed)).read()
        assert mark is not None
        assert await kernel.store.maintenance.contains_head(mark.head)


@pytest.mark.case("W06")
async def test_a_torn_end_of_a_log_is_no_damage(
    killed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The last transaction was not written whole: nobody was told that it is stored."""
    caplog.set_level(logging.ERROR)
    _flip(killed, HEADER + (_frames(killed) - 1) * FRAME + 1000)
    async with Kernel(killed) as kernel:
        assert caplog.messages == []
        assert kernel.health()["parked"] == 0
        assert kernel.health()["open_entries"] == 20


@pytest.fixture
def unmoved(tmp_path: Path) -> Path:
    """A store whose worker was killed, with everything in its log."""
    db = tmp_path / "g.db"
    subprocess.run([sys.executable, "-c", _KILLED, str(db), "new"], check=False)
    return db


@pytest.mark.case("W06")
async def test_a_store_of_which_nothing_can_be_read_is_not_begun_anew(
    unmoved: Path,
) -> None:
    db = unmoved
    _flip(db, HEADER + 2)
    with pytest.raises(DamagedError, match="no commit is left"):
        await Kernel(db).open()
    assert _frames(db) > 20  # it can still be mended


@pytest.mark.case("W06")
async def test_a_log_that_begins_anew_is_no_damage(
    killed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Frames of the life before stand behind the end of the log."""
    caplog.set_level(logging.ERROR)
    async with Kernel(killed) as kernel:
        for number in range(5):
            await kernel.enqueue(route(), f"later {number}")
        copy = killed.with_name("copy.db")
        shutil.copy(f"{killed}-wal", f"{copy}-wal")
        last = await kernel.enqueue(route(), "last")
        async with Kernel(killed, work=False):
            pass
        assert entry(kernel, last.entry_id).phase is Phase.QUEUED
    assert caplog.messages == []


@pytest.mark.case("W06")
async def test_damage_is_told_once(killed: Path) -> None:
    """The damaged log is moved and cut off once what is open is doubtful, so a worker
    that is killed after that leaves no proof for the next one."""
    _flip(killed, _PLACES["the middle"](killed))
    async with Kernel(killed) as kernel:
        assert kernel.health()["parked"] > 0
        assert lost_commits(str(killed)) is None
