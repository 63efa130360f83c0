"""The Discord channel and its source in a real kernel, with the real discord.py, against
our FAKE of Discord."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import discord
import pytest
from tests.fakes.fake_discord import TOKEN, FakeDiscord
from tests.fakes.fake_discord import Fault as ApiFault

from turnfold import File, Kernel, Native, Route, Settings, Text
from turnfold.enums import Decoration, FailureClass, GateScope, PartAct
from turnfold.errors import InvalidInputError
from turnfold.ports.channel import Accepted, Attempt, Outcome, Part, Rejected, Unknown
from turnfold_adapters.channels import discord_source
from turnfold_adapters.channels.discord import DiscordChannel
from turnfold_adapters.channels.discord_content import TEXT_LIMIT, nonce_of
from turnfold_adapters.channels.discord_source import Cursor, Event

case = pytest.mark.case
QUICK = Settings(backoff_base_ms=5, backoff_cap_ms=20, probe_ms=20, rate_limit_ms=50)
ONCE = Attempt(number=1, at_ms=0)
EMPTY = Attempt(number=1, at_ms=0, act=PartAct.PLACEHOLDER)


@pytest.fixture
def api() -> Iterator[FakeDiscord]:
    with FakeDiscord() as running:
        yield running


@pytest.fixture
async def channel(api: FakeDiscord) -> AsyncIterator[DiscordChannel]:
    async with made(api) as one:
        yield one


def made(api: FakeDiscord, **more: Any) -> DiscordChannel:
    where = {"base_url": api.base_url, "gateway": api.gateway}
    return DiscordChannel(TOKEN, ready_ms=50, settle_ms=50, **where, **more)


def part(payload: Any, key: str = "k", **route: Any) -> Part:
    kind = {Text: "text", File: "file", Native: "native"}[type(payload)]
    where = Route(channel="discord", **{"conversation": "42", **route})
    facts = {"entry_id": "e", "index": 0, "count": 1}
    return Part(**facts, kind=kind, payload=payload, key=key, route=where)  # type: ignore[arg-type]


async def sent(channel: DiscordChannel, one: Part) -> Outcome:
    try:
        return await channel.send(one, one.key, ONCE)
    except (discord.HTTPException, aiohttp.ClientError, OSError) as exc:
        return channel.classify(exc) or Unknown(cause="not classified")


def _no_answer(outcome: Outcome) -> bool:
    causes = ("no_answer", "server_error")
    return isinstance(outcome, Unknown) and outcome.cause in causes


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not what():
            await asyncio.sleep(0.01)


# --- sending ---


async def test_a_message_carries_a_nonce_and_pings_nobody(
    api: FakeDiscord, channel: DiscordChannel
) -> None:
    one = part(Text("hello @everyone", format="markdown"), reply_to="999")
    assert isinstance(await sent(channel, one), Accepted)
    given = api.messages[0].given
    assert (given["nonce"], given["enforce_nonce"]) == (nonce_of("k"), True)
    assert len(given["nonce"]) == 25
    assert given["allowed_mentions"] == {"parse": [], "replied_user": False}
    assert given["message_reference"] == {
        "message_id": "999",
        "fail_if_not_exists": False,
    }


@case("B02", "C14")
async def test_a_key_that_is_sent_again_is_answered_with_the_first_message(
    api: FakeDiscord, channel: DiscordChannel
) -> None:
    api.script(ApiFault.CUT_AFTER)
    assert _no_answer(await sent(channel, part(Text("hello"))))
    again = await sent(channel, part(Text("hello")))
    assert isinstance(again, Accepted)
    assert again.receipt.ids == (api.messages[0].id,)
    assert api.texts() == ["hello"]
    api.nonce_s = 0  # "the past few minutes" are over: nothing holds a second one back
    await sent(channel, part(Text("hello")))
    assert api.texts() == ["hello", "hello"]


def plan(channel: DiscordChannel, text: Text) -> list[str]:
    made = channel.plan(text, part(text).route, None, None)  # type: ignore[arg-type]
    return [one.payload.text for one in made]  # type: ignore[union-attr]


@case("V02")
@pytest.mark.parametrize(
    ("given", "written"),
    [
        (Text("2*3*4 = a_b_c"), r"2\*3\*4 = a\_b\_c"),
        (Text("see http://a.b/c_d_e"), "see http://a.b/c_d_e"),
        (Text("**bold**", format="markdown"), "**bold**"),
        (Text("<b>x*y</b> <i>z</i>", format="html"), r"**x\*y** *z*"),
        (Text('<a href="https://a.b/">it</a>', format="html"), "[it](https://a.b/)"),
        (Text('<a href="javascript:x">it</a>', format="html"), "it"),
        (Text("<pre>a_b</pre>", format="html"), "```\na_b\n```"),
        (Text("<p>one</p><p>two</p>", format="html"), "one\ntwo"),
    ],
)
async def test_texts_become_the_markdown_of_discord(
    channel: DiscordChannel, given: Text, written: str
) -> None:
    assert plan(channel, given) == [written]


@case("V02")
async def test_long_texts_become_messages_that_discord_takes(
    api: FakeDiscord, channel: DiscordChannel
) -> None:
    for text in (
        Text("*_" * 3_000 + " word" * 500),
        Text("<b>" + "word " * 1_500 + "</b>", format="html"),
        Text("**" + "word " * 1_500 + "**", format="markdown"),
        Text("\U0001f600" * 1_500),
    ):
        pieces = plan(channel, text)
        assert len(pieces) > 1
        assert all(len(p.encode("utf-16-le")) // 2 <= TEXT_LIMIT for p in pieces)
        for number, piece in enumerate(pieces):
            one = part(Text(piece, format="markdown"), f"{number} {text.text[:9]}")
            marked = Attempt(number=2, at_ms=0, marked=True)
            assert isinstance(await channel.send(one, one.key, marked), Accepted)


async def test_a_file_goes_in_the_request_of_its_message(
    api: FakeDiscord, channel: DiscordChannel, tmp_path: Path
) -> None:
    path = tmp_path / "picture"
    path.write_bytes(b"bytes")
    for file in (File(data=b"bytes", name="a.png", mime="image/png"), File(path)):
        assert isinstance(await sent(channel, part(file, f"k{file.name}")), Accepted)
    assert [m.files for m in api.messages] == [{"a.png": b"bytes"}, {"file": b"bytes"}]
    assert api.visible_calls() == 2
    assert api.messages[0].given["nonce"] == nonce_of("ka.png")
    again = Attempt(number=2, at_ms=0, marked=True)
    whole = part(File(data=b"x", name="b.txt", caption="a*b"), "caption")
    assert isinstance(await channel.send(whole, "caption", again), Accepted)
    assert api.messages[-1].given["content"] == r"(may be a duplicate) a\*b"
    gone = await sent(channel, part(File(tmp_path / "none"), "other"))
    assert isinstance(gone, Rejected)
    assert gone.failure is FailureClass.INVALID_PAYLOAD


async def test_a_native_body_is_the_json_of_a_message(
    api: FakeDiscord, channel: DiscordChannel
) -> None:
    card = Native({"embeds": [{"title": "tea?"}]})
    assert isinstance(await sent(channel, part(card)), Accepted)
    given = api.messages[0].given
    assert given["embeds"] == [{"title": "tea?"}]
    assert given["nonce"] == nonce_of("k")


async def test_a_thread_is_a_channel_of_its_own(
    api: FakeDiscord, channel: DiscordChannel
) -> None:
    await sent(channel, part(Text("in the thread"), thread="77"))
    assert [m.channel for m in api.messages] == ["77"]
    api.rooms.locked.add("77")
    refused = await sent(channel, part(Text("again"), "other", thread="77"))
    assert isinstance(refused, Rejected)
    assert refused.failure is FailureClass.DECORATION
    assert refused.decoration is Decoration.THREAD


@case("K11")
async def test_an_edit_may_be_made_again_and_a_placeholder_taken_back(
    api: FakeDiscord, channel: DiscordChannel
) -> None:
    placed = await channel.send(part(Text("\u2026")), "k", EMPTY)
    assert isinstance(placed, Accepted)
    assert "nonce" not in api.messages[0].given
    answer = part(Text("a*b"))
    for _ in range(2):
        assert await channel.edit(placed.receipt, answer, "k", ONCE) == placed
    assert api.texts() == [r"a\*b"]
    await channel.retract(placed.receipt, answer.route)
    assert api.messages == []
    with pytest.raises(discord.NotFound) as gone:
        await channel.edit(placed.receipt, answer, "k", ONCE)
    outcome = channel.classify(gone.value)
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.HANDLE_GONE


# --- answers ---


@case("C03")
@pytest.mark.parametrize(
    ("scope", "held"),
    [
        ("user", GateScope.CONVERSATION),
        ("shared", GateScope.CONVERSATION),
        ("global", GateScope.ACCOUNT),
    ],
)
async def test_a_rate_limit_is_told_with_its_wait_and_scope_after_one_request(
    api: FakeDiscord, channel: DiscordChannel, scope: str, held: GateScope
) -> None:
    api.limit_scope = scope
    api.script(ApiFault.RATE_LIMITED)
    outcome = await sent(channel, part(Text("hello")))
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.RATE_LIMITED
    assert (outcome.retry_after_ms, outcome.scope) == (250, held)
    assert api.visible_calls() == 1


@pytest.mark.parametrize("fault", [ApiFault.SERVER_ERROR, ApiFault.PROXY_PAGE])
async def test_an_answer_that_proves_nothing_is_unknown_after_one_request(
    api: FakeDiscord, channel: DiscordChannel, fault: ApiFault
) -> None:
    api.script(fault)
    assert _no_answer(await sent(channel, part(Text("hello"))))
    assert api.visible_calls() == 1


async def test_refusals_are_told_apart(
    api: FakeDiscord, channel: DiscordChannel
) -> None:
    api.rooms.gone.add("5")
    api.rooms.forbidden.add("6")
    long, empty = Native({"content": "x" * 2_001}), Native({"content": " "})
    for one, failure in (
        (part(Text("x"), conversation="5"), FailureClass.TARGET_GONE),
        (part(Text("x"), conversation="6"), FailureClass.PERMISSION),
        (part(long), FailureClass.TOO_LONG),
        (part(empty), FailureClass.INVALID_PAYLOAD),
    ):
        outcome = await sent(channel, one)
        assert isinstance(outcome, Rejected)
        assert outcome.failure is failure, outcome
    async with DiscordChannel("wrong", base_url=api.base_url) as other:
        outcome = await sent(other, part(Text("x")))
        assert isinstance(outcome, Rejected)
        assert outcome.failure is FailureClass.AUTH


async def test_the_token_is_in_no_log(
    api: FakeDiscord, channel: DiscordChannel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await sent(channel, part(Text("hi")))
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(channel) + repr(channel._listening)


@pytest.mark.parametrize("token", ["", "a b"])
def test_a_token_that_cannot_be_one_is_refused(token: str) -> None:
    with pytest.raises(InvalidInputError):
        DiscordChannel(token)


# --- in a kernel ---


async def served(
    api: FakeDiscord, path: Path, answer: Callable[[str], Any], **more: Any
) -> Kernel:
    kernel = Kernel(path, settings=QUICK)
    channel = made(api, **more)
    kernel.attach("discord", channel, on_unknown="resend_marked")
    kernel.source("discord", channel.source)

    @kernel.on_turn
    async def handler(turn: Any) -> None:
        await turn.reply(answer(turn.inbound.text))

    await kernel.open()
    await until(lambda: bool(api.sessions))
    return kernel


@case("C14")
async def test_a_user_is_answered_once_though_connections_break(
    api: FakeDiscord, tmp_path: Path
) -> None:
    kernel = await served(api, tmp_path / "g.db", lambda said: said.upper())
    faults = (ApiFault.CUT_AFTER, ApiFault.RATE_LIMITED, ApiFault.SERVER_ERROR)
    for number, fault in enumerate(faults):
        api.script(fault)
        api.says(42, f"said {number}")
        await until(lambda: api.texts()[-1:] == [f"SAID {number}"])  # noqa: B023  awaited here
    await kernel.close()
    assert api.texts() == ["SAID 0", "SAID 1", "SAID 2"]


async def test_a_live_reply_is_a_placeholder_and_edits(
    api: FakeDiscord, tmp_path: Path
) -> None:
    kernel = Kernel(tmp_path / "g.db", settings=QUICK)
    channel = made(api)
    kernel.attach("discord", channel, on_unknown="resend_marked")
    kernel.source("discord", channel.source)

    @kernel.on_turn
    async def handler(turn: Any) -> None:
        async with turn.live() as live:
            for word in ("one ", "two ", "three"):
                live.append(word)

    async with kernel:
        await until(lambda: bool(api.sessions))
        api.says(42, "hello")
        await until(lambda: api.texts() == ["one two three"])
    assert "nonce" not in api.messages[0].given


# --- the source ---


async def taken(messages: Any, count: int) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            inbound, cursor = await anext(messages)
            if inbound is not None:
                found.append((inbound, cursor))
    return found


@case("T07")
async def test_what_was_missed_comes_before_what_is_live(
    api: FakeDiscord, channel: DiscordChannel
) -> None:
    async with aclosing(channel.source(None)) as first:
        nothing, cursor = await anext(first)
        assert nothing is None
    api.rooms.private.add("500")
    api.rooms.unreadable.add("3")
    api.says(1, "missed")
    api.says(500, "missed in private")  # nobody knows of this chat yet
    api.says(3, "unreadable")
    api.says(2, "missed, too")
    async with aclosing(channel.source(cursor)) as messages:
        await_it = asyncio.ensure_future(taken(messages, 4))
        await until(lambda: bool(api.sessions))
        api.says(1, "live")
        api.says(500, "live in private")
        found = await await_it
    texts = [inbound.text for inbound, _ in found]
    assert texts == ["missed", "missed, too", "live", "live in private"]
    assert found[0][0].conversation == "1"
    assert found[0][0].sender == "7"
    api.says(500, "missed in private, again")
    async with aclosing(channel.source(found[-1][1])) as messages:
        again = [inbound.text for inbound, _ in await taken(messages, 1)]
    assert again == ["missed in private, again"]


@case("H02")
async def test_a_message_that_was_read_as_missed_is_not_taken_again_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gateway tells it with more fields than the history does."""
    read = {"id": "9", "channel_id": "1", "content": "hi"}
    events: asyncio.Queue[Event | None] = asyncio.Queue()

    async def missed(_: object) -> list[Event]:
        events.put_nowait(Event("message", {**read, "guild_id": "5"}))
        events.put_nowait(Event("edit", read))
        events.put_nowait(None)
        return [Event("message", read)]

    monkeypatch.setattr(discord_source, "_missed", missed)
    events.put_nowait(Event("ready"))
    client: Any = SimpleNamespace(events=events)
    found = [event async for event in discord_source._in_order(client)]
    assert [event.kind for event in found] == ["message", "edit"]
    assert found[0].message == read


