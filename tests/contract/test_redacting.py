"""Erasing what a turn or an entry has stored, through the kernel."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest

from turnfold import File, Kernel, Text
from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._log.bodies import digests_of
from turnfold._log.events import CLASSES, NAMES
from turnfold.enums import FailureClass, Phase, TurnOutcome
from turnfold.errors import RuleBrokenError, StillOpenError
from turnfold.ports.channel import Rejected
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.testing.gateway import (
    Gateway,
    entry,
    events,
    in_file,
    inbound,
    peek,
    route,
    spin,
    story,
    turn,
    until,
)
from turnfold_model.testing.platform import answers

SECRETS = ("asked-Aq3", "block-Bq3", "final-Cq3", "step-Dq3", "file-Eq3", "error-Fq3")


Named = tuple[str, str]  # a stream and the text by which its events name a body


def _bodies(kernel: Kernel, *streams: str) -> list[Named]:
    """The bodies that the events of these streams name."""
    return [
        (stream, ref)
        for stream in streams
        for event in events(kernel, stream)
        for ref in digests_of(event)
    ]


def _gone(kernel: Kernel, named: Sequence[Named]) -> bool:
    """True if the store keeps nothing of these bodies, not even their salts."""
    return all(peek(kernel).kept(*name) is None for name in named)


async def _talk(handle: Any) -> None:
    async def effect() -> str:
        return "step-Dq3"

    await handle.step("s", effect)
    await handle.block("block-Bq3", key="b")
    await handle.reply("final-Cq3", File(data=b"file-Eq3" * 20_000, name="a.bin"))


async def _over(gateway: Gateway) -> tuple[Kernel, str]:
    """A turn that said much, with a failure whose text is kept, and is over."""
    gateway.handler = _talk
    gateway.platform.plays(
        answers(Rejected(failure=FailureClass.CANCELLED, detail="error-Fq3"))
    )
    kernel = await gateway.start()
    done = await kernel.accept(inbound(text="asked-Aq3"))
    await spin(200)
    await gateway.advance(5_000)
    await kernel.settled(done.turn_id, 5_000)
    await kernel.settled(f"{_entry(done.turn_id)}.all.block.b", 5_000)
    return kernel, done.turn_id


def _entry(turn_id: str) -> str:
    return turn_id.replace("turn:", "entry:")


@pytest.mark.case("N03")
async def test_a_turn_takes_the_bodies_of_its_entries_with_it(gateway: Gateway) -> None:
    kernel, name = await _over(gateway)
    other = await kernel.accept(inbound("2", text="kept"))
    await kernel.settled(other.turn_id, 5_000)
    entries = peek(kernel).children(name)
    assert len(entries) == 2
    named = _bodies(kernel, name, *entries)
    assert len(set(named)) >= 6
    before = peek(kernel).head.position
    assert await kernel.redact(name, by="me")
    assert _gone(kernel, named)
    assert [story(kernel, s)[-1] for s in (name, *entries)] == ["redacted"] * 3
    assert peek(kernel).head.position == before + 3
    assert turn(kernel, name).redacted
    assert turn(kernel, name).outcome is TurnOutcome.REPLIED
    (asked,) = _bodies(kernel, other.turn_id)[:1]
    assert b"kept" in peek(kernel).body(*asked)


@pytest.mark.case("N03")
async def test_no_file_of_the_store_holds_any_of_it(tmp_path: Path) -> None:
    gateway = Gateway(store=in_file(tmp_path / "g.db"))
    kernel, name = await _over(gateway)
    assert all(_found(tmp_path, secret) for secret in SECRETS)
    assert await kernel.redact(name, by="me")
    assert [secret for secret in SECRETS if _found(tmp_path, secret)] == []
    await gateway.end()
    assert [secret for secret in SECRETS if _found(tmp_path, secret)] == []


def _found(folder: Path, secret: str) -> list[str]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [file.name for file in files if secret.encode() in file.read_bytes()]


async def test_redacting_again_is_harmless_and_takes_what_has_come_since(
    gateway: Gateway,
) -> None:
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), "text")
    await kernel.settled(done.entry_id, 5_000)
    await kernel.redact(done.entry_id, by="me")
    head = peek(kernel).head
    for _ in range(2):
        assert await kernel.redact(done.entry_id, by="me")
        assert peek(kernel).head == head
    await kernel.bounced(done.entry_id, detail="who wrote back")
    named = _bodies(kernel, done.entry_id)
    assert not _gone(kernel, named)
    await kernel.redact(done.entry_id, by="me")
    assert _gone(kernel, named)
    since = story(kernel, done.entry_id)[-4:]
    assert since == ["redacted", "bounced", "lane_yielded", "redacted"]


async def test_what_is_not_over_is_not_redacted(gateway: Gateway) -> None:
    kernel = await gateway.start()
    await kernel.disconnected("t")
    waiting = await kernel.enqueue(route(), "text")
    accepted = await kernel.accept(inbound())
    for stream in (waiting.entry_id, accepted.turn_id):
        head = peek(kernel).head
        with pytest.raises(StillOpenError) as caught:
            await kernel.redact(stream, by="me")
        assert caught.value.stream == stream
        assert peek(kernel).head == head
    assert not _gone(kernel, _bodies(kernel, waiting.entry_id))


async def test_a_turn_with_an_entry_that_is_open_is_not_redacted_by_half(
    gateway: Gateway,
) -> None:
    async def handler(handle: Any) -> None:
        await handle.block("waits", key="b")
        await handle.silent("nothing_to_say")

    gateway.handler = handler
    kernel = await gateway.start()
    await kernel.disconnected("t")
    done = await kernel.accept(inbound())
    await kernel.settled(done.turn_id, 5_000)
    block = f"{_entry(done.turn_id)}.all.block.b"
    with pytest.raises(StillOpenError) as caught:
        await kernel.redact(done.turn_id, by="me")
    assert caught.value.stream == block
    assert not turn(kernel, done.turn_id).redacted
    await kernel.abort(block)
    await kernel.redact(done.turn_id, by="me")
    assert entry(kernel, block).redacted


async def test_what_was_erased_is_neither_sent_nor_run_again(gateway: Gateway) -> None:
    async def handler(handle: Any) -> None:
        raise ValueError("no")

    gateway.handler = handler
    gateway.settings = attrs.evolve(gateway.settings, max_runs=1, notices={})
    gateway.platform.plays(answers(Rejected(failure=FailureClass.PERMISSION)))
    kernel = await gateway.start()
    letter = await kernel.enqueue(route(), "text")
    await kernel.settled(letter.entry_id, 5_000)
    failed = await kernel.accept(inbound())
    await kernel.settled(failed.turn_id, 5_000)
    await kernel.redact(letter.entry_id, by="me")
    await kernel.redact(failed.turn_id, by="me")
    for call in (
        lambda: kernel.redrive(letter.entry_id, by="me"),
        lambda: kernel.resubmit(failed.turn_id, by="me"),
    ):
        with pytest.raises(RuleBrokenError) as caught:
            await call()
        assert caught.value.rule == "bodies_kept"
    await kernel.acknowledge(letter.entry_id, by="me")
    assert entry(kernel, letter.entry_id).phase is Phase.FAILED


@pytest.mark.case("N04")
async def test_erasing_keeps_the_keys(gateway: Gateway) -> None:
    kernel = await gateway.start()
    first = await kernel.enqueue(route(), "text", key="k")
    await kernel.settled(first.entry_id, 5_000)
    await kernel.redact(first.entry_id, by="me")
    again = await kernel.enqueue(route(), "text", key="k")
    assert (again.entry_id, again.new, again.differs) == (first.entry_id, False, False)


async def test_a_message_cannot_name_a_body_that_is_not_its_own(
    gateway: Gateway,
) -> None:
    """A message that looks like the payload of a file is not one."""

    async def handler(handle: Any) -> None:
        async def effect() -> Any:
            return {"content": ref, "mime": "", "name": "", "type": "file"}

        await handle.step("s", effect)
        await handle.silent("nothing_to_say")

    gateway.handler = handler
    kernel = await gateway.start()
    kept = await kernel.enqueue(route(), "kept")
    await kernel.settled(kept.entry_id, 5_000)
    stream, ref = _bodies(kernel, kept.entry_id)[0]
    message = attrs.evolve(inbound(), body={"content": ref, "type": "file"})
    done = await kernel.accept(message)
    await kernel.settled(done.turn_id, 5_000)
    await kernel.redact(done.turn_id, by="me")
    assert b"kept" in peek(kernel).body(stream, ref)


async def test_a_turn_with_many_bodies_is_redacted_in_one_go(gateway: Gateway) -> None:
    """More bodies than a commit may fetch in rounds: they are fetched together."""

    async def handler(handle: Any) -> None:
        async def effect() -> str:
            return "kept by the step"

        for number in range(60):
            await handle.step(str(number), effect)
        for number in range(20):
            await handle.block(f"block {number}", key=str(number))
        await handle.silent("nothing_to_say")

    gateway.handler = handler
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    await kernel.settled(done.turn_id, 20_000)
    entries = peek(kernel).children(done.turn_id)
    assert len(entries) == 20
    for stream in entries:
        await kernel.settled(stream, 20_000)
    named = _bodies(kernel, done.turn_id, *entries)
    assert len(named) > 80
    assert await kernel.redact(done.turn_id, by="me")
    assert _gone(kernel, named)


@pytest.fixture
def soon_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is idle 20 ms after its last append."""
    monkeypatch.setattr("turnfold._runtime.worker.POLL_S", 0.005)
    monkeypatch.setattr("turnfold._runtime.worker.IDLE_S", 0.02)


