"""The webhook channel against the platform stand-in, over real sockets.

What the channel says is compared with the platform's own witness list.
"""

import asyncio
import gzip
import json
import os
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from turnfold.enums import DeliveryClass, FailureClass
from turnfold.messages import (
    File,
    Native,
    Payload,
    Route,
    Text,
)
from turnfold.ports.channel import (
    Absent,
    Accepted,
    Attempt,
    CannotTell,
    Found,
    Outcome,
    Part,
    Rejected,
    Unknown,
)
from turnfold_adapters.channels.webhook import WebhookChannel
from turnfold_cli.platform import Platform
from turnfold_cli.platform_book import Fault, FaultKind, Mode


def part(key: str = "k1", payload: Payload | None = None, kind: str = "text") -> Part:
    return Part(
        entry_id="e1",
        index=0,
        count=1,
        kind=kind,
        payload=payload or Text("hello"),
        key=key,
        route=Route(channel="webhook", conversation="42"),
    )


def attempt(number: int = 1, *, marked: bool = False) -> Attempt:
    return Attempt(
        number=number, at_ms=time.time_ns() // 1_000_000 + number, marked=marked
    )


@pytest.fixture(params=list(Mode))
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    with Platform(request.param) as running:
        yield running


@pytest.fixture
def keyed() -> Iterator[Platform]:
    with Platform(Mode.KEYED) as running:
        yield running


@pytest.fixture
def lookup() -> Iterator[Platform]:
    with Platform(Mode.LOOKUP) as running:
        yield running


def channel_to(platform: Platform, **options: Any) -> WebhookChannel:
    url = f"{platform.url}/messages"
    mode = platform.book.mode
    if mode is Mode.LOOKUP:
        options.setdefault("lookup_url", url)
    if mode is Mode.EDITABLE:
        options.setdefault("message_url", f"{url}/{{id}}")
    classes = [] if mode is Mode.BLIND else [DeliveryClass(mode.value)]
    return WebhookChannel(url, classes=classes, **options)


async def send(platform: Platform, what: Part | None = None, **options: Any) -> Outcome:
    async with channel_to(platform, **options) as channel:
        sent = what or part()
        return await channel.send(sent, sent.key, attempt())


async def test_an_accepted_part_is_in_the_witness_list(platform: Platform) -> None:
    outcome = await send(platform)
    assert isinstance(outcome, Accepted)
    (message,) = platform.book.witness()
    assert outcome.receipt.ids == (message.id,)
    assert (message.key, message.conversation, message.text) == ("k1", "42", "hello")
    assert not outcome.deduplicated


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (Text("ünï 🎈"), "text"),
        (File(data=bytes(300_000), name="big.bin"), "file"),
        (Native({"card": {"rows": [1, 2]}}), "native"),
    ],
)
async def test_every_kind_of_part_arrives(
    keyed: Platform, payload: Payload, kind: str
) -> None:
    outcome = await send(keyed, part(payload=payload, kind=kind))
    assert isinstance(outcome, Accepted)
    assert keyed.book.witness()[0].kind == kind


@pytest.mark.case("C08")
async def test_a_file_that_is_gone_is_refused_without_a_request(
    keyed: Platform, tmp_path: Path
) -> None:
    gone = part(payload=File(tmp_path / "gone.png"), kind="file")
    outcome = await send(keyed, gone)
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.INVALID_PAYLOAD
    assert keyed.book.stats()["requests"] == 0


@pytest.mark.case("A04", "B06")
async def test_a_cut_after_acceptance_is_unknown(platform: Platform) -> None:
    platform.script(FaultKind.CUT_AFTER)
    assert isinstance(await send(platform), Unknown)
    assert len(platform.book.witness()) == 1
    assert platform.book.stats()["faults_fired"] == {"cut_after": 1}


@pytest.mark.case("B06")
async def test_a_cut_before_acceptance_looks_the_same_and_is_unknown_too(
    platform: Platform,
) -> None:
    platform.script(FaultKind.CUT_BEFORE)
    assert isinstance(await send(platform), Unknown)
    assert platform.book.witness() == []


@pytest.mark.case("D17")
async def test_one_send_is_one_request_whatever_happens(platform: Platform) -> None:
    for number, kind in enumerate(FaultKind, start=1):
        platform.script(Fault(kind=kind, status=307))
        await send(platform)
        assert platform.book.stats()["requests"] == number