@case("T07")
@pytest.mark.parametrize("resumable", [True, False])
async def test_a_gateway_that_breaks_loses_nothing(
    api: FakeDiscord, tmp_path: Path, resumable: bool
) -> None:
    kernel = await served(api, tmp_path / "g.db", lambda said: said.upper())
    api.says(42, "one")
    await until(lambda: api.texts() == ["ONE"])
    (api.break_sessions if resumable else api.forget_sessions)()
    api.says(42, "two")
    await until(lambda: api.texts() == ["ONE", "TWO"])
    await kernel.close()
    assert api.texts() == ["ONE", "TWO"]


@case("T05")
async def test_odd_messages_bots_and_updates_that_are_no_edits_stop_nobody(
    api: FakeDiscord, tmp_path: Path
) -> None:
    kernel = await served(api, tmp_path / "g.db", lambda said: said.upper())
    first = api.says(42, "one")
    message = next(m for m in api.history if m.id == first)
    whole = api.shown(message, live=True)
    other = {**whole, "id": "5", "author": {**whole["author"], "bot": True}}
    api.tell("MESSAGE_UPDATE", whole)  # a link was looked at
    api.tell("MESSAGE_CREATE", other)
    api.changes(first, "one, better")
    await until(lambda: api.texts() == ["ONE", "ONE, BETTER"])
    api.tell("MESSAGE_CREATE", {"id": None, "channel_id": "42"})
    api.says(42, "two")
    await until(lambda: api.texts() == ["ONE", "ONE, BETTER", "TWO"])
    await kernel.close()


