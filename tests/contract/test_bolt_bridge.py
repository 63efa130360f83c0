"""A Slack Bolt app made durable, with the real slack_bolt, on our FAKE of Slack."""

import ast
import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from slack_bolt.async_app import AsyncApp
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_sdk.errors import SlackClientError, SlackRequestError
from slack_sdk.signature import SignatureVerifier
from slack_sdk.web.async_client import AsyncWebClient
from tests.fakes.fake_slack import (
    APP_TOKEN,
    BOT_USER,
    TOKEN,
    FakeSlack,
    event_body,
)

from turnfold import Kernel, Settings
from turnfold.errors import InvalidInputError
from turnfold.inspect import Filter
from turnfold_adapters.bridges import bolt
from turnfold_adapters.channels.slack_inbound import Names

case = pytest.mark.case
QUICK = Settings(backoff_base_ms=5, backoff_cap_ms=20, probe_ms=20)
SECRET = "signing-secret-of-a-test"
EXAMPLE = Path(__file__).parents[2] / "examples" / "bolt" / "bot.py"


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    with FakeSlack() as running:
        yield running


def built(slack: FakeSlack, *listeners: Any, kind: str = "message") -> AsyncApp:
    client = AsyncWebClient(TOKEN, slack.base_url)
    app = AsyncApp(client=client, signing_secret=SECRET)
    for one in listeners:
        app.event(kind)(one)
    return app


@asynccontextmanager
async def served(
    slack: FakeSlack,
    store: Path,
    *listeners: Any,
    app: AsyncApp | None = None,
    settings: Settings = QUICK,
) -> AsyncIterator[Kernel]:
    app = app or built(slack, *listeners)
    kernel = Kernel(store, settings=settings)
    bolt.durable(app, kernel, settle_ms=50)
    kernel.source("slack", bolt.socket_mode(app, APP_TOKEN))
    async with kernel:
        yield kernel


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not what():
            await asyncio.sleep(0.01)


async def test_what_a_listener_posts_is_one_answer(
    slack: FakeSlack, tmp_path: Path
) -> None:
    async def listener(event: Any, say: Any, client: Any) -> None:
        waiting = await say("one moment")
        gone = await client.chat_postMessage(channel=event["channel"], text="unseen")
        assert waiting["ts"].startswith("0000000000.")
        await client.chat_update(channel="C1", ts=waiting["ts"], text="*one*")
        await client.chat_delete(channel="C1", ts=gone["ts"])
        blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "two"}}]
        await say(text="two", blocks=blocks, thread_ts=event["ts"])
        await client.chat_postMessage(channel="C2", text="elsewhere")
        assert slack.texts() == []  # nothing leaves while listeners run

    async with served(slack, tmp_path / "g.db", listener):
        slack.channels["C2"] = None
        root = slack.says("C1", "hello")
        await until(lambda: len(slack.own()) == 3)
    first, second, third = slack.own()
    assert [m.text for m in slack.own()] == ["*one*", "two", "elsewhere"]
    assert (first.thread_ts, second.thread_ts) == (None, root)
    assert second.given["blocks"][0]["text"]["text"] == "two"
    assert third.channel == "C2"


@case("A01", "H03")
async def test_an_event_is_acknowledged_once_it_is_durable(
    slack: FakeSlack, tmp_path: Path
) -> None:
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def listener(say: Any) -> None:
        begun.set()
        await goes_on.wait()
        await say("done")

    hangs = evolve(QUICK, drain_ms=500)
    async with served(slack, tmp_path / "g.db", listener, settings=hangs):
        slack.says("C1", "hello")
        await asyncio.wait_for(begun.wait(), 20)
        await until(lambda: not slack.unanswered)  # while its listener still runs
    assert slack.texts() == []
    goes_on.set()
    async with served(slack, tmp_path / "g.db", listener):  # the next process
        await until(lambda: slack.texts() == ["done"])


@case("H03")
async def test_an_event_that_cannot_be_stored_is_not_acknowledged(
    slack: FakeSlack, tmp_path: Path
) -> None:
    app = built(slack)
    kernel = Kernel(tmp_path / "g.db")
    channel = bolt.durable(app, kernel)  # and it is not open
    body = event_body({"type": "message", "channel": "C1", "user": "U1", "ts": "1.5"})
    answer = await app.async_dispatch(AsyncBoltRequest(body=body, mode="socket_mode"))
    assert answer.status == 500
    await channel.aclose()


async def test_a_listener_that_raises_is_run_again(
    slack: FakeSlack, tmp_path: Path
) -> None:
    runs = []

    async def listener(say: Any) -> None:
        runs.append(1)
        await say(f"run {len(runs)}")
        if len(runs) == 1:
            raise ValueError("at first")

    async with served(slack, tmp_path / "g.db", listener):
        slack.says("C1", "hello")
        await until(lambda: slack.texts() == ["run 2"])