@pytest.mark.case("B06")
async def test_a_refused_connection_is_not_sent() -> None:
    with socket.socket() as reserved:  # bound, not listening: nobody else gets the port
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/"
        async with WebhookChannel(url) as channel:
            outcome = await channel.send(part(), "k1", attempt())
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.NOT_CONNECTED


@pytest.mark.case("B06")
async def test_a_host_that_does_not_exist_is_not_sent() -> None:
    async with WebhookChannel("http://nobody.invalid/") as channel:
        outcome = await channel.send(part(), "k1", attempt())
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.NOT_CONNECTED


@pytest.mark.case("B07")
async def test_a_connect_that_takes_too_long_is_not_sent() -> None:
    with socket.socket() as full, socket.socket() as filler:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        filler.connect(full.getsockname())  # the only place in the queue
        url = f"http://127.0.0.1:{full.getsockname()[1]}/"
        async with WebhookChannel(url, connect_timeout_ms=150) as channel:
            outcome = await channel.send(part(), "k1", attempt())
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.NOT_CONNECTED
    assert "ConnectTimeout" in outcome.detail


@pytest.mark.case("B06", "D18")
async def test_a_timeout_after_the_connect_is_unknown(platform: Platform) -> None:
    platform.script(Fault(kind=FaultKind.DELAY, delay_ms=60_000))
    assert isinstance(await send(platform, timeout_ms=150), Unknown)
    assert len(platform.book.witness()) == 1


