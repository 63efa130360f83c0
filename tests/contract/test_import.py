"""The queue of another gateway comes in: in doubt, once, and its files are moved last."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from turnfold import Kernel
from turnfold.api import client as mailbox
from turnfold.api import importing
from turnfold.audit import audit_store
from turnfold.enums import Phase
from turnfold.errors import InvalidInputError, RuleBrokenError
from turnfold.inspect import Filter
from turnfold_cli import app
from turnfold_cli.common import for_people
from turnfold_model.testing.gateway import (
    Gateway,
    entry,
    in_file,
    inbound,
    peek,
    spin,
    story,
)

NOW = 1_764_000_000_000
DAY = 86_400_000


def delivery(name: str, **changes: object) -> dict[str, object]:
    fields = {
        "id": name,
        "enqueuedAt": NOW - 60_000,
        "channel": "t",
        "to": "42",
        "payloads": [{"text": f"words of {name}"}],
        "retryCount": 0,
    }
    return {**fields, **changes}


def put(folder: Path, name: str, value: object = None, **changes: object) -> Path:
    """A file of the queue; `value` instead of a good one."""
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    good = delivery(path.stem, **changes)
    path.write_text(value if isinstance(value, str) else json.dumps(value or good))
    return path


def files(folder: Path) -> list[str]:
    """What lies in the folder, but for the archive."""
    paths = (p for p in folder.rglob("*") if p.is_file())
    names = (str(p.relative_to(folder)) for p in paths)
    return sorted(name for name in names if "imported" not in name)


def archived(folder: Path) -> list[str]:
    place = folder / "imported"
    return sorted(str(p.relative_to(place)) for p in place.rglob("*.json"))


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    folder = tmp_path / "delivery-queue"
    folder.mkdir()
    return folder


def at_now(gateway: Gateway) -> Gateway:
    gateway.clock.pass_ms(NOW - gateway.clock.wall_now())
    return gateway


def entry_of(kernel: Kernel, name: str) -> str:
    stream = peek(kernel).lookup(f"out:import:{name}")
    assert stream is not None
    return stream


@pytest.mark.case("M04")
async def test_what_may_have_been_sent_comes_in_parked_and_is_not_sent(
    gateway: Gateway, queue: Path
) -> None:
    put(queue, "a")
    put(queue, "b", retryCount=3, lastError="HTTP 503", threadId=7, replyToId="99")
    kernel = await at_now(gateway).start()
    done = await kernel.import_queue(queue)
    await spin()
    assert (done.found, done.parked, done.dead, done.moved) == (2, 2, 0, 2)
    assert (files(queue), archived(queue)) == ([], ["a.json", "b.json"])
    assert gateway.platform.contents == []
    one = entry(kernel, entry_of(kernel, "b"))
    assert (one.phase, one.doubt, one.kind) == (Phase.PARKED, True, "final")
    assert (one.thread, one.reply_to, one.account) == ("7", "99", "default")
    assert story(kernel, one.stream) == ["imported", "lane_yielded"]
    view = await kernel.inspect.show(one.stream)
    assert "tried 3 time(s) there" in view.happened[0].text


@pytest.mark.case("M04", "E02", "D07")
async def test_by_age_it_is_a_dead_letter_whose_outcome_is_unknown(
    gateway: Gateway, queue: Path
) -> None:
    put(queue, "old", enqueuedAt=NOW - 2 * DAY)
    put(queue, "edge", enqueuedAt=NOW - DAY)
    put(queue, "young", enqueuedAt=NOW - DAY + 60_000)
    put(queue, "no-time", enqueuedAt=None, retryCount="many")
    put(queue, "future", enqueuedAt=NOW + DAY)
    put(queue, "failed/given-up", retryCount=5)
    kernel = await at_now(gateway).start()
    done = await kernel.import_queue(queue.parent)
    assert (done.parked, done.dead) == (3, 3)
    assert "failed/given-up.json" in archived(queue)
    for name in ("old", "edge", "given-up"):
        one = entry(kernel, entry_of(kernel, name))
        assert (one.phase, one.reason) == (Phase.FAILED, "outcome_unknown")
        with pytest.raises(RuleBrokenError):
            await kernel.retry(one.stream, by="ann")
    for name in ("young", "no-time", "future"):
        assert entry(kernel, entry_of(kernel, name)).phase is Phase.PARKED
    late = entry(kernel, entry_of(kernel, "future"))
    assert late.expires_at <= kernel._clock.now() + DAY  # no longer than a new one


@pytest.mark.case("M04")
async def test_nothing_is_too_old_while_no_clock_can_be_trusted(
    wild: Gateway, queue: Path
) -> None:
    put(queue, "old", enqueuedAt=NOW - 2 * DAY)
    kernel = await at_now(wild).start()
    context = kernel._context
    kernel._open_driver().journal.context = lambda: _unsure(context())
    assert (await kernel.import_queue(queue)).parked == 1


def _unsure(context):
    from msgspec.structs import replace

    return replace(context, sure_from=context.now)


@pytest.mark.parametrize("verdict", ["delivered", "not_sent", "resend", "give_up"])
async def test_a_person_decides_about_it_like_about_any_other(
    gateway: Gateway, queue: Path, verdict: str
) -> None:
    put(queue, "a", payloads=[{"text": "one"}, {"text": "two"}])
    kernel = await at_now(gateway).start()
    await kernel.import_queue(queue)
    name = entry_of(kernel, "a")
    await kernel.resolve(name, verdict, by="ann")
    await spin()
    sends = verdict in ("not_sent", "resend")
    assert gateway.platform.contents == (["one", "two"] if sends else [])
    wanted = Phase.FAILED if verdict == "give_up" else Phase.DELIVERED
    assert entry(kernel, name).phase is wanted


async def test_a_dead_letter_goes_out_once_a_duplicate_is_accepted(
    gateway: Gateway, queue: Path
) -> None:
    put(queue, "failed/a")
    kernel = await at_now(gateway).start()
    await kernel.import_queue(queue)
    await kernel.retry(entry_of(kernel, "a"), by="ann", accept_duplicate=True)
    await spin()
    assert gateway.platform.contents == ["words of a"]


async def test_a_word_to_send_waits_for_the_channel(
    gateway: Gateway, queue: Path
) -> None:
    put(queue, "a", channel="later")
    kernel = await at_now(gateway).start()
    await kernel.import_queue(queue)
    name = entry_of(kernel, "a")
    await kernel.resolve(name, "resend", by="ann")
    await spin()
    assert entry(kernel, name).phase is Phase.IN_DOUBT
    assert entry(kernel, name).attempt == 0
    assert "not attached" in (await kernel.inspect.show(name)).next.text


async def test_a_payload_that_its_channel_suppresses_ends_as_unknown(
    gateway: Gateway, queue: Path
) -> None:
    put(queue, "a", payloads=[{"text": " "}])

    class Quiet:
        async def send(self, part, key, attempt):
            raise AssertionError

        def plan(self, payload, route, kind, context):
            return []

    gateway.channels = {("t", "default"): Quiet()}
    kernel = await at_now(gateway).start()
    await kernel.import_queue(queue)
    name = entry_of(kernel, "a")
    await kernel.resolve(name, "resend", by="ann")
    await spin()
    assert entry(kernel, name).phase is Phase.FAILED
    assert entry(kernel, name).reason == "outcome_unknown"


async def test_a_plan_that_breaks_ends_what_a_person_sends_again(
    gateway: Gateway, queue: Path
) -> None:
    put(queue, "a")
    put(queue, "b")

    class Broken:
        async def send(self, part, key, attempt):
            raise AssertionError

        def plan(self, payload, route, kind, context):
            raise KeyError("no")

    gateway.channels = {("t", "default"): Broken()}
    kernel = await at_now(gateway).start()
    await kernel.import_queue(queue)
    for name, verdict in (("a", "resend"), ("b", "not_sent")):
        await kernel.resolve(entry_of(kernel, name), verdict, by="ann")
    await spin()
    reasons = [entry(kernel, entry_of(kernel, n)).reason for n in ("a", "b")]
    assert reasons == ["outcome_unknown", "refused"]


@pytest.mark.case("M02")
async def test_a_file_that_cannot_be_read_is_left_and_told_and_the_others_come_in(
    gateway: Gateway, queue: Path
) -> None:
    bad = {
        "torn": '{"id": "torn", "chan',
        "list": "[1]",
        "deep": "[" * 100_000,
        "no-to": json.dumps(delivery("no-to", to=None)),
        "no-channel": json.dumps(delivery("no-channel", channel=[])),
        "control": json.dumps(delivery("control", to="a\0b")),
        "empty": json.dumps(delivery("empty", payloads=[])),
        "blank": json.dumps(delivery("blank", payloads=[{"text": ""}])),
        "odd": json.dumps(delivery("odd", kind="shout")),
        "float": json.dumps(delivery("float", payloads=[{"lat": 1.5}])),
        "surrogate": '{"channel":"t","to":"1","payloads":[{"text":"\\ud800"}]}',
    }
    for name, text in bad.items():
        put(queue, name, text)
    put(queue, "good")
    (queue / "x.json.123.tmp").write_text("half")
    kernel = await at_now(gateway).start()
    done = await kernel.import_queue(queue)
    assert archived(queue) == ["good.json"]
    wanted = sorted([*(f"{name}.json" for name in bad), "x.json.123.tmp"])
    assert sorted(one.path.name for one in done.left) == wanted == files(queue)
    why = {one.path.stem: one.why for one in done.left}
    assert why["no-to"].startswith("to: ")
    assert why["float"].startswith("body.lat: ")


@pytest.mark.case("X20")
@pytest.mark.parametrize(
    "address", ["http://[bad/a.png", "x" * 5000, "http://ex\u2100ample/a", "file://[/a"]
)
async def test_an_address_that_is_none_stops_no_import(
    gateway: Gateway, queue: Path, address: str
) -> None:
    put(queue, "odd", payloads=[{"mediaUrl": address}])
    put(queue, "good")
    kernel = await at_now(gateway).start()
    done = await kernel.import_queue(queue)
    assert (done.moved, done.left) == (2, [])


async def test_words_and_files_become_parts_and_everything_else_is_kept_as_it_is(
    gateway: Gateway, queue: Path
) -> None:
    photo = queue.parent / "photo.png"
    photo.write_bytes(b"png")
    rich = {"text": "choose", "channelData": {"line": {"quickReplies": ["a", "b"]}}}
    gone = {"text": "see", "mediaUrl": "/nowhere/at/all.png"}
    both = {"text": "look", "mediaUrl": str(photo), "mediaUrls": [str(photo)]}
    web = {"mediaUrl": "https://example.org/a.png"}
    put(queue, "a", payloads=[both, rich, gone, web, {"text": "end", "mediaUrls": []}])
    kernel = await at_now(gateway).start()
    await kernel.import_queue(queue)
    photo.unlink()  # the queue owns a copy
    view = await kernel.inspect.show(entry_of(kernel, "a"))
    await kernel.resolve(entry_of(kernel, "a"), "not_sent", by="ann")
    await spin()
    kinds = [part.kind for part in (await kernel.inspect.show(view.id)).parts]
    assert kinds == ["text", "file", "native", "native", "native", "text"]
    contents = gateway.platform.contents
    assert contents[0] == "look"
    assert contents[-1] == "end"


@pytest.mark.case("M03")
async def test_a_second_run_brings_nothing_twice(gateway: Gateway, queue: Path) -> None:
    raw = put(queue, "a").read_bytes()
    kernel = await at_now(gateway).start()
    await kernel.import_queue(queue)
    (queue / "a.json").write_bytes(raw)
    done = await kernel.import_queue(queue)
    assert (done.found, done.again, done.moved, done.left) == (1, 1, 1, [])
    assert archived(queue) == ["a.json"]
    put(queue, "a", payloads=[{"text": "other words"}])
    done = await kernel.import_queue(queue)
    assert [one.path.name for one in done.left] == ["a.json"]
    assert "other bytes" in done.left[0].why
    assert files(queue) == ["a.json"]


@pytest.mark.case("M03")
async def test_two_imports_at_once_bring_each_delivery_once(
    gateway: Gateway, queue: Path
) -> None:
    for number in range(5):
        put(queue, f"n{number}")
    kernel = await at_now(gateway).start()
    done = await asyncio.gather(*(kernel.import_queue(queue) for _ in range(2)))
    assert len(archived(queue)) == 5
    assert sum(one.moved for one in done) == 5
    assert len(await kernel.inspect.list(Filter())) == 5


async def test_an_archive_keeps_both_files_of_one_name(
    gateway: Gateway, queue: Path
) -> None:
    put(queue, "imported/a", value="older")
    put(queue, "a")
    kernel = await at_now(gateway).start()
    await kernel.import_queue(queue)
    assert archived(queue) == ["a.1.json", "a.json"]


@pytest.mark.case("M01")
async def test_a_file_that_changes_meanwhile_is_left(
    gateway: Gateway, queue: Path
) -> None:
    put(queue, "a")
    kernel = await at_now(gateway).start()

    def change(step: str, done: int, total: int) -> None:
        if step == "verified":
            put(queue, "a", payloads=[{"text": "newer"}])

    done = await kernel.import_queue(queue, on_step=change)
    assert "changed" in done.left[0].why
    assert files(queue) == ["a.json"]


@pytest.mark.case("M01")
async def test_what_the_store_does_not_give_back_is_not_moved(
    gateway: Gateway, queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(queue, "a")
    kernel = await at_now(gateway).start()

    async def nothing(self, foreign):
        pass

    monkeypatch.setattr(importing.Importing, "_append_all", nothing)
    done = await kernel.import_queue(queue)
    assert (done.moved, files(queue)) == (0, ["a.json"])
    assert "run the import again" in done.left[0].why


async def test_a_process_beside_the_worker_brings_it_in_through_the_inbox(
    gateway: Gateway, queue: Path
) -> None:
    for number in range(120):
        put(queue, f"n{number:03}")
    kernel = await at_now(gateway).start()
    client = await gateway.start(work=False)
    done = await client.import_queue(queue)
    assert (done.parked, done.moved, done.left) == (120, 120, [])
    rows = await kernel.inspect.list(Filter(limit=200))
    assert {row.status for row in rows} == {"parked"}
    assert len(rows) == 120


async def test_where_nobody_works_the_client_does_it_alone(
    gateway: Gateway, queue: Path
) -> None:
    put(queue, "a")
    await at_now(gateway).start()
    await gateway.end()
    client = await gateway.start(work=False)
    done = await client.import_queue(queue)
    assert (done.parked, done.moved) == (1, 1)


@pytest.mark.case("M01")
async def test_what_waits_in_the_inbox_is_not_in_the_store_yet(
    filed: Gateway, queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(queue, "a")
    await at_now(filed).start()
    await filed.end()
    client = await filed.start(work=False)
    with monkeypatch.context() as slow:
        slow.setattr(mailbox, "PATIENCE_S", 0.05)
        slow.setattr(client._mailbox, "_apply_alone", _nobody)
        for _ in range(2):
            done = await client.import_queue(queue)
            assert (done.moved, files(queue)) == (0, ["a.json"])
            assert "run the import again" in done.left[0].why
    done = await client.import_queue(queue)
    assert (done.moved, done.parked, files(queue)) == (1, 1, [])


async def _nobody() -> None:
    """No worker answers."""


async def test_a_gateway_that_switches_over_takes_the_queue_in_as_it_opens(
    tmp_path: Path, queue: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(queue, "a")
    put(queue, "torn", value="{")
    for _ in range(2):
        async with Kernel(tmp_path / "g.db", import_from=queue) as kernel:
            rows = await kernel.inspect.list(Filter())
            assert len(rows) == 1
            assert (await audit_store(kernel.store)).passed
    assert files(queue) == ["torn.json"]
    assert "torn.json was left" in caplog.text
    async with Kernel(tmp_path / "g.db", import_from=tmp_path / "none"):
        assert "is no folder" in caplog.text


async def test_a_folder_that_is_none_is_refused(gateway: Gateway, queue: Path) -> None:
    kernel = await gateway.start()
    with pytest.raises(InvalidInputError):
        await kernel.import_queue(queue / "none")


# --- kill -9 ---

CHILD = """
import asyncio, os, signal, sys
from turnfold import Kernel
left = int(sys.argv[3])
def step(name, done, total):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
async def main():
    async with Kernel(sys.argv[1], work=sys.argv[4] == "worker") as kernel:
        await kernel.import_queue(sys.argv[2], on_step=step)
