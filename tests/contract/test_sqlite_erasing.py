"""Erasing really erases: afterwards no file of the store holds a byte of it."""

import hashlib
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

from turnfold.errors import DiskError, InvalidInputError
from turnfold.ports.store import Body, Store
from turnfold_adapters.stores.sqlite import SqliteStore, files
from turnfold_model.checks.store_kit import (
    attempt,
    body,
    body_in,
    command,
    head_of,
    put,
    read,
    record,
    write,
)

WORD, STEP = 24, 1_500  # a body is looked for by pieces, several to a page


async def _store(path: Path, **options: Any) -> SqliteStore:
    store = SqliteStore(path, **options)
    await store.open()
    if not await read(store, "entry:a"):
        await put(store, "entry:a")
    return store


def _secret(name: str, size: int, stream: str = "entry:a", number: int = 0) -> Body:
    """A body of which every piece can be told from all others."""
    data = hashlib.shake_128(name.encode()).digest(size)
    salt = hashlib.shake_128(b"salt" + name.encode()).digest(16)
    return body(stream, number, data, salt)


def _secrets(name: str, *sizes: int, first: int = 0) -> list[Body]:
    numbered = enumerate(sizes, first)
    return [_secret(f"{name} {size}", size, number=number) for number, size in numbered]


def _traces(folder: Path, bodies: list[Body]) -> list[str]:
    """Where pieces of these bodies, or of their salts, are found on the disk."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    zeros = bytes(64)
    contents = {file.name: _read(file).replace(zeros, b"") for file in files}
    return [
        f"{len(item.data)} bytes in {name}"
        for item in bodies
        for name, content in contents.items()
        if any(piece in content for piece in _pieces(item))
    ]


def _read(file: Path) -> bytes:
    """By another process: closing a file of the store here would drop its locks."""
    code = "import pathlib, sys; sys.stdout.buffer.write(pathlib.Path(sys.argv[1]).read_bytes())"
    words = [sys.executable, "-S", "-c", code, str(file)]
    return subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout


def _pieces(item: Body) -> list[bytes]:
    starts = range(0, len(item.data) - WORD, STEP)
    return [item.salt, item.data[-WORD:], *(item.data[a : a + WORD] for a in starts)]


async def _keep(store: Store, bodies: list[Body]) -> None:
    await write(store, bodies=bodies)


async def _erase(store: Store, bodies: list[Body]) -> None:
    version = (await read(store, "entry:a"))[-1].version + 1
    new = record((await head_of(store)).position + 1, "entry:a", version)
    erase = [(item.stream, item.number) for item in bodies]
    await write(store, records=[new], erase=erase)


SIZES = (30, 500, 5_000, 30_000, 64 * 1024, 200_000)


@pytest.mark.case("N03")
@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("flush", ["auto", "thread"])
async def test_a_body_that_was_erased_is_in_no_file(
    tmp_path: Path, moved: bool, flush: str
) -> None:
    store = await _store(tmp_path / "store.db", flush=flush)
    gone, kept = _secrets("gone", *SIZES), _secrets("kept", *SIZES, first=50)
    for pair in zip(gone, kept, strict=True):
        await _keep(store, list(pair))
        if moved:  # into the main file, so that both hold a copy
            assert await store.checkpoint()
    assert len(_traces(tmp_path, gone)) >= len(gone)
    await _erase(store, gone)
    assert _traces(tmp_path, gone) == []
    found = [await body_in(store, item.stream, item.number) for item in kept]
    assert found == kept
    await store.close()
    assert _traces(tmp_path, gone) == []


@pytest.mark.case("N03")
@pytest.mark.parametrize("seed", [0, 6, 15])
async def test_no_order_of_storing_and_erasing_leaves_a_copy(
    tmp_path: Path, seed: int
) -> None:
    """Bodies of all sizes share pages that fill up and empty again, and some come late
    to older streams. With seeds 6 and 15 a copy stays behind without `late_body`."""
    chance = random.Random(seed)
    store = await _store(tmp_path / "store.db")
    alive: list[Body] = []
    dead: list[Body] = []
    for number in range(40):
        fresh = await _grown(store, chance, number)
        alive += fresh
        if chance.random() < 0.3:
            await store.checkpoint()
        if chance.random() < 0.5:
            chance.shuffle(alive)
            count = chance.randrange(0, len(alive))
            gone, alive = alive[:count], alive[count:]
            await _erase(store, gone)
            dead += gone
            if number % 4 == 0:
                assert _traces(tmp_path, dead) == []
    assert len(dead) > 200
    await _erase(store, alive)
    assert _traces(tmp_path, dead + alive) == []
    await store.close()


async def _grown(store: Store, chance: random.Random, step: int) -> list[Body]:
    """A new stream, with bodies for it and for older ones."""
    await put(store, f"entry:{step}")
    fresh = []
    for number in range(chance.randrange(1, 40)):
        late = chance.random() < 0.3
        stream = f"entry:{chance.randrange(step + 1) if late else step}"
        size = chance.choice([40, 100, 300, 900, 2_000, 3_900, 9_000])
        fresh.append(_secret(f"{step}.{number}", size, stream, step * 100 + number))
    await write(store, bodies=fresh)
    return fresh


@pytest.mark.case("N03")
@pytest.mark.parametrize("seed", [0, 1, 2])
async def test_a_body_that_came_through_the_inbox_leaves_no_copy_there(
    tmp_path: Path, seed: int
) -> None:
    """Rows of the inbox come and go in any order, and their neighbours move."""
    chance = random.Random(seed)
    store = await _store(tmp_path / "store.db")
    waiting: dict[str, Body] = {}
    dead: list[Body] = []
    for step in range(40):
        for number in range(chance.randrange(1, 30)):
            size = chance.choice([40, 100, 300, 900, 2_000])
            item = _secret(f"{step}.{number}", size, number=step * 100 + number)
            waiting[f"{step}.{number}"] = item
            await store.post([command(f"{step}.{number}", bodies=(item.data,))])
        done = [name for name in waiting if chance.random() < 0.6]
        logged = [waiting.pop(name) for name in done]
        await write(store, bodies=logged, done=done)
        if chance.random() < 0.3:
            await _erase(store, logged)
            dead += logged
            assert _traces(tmp_path, dead) == []
    assert [c.id for c in await store.inbox(10_000)] == list(waiting)
    await store.close()


async def test_a_rolled_back_body_is_gone_with_the_next_erasing(tmp_path: Path) -> None:
    store = await _store(tmp_path / "store.db")
    assert store._writer is not None
    store._writer.pragma("cache_size", 5)  # spills into the log before the COMMIT
    sizes = [30_000 + n for n in range(20)]
    lost, known = _secrets("lost", *sizes, first=50), _secret("known", 500)
    await _keep(store, [known])
    with pytest.raises(InvalidInputError):  # found when the bodies are written
        await attempt(store, bodies=[*lost, known])
    await _erase(store, [known])
    assert _traces(tmp_path, [known, *lost]) == []
    await store.close()


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


async def test_while_somebody_reads_the_erasing_is_finished_later(
    tmp_path: Path,
) -> None:
    store = await _store(tmp_path / "store.db", busy_ms=50)
    gone = _secrets("gone", *SIZES)
    await _keep(store, gone)
    words = [sys.executable, "-c", READER, store.path]
    reader = subprocess.Popen(  # noqa: ASYNC220  starts once
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "reading\n"
    await _erase(store, gone)
    assert store.checkpoint_failure is not None
    assert not await store.checkpoint()
    assert _traces(tmp_path, gone) != []
    assert await body_in(store, "entry:a", 0) is None
    await put(store, "entry:b")  # work goes on meanwhile
    reader.communicate("")
    assert await store.checkpoint()
    assert store.checkpoint_failure is None
    assert _traces(tmp_path, gone) == []
    await store.close()


KILLED = """
import asyncio, os, signal, sys
sys.path.insert(0, sys.argv[2])
from test_sqlite_erasing import SIZES, _erase, _keep, _secrets, _store
from turnfold_adapters.stores.sqlite.wal import Wal
from turnfold_adapters.stores.sqlite.files import BodyFolder
def die(*_, **__):
    os.kill(os.getpid(), 9)
