"""Adapters of the first contract behind the bridge: nothing is skipped, lost or claimed."""

import asyncio
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from turnfold import Accepted, FailureClass, Kernel, Receipt, Rejected, Unknown
from turnfold.enums import Kind, Phase
from turnfold.errors import ContractError, InvalidInputError
from turnfold.messages import File, Native, Route, Text
from turnfold_adapters.bridges.first_contract import FirstContract, SaidNoError
from turnfold_cli import app
from turnfold_model.testing.gateway import Gateway, entry, in_file, route, spin, until

ROOT = Path(__file__).parents[2]


class Old:
    """Writes down what it is called with; answers by a script."""

    def __init__(self, *answers: object) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.answers = list(answers)

    def _said(self, *call: object) -> object:
        self.calls.append(call)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Words(Old):
    async def send_text(self, to, text):
        return self._said("text", to, text)


class Media(Words):
    def send_media(self, to, path, *, mime="", name=""):  # in a thread
        here = Path(path)
        data = here.read_bytes() if here.exists() else None
        return self._said("media", to, here.name if data else path, data)


class Rich(Media):
    async def send_payload(self, to, payload, **facts):
        return self._said("payload", to, payload)


def over(gateway: Gateway, adapter: object, **more: object) -> None:
    gateway.channels = {("t", "default"): FirstContract(adapter, **more)}


async def ended(kernel: Kernel, stream: str) -> Phase:
    phases = (Phase.DELIVERED, Phase.FAILED, Phase.PARKED)
    await until(lambda: entry(kernel, stream).phase in phases)
    return entry(kernel, stream).phase


@pytest.mark.case("L01", "L05")
async def test_an_adapter_that_returns_nothing_works_and_is_shown_as_weaker(
    tmp_path: Path,
) -> None:
    path = tmp_path / "g.db"
    gateway = Gateway(store=in_file(path))
    over(gateway, adapter := Words())
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), "hello")
    assert await ended(kernel, done.entry_id) is Phase.DELIVERED
    assert adapter.calls == [("text", "42", "hello")]
    (channel,) = await kernel.inspect.channels()
    assert (channel.classes, channel.ids) == ((), False)
    view = await kernel.inspect.show(done.entry_id)
    assert view.parts[0].classes == ()
    await gateway.end()
    words = ["channels", str(path)]
    shown = await asyncio.to_thread(CliRunner().invoke, app(words), words)
    assert "blind, no ids" in shown.stdout


async def test_the_policy_for_an_unknown_outcome_must_be_named() -> None:
    kernel = Kernel("memory:x")
    with pytest.raises(InvalidInputError, match="on_unknown"):
        kernel.attach("t", FirstContract(Words()))
    with pytest.raises(InvalidInputError, match="mark"):
        kernel.attach("t", FirstContract(Words()), on_unknown="resend_marked")


@pytest.mark.case("C04")
@pytest.mark.parametrize("kind", list(Kind))
async def test_no_kind_skips_the_splitting_or_a_file(wild: Gateway, kind: Kind) -> None:
    over(wild, adapter := Media(), limit=100)
    kernel = await wild.start()
    pictures = [File(data=b"%d" % n, name=f"{n}.png") for n in range(3)]
    done = await kernel.enqueue(route(), "word " * 50, *pictures, kind=kind)
    assert await ended(kernel, done.entry_id) is Phase.DELIVERED
    hows = [call[0] for call in adapter.calls]
    assert hows == ["text", "text", "text", "media", "media", "media"]
    assert [c[2:] for c in adapter.calls[3:]] == [
        (f"{n}.png", b"%d" % n) for n in range(3)
    ]


@pytest.mark.case("C04")
async def test_every_file_of_a_native_payload_goes_out_without_a_native_way(
    wild: Gateway,
) -> None:
    over(wild, adapter := Media(), limit=100)
    kernel = await wild.start()
    urls = [f"https://example.org/{n}.png" for n in range(3)]
    body = {
        "text": "word " * 50,
        "mediaUrl": urls[0],
        "mediaUrls": urls,
        "channelData": {"line": {"quickReplies": ["a"]}},
    }
    done = await kernel.enqueue(route(), Native(body), kind=Kind.FINAL)
    assert await ended(kernel, done.entry_id) is Phase.DELIVERED
    assert [c[0] for c in adapter.calls] == ["text"] * 3 + ["media"] * 3
    assert [c[2] for c in adapter.calls[3:]] == urls


