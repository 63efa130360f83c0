"""Erasing really erases: afterwards no file of the store holds a byte of it."""

import hashlib
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import apsw
import pytest

from turnfold.errors import DiskError, MissingBodyError
from turnfold.ports.store import Append, Body
from turnfold_adapters.stores import sqlite_bodies
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.store_kit import body, put, record

WORD, STEP = 24, 1_500  # a body is looked for by pieces, several to a page


def _store(path: Path, **options: object) -> SqliteStore:
    store = SqliteStore(path, **options)  # type: ignore[arg-type]
    store.open()
    return store


def _secret(name: str, size: int) -> Body:
    """A body of which every piece can be told from all others."""
    data = hashlib.shake_128(name.encode()).digest(size)
    salt = hashlib.shake_128(b"salt" + name.encode()).digest(16)
    return body(data, salt)


def _traces(folder: Path, bodies: list[Body]) -> list[str]:
    """Where pieces of these bodies, or of their salts, are found on the disk."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    zeros = bytes(64)
    contents = {file.name: file.read_bytes().replace(zeros, b"") for file in files}
    return [
        f"{len(item.data)} bytes in {name}"
        for item in bodies
        for name, content in contents.items()
        if any(piece in content for piece in _pieces(item))
    ]


def _pieces(item: Body) -> list[bytes]:
    starts = range(0, len(item.data) - WORD, STEP)
    return [item.salt, item.data[-WORD:], *(item.data[a : a + WORD] for a in starts)]


def _keep(store: SqliteStore, bodies: list[Body]) -> None:
    with store.write() as tx:
        tx.append(Append(bodies=bodies))


def _erase(store: SqliteStore, bodies: list[Body]) -> None:
    with store.write() as tx:
        version = len(tx.read("entry:a")) + 1
        new = record(tx.head.position + 1, "entry:a", version)
        tx.append(Append(records=[new], erase=[item.digest for item in bodies]))


SIZES = (30, 500, 5_000, 30_000, 64 * 1024, 200_000)


@pytest.mark.case("N03")
@pytest.mark.parametrize("moved", [False, True])
def test_what_was_erased_is_in_no_file(tmp_path: Path, moved: bool) -> None:
    store = _store(tmp_path / "store.db")
    gone = [_secret(f"gone {size}", size) for size in SIZES]
    kept = [_secret(f"kept {size}", size) for size in SIZES]
    for pair in zip(gone, kept, strict=True):
        _keep(store, list(pair))
        if moved:  # into the main file, so that both hold a copy
            assert store.checkpoint()
    assert len(_traces(tmp_path, gone)) >= len(gone)
    _erase(store, gone)
    assert _traces(tmp_path, gone) == []
    assert [store.body(item.digest) for item in kept] == [item.data for item in kept]
    store.close()
    assert _traces(tmp_path, gone) == []


@pytest.mark.case("N03")
@pytest.mark.parametrize("seed", [0, 25, 28])
def test_no_order_of_storing_and_erasing_leaves_a_copy(
    tmp_path: Path, seed: int
) -> None:
    """Pages that split, fill up and empty again, bodies of all sizes that share one.
    With these seeds a DELETE moves neighbours and leaves a copy of one behind."""
    chance = random.Random(seed)
    store = _store(tmp_path / "store.db")
    alive: list[Body] = []
    dead: list[Body] = []
    for number in range(40):
        sizes = [40, 100, 300, 900, 2_000, 3_900, 9_000]
        fresh = [
            _secret(f"{seed}.{number}.{n}", chance.choice(sizes))
            for n in range(chance.randrange(1, 40))
        ]
        _keep(store, fresh)
        alive += fresh
        if chance.random() < 0.3:
            store.checkpoint()
        if chance.random() < 0.5:
            chance.shuffle(alive)
            count = chance.randrange(0, len(alive))
            now, alive = alive[:count], alive[count:]
            _erase(store, now)
            dead += now
            if number % 8 == 0:
                assert _traces(tmp_path, dead) == []
    assert len(dead) > 200
    _erase(store, alive)
    assert _traces(tmp_path, dead + alive) == []
    store.close()


def test_a_rolled_back_body_is_gone_with_the_next_erasing(tmp_path: Path) -> None:
    store = _store(tmp_path / "store.db")
    assert store._writer is not None
    store._writer.pragma("cache_size", 5)  # spills into the log before the COMMIT
    lost = [_secret(f"lost {n}", 30_000) for n in range(20)]
    known = _secret("known", 500)
    _keep(store, [known])
    with suppress(ZeroDivisionError), store.write() as tx:
        tx.append(Append(bodies=lost))
        tx.read("entry:a")
        raise ZeroDivisionError
    _erase(store, [known])
    assert _traces(tmp_path, [known, *lost]) == []
    store.close()


READER = """
import sys, apsw
conn = apsw.Connection(sys.argv[1])
rows = conn.execute("SELECT * FROM body")
next(rows)
print("reading", flush=True)
sys.stdin.read()
rows.close()
conn.close()
"""


def test_while_somebody_reads_the_erasing_is_finished_later(tmp_path: Path) -> None:
    store = _store(tmp_path / "store.db", busy_ms=50)
    gone = [_secret(f"gone {size}", size) for size in SIZES]
    _keep(store, gone)
    words = [sys.executable, "-c", READER, store.path]
    reader = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "reading\n"
    _erase(store, gone)
    assert store.checkpoint_failure is not None
    assert not store.checkpoint()
    assert _traces(tmp_path, gone) != []
    with pytest.raises(MissingBodyError):
        store.body(gone[0].digest)
    put(store, "entry:b")  # work goes on meanwhile
    reader.communicate("")
    assert store.checkpoint()
    assert store.checkpoint_failure is None
    assert _traces(tmp_path, gone) == []
    store.close()


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from test_sqlite_erasing import SIZES, _erase, _keep, _secret, _store
from turnfold_adapters.stores.sqlite_wal import Wal
from turnfold_adapters.stores.sqlite_bodies import BodyFolder
def die(*_, **__):
    os.kill(os.getpid(), 9)
store = _store(sys.argv[1])
gone = [_secret(f"gone {size}", size) for size in SIZES]
_keep(store, gone)
Wal.truncate = BodyFolder.doom = die
_erase(store, gone)
"""


