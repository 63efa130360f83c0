"""kill -9 in the middle of commits: a commit that was confirmed is there, and each
command is logged once."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from turnfold._log.canonical import hash_of
from turnfold.ports.store import Store, now
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.checks.store_kit import read, running, whole_log

# Writes until it is killed; says the position after each COMMIT. Every third commit has
# a large body; when idle, every fifth asks for a checkpoint, and else the log is moved
# in a thread each 127 pages.
CHILD = """
import asyncio, sys
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.checks.store_kit import *
async def main():
    store = SqliteStore(sys.argv[1], wal_bytes=100_000, flush=sys.argv[3])
    await store.open()
    count = (await head_of(store)).position
    while True:
        await put(store, "entry:a", f"entry:{count}", "turn:b")
        if count % 9 == 0:
            await write(store, bodies=[body(f"entry:{count}", 1, noise(70_000 + count))])
        count += 3
        if count % 5 == 0 and sys.argv[2] == "idle":
            await store.checkpoint()
        print(count, flush=True)
asyncio.run(main())
"""

# Posts commands, and reads and logs them as their owner would.
OWNER = """
import asyncio, sys
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.checks.store_kit import *
async def main():
    store = SqliteStore(sys.argv[1], wal_bytes=100_000)
    await store.open()
    number = len(await store.keys("", 100_000)) + len(await store.inbox(100_000))
    while True:
        for _ in range(3):
            name = f"turn:{number}"
            await store.post([command(name, name, key=f"k{number:06}")])
            number += 1
        position = (await head_of(store)).position
        commands = await store.inbox(4)
        records = [record(position + n, c.stream, 1) for n, c in enumerate(commands, 1)]
        keys = [(c.key, c.stream) for c in commands]
        done = [c.id for c in commands]
        await write(store, records=records, keys=keys, done=done)
        print(number, flush=True)
asyncio.run(main())
"""


def _killed(words: list[str], chance: random.Random) -> int:
    """Run a child for some lines and kill it; the last number that it said."""
    said = 0
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(chance.randrange(1, 40)):
            said = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        rest = [int(line) for line in child.stdout.read().split("\n")[:-1]]
        return max([said, *rest])


def _opened(path: Path) -> Store:
    store = SqliteStore(path, flush="loop")
    now(store.open())
    return store


@pytest.mark.case("F08", "Q03")
@pytest.mark.parametrize(("pace", "flush"), [("idle", "auto"), ("busy", "thread")])
def test_a_confirmed_commit_survives_kill_9(
    tmp_path: Path, pace: str, flush: str
) -> None:
    path, chance = tmp_path / "store.db", random.Random(7)
    for _ in range(10):
        words = [sys.executable, "-c", CHILD, str(path), pace, flush]
        confirmed = _killed(words, chance)
        store = _opened(path)
        records = now(whole_log(store))
        assert len(records) >= confirmed, "a confirmed commit is gone"
        assert len(records) % 3 == 0, "half a commit is there"
        assert now(store.load()).head == running(records)
        assert all(hash_of(record) == record.hash for record in records)
        assert len(now(read(store, "entry:a"))) == len(records) // 3
        now(store.close())


@pytest.mark.case("F08")
def test_a_command_is_logged_once_though_its_owner_is_killed(tmp_path: Path) -> None:
    path, chance = tmp_path / "store.db", random.Random(8)
    for _ in range(10):
        posted = _killed([sys.executable, "-c", OWNER, str(path)], chance)
        store = _opened(path)
        logged = [record.stream for record in now(whole_log(store))]
        waiting = [command.stream for command in now(store.inbox(100_000))]
        assert len(logged + waiting) >= posted, "a posted command is gone"
        wanted = [f"turn:{number}" for number in range(len(logged + waiting))]
        assert logged + waiting == wanted, "each is there once, in order"
        assert [s for _, s in now(store.keys("", 100_000))] == logged
        now(store.close())