asyncio.run(main())
"""


def _code(command: list[str]) -> int:
    return subprocess.run(command, check=False, timeout=60).returncode


@pytest.mark.case("M01", "M03")
@pytest.mark.parametrize("role", ["worker", "client"])
async def test_killed_at_every_step_it_ends_well_when_it_is_run_again(
    tmp_path: Path, queue: Path, role: str
) -> None:
    names = [f"n{number}" for number in range(3)]
    for name in names:
        put(queue, name)
    path = tmp_path / "g.db"
    kills = 0
    for number in range(1, 9):  # each run is killed one step further on
        command = [
            sys.executable,
            "-c",
            CHILD,
            str(path),
            str(queue),
            str(number),
            role,
        ]
        code = await asyncio.to_thread(_code, command)
        kills += code == -signal.SIGKILL
        if code == 0:
            break
        assert len(files(queue)) + len(archived(queue)) == 3
    assert code == 0
    assert kills >= 3
    assert (files(queue), archived(queue)) == ([], [f"{n}.json" for n in names])
    async with Kernel(path, work=False) as kernel:
        rows = await kernel.inspect.list(Filter())
        assert len(rows) == 3
        assert (await audit_store(kernel.store)).passed


# --- the command ---


def run(*words: object) -> tuple[int, str, str]:
    arguments = [str(word) for word in words]
    done = CliRunner().invoke(app(arguments), arguments)
    return done.exit_code, done.stdout, done.stderr


async def made(path: Path) -> None:
    gateway = Gateway(store=in_file(path))
    await (await gateway.start()).accept(inbound())
    await gateway.end()


def test_the_command_says_what_came_in(tmp_path: Path, queue: Path) -> None:
    put(queue, "a", enqueuedAt=None)
    put(queue, "failed/b")
    path = tmp_path / "g.db"
    code, _, err = run("import", queue, path)
    assert (code, "--new makes it" in err, path.exists()) == (3, True, False)
    code, out, _ = run("import", queue, path, "--new", "--dry-run", "--json")
    told = json.loads(out)
    assert (code, told["found"], told["failed"], path.exists()) == (0, 2, 1, False)
    assert told["places"] == {"t/default": 2}
    code, out, _ = run("import", queue, path, "--new")
    assert code == 0
    assert "1 parked, 1 dead" in out
    put(queue, "torn", value="{")
    code, out, _ = run("import", queue, path, "--json")
    told = json.loads(out)
    assert (code, told["found"], told["moved"]) == (1, 0, 0)
    assert [Path(one["path"]).name for one in told["left"]] == ["torn.json"]


def test_a_store_may_be_named_from_the_folder_that_one_is_in(
    tmp_path: Path, queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(queue, "a", enqueuedAt=None)
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("import", ".", "-s", "g.db", "--new")
    assert code == 0
    assert "1 parked" in out
    assert run("import", ".", "sqlite:g.db")[0] == 0


def test_the_command_to_type_next_is_quoted_and_holds_no_password(
    tmp_path: Path, queue: Path
) -> None:
    put(queue, "a", enqueuedAt=None)
    path = tmp_path / "a b;$(x).db"
    code, out, _ = run("import", queue, path, "--new")
    assert (code, f"turnfold list '{path}' --status parked" in out) == (0, True)
    secret = "postgresql://ann:secret@db.example.org/chat"
    assert for_people(secret) == "postgresql://ann@db.example.org/chat?schema=turnfold"


def test_wrong_use_is_one_line_and_changes_nothing(tmp_path: Path, queue: Path) -> None:
    put(queue, "a")
    (tmp_path / "no.db").write_text("no store")
    path = tmp_path / "g.db"
    for words, wanted in (
        ((tmp_path / "nowhere", path, "--new"), 2),
        ((queue / "a.json", path, "--new"), 2),
        ((queue, tmp_path / "no.db"), 3),
        ((queue, tmp_path / "no.db", "--new"), 3),
        ((queue, tmp_path / "no" / "g.db", "--new"), 3),
        ((), 2),
    ):
        code, out, err = run("import", *words)
        assert code == wanted, (words, err)
        assert "Traceback" not in out + err
        assert path.exists() is False
    assert files(queue) == ["a.json"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_leaves_its_files_and_says_so(
    tmp_path: Path, queue: Path
) -> None:
    put(queue, "a")
    queue.chmod(0o500)
    try:
        code, out, _ = run("import", queue, tmp_path / "g.db", "--new")
    finally:
        queue.chmod(0o700)
    assert code == 1
    assert "cannot be moved" in out
    shutil.rmtree(queue)
