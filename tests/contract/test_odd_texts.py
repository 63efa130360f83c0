"""Long texts, odd characters, empty texts and captions, by each chat channel and its real
client library: every planned part is taken by our FAKE of the platform, within the
platform's limit, and the parts together show the text."""

import asyncio
import html
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any
from uuid import uuid4

import pytest
from attrs import frozen
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.fakes import fake_bot_api, fake_discord, fake_slack

from turnfold import File, Kind, Route, Text
from turnfold.ports.channel import Accepted, Attempt, Part, PlanContext, PlannedPart
from turnfold_adapters.channels.discord import DiscordChannel
from turnfold_adapters.channels.slack import SlackChannel
from turnfold_adapters.channels.telegram import TelegramChannel
from turnfold_adapters.text.clusters import MEASURES, is_blank

pytestmark = pytest.mark.filterwarnings("ignore:Deprecated since version v22.2")
_units = MEASURES["utf16"]
MARK = "(may be a duplicate) "
PIECES = [
    *(
        "a",
        "word ",
        "\n",
        "\r\n",
        "\t",
        " ",
        "\u00a0",
        "\u200b",
        "\u2028",
        "\x00",
        "\x1b",
    ),
    *(
        "👨\u200d👩\u200d👧",
        "🇫🇷",
        "👍🏽",
        "🏽",
        "e\u0301",
        "\u0301",
        "क्षि",
        "각",
        "字",
        "\u202eabc",
    ),
    *(
        "<",
        ">",
        "&",
        "&amp;",
        "<b>",
        "</b>",
        "<blockquote>",
        "<pre>",
        "*",
        "_",
        "`",
        "```",
    ),
    *(
        "~",
        "|",
        "||",
        "\\",
        "[x](http://e.org)",
        "<@U1>",
        "<!channel>",
        "@everyone",
        "# ",
    ),
]
TEXTS = st.builds(
    lambda pieces, times: "".join(pieces) * times,
    st.lists(st.sampled_from(PIECES), max_size=12),
    st.sampled_from([1, 1, 2, 60, 300]),
)
FORMATS = st.sampled_from(["plain", "html", "markdown"])
many = settings(
    max_examples=10,
    deadline=None,
    phases=[Phase.generate],  # each try talks to a server
    suppress_health_check=[HealthCheck.too_slow],
)


@frozen
class Chat:
    """A fake, a channel on it, what it shows, and how a plain text is read there."""

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


def _unescaped(text: str) -> str:
    return re.sub(r"\\([^\w\s]|_)", r"\1", text)


CHATS = {
    "telegram": Chat(fake_bot_api.FakeBotApi, _telegram, 4096, "42", str),
    "slack": Chat(fake_slack.FakeSlack, _slack, 4000, "C1", html.unescape),
    "discord": Chat(fake_discord.FakeDiscord, _discord, 2000, "42", _unescaped),
}
chats = pytest.mark.parametrize("name", CHATS)


async def _send(channel: Any, place: str, planned: Sequence[PlannedPart]) -> None:
    route = Route(channel="chat", conversation=place)
    for index, one in enumerate(planned):
        part = Part(
            entry_id="e",
            index=index,
            count=len(planned),
            kind=one.kind,
            payload=one.payload,
            key=uuid4().hex,
            route=route,
        )
        prepared = None
        if one.kind in (channel.capabilities.prepares or ()):
            prepared = await channel.prepare(part)
        attempt = Attempt(number=1, at_ms=0, marked=index == 1, prepared=prepared)
        outcome = await channel.send(part, part.key, attempt)
        assert isinstance(outcome, Accepted), (one.payload, outcome)


def _plan(channel: Any, payload: Any, place: str) -> Sequence[PlannedPart]:
    route = Route(channel="chat", conversation=place)
    found: Sequence[PlannedPart] = channel.plan(
        payload, route, Kind.FINAL, PlanContext(entry_id="e", kind=Kind.FINAL)
    )
    return found


def _shown(text: str) -> str:
    return "".join(c for c in text if not c.isspace())


@chats
def test_every_piece_of_a_text_is_taken_and_together_they_show_it(name: str) -> None:
    chat = CHATS[name]

    @many
    @given(TEXTS, FORMATS)
    def check(said: str, form: str) -> None:
        async def play() -> None:
            async with chat.channel(api) as channel:
                planned = _plan(channel, Text(said, format=form), chat.place)
                await _send(channel, chat.place, planned)

        before = len(api.texts())
        asyncio.run(play())
        texts = api.texts()[before:]
        assert all(_units(text) <= chat.limit and not is_blank(text) for text in texts)
        if form == "plain":
            together = "".join(chat.read(text.removeprefix(MARK)) for text in texts)
            assert _shown(together) == ("" if is_blank(said) else _shown(said))

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
                planned = _plan(channel, file, chat.place)
                await _send(channel, chat.place, planned)

        asyncio.run(play())

    with chat.fake() as api:
        check()
