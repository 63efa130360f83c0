"""The webhook inbox over real sockets: no 200 before the message is durable (H03)."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from attrs import frozen
from standardwebhooks import Webhook

from turnfold.enums import FailureClass, TurnPhase
from turnfold.errors import (
    BackPressureError,
    DiskError,
    FateUnknownError,
    InvalidInputError,
    NotOpenError,
)
from turnfold.inbound import Inbound
from turnfold.messages import Route, Text
from turnfold.ports.channel import Accepted, Attempt, Part, Rejected
from turnfold_adapters.channels.webhook import WebhookChannel
from turnfold_adapters.channels.webhook_http import Limits
from turnfold_adapters.channels.webhook_inbound import WebhookInbox

SECRET = "whsec_" + base64.b64encode(b"a secret of some length").decode()
MESSAGE: Mapping[str, Any] = {"conversation": "42", "message_id": "1001", "text": "hi"}
QUICK = Limits(request_ms=200, drain_ms=200)


@frozen
class Taken:
    """What the kernel's accept returns."""

    turn_id: str
    status: TurnPhase
    new: bool


class Durable:
    """Stands for the kernel: a message is in `stored` once it is durable."""

    def __init__(self) -> None:
        self.stored: list[Inbound] = []
        self.keys: set[str] = set()
        self.entered = asyncio.Event()
        self.commit = asyncio.Event()
        self.commit.set()

    async def accept(self, inbound: Inbound) -> Taken:
        self.entered.set()
        await self.commit.wait()
        new = inbound.dedupe_key not in self.keys
        self.keys.add(inbound.dedupe_key)
        if new:
            self.stored.append(inbound)
        return Taken(f"turn-{inbound.message_id}", TurnPhase.ACCEPTED, new)


def failing(exception: BaseException) -> Callable[[Inbound], Awaitable[Any]]:
    async def accept(_: Inbound) -> Any:
        raise exception

    return accept


@pytest.fixture
def kernel() -> Durable:
    return Durable()


@asynccontextmanager
async def posting(
    accept: Callable[[Inbound], Awaitable[Any]], **options: Any
) -> AsyncIterator[tuple[WebhookInbox, httpx.AsyncClient]]:
    """An inbox and a client of it."""
    async with WebhookInbox(accept, **options) as inbox:
        base = f"http://127.0.0.1:{inbox.port}"
        async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
            yield inbox, client