async def test_an_error_handler_of_the_app_has_the_last_word(
    slack: FakeSlack, tmp_path: Path
) -> None:
    runs = []

    async def listener(say: Any) -> None:
        runs.append(1)
        raise ValueError("always")

    app = built(slack, listener)

    @app.error
    async def told(error: Any, context: Any) -> None:
        await context.say(f"sorry: {error}")

    async with served(slack, tmp_path / "g.db", app=app):
        slack.says("C1", "hello")
        await until(lambda: slack.texts() == ["sorry: always"])
    assert len(runs) == 1


@case("I07")
async def test_an_event_that_no_listener_wants_is_silent(
    slack: FakeSlack, tmp_path: Path
) -> None:
    async with served(slack, tmp_path / "g.db") as kernel:
        slack.says("C1", "hello")
        await until(lambda: not slack.unanswered)
        await kernel.at_rest(20_000)
        (row,) = await kernel.inspect.list(Filter(what="turn"))
        assert "silent" in str(row)


@case("H01", "H02", "H08")
async def test_repeats_and_our_own_messages_make_no_turns(
    slack: FakeSlack, tmp_path: Path
) -> None:
    async def message(say: Any) -> None:
        await say("message")

    async def mention(say: Any) -> None:
        await say("mention")

    app = built(slack, message)
    app.event("app_mention")(mention)
    async with served(slack, tmp_path / "g.db", app=app) as kernel:
        slack.says("C1", "from us", user=BOT_USER)
        wanted = ["from us", "mention", "message"]
        ts = slack.says("C1", "hello", client_msg_id="m-1")
        again = dict(slack.unanswered)
        both = {"channel": "C1", "user": "U0ANN", "text": "hello", "ts": ts}
        slack.tell({"type": "app_mention", "client_msg_id": "m-1", **both})
        await until(lambda: sorted(slack.texts()) == wanted)
        slack.unanswered.update({f"{k}-2": v for k, v in again.items()})
        for name, envelope in list(slack.unanswered.items()):
            slack.unanswered[name] = {**envelope, "envelope_id": name}
        await until(lambda: not slack.unanswered)
        await kernel.at_rest(20_000)
    assert sorted(slack.texts()) == wanted


@case("H02")
async def test_two_events_of_one_type_and_one_gesture_are_one_turn(
    slack: FakeSlack, tmp_path: Path
) -> None:
    seen = []

    async def listener(event: Any, body: Any, say: Any) -> None:
        seen.append((event["ts"], event["event_ts"], body["event_id"]))
        await say("once")

    async with served(slack, tmp_path / "g.db", listener) as kernel:
        ts = slack.says("C1", "hello", client_msg_id="m-1")
        await until(lambda: not slack.unanswered)
        both = {"channel": "C1", "user": "U0ANN", "text": "hello", "ts": "1700000000.5"}
        slack.tell({"type": "message", "client_msg_id": "m-1", **both})
        await until(lambda: not slack.unanswered)
        await kernel.at_rest(20_000)
        assert len(await kernel.inspect.list(Filter(what="turn"))) == 1
    assert slack.texts() == ["once"]
    assert seen == [(ts, ts, "message:U0ANN:m-1")]


def test_an_edit_names_the_key_of_the_message_in_bolt() -> None:
    names = Names(channel="slack", account="default")
    said = {"type": "message", "channel": "C1", "user": "U0ANN", "text": "hi"}
    said |= {"client_msg_id": "m-1", "ts": "1.000001"}
    change = {"type": "message", "subtype": "message_changed", "channel": "C1"}
    change |= {"message": {**said, "edited": {"ts": "2.000001"}}, "ts": "2.000001"}
    first = bolt._inbound({"event": said, "event_id": "E1"}, names)
    edit = bolt._inbound({"event": change, "event_id": "E2"}, names)
    assert (edit.event, edit.edits) == ("edit", first.key)


async def test_what_has_not_left_yet_has_no_thread_and_no_reactions(
    slack: FakeSlack, tmp_path: Path
) -> None:
    errors = []

    async def listener(say: Any, client: Any) -> None:
        waiting = await say("root")
        for call in (
            say("in its thread", thread_ts=waiting["ts"]),
            client.chat_scheduleMessage(channel="C1", text="x", post_at=1),
            client.chat_getPermalink(channel="C1", message_ts="1.5"),
        ):
            try:
                await call
            except SlackClientError as exc:
                errors.append(type(exc).__name__)

    async with served(slack, tmp_path / "g.db", listener):
        slack.says("C1", "hello")
        await until(lambda: slack.texts() == ["root"])
    # The last two went out at once, to a fake that does not know them.
    assert errors == [SlackRequestError.__name__, "SlackApiError", "SlackApiError"]


