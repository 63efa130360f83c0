"""The Slack channel and its sources in a real kernel, with the real slack_sdk, against
our FAKE of Slack."""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.fake_slack import (
    APP_TOKEN,
    BOT_USER,
    TOKEN,
    FakeSlack,
    Fault,
    Message,
    event_body,
)

from turnfold import File, Kernel, Native, Route, Settings, Text
from turnfold.enums import FailureClass, PartAct
from turnfold.errors import BackPressureError, InvalidInputError
from turnfold.inbound import Inbound
from turnfold.inspect import Filter
from turnfold.ports.channel import (
    Absent,
    Accepted,
    Attempt,
    CannotTell,
    Found,
    Part,
    Receipt,
    Rejected,
    Unknown,
)
from turnfold_adapters.channels.slack import SlackChannel
from turnfold_adapters.channels.slack_content import KEY_FIELD, MARKER
from turnfold_adapters.channels.slack_errors import RefusedError

case = pytest.mark.case
QUICK = Settings(backoff_base_ms=5, backoff_cap_ms=20, probe_ms=20, rate_limit_ms=50)
ONCE = Attempt(number=1, at_ms=0)


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    with FakeSlack() as running:
        yield running


@pytest.fixture
async def channel(slack: FakeSlack) -> AsyncIterator[SlackChannel]:
    async with made(slack) as one:
        yield one


def made(slack: FakeSlack, **more: Any) -> SlackChannel:
    return SlackChannel(
        TOKEN, app_token=APP_TOKEN, base_url=slack.base_url, settle_ms=50, **more
    )


def part(payload: Any, key: str = "thekey", place: str = "C1", **route: Any) -> Part:
    kind = {Text: "text", File: "file", Native: "native"}[type(payload)]
    where = Route(channel="slack", conversation=place, **route)
    facts = {"entry_id": "e", "index": 0, "count": 1}
    return Part(**facts, kind=kind, payload=payload, key=key, route=where)  # type: ignore[arg-type]


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not what():
            await asyncio.sleep(0.01)


# --- sending ---


async def test_a_text_goes_out_as_mrkdwn_with_our_key(
    slack: FakeSlack, channel: SlackChannel
) -> None:
    text = Text("see <b>this</b> & <i>that</i>", format="html")
    outcome = await channel.send(part(text), "thekey", ONCE)
    (message,) = slack.own()
    assert outcome == Accepted(receipt=Receipt(ids=(message.ts,)))
    assert message.text == "see *this* &amp; _that_"
    assert message.metadata == {
        "event_type": KEY_FIELD,
        "event_payload": {KEY_FIELD: "thekey"},
    }


@case("D17")
@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.CUT_AFTER])
async def test_the_library_does_not_send_a_lost_request_again(
    slack: FakeSlack, channel: SlackChannel, fault: Fault
) -> None:
    slack.script(fault)
    with pytest.raises(Exception) as lost:
        await channel.send(part(Text("hi")), "k", ONCE)
    assert isinstance(channel.classify(lost.value), Unknown)
    assert slack.visible_calls() == 1


@case("B13", "B20")
@pytest.mark.parametrize(
    "fault",
    [
        Fault.FATAL_ERROR,
        Fault.INTERNAL_ERROR,
        Fault.SERVER_ERROR,
        Fault.PROXY_PAGE,
        Fault.PLAIN_PAGE,
    ],
)
async def test_an_ambiguous_answer_is_unknown_and_a_look_up_knows(
    slack: FakeSlack, channel: SlackChannel, fault: Fault
) -> None:
    slack.script(fault)
    one = part(Text("hi"))
    assert isinstance(await channel.send(one, "thekey", ONCE), Unknown)
    slack.channels["C1"] = None
    verdict = await channel.reconcile(one, 0)
    assert isinstance(verdict, Found if slack.texts() else Absent)


async def test_a_rate_limit_carries_the_seconds_of_its_header(
    slack: FakeSlack, channel: SlackChannel
) -> None:
    slack.retry_after = 7
    slack.script(Fault.RATE_LIMITED)
    outcome = await channel.send(part(Text("hi")), "k", ONCE)
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.RATE_LIMITED
    assert outcome.retry_after_ms == 7_000