@case("T07")
async def test_a_message_that_comes_out_of_order_is_taken_all_the_same(
    api: FakeDiscord, channel: DiscordChannel
) -> None:
    """Two channels: the newer message was taken, and then the process died."""
    async with aclosing(channel.source(None)) as messages:
        _, cursor = await anext(messages)
    api.says(1, "older")
    newer = api.says(2, "newer")
    at = Cursor.of(cursor).past(Event("message", {"id": newer, "channel_id": "2"}))
    async with aclosing(channel.source(str(at))) as messages:
        ((inbound, _),) = await taken(messages, 1)
        assert inbound.text == "older"
        api.says(1, "live")
        ((inbound, _),) = await taken(messages, 1)
        assert inbound.text == "live"


def test_a_cursor_stays_short_and_forgets_nothing() -> None:
    at = Cursor(0)
    for number in range(1, 200):
        message = {"id": str(number << 22), "channel_id": str(10**19 + number % 40)}
        at = at.past(Event("message", message, private=True))
        assert Cursor.of(str(at)) == at
    assert len(str(at)) < 2_000
    assert (len(at.places), len(at.private)) == (16, 32)
    # Each channel's place is at or below what was taken last, and not far below.
    assert at.floor == 183 << 22
    late = Event("message", {"id": str(10**6 << 22), "channel_id": "1"})
    assert at.past(late).places == {1: 10**6 << 22}
    assert at.past(late).floor == 199 << 22


async def test_a_message_says_when_it_was_sent(
    api: FakeDiscord, channel: DiscordChannel
) -> None:
    async with aclosing(channel.source("0")) as messages:
        api.says(1, "hello")
        ((inbound, _),) = await taken(messages, 1)
    assert abs(inbound.sent_at / 1000 - datetime.now(UTC).timestamp()) < 60