async def raw(port: int, data: bytes, *, end: bool = False) -> bytes:
    """Send bytes, give back everything that comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        await writer.drain()
        if end:
            writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def request(body: bytes, *headers: str, method: str = "POST") -> bytes:
    lines = [f"{method} / HTTP/1.1", "host: x", *headers]
    lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


BODY = json.dumps(MESSAGE).encode()


@pytest.mark.case("H03")
async def test_there_is_no_answer_before_the_message_is_durable(
    kernel: Durable,
) -> None:
    kernel.commit.clear()
    async with posting(kernel.accept) as (_, client):
        answer = asyncio.create_task(client.post("/", json=MESSAGE))
        await kernel.entered.wait()
        await asyncio.wait([answer], timeout=0.1)
        assert not answer.done()
        assert kernel.stored == []
        kernel.commit.set()
        assert (await answer).status_code == 200
    assert [m.message_id for m in kernel.stored] == ["1001"]


@pytest.mark.case("H03", "H22")
async def test_the_answer_says_which_turn_it_is_and_whether_it_is_new(
    kernel: Durable,
) -> None:
    async with posting(kernel.accept) as (_, client):
        first = await client.post("/", json=MESSAGE)
        again = await client.post("/", json=MESSAGE)
    expected = {"turn_id": "turn-1001", "status": "accepted", "new": True}
    assert first.json() == expected
    assert again.json() == {**expected, "new": False}
    assert again.status_code == 200


@pytest.mark.case("H03", "H15", "H16")
@pytest.mark.parametrize(
    "exception",
    [
        DiskError(path="gateway.db", problem="disk full"),
        FateUnknownError(path="gateway.db", problem="fsync failed"),
        BackPressureError(what="turns", waiting=10, limit=10),
        NotOpenError(state="closing"),
        asyncio.CancelledError(),
    ],
)
async def test_what_could_not_be_stored_now_is_asked_for_again(
    exception: BaseException,
) -> None:
    async with posting(failing(exception)) as (_, client):
        answer = await client.post("/", json=MESSAGE)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.case("H03")
async def test_a_bug_in_accept_is_a_500_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with posting(failing(ValueError("secret detail"))) as (_, client):
        answer = await client.post("/", json=MESSAGE)
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert "secret detail" in caplog.text


async def test_an_inbound_that_the_kernel_refuses_names_the_field() -> None:
    refusal = InvalidInputError(field="body.x", problem="odd")
    async with posting(failing(refusal)) as (_, client):
        answer = await client.post("/", json=MESSAGE)
    assert answer.status_code == 400
    assert (answer.json()["field"], answer.json()["problem"]) == ("body.x", "odd")


async def test_every_field_reaches_the_kernel(kernel: Durable) -> None:
    message = {
        "conversation": "42",
        "message_id": "1001",
        "thread": "t1",
        "event": "edit",
        "control": True,
        "sender": "ann",
        "sent_at": 5,
        "revision": 2,
        "edits": "k-1",
        "key": "k",
        "text": "hi",
        "body": {"from": {"name": "Zoë"}, "lat": 52.5, "big": 2**70, "odd": "\ud800"},
    }
    options: dict[str, Any] = {"channel": "hook", "account": "support"}
    async with posting(kernel.accept, **options) as (_, client):
        assert (await client.post("/", content=json.dumps(message))).status_code == 200
    assert kernel.stored == [
        Inbound(
            "hook",
            account="support",
            conversation="42",
            message_id="1001",
            thread="t1",
            event="edit",
            control=True,
            sender="ann",
            sent_at=5,
            revision="2",
            edits="k-1",
            key="k",
            body={**message["body"], "text": "hi"},
        )
    ]


async def test_the_webhook_id_stands_in_for_a_message_id(kernel: Durable) -> None:
    async with posting(kernel.accept) as (_, client):
        await client.post("/", json={"conversation": "42"}, headers={"Webhook-Id": "w"})
    assert kernel.stored[0].message_id == "w"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"conversation": None}, "conversation"),
        ({"conversation": 4.2}, "conversation"),
        ({"conversation": ""}, "conversation"),
        ({"message_id": ""}, "message_id"),
        ({"message_id": "x" * 513}, "message_id"),
        ({"thread": [7]}, "thread"),
        ({"thraed": "7"}, "thraed"),
        ({"control": "yes"}, "control"),
        ({"text": 7}, "text"),
        ({"body": {"text": "twice"}}, "text"),
        ({"body": [1]}, "text"),
        ({"message_id": None}, "message_id"),
        ({"sent_at": "yesterday"}, "sent_at"),
        ({"sender": ["a"]}, "sender"),
        ({"event": None}, "event"),
        ({"channel": "telegram"}, "channel"),
    ],
)
async def test_an_invalid_message_is_refused_with_the_field_named(
    kernel: Durable, change: dict[str, Any], field: str
) -> None:
    body = json.dumps({**MESSAGE, **change})
    async with posting(kernel.accept) as (_, client):
        answer = await client.post("/", content=body)
    assert answer.status_code == 400
    assert answer.json()["field"] == field
    assert not kernel.entered.is_set()


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"\xff\xfe", b"[]", b'"x"', b"null", b"9" * 5_000),
        b"[" * 100_000,
        b'{"conversation":"42","message_id":"1","body":{"a":' * 90 + b"1" + b"}}" * 90,
    ],
)
async def test_what_is_not_a_json_object_is_refused(
    kernel: Durable, body: bytes
) -> None:
    async with posting(kernel.accept) as (_, client):
        answer = await client.post("/", content=body)
    assert answer.status_code == 400
    assert not kernel.entered.is_set()


async def test_other_paths_and_methods_are_not_ours(kernel: Durable) -> None:
    async with posting(kernel.accept, path="/in") as (_, client):
        assert (await client.post("/", json=MESSAGE)).status_code == 404
        assert (await client.post("/in?x=1", json=MESSAGE)).status_code == 200
        assert (await client.get("/in")).status_code == 405
        head = await client.head("/in")
        assert (head.status_code, head.headers["allow"]) == (405, "POST")
        assert (await client.post("/in", json=MESSAGE)).status_code == 200


def signed(body: bytes, *, age: timedelta = timedelta(), **more: str) -> dict[str, str]:
    when = datetime.now(UTC) - age
    return {
        "webhook-id": "w1",
        "webhook-timestamp": str(int(when.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("w1", when, body.decode()),
        **{name.replace("_", "-"): value for name, value in more.items()},
    }


async def test_a_signed_message_is_accepted(kernel: Durable) -> None:
    async with posting(kernel.accept, secret=SECRET) as (_, client):
        answer = await client.post("/", content=BODY, headers=signed(BODY))
        assert answer.status_code == 200
        broken = await client.post("/", content=b"{", headers=signed(b"{"))
        assert broken.status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {},
        signed(BODY + b" "),
        signed(BODY, age=timedelta(hours=1)),
        signed(BODY, age=-timedelta(hours=1)),
        signed(BODY, webhook_id="w2"),
        signed(BODY, webhook_timestamp="now"),
        signed(BODY, webhook_timestamp="nan"),
        signed(BODY, webhook_signature="v1"),
        signed(BODY, webhook_signature="v1,%%%"),
        signed(BODY, webhook_signature="v1,a,b"),
        signed(BODY, webhook_signature="v1a," + "A" * 44),
    ],
)
async def test_a_message_without_a_valid_signature_is_refused(
    kernel: Durable, headers: dict[str, str]
) -> None:
    async with posting(kernel.accept, secret=SECRET) as (_, client):
        answer = await client.post("/", content=BODY, headers=headers)
    assert answer.status_code == 401
    assert not kernel.entered.is_set()


async def test_bytes_that_are_not_text_do_not_pass_the_signature(
    kernel: Durable,
) -> None:
    async with posting(kernel.accept, secret=SECRET) as (_, client):
        answer = await client.post("/", content=b"\xff", headers=signed(b"x"))
    assert answer.status_code == 401


async def test_our_own_channel_can_talk_to_our_own_inbox(kernel: Durable) -> None:
    """Both halves of the signature agree; the shapes are each other's only by parse."""

    def parse(message: Mapping[str, Any], headers: Mapping[str, str]) -> Inbound:
        return Inbound(
            "peer",
            conversation=message["conversation"],
            message_id=headers["idempotency-key"],
            body={"text": message["text"]},
        )

    part = Part(
        entry_id="e1",
        index=0,
        count=1,
        kind="text",
        payload=Text("ünï"),
        key="k1",
        route=Route(channel="webhook", conversation="42"),
    )
    attempt = Attempt(number=1, at_ms=time.time_ns() // 1_000_000)
    async with WebhookInbox(kernel.accept, secret=SECRET, parse=parse) as inbox:
        url = f"http://127.0.0.1:{inbox.port}/"
        async with WebhookChannel(url, secret=SECRET, gives_ids=False) as channel:
            assert isinstance(await channel.send(part, "k1", attempt), Accepted)
        async with WebhookChannel(url, secret="b3RoZXI=") as stranger:
            outcome = await stranger.send(part, "k1", attempt)
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.AUTH
    assert [m.text for m in kernel.stored] == ["ünï"]


async def test_a_parser_that_fails_is_a_500_and_is_logged(
    kernel: Durable, caplog: pytest.LogCaptureFixture
) -> None:
    def parse(message: Mapping[str, Any], _: Mapping[str, str]) -> Inbound:
        return Inbound("x", conversation=message["nope"], message_id="1")

    async with posting(kernel.accept, parse=parse) as (_, client):
        assert (await client.post("/", json=MESSAGE)).status_code == 500
    assert "KeyError" in caplog.text


@pytest.mark.case("H09")
async def test_many_at_once_are_each_accepted_once(kernel: Durable) -> None:
    async with posting(kernel.accept) as (_, client):
        answers = await asyncio.gather(
            *(
                client.post("/", json={**MESSAGE, "message_id": str(n % 50)})
                for n in range(100)
            )
        )
    assert {a.status_code for a in answers} == {200}
    assert sum(a.json()["new"] for a in answers) == 50
    assert len(kernel.stored) == 50


async def test_a_connection_is_kept_and_requests_may_be_pipelined(
    kernel: Durable,
) -> None:
    async with WebhookInbox(kernel.accept) as inbox:
        last = request(BODY, "connection: close")
        said = await raw(inbox.port, request(BODY) + request(BODY) + last)
    assert said.count(b"HTTP/1.1 200") == 3


async def test_a_sender_that_asks_first_is_told_to_go_on(kernel: Durable) -> None:
    async with WebhookInbox(kernel.accept) as inbox:
        reader, writer = await asyncio.open_connection("127.0.0.1", inbox.port)
        asking = request(BODY, "expect: 100-continue", "connection: close")
        head, _, body = asking.partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        assert b"100" in await reader.readuntil(b"\r\n\r\n")
        writer.write(body)
        assert b" 200 " in await reader.read()
        writer.close()
        await writer.wait_closed()


@pytest.mark.case("T11")
async def test_a_body_that_says_it_is_too_large_is_refused_unread(
    kernel: Durable,
) -> None:
    async with posting(kernel.accept, limits=Limits(body_bytes=1_000)) as (_, client):
        answer = await client.post("/", content=b"x" * 1_001)
    assert answer.status_code == 413
    assert not kernel.entered.is_set()


@pytest.mark.case("T11")
async def test_a_chunked_body_is_bounded_too(kernel: Durable) -> None:
    limits = Limits(body_bytes=10_000)
    async with WebhookInbox(kernel.accept, limits=limits) as inbox:
        chunk = b"3e8\r\n" + b"x" * 1_000 + b"\r\n"
        head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        said = await raw(inbox.port, head + chunk * 20)
    assert b" 413 " in said
    assert not kernel.entered.is_set()


async def test_a_chunked_body_inside_the_bound_is_read(kernel: Durable) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield BODY[:10]
        yield BODY[10:]

    async with posting(kernel.accept) as (_, client):
        assert (await client.post("/", content=parts())).status_code == 200


@pytest.mark.case("T11")
async def test_one_address_does_not_take_the_places_of_all(kernel: Durable) -> None:
    limits = Limits(per_address=2)
    async with WebhookInbox(kernel.accept, limits=limits) as inbox:
        idle = [await asyncio.open_connection("127.0.0.1", inbox.port) for _ in "ab"]
        await asyncio.sleep(0.05)
        assert b" 503 " in await raw(inbox.port, request(BODY, "connection: close"))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", inbox.port, local_addr=("127.0.0.2", 0)
        )
        writer.write(request(BODY, "connection: close"))
        assert b" 200 " in await reader.read()
        for one in (writer, *(pair[1] for pair in idle)):
            one.close()
            await one.wait_closed()
        await asyncio.sleep(0.05)
        assert b" 200 " in await raw(inbox.port, request(BODY, "connection: close"))


