"""A stream that is gone without `store.pruned` is missed, however it went."""

from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec.structs import replace

from turnfold.audit import Rule, audit_log, audit_store
from turnfold.inspect import export
from turnfold.ports.store import Record, record_pages, tombstone
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model import reference
from turnfold_model.testing.gateway import Gateway, in_file

from .test_pruning import DAY, _with_turns


async def _pruned(tmp_path: Path) -> list[Record]:
    gateway = Gateway(store=in_file(tmp_path / "g.db"))
    await _with_turns(gateway)
    (kernel,) = gateway.alive
    await gateway.advance(2 * DAY)
    await kernel.prune(older_ms=DAY, by="ann", batch=2)
    await _with_turns(gateway, 1, first=20)
    records = [r async for page in record_pages(kernel.store) for r in page]
    await gateway.end()
    return records


def _rules(records: list[Record]) -> set[Rule]:
    return {finding.rule for finding in audit_log(records).findings}


def _breaches(records: list[Record]) -> set[str]:
    events = (e for record in records for e in reference.as_events(record))
    return {breach.rule for breach in reference.audit(events)}


async def test_a_pruned_log_passes_as_a_store_and_as_an_export(tmp_path: Path) -> None:
    records = await _pruned(tmp_path)
    assert sum(record.pruned for record in records) > 9
    assert (_rules(records), _breaches(records)) == (set(), set())
    lines = [export.dump(record) for record in records]
    assert [*export.read(lines)] == records
    told = [*reference.read_ndjson(line.decode() for line in lines)]
    assert not [*reference.audit(told)]
    store = SqliteStore(tmp_path / "g.db")
    await store.open(read_only=True)
    report = await audit_store(store)
    await store.close()
    assert report.passed, report.first


def _forged(record: Record, by: int) -> Record:
    return tombstone(record.position, record.hash, by)


def _names(records: list[Record]) -> tuple[str, int]:
    """A stream that is left, and the record of the last prune."""
    left = [r.stream for r in records if r.stream.startswith("turn:")]
    return left[-1], max(r.version for r in records if r.pruned)


def _deleted(records: list[Record]) -> list[Record]:
    name, _ = _names(records)
    return [r for r in records if r.stream != name]


def _hidden(records: list[Record]) -> list[Record]:
    """The running hash still fits: positions and hashes are all there."""
    name, by = _names(records)
    return [_forged(r, by) if r.stream == name else r for r in records]


def _hidden_by_nobody(records: list[Record]) -> list[Record]:
    name, _ = _names(records)
    return [_forged(r, 1) if r.stream == name else r for r in records]


def _moved(records: list[Record]) -> list[Record]:
    """One record counts to another prune of the log."""
    gone = [r for r in records if r.pruned]
    first, last = gone[0], gone[-1]
    assert first.version != last.version or len({r.version for r in gone}) > 1
    other = next(r.version for r in gone if r.version != first.version)
    return [_forged(r, other) if r is first else r for r in records]


def _restored(records: list[Record]) -> list[Record]:
    """A pruned record is put back with other content."""
    index = next(i for i, r in enumerate(records) if r.pruned)
    new = replace(records[0], position=records[index].position)
    return [*records[:index], new, *records[index + 1 :]]


@pytest.mark.parametrize(
    "damage",
    [_deleted, _hidden, _hidden_by_nobody, _moved, _restored],
    ids=lambda f: f.__name__.strip("_"),
)
async def test_what_went_another_way_is_missed(tmp_path: Path, damage: Any) -> None:
    records = damage(await _pruned(tmp_path))
    assert _rules(records)
    assert _breaches(records)


async def test_a_stream_hidden_behind_hashes_is_the_finding(tmp_path: Path) -> None:
    records = _hidden(await _pruned(tmp_path))
    assert Rule.PRUNED in _rules(records)
    assert Rule.HEAD not in _rules(records)
    assert "pruned" in _breaches(records)


async def test_a_record_that_prunes_nothing_takes_nothing_out(tmp_path: Path) -> None:
    assert Rule.PRUNED in _rules(_hidden_by_nobody(await _pruned(tmp_path)))


async def test_counts_that_are_not_those_of_the_log_are_found(tmp_path: Path) -> None:
    await _pruned(tmp_path)
    conn = apsw.Connection(str(tmp_path / "g.db"))
    conn.execute("UPDATE pruned_tally SET count = count + 1")
    conn.close()
    store = SqliteStore(tmp_path / "g.db")
    await store.open(read_only=True)
    report = await audit_store(store)
    await store.close()
    assert [finding.rule for finding in report.findings] == [Rule.PROJECTION]


async def test_a_key_of_a_pruned_stream_is_found(tmp_path: Path) -> None:
    await _pruned(tmp_path)
    conn = apsw.Connection(str(tmp_path / "g.db"))
    conn.execute("INSERT INTO dedupe VALUES ('in:t/default/42/0/message', 2)")
    conn.close()
    store = SqliteStore(tmp_path / "g.db")
    await store.open(read_only=True)
    report = await audit_store(store)
    await store.close()
    assert Rule.KEY in {finding.rule for finding in report.findings}
