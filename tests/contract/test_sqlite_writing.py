"""Transactions of a SQLite store: cut at any statement, side by side, and what they cost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from turnfold.canonical import digest_text
from turnfold.errors import InvalidInputError, NotOpenError
from turnfold.ports.store import Append
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_adapters.stores.sqlite_rows import raw_digest
from turnfold_model.store_kit import body, noise, put, record, running, summary


def _open(path: Path, **options: object) -> SqliteStore:
    store = SqliteStore(path, **options)  # type: ignore[arg-type]
    store.open()
    return store


def _everything(store: SqliteStore) -> None:
    """One append with something for every table; a known stream and a new one."""
    with store.write() as tx:
        position, version = tx.head.position + 1, len(tx.read("entry:a")) + 1
        name = f"entry:{position}"
        tx.append(
            Append(
                records=[
                    record(position, "entry:a", version),
                    record(position + 1, name, 1),
                ],
                summaries=[
                    summary("entry:a", version, 1),
                    summary(name, 1, position + 1),
                ],
                bodies=[body(noise(100 + position)), body(noise(70_000 + position))],
                keys=[(f"key {position}", name)],
            )
        )


class Cut(BaseException):
    """The process dies here."""


@pytest.mark.case("Q03")
def test_a_transaction_cut_at_any_statement_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = _open(path)
    put(store, "entry:a")
    for point in range(100):
        left = point

        def trace(_cursor: object, sql: str, _bindings: object) -> bool:
            nonlocal left
            left -= 1
            if left == -1 and sql != "ROLLBACK":
                raise Cut
            return True

        assert store._writer is not None
        store._writer.exec_trace = trace
        before = list(store.log())
        try:
            _everything(store)
        except Cut:
            store._writer.exec_trace = None
            assert list(store.log()) == before
            assert store.head == running(before)
            assert list((tmp_path / "store.db.bodies").glob("*")) == []
            continue
        break
    else:
        pytest.fail("the transaction never came to its end")
    store._writer.exec_trace = None
    assert point > 8
    assert len(list(store.log())) == len(before) + 2
    store.close()


WRITER = """
import sys
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.store_kit import put
store = SqliteStore(sys.argv[1], busy_ms=30_000)
store.open()
for number in range(40):
    put(store, "entry:shared", f"entry:{sys.argv[2]}:{number}")