@pytest.mark.usefixtures("soon_idle")
async def test_redacting_from_another_process_works_too(tmp_path: Path) -> None:
    """The owner does it. Whether every file is free of it by then, the client cannot
    say."""
    gateway = Gateway(store=in_file(tmp_path / "g.db"))
    kernel = await gateway.start()
    client = await gateway.start(work=False)
    done = await kernel.enqueue(route(), Text("secret-Zq9"))
    await kernel.settled(done.entry_id, 5_000)
    assert not await client.redact(done.entry_id, by="you")
    assert entry(kernel, done.entry_id).redacted
    assert _gone(client, _bodies(client, done.entry_id))
    await until(lambda: not _found(tmp_path, "secret-Zq9"))
    await kernel.disconnected("t")
    waiting = await client.enqueue(route(), "text")
    with pytest.raises(StillOpenError):
        await client.redact(waiting.entry_id, by="you")
    await gateway.end()


async def test_redacting_while_no_worker_lives_is_done_by_the_client(
    tmp_path: Path,
) -> None:
    gateway = Gateway(store=in_file(tmp_path / "g.db"))
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), Text("secret-Zq9"))
    await kernel.settled(done.entry_id, 5_000)
    await gateway.end()
    client = await gateway.start(work=False)
    await client.redact(done.entry_id, by="me")
    assert entry(client, done.entry_id).redacted
    assert _found(tmp_path, "secret-Zq9") == []
    await gateway.end()