@pytest.mark.case("T11")
async def test_headers_without_end_are_refused(kernel: Durable) -> None:
    limits = Limits(header_bytes=2_000)
    async with WebhookInbox(kernel.accept, limits=limits) as inbox:
        said = await raw(inbox.port, b"POST / HTTP/1.1\r\nx: " + b"y" * 40_000)
    assert b" 431 " in said


@pytest.mark.case("T11")
@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",  # a TLS hello
        b"GET\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\nx",  # no host
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\n bad: y\r\n\r\n",
    ],
)
async def test_what_is_not_http_gets_an_error_and_is_closed(
    kernel: Durable, garbage: bytes
) -> None:
    async with WebhookInbox(kernel.accept) as inbox:
        said = await raw(inbox.port, garbage, end=True)
        assert said.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501"))
        again = await raw(inbox.port, request(BODY, "connection: close"))
    assert b" 200 " in again


@pytest.mark.parametrize("sent", [b"POST / HT", request(BODY)[:-1]])
async def test_a_request_that_never_ends_is_cut_at_the_deadline(
    kernel: Durable, sent: bytes
) -> None:
    async with WebhookInbox(kernel.accept, limits=QUICK) as inbox:
        assert b" 408 " in await raw(inbox.port, sent)
    assert not kernel.entered.is_set()


