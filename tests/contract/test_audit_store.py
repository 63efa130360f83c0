"""The audit of a whole store: what stands beside the log is held against the log."""

import asyncio
import shutil
from pathlib import Path

import apsw
import pytest
from msgspec.structs import replace

from turnfold import File
from turnfold._log import outbox_events as o
from turnfold._log.codec import encode, record_of
from turnfold._state.fold import apply, fold, summarize
from turnfold.audit import Auditor, Report, Rule, audit_store
from turnfold.audit.auditor import walk
from turnfold.audit.facts import Facts
from turnfold.audit.side_checks import compare
from turnfold.enums import Phase
from turnfold.ports.store import Body, Stored, Write, now
from turnfold_adapters.stores.memory import MemoryDisk, MemoryStore
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.testing.gateway import Gateway, in_file, inbound, route, spin
from turnfold_model.testing.platform import unknown


async def worked(gateway: Gateway) -> None:
    """Three turns with replies in two parts, a keyed notice, one entry in doubt."""

    async def answer(turn):
        await turn.block("thinking")
        await turn.reply(f"re: {turn.inbound.text}", File(data=b"png", name="a.png"))

    gateway.handler = answer
    kernel = await gateway.start()
    for number in range(3):
        turn = await kernel.accept(inbound(str(number), f"c{number}"))
        await turn.settled(5_000)
    await kernel.enqueue(route("c9"), "reminder", key="cron-1")
    gateway.platform.plays(unknown())
    await kernel.enqueue(route("c8"), "in doubt")
    await spin()
    await gateway.end()


@pytest.fixture(scope="module")
def template() -> MemoryDisk:
    disk = MemoryDisk()
    asyncio.run(worked(Gateway(store=lambda: MemoryStore(disk))))
    return disk


@pytest.fixture
def disk(template: MemoryDisk) -> MemoryDisk:
    return template.fork()


def audited(disk: MemoryDisk, **more) -> Report:
    store = MemoryStore(disk)
    now(store.open(read_only=True))
    return now(audit_store(store, **more))


def first(report: Report) -> tuple[Rule, str | None]:
    assert report.first is not None
    return report.first.rule, report.first.stream


def stream_of(disk: MemoryDisk, family: str) -> str:
    return next(name for name in disk.summaries if name.startswith(family))


def test_a_store_as_the_kernel_leaves_it_passes(disk: MemoryDisk) -> None:
    report = audited(disk)
    assert report.passed, report.first
    assert report.streams == len(disk.streams)
    assert report.events == sum(record.count for record in disk.log)
    assert report.head == disk.head


# --- projections -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"phase": Phase.QUEUED},
        {"open": True},
        {"reason": "x"},
        {"due": 7},
        {"lane": "t/x/y/"},
    ],
)
def test_a_projection_that_is_not_the_fold_is_found(disk: MemoryDisk, change) -> None:
    stream = stream_of(disk, "entry:")
    disk.summaries[stream] = replace(disk.summaries[stream], **change)
    report = audited(disk)
    assert first(report) == (Rule.PROJECTION, stream)
    assert report.found == 1
    assert next(iter(change)) in str(report.first)


def test_a_projection_that_is_missing_is_found(disk: MemoryDisk) -> None:
    stream = stream_of(disk, "turn:")
    del disk.summaries[stream]
    assert first(audited(disk)) == (Rule.PROJECTION, stream)


@pytest.mark.parametrize("open_", [True, False])
def test_a_projection_of_nothing_is_found(disk: MemoryDisk, open_: bool) -> None:
    some = disk.summaries[stream_of(disk, "entry:")]
    disk.summaries["entry:x"] = replace(some, stream="entry:x", open=open_, order=99)
    assert first(audited(disk)) == (Rule.PROJECTION, "entry:x")


def test_a_projection_ahead_of_the_log_is_found(disk: MemoryDisk) -> None:
    stream = stream_of(disk, "entry:")
    some = disk.summaries[stream]
    disk.summaries[stream] = replace(some, version=some.version + 1)
    assert first(audited(disk)) == (Rule.PROJECTION, stream)


# --- dedupe keys -----------------------------------------------------------------------


def test_a_dedupe_key_that_is_gone_is_found(disk: MemoryDisk) -> None:
    key = next(key for key in disk.keys if key.startswith("in:"))
    stream = disk.keys.pop(key)
    assert first(audited(disk)) == (Rule.KEY, stream)


def test_a_dedupe_key_of_another_stream_is_found(disk: MemoryDisk) -> None:
    stream, disk.keys["out:cron-1"] = disk.keys["out:cron-1"], "entry:x"
    report = audited(disk)
    assert first(report) == (Rule.KEY, stream)
    assert {finding.stream for finding in report.findings} == {stream, "entry:x"}


def test_a_dedupe_key_that_nothing_gave_out_is_found(disk: MemoryDisk) -> None:
    stream = stream_of(disk, "turn:")
    disk.keys["in:t/default/c0/never/message"] = stream
    report = audited(disk)
    assert first(report) == (Rule.KEY, stream)
    assert "no event has this key" in str(report.first)


