"""Rows and pages that are not what was written: told by position, the rest still read."""

from pathlib import Path
from typing import Any

import apsw
import pytest

from turnfold._log.canonical import hash_of
from turnfold.errors import (
    BusyError,
    CorruptLogError,
    DamagedError,
    StoreError,
)
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.checks.store_kit import (
    body,
    body_in,
    head_of,
    put,
    read,
    whole_log,
    write,
)


async def _store(path: Path, **options: Any) -> SqliteStore:
    store = SqliteStore(path, **options)
    await store.open()
    return store


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    store = await _store(path)
    await put(store, "entry:a", "entry:b", "entry:a", "entry:c")
    await write(store, bodies=[body("entry:a", 1, b"text")])
    await store.close()
    return path


def _edit(path: Path, sql: str, *bindings: object) -> None:
    conn = apsw.Connection(str(path))
    conn.execute(sql, bindings)
    conn.close()


DAMAGE = {
    "events": "UPDATE log SET events = x'00ff' WHERE position = 2",
    "hash": "UPDATE log SET hash = x'' WHERE position = 2",
    "count": "UPDATE log SET count = 99 WHERE position = 2",
    "stream": "UPDATE log SET stream = 99 WHERE position = 2",
    "row of the stream": "DELETE FROM stream WHERE name = 'entry:b'",
    "name that is not UTF-8": "UPDATE stream SET name = CAST(x'ff6162' AS TEXT)"
    " WHERE name = 'entry:b'",
    "link": "UPDATE log SET prev = 2 WHERE position = 2",
}


@pytest.mark.case("Q01")
@pytest.mark.parametrize("what", DAMAGE)
async def test_a_damaged_row_does_not_hide_the_others(path: Path, what: str) -> None:
    _edit(path, DAMAGE[what])
    store = await _store(path)
    records = await whole_log(store)
    assert [r.position for r in records] == [1, 2, 3, 4]
    sound = [hash_of(r) == r.hash for r in records if r.position != 2]
    assert sound == [True] * 3
    assert [r.version for r in await read(store, "entry:a")] == [1, 2]
    await put(store, "entry:a")
    assert (await head_of(store)).position == 5
    assert len((await store.load()).open) >= 2
    await store.close()


@pytest.mark.case("Q01")
@pytest.mark.parametrize("what", ["events", "hash", "row of the stream"])
async def test_a_damaged_row_loses_its_hash(path: Path, what: str) -> None:
    """So the reader of a stream sees that one commit of it cannot be believed."""
    _edit(path, DAMAGE[what])
    store = await _store(path)
    damaged = (await whole_log(store))[1]
    assert hash_of(damaged) != damaged.hash
    await store.close()


@pytest.mark.parametrize("link", ["NULL", "1", "3", "99"])
async def test_a_wrong_link_does_not_lose_a_record(path: Path, link: str) -> None:
    _edit(path, f"UPDATE log SET prev = {link} WHERE position = 3")
    _edit(path, "UPDATE stream SET last = 1 WHERE name = 'entry:b'")
    store = await _store(path)
    assert [r.position for r in await read(store, "entry:a")] == [1, 3]
    assert [r.position for r in await read(store, "entry:b")] == [2]
    await store.close()


async def test_a_tail_cut_inside_a_commit_is_noticed(path: Path) -> None:
    _edit(path, "DELETE FROM log WHERE position = 4")
    store = await _store(path)
    with pytest.raises(CorruptLogError, match="tail"):
        await store.load()
    await store.close()


async def test_a_body_that_was_changed_is_handed_out_as_it_is(path: Path) -> None:
    """Its event names its digest, so its reader notices."""
    _edit(path, "UPDATE body SET data = x'00'")
    store = await _store(path)
    assert await body_in(store, "entry:a", 1) == body("entry:a", 1, b"\0")
    await store.close()


async def test_a_body_whose_stream_is_gone_is_still_listed(path: Path) -> None:
    _edit(path, "DELETE FROM stream WHERE name = 'entry:a'")
    store = await _store(path)
    await write(store, bodies=[body("entry:b", 1, b"other")])
    pages, after = [], None
    while page := await store.bodies(after, 1):
        pages += page
        after = (page[-1].stream, page[-1].number)
    found = [(item.stream, item.data) for item in pages]
    assert found == [("?1", b"text"), ("entry:b", b"other")]
    await store.close()


async def test_a_corrupt_page_is_a_typed_error(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await _store(path)
    for number in range(200):
        await put(store, f"entry:{number}")
    await store.close()
    data = bytearray(path.read_bytes())
    for page in range(3, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(data)
    await store.open()
    with pytest.raises(DamagedError) as caught:
        await whole_log(store)
    assert str(path) in str(caught.value)
    assert "position" not in str(caught.value)
    with pytest.raises(StoreError):
        await put(store, "entry:1")
    await store.close()


async def test_the_integrity_check_names_what_is_wrong(path: Path) -> None:
    store = await _store(path)
    assert list(await store.integrity()) == []
    await store.close()
    _edit(path, "UPDATE stream SET open = 0 WHERE id = 1")
    conn = apsw.Connection(str(path))
    conn.pragma("writable_schema", 1)
    conn.execute("UPDATE sqlite_schema SET sql = replace(sql, ' WHERE open = 1', '')")
    conn.close()
    store = SqliteStore(path)
    await store.open(read_only=True)
    assert any("stream_open" in line for line in await store.integrity())
    await store.close()


@pytest.mark.case("Q03", "A06")
@pytest.mark.parametrize("flush", ["auto", "loop", "thread"])
async def test_a_locked_store_is_busy_within_its_budget(path: Path, flush: str) -> None:
    store = await _store(path, busy_ms=50, flush=flush)
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BusyError) as caught:
        await put(store, "entry:a")
    assert 50 <= caught.value.waited_ms < 2000
    assert len(await whole_log(store)) == 4  # reading is not held up
    other.execute("ROLLBACK")
    await put(store, "entry:a")
    assert len(await whole_log(store)) == 5
    await store.close()
    other.close()