async def test_what_is_posted_after_the_turn_goes_out_at_once(
    slack: FakeSlack, tmp_path: Path
) -> None:
    late = []

    async def listener(say: Any) -> None:
        async def later() -> None:
            await until(lambda: slack.texts() == ["now"])
            await say("later")

        await say("now")
        late.append(asyncio.ensure_future(later()))

    async with served(slack, tmp_path / "g.db", listener):
        slack.says("C1", "hello")
        await until(lambda: slack.texts() == ["now", "later"])


@case("D05")
async def test_a_run_that_slack_does_not_authorize_is_made_again(
    slack: FakeSlack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bolt answers such an event with 200 and runs no listener."""
    real, refused = slack._auth_test, []

    def auth(given: dict[str, Any]) -> dict[str, Any]:
        if len(refused) < 2 and slack.unanswered == {} and slack.messages:
            refused.append(1)
            return {"ok": False, "error": "account_inactive"}
        return real(given)

    monkeypatch.setattr(slack, "_auth_test", auth)

    async def listener(say: Any) -> None:
        await say("answer")

    async with served(slack, tmp_path / "g.db", listener):
        slack.says("C1", "hello")
        await until(lambda: slack.texts() == ["answer"])


# --- over HTTP ---


def posted(body: dict[str, Any], *, signed: bool = True) -> AsyncBoltRequest:
    raw = json.dumps(body)
    at = "1700000000"
    if signed:
        at = str(int(time.time()))
    signature = SignatureVerifier(SECRET).generate_signature(timestamp=at, body=raw)
    headers = {
        "content-type": ["application/json"],
        "x-slack-request-timestamp": [at],
        "x-slack-signature": [str(signature)],
    }
    return AsyncBoltRequest(body=raw, headers=headers)


async def test_only_what_is_signed_is_accepted(
    slack: FakeSlack, tmp_path: Path
) -> None:
    async def listener(say: Any) -> None:
        await say("answer")

    app = built(slack, listener)
    async with Kernel(tmp_path / "g.db", settings=QUICK) as kernel:
        bolt.durable(app, kernel, settle_ms=50)
        event = {"type": "message", "channel": "C1", "user": "U1", "text": "hi"}
        body = event_body({**event, "ts": "1700000000.000100"})
        assert (await app.async_dispatch(posted(body, signed=False))).status == 401
        assert len(await kernel.inspect.list(Filter(what="turn"))) == 0
        for _ in range(2):
            assert (await app.async_dispatch(posted(body))).status == 200
        await until(lambda: slack.texts() == ["answer"])
        hello = {"type": "url_verification", "challenge": "abc"}
        assert "abc" in (await app.async_dispatch(posted(hello))).body


async def test_a_command_is_handled_as_ever(slack: FakeSlack, tmp_path: Path) -> None:
    app = built(slack)

    @app.command("/go")
    async def go(ack: Any, say: Any) -> None:
        await ack("at once")
        await say("said")

    async with served(slack, tmp_path / "g.db", app=app) as kernel:
        slack.channels["C1"] = None
        body = {"command": "/go", "channel_id": "C1", "user_id": "U1", "team_id": "T"}
        request = AsyncBoltRequest(body=body, mode="socket_mode")
        answer = await app.async_dispatch(request)
        assert (answer.status, answer.body) == (200, "at once")
        await until(lambda: slack.texts() == ["said"])
        assert len(await kernel.inspect.list(Filter(what="turn"))) == 0


async def test_an_app_without_a_token_of_its_own_is_refused(tmp_path: Path) -> None:
    async def authorize() -> None:
        """Nobody calls it."""

    app = AsyncApp(signing_secret=SECRET, authorize=authorize)
    with pytest.raises(InvalidInputError):
        bolt.durable(app, Kernel(tmp_path / "g.db"))


@case("Z09")
def test_the_example_is_made_durable_in_at_most_twelve_lines() -> None:
    tree = ast.parse(EXAMPLE.read_text("utf-8"))
    glue: set[int] = set()
    for node in ast.walk(tree):
        named = isinstance(node, ast.Attribute) and ast.unparse(node).startswith("bolt")
        imported = isinstance(node, ast.ImportFrom) and "turnfold" in str(node.module)
        options = isinstance(node, ast.Assign) and "options" in ast.unparse(node)
        if named or imported or options:
            glue.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    assert 0 < len(glue) <= 12