@case("V04")
async def test_a_thread_that_is_gone_is_left_out_by_the_next_attempt(
    tmp_path: Path, slack: FakeSlack
) -> None:
    async with Kernel(tmp_path / "bot.db", settings=QUICK) as kernel:
        kernel.attach("slack", made(slack))
        route = Route(channel="slack", conversation="C1", thread="1600000000.000001")
        await kernel.enqueue(route, "hi")
        await until(lambda: slack.texts() == ["hi"])
    assert slack.own()[0].thread_ts is None


async def test_a_message_to_a_user_names_its_conversation(
    slack: FakeSlack, channel: SlackChannel
) -> None:
    one = part(Text("hi"), place="U0ANN")
    outcome = await channel.send(one, "thekey", ONCE)
    (message,) = slack.own()
    receipt = Receipt(ids=(message.ts, "DU0ANN"))
    assert outcome == Accepted(receipt=receipt)
    assert await channel.reconcile(one, 0) == Found(receipt=receipt)
    await channel.retract(receipt, one.route)
    assert slack.own() == []


# --- files ---


async def test_a_file_is_shared_once_under_its_own_title(
    slack: FakeSlack, channel: SlackChannel
) -> None:
    file = File(data=b"bytes", name="report.pdf")
    one = part(file, key="0123456789abcdef")
    prepared = await channel.prepare(one)
    assert slack.own() == []
    marked = Attempt(number=2, at_ms=0, prepared=prepared, marked=True)
    outcome = await channel.send(one, one.key, marked)
    assert outcome == Accepted(receipt=Receipt(ids=(prepared,)))
    (message,) = slack.own()
    assert message.text == MARKER.strip()
    (shared,) = message.files
    assert (shared["title"], shared["data"]) == ("report.pdf", b"bytes")
    assert shared["name"] == "report.456789abcdef.pdf"
    found = await channel.reconcile(one, 0)
    assert found == Found(receipt=Receipt(ids=(prepared, message.ts)))
    twin = part(file, key="fedcba9876543210")
    assert await channel.reconcile(twin, 0) == Absent()


@case("D03")
async def test_a_file_whose_bytes_are_gone_ends_at_once(
    channel: SlackChannel, tmp_path: Path
) -> None:
    with pytest.raises(RefusedError) as error:
        await channel.prepare(part(File(tmp_path / "gone.txt")))
    meant = channel.classify(error.value)
    assert isinstance(meant, Rejected)
    assert meant.failure is FailureClass.INVALID_PAYLOAD


async def test_a_scope_that_is_missing_for_files_does_not_hold_texts_back(
    tmp_path: Path, slack: FakeSlack
) -> None:
    slack.scopes.remove("files:write")
    async with Kernel(tmp_path / "bot.db", settings=QUICK) as kernel:
        kernel.attach("slack", made(slack))
        route = Route(channel="slack", conversation="C1")
        refused = await kernel.enqueue(route, File(data=b"x", name="a.txt"))
        await kernel.enqueue(route, "text")
        await until(lambda: slack.texts() == ["text"])
        assert "missing_scope" in str(await kernel.inspect.show(refused.entry_id))


# --- look-ups ---


async def sent(channel: SlackChannel, one: Part) -> Receipt:
    outcome = await channel.send(one, one.key, ONCE)
    assert isinstance(outcome, Accepted)
    return outcome.receipt


@case("B02", "B16")
async def test_a_look_up_reads_all_pages_and_only_what_is_its_own(
    slack: FakeSlack, channel: SlackChannel
) -> None:
    slack.page = 3
    one = part(Text("hi"))
    receipt = await sent(channel, one)
    for number in range(10):
        slack.says("C1", f"later {number}")
    forged = slack.own()[0].metadata
    slack.messages.append(Message("C1", "1800000000.1", "U9", "hi", metadata=forged))
    assert await channel.reconcile(one, 0) == Found(receipt=receipt)
    slack.messages.remove(slack.own()[0])
    assert await channel.reconcile(one, 0) == Absent()


@case("B16")
async def test_a_look_up_does_not_look_before_the_attempt(
    slack: FakeSlack, channel: SlackChannel
) -> None:
    one = part(Text("hi"))
    await sent(channel, one)
    later = int(time.time() * 1000) + 60_000
    assert await channel.reconcile(one, later) == Absent()


