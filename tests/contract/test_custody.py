"""Who has what in hand: a reply that is finished, a card that grows, a message whose
handler failed, an entry on the wire."""

import asyncio
from typing import Any

import pytest

from turnfold import BackPressureError, DeliveryClass, Settings
from turnfold.enums import TurnOutcome
from turnfold_model.testing.gateway import Gateway, entry, inbound, route, spin, until
from turnfold_model.testing.platform import PlatformChannel, wait_for

MINUTE = 60_000


def growing(gateway: Gateway) -> None:
    channel = PlatformChannel(gateway.platform, DeliveryClass.EDITABLE, preview_ms=1)
    gateway.channels = {("t", "default"): channel}


@pytest.mark.case("K05")
async def test_what_comes_later_cannot_touch_a_finished_reply(gateway: Gateway) -> None:
    async def answer(turn: Any) -> None:
        async with turn.live() as live:
            live.append("the answer")

    growing(gateway)
    gateway.handler = answer
    kernel = await gateway.start()
    turn = await kernel.accept(inbound("1"))
    assert await turn.settled(2_000) is TurnOutcome.REPLIED
    assert not (await kernel.abort(turn.turn_id)).aborted
    await kernel.enqueue(route(), "the disk is nearly full")
    await kernel.accept(inbound("2"), busy="supersede")
    kernel = await gateway.restart(kernel)
    await spin()
    assert gateway.platform.contents[0] == "the answer"


@pytest.mark.case("K10")
async def test_a_card_that_grows_belongs_to_its_run_and_ends_with_its_time(
    gateway: Gateway,
) -> None:
    async def answer(turn: Any) -> None:
        async with turn.live(ttl_ms=MINUTE) as live:
            live.append("thinking")
            await asyncio.Event().wait()

    growing(gateway)
    gateway.handler = answer
    gateway.settings = Settings(notices={})
    kernel = await gateway.start()
    turn = await kernel.accept(inbound("1"))
    await until(lambda: gateway.platform.contents == ["thinking"])
    assert list(kernel.health()["growing"]) == [
        f"entry:{turn.turn_id.removeprefix('turn:')}.final"
    ]
    await gateway.advance(MINUTE + 1)
    await until(lambda: not gateway.platform.messages)
    assert kernel.health()["growing"] == {}


@pytest.mark.case("H07")
async def test_a_message_whose_handler_failed_is_not_blocked_and_its_blocks_count(
    gateway: Gateway,
) -> None:
    """Its first run sends a block and fails; the platform brings the message again."""
    runs: list[int] = []

    async def answer(turn: Any) -> None:
        runs.append(turn.run)
        await (await turn.block("half of it")).receipt()
        raise ValueError("a bug")

    gateway.handler = answer
    kernel = await gateway.start()
    first = await kernel.accept(inbound("1"))
    await until(lambda: gateway.platform.contents)
    again = await kernel.accept(inbound("1"))
    assert (again.turn_id, again.new) == (first.turn_id, False)
    assert await first.settled(2_000) is TurnOutcome.PARTIALLY_REPLIED
    assert gateway.platform.contents.count("half of it") == 1


@pytest.mark.case("H07")
async def test_a_redelivery_does_not_end_the_runs_that_are_left(
    gateway: Gateway,
) -> None:
    runs: list[int] = []

    async def answer(turn: Any) -> str:
        runs.append(turn.run)
        if len(runs) == 1:
            raise ValueError("a bug")
        return "the answer"

    gateway.handler = answer
    kernel = await gateway.start()
    first = await kernel.accept(inbound("1"))
    await until(lambda: runs == [1])
    again = await kernel.accept(inbound("1"))
    assert (again.turn_id, again.new) == (first.turn_id, False)
    await gateway.advance(MINUTE)
    assert await first.settled(2_000) is TurnOutcome.REPLIED
    assert gateway.platform.contents == ["the answer"]


@pytest.mark.case("J11")
async def test_a_full_queue_evicts_nothing_that_is_on_the_wire(lone: Gateway) -> None:
    lone.settings = Settings(max_open_entries=1)
    go = asyncio.Event()
    lone.platform.plays(wait_for(go))
    kernel = await lone.start()
    sent = await kernel.enqueue(route(), "on the wire")
    await until(lambda: lone.platform.calls)
    with pytest.raises(BackPressureError):
        await kernel.enqueue(route(), "one too many")
    assert entry(kernel, sent.entry_id).open
    go.set()
    await kernel.settled(sent.entry_id, 1_000)
    assert lone.platform.contents == ["on the wire"]
