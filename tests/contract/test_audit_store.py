"""The audit of a whole store: what stands beside the log is held against the log."""

import asyncio
from pathlib import Path

import apsw
import pytest
from attrs import evolve

from turnfold import File
from turnfold.audit import Report, Rule, audit_store
from turnfold.events import outbox as o
from turnfold.ports.store import Append
from turnfold_adapters.stores.memory import MemoryDisk, MemoryStore
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.gateway import Gateway, in_file, inbound, route, spin
from turnfold_model.platform import unknown


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
    store.open(read_only=True)
    return audit_store(store, **more)


def first(report: Report) -> tuple[Rule, str | None]:
    assert report.first is not None
    return report.first.rule, report.first.stream


def stream_of(disk: MemoryDisk, family: str) -> str:
    return next(name for name in disk.summaries if name.startswith(family))


def test_a_store_as_the_kernel_leaves_it_passes(disk: MemoryDisk) -> None:
    report = audited(disk)
    assert report.passed, report.first
    assert report.streams == len(disk.streams)
    assert report.head == disk.head


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "queued"},
        {"open": True},
        {"reason": "x"},
        {"due": 7},
        {"lane": "t/x/y/"},
    ],
)
def test_a_projection_that_is_not_the_fold_is_found(disk: MemoryDisk, change) -> None:
    stream = stream_of(disk, "entry:")
    disk.summaries[stream] = evolve(disk.summaries[stream], **change)
    report = audited(disk)
    assert first(report) == (Rule.PROJECTION, stream)
    assert next(iter(change)) in str(report.first)


def test_a_projection_that_is_missing_is_found(disk: MemoryDisk) -> None:
    stream = stream_of(disk, "turn:")
    del disk.summaries[stream]
    assert first(audited(disk)) == (Rule.PROJECTION, stream)


def test_a_projection_of_nothing_is_found(disk: MemoryDisk) -> None:
    some = disk.summaries[stream_of(disk, "entry:")]
    disk.summaries["entry:x"] = evolve(some, stream="entry:x", open=True, order=99)
    assert first(audited(disk)) == (Rule.PROJECTION, "entry:x")


def test_a_projection_ahead_of_the_log_is_found(disk: MemoryDisk) -> None:
    stream = stream_of(disk, "entry:")
    some = disk.summaries[stream]
    disk.summaries[stream] = evolve(some, version=some.version + 1)
    assert first(audited(disk)) == (Rule.PROJECTION, stream)


def test_a_dedupe_key_that_is_gone_is_found(disk: MemoryDisk) -> None:
    key = next(key for key in disk.keys if key.startswith("in:"))
    stream = disk.keys.pop(key)
    assert first(audited(disk)) == (Rule.KEY, stream)


def test_a_dedupe_key_of_another_stream_is_found(disk: MemoryDisk) -> None:
    stream, disk.keys["out:cron-1"] = disk.keys["out:cron-1"], "entry:x"
    assert first(audited(disk)) == (Rule.KEY, stream)


def test_a_body_that_is_gone_is_found_unless_bodies_are_left_out(
    disk: MemoryDisk,
) -> None:
    digest = next(iter(disk.bodies))
    del disk.bodies[digest]
    report = audited(disk)
    assert first(report)[0] is Rule.BODY
    assert digest in str(report.first)
    assert audited(disk, bodies=False).passed


def test_the_content_of_a_file_is_a_body_too(disk: MemoryDisk) -> None:
    digest = next(d for d, body in disk.bodies.items() if body.data == b"png")
    del disk.bodies[digest]
    assert first(audited(disk))[0] is Rule.BODY


def test_a_body_with_other_bytes_is_found(disk: MemoryDisk) -> None:
    digest = next(iter(disk.bodies))
    disk.bodies[digest] = evolve(disk.bodies[digest], data=b"forged")
    assert first(audited(disk))[0] is Rule.BODY


def test_a_body_that_was_redacted_is_not_missed(disk: MemoryDisk) -> None:
    from turnfold.codec import encode
    from turnfold.fold import apply, fold, summarize

    stream = next(
        name
        for name, row in disk.summaries.items()
        if row.phase == "delivered" and row.parent is None
    )
    records = disk.streams[stream]
    for digest in fold(records).body:
        del disk.bodies[digest]
    assert not audited(disk).passed
    event = o.Redacted(by="me")
    last = records[-1]
    record = encode(
        event, stream, last.version + 1, disk.log[-1].at, disk.head.position + 1
    )
    after = summarize(apply(fold(records), record))
    store = MemoryStore(disk)
    store.open()
    with store.write() as tx:
        tx.append(Append(records=[record], summaries=[after]))
    assert audited(disk).passed