@case("B04")
@pytest.mark.parametrize("place", ["general", "#general"])
async def test_a_channel_that_is_a_name_cannot_be_looked_up(
    channel: SlackChannel, place: str
) -> None:
    verdict = await channel.reconcile(part(Text("hi"), place=place), 0)
    assert isinstance(verdict, CannotTell)
    assert place in verdict.detail


@case("B01", "B04")
async def test_without_the_scope_a_look_up_cannot_tell_and_a_person_decides(
    tmp_path: Path, slack: FakeSlack
) -> None:
    slack.scopes.remove("history")
    slack.script(Fault.CUT_AFTER)
    async with Kernel(tmp_path / "bot.db", settings=QUICK) as kernel:
        kernel.attach("slack", made(slack), on_unknown="hold")
        route = Route(channel="slack", conversation="C1")
        made_entry = await kernel.enqueue(route, "hi")
        await until(lambda: kernel.health()["parked"] == 1)
        assert "missing_scope" in str(await kernel.inspect.show(made_entry.entry_id))
    assert slack.texts() == ["hi"]


async def test_metadata_that_slack_dropped_proves_no_absence(
    slack: FakeSlack, channel: SlackChannel
) -> None:
    slack.keeps_metadata = False
    one = part(Text("hi <b>you</b>", format="html"))
    await sent(channel, one)
    assert isinstance(await channel.reconcile(one, 0), CannotTell)
    other = part(Text("something else"), key="other")
    assert await channel.reconcile(other, 0) == Absent()


async def test_a_native_call_that_leaves_no_metadata_cannot_be_looked_up(
    channel: SlackChannel,
) -> None:
    body = {"method": "reactions.add", "name": "eyes", "timestamp": "1.5"}
    verdict = await channel.reconcile(part(Native(body)), 0)
    assert isinstance(verdict, CannotTell)


@case("B06")
async def test_absence_counts_only_once_the_history_shows_what_it_has(
    tmp_path: Path, slack: FakeSlack
) -> None:
    """Slack shows a message a little after it took it: `settle_ms` is the margin."""
    slack.history_lag_s = 0.4
    slack.script(Fault.CUT_AFTER)
    async with Kernel(tmp_path / "bot.db", settings=QUICK) as kernel:
        quick = SlackChannel(TOKEN, base_url=slack.base_url, settle_ms=1_000)
        kernel.attach("slack", quick)
        await kernel.enqueue(Route(channel="slack", conversation="C1"), "hi")
        await kernel.at_rest(20_000)
    assert slack.texts() == ["hi"]


# --- edits ---


@case("K04", "K07")
async def test_a_placeholder_is_not_yet_the_part(
    slack: FakeSlack, channel: SlackChannel
) -> None:
    one = part(Text("\u2026"))
    act = Attempt(number=1, at_ms=0, act=PartAct.PLACEHOLDER)
    outcome = await channel.send(one, one.key, act)
    assert isinstance(outcome, Accepted)
    assert await channel.reconcile(one, 0) == Absent()
    edited = part(Text("the answer"))
    assert isinstance(
        await channel.edit(outcome.receipt, edited, one.key, ONCE), Accepted
    )
    again = await channel.edit(outcome.receipt, edited, one.key, ONCE)
    assert again == Accepted(receipt=outcome.receipt)
    assert slack.texts() == ["the answer"]
    assert await channel.reconcile(edited, 0) == Found(receipt=outcome.receipt)


async def test_a_message_that_is_gone_is_no_handle(
    slack: FakeSlack, channel: SlackChannel
) -> None:
    outcome = await channel.edit(Receipt(ids=("1.5",)), part(Text("x")), "k", ONCE)
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.HANDLE_GONE


@case("K06")
async def test_a_live_reply_grows_in_one_message(
    tmp_path: Path, slack: FakeSlack
) -> None:
    async with Kernel(tmp_path / "bot.db", settings=QUICK) as kernel:
        bot = made(slack, preview_ms=20)
        kernel.attach("slack", bot)
        kernel.source("slack", bot.source)

        @kernel.on_turn
        async def answer(turn: Any) -> None:
            async with turn.live() as live:
                for word in ("a ", "long ", "answer"):
                    live.append(word)
                    await asyncio.sleep(0.05)

        slack.says("C1", "go", thread_ts=slack.says("C1", "root", bot_id="B9"))
        await until(lambda: slack.texts("C1").count("a long answer") == 2)
    first, second = slack.own()
    assert first.edits > 0
    assert (first.thread_ts is None) != (second.thread_ts is None)


