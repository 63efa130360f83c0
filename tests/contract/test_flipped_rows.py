"""A bit that flips in any column of any row is found by the audit (W05)."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from turnfold import SourceCursor
from turnfold.audit import audit_store
from turnfold.enums import FailureClass
from turnfold.errors import StoreError
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.testing.gateway import (
    Gateway,
    driver_of,
    in_file,
    inbound,
    route,
    spin,
)
from turnfold_model.testing.platform import reject, unknown

# What explains and decides nothing: who owns the store, its layout, counts for people.
_EXPLAINS = {"owner", "layout", "digested", "tally", "pruned_tally", "answer"}

_Row = tuple[str, str, str, dict[str, Any], Any]


@pytest.fixture
async def store(tmp_path: Path) -> Path:
    """Entries and turns in many states, and a gate."""
    path = tmp_path / "whole" / "s.db"
    path.parent.mkdir()
    gateway = Gateway(store=in_file(path))
    gateway.platform.plays(reject(FailureClass.PERMISSION), unknown())
    gateway.handler = lambda turn: f"re {turn.inbound.message_id}"
    kernel = await gateway.start()
    for name in ("refused", "in doubt", "sent"):
        await kernel.enqueue(route(name), name, key=name)
        await spin()
    cursor = SourceCursor(channel="t", account="default", value="1")
    taken = await kernel.accept(inbound("1"), cursor=cursor)
    await taken.settled(5_000)
    await kernel.disconnected("t")
    await kernel.enqueue(route("held"), "held", key="held")
    await gateway.end()
    conn = apsw.Connection(str(path))
    conn.pragma("wal_checkpoint(TRUNCATE)")
    conn.close()
    return path


def _cells(path: Path) -> Iterator[_Row]:
    """Table, column, its type, the key of the row, and the value."""
    conn: Any = apsw.Connection(str(path), apsw.SQLITE_OPEN_READONLY)
    tables = conn.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    )
    for (table,) in tables.fetchall():
        info = conn.execute(f"PRAGMA table_info({table})").fetchall()
        names = [row[1] for row in info]
        keys = [row[1] for row in info if row[5]]
        for row in conn.execute(f"SELECT * FROM {table}").fetchall():
            values = dict(zip(names, row, strict=True))
            key = {name: values[name] for name in keys}
            for column in info:
                yield table, column[1], column[2], key, values[column[1]]
    conn.close()


def _flipped(value: Any, dice: random.Random) -> Any:
    if isinstance(value, int):
        return value ^ 1 << dice.choice((0, 1, 2, 5, 16, 33))
    data = bytearray(value.encode() if isinstance(value, str) else value)
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(7)
    return bytes(data)


def _flip(path: Path, cell: _Row, dice: random.Random) -> bool:
    """False if the database itself refuses the value."""
    table, column, kind, key, value = cell
    cast = "CAST(? AS TEXT)" if kind == "TEXT" else "?"
    where = " AND ".join(f"{name} IS ?" for name in key) or "1"
    sql = f"UPDATE {table} SET {column} = {cast} WHERE {where}"
    conn = apsw.Connection(str(path))
    try:
        conn.execute(sql, (_flipped(value, dice), *key.values()))
    except apsw.ConstraintError:
        return False
    finally:
        conn.close()
    return True


async def _found(path: Path) -> bool:
    store = SqliteStore(path)
    try:
        await store.open(read_only=True)
        return not (await audit_store(store)).passed
    except StoreError:
        return True
    finally:
        await store.close()


@pytest.mark.case("W05", "Q01")
async def test_a_flipped_bit_in_any_column_is_found_by_the_audit(
    store: Path, tmp_path: Path
) -> None:
    """Two rows of each column that have a value."""
    dice = random.Random(9)
    cells: dict[tuple[str, str], list[_Row]] = {}
    for cell in _cells(store):
        if cell[0] not in _EXPLAINS and cell[4] not in (None, "", b""):
            cells.setdefault(cell[:2], []).append(cell)
    assert len(cells) > 30
    assert await _found(store) is False
    unseen = []
    for some in cells.values():
        for cell in dice.sample(some, min(2, len(some))):
            shutil.copytree(store.parent, tmp_path / "damaged", dirs_exist_ok=True)
            path = tmp_path / "damaged" / "s.db"
            if _flip(path, cell, dice) and not await _found(path):
                unseen.append(cell)
    assert unseen == []


@pytest.mark.case("W05")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "lane = (SELECT lane FROM stream WHERE name = :other)",
            "its row names the lane",
        ),
        ("version = version + 4", "its row is at version"),
    ],
)
async def test_a_row_that_is_not_of_its_log_is_set_aside_and_told(
    tmp_path: Path, change: str, said: str
) -> None:
    """Its entry went out in another lane, or never, and nobody was told."""
    path = tmp_path / "s.db"
    gateway = Gateway(store=in_file(path))
    kernel = await gateway.start()
    await kernel.hold_back("t/default", by="op")
    names = [(await kernel.enqueue(route(r), r)).entry_id for r in ("a", "b")]
    await gateway.end()
    conn: Any = apsw.Connection(str(path))
    sql = f"UPDATE stream SET {change} WHERE name = :name"
    conn.execute(sql, {"name": names[0], "other": names[1]})
    conn.close()
    kernel = await gateway.start()
    await kernel.let_go("t/default", by="op")
    await spin()
    assert gateway.platform.contents == ["b"]
    assert kernel.health()["corrupt_streams"] == names[:1]
    assert not kernel.is_well()
    assert said in str(driver_of(kernel).book.corrupt[names[0]])
    await gateway.end()
    assert await _found(path)