async def main():
    store = await _store(sys.argv[1])
    gone = _secrets("gone", *SIZES)
    await _keep(store, gone)
    Wal.truncate = BodyFolder.erase = die
    await _erase(store, gone)
asyncio.run(main())
"""


async def test_an_erasing_that_was_cut_short_is_finished_after_the_restart(
    tmp_path: Path,
) -> None:
    """Killed between the COMMIT and the removal of files."""
    folder = tmp_path / "store"
    folder.mkdir()
    path = folder / "store.db"
    words = [sys.executable, "-c", KILLED, str(path), str(Path(__file__).parent)]
    done = subprocess.run(words, check=False)  # noqa: ASYNC221  nothing else runs
    assert done.returncode == -signal.SIGKILL
    gone = _secrets("gone", *SIZES)
    store = await _store(path)
    for item in gone:
        assert await body_in(store, item.stream, item.number) is None
    assert _traces(folder, gone) != []
    assert await store.checkpoint()
    assert await store.sweep() == 1
    assert _traces(folder, gone) == []
    await store.close()


async def test_a_file_that_cannot_be_removed_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await _store(tmp_path / "store.db")
    gone = _secret("gone", 200_000)
    await _keep(store, [gone])
    real = files.BodyFolder.discard

    def refuse(_self: object, names: list[str]) -> None:
        if names:
            raise DiskError(path=str(tmp_path), problem="not now")

    monkeypatch.setattr(files.BodyFolder, "discard", refuse)
    await _erase(store, [gone])
    assert await body_in(store, "entry:a", 0) is None
    assert not await store.checkpoint()
    assert isinstance(store.checkpoint_failure, DiskError)
    monkeypatch.setattr(files.BodyFolder, "discard", real)
    assert await store.checkpoint()
    assert store.checkpoint_failure is None
    assert _traces(tmp_path, [gone]) == []
    await store.close()


async def test_every_connection_that_writes_erases_for_good(tmp_path: Path) -> None:
    store = await _store(tmp_path / "store.db")
    assert store._writer is not None
    assert store._writer.pragma("secure_delete") == 1
    await store.close()


async def test_the_log_is_cut_off_only_after_an_erasing(tmp_path: Path) -> None:
    """It is grown ahead of use; an ordinary checkpoint keeps it."""
    path = tmp_path / "store.db"
    store = await _store(path)
    item = _secret("text", 500)
    await _keep(store, [item])
    assert await store.checkpoint()
    assert _log_size(path) > 0
    await _erase(store, [item])
    assert _log_size(path) == 0
    await put(store, "entry:b")
    assert _log_size(path) >= 2 * 1024 * 1024
    await store.close()


def _log_size(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


async def test_a_sweep_with_nothing_to_remove_writes_nothing(tmp_path: Path) -> None:
    store = await _store(tmp_path / "store.db")
    assert store._writer is not None
    await _keep(store, [_secret("large", 200_000)])
    statements: list[str] = []

    def trace(_cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        statements.append(sql)
        return True

    store._writer.exec_trace = trace
    assert await store.sweep() == 0
    assert "BEGIN IMMEDIATE" not in statements
    (tmp_path / "store.db.bodies" / "4711-3").write_bytes(b"never named")
    assert await store.sweep() == 1
    assert "BEGIN IMMEDIATE" in statements
    await store.close()