# --- Socket Mode ---


async def taken(slack: FakeSlack, count: int) -> list[Inbound]:
    async with made(slack) as channel, aclosing(channel.source(None)) as messages:
        found = []
        async with asyncio.timeout(20):
            async for message in messages:
                found.append(message)
                if len(found) == count:
                    break
        return found


@case("H03", "H05")
async def test_an_envelope_is_answered_after_its_message_is_durable(
    slack: FakeSlack,
) -> None:
    slack.says("C1", "one")
    async with made(slack) as channel, aclosing(channel.source(None)) as messages:
        async with asyncio.timeout(20):
            first = await anext(messages)
            assert first.text == "one"
            assert len(slack.unanswered) == 1  # the kernel has not come back yet
            slack.says("C1", "two")
            assert (await anext(messages)).text == "two"
        await until(lambda: len(slack.unanswered) == 1)


@asynccontextmanager
async def gateway(
    slack: FakeSlack, folder: Path, answer: Callable[[Any], str]
) -> AsyncIterator[Kernel]:
    """One life of a bot."""
    async with Kernel(folder / "bot.db", settings=QUICK) as kernel:
        bot = made(slack)
        kernel.attach("slack", bot)
        kernel.source("slack", bot.source)
        kernel.on_turn(answer)
        yield kernel


@case("H01")
async def test_what_was_not_answered_comes_again_and_makes_no_second_turn(
    tmp_path: Path, slack: FakeSlack
) -> None:
    slack.says("C1", "hi")
    assert (await taken(slack, 1))[0].text == "hi"  # died before its answer
    async with gateway(slack, tmp_path, lambda turn: f"You said: {turn.inbound.text}"):
        await until(lambda: not slack.unanswered)
        body = next(iter(slack.says("C1", "x") and slack.unanswered.values()))
        slack.unanswered["again"] = {**body, "envelope_id": "again"}
        await until(lambda: not slack.unanswered and len(slack.own()) == 2)
        await asyncio.sleep(0.2)
    assert slack.texts() == ["You said: hi", "You said: x"]


@case("H08")
async def test_our_own_messages_are_never_taken(slack: FakeSlack) -> None:
    slack.says("C1", "hey bot")
    slack.says("C1", "from us", user=BOT_USER)
    slack.says("C1", "the end")
    assert [m.text for m in await taken(slack, 2)] == ["hey bot", "the end"]


@case("H02")
async def test_a_mention_is_one_turn_in_any_number_of_lives(
    slack: FakeSlack, tmp_path: Path
) -> None:
    """The event `app_mention` of a message may come to another process than its event
    `message`."""
    text = f"<@{BOT_USER}> hey"
    ts = slack.says("C1", text, client_msg_id="m-1")
    for _ in range(2):
        async with gateway(
            slack,
            tmp_path,
            lambda turn: f"mentioned: {turn.inbound.body['mentioned']}",
        ) as kernel:
            await until(lambda: not slack.unanswered)
            await kernel.at_rest(20_000)
            (turn,) = await kernel.inspect.list(Filter(what="turn"))
            assert not turn.person
        mention = {"type": "app_mention", "channel": "C1", "user": "U0ANN", "ts": ts}
        slack.tell({**mention, "text": text, "client_msg_id": "m-1"})
    assert slack.texts() == ["mentioned: True"]


async def test_a_source_outlives_the_connection(slack: FakeSlack) -> None:
    async with made(slack) as channel, aclosing(channel.source(None)) as messages:
        async with asyncio.timeout(60):
            slack.says("C1", "one")
            assert (await anext(messages)).text == "one"
            nexts = asyncio.ensure_future(anext(messages))
            await until(lambda: not slack.unanswered)
            slack.stop()
            slack.start()
            slack.says("C1", "two")
            assert (await nexts).text == "two"


