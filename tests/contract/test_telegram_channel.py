"""The Telegram channel and its source in a real kernel, with the real
python-telegram-bot, against our FAKE of the Bot API."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.fake_bot_api import TOKEN, FakeBotApi
from tests.fakes.fake_bot_api import Fault as ApiFault

from turnfold import File, Kernel, Native, Route, Settings, Text
from turnfold.enums import Decoration, FailureClass, PartAct
from turnfold.errors import InvalidInputError
from turnfold.ports.channel import Accepted, Attempt, Part, Receipt, Rejected, Unknown
from turnfold_adapters.channels.telegram import TelegramChannel
from turnfold_adapters.channels.telegram_content import MARKER
from turnfold_adapters.channels.telegram_source import Names, listen

case = pytest.mark.case
pytestmark = pytest.mark.filterwarnings("ignore:Deprecated since version v22.2")

QUICK = Settings(backoff_base_ms=5, backoff_cap_ms=20, probe_ms=20, rate_limit_ms=50)


@pytest.fixture
def api() -> Iterator[FakeBotApi]:
    with FakeBotApi() as running:
        yield running


@pytest.fixture
async def channel(api: FakeBotApi) -> AsyncIterator[TelegramChannel]:
    async with made(api) as one:
        yield one


def made(api: FakeBotApi, **more: Any) -> TelegramChannel:
    return TelegramChannel(
        TOKEN, base_url=api.base_url, poll_ms=1_000, settle_ms=50, **more
    )


def part(payload: Any, key: str = "k", **route: Any) -> Part:
    kind = {Text: "text", File: "file", Native: "native"}[type(payload)]
    where = Route(channel="telegram", conversation="42", **route)
    facts = {"entry_id": "e", "index": 0, "count": 1}
    return Part(**facts, kind=kind, payload=payload, key=key, route=where)  # type: ignore[arg-type]


ONCE = Attempt(number=1, at_ms=0)


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not what():
            await asyncio.sleep(0.01)


# --- sending ---


async def test_a_text_goes_out_with_its_entities(
    api: FakeBotApi, channel: TelegramChannel
) -> None:
    text = Text("see <b>this</b>", format="html")
    outcome = await channel.send(part(text), "k", ONCE)
    assert outcome == Accepted(receipt=Receipt(ids=("1",)))
    assert api.texts() == ["see this"]
    assert json.loads(api.messages[0].given["entities"]) == [
        {"offset": 4, "length": 4, "type": "bold"}
    ]


async def test_the_fake_refuses_markup_that_is_cut_in_two(
    api: FakeBotApi, channel: TelegramChannel
) -> None:
    broken = Native({"text": "<b>half", "parse_mode": "HTML"})
    outcome = await channel.send(part(broken), "k", ONCE)
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.DECORATION


@case("V04")
async def test_a_topic_that_is_gone_is_a_decoration(
    api: FakeBotApi, channel: TelegramChannel
) -> None:
    first = await channel.send(part(Text("hi"), thread="7"), "k", ONCE)
    assert isinstance(first, Rejected)
    assert first.failure is FailureClass.DECORATION
    assert first.decoration is Decoration.THREAD
    api.chats.topics[42].add(7)
    there = part(Text("in the topic"), "other", thread="7", reply_to="1")
    assert isinstance(await channel.send(there, "other", ONCE), Accepted)
    assert api.messages[0].given["message_thread_id"] == "7"


async def test_a_reply_to_a_message_that_is_gone_is_sent_all_the_same(
    api: FakeBotApi, channel: TelegramChannel
) -> None:
    assert isinstance(
        await channel.send(part(Text("hi"), reply_to="999"), "k", ONCE), Accepted
    )


@pytest.mark.parametrize(
    ("mime", "method"), [("image/png", "sendphoto"), ("text/plain", "senddocument")]
)
async def test_files_go_out_as_bytes(
    api: FakeBotApi, channel: TelegramChannel, mime: str, method: str, tmp_path: Path
) -> None:
    path = tmp_path / "picture"
    path.write_bytes(b"\x89PNG bytes")
    for file in (
        File(data=b"\x89PNG bytes", name="a.bin", mime=mime),
        File(path, name="a.bin", mime=mime),
    ):
        assert isinstance(await channel.send(part(file), "k", ONCE), Accepted)
    assert {m.file for m in api.messages} == {b"\x89PNG bytes"}
    assert [m for m, _ in api.calls] == [method] * 2
    told = File(path, name="a.bin", mime=mime, caption="the logo")
    assert isinstance(await channel.send(part(told), "k", ONCE), Accepted)
    assert api.calls[-1][1]["caption"] == "the logo"
    gone = await channel.send(part(File(tmp_path / "none", mime=mime)), "k", ONCE)
    assert isinstance(gone, Rejected)
    assert gone.failure is FailureClass.INVALID_PAYLOAD


async def test_a_native_call_is_one_method_of_the_bot_api(
    api: FakeBotApi, channel: TelegramChannel
) -> None:
    poll = Native({"method": "sendPoll", "question": "tea?", "options": ["yes", "no"]})
    assert isinstance(await channel.send(part(poll), "k", ONCE), Accepted)
    assert api.texts() == ["tea?"]
    none = Native({"method": "sendNothing"})
    assert isinstance(await channel.send(part(none), "k", ONCE), Rejected)


@case("K11")
async def test_an_edit_that_was_made_before_is_a_success(
    api: FakeBotApi, channel: TelegramChannel
) -> None:
    placed = await channel.send(
        part(Text("\u2026")), "k", Attempt(number=1, at_ms=0, act=PartAct.PLACEHOLDER)
    )
    assert isinstance(placed, Accepted)
    answer = part(Text("<i>the answer</i>", format="html"))
    for deduplicated in (False, True):
        edited = await channel.edit(placed.receipt, answer, "k", ONCE)
        assert edited == Accepted(receipt=placed.receipt, deduplicated=deduplicated)
    assert (api.texts(), api.messages[0].edits) == (["the answer"], 1)
    await channel.retract(placed.receipt, answer.route)
    assert api.messages == []
    gone = await channel.edit(placed.receipt, answer, "k", ONCE)
    assert isinstance(gone, Rejected)
    assert gone.failure is FailureClass.HANDLE_GONE


async def test_a_page_of_a_proxy_is_no_word_of_telegram(
    api: FakeBotApi, channel: TelegramChannel
) -> None:
    api.script(ApiFault.PROXY_PAGE, ApiFault.SERVER_ERROR)
    for _ in range(2):
        outcome = await channel.send(part(Text("hi")), "k", ONCE)
        assert isinstance(outcome, Unknown)


async def test_the_token_is_in_no_log(
    api: FakeBotApi, channel: TelegramChannel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        await channel.send(part(Text("hi")), "k", ONCE)
    assert "/bot<token>/sendmessage" in caplog.text
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(channel)


@pytest.mark.parametrize("token", ["", "1:a/b", "1: a"])
def test_a_token_that_cannot_be_one_is_refused(token: str) -> None:
    with pytest.raises(InvalidInputError):
        TelegramChannel(token)


# --- in a kernel ---


async def served(
    api: FakeBotApi, path: Path, answer: Callable[[str], Any], **more: Any
) -> tuple[Kernel, TelegramChannel]:
    kernel = Kernel(path, settings=QUICK)
    channel = made(api, **more)
    kernel.attach("telegram", channel, on_unknown="resend_marked")
    kernel.source("telegram", channel.source)

    @kernel.on_turn
    async def handler(turn: Any) -> None:
        await turn.reply(answer(turn.inbound.text))

    await kernel.open()
    return kernel, channel


@case("C03", "V02")
async def test_a_user_is_answered_in_pieces_by_edits_of_placeholders(
    api: FakeBotApi, tmp_path: Path
) -> None:
    long = "<b>" + "word " * 1_500 + "</b>"
    kernel, _ = await served(
        api,
        tmp_path / "g.db",
        lambda said: Text(long if said == "long" else said, format="html"),
    )
    asked = api.says(42, "hello")
    await until(lambda: api.texts() == ["hello"])
    reply = json.loads(api.messages[0].given["reply_parameters"])
    assert reply["message_id"] == asked
    api.says(42, "long")
    await until(lambda: sum(len(text) for text in api.texts()) > 7_400)
    await kernel.close()
    assert "".join("".join(api.texts()[1:]).split()) == "word" * 1_500
    assert all(m.edits == 1 for m in api.messages)


async def test_a_group_that_moved_gets_its_answer_at_its_new_id(
    api: FakeBotApi, tmp_path: Path
) -> None:
    api.chats.moved[42] = -1001
    kernel, _ = await served(api, tmp_path / "g.db", lambda said: said.upper())
    api.says(42, "hello")
    await until(lambda: api.texts(-1001) == ["HELLO"])
    await kernel.close()


@case("V04")
async def test_a_topic_that_is_gone_parks_no_part_whose_first_attempt_is_in_doubt(
    api: FakeBotApi, tmp_path: Path
) -> None:
    kernel, _ = await served(api, tmp_path / "g.db", lambda said: said)
    api.script(ApiFault.CUT_BEFORE)
    gone = Route(channel="telegram", conversation="42", thread="7")
    await kernel.enqueue(gone, Text("hello"), key="k")
    await until(lambda: [t.removeprefix(MARKER) for t in api.texts()] == ["hello"])
    await kernel.close()


@case("V02", "V04")
async def test_an_edit_in_doubt_whose_entities_are_refused_becomes_plain_text(
    api: FakeBotApi, tmp_path: Path
) -> None:
    kernel, _ = await served(api, tmp_path / "g.db", lambda said: said)
    api.script(None, ApiFault.CUT_BEFORE, ApiFault.ENTITIES)
    to = Route(channel="telegram", conversation="42")
    sent = await kernel.enqueue(to, Text("<b>words</b>", format="html"))
    await until(lambda: api.texts() == ["words"])
    assert (await sent.receipt(10_000)) is not None
    assert api.messages[0].given.get("entities", "[]") == "[]"
    await kernel.close()


@case("C14")
async def test_a_connection_that_breaks_after_the_acceptance_doubles_nothing(
    api: FakeBotApi, tmp_path: Path
) -> None:
    kernel, _ = await served(api, tmp_path / "g.db", lambda said: said.upper())
    # Of an answer's two calls the second is the edit, which may be made again.
    for said, fault in (("one", ApiFault.CUT_AFTER), ("two", ApiFault.CUT_BEFORE)):
        api.script(None, fault)
        api.says(42, said)
        await until(lambda: api.texts()[-1:] == [said.upper()])  # noqa: B023  awaited here
    await kernel.close()
    assert api.texts() == ["ONE", "TWO"]


# --- the source ---


@case("T07")
async def test_an_update_is_confirmed_only_after_it_is_durable(
    api: FakeBotApi, channel: TelegramChannel
) -> None:
    api.says(42, "first")
    api.says(42, "second")
    async with aclosing(channel.source(None)) as messages:
        first, cursor = await anext(messages)
        assert first is not None
        assert (first.text, first.conversation, first.sender) == ("first", "42", "42")
        assert (api.waiting, api.confirmed) == (2, 0)  # whoever dies here loses nothing
        second, _ = await anext(messages)
        assert second is not None
        assert second.text == "second"
        assert api.confirmed == 0
        api.says(42, "third")
        await anext(messages)
        assert api.confirmed == 1003
    async with aclosing(channel.source(cursor)) as again:
        third, _ = await anext(again)
        assert third is not None
        assert third.text == "third"


@case("T05")
@pytest.mark.parametrize(
    "update",
    [
        {
            "message": {
                "message_id": 5,
                "chat": {"id": 42},
                "location": {"latitude": 1.5},
            }
        },
        {"message": {"message_id": "x" * 9_000, "chat": {"id": {}}}},
        {"message": {"message_id": 5, "chat": [], "date": -1, "text": 7, "from": 3}},
        {"message": "\ud800"},
        {"poll": {"id": "1"}},
        {},
    ],
)
async def test_an_odd_update_does_not_stop_the_ones_behind_it(
    api: FakeBotApi, tmp_path: Path, update: dict[str, Any]
) -> None:
    kernel, _ = await served(api, tmp_path / "g.db", lambda said: said or "?")
    api.update(**update)
    api.says(43, "hello")
    await until(lambda: api.texts(43) == ["hello"])
    await kernel.close()


async def test_edits_callbacks_and_topics_are_told_apart(
    api: FakeBotApi, channel: TelegramChannel
) -> None:
    chat, user = {"id": -100, "type": "supergroup"}, {"id": 7}
    message = {"message_id": 5, "date": 1, "chat": chat, "from": user}
    topic = {**message, "is_topic_message": True, "message_thread_id": 9}
    api.update(message={**topic, "caption": "a photo"})
    api.update(edited_message={**message, "text": "better"})
    api.update(
        callback_query={"id": "77", "from": user, "message": topic, "data": "yes"}
    )
    found = []
    async with aclosing(channel.source(None)) as messages:
        for _ in range(3):
            inbound, _cursor = await anext(messages)
            assert inbound is not None
            found.append(inbound)
    photo, edit, callback = found
    assert (photo.text, photo.thread, photo.conversation) == ("a photo", "9", "-100")
    assert (edit.event, edit.message_id, edit.revision) == ("edit", "5", "1002")
    assert (callback.event, callback.text, callback.thread) == ("callback", "yes", "9")
    assert {one.sender for one in found} == {"7"}


async def test_an_outage_and_a_second_reader_are_waited_out(
    api: FakeBotApi, channel: TelegramChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "turnfold_adapters.channels.telegram_source._BACKOFF_MAX_MS", 20
    )
    async with aclosing(channel.source(None)) as messages:
        api.stop()
        waiting = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0.1)
        api.start()
        other = asyncio.ensure_future(channel.get_updates(None))
        await asyncio.sleep(0.1)
        api.says(42, "hello")
        inbound, _ = await waiting
        assert inbound is not None
        assert inbound.text == "hello"
        other.cancel()


@pytest.mark.parametrize("answer", [[], [{"no": "id"}], ["no update"]])
async def test_answers_that_bring_nothing_are_not_asked_for_at_once(
    answer: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnfold_adapters.channels.telegram_source._PACE_S", 0.05)
    calls = 0

    async def at_once(_offset: int | None) -> list[Any]:
        nonlocal calls
        calls += 1
        return answer if calls < 5 else [{"update_id": 1}]

    began = time.monotonic()
    names = Names(channel="t", account="a")
    async with aclosing(listen(at_once, names, None)) as messages:
        await anext(messages)
    assert calls == 5
    assert time.monotonic() - began >= 4 * 0.05


async def test_an_old_offset_is_not_used(
    api: FakeBotApi, channel: TelegramChannel
) -> None:
    """After a week without updates the next id is random, perhaps a lower one."""
    api.says(42, "hello")
    async with aclosing(channel.source("999999@1000")) as messages:
        inbound, _ = await anext(messages)
        assert inbound is not None
        assert inbound.text == "hello"