store.close()
"""


@pytest.mark.case("Q06")
def test_processes_that_create_and_write_at_once_do_not_harm_each_other(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"
    words = [sys.executable, "-c", WRITER, str(path)]
    children = [subprocess.Popen([*words, str(number)]) for number in range(4)]
    assert [child.wait() for child in children] == [0, 0, 0, 0]
    store = _open(path)
    records = list(store.log())
    assert [r.position for r in records] == list(range(1, 4 * 40 * 2 + 1))
    assert [r.version for r in store.read("entry:shared")] == list(range(1, 161))
    assert store.head == running(records)
    store.close()


def test_a_forked_child_is_told_that_the_store_is_not_its_own(tmp_path: Path) -> None:
    store = _open(tmp_path / "store.db")
    put(store, "entry:a")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            put(store, "entry:a")
        except NotOpenError:
            code = 0
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    put(store, "entry:a")
    assert store.head.position == 2
    store.close()


def test_the_log_is_grown_ahead_and_bounded(tmp_path: Path) -> None:
    path, limit = tmp_path / "store.db", 4 * 1024 * 1024
    wal = Path(f"{path}-wal")
    store = _open(path, wal_bytes=limit)
    put(store, "entry:a")
    grown = wal.stat().st_size
    assert 2 * 1024 * 1024 <= grown < limit
    with store.write() as tx:
        tx.append(Append(bodies=[body(noise(60_000 + n)) for n in range(100)]))
    assert wal.stat().st_size > grown
    for number in range(1000):
        put(store, f"entry:{number}")
    assert wal.stat().st_size < 3 * limit
    assert store.checkpoint()
    assert store.checkpoint_failure is None
    store.close()
    assert not wal.exists()
    store = _open(path)
    assert store.head.position == 1001
    store.close()


def test_a_log_with_zeros_at_its_end_is_read_by_others(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    one, two = _open(path), _open(path)
    for number in range(5):
        put(one, f"entry:{number}")
        put(two, f"entry:{number}")
        one.checkpoint()
    assert len(list(two.log())) == 10
    one.close()
    put(two, "entry:0")
    two.close()
    assert len(list(_closed_log(path))) == 11


def _closed_log(path: Path) -> list[object]:
    store = SqliteStore(path)
    store.open(read_only=True)
    records: list[object] = list(store.log())
    store.close()
    return records


def test_files_that_a_crash_left_are_swept(tmp_path: Path) -> None:
    store = _open(tmp_path / "store.db")
    kept = body(noise(100_000))
    with store.write() as tx:
        tx.append(Append(bodies=[kept]))
    folder = tmp_path / "store.db.bodies"
    (folder / ("ab" * 32)).write_bytes(b"never named")
    (folder / f"{'cd' * 32}.77.new").write_bytes(b"half")
    assert store.sweep() == 2
    assert store.sweep() == 0
    assert store.body(kept.digest) == kept.data
    store.close()


def test_a_delivered_message_takes_less_than_two_kilobytes(tmp_path: Path) -> None:
    """500 bytes of payload, four events of about 90 bytes, everything kept."""
    path, count = tmp_path / "store.db", 1000
    store = _open(path)
    for first in range(0, count, 100):
        with store.write() as tx:
            for number in range(first, first + 100):
                tx.append(_message(tx.head.position + 1, f"entry:{number:026d}"))
    store.close()
    assert path.stat().st_size / count < 2000


def _message(position: int, stream: str) -> Append:
    value = {"text": "x" * 80}
    records = [record(position + n, stream, n + 1, value) for n in range(4)]
    lane = '["telegram","support","42",null]'
    last = summary(stream, 4, position, lane=lane, kind="final", open=False)
    salt = position.to_bytes(16, "big")
    return Append(records=records, summaries=[last], bodies=[body(noise(500), salt)])


def test_what_moved_without_a_summary_moved_all_the_same(tmp_path: Path) -> None:
    """Though there are as many summaries as streams."""
    path = tmp_path / "store.db"
    store = _open(path)
    put(store, "entry:a", "entry:b")
    moved = [record(3, "entry:a", 2), record(4, "entry:b", 2)]
    twice = [summary("entry:a", 2, 1, phase=phase) for phase in ("A", "D")]
    with store.write() as tx:
        tx.append(Append(records=moved, summaries=twice))
    store.reopen()
    assert [r.version for r in put(store, "entry:a", "entry:b")] == [3, 3]
    assert [r.version for r in store.read("entry:b")] == [1, 2, 3]
    store.close()


def test_a_digest_has_one_text() -> None:
    """Were there two for the same bytes, one could erase what another one names."""
    digests = [
        bytes([n]) * 31 + bytes([m]) for n in (0, 1, 127, 251) for m in range(256)
    ]
    texts = [digest_text(digest) for digest in digests]
    assert [raw_digest(text) for text in texts] == digests
    ends = {text[-1] for text in texts}
    for end in set(map(chr, range(256))) - ends:
        with pytest.raises(InvalidInputError):
            raw_digest("A" * 42 + end)
    for wrong in (
        "A" * 42,
        "A" * 44,
        "A" * 43 + "\n",
        "A" * 41 + "+A",
        "A" * 41 + "é ",
    ):
        with pytest.raises(InvalidInputError):
            raw_digest(wrong)


PLANS = {
    "open streams": "SELECT s.id FROM stream AS s WHERE s.open = 1 AND s.id > 0 ORDER BY s.id",
    "children": "SELECT id FROM stream AS s WHERE s.parent = 7 ORDER BY s.id DESC",
    "a key": "SELECT stream FROM dedupe WHERE key = 'k'",
    "a body": "SELECT data FROM body WHERE digest = x'00'",
    "since": "SELECT data FROM log WHERE position > 7 ORDER BY position",
}


@pytest.mark.parametrize("what", PLANS)
def test_no_hot_query_scans_or_sorts(tmp_path: Path, what: str) -> None:
    store = _open(tmp_path / "store.db")
    assert store._reader is not None
    plan = store._reader.execute(f"EXPLAIN QUERY PLAN {PLANS[what]}").fetchall()
    steps = [row[3] for row in plan]
    assert not any("SCAN" in step and "INDEX" not in step for step in steps), steps
    assert not any("TEMP B-TREE" in step for step in steps), steps
    store.close()


def test_reading_a_stream_touches_its_own_rows_only(tmp_path: Path) -> None:
    from turnfold_adapters.stores import sqlite_rows

    store = _open(tmp_path / "store.db")
    assert store._reader is not None
    sql = f"EXPLAIN QUERY PLAN {sqlite_rows._STREAM}"
    steps = [row[3] for row in store._reader.execute(sql, ("entry:a",))]
    assert any("SEARCH l USING INTEGER PRIMARY KEY" in step for step in steps), steps
    assert not any(step.startswith("SCAN l") for step in steps), steps
    store.close()
