"""Inbound is evidence: what came stands in the store and reaches the handler as it came."""

import json
from typing import Any

import pytest

from turnfold import Inbound
from turnfold.enums import TurnOutcome
from turnfold.inspect import TurnView
from turnfold_model.testing.faulty_adapters import FaultyStore
from turnfold_model.testing.gateway import Gateway, commits, entry, inbound, turn, until

BODIES: list[Any] = [
    b'{ "lat" : 52.5 }\xff',
    "plain \ud83d",
    {"text": "m2", "location": {"latitude": 52.5}, "id": 2**70},
    [1.5, None, {"deep": ["\ud800"]}],
    2**64,
]


@pytest.fixture
def heard(gateway: Gateway) -> list[Inbound]:
    """What the handler was given."""
    found: list[Inbound] = []

    async def answer(handle: Any) -> None:
        found.append(handle.inbound)
        await handle.silent("not_addressed")

    gateway.handler = answer
    return found


@pytest.mark.case("T02", "T09", "T10")
@pytest.mark.parametrize("posted", [False, True])
@pytest.mark.parametrize("body", BODIES, ids=[type(b).__name__ for b in BODIES])
async def test_what_came_reaches_the_handler_as_it_came(
    gateway: Gateway, heard: list[Inbound], body: Any, *, posted: bool
) -> None:
    kernel = await gateway.start()
    front = await gateway.start(work=False) if posted else kernel
    message = Inbound(
        "t",
        conversation=42,
        message_id=1,
        sender="ann",
        sent_at=1_000,
        revision=3,
        thread=7,
        body=body,
    )
    accepted = await front.accept(message)
    assert await accepted.settled(2_000) is TurnOutcome.SILENT
    assert heard == [message]
    assert type(heard[0].body) is type(body)


@pytest.mark.case("T02", "T06", "T09")
async def test_who_wrote_when_and_what_is_shown(
    gateway: Gateway, heard: list[Inbound]
) -> None:
    kernel = await gateway.start()
    for number, body in enumerate(BODIES):
        message = Inbound(
            "t",
            conversation="42",
            message_id=number,
            sender="ann",
            sent_at=5,
            body=body,
        )
        accepted = await kernel.accept(message)
        view = await kernel.inspect.show(accepted.turn_id)
        assert isinstance(view, TurnView)
        (shown,) = view.inbound
        assert (shown.sender, shown.sent_at) == ("ann", 5)
        assert json.dumps(shown.text).isascii()
        assert (shown.text or "").encode()


@pytest.mark.case("T03")
async def test_an_edit_is_linked_to_the_turn_that_it_changes(lone: Gateway) -> None:
    changed = []

    async def answer(handle: Any) -> None:
        changed.append((handle.inbound.text, handle.changes))
        await handle.silent("not_addressed")

    lone.handler = answer
    kernel = await lone.start()
    first = await kernel.accept(inbound("7", text="v1"))
    second = await kernel.accept(inbound("7", text="v2", event="edit", revision="2"))
    third = await kernel.accept(inbound("7", text="v3", event="edit", revision="3"))
    again = await kernel.accept(inbound("7", text="v3", event="edit", revision="3"))
    assert [t.new for t in (first, second, third, again)] == [True, True, True, False]
    await third.settled(2_000)
    assert changed == [("v1", None), ("v2", first.turn_id), ("v3", first.turn_id)]
    view = await kernel.inspect.show(third.turn_id)
    assert isinstance(view, TurnView)
    assert view.inbound[0].changes == first.turn_id


@pytest.mark.case("T09")
async def test_a_message_without_an_id_is_answered_as_every_other(
    gateway: Gateway,
) -> None:
    async def answer(handle: Any) -> str:
        return f"re: {handle.inbound.text}"

    gateway.handler = answer
    kernel = await gateway.start()
    front = await gateway.start(work=False)
    for number, kernel_ in enumerate((kernel, front, kernel)):
        message = Inbound(
            "t", conversation="42", message_id=None, body=f"tick {number}"
        )
        accepted = await kernel_.accept(message)
        assert accepted.new is not False
        assert await accepted.settled(2_000) is TurnOutcome.REPLIED
    assert gateway.platform.contents == ["re: tick 0", "re: tick 1", "re: tick 2"]


@pytest.mark.case("T09")
async def test_a_dedupe_key_of_the_callers_own(gateway: Gateway) -> None:
    kernel = await gateway.start()
    front = await gateway.start(work=False)

    def due(conversation: str) -> Inbound:
        return Inbound(
            "t", conversation=conversation, message_id=None, key="daily/2026-11-27"
        )

    first = await kernel.accept(due("42"))
    assert first.new
    assert (await kernel.accept(due("42"))).turn_id == first.turn_id
    assert (await front.accept(due("42"))).new is False
    assert commits(kernel)["turn.accepted"] == 1


@pytest.mark.case("T09", "A06")
@pytest.mark.parametrize("fault", ["lost", "landed"])
async def test_a_message_without_an_id_is_taken_once_by_a_commit_of_unknown_fate(
    lone: Gateway, fault: str
) -> None:
    kernel = await lone.start(wrap=FaultyStore)
    kernel.store.fails(fault)  # type: ignore[attr-defined]
    message = Inbound("t", conversation="42", message_id=None)
    accepted = await kernel.accept(message)
    assert accepted.new
    assert commits(kernel)["turn.accepted"] == 1
    assert turn(kernel, accepted.turn_id).message_id == ""


@pytest.mark.case("T09")
async def test_a_notice_to_who_wrote_without_an_id_replies_to_nothing(
    lone: Gateway,
) -> None:
    async def answer(_: Any) -> None:
        msg = "a bug"
        raise ValueError(msg)

    lone.handler = answer
    kernel = await lone.start()
    accepted = await kernel.accept(Inbound("t", conversation="42", message_id=None))
    for _ in range(3):
        await lone.advance(60_000)
    assert await accepted.settled(2_000) is TurnOutcome.FAILED
    await until(lambda: len(lone.platform.contents) == 1)
    notice = entry(kernel, turn(kernel, accepted.turn_id).notice or "")
    assert (notice.conversation, notice.reply_to) == ("42", None)
