"""A turn that its handler leaves open, and that is answered later by its id."""

import asyncio
from typing import Any

import pytest

from turnfold import (
    AlreadyRepliedError,
    InvalidInputError,
    NotFoundError,
    StaleRunError,
    TurnHandle,
)
from turnfold.enums import TurnOutcome, TurnPhase
from turnfold_model.testing.gateway import (
    Gateway,
    inbound,
    route,
    spin,
    story,
    turn,
    until,
)

HOUR = 3_600_000


class Asks:
    """A handler that asks somebody else; other messages are answered at once."""

    def __init__(self) -> None:
        self.runs: list[TurnHandle] = []

    async def __call__(self, handle: TurnHandle) -> str | None:
        self.runs.append(handle)
        if handle.inbound.message_id == "ask":
            await handle.later(HOUR)
            return None
        return "at once"


@pytest.fixture
def asks(gateway: Gateway) -> Asks:
    gateway.handler = handler = Asks()
    return handler


async def _left_open(gateway: Gateway) -> tuple[Any, str]:
    kernel = await gateway.start()
    done = await kernel.accept(inbound("ask"))
    await until(lambda: turn(kernel, done.turn_id).left_open)
    await spin()
    return kernel, done.turn_id


@pytest.mark.parametrize("client", [False, True])
async def test_a_turn_is_answered_by_its_id_once(
    gateway: Gateway, asks: Asks, client: bool
) -> None:
    kernel, name = await _left_open(gateway)
    caller = await gateway.start(work=False) if client else kernel
    sent = await caller.answer(name, "the answer")
    assert (await sent.receipt(5_000)).ids == (gateway.platform.messages[0].id,)
    assert await kernel.settled(name, 2_000) is TurnOutcome.REPLIED
    again = await caller.answer(name, "the answer")
    assert (again.entry_id, again.new) == (sent.entry_id, False)
    with pytest.raises(AlreadyRepliedError):
        await caller.answer(name, "another answer")
    assert gateway.platform.contents == ["the answer"]
    assert len(asks.runs) == 1


async def test_what_is_left_open_holds_nobody_back(
    gateway: Gateway, asks: Asks
) -> None:
    kernel, name = await _left_open(gateway)
    second = await kernel.accept(inbound("2"))
    assert await second.settled(2_000) is TurnOutcome.REPLIED
    assert turn(kernel, name).phase is TurnPhase.RUNNING
    shown = await kernel.inspect.show(name)
    assert "left open" in shown.next.text
    await kernel.answer(name, "late")
    assert await kernel.settled(name, 2_000) is TurnOutcome.REPLIED


@pytest.mark.parametrize("times", [1, 3])
async def test_a_death_does_not_run_it_again(
    gateway: Gateway, asks: Asks, times: int
) -> None:
    kernel, name = await _left_open(gateway)
    for _ in range(times):
        kernel = await gateway.restart(kernel)
        await spin()
    assert len(asks.runs) == 1
    second = await kernel.accept(inbound("2"))
    assert await second.settled(2_000) is TurnOutcome.REPLIED
    await kernel.answer(name, "after it")
    assert await kernel.settled(name, 2_000) is TurnOutcome.REPLIED
    assert gateway.platform.contents == ["at once", "after it"]


@pytest.mark.parametrize("dies", [False, True])
async def test_without_an_answer_it_fails_in_time_and_the_reader_is_told(
    gateway: Gateway, asks: Asks, dies: bool
) -> None:
    kernel, name = await _left_open(gateway)
    if dies:
        kernel = await gateway.restart(kernel)
    await gateway.advance(HOUR - 1_000)
    assert turn(kernel, name).open
    await gateway.advance(2_000)
    assert await kernel.settled(name, 2_000) is TurnOutcome.EXPIRED
    await spin()
    assert "no answer" in gateway.platform.contents[0]
    with pytest.raises(StaleRunError):
        await kernel.answer(name, "too late")
    assert len(asks.runs) == 1


async def test_an_abort_ends_the_wait(gateway: Gateway, asks: Asks) -> None:
    kernel, name = await _left_open(gateway)
    assert (await kernel.abort_lane(route())).stopped == (name,)
    with pytest.raises(StaleRunError):
        await kernel.answer(name, "x")
    assert gateway.platform.contents == []


@pytest.mark.parametrize("how", ["raises", "hangs", "replies", "twice"])
async def test_what_a_handler_does_after_it_changes_nothing(
    gateway: Gateway, how: str
) -> None:
    runs: list[int] = []

    async def answer(handle: TurnHandle) -> str | None:
        runs.append(handle.run)
        await handle.later(HOUR)
        if how == "raises":
            raise RuntimeError("boom")
        if how == "hangs":
            await asyncio.Event().wait()
        if how == "twice":
            await handle.later(5)
        return "after all" if how == "replies" else None

    gateway.handler = answer
    kernel = await gateway.start()
    done = await kernel.accept(inbound("ask"))
    await until(lambda: runs)
    await spin()
    if how == "hangs":
        kernel = await gateway.restart(kernel)
    await gateway.advance(60_000)
    if how == "replies":
        assert await kernel.settled(done.turn_id, 2_000) is TurnOutcome.REPLIED
        assert gateway.platform.contents == ["after all"]
        return
    assert runs == [1]
    assert story(kernel, done.turn_id).count("left_open") == 1
    await kernel.answer(done.turn_id, "x")
    assert await kernel.settled(done.turn_id, 2_000) is TurnOutcome.REPLIED


async def test_only_what_was_left_open_is_answered(gateway: Gateway) -> None:
    go = asyncio.Event()

    async def answer(handle: TurnHandle) -> str:
        with pytest.raises(InvalidInputError):
            await handle.later(0)
        await go.wait()
        return "mine"

    gateway.handler = answer
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    await spin()
    with pytest.raises(StaleRunError):
        await kernel.answer(done.turn_id, "not yours")
    sent = await kernel.enqueue(route("2"), "x")
    with pytest.raises(NotFoundError):
        await kernel.answer(sent.entry_id, "x")
    go.set()
    assert await done.settled(2_000) is TurnOutcome.REPLIED
    assert "mine" in gateway.platform.contents


async def test_a_plain_handler_leaves_a_turn_open(gateway: Gateway) -> None:
    def answer(handle: TurnHandle) -> None:
        handle.blocking.later(HOUR)

    gateway.handler = answer
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    await until(lambda: turn(kernel, done.turn_id).left_open)
    await kernel.answer(done.turn_id, "x")
    assert await kernel.settled(done.turn_id, 2_000) is TurnOutcome.REPLIED


@pytest.mark.case("Z06")
async def test_a_turn_that_nobody_answered_is_told_in_those_words(
    gateway: Gateway, asks: Asks
) -> None:
    """It said that there was an answer whose time was over."""
    kernel, name = await _left_open(gateway)
    await gateway.advance(HOUR + 1_000)
    assert await kernel.settled(name, 2_000) is TurnOutcome.EXPIRED
    verdict = (await kernel.inspect.show(name)).verdict
    assert verdict.startswith("no answer came in the time that its handler had asked")