# --- bodies ----------------------------------------------------------------------------


def test_a_body_that_is_gone_is_found_unless_bodies_are_left_out(
    disk: MemoryDisk,
) -> None:
    place = next(iter(disk.bodies))
    del disk.bodies[place]
    report = audited(disk)
    assert first(report) == (Rule.BODY, place[0])
    assert f"the body {place[1]}." in str(report.first)
    assert report.first is not None
    assert report.first.position is not None
    assert audited(disk, bodies=False).passed
    assert audited(disk, beside=False).passed


def place_with(disk: MemoryDisk, data: bytes):
    return next(p for p, body in disk.bodies.items() if body and body.data == data)


def test_the_content_of_a_file_is_a_body_too(disk: MemoryDisk) -> None:
    place = place_with(disk, b"png")
    del disk.bodies[place]
    report = audited(disk)
    assert first(report) == (Rule.BODY, place[0])
    assert "content of a file" in str(report.first)


@pytest.mark.parametrize("change", [{"data": b"forged"}, {"salt": bytes(16)}])
def test_a_body_with_other_bytes_is_found(disk: MemoryDisk, change) -> None:
    place = next(iter(disk.bodies))
    disk.bodies[place] = replace(disk.bodies[place], **change)
    report = audited(disk)
    assert first(report) == (Rule.BODY, place[0])
    assert "not what its digest names" in str(report.first)


def test_a_file_whose_payload_is_lost_is_one_finding(disk: MemoryDisk) -> None:
    """Nobody can know then which body held its content."""
    stream, _ = place_with(disk, b"png")
    place = next(
        (s, n)
        for (s, n), body in disk.bodies.items()
        if s == stream and body and body.data.startswith(b'{"content":')
    )
    del disk.bodies[place]
    report = audited(disk)
    assert (first(report), report.found) == ((Rule.BODY, stream), 1)


@pytest.mark.parametrize("stream", [None, "entry:x"])
def test_a_body_that_no_event_names_is_found(disk: MemoryDisk, stream) -> None:
    stream = stream or stream_of(disk, "entry:")
    disk.bodies[stream, 99] = Body(stream=stream, number=99, salt=b"s", data=b"x")
    report = audited(disk)
    assert first(report) == (Rule.BODY, stream)
    assert "the body 99 is stored for it" in str(report.first)


def redact(disk: MemoryDisk) -> tuple[str, list[tuple[str, int]]]:
    """Log that an entry was redacted, and erase nothing; its bodies."""
    stream = next(
        name
        for name, row in disk.summaries.items()
        if row.phase == Phase.DELIVERED and row.parent is None
    )
    records = disk.streams[stream]
    version, at = records[-1].version + 1, disk.log[-1].at
    items = [encode(o.Redacted(by="me"))]
    record = record_of(items, stream, version, at, disk.head.position + 1)
    after = summarize(apply(fold(records), record))
    store = MemoryStore(disk)
    now(store.open())
    write = Write(base=disk.head, records=[record], summaries=[after])
    (answer,) = now(store.commit([write]))
    assert isinstance(answer, Stored)
    return stream, [place for place in disk.bodies if place[0] == stream]


def test_a_body_that_was_redacted_is_not_missed(disk: MemoryDisk) -> None:
    _, places = redact(disk)
    assert places
    for place in places:
        disk.bodies[place] = None
    assert audited(disk).passed


def test_a_body_that_was_redacted_and_is_still_there_is_found(
    disk: MemoryDisk,
) -> None:
    stream, _ = redact(disk)
    report = audited(disk)
    assert first(report) == (Rule.BODY, stream)
    assert "still there" in str(report.first)


# --- the log of a store ------------------------------------------------------------------


def test_a_log_that_lost_its_tail_does_not_reach_the_stores_head(
    disk: MemoryDisk,
) -> None:
    disk.log.pop()
    assert Rule.HEAD in {finding.rule for finding in audited(disk).findings}


async def test_a_store_may_go_on_while_it_is_audited(disk: MemoryDisk) -> None:
    """The records that come after the audit read the log are no findings, nor is
    anything that came with them."""
    store = MemoryStore(disk)
    await store.open(read_only=True)
    facts = Facts(bodies=True)
    auditor = Auditor(facts=facts, marks=[disk.head])
    await walk(auditor, store)
    auditor.end()
    before = disk.head.position
    gateway = Gateway(store=lambda: MemoryStore(disk))
    gateway.clock.pass_ms(86_400_000)  # what was in doubt expires
    kernel = await gateway.start()
    await kernel.enqueue(route("c7"), "late", key="late-1")
    await kernel.accept(inbound("late", "c7"))
    await spin()
    await gateway.end()
    assert disk.head.position > before
    await compare(auditor, store, facts)
    assert auditor.report().passed, auditor.report().first


