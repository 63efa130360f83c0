"""prune, archive, backup and restore are killed at each of their steps: nothing is lost, and the
same command again ends well.

A step is a call that changes a disk: a COMMIT, a rename, a removal, an fsync, the copy of
the pages. A process runs the command and dies by SIGKILL before the step with its number;
the next one dies a step later, until one ends. What is on the disk is audited each time.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from turnfold import Settings
from turnfold.audit import audit_archive, audit_store
from turnfold.inspect import archive
from turnfold.ports.store import Listing, store_at
from turnfold_adapters.stores.archive import ArchiveStore
from turnfold_model.testing.clock import FakeClock
from turnfold_model.testing.gateway import Gateway, in_file, inbound, route, spin

pytestmark = pytest.mark.timeout(300)
DAY = 24 * 3_600_000
SHORT = Settings(dedupe_ms=DAY, final_ttl_ms=9_999 * DAY)
STEPS = 150

# Forks a child for each life, so that the modules are loaded once.
LIVES = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from tests.crash.forking import forked
from tests.crash.test_keep_killed import look
import turnfold_cli.archive, turnfold_cli.prune, turnfold_cli.backup, turnfold_cli.restore
from turnfold_adapters.stores.sqlite import copying
from turnfold_adapters.stores.sqlite.writing import Writing
from turnfold_cli import app

def counted(owner, name, left):
    real = getattr(owner, name)
    def step(*args, **how):
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return real(*args, **how)
    setattr(owner, name, step)

def life(number):
    left = [number]
    for owner, name in (
        (Writing, "_end"), (copying, "_pages"), (copying, "_bodies"),
        (copying.Path, "replace"), (copying.Path, "unlink"), (os, "fsync"), (os, "mkdir"),
    ):
        counted(owner, name, left)
    sys.argv = ["turnfold", *words]
    app(words)()

words = sys.argv[3:]
for number in range(int(sys.argv[2]), 150):
    code = forked(life, number)
    # The life before this one died in its last step: all was done, and is refused now.
    done = number > 0 and any(map(os.path.exists, ("b.db", "g.db.replaced")))
    assert code in (0, -9) or (done and code in (2, 3)), code
    found = forked(look)
    assert found == 0, found
    if code != -9:
        print(f"ended after {number} steps")
        break
"""


def look() -> None:
    """Every store that has its name is whole, as it was or with less of what is over."""
    before = json.loads(Path("before.json").read_text("utf-8"))
    names = [n for n in ("g.db", "g.db.replaced", "b.db") if Path(n).exists()]
    assert names
    for name in names:
        if name == "g.db.replaced" and Path("g.db.bodies").exists():
            continue  # on its way: its bodies follow, or those of the new one are there
        after = asyncio.run(_states(Path(name)))
        assert after == {stream: before[stream] for stream in after}, name
        open_ones = {stream for stream, row in before.items() if row[0]}
        assert open_ones <= after.keys(), name
    if Path("archives").exists():
        _nothing_is_lost_or_doubled(before, after)


def _nothing_is_lost_or_doubled(
    before: dict[str, list[Any]], after: dict[str, list[Any]]
) -> None:
    """Each stream is in the store, or in one archive, or in both before it is pruned."""
    there = [path for path, _ in archive.manifests(Path("archives"))]
    held = [summary for path in there for summary in archive.read(path).summaries]
    assert len({s.stream for s in held}) == len(held)
    rows = {s.stream: [s.open, s.version, s.phase] for s in held}
    assert rows | after == before
    for path in there:
        assert asyncio.run(_passes(path)), path


async def _passes(path: Path) -> bool:
    store = ArchiveStore(path)
    await store.open(read_only=True)
    return (await audit_archive(store)).passed


async def _states(path: Path) -> dict[str, list[Any]]:
    """What stands in a store; its audit must pass."""
    store = store_at(str(path))
    await store.open(read_only=True)
    try:
        report = await audit_store(store)
        rows = await store.list(Listing(prefix="", limit=1_000))
    finally:
        await store.close()
    assert report.passed, report.first
    return {r.stream: [r.open, r.version, r.phase] for r in rows if r.stream != "store"}


async def _made(path: Path) -> None:
    """A store of long ago: turns with files that are over, and an entry that waits."""

    async def answer(handle: Any) -> None:
        await handle.reply(f"re: {handle.inbound.body['text']}")

    settings, clock = evolve(SHORT), FakeClock(1_500_000_000_000)
    gateway = Gateway(store=in_file(path), settings=settings, clock=clock)
    gateway.handler = answer
    kernel = await gateway.start()
    for number in range(3):
        await kernel.accept(inbound(str(number), text="x" * 70_000))
        await spin()
    await kernel.disconnected("t")
    await kernel.enqueue(route(), "waits")
    await spin()
    await gateway.end()


def _lives(folder: Path, first: int, *words: str) -> int:
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", LIVES, root, str(first), *words]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
    return int(done.stdout.rpartition("ended after ")[2].split()[0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    asyncio.run(_made(tmp_path / "g.db"))
    before = asyncio.run(_states(tmp_path / "g.db"))
    (tmp_path / "before.json").write_text(json.dumps(before))
    return tmp_path


@pytest.mark.case("X19")
def test_a_backup_is_whole_or_not_there(folder: Path) -> None:
    assert _lives(folder, 0, "backup", "b.db", "-s", "g.db") > 8
    left = {p.name for p in folder.iterdir() if p.name.startswith("b.db")}
    assert left == {"b.db", "b.db.bodies"}


@pytest.mark.case("X19", "W14")
def test_a_restore_ends_well_after_any_kill(folder: Path) -> None:
    _lives(folder, STEPS - 1, "backup", "b.db", "-s", "g.db")
    words = ("restore", "b.db", "-s", "g.db", "--replace", "--by", "ann")
    assert _lives(folder, 0, *words) > 8
    store = store_at(str(folder / "g.db"))

    async def waiting() -> list[str]:
        await store.open(read_only=True)
        commands = await store.inbox()
        await store.close()
        return [command.kind for command in commands]

    assert asyncio.run(waiting()) == ["declare_restored"]


@pytest.mark.case("N09", "W13")
def test_a_prune_goes_on_after_any_kill(folder: Path) -> None:
    words = ("prune", "--older", "1s", "--yes", "--clock-is-right", "-s", "g.db")
    assert _lives(folder, 0, *words) > 1
    after = asyncio.run(_states(folder / "g.db"))
    assert {row[0] for row in after.values()} == {True}


@pytest.mark.case("N09", "W13")
def test_an_archive_loses_nothing_and_takes_nothing_twice(folder: Path) -> None:
    (folder / "archives").mkdir()
    words = ("--older", "1s", "--yes", "--clock-is-right", "-s", "g.db")
    assert _lives(folder, 0, "archive", "archives", *words) > 4
    after = asyncio.run(_states(folder / "g.db"))
    assert {row[0] for row in after.values()} == {True}
    assert len(list((folder / "archives").iterdir())) == 1