@pytest.mark.case("T11")
async def test_dripping_bytes_do_not_extend_the_deadline(kernel: Durable) -> None:
    started = time.monotonic()
    async with WebhookInbox(kernel.accept, limits=QUICK) as inbox:
        reader, writer = await asyncio.open_connection("127.0.0.1", inbox.port)
        answer = asyncio.create_task(reader.read())
        for byte in request(BODY):
            writer.write(bytes([byte]))
            if (await asyncio.wait([answer], timeout=0.02))[0]:
                break
        assert b" 408 " in await answer
        writer.close()
        await writer.wait_closed()
    assert time.monotonic() - started < 2


async def test_an_idle_connection_is_closed_without_a_word(kernel: Durable) -> None:
    async with WebhookInbox(kernel.accept, limits=QUICK) as inbox:
        assert await raw(inbox.port, b"") == b""


@pytest.mark.case("T11")
async def test_slow_senders_do_not_hold_up_the_others(kernel: Durable) -> None:
    async with posting(kernel.accept) as (inbox, client):
        slow = [
            await asyncio.open_connection("127.0.0.1", inbox.port) for _ in range(20)
        ]
        for _, writer in slow:
            writer.write(b"POST / HT")
        answer = await client.post("/", json=MESSAGE)
        assert answer.status_code == 200
        for _, writer in slow:
            writer.close()
            await writer.wait_closed()