@pytest.mark.usefixtures("soon_idle")
async def test_a_command_leaves_no_copy_of_its_payload_in_the_inbox(
    tmp_path: Path,
) -> None:
    gateway = Gateway(store=in_file(tmp_path / "g.db"))
    kernel = await gateway.start()
    client = await gateway.start(work=False)
    text = await client.enqueue(route(), Text("secret-Zq9"))
    file = await client.enqueue(route(), File(data=b"secret-Yq9" * 20_000, name="a.b"))
    await kernel.settled(text.entry_id, 5_000)
    await kernel.settled(file.entry_id, 5_000)
    assert _found(tmp_path, "secret-Zq9")
    await kernel.redact(text.entry_id, by="me")
    await kernel.redact(file.entry_id, by="me")
    await until(lambda: not _found(tmp_path, "secret-Zq9"))
    await until(lambda: not _found(tmp_path, "secret-Yq9"))
    await gateway.end()


@pytest.mark.usefixtures("soon_idle")
async def test_an_erasing_that_must_wait_is_finished_when_idle(tmp_path: Path) -> None:
    gateway = Gateway(store=lambda: SqliteStore(tmp_path / "g.db", busy_ms=50))
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), Text("secret-Zq9"))
    await kernel.settled(done.entry_id, 5_000)
    client = await gateway.start(work=False)
    assert isinstance(client.store, SqliteStore)
    assert client.store._reader is not None
    reading = client.store._reader.execute("SELECT * FROM body")
    next(reading)
    assert not await kernel.redact(done.entry_id, by="me")
    assert entry(kernel, done.entry_id).redacted
    await asyncio.sleep(0.1)
    assert _found(tmp_path, "secret-Zq9")
    reading.close()
    await until(lambda: not _found(tmp_path, "secret-Zq9"))
    await gateway.end()


def test_every_field_that_names_a_body_is_known() -> None:
    """By their names: `body`, `detail`, `why`, `result`, and the parts of a plan."""
    naming = {"body", "detail", "why", "result"}
    part = o.PlannedPart(kind="text", body="D", key="k")
    for cls in CLASSES.values():
        fields = {a.name for a in msgspec.structs.fields(cls)}
        for name in naming & fields:
            several = name == "body" and cls in (o.Queued, o.Imported)
            value: Any = ("D",) if several else "D"
            values = dict.fromkeys(fields) | {name: value}
            if cls is o.Imported:
                values = {"body": ()} | {k: v for k, v in values.items() if v}
                values = dict.fromkeys(fields) | values
            event = cls(**values)
            assert list(digests_of(event)) == ["D"], f"{NAMES[cls]}.{name}"
        if "parts" in fields:
            assert list(digests_of(o.Planned(parts=(part,), budget=1))) == ["D"]
    assert list(digests_of(t.Completed(outcome=TurnOutcome.REPLIED))) == []