def test_an_erasing_that_was_cut_short_is_finished_after_the_restart(
    tmp_path: Path,
) -> None:
    """Killed between the COMMIT and what comes after it."""
    folder = tmp_path / "store"
    folder.mkdir()
    path = folder / "store.db"
    words = [sys.executable, "-c", KILLED, str(path), str(Path(__file__).parent)]
    done = subprocess.run(words, check=False)
    assert done.returncode == -signal.SIGKILL
    gone = [_secret(f"gone {size}", size) for size in SIZES]
    store = _store(path)
    with pytest.raises(MissingBodyError):
        store.body(gone[-1].digest)
    assert _traces(folder, gone) != []
    assert store.checkpoint()
    assert store.sweep() == 1
    assert _traces(folder, gone) == []
    store.close()


def test_a_file_that_cannot_be_removed_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _store(tmp_path / "store.db")
    gone = _secret("gone", 200_000)
    _keep(store, [gone])
    real = sqlite_bodies.BodyFolder.discard

    def refuse(self: object, names: list[str]) -> None:
        if names:
            raise DiskError(path=str(tmp_path), problem="not now")

    monkeypatch.setattr(sqlite_bodies.BodyFolder, "discard", refuse)
    _erase(store, [gone])
    with pytest.raises(MissingBodyError):
        store.body(gone.digest)
    assert not store.checkpoint()
    assert isinstance(store.checkpoint_failure, DiskError)
    monkeypatch.setattr(sqlite_bodies.BodyFolder, "discard", real)
    assert store.checkpoint()
    assert store.checkpoint_failure is None
    assert _traces(tmp_path, [gone]) == []
    store.close()


def test_a_body_erased_and_stored_again_at_once_keeps_its_file(tmp_path: Path) -> None:
    store = _store(tmp_path / "store.db")
    item = _secret("large", 200_000)
    _keep(store, [item])
    with store.write() as tx:
        tx.append(Append(erase=[item.digest]))
        tx.append(Append(bodies=[item]))
    assert store.body(item.digest) == item.data
    store.close()


def test_every_connection_that_writes_erases_for_good(tmp_path: Path) -> None:
    store = _store(tmp_path / "store.db")
    assert store._writer is not None
    assert store._writer.pragma("secure_delete") == 1
    store.close()


def test_the_log_is_cut_off_only_after_an_erasing(tmp_path: Path) -> None:
    """It is grown ahead of use; an ordinary checkpoint keeps it."""
    path = tmp_path / "store.db"
    wal = Path(f"{path}-wal")
    store = _store(path)
    item = _secret("text", 500)
    _keep(store, [item])
    assert store.checkpoint()
    assert wal.stat().st_size > 0
    _erase(store, [item])
    assert wal.stat().st_size == 0
    put(store, "entry:b")
    assert wal.stat().st_size >= 2 * 1024 * 1024
    store.close()


def test_a_sweep_with_nothing_to_remove_writes_nothing(tmp_path: Path) -> None:
    store = _store(tmp_path / "store.db")
    assert store._writer is not None
    _keep(store, [_secret("large", 200_000)])
    statements: list[str] = []

    def trace(_cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        statements.append(sql)
        return True

    store._writer.exec_trace = trace
    assert store.sweep() == 0
    assert statements == []
    (tmp_path / "store.db.bodies" / ("ab" * 32)).write_bytes(b"never named")
    assert store.sweep() == 1
    assert statements[0] == "BEGIN IMMEDIATE"
    store.close()
