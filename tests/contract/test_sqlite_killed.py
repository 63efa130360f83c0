"""kill -9 in the middle of transactions: what a process said is done is there."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from turnfold.codec import verify
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.store_kit import running

# Writes until it is killed; says the position after each COMMIT. Every third
# transaction has a large body; when idle, every fifth asks for a checkpoint, and else
# the log is moved in a thread each 127 pages.
CHILD = """
import sys
from turnfold.ports.store import Append
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.store_kit import body, noise, put
store = SqliteStore(sys.argv[1], wal_bytes=100_000)
store.open()
count = store.head.position
while True:
    put(store, "entry:a", f"entry:{count}", "turn:b")
    count = store.head.position
    if count % 3 == 0:
        with store.write() as tx:
            tx.append(Append(bodies=[body(noise(70_000 + count))]))
        store.body(body(noise(70_000 + count)).digest)
    if count % 5 == 0 and sys.argv[2] == "idle":
        store.checkpoint()
    print(count, flush=True)
"""


@pytest.mark.case("F08", "Q03")
@pytest.mark.parametrize("pace", ["idle", "busy"])
def test_what_was_confirmed_survives_kill_9(tmp_path: Path, pace: str) -> None:
    path, confirmed = tmp_path / "store.db", 0
    chance = random.Random(7)
    for _ in range(12):
        words = [sys.executable, "-c", CHILD, str(path), pace]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(chance.randrange(1, 40)):
                confirmed = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            rest = [int(line) for line in child.stdout.read().split("\n")[:-1]]
            confirmed = max([confirmed, *rest])
        store = SqliteStore(path)
        store.open()
        records = list(store.log())
        assert len(records) >= confirmed, "a confirmed transaction is gone"
        assert len(records) % 3 == 0, "half a transaction is there"
        assert store.head == running(records)
        assert all(verify(record) for record in records)
        assert len(store.read("entry:a")) == len(records) // 3
        store.close()