async def test_closed_streams_are_dropped_and_read_again_when_they_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory is bounded by what is open."""
    from turnfold.audit import auditor as auditor_module

    monkeypatch.setattr(auditor_module, "_LATE", 0)
    monkeypatch.setattr(auditor_module, "RECORDS", 1)
    disk = MemoryDisk()
    gateway = Gateway(store=lambda: MemoryStore(disk))
    await worked(gateway)
    kernel = await gateway.start()
    stream = stream_of(disk, "turn:")
    await kernel.redact(stream, by="me")  # long after it was closed
    await gateway.end()
    store = MemoryStore(disk)
    await store.open(read_only=True)
    facts = Facts(bodies=True)
    auditor = Auditor(facts=facts)
    await walk(auditor, store)
    auditor.end()
    for state in auditor.states.trim(disk.log[-1].at + 1):
        facts.drop(state)
    assert not [s for s in auditor.states if s.stream.startswith("turn:")]
    assert auditor.states.count > 2 * len(auditor.states.known)
    await compare(auditor, store, facts)
    assert auditor.report().passed, auditor.report().first
    assert auditor.report().streams == len(disk.streams)
    some = disk.summaries[stream]
    disk.summaries[stream] = replace(some, reason="x")
    await compare(auditor, store, facts)
    assert first(auditor.report()) == (Rule.PROJECTION, stream)


# --- in a file ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "g.db"
    asyncio.run(worked(Gateway(store=in_file(path))))
    return path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(whole.parent, tmp_path / "copy")
    return folder / "g.db"


def audited_file(path: Path, **more) -> Report:
    async def audit() -> Report:
        store = SqliteStore(path)
        await store.open(read_only=True)
        try:
            return await audit_store(store, **more)
        finally:
            await store.close()

    return asyncio.run(audit())


def damage(path: Path, sql: str, *bindings: object) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(sql, bindings).fetchall()
    connection.close()


LAST = "position = (SELECT max(position) FROM log)"


@pytest.mark.case("Q01")
@pytest.mark.parametrize(
    ("rules", "sql"),
    [
        ({Rule.HASH}, "UPDATE log SET at = at + 1 WHERE position = 9"),
        ({Rule.HASH, Rule.DECODE}, "UPDATE log SET events = x'00' WHERE position = 9"),
        ({Rule.POSITION}, "DELETE FROM log WHERE position = 9"),
        ({Rule.VERSION}, "UPDATE log SET count = count + 1 WHERE position = 9"),
        ({Rule.HEAD}, f"DELETE FROM log WHERE {LAST}"),
        ({Rule.HEAD}, f"UPDATE log SET head = x'00' WHERE {LAST}"),
        ({Rule.HASH}, "UPDATE stream SET name = 'turn:odd' WHERE name LIKE 'turn:%' AND id < 9"),
        ({Rule.PROJECTION}, "UPDATE stream SET phase = 'queued' WHERE phase = 'delivered'"),
        ({Rule.KEY}, "DELETE FROM dedupe"),
        ({Rule.BODY}, "UPDATE body SET salt = NULL, data = NULL WHERE id = (SELECT max(id) FROM body)"),
        ({Rule.BODY}, "UPDATE body SET data = x'00'"),
        ({Rule.BODY}, "INSERT INTO body VALUES (1 << 40, x'00', x'00')"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_found(path: Path, rules: set[Rule], sql: str) -> None:
    assert audited_file(path).passed
    damage(path, sql)
    found = {finding.rule for finding in audited_file(path).findings}
    assert rules <= found or (rules == {Rule.HEAD} and found)


def test_a_damaged_record_loses_one_commit_of_one_stream(path: Path) -> None:
    damage(path, "UPDATE log SET events = x'00' WHERE position = 9")
    report = audited_file(path)
    assert {finding.rule for finding in report.findings} == {Rule.HASH, Rule.DECODE}
    assert {finding.position for finding in report.findings} == {9}


def test_a_tail_cut_off_whole_needs_a_head_that_was_kept(path: Path) -> None:
    """Cut at the end of a commit the rest is a good log; only a head kept elsewhere
    shows what is gone."""
    head = audited_file(path).head
    cut = "(SELECT max(position) FROM log WHERE head IS NOT NULL AND position < ?)"
    damage(path, f"DELETE FROM log WHERE position > {cut}", head.position)
    report = audited_file(path, marks=[head])
    assert Rule.HEAD in {finding.rule for finding in report.findings}


@pytest.mark.case("Q01")
def test_an_audit_goes_on_behind_a_page_that_cannot_be_read(path: Path) -> None:
    async def grow() -> None:
        gateway = Gateway(store=in_file(path))
        kernel = await gateway.start()
        for number in range(200):
            await kernel.enqueue(route(f"d{number}"), "x")
        await spin()
        await gateway.end()

    asyncio.run(grow())
    connection = apsw.Connection(str(path))
    sql = "SELECT pageno FROM dbstat WHERE name = 'log' AND pagetype = 'leaf'"
    try:
        leaves = [row[0] for row in connection.execute(sql)]
    except apsw.SQLError:
        pytest.skip("this SQLite has no dbstat")
    finally:
        connection.close()
    data = bytearray(path.read_bytes())
    page = leaves[len(leaves) // 2] - 1
    data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(data)
    report = audited_file(path, limit=10_000)
    assert Rule.DECODE in {finding.rule for finding in report.findings}
    assert report.head.position > 400