@pytest.mark.case("T11")
async def test_one_connection_too_many_is_told_to_come_back(kernel: Durable) -> None:
    kernel.commit.clear()
    async with posting(kernel.accept, limits=Limits(connections=1)) as (inbox, client):
        first = asyncio.create_task(client.post("/", json=MESSAGE))
        await kernel.entered.wait()
        said = await raw(inbox.port, request(BODY))
        assert b" 503 " in said
        assert b"retry-after: 1" in said.lower()
        kernel.commit.set()
        assert (await first).status_code == 200


@pytest.mark.case("H03")
async def test_a_sender_that_hangs_up_does_not_take_its_message_back(
    kernel: Durable,
) -> None:
    kernel.commit.clear()
    async with WebhookInbox(kernel.accept) as inbox:
        _, writer = await asyncio.open_connection("127.0.0.1", inbox.port)
        writer.write(request(BODY))
        await kernel.entered.wait()
        writer.transport.abort()
        kernel.commit.set()
    assert len(kernel.stored) == 1


async def test_half_a_request_is_not_a_message(kernel: Durable) -> None:
    async with WebhookInbox(kernel.accept) as inbox:
        said = await raw(inbox.port, request(BODY)[:-5], end=True)
    assert b" 400 " in said
    assert not kernel.entered.is_set()


@pytest.mark.case("H16")
async def test_closing_waits_for_messages_that_are_being_stored(
    kernel: Durable,
) -> None:
    kernel.commit.clear()
    async with posting(kernel.accept) as (inbox, client):
        answer = asyncio.create_task(client.post("/", json=MESSAGE))
        await kernel.entered.wait()
        closing = asyncio.create_task(inbox.aclose())
        await asyncio.sleep(0)
        kernel.commit.set()
        await closing
        assert (await answer).status_code == 200
        assert (await answer).headers["connection"] == "close"
        with pytest.raises(httpx.ConnectError):
            await client.post("/", json=MESSAGE)


@pytest.mark.case("H03", "H16")
async def test_closing_gives_up_in_the_end_and_then_there_is_no_200(
    kernel: Durable,
) -> None:
    kernel.commit.clear()
    async with posting(kernel.accept, limits=QUICK) as (inbox, client):
        answer = asyncio.create_task(client.post("/", json=MESSAGE))
        await kernel.entered.wait()
        await inbox.aclose()
        with pytest.raises(httpx.RemoteProtocolError):
            await answer
    assert kernel.stored == []


async def test_closing_does_not_wait_for_idle_connections(kernel: Durable) -> None:
    started = time.monotonic()
    async with posting(kernel.accept) as (inbox, client):
        await client.post("/", json=MESSAGE)  # leaves a kept connection behind
        await inbox.aclose()
        await inbox.aclose()
    assert time.monotonic() - started < 2