@asynccontextmanager
async def raw_server(answer: bytes, *, every_ms: int = 0) -> AsyncIterator[str]:
    """Reads a request, then sends `answer`, a byte at a time if `every_ms` is set."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            for byte in [answer] if not every_ms else [bytes([b]) for b in answer]:
                writer.write(byte)
                await writer.drain()
                await asyncio.sleep(every_ms / 1000)
        except ConnectionError:
            pass  # the channel has had enough, which is what some tests want
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def send_raw(answer: bytes, *, every_ms: int = 0, **options: Any) -> Outcome:
    async with (
        raw_server(answer, every_ms=every_ms) as url,
        WebhookChannel(url, **options) as channel,
    ):
        return await channel.send(part(), "k1", attempt())


@pytest.mark.case("D18")
async def test_a_receiver_that_drips_its_answer_is_left_at_the_deadline() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n" + b" " * 900
    started = time.monotonic()
    outcome = await send_raw(answer, every_ms=20, timeout_ms=200)
    assert isinstance(outcome, Unknown)
    assert outcome.cause == "deadline"
    assert time.monotonic() - started < 2


PACKED = gzip.compress(b'{"id": "m1"}', mtime=0)


@pytest.mark.case("L05")
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{",
        # Packed although we asked for plain: unpacking has no bound, so it is not read.
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + PACKED,
        b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 999_999 + b'{"id": "m1"}',
    ],
)
async def test_a_broken_answer_is_never_an_acceptance(answer: bytes) -> None:
    assert isinstance(await send_raw(answer), Unknown)


async def test_a_redirect_is_reported_and_not_followed() -> None:
    answer = b"HTTP/1.1 308 Moved\r\nlocation: http://else.invalid/\r\n"
    outcome = await send_raw(answer + b"content-length: 0\r\n\r\n")
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.TARGET_GONE
    assert "http://else.invalid/" in outcome.detail


@pytest.mark.case("R03")
async def test_a_refused_signature_names_the_time_that_was_signed() -> None:
    async def refuses(_: Any) -> httpx.Response:
        return httpx.Response(401, json={"error": "timestamp"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuses)) as http:
        channel = WebhookChannel("https://x.test/", client=http)
        outcome = await channel.send(part(), "k1", Attempt(number=1, at_ms=1_000))
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.AUTH
    assert outcome.detail.startswith("signed at 1970-01-01T00:00:01+00:00; ")


@pytest.mark.case("D02")
async def test_410_is_a_gone_target(keyed: Platform) -> None:
    keyed.script(Fault(kind=FaultKind.STATUS, status=410))
    outcome = await send(keyed)
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.TARGET_GONE


@pytest.mark.case("D11")
async def test_a_rate_limit_carries_its_wait_and_nothing_was_accepted(
    platform: Platform,
) -> None:
    platform.script(Fault(kind=FaultKind.RATE_LIMITED, retry_after="17"))
    outcome = await send(platform)
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.RATE_LIMITED
    assert outcome.retry_after_ms == 17_000
    assert platform.book.witness() == []


async def test_a_500_is_unknown_whether_or_not_the_part_was_taken(
    platform: Platform,
) -> None:
    platform.script(FaultKind.ERROR_BEFORE, FaultKind.ERROR_AFTER)
    assert isinstance(await send(platform), Unknown)
    assert platform.book.witness() == []
    assert isinstance(await send(platform), Unknown)
    assert len(platform.book.witness()) == 1


@pytest.mark.case("A04")
async def test_a_repeat_under_the_same_key_is_accepted_once(keyed: Platform) -> None:
    keyed.script(FaultKind.CUT_AFTER)
    async with channel_to(keyed, secret="c2VjcmV0") as channel:
        first = await channel.send(part(), "k1", attempt(1))
        second = await channel.send(part(), "k1", attempt(1_001))
    assert isinstance(first, Unknown)
    assert isinstance(second, Accepted)
    assert second.deduplicated
    assert [m.id for m in keyed.book.witness()] == list(second.receipt.ids)
    one, two = keyed.book.requests()
    assert one["webhook-id"] == two["webhook-id"] == "k1"
    assert one["idempotency-key"] == two["idempotency-key"] == "k1"
    assert one["webhook-signature"] != two["webhook-signature"]  # other time


@pytest.mark.case("B15")
async def test_a_key_reused_for_another_body_is_refused(keyed: Platform) -> None:
    await send(keyed, part())
    outcome = await send(keyed, part(payload=Text("something else")))
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.INVALID_PAYLOAD
    assert len(keyed.book.witness()) == 1


async def test_without_a_key_on_the_platform_a_repeat_is_a_duplicate() -> None:
    with Platform(Mode.BLIND) as blind:
        async with channel_to(blind) as channel:
            await channel.send(part(), "k1", attempt(1))
            await channel.send(part(), "k1", attempt(2, marked=True))
        assert blind.book.stats()["keys_accepted_twice"] == 1
        assert [m.duplicate for m in blind.book.witness()] == [False, True]


@pytest.mark.case("B02", "B16")
async def test_a_look_up_finds_what_was_accepted_and_only_that(
    lookup: Platform,
) -> None:
    lookup.script(FaultKind.CUT_AFTER, FaultKind.CUT_BEFORE)
    async with channel_to(lookup) as channel:
        await channel.send(part("k1"), "k1", attempt())
        await channel.send(part("k2"), "k2", attempt())
        found = await channel.reconcile(part("k1"), 0)
        absent = await channel.reconcile(part("k2"), 0)
    assert isinstance(found, Found)
    assert found.receipt.ids == (lookup.book.witness()[0].id,)
    assert isinstance(absent, Absent)


@pytest.mark.case("B16")
async def test_a_request_that_lands_late_is_absent_first_and_found_later(
    lookup: Platform,
) -> None:
    lookup.script(Fault(kind=FaultKind.LAND_LATE, delay_ms=300))
    async with channel_to(lookup, timeout_ms=100) as channel:
        assert isinstance(await channel.send(part(), "k1", attempt()), Unknown)
        assert isinstance(await channel.reconcile(part(), 0), Absent)
        assert await asyncio.to_thread(lookup.book.wait, 1)
        assert isinstance(await channel.reconcile(part(), 0), Found)


NOT_FOUND = b'{"detail":"Not Found"}'
OTHER_KEY = b'{"found":false,"key":"k2"}'
OTHER_ROOM = b'{"id":"m1","conversation":"43"}'


@pytest.mark.case("B04", "B16")
@pytest.mark.parametrize(
    ("status", "body"),
    [
        *((404, b""), (404, b"<html>"), (404, NOT_FOUND), (404, OTHER_KEY)),
        *((200, b""), (200, b"{}"), (200, OTHER_ROOM), (200, b'{"id":""}')),
        *((500, b'{"found":false}'), (302, b""), (401, b""), (204, b"")),
    ],
)
async def test_a_look_up_that_does_not_say_so_proves_nothing(
    status: int, body: bytes
) -> None:
    head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n"
    async with (
        raw_server(head.encode() + body) as url,
        WebhookChannel(url, classes=["lookup"], lookup_url=url) as channel,
    ):
        assert isinstance(await channel.reconcile(part(), 0), CannotTell)


@pytest.mark.case("B04")
async def test_a_look_up_without_an_answer_proves_nothing(keyed: Platform) -> None:
    url = f"{keyed.url}/messages"
    async with WebhookChannel(url, classes=["lookup"], lookup_url=url) as channel:
        assert isinstance(await channel.reconcile(part(), 0), CannotTell)
    async with WebhookChannel(
        url, classes=["lookup"], lookup_url="http://nobody.invalid/"
    ) as channel:
        assert isinstance(await channel.reconcile(part(), 0), CannotTell)


async def test_a_look_up_url_keeps_its_own_query() -> None:
    with Platform(Mode.LOOKUP) as lookup:
        await send(lookup)
        url = f"{lookup.url}/messages"
        options: dict[str, Any] = {"classes": ["lookup"], "lookup_url": f"{url}?v=2"}
        async with WebhookChannel(url, **options) as channel:
            assert isinstance(await channel.reconcile(part(), 0), Found)


@pytest.mark.case("L07")
async def test_a_cancelled_send_stays_cancelled(keyed: Platform) -> None:
    keyed.script(Fault(kind=FaultKind.DELAY, delay_ms=60_000))
    async with channel_to(keyed) as channel:
        sending = asyncio.create_task(channel.send(part(), "k1", attempt()))
        assert await asyncio.to_thread(keyed.book.wait, 1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending


async def test_many_at_once_with_seeded_cuts_end_up_once_each() -> None:
    with Platform(Mode.KEYED, seed=7, cuts=10, among=40) as keyed:
        async with channel_to(keyed) as channel:

            async def push(key: str) -> None:
                for number in range(1, 20):
                    outcome = await channel.send(part(key), key, attempt(number))
                    if isinstance(outcome, Accepted):
                        return

            await asyncio.gather(*(push(f"k{n}") for n in range(40)))
        stats = keyed.book.stats()
        assert sorted(m.key for m in keyed.book.witness()) == sorted(
            f"k{n}" for n in range(40)
        )
        assert stats["faults_fired"] == {"cut_after": 5, "cut_before": 5}
        assert stats["replayed"] == 5
        assert stats["keys_accepted_twice"] == 0


def ask(url: str, content: object = None) -> Any:
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, data=data)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


@asynccontextmanager
async def platform_process(*arguments: str) -> AsyncIterator[tuple[str, int]]:
    """The stand-in as its own process: (url, pid)."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "turnfold_cli.platform", *arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        line = json.loads(await process.stdout.readline())
        yield line["url"], process.pid
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def tear(journal: str) -> None:
    """Add what a write under a power cut leaves."""
    with Path(journal).open("ab") as torn:
        torn.write(b'{"n": 2, "id"')