def test_a_log_that_lost_its_tail_does_not_reach_the_stores_head(
    disk: MemoryDisk,
) -> None:
    disk.log.pop()
    assert Rule.HEAD in {finding.rule for finding in audited(disk).findings}


def test_a_store_may_go_on_while_it_is_audited(disk: MemoryDisk) -> None:
    """Events that come after the audit began are audited, too, and a projection that
    is further on is not held against it."""
    store = MemoryStore(disk)
    store.open(read_only=True)
    late = [True]

    def meanwhile(_: int) -> None:
        if late.pop() if late else False:
            asyncio.run(more())

    async def more() -> None:
        gateway = Gateway(store=lambda: MemoryStore(disk))
        gateway.clock.pass_ms(86_400_000)  # what was in doubt expires
        kernel = await gateway.start()
        await kernel.enqueue(route("c7"), "late")
        await spin()
        await gateway.end()

    before = disk.head.position
    from turnfold.audit.auditor import Auditor, run

    auditor = Auditor(store=store, marks=[store.head])
    for record in list(store.log()):
        auditor.feed(record)
    meanwhile(0)
    assert disk.head.position > before
    assert run(auditor, store.log(before)).passed


def test_closed_streams_are_dropped_and_folded_again_when_they_come_back() -> None:
    """Memory is bounded by what is open; what an audit forgot it can read again."""
    from turnfold.audit import states as kept

    disk = MemoryDisk()
    asyncio.run(worked(Gateway(store=lambda: MemoryStore(disk))))
    store = MemoryStore(disk)
    store.open(read_only=True)
    whole = kept.States(store, lambda states: [True for _ in states])
    from turnfold.fold import apply

    usual = kept._LATE, kept._MANY
    kept._LATE, kept._MANY = 0, 2
    try:
        for record in store.log():
            whole.put(apply(whole.before(record), record))
    finally:
        kept._LATE, kept._MANY = usual
    assert not [s for s in whole if s.stream.startswith("turn:")]
    stream = stream_of(disk, "entry:")
    assert whole.at(stream, disk.head.position) is not None


# --- in a file ---------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "g.db"
    asyncio.run(worked(Gateway(store=in_file(path))))
    return path


def audited_file(path: Path) -> Report:
    store = SqliteStore(path)
    store.open(read_only=True)
    try:
        return audit_store(store)
    finally:
        store.close()


def damage(path: Path, sql: str, *bindings: object) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(sql, bindings).fetchall()
    connection.close()


@pytest.mark.case("Q01")
@pytest.mark.parametrize(
    ("rules", "sql"),
    [
        ({Rule.HASH}, "UPDATE log SET at = at + 1 WHERE position = 9"),
        ({Rule.HASH, Rule.DECODE}, "UPDATE log SET data = x'00' WHERE position = 9"),
        ({Rule.POSITION}, "DELETE FROM log WHERE position = 9"),
        ({Rule.HEAD}, "DELETE FROM log WHERE position = (SELECT max(position) FROM log)"),
        ({Rule.HEAD}, "UPDATE log SET head = x'00' WHERE position = (SELECT max(position) FROM log)"),
        ({Rule.HASH, Rule.DECODE}, "UPDATE kind SET name = 'turn.odd' WHERE name = 'turn.started'"),
        ({Rule.PROJECTION}, "UPDATE stream SET phase = 'queued' WHERE phase = 'delivered'"),
        ({Rule.KEY}, "DELETE FROM dedupe"),
        ({Rule.BODY}, "DELETE FROM body WHERE id = 1"),
        ({Rule.BODY}, "UPDATE body SET data = x'00' WHERE id = 1"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_found(path: Path, rules: set[Rule], sql: str) -> None:
    assert audited_file(path).passed
    damage(path, sql)
    found = {finding.rule for finding in audited_file(path).findings}
    assert rules <= found or (rules == {Rule.HEAD} and found)


def test_a_tail_cut_off_whole_needs_a_head_that_was_kept(path: Path) -> None:
    """Cut at the end of a transaction the rest is a good log; only a head kept
    elsewhere shows what is gone."""
    store = SqliteStore(path)
    store.open(read_only=True)
    head = store.head
    store.close()
    cut = "(SELECT max(position) FROM log WHERE head IS NOT NULL AND position < ?)"
    damage(path, f"DELETE FROM log WHERE position > {cut}", head.position)
    store = SqliteStore(path)
    store.open(read_only=True)
    report = audit_store(store, marks=[head])
    store.close()
    assert Rule.HEAD in {finding.rule for finding in report.findings}