@pytest.mark.case("C05")
@pytest.mark.parametrize("claims", [None, ("text",), ("text", "payload")])
async def test_a_native_way_is_never_lost(wild: Gateway, claims) -> None:
    over(wild, adapter := Rich(), claims=claims)
    kernel = await wild.start()
    body = {"text": "choose", "channelData": {"line": {"quickReplies": ["a", "b"]}}}
    done = await kernel.enqueue(route(), Native(body), kind=Kind.FINAL)
    assert await ended(kernel, done.entry_id) is Phase.DELIVERED
    assert adapter.calls == [("payload", "42", body)]
    assert type(adapter.calls[0][2]["channelData"]) is dict


@pytest.mark.case("C05")
async def test_a_native_payload_that_nobody_can_show_is_refused(wild: Gateway) -> None:
    over(wild, Words())
    kernel = await wild.start()
    with pytest.raises(ContractError, match="send_payload"):
        await kernel.enqueue(route(), Native({"channelData": {"x": 1}}))


async def test_a_file_without_a_way_to_send_it_ends_as_refused(wild: Gateway) -> None:
    over(wild, adapter := Words())
    kernel = await wild.start()
    done = await kernel.enqueue(route(), "words", File(data=b"x", name="a.pdf"))
    assert await ended(kernel, done.entry_id) is Phase.FAILED
    assert entry(kernel, done.entry_id).reason == "partial"
    assert adapter.calls == [("text", "42", "words")]


# --- claims ---


class Claims(Words):
    supports = ("text", "document")


class Odd:
    def send_text(self, to): ...


@pytest.mark.case("L02")
@pytest.mark.parametrize(
    ("adapter", "claims", "says"),
    [
        (Words(), ("media",), "claims media but has no send_media"),
        (Words(), {"payload": True}, "claims payload but has no send_payload"),
        (Words(), ("polls",), "none of text, media"),
        (Claims(), None, "claims document but has no send_document"),
        (Words, None, "is a class"),
        (object(), None, "has no send_text"),
        (Odd(), None, "cannot be called"),
        (SimpleNamespace(send_text="no"), None, "has no send_text"),
    ],
)
def test_a_claim_without_its_method_is_an_error_before_anything_is_attached(
    adapter, claims, says: str
) -> None:
    with pytest.raises(ContractError, match=says):
        FirstContract(adapter, claims=claims)


@pytest.mark.case("L02")
def test_a_claim_that_is_denied_needs_no_method() -> None:
    assert FirstContract(Words(), claims={"text": True, "media": False}).plan(
        Text("x"), route(), Kind.FINAL, SimpleNamespace()
    )


# --- answers ---


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (False, FailureClass.INVALID_PAYLOAD),
        ({"ok": False, "error": "no"}, FailureClass.INVALID_PAYLOAD),
        ({"ok": False, "message_id": "7"}, FailureClass.INVALID_PAYLOAD),
        (SimpleNamespace(success=False, message_id="7"), FailureClass.INVALID_PAYLOAD),
        ({"delivered": False, "retryable": True}, FailureClass.TRANSIENT),
        ({"ok": False, "retry_after_ms": 900}, FailureClass.RATE_LIMITED),
    ],
)
@pytest.mark.case("L05", "V13")
async def test_an_answer_that_says_no_is_a_failure(answer, failure) -> None:
    assert (await _sent(Words(answer))).failure is failure


async def _sent(adapter: object, **more: object):
    channel = FirstContract(adapter, **more)
    part = SimpleNamespace(payload=Text("x"), route=route(thread="7"))
    return await channel.send(part, "k", SimpleNamespace())


@pytest.mark.case("L08")
@pytest.mark.parametrize(
    ("answer", "ids"),
    [
        (None, ()),
        (True, ()),
        ("m1", ("m1",)),
        (12, ("12",)),
        ({"ok": True, "message_id": 12}, ("12",)),
        ({"messageId": "a", "chat": "42"}, ("a",)),
        ({"ids": [1, "b"]}, ("1", "b")),
        (SimpleNamespace(ts="1.2"), ("1.2",)),
        ([{"id": 1}, {"id": 2}], ("1", "2")),
        ({"message_id": "42"}, ()),
        ({"id": 7}, ()),
        ({"message_id": True}, ()),
        (object(), ()),
    ],
)
async def test_ids_become_texts_and_a_place_is_no_id(answer, ids) -> None:
    assert await _sent(Words(answer)) == Accepted(receipt=Receipt(ids=ids))


