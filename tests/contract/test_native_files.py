"""A native payload with files: kept by the kernel, sent by each channel that can, and
refused at the call by one that cannot. Each channel through its real client library."""

import json
import pickle
from pathlib import Path

import pytest
from tests.fakes.fake_bot_api import TOKEN as BOT_TOKEN
from tests.fakes.fake_bot_api import FakeBotApi
from tests.fakes.fake_discord import TOKEN as DISCORD_TOKEN
from tests.fakes.fake_discord import FakeDiscord
from tests.fakes.fake_slack import TOKEN as SLACK_TOKEN
from tests.fakes.fake_slack import FakeSlack, Fault

from turnfold import Capabilities, File, Kernel, Native, Payload, Route, Text
from turnfold._log.bodies import contents_in, naming, pack, unpack
from turnfold.audit import audit_store
from turnfold.enums import Status
from turnfold.errors import InvalidInputError
from turnfold.ports.channel import Accepted, Attempt, Found, Part
from turnfold_adapters.bridges.first_contract import FirstContract
from turnfold_adapters.channels.discord import DiscordChannel
from turnfold_adapters.channels.matrix_content import event_for
from turnfold_adapters.channels.payloads import check_pointed
from turnfold_adapters.channels.slack import SlackChannel
from turnfold_adapters.channels.slack_content import MARKER
from turnfold_adapters.channels.telegram import TelegramChannel
from turnfold_adapters.channels.webhook_wire import request_body
from turnfold_model.testing.gateway import Gateway, route
from turnfold_model.testing.platform import PlatformChannel

pytestmark = [
    pytest.mark.case("V08"),
    pytest.mark.filterwarnings("ignore:Deprecated since version v22.2"),
]
ONCE = Attempt(number=1, at_ms=0)
PLOT = File(data=b"plot", name="week 1.png", mime="image/png")
TABLE = File(data=b"table", name="table.csv", mime="text/csv")
BOTH = {"plot": PLOT, "table": TABLE}


def part(payload: Payload, key: str = "0123456789abcdef") -> Part:
    where = Route(channel="x", conversation="C1")
    facts = {"entry_id": "e", "index": 0, "count": 1}
    return Part(**facts, kind="native", payload=payload, key=key, route=where)  # type: ignore[arg-type]


# --- the payload ---


def test_a_stored_native_payload_keeps_its_files() -> None:
    given = Native({"card": [1, {"see": "attach://plot"}]}, BOTH)
    packed = pack(given)
    assert packed.contents == (b"plot", b"table")
    data = naming(packed, ["0.a", "1.b"])
    assert contents_in(data) == ("0.a", "1.b")
    assert unpack(data, {"0.a": b"plot", "1.b": b"table"}.__getitem__) == given
    assert pickle.loads(pickle.dumps(given)) == given


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ([PLOT], "files"),
        ({"plot": b"plot"}, "plot"),
        ({"a/b": PLOT}, "a/b"),
        ({"": PLOT}, "files"),
        ({1: PLOT}, "1"),
        ({"plot": File(data=b"", caption="words")}, "caption"),
        ({str(n): PLOT for n in range(33)}, "at most 32"),
        ({"other": PLOT}, "plot"),
    ],
)
def test_files_of_a_native_payload_are_checked_at_the_call(
    files: object, named: str
) -> None:
    with pytest.raises(InvalidInputError, match=named):
        Native({"photo": "attach://plot"}, files)  # type: ignore[arg-type]


def test_a_body_for_which_nobody_gives_a_file_is_only_text() -> None:
    assert Native({"text": "attach://plot"}).files == {}


@pytest.mark.parametrize("data", [b'{"attached":1}', b'{"attached":{"a":2}}'])
def test_bytes_that_only_begin_like_a_payload_name_no_file(data: bytes) -> None:
    assert contents_in(data) == ()


# --- the kernel ---


def _native_files(gateway: Gateway, *, taken: bool) -> None:
    channel = PlatformChannel(gateway.platform)
    channel.capabilities = Capabilities(native_files=taken)
    gateway.channels = {("t", "default"): channel}


async def test_the_queue_owns_a_copy_of_the_files(
    gateway: Gateway, tmp_path: Path
) -> None:
    _native_files(gateway, taken=True)
    path = tmp_path / "week 1.png"
    path.write_bytes(b"plot")
    kernel = await gateway.start()
    body = {"card": "attach://plot"}
    sent = await kernel.enqueue(route(), Native(body, {"plot": File(path)}), key="k")
    path.unlink()
    again = await kernel.enqueue(route(), Native(body, {"plot": PLOT}), key="k")
    other = {"plot": File(data=b"another plot", name=PLOT.name)}
    differs = await kernel.enqueue(route(), Native(body, other), key="k")
    plain = await kernel.enqueue(route(), Native(body), key="k")
    assert (again.differs, differs.differs, plain.differs) == (False, True, True)
    assert await sent.settled(2_000) is Status.DELIVERED
    report = await audit_store(kernel.store)
    assert report.passed, report.findings[:3]
    assert await kernel.redact(sent.entry_id, by="me")
    report = await audit_store(kernel.store)
    assert report.passed, report.findings[:3]


