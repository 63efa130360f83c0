"""Hostile names are refused at the call that brings them, with the field named, and
never by the store in the middle of a commit; odd but lawful ones go all the way."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from turnfold import Kernel
from turnfold._decide.accepting import SourceCursor
from turnfold.errors import InvalidInputError
from turnfold_model.testing.gateway import Gateway, inbound, route, spin

HOSTILE = {
    "NUL": "a\0b",
    "DEL": "a\x7f",
    "C1": "\x85a",
    "line feed": "a\n",
    "surrogate": "a\ud800",
    "empty": "",
    "huge": "x" * 513,
}
LAWFUL = (
    "\u202e\u05e9\u05dc\u05d5\u05dd",  # right to left, with an override
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "e\u0301 and \u00e9",
    "\U0010ffff\ufeff\u2028",
    "'; DROP TABLE log; --/%/..?*",
    "x" * 512,
)
Call = Callable[[Kernel, str], Awaitable[object]]
CALLS: dict[str, Call] = {
    "channel": lambda k, s: k.enqueue(route(channel=s), "x"),
    "conversation": lambda k, s: k.enqueue(route(s), "x"),
    "account": lambda k, s: k.enqueue(route(account=s), "x"),
    "thread": lambda k, s: k.enqueue(route(thread=s), "x"),
    "reply_to": lambda k, s: k.enqueue(route(reply_to=s), "x"),
    "key": lambda k, s: k.enqueue(route(), "x", key=s),
    "message_id": lambda k, s: k.accept(inbound(s)),
    "conversation of a message": lambda k, s: k.accept(inbound("1", s)),
    "event": lambda k, s: k.accept(inbound(event=s)),
    "stream": lambda k, s: k.abort(s),
    "by": lambda k, s: k.abort("entry:x", by=s),
    "entry": lambda k, s: k.redrive(s, by="me"),
    "by of an operator": lambda k, s: k.acknowledge("entry:x", by=s),
    "turn": lambda k, s: k.resubmit(s, by="me"),
    "channel that connects": lambda k, s: k.connected(s),
    "account that disconnects": lambda k, s: k.disconnected("t", account=s),
}


@pytest.fixture
async def kernel(gateway: Gateway) -> Kernel:
    return await gateway.start(work=False)


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("where", CALLS)
async def test_a_hostile_name_is_refused_at_the_call(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, where: str, what: str
) -> None:
    monkeypatch.setattr(kernel.store, "commit", _forbidden)
    monkeypatch.setattr(kernel.store, "post", _forbidden)
    with pytest.raises(InvalidInputError) as caught:
        await CALLS[where](kernel, HOSTILE[what])
    assert caught.value.field == where.partition(" ")[0]


async def _forbidden(_: object) -> None:
    raise AssertionError("a hostile name has reached the store")


@pytest.mark.parametrize("field", ["channel", "account", "value", "name"])
def test_a_hostile_cursor_is_refused_when_it_is_made(field: str) -> None:
    fields = {"channel": "t", "account": "a", "value": "7", "name": "updates"}
    SourceCursor(**fields)
    for text in ("a\0b", "\x9f", "\udfff", "x" * 5000):
        with pytest.raises(InvalidInputError) as caught:
            SourceCursor(**{**fields, field: text})
        assert caught.value.field == field


@pytest.mark.parametrize("text", [HOSTILE["NUL"], HOSTILE["surrogate"], ""])
async def test_a_hostile_key_of_a_handler_fails_its_call_alone(
    gateway: Gateway, text: str
) -> None:
    refused: list[str] = []

    async def handler(turn: Any) -> None:
        for call in (
            lambda: turn.block("x", key=text),
            lambda: turn.tool("x", key=text),
            lambda: turn.silent(text),
            lambda: turn.step(text, spin),
        ):
            with pytest.raises(InvalidInputError) as caught:
                await call()
            refused.append(caught.value.field)
        await turn.reply("fine")

    gateway.handler = handler
    kernel = await gateway.start()
    await (await kernel.accept(inbound())).settled(5_000)
    assert refused == ["key", "key", "reason", "key"]
    assert gateway.platform.contents == ["fine"]


def test_a_channel_and_a_source_have_lawful_names() -> None:
    kernel = Kernel("memory:")
    for text in HOSTILE.values():
        with pytest.raises(InvalidInputError, match="name"):
            kernel.attach(text, object(), on_unknown="hold")
        with pytest.raises(InvalidInputError, match="account"):
            kernel.source("t", lambda _: None, account=text)


@pytest.mark.parametrize("text", LAWFUL)
async def test_an_odd_name_goes_all_the_way(gateway: Gateway, text: str) -> None:
    async def handler(turn: Any) -> None:
        await turn.block("one", key=text)
        await turn.step(text, spin)
        await turn.reply("two")

    gateway.handler = handler
    kernel = await gateway.start()
    cursor = SourceCursor(channel="t", account="default", value=text, name=text)
    message = inbound(text, text, thread=text, event=text)
    first = await kernel.accept(message, cursor=cursor)
    again = await kernel.accept(message, cursor=cursor)
    assert (first.new, again.new, again.turn_id) == (True, False, first.turn_id)
    await first.settled(5_000)
    sent = await kernel.enqueue(route(text, thread=text), "three", key=text)
    known = await kernel.enqueue(route(text, thread=text), "three", key=text)
    assert (known.new, known.entry_id) == (False, sent.entry_id)
    await kernel.settled(sent.entry_id, 5_000)
    assert gateway.platform.contents == ["one", "two", "three"]