@pytest.mark.case("L05")
async def test_with_ids_an_answer_without_one_is_no_acceptance(wild: Gateway) -> None:
    over(wild, Words(), ids=True)
    kernel = await wild.start()
    done = await kernel.enqueue(route(), "hello")
    await wild.advance(10_000)
    assert await ended(kernel, done.entry_id) is Phase.PARKED
    (channel,) = await kernel.inspect.channels()
    assert channel.ids is True


async def test_an_outcome_of_turnfold_is_taken_as_it_is() -> None:
    said = Unknown(cause="cut")
    assert await _sent(Words(said)) is said


async def test_what_an_exception_means_is_for_classify_to_say(wild: Gateway) -> None:
    def classify(exc):
        if isinstance(exc, SaidNoError):
            return Rejected(failure=FailureClass.PERMISSION, detail=str(exc.answer))
        if isinstance(exc, ConnectionRefusedError):
            return Rejected(failure=FailureClass.NOT_CONNECTED)
        return None

    adapter = Words({"ok": False}, ConnectionRefusedError(), TimeoutError())
    over(wild, adapter, classify=classify)
    kernel = await wild.start()
    no = await kernel.enqueue(route("1"), "a")
    assert await ended(kernel, no.entry_id) is Phase.FAILED
    assert entry(kernel, no.entry_id).failure is FailureClass.PERMISSION
    unsent = await kernel.enqueue(route("2"), "b")
    await until(lambda: entry(kernel, unsent.entry_id).failure)
    assert entry(kernel, unsent.entry_id).failure is FailureClass.NOT_CONNECTED
    await wild.advance(20_000)
    await until(lambda: entry(kernel, unsent.entry_id).phase is not Phase.QUEUED)
    assert await ended(kernel, unsent.entry_id) is Phase.PARKED  # nobody knows


# --- what a method is given ---


async def test_each_method_is_given_what_it_takes_and_no_more(wild: Gateway) -> None:
    seen: list[object] = []

    class Picky:
        def send_text(self, to, text, thread=None, *, reply_to=None):
            seen.append((to, text, thread, reply_to))

        def send_document(self, to, path, **facts):
            seen.append(sorted(facts))

    over(wild, Picky())
    kernel = await wild.start()
    to = Route(channel="t", conversation="42", thread="7", reply_to="9")
    done = await kernel.enqueue(to, "x", File(data=b"x", name="a.png"))
    assert await ended(kernel, done.entry_id) is Phase.DELIVERED
    names = ["account", "key", "mime", "name", "reply_to", "thread"]
    assert seen == [("42", "x", "7", "9"), names]


@pytest.mark.parametrize("takes", [True, False])
async def test_a_caption_goes_with_its_file_where_every_way_takes_one(
    wild: Gateway, takes: bool
) -> None:
    seen: list[object] = []

    class Captions(Words):
        async def send_media(self, to, path, *, caption=""):
            seen.append(caption)

    class Half(Captions):
        async def send_document(self, to, path): ...

    over(wild, adapter := Captions() if takes else Half())
    kernel = await wild.start()
    photo = File(data=b"x", name="a.png", caption="look")
    done = await kernel.enqueue(route(), photo)
    assert await ended(kernel, done.entry_id) is Phase.DELIVERED
    assert seen == (["look"] if takes else [""])
    assert adapter.calls == ([] if takes else [("text", "42", "look")])


async def test_the_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "first_contract"))
    import line

    out = io.StringIO()
    await line.main(str(tmp_path / "line.db"), out)
    del sys.modules["line"]
    assert out.getvalue().splitlines() == [
        "to U42: your table is ready",
        "to U42: when? ['7', '8']",
    ]


@pytest.mark.case("C04", "M04")
async def test_an_import_without_a_kind_is_a_final_that_is_split_all_the_same(
    wild: Gateway, tmp_path: Path
) -> None:
    payloads = [
        {"text": "word " * 50, "channelData": {"a": 1}, "mediaUrls": ["u", "v"]}
    ]
    file = tmp_path / "one.json"
    file.write_text(json.dumps({"channel": "t", "to": "42", "payloads": payloads}))
    over(wild, adapter := Media(), limit=100)
    kernel = await wild.start()
    await kernel.import_queue(tmp_path)
    (row,) = await kernel.inspect.list()
    assert row.kind == "final"
    await kernel.resolve(row.id, "not_sent", by="ann")
    await spin()
    assert await ended(kernel, row.id) is Phase.DELIVERED
    assert [c[0] for c in adapter.calls] == ["text"] * 3 + ["media"] * 2