async def test_a_channel_that_sends_no_such_files_refuses_at_the_call(
    gateway: Gateway,
) -> None:
    _native_files(gateway, taken=False)
    kernel = await gateway.start()
    with pytest.raises(InvalidInputError, match="no files in a Native"):
        await kernel.enqueue(route(), Native({"a": 1}, BOTH))
    sent = await kernel.enqueue(route(), Native({"a": 1}))
    assert await sent.settled(2_000) is Status.DELIVERED


async def test_a_plan_that_refuses_a_payload_is_no_bug_of_its_channel(
    gateway: Gateway,
) -> None:
    _native_files(gateway, taken=True)
    channel = gateway.channels["t", "default"]

    def plan(payload: Payload, *_: object) -> list[object]:
        check_pointed(payload)
        return []

    channel.plan = plan  # type: ignore[attr-defined]
    kernel = await gateway.start()
    with pytest.raises(InvalidInputError, match="does not point to"):
        await kernel.enqueue(route(), Native({"a": "attach://plot"}, BOTH))
    bugs = kernel.health()["foreign_bugs"]
    assert not any(count for name, count in bugs.items() if name != "log")


# --- the channels ---


async def test_telegram_uploads_what_the_body_points_to(tmp_path: Path) -> None:
    album = {
        "method": "sendMediaGroup",
        "media": [
            {"type": "photo", "media": "attach://plot", "caption": "the week"},
            {"type": "document", "media": "attach://table"},
        ],
    }
    keyboard = {"inline_keyboard": [[{"text": "more", "callback_data": "m"}]]}
    named = {"method": "sendPhoto", "reply_markup": keyboard}
    with FakeBotApi() as api:
        async with Kernel(tmp_path / "bot.db") as kernel:
            bot = TelegramChannel(BOT_TOKEN, base_url=api.base_url)
            kernel.attach("telegram", bot, on_unknown="hold")
            to = Route(channel="telegram", conversation="42")
            for native in (
                Native(album, BOTH),
                Native({**named, "photo": "attach://plot"}, {"plot": PLOT}),
                Native(named, {"photo": PLOT}),
            ):
                sent = await kernel.enqueue(to, native)
                assert await sent.settled(10_000) is Status.DELIVERED
    assert [m.file for m in api.messages] == [b"plot", b"table", b"plot", b"plot"]
    assert api.texts()[0] == "week 1.png the week"
    assert json.loads(api.messages[2].given["reply_markup"]) == keyboard


async def test_discord_sends_an_embed_and_its_picture_in_one_request(
    tmp_path: Path,
) -> None:
    embed = {"title": "the week", "image": {"url": "attach://plot"}}
    with FakeDiscord() as api:
        async with Kernel(tmp_path / "bot.db") as kernel:
            bot = DiscordChannel(DISCORD_TOKEN, base_url=api.base_url)
            kernel.attach("discord", bot, on_unknown="hold")
            to = Route(channel="discord", conversation="42")
            sent = await kernel.enqueue(to, Native({"embeds": [embed]}, BOTH))
            assert await sent.settled(10_000) is Status.DELIVERED
    (message,) = api.messages
    assert message.files == {"plot.png": b"plot", "table.csv": b"table"}
    assert message.given["embeds"][0]["image"] == {"url": "attachment://plot.png"}
    assert message.given["enforce_nonce"] is True


@pytest.mark.parametrize("body", [{"text": "a & b"}, {"blocks": [{"type": "divider"}]}])
async def test_slack_shares_files_with_a_text_or_with_blocks(
    tmp_path: Path, body: dict[str, object]
) -> None:
    with FakeSlack() as slack:
        slack.script(Fault.CUT_AFTER)
        async with Kernel(tmp_path / "bot.db") as kernel:
            bot = SlackChannel(SLACK_TOKEN, base_url=slack.base_url, settle_ms=50)
            kernel.attach("slack", bot)
            to = Route(channel="slack", conversation="C1")
            sent = await kernel.enqueue(to, Native(body, BOTH))
            assert await sent.settled(10_000) is Status.DELIVERED
    (message,) = slack.own()  # found by a look-up, not sent again
    assert {f["title"]: f["data"] for f in message.files} == {
        "week 1.png": b"plot",
        "table.csv": b"table",
    }
    assert message.text == body.get("text", "")
    assert message.given.get("blocks") == body.get("blocks")


