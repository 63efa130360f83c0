"""A webhook whose receiver lets messages be changed: PUT edits, DELETE takes back."""

from typing import Any

import httpx
import pytest
from tests.contract.test_webhook_channel import attempt, part

from turnfold.enums import FailureClass
from turnfold.errors import InvalidInputError
from turnfold.messages import Text
from turnfold.ports.channel import Accepted, Receipt, Rejected
from turnfold_adapters.channels.webhook import WebhookChannel
from turnfold_cli.platform import Platform
from turnfold_cli.platform_book import FaultKind, Mode


def channel_to(url: str) -> WebhookChannel:
    return WebhookChannel(
        f"{url}/messages", classes=["editable"], message_url=f"{url}/messages/{{id}}"
    )


@pytest.fixture
def platform() -> Any:
    with Platform(Mode.EDITABLE) as running:
        yield running


async def placed(channel: WebhookChannel) -> Receipt:
    outcome = await channel.send(part(payload=Text("\u2026")), "k1", attempt())
    assert isinstance(outcome, Accepted)
    return outcome.receipt


async def test_a_placeholder_shows_nothing_until_its_edit(platform: Platform) -> None:
    async with channel_to(platform.url) as channel:
        handle = await placed(channel)
        assert platform.book.witness() == []
        assert platform.book.stats()["strays"] == 1
        for _ in range(2):  # an edit may be made again
            outcome = await channel.edit(handle, part(), "k1", attempt(2))
            assert outcome == Accepted(receipt=handle)
    (message,) = platform.book.witness()
    assert (message.id, message.key, message.text) == (handle.ids[0], "k1", "hello")
    assert platform.book.stats()["strays"] == 0


async def test_a_cut_edit_is_unknown_and_can_be_made_again(platform: Platform) -> None:
    async with channel_to(platform.url) as channel:
        handle = await placed(channel)
        platform.script(FaultKind.CUT_AFTER)
        cut = await channel.edit(handle, part(), "k1", attempt(2))
        assert not isinstance(cut, Accepted | Rejected)
        again = await channel.edit(handle, part(), "k1", attempt(3))
    assert again == Accepted(receipt=handle)
    assert [m.text for m in platform.book.witness()] == ["hello"]


async def test_a_message_that_was_taken_back_is_gone(platform: Platform) -> None:
    async with channel_to(platform.url) as channel:
        handle = await placed(channel)
        await channel.retract(handle, part().route)
        outcome = await channel.edit(handle, part(), "k1", attempt(2))
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.HANDLE_GONE
    assert platform.book.stats()["strays"] == 0


@pytest.mark.parametrize("content", [{}, {"found": True}, {"error": "no such route"}])
async def test_a_404_of_a_proxy_does_not_say_that_a_message_is_gone(
    content: dict[str, Any],
) -> None:
    def proxy(_: httpx.Request) -> httpx.Response:
        return httpx.Response(404, json=content)

    async with httpx.AsyncClient(transport=httpx.MockTransport(proxy)) as http:
        url = "https://receiver.invalid"
        channel = WebhookChannel(url, message_url=f"{url}/{{id}}", client=http)
        handle = Receipt(ids=("m1",))
        outcome = await channel.edit(handle, part(), "k1", attempt(2))
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.TRANSIENT


async def test_an_id_is_quoted_in_the_address() -> None:
    asked: list[str] = []

    def receive(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path.decode())
        return httpx.Response(200, json={"id": "a/b"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(receive)) as http:
        url = "https://receiver.invalid/m/{id}/text"
        channel = WebhookChannel(
            "https://receiver.invalid", message_url=url, client=http
        )
        await channel.edit(Receipt(ids=("a/b",)), part(), "k1", attempt(2))
    assert asked == ["/m/a%2Fb/text"]


@pytest.mark.parametrize("url", [None, "https://receiver.invalid/messages"])
def test_editable_needs_an_address_of_each_message(url: str | None) -> None:
    with pytest.raises(InvalidInputError, match="message_url"):
        WebhookChannel(
            "https://receiver.invalid", classes=["editable"], message_url=url
        )


def test_edits_survive_the_end_of_the_platform(tmp_path: Any) -> None:
    """The journal of the stand-in holds what its messages show."""
    journal = tmp_path / "platform.jsonl"
    with Platform(Mode.EDITABLE, journal=journal) as platform:
        shape = {"conversation": "42", "text": "\u2026"}
        first, _ = platform.book.accept("k1", b"1", shape)
        second, _ = platform.book.accept("k2", b"2", shape)
        platform.book.edit(first.id, "k1", b"3", {**shape, "text": "hello"})
        platform.book.delete(second.id)
    with Platform(Mode.EDITABLE, journal=journal) as platform:
        assert [m.text for m in platform.book.witness()] == ["hello"]
        assert platform.book.stats()["strays"] == 0
