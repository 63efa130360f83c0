"""Secrets of a webhook channel are in no log and in no detail."""

import logging
from collections.abc import Callable

import httpx
import pytest

from turnfold.enums import DeliveryClass
from turnfold.messages import Route, Text
from turnfold.ports.channel import Attempt, CannotTell, Part, Rejected, Unknown
from turnfold_adapters.channels.secrets import Secrets
from turnfold_adapters.channels.webhook import WebhookChannel

_SECRETS = {
    "token": "T0KEN-IN-HEADER",
    "password": "P4SSW0RD",
    "piece of the path": "URLT0KEN-0123456789",
    "query": "Q2345678",
    "signing key": "c2lnbmluZy1rZXktb2YtdGhpcw==",
}
_URL = "https://u:{password}@chat.example/hooks/{piece of the path}?key={query}"
_PART = Part(
    entry_id="e1",
    index=0,
    count=1,
    kind="text",
    payload=Text("hello"),
    key="k1",
    route=Route(channel="webhook", conversation="42"),
)
_ATTEMPT = Attempt(number=1, at_ms=1, marked=False)
_ALL = " ".join(_SECRETS.values())


def _channel(answer: Callable[[httpx.Request], httpx.Response]) -> WebhookChannel:
    url = _URL.format(**_SECRETS)
    return WebhookChannel(
        url,
        secret=f"whsec_{_SECRETS['signing key']}",
        headers={"Authorization": f"Bearer {_SECRETS['token']}"},
        classes=(DeliveryClass.LOOKUP,),
        lookup_url=url,
        client=httpx.AsyncClient(transport=httpx.MockTransport(answer)),
    )


def _refuses(request: httpx.Request) -> httpx.Response:
    return httpx.Response(401, text=f"bad token {_ALL}"[:180])


def _fails(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadError(f"cut off: {request.url} {_ALL}")


def _secrets_in(text: str) -> list[str]:
    return [name for name, value in _SECRETS.items() if value in text]


@pytest.mark.case("X12")
@pytest.mark.parametrize("answer", [_refuses, _fails])
async def test_no_secret_is_in_a_detail_or_in_the_log(
    answer: Callable[[httpx.Request], httpx.Response], caplog: pytest.LogCaptureFixture
) -> None:
    """A receiver sends the token back, or the client's error names the URL."""
    caplog.set_level(logging.INFO)
    channel = _channel(answer)
    sent = await channel.send(_PART, "k1", _ATTEMPT)
    assert isinstance(sent, Rejected | Unknown)
    asked = await channel.reconcile(_PART, 0)
    assert isinstance(asked, CannotTell)
    assert "[secret]" in f"{sent.detail}"
    assert _secrets_in(f"{sent.detail} {asked.detail} {caplog.text}") == []


@pytest.mark.case("X12")
async def test_requests_of_the_gateway_itself_are_logged_as_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    _channel(_refuses)
    async with httpx.AsyncClient(transport=httpx.MockTransport(_refuses)) as own:
        await own.get("https://elsewhere.example/")
    assert "https://elsewhere.example/" in caplog.text


@pytest.mark.case("X12")
def test_words_of_a_url_are_no_secrets() -> None:
    secrets = Secrets({"accept": "x"}, ["https://h/api/webhooks?v=1"])
    assert secrets.cut("api webhooks 1 x") == "api webhooks 1 x"