async def test_slack_marks_a_possible_duplicate_with_files() -> None:
    marked = Attempt(number=2, at_ms=0, marked=True)
    one = part(Native({}, {"plot": PLOT}))
    with FakeSlack() as slack:
        async with SlackChannel(SLACK_TOKEN, base_url=slack.base_url) as bot:
            assert isinstance(await bot.send(one, one.key, marked), Accepted)
            assert isinstance(await bot.reconcile(one, 0), Found)
    assert slack.texts() == [MARKER.strip()]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"text": "a", "blocks": []}, "both"),
        ({"method": "chat.postMessage"}, "method"),
        ({"blocks": [{"image_url": "attach://plot"}]}, "cannot point"),
    ],
)
async def test_slack_refuses_what_it_cannot_show_beside_files(
    tmp_path: Path, body: dict[str, object], problem: str
) -> None:
    async with Kernel(tmp_path / "bot.db") as kernel:
        kernel.attach(
            "slack", SlackChannel(SLACK_TOKEN, base_url="http://127.0.0.1:9/")
        )
        to = Route(channel="slack", conversation="C1")
        with pytest.raises(InvalidInputError, match=problem):
            await kernel.enqueue(to, Native(body, BOTH))


def test_matrix_puts_the_address_of_a_file_into_the_content() -> None:
    image = {"msgtype": "m.image", "body": "plot", "url": "attach://plot"}
    event = event_for(
        part(Native(image, {"plot": PLOT})),
        marked=False,
        uris={"plot": "mxc://x/1"},
        markdown=None,
    )
    assert event.content["url"] == "mxc://x/1"
    with pytest.raises(InvalidInputError, match="table"):
        check_pointed(Native(image, BOTH))


def test_a_webhook_carries_captions_and_the_files_of_a_native_payload() -> None:
    native = json.loads(request_body(part(Native({"a": 1}, BOTH)), "k", ONCE))
    assert native["native"] == {"a": 1}
    assert native["files"]["plot"] == {
        "name": "week 1.png",
        "mime": "image/png",
        "data": "cGxvdA==",
    }
    logo = File(data=b"1", name="a.png", caption="the logo")
    assert json.loads(request_body(part(logo), "k", ONCE))["caption"] == "the logo"
    assert "files" not in json.loads(request_body(part(Native({"a": 1})), "k", ONCE))


def _read(path: str) -> bytes:
    return Path(path).read_bytes()


class _Words:
    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    async def send_text(self, to: str, text: str) -> None:
        self.calls.append(("text", text))


class _Media(_Words):
    async def send_media(self, to: str, path: str) -> None:
        self.calls.append(("media", Path(path).name, _read(path)))


class _Cards(_Words):
    async def send_payload(
        self, to: str, payload: object, *, files: dict[str, str] | None = None
    ) -> None:
        read = {name: _read(path) for name, path in (files or {}).items()}
        self.calls.append(("payload", payload, read))


@pytest.mark.parametrize(
    ("kind", "calls"),
    [
        (
            _Media,
            [
                ("text", "hi"),
                ("media", "week 1.png", b"plot"),
                ("media", "table.csv", b"table"),
            ],
        ),
        (
            _Cards,
            [("payload", {"text": "hi"}, {"plot": b"plot", "table": b"table"})],
        ),
    ],
)
async def test_an_adapter_of_the_first_contract_gets_files_or_words_and_files(
    wild: Gateway, kind: type[_Words], calls: list[tuple[object, ...]]
) -> None:
    adapter = kind()
    wild.channels = {("t", "default"): FirstContract(adapter)}
    kernel = await wild.start()
    sent = await kernel.enqueue(route(), Native({"text": "hi"}, BOTH))
    assert await sent.settled(5_000) is Status.DELIVERED
    assert adapter.calls == calls


async def test_an_adapter_without_a_way_for_files_refuses_at_the_call(
    wild: Gateway,
) -> None:
    wild.channels = {("t", "default"): FirstContract(_Words())}
    kernel = await wild.start()
    with pytest.raises(InvalidInputError, match="no files"):
        await kernel.enqueue(route(), Native({"text": "hi"}, BOTH))


# --- captions ---


async def test_slack_shows_a_caption_with_its_file_escaped(tmp_path: Path) -> None:
    with FakeSlack() as slack:
        async with Kernel(tmp_path / "bot.db") as kernel:
            kernel.attach("slack", SlackChannel(SLACK_TOKEN, base_url=slack.base_url))
            to = Route(channel="slack", conversation="C1")
            logo = File(data=b"1", name="a.png", caption="a & b")
            for file in (logo, File(data=b"1", name="a.png", caption="x" * 900)):
                sent = await kernel.enqueue(to, file)
                assert await sent.settled(10_000) is Status.DELIVERED
    assert slack.texts() == ["a &amp; b", "x" * 900, ""]
    assert [bool(m.files) for m in slack.own()] == [True, False, True]


def test_text_has_no_files() -> None:
    assert pack(Text("attach://plot")).contents == ()
