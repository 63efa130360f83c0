"""A record that is damaged on the disk: one commit of one stream is lost, and told."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from turnfold import Kernel
from turnfold.audit import audit_store
from turnfold.audit.findings import Report
from turnfold.enums import TurnOutcome
from turnfold.errors import CorruptLogError
from turnfold.ports.store import Record
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.testing.gateway import Gateway, in_file, inbound, peek, route
from turnfold_model.testing.peek import Peek


async def _answer(handle: Any) -> None:
    await handle.reply(f"re: {handle.inbound.text}")


def _edit(path: Path, sql: str, *bindings: object) -> None:
    conn = apsw.Connection(str(path))
    conn.execute(sql, bindings)
    conn.close()


GARBAGE = "UPDATE log SET events = x'00ff' WHERE position = ?"
FLIPPED = 'UPDATE log SET events = CAST(replace(CAST(events AS TEXT), \'"kind":"final"\', \'"kind":"block"\') AS BLOB) WHERE position = ?'


async def _talked(gateway: Gateway) -> tuple[str, str, list[Record]]:
    """One turn with its answer, which shares commits with it, and one notice."""
    gateway.handler = _answer
    kernel = await gateway.start()
    accepted = await kernel.accept(inbound(text="hello"))
    await accepted.settled(5_000)
    (final,) = peek(kernel).children(accepted.turn_id)
    notice = await kernel.enqueue(route("7"), "a notice")
    await kernel.settled(notice.entry_id, 5_000)
    records = list(peek(kernel).log())
    await gateway.end()
    return accepted.turn_id, final, records


async def _report(path: Path) -> Report:
    store = SqliteStore(path)
    await store.open(read_only=True)
    try:
        return await audit_store(store)
    finally:
        await store.close()


@pytest.mark.case("Q01")
async def test_a_damaged_record_loses_one_commit_of_one_stream_and_says_so(
    tmp_path: Path,
) -> None:
    """The other stream of the same commit, the other commits of the same stream and
    every other stream are read as before."""
    path = tmp_path / "g.db"
    gateway = Gateway(store=in_file(path))
    turn, final, records = await _talked(gateway)
    damaged = next(r for r in records if r.stream == final)
    _edit(path, GARBAGE, damaged.position)

    report = await _report(path)
    assert not report.passed
    assert {f.position for f in report.findings if f.position} == {damaged.position}
    assert {f.stream for f in report.findings if f.stream} <= {turn, final}
    assert report.streams >= len({r.stream for r in records}) - 1

    gateway.handler = None
    kernel = await gateway.start()
    kept = list(peek(kernel).log())
    lost = [a.position for a, b in zip(records, kept, strict=True) if a != b]
    assert lost == [damaged.position]
    assert (await kernel.settled(turn, 1_000)) is TurnOutcome.REPLIED
    with pytest.raises(CorruptLogError) as caught:
        peek(kernel).state(final)
    assert (caught.value.position, caught.value.stream) == (damaged.position, final)
    for stream in {r.stream for r in records} - {final}:
        assert peek(kernel).state(stream) is not None
    await _goes_on(kernel, gateway)


@pytest.mark.case("Q01")
async def test_a_record_that_says_something_else_is_found_by_its_hash(
    tmp_path: Path,
) -> None:
    """It can be read; the audit names the position, and nothing else is touched."""
    path = tmp_path / "g.db"
    gateway = Gateway(store=in_file(path))
    _, final, records = await _talked(gateway)
    changed = next(r for r in records if r.stream == final)
    _edit(path, FLIPPED, changed.position)
    store = SqliteStore(path)
    await store.open(read_only=True)
    assert Peek(store).read(final)[0].events != changed.events
    await store.close()
    report = await _report(path)
    assert report.first is not None
    assert report.first.position == changed.position
    kernel = await gateway.start()
    await _goes_on(kernel, gateway)


_ROWS = {
    "lane": "UPDATE stream SET lane = 'broken' WHERE name LIKE 'entry:%'",
    "phase": "UPDATE stream SET phase = 'nonsense' WHERE name LIKE 'gate:%'",
    "created": "UPDATE stream SET created = NULL WHERE name LIKE 'gate:%'",
    "store": "UPDATE stream SET kind = 'x', reason = 'y' WHERE name = 'store'",
}


@pytest.mark.case("W05", "X20")
@pytest.mark.parametrize("row", list(_ROWS))
async def test_a_damaged_row_of_a_projection_gives_a_typed_error_or_none(
    tmp_path: Path, row: str
) -> None:
    path = tmp_path / "g.db"
    gateway = Gateway(store=in_file(path))
    kernel = await gateway.start()
    await kernel.disconnected("t")
    await kernel.enqueue(route("42"), "x")
    await gateway.end()
    _edit(path, _ROWS[row])
    assert not (await _report(path)).passed
    with suppress(CorruptLogError):
        await gateway.start()
        await gateway.end()


ELSEWHERE = 'UPDATE log SET events = CAST(replace(CAST(events AS TEXT), \'"conversation":"42"\', \'"conversation":"43"\') AS BLOB) WHERE position = ?'


@pytest.mark.case("Q01", "W05")
async def test_nothing_is_decided_on_a_record_that_says_something_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A flipped bit would send the message to another reader: its entry is set aside,
    the rest of its lane goes out."""
    path = tmp_path / "g.db"
    gateway = Gateway(store=in_file(path))
    kernel = await gateway.start()
    await kernel.disconnected("t")
    bad = await kernel.enqueue(route("42"), "bad")
    good = await kernel.enqueue(route("42"), "good")
    position = peek(kernel).read(bad.entry_id)[0].position
    await gateway.end()
    _edit(path, ELSEWHERE, position)
    kernel = await gateway.start()
    await kernel.connected("t")
    await kernel.settled(good.entry_id, 5_000)
    assert kernel.health()["corrupt_streams"] == [bad.entry_id]
    assert f"{bad.entry_id} is set aside" in caplog.text
    with pytest.raises(CorruptLogError) as caught:
        await kernel.abort(bad.entry_id)
    assert (caught.value.position, caught.value.stream) == (position, bad.entry_id)
    assert gateway.platform.contents == ["good"]
    await _goes_on(kernel, gateway)


async def _goes_on(kernel: Kernel, gateway: Gateway) -> None:
    """Everything else works."""
    before = list(gateway.platform.contents)
    done = await kernel.enqueue(route("8"), "more")
    await kernel.settled(done.entry_id, 5_000)
    assert gateway.platform.contents == [*before, "more"]
    await gateway.end()
