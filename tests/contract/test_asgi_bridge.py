"""Webhooks inside of an ASGI application, called as a server calls it."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from turnfold import Kernel
from turnfold.errors import InvalidInputError
from turnfold_adapters.bridges import asgi
from turnfold_model.testing.peek import Peek

case = pytest.mark.case
MESSAGE = {"conversation": "c", "message_id": "1", "text": "hello"}


@pytest.fixture
async def kernel(tmp_path: Path) -> AsyncIterator[Kernel]:
    kernel = Kernel(tmp_path / "g.db")
    kernel.on_turn(_silent)
    async with kernel:
        yield kernel


async def _silent(turn: Any) -> None:
    await turn.silent("nothing to say")


async def post(app: asgi.App, content: Any, **more: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]  # its own names for the same
    given = content if isinstance(content, bytes) else json.dumps(content).encode()
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        return await client.request(
            more.pop("method", "POST"), "/", content=given, **more
        )


@case("H03")
async def test_a_message_is_durable_before_its_2xx(kernel: Kernel) -> None:
    app = asgi.webhook(kernel, channel="shop", check=asgi.anybody)
    first, again = [(await post(app, MESSAGE)).json() for _ in range(2)]
    assert first["new"] is True
    assert again == {**again, "turn_id": first["turn_id"], "new": False}
    assert Peek(kernel.store).names().count("turn.accepted") == 1


@case("H03")
async def test_nothing_is_answered_while_the_store_is_at_work() -> None:
    committed = asyncio.Event()

    class Slow(Kernel):
        async def accept(self, *_: Any, **__: Any) -> Any:
            await committed.wait()

    app = asgi.webhook(Slow("memory:"), channel="shop", check=asgi.anybody)
    answer = asyncio.ensure_future(post(app, MESSAGE))
    await asyncio.sleep(0.05)
    assert not answer.done()
    committed.set()
    assert (await answer).status_code == 200


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"{", "json"),
        (b"[]", "json"),
        (b"\xff", "json"),
        ({"message_id": "1"}, "conversation"),
        ({"conversation": "c"}, "message_id"),
        ({**MESSAGE, "thraed": "t"}, "thraed"),
        ({**MESSAGE, "conversation": "\u0000"}, "conversation"),
    ],
)
async def test_bad_input_is_answered_with_its_mistake(
    kernel: Kernel, content: Any, field: str
) -> None:
    app = asgi.webhook(kernel, channel="shop", check=asgi.anybody)
    answer = await post(app, content)
    assert (answer.status_code, answer.json()["field"]) == (400, field)


async def test_another_method_is_refused(kernel: Kernel) -> None:
    app = asgi.webhook(kernel, channel="shop", check=asgi.anybody)
    answer = await post(app, b"", method="GET")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_only_what_the_check_calls_genuine_is_taken(kernel: Kernel) -> None:
    seen: list[tuple[bytes, str]] = []

    def signed(body: bytes, headers: Mapping[str, str]) -> bool:
        seen.append((body, headers["x-signature"]))
        return headers["x-signature"] == "good"

    async def later(body: bytes, headers: Mapping[str, str]) -> bool:
        return signed(body, headers)

    for check in (signed, later):
        app = asgi.webhook(kernel, channel="shop", check=check)
        for word, status in (("good", 200), ("bad", 401)):
            answer = await post(app, MESSAGE, headers={"X-Signature": word})
            assert answer.status_code == status
    assert seen[0] == (json.dumps(MESSAGE).encode(), "good")
    app = asgi.webhook(kernel, channel="shop", check=signed)
    assert (await post(app, MESSAGE)).status_code == 500  # a check that breaks
    with pytest.raises(InvalidInputError):
        asgi.webhook(kernel, channel="shop")


async def test_standard_webhooks_are_checked_by_their_secret(kernel: Kernel) -> None:
    app = asgi.webhook(kernel, channel="shop", secret="whsec_" + "a" * 32)
    assert (await post(app, MESSAGE)).status_code == 401


async def test_a_large_body_is_refused_before_it_is_read(kernel: Kernel) -> None:
    app = asgi.webhook(kernel, channel="shop", check=asgi.anybody, body_bytes=100)
    assert (await post(app, b"x" * 101)).status_code == 413
    # Without a length the bytes are counted as they come.
    pieces = [{"type": "http.request", "body": b"x" * 60, "more_body": True}] * 9
    assert await called(app, pieces) == [413]
    assert len(pieces) == 7


async def called(app: asgi.App, messages: list[Any]) -> list[int]:
    """The statuses that an application sends for a request of these messages."""
    sent: list[int] = []

    async def receive() -> Any:
        return messages.pop(0) if messages else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            sent.append(message["status"])

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    await app(scope, receive, send)
    return sent


async def test_a_slow_sender_is_cut_and_one_that_hangs_up_brings_nothing(
    kernel: Kernel,
) -> None:
    app = asgi.webhook(kernel, channel="shop", check=asgi.anybody, body_ms=50)
    half = {"type": "http.request", "body": b"{", "more_body": True}
    assert await called(app, [half]) == [408]
    whole = json.dumps(MESSAGE).encode()
    half = {"type": "http.request", "body": whole, "more_body": True}
    assert await called(app, [half, {"type": "http.disconnect"}]) == []
    assert "turn.accepted" not in Peek(kernel.store).names()


async def test_a_kernel_that_is_not_open_asks_for_the_message_again(
    tmp_path: Path,
) -> None:
    app = asgi.webhook(Kernel(tmp_path / "g.db"), channel="shop", check=asgi.anybody)
    answer = await post(app, MESSAGE)
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)


async def test_the_lifespan_of_a_server_opens_and_closes_the_kernel(
    tmp_path: Path,
) -> None:
    kernel = Kernel(tmp_path / "g.db")
    kernel.on_turn(_silent)
    app = asgi.webhook(kernel, channel="shop", check=asgi.anybody)
    told: asyncio.Queue[Any] = asyncio.Queue()
    said: list[str] = []

    async def send(message: Any) -> None:
        said.append(message["type"])
        if message["type"] == "lifespan.startup.complete":
            assert (await post(app, MESSAGE)).status_code == 200
            await told.put({"type": "lifespan.shutdown"})

    await told.put({"type": "lifespan.startup"})
    await app({"type": "lifespan"}, told.get, send)
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert (await post(app, MESSAGE)).status_code == 503


async def test_a_websocket_is_closed(kernel: Kernel) -> None:
    app = asgi.webhook(kernel, channel="shop", check=asgi.anybody)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "websocket"}, asyncio.Event().wait, send)  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]
