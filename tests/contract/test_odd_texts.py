"""Long texts, odd characters, empty texts and captions, by each channel and its real
client library: every planned part is taken by our FAKE of the platform, within the
platform's limit, and the parts together show the text. Matrix has a real server:
`tests/real/test_matrix_texts.py`."""

import asyncio
import html
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from tests.fakes import fake_bot_api, fake_discord, fake_slack
from tests.odd_texts import FORMATS, MARK, TEXTS, many, plan, send, shown

from turnfold import File, Text
from turnfold_adapters.channels.discord import DiscordChannel
from turnfold_adapters.channels.slack import SlackChannel
from turnfold_adapters.channels.telegram import TelegramChannel
from turnfold_adapters.channels.webhook import WebhookChannel
from turnfold_adapters.text.clusters import MEASURES, is_blank
from turnfold_cli.platform import Mode, Platform

pytestmark = pytest.mark.filterwarnings("ignore:Deprecated since version v22.2")
_units = MEASURES["utf16"]


@frozen
class Chat:
    """A fake, a channel on it, what it shows, and how a plain text is read there.
    `limit`: in UTF-16 units."""

    fake: Callable[[], AbstractContextManager[Any]]
    channel: Callable[[Any], Any]
    limit: int
    place: str
    read: Callable[[str], str]


def _telegram(api: Any) -> Any:
    return TelegramChannel(fake_bot_api.TOKEN, base_url=api.base_url)


def _slack(api: Any) -> Any:
    return SlackChannel(fake_slack.TOKEN, base_url=api.base_url)


def _discord(api: Any) -> Any:
    where = {"base_url": api.base_url, "gateway": api.gateway}
    return DiscordChannel(fake_discord.TOKEN, **where)


class _Receiver(Platform):
    def __init__(self) -> None:
        super().__init__(Mode.KEYED)

    def texts(self) -> list[str]:
        return [message.text or "" for message in self.book.witness()]


def _webhook(api: Any) -> Any:
    return WebhookChannel(f"{api.url}/messages", classes=["keyed"], limit=200)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([^\w\s]|_)", r"\1", text)


CHATS = {
    "telegram": Chat(fake_bot_api.FakeBotApi, _telegram, 4096, "42", str),
    "slack": Chat(fake_slack.FakeSlack, _slack, 4000, "C1", html.unescape),
    "discord": Chat(fake_discord.FakeDiscord, _discord, 2000, "42", _unescaped),
    "webhook": Chat(_Receiver, _webhook, 2 * 200, "42", str),
}
chats = pytest.mark.parametrize("name", CHATS)


def test_tags_in_tags_leave_room_for_text_in_each_piece() -> None:
    """A hundred nested tags once left one character a piece, and blank ones among them."""
    chat = CHATS["telegram"]
    said = "# <blockquote>\u202eabcé&<pre>```~" * 60

    async def play(api: Any) -> None:
        async with chat.channel(api) as channel:
            planned = plan(channel, Text(said, format="html"), chat.place)
            await send(channel, chat.place, planned)

    with chat.fake() as api:
        asyncio.run(play(api))
        texts = api.texts()
    assert len(texts) == 1
    assert shown("".join(texts)) == shown(re.sub(r"<\w+>", "", said))


@chats
def test_every_piece_of_a_text_is_taken_and_together_they_show_it(name: str) -> None:
    chat = CHATS[name]

    @many
    @given(TEXTS, FORMATS)
    def check(said: str, form: str) -> None:
        async def play() -> None:
            async with chat.channel(api) as channel:
                planned = plan(channel, Text(said, format=form), chat.place)
                await send(channel, chat.place, planned)

        before = len(api.texts())
        asyncio.run(play())
        texts = api.texts()[before:]
        assert all(_units(text) <= chat.limit and not is_blank(text) for text in texts)
        if form == "plain":
            together = "".join(chat.read(text.removeprefix(MARK)) for text in texts)
            assert shown(together) == ("" if is_blank(said) else shown(said))

    with chat.fake() as api:
        check()


@chats
def test_every_caption_within_the_offer_is_taken_beside_its_file(name: str) -> None:
    chat = CHATS[name]

    @many
    @given(TEXTS)
    def check(said: str) -> None:
        async def play() -> None:
            async with chat.channel(api) as channel:
                caption = said
                while _units(caption) > channel.capabilities.captions:
                    caption = caption[: len(caption) // 2]
                file = File(data=b"x", name="a.png", caption=caption)
                planned = plan(channel, file, chat.place)
                await send(channel, chat.place, planned)

        asyncio.run(play())

    with chat.fake() as api:
        check()