async def test_a_wrong_app_token_breaks_the_source(slack: FakeSlack) -> None:
    wrong = SlackChannel(TOKEN, app_token="xapp-wrong", base_url=slack.base_url)
    async with wrong as channel:
        with pytest.raises(Exception, match="invalid_auth"):
            await anext(channel.source(None))
    async with SlackChannel(TOKEN, base_url=slack.base_url) as channel:
        with pytest.raises(InvalidInputError, match="xapp"):
            channel.source(None)


# --- the Events API ---

SECRET = "signing-secret-of-a-test"


def signed(body: bytes, at: str | None = None) -> dict[str, str]:
    at = at or str(int(time.time()))
    mac = hmac.new(SECRET.encode(), f"v0:{at}:".encode() + body, hashlib.sha256)
    return {
        "X-Slack-Request-Timestamp": at,
        "X-Slack-Signature": f"v0={mac.hexdigest()}",
    }


def said(text: str = "hi", **more: Any) -> bytes:
    event = {
        "type": "message",
        "channel": "C1",
        "user": "U1",
        "text": text,
        "ts": "1700000000.000100",
    }
    return json.dumps(event_body({**event, **more})).encode()


@case("H03", "H09")
async def test_a_200_says_that_the_event_is_durable(
    tmp_path: Path, slack: FakeSlack
) -> None:
    body = said()
    async with Kernel(tmp_path / "bot.db", settings=QUICK) as kernel:
        bot = made(slack)
        kernel.attach("slack", bot)
        receiver = bot.receiver(SECRET)
        for _ in range(2):
            assert await receiver.receive(kernel.accept, signed(body), body) == (
                200,
                "",
            )
        async with made(slack) as other:  # another process
            again = other.receiver(SECRET)
            assert await again.receive(kernel.accept, signed(body), body) == (200, "")
        assert len(await kernel.inspect.list(Filter(what="turn"))) == 1


async def test_the_receiver_answers_as_slack_wants(slack: FakeSlack) -> None:
    taken: list[Any] = []

    async def accept(inbound: Any) -> None:
        taken.append(inbound)

    async with made(slack) as channel:
        receiver = channel.receiver(SECRET)

        async def reply(body: bytes, headers: dict[str, str] | None = None) -> Any:
            return await receiver.receive(accept, headers or signed(body), body)

        hello = json.dumps({"type": "url_verification", "challenge": "abc"}).encode()
        assert await reply(hello) == (200, "abc")
        for wrong in (b"[]", b"{", b"7"):
            assert (await reply(wrong))[0] == 400
        stale = signed(said(), at="1500000000")
        for headers in ({"x": "y"}, stale, {**signed(said()), **signed(b"")}):
            assert (await reply(said(), headers))[0] == 401
        odd = {**signed(said()), "X-Slack-Request-Timestamp": "soon"}
        assert (await reply(said(), odd))[0] == 401
        assert await reply(said(user=BOT_USER)) == (200, "")
        assert taken == []
    with pytest.raises(InvalidInputError):
        channel.receiver(" ")


@case("H15")
async def test_slack_is_asked_to_send_again_what_cannot_be_taken(
    slack: FakeSlack,
) -> None:
    async def accept(_: Any) -> None:
        raise BackPressureError(what="messages", waiting=2, limit=1)

    async with made(slack) as channel:
        receiver = channel.receiver(SECRET)
        body = said()
        assert (await receiver.receive(accept, signed(body), body))[0] == 503
        slack.stop()
    async with made(slack) as channel:  # it cannot ask who it is
        receiver = channel.receiver(SECRET)
        assert (await receiver.receive(accept, signed(body), body))[0] == 503


# --- the constructor ---


@pytest.mark.parametrize("token", ["", "two words", "xoxb-\u00e4"])
def test_a_token_that_cannot_be_one_is_refused(token: str) -> None:
    with pytest.raises(InvalidInputError):
        SlackChannel(token)
    with pytest.raises(InvalidInputError):
        SlackChannel(TOKEN, app_token=token)


async def test_a_proxy_of_the_environment_gets_no_token(
    slack: FakeSlack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    slack.says("C1", "hi")
    assert len(await taken(slack, 1)) == 1
    async with made(slack) as channel:
        await sent(channel, part(Text("hi")))
    assert slack.texts() == ["hi"]
