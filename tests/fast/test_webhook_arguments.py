"""What the constructor refuses, and how it signs."""

import base64
import builtins
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from turnfold.enums import DeliveryClass
from turnfold.errors import InvalidInputError, MissingExtraError
from turnfold.messages import Route, Text
from turnfold.ports.channel import Accepted, Attempt, CannotTell, Part
from turnfold_adapters.channels.webhook import WebhookChannel, signer

URL = "https://receiver.invalid/in"
SECRET = "whsec_" + base64.b64encode(b"a secret of some length").decode()
Handler = Callable[[httpx.Request], httpx.Response]


def part(text: str = "hi") -> Part:
    return Part(
        entry_id="e1",
        index=0,
        count=1,
        kind="text",
        payload=Text(text),
        key="k1",
        route=Route(channel="webhook", conversation="42"),
    )


def client(handler: Handler) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(handler))


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def sent(secret: str | None, at_ms: int, **options: Any) -> httpx.Request:
    """What arrives at the receiver for one send."""
    seen: list[httpx.Request] = []

    def receive(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"id": "m1"})

    async with client(receive) as http:
        channel = WebhookChannel(URL, secret=secret, client=http, **options)
        attempt = Attempt(number=1, at_ms=at_ms)
        assert isinstance(await channel.send(part("ü"), "k1", attempt), Accepted)
    (request,) = seen
    return request


async def test_the_signature_is_verified_by_the_library() -> None:
    request = await sent(SECRET, now_ms())
    assert Webhook(SECRET).verify(request.content, dict(request.headers)) is not None


async def test_a_changed_body_does_not_verify() -> None:
    request = await sent(SECRET, now_ms())
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(request.content + b" ", dict(request.headers))


async def test_id_key_and_time_come_from_the_attempt() -> None:
    request = await sent(SECRET, 1_700_000_000_999)
    assert request.headers["webhook-id"] == "k1"
    assert request.headers["idempotency-key"] == "k1"
    assert request.headers["webhook-timestamp"] == "1700000000"


async def test_own_headers_are_sent_but_cannot_replace_ours() -> None:
    own = {"authorization": "Bearer x", "Webhook-Id": "forged"}
    request = await sent(None, now_ms(), headers=own)
    assert request.headers["authorization"] == "Bearer x"
    assert request.headers.get_list("webhook-id") == ["k1"]
    assert "webhook-signature" not in request.headers


@pytest.mark.parametrize("secret", ["whsec_!!!", "", "whsec_", "ü", "a"])
def test_a_secret_that_is_not_base64_is_refused(secret: str) -> None:
    with pytest.raises(InvalidInputError, match="secret"):
        signer(secret)


@pytest.mark.parametrize("url", ["ftp://x", "/relative", "", "http://"])
def test_a_url_that_is_not_http_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match="url"):
        WebhookChannel(url)


@pytest.mark.case("L02")
def test_lookup_without_a_place_to_look_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="lookup_url"):
        WebhookChannel(URL, classes=[DeliveryClass.LOOKUP])


def test_a_class_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="classes"):
        WebhookChannel(URL, classes=["telepathy"])


async def test_declared_classes_hold_for_every_kind_of_part() -> None:
    channel = WebhookChannel(
        URL,
        classes=["keyed", "lookup"],
        lookup_url=URL,
        key_window_ms=300_000,
        settle_ms=7,
    )
    for kind in ("text", "file", "native"):
        offered = channel.capabilities.of(kind)
        assert offered.classes == (DeliveryClass.KEYED, DeliveryClass.LOOKUP)
        assert (offered.key_window_ms, offered.settle_ms) == (300_000, 7)
    assert channel.capabilities.of("hologram").classes == ()
    await channel.aclose()


async def test_nothing_declared_is_blind() -> None:
    async with WebhookChannel(URL) as channel:
        assert channel.capabilities.of("text").classes == ()
        assert channel.capabilities.gives_ids
        assert isinstance(await channel.reconcile(part(), 0), CannotTell)


@pytest.mark.parametrize("missing", ["httpx", "standardwebhooks"])
def test_without_the_extra_the_error_names_it(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == missing:
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"turnfold\[webhook\]"):
        WebhookChannel(URL, secret=SECRET)


async def test_a_client_of_the_embedder_is_left_open() -> None:
    async with client(lambda _: httpx.Response(200)) as http:
        channel = WebhookChannel(URL, client=http)
        await channel.aclose()
        await channel.aclose()
        assert not http.is_closed
