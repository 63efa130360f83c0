"""Rows and pages that are not what was written: told by position, the rest still read."""

from pathlib import Path

import apsw
import pytest

from turnfold.codec import decode, verify
from turnfold.errors import (
    BusyError,
    CorruptLogError,
    DamagedError,
    StoreError,
)
from turnfold.ports.store import Append
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.store_kit import body, put


def _store(path: Path) -> SqliteStore:
    store = SqliteStore(path)
    store.open()
    return store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    store = _store(path)
    put(store, "entry:a", "entry:b", "entry:a", "entry:c")
    with store.write() as tx:
        tx.append(Append(bodies=[body(b"text")]))
    store.close()
    return path


def _edit(path: Path, sql: str, *bindings: object) -> None:
    conn = apsw.Connection(str(path))
    conn.execute(sql, bindings)
    conn.close()


DAMAGE = {
    "data": "UPDATE log SET data = x'00ff' WHERE position = 2",
    "hash": "UPDATE log SET hash = x'' WHERE position = 2",
    "kind": "UPDATE log SET kind = 99 WHERE position = 2",
    "stream": "UPDATE log SET stream = 99 WHERE position = 2",
    "row of the stream": "DELETE FROM stream WHERE name = 'entry:b'",
    "name that is not UTF-8": "UPDATE stream SET name = CAST(x'ff6162' AS TEXT)"
    " WHERE name = 'entry:b'",
    "link": "UPDATE log SET prev = 2 WHERE position = 2",
}


@pytest.mark.case("Q01")
@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_row_does_not_hide_the_others(path: Path, what: str) -> None:
    _edit(path, DAMAGE[what])
    store = _store(path)
    records = list(store.log())
    assert [r.position for r in records] == [1, 2, 3, 4]
    assert [verify(r) for r in records if r.position != 2] == [True] * 3
    assert [r.version for r in store.read("entry:a")] == [1, 2]
    put(store, "entry:a")
    assert store.head.position == 5
    store.close()


@pytest.mark.case("Q01")
def test_a_damaged_row_decodes_to_an_error_with_its_position(path: Path) -> None:
    _edit(path, DAMAGE["kind"])
    store = _store(path)
    with pytest.raises(CorruptLogError) as caught:
        decode(list(store.log())[1])
    assert caught.value.position == 2
    store.close()


@pytest.mark.parametrize("link", ["NULL", "1", "3", "99"])
def test_a_wrong_link_does_not_lose_a_record(path: Path, link: str) -> None:
    _edit(path, f"UPDATE log SET prev = {link} WHERE position = 3")
    _edit(path, "UPDATE stream SET last = 1 WHERE name = 'entry:b'")
    store = _store(path)
    assert [r.position for r in store.read("entry:a")] == [1, 3]
    assert [r.position for r in store.read("entry:b")] == [2]
    store.close()


def test_a_tail_cut_inside_a_transaction_is_noticed(path: Path) -> None:
    _edit(path, "DELETE FROM log WHERE position = 4")
    store = _store(path)
    with pytest.raises(CorruptLogError, match="tail"):
        _ = store.head
    store.close()


def test_a_body_that_was_changed_is_not_handed_out(path: Path) -> None:
    _edit(path, "UPDATE body SET data = x'00'")
    store = _store(path)
    with pytest.raises(DamagedError, match="digest"):
        store.body(body(b"text").digest)
    store.close()


def test_a_corrupt_page_is_a_typed_error(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = _store(path)
    for number in range(200):
        put(store, f"entry:{number}")
    store.close()
    data = bytearray(path.read_bytes())
    for page in range(3, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(data)
    store.open()
    with pytest.raises(DamagedError) as caught:
        list(store.log())
    assert str(path) in str(caught.value)
    assert "position" not in str(caught.value)
    with pytest.raises(StoreError):
        put(store, "entry:1")
    store.close()


@pytest.mark.case("Q03", "A06")
def test_a_locked_store_is_busy_within_its_budget(path: Path) -> None:
    store = SqliteStore(path, busy_ms=50)
    store.open()
    other = _store(path)
    with other.write():
        with pytest.raises(BusyError) as caught:
            put(store, "entry:a")
        assert 50 <= caught.value.waited_ms < 2000
        assert len(list(store.log())) == 4  # reading is not held up
    put(store, "entry:a")
    assert len(list(other.log())) == 5
    store.close()
    other.close()