def lines(journal: str) -> int:
    return len(Path(journal).read_bytes().splitlines())


async def test_the_platform_process_survives_kill_9_with_its_keys(
    tmp_path: Path,
) -> None:
    journal = str(tmp_path / "journal.jsonl")
    keyed = ("--class", "keyed", "--journal", journal)
    async with platform_process(*keyed) as (url, pid):
        fault = {"kind": "cut_after", "times": 1}
        await asyncio.to_thread(ask, f"{url}/faults", {"faults": [fault]})
        async with WebhookChannel(f"{url}/messages", classes=["keyed"]) as channel:
            assert isinstance(await channel.send(part(), "k1", attempt()), Unknown)
        os.kill(pid, signal.SIGKILL)
    tear(journal)
    async with platform_process(*keyed) as (url, _):
        async with WebhookChannel(f"{url}/messages", classes=["keyed"]) as channel:
            again = await channel.send(part(), "k1", attempt(2))
            assert isinstance(again, Accepted)
            assert again.deduplicated
            assert isinstance(await channel.send(part("k2"), "k2", attempt()), Accepted)
        witness = await asyncio.to_thread(ask, f"{url}/witness")
        stats = await asyncio.to_thread(ask, f"{url}/stats")
    assert [m["key"] for m in witness["messages"]] == ["k1", "k2"]
    assert stats["replayed"] == 1
    assert lines(journal) == 2
