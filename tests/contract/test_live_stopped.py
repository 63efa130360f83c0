"""A live reply that somebody stops: its message says so, and nothing overwrites that."""

import asyncio
from typing import Any

import pytest

from turnfold import Settings
from turnfold.enums import DeliveryClass, FailureClass, TurnOutcome
from turnfold_model.testing.gateway import Gateway, inbound, spin, until
from turnfold_model.testing.platform import PlatformChannel, reject, wait_for

STOPPED = "This answer was stopped."
NEWER = "This answer was stopped for a newer message."


async def _begun(gateway: Gateway, text: str = "half an ans") -> Any:
    """A kernel and a turn whose reply has been seen to grow."""

    async def answer(turn: Any) -> None:
        if turn.inbound.message_id == "1":
            async with turn.live() as live:
                live.append(text)
                await asyncio.Event().wait()
        await turn.reply("the new one")

    channel = PlatformChannel(gateway.platform, DeliveryClass.EDITABLE, preview_ms=1)
    gateway.channels = {("t", "default"): channel}
    gateway.handler = answer
    kernel = await gateway.start()
    turn = await kernel.accept(inbound("1"))
    await until(lambda: gateway.platform.contents == [text])
    return kernel, turn


@pytest.mark.case("J09", "K08")
async def test_an_abort_says_so_in_the_message(gateway: Gateway) -> None:
    kernel, turn = await _begun(gateway)
    assert list(kernel.health()["growing"]) == [
        f"entry:{turn.turn_id.removeprefix('turn:')}.final"
    ]
    assert (await kernel.abort(turn.turn_id)).aborted
    assert await turn.settled(2_000) is TurnOutcome.ABORTED
    await until(lambda: gateway.platform.contents == [STOPPED])
    await spin()
    assert gateway.platform.contents == [STOPPED]
    assert kernel.health()["growing"] == {}


@pytest.mark.case("J09", "K08")
async def test_a_kernel_that_closes_at_once_still_says_so(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """The call is made once, and nothing would show it after the next start."""
    kernel, turn = await _begun(gateway)
    go = asyncio.Event()
    gateway.platform.plays(wait_for(go))
    before = len(gateway.platform.calls)
    await kernel.abort(turn.turn_id)
    await until(lambda: len(gateway.platform.calls) > before)
    closing = asyncio.create_task(kernel.close())
    await spin()
    go.set()
    await closing
    assert gateway.platform.contents == [STOPPED]
    assert not [r for r in caplog.records if r.exc_info]


async def test_a_notice_that_a_close_cuts_off_is_no_bug_of_its_channel(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    kernel, turn = await _begun(gateway)
    gateway.platform.plays(wait_for(asyncio.Event()))
    before = len(gateway.platform.calls)
    await kernel.abort(turn.turn_id)
    await until(lambda: len(gateway.platform.calls) > before)
    await kernel.drain(10)
    assert not [r for r in caplog.records if r.exc_info]


@pytest.mark.case("J10", "K08")
async def test_a_newer_message_says_so_in_the_older_answer(gateway: Gateway) -> None:
    kernel, turn = await _begun(gateway)
    newer = await kernel.accept(inbound("2"), busy="supersede")
    assert await newer.settled(2_000) is TurnOutcome.REPLIED
    assert await turn.settled(2_000) is TurnOutcome.SUPERSEDED
    await until(lambda: gateway.platform.contents == [NEWER, "the new one"])


@pytest.mark.case("K06")
async def test_a_preview_under_way_does_not_overwrite_the_notice(
    gateway: Gateway,
) -> None:
    go = asyncio.Event()
    late = wait_for(go)
    seen: list[Any] = []

    async def answer(turn: Any) -> None:
        async with turn.live() as live:
            seen.append(live)
            live.append("half")
            await asyncio.Event().wait()

    channel = PlatformChannel(gateway.platform, DeliveryClass.EDITABLE, preview_ms=1)
    gateway.channels = {("t", "default"): channel}
    gateway.handler = answer
    kernel = await gateway.start()
    turn = await kernel.accept(inbound("1"))
    await until(lambda: gateway.platform.contents == ["half"])
    gateway.platform.plays(late)
    before = len(gateway.platform.calls)
    seen[0].append(" an answer")
    await until(lambda: len(gateway.platform.calls) > before)
    await kernel.abort(turn.turn_id)
    await spin()
    assert gateway.platform.contents == ["half"]
    go.set()
    await until(lambda: gateway.platform.contents == [STOPPED])
    await spin()
    assert gateway.platform.contents == [STOPPED]


async def test_a_notice_that_is_refused_leaves_nothing_of_the_answer(
    gateway: Gateway,
) -> None:
    kernel, turn = await _begun(gateway)
    gateway.platform.plays(reject(FailureClass.PERMISSION))
    await kernel.abort(turn.turn_id)
    await until(lambda: not gateway.platform.messages)


async def test_without_a_text_for_it_the_message_is_taken_back(
    gateway: Gateway,
) -> None:
    gateway.settings = Settings(notices={})
    kernel, turn = await _begun(gateway)
    await kernel.abort(turn.turn_id)
    await until(lambda: not gateway.platform.messages)
