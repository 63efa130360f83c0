"""A death of a process is evidence against all that was under way, and ends none of it."""

import asyncio
from typing import Any

import pytest

from turnfold import Kernel
from turnfold._state.turn import Turn
from turnfold.enums import TurnOutcome, TurnPhase
from turnfold_model.testing.gateway import (
    Gateway,
    driver_of,
    inbound,
    route,
    spin,
    story,
    turn,
    until,
)
from turnfold_model.testing.platform import hang


async def _stuck(_: Any) -> None:
    await asyncio.Event().wait()


def _running(kernel: Kernel) -> list[Turn]:
    return [turn(kernel, name) for name in driver_of(kernel).book.running()]


async def _die(gateway: Gateway, kernel: Kernel) -> Kernel:
    kernel = await gateway.restart(kernel)
    await gateway.advance(60_000)
    return kernel


@pytest.mark.case("U07", "I01")
async def test_a_turn_that_was_alone_in_three_deaths_waits_for_a_person(
    gateway: Gateway,
) -> None:
    held: list[str] = []
    gateway.handler = _stuck
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    for run in (1, 2, 3):
        assert turn(kernel, done.turn_id).run == run
        assert turn(kernel, done.turn_id).phase is TurnPhase.RUNNING
        kernel = await _die(gateway, kernel)
    now = turn(kernel, done.turn_id)
    assert (now.held, now.reason, now.alone) == (True, "quarantined", 3)
    assert now.failed_runs == 0
    view = await kernel.inspect.show(done.turn_id)
    assert view.next.person
    kernel.hooks.on_held(lambda it: held.append(it.stream))
    kernel = await _die(gateway, kernel)
    assert turn(kernel, done.turn_id).held
    assert not gateway.platform.messages

    async def answer(handle: Any) -> str:
        return "at last"

    gateway.handler = answer
    kernel = await gateway.restart(kernel)
    await kernel.unhold(done.turn_id, by="me")
    assert await kernel.settled(done.turn_id, 2_000) is TurnOutcome.REPLIED


@pytest.mark.case("U07")
async def test_a_crash_loop_with_another_cause_ends_no_turn(gateway: Gateway) -> None:
    gateway.handler = _stuck
    kernel = await gateway.start()
    turns = [
        (await kernel.accept(inbound("1", conversation=f"{n}"))).turn_id
        for n in range(5)
    ]
    kernel = await _die(gateway, kernel)
    assert [turn(kernel, name).alone for name in turns] == [0] * 5
    for _ in range(12):
        kernel = await _die(gateway, kernel)
        ran = [name for name in turns if turn(kernel, name).phase is TurnPhase.RUNNING]
        assert ran or any(turn(kernel, name).alone for name in turns)
    for name in turns:
        now = turn(kernel, name)
        assert now.phase in (TurnPhase.ACCEPTED, TurnPhase.RUNNING)
        assert now.failed_runs == 0
        assert "failed" not in story(kernel, name)


@pytest.mark.case("U07")
async def test_the_one_that_kills_is_found_and_the_others_are_answered(
    gateway: Gateway,
) -> None:
    deadly = asyncio.Event()

    async def handler(handle: Any) -> str:
        if handle.inbound.text == "poison":
            deadly.set()
            await asyncio.Event().wait()
        await asyncio.sleep(0.02)
        return "fine"

    gateway.handler = handler
    kernel = await gateway.start()
    texts = ["a", "b", "poison", "c", "d", "e"]
    turns = {
        text: (await kernel.accept(inbound("1", conversation=text, text=text))).turn_id
        for text in texts
    }
    lives = 0
    while not turn(kernel, turns["poison"]).held:
        await gateway.advance(60_000)
        await spin()
        if deadly.is_set():
            lives += 1
            deadly.clear()
            kernel = await gateway.restart(kernel)
        assert lives < 12, "nobody is found"
    assert turn(kernel, turns["poison"]).alone == 3
    for text in set(texts) - {"poison"}:
        await gateway.advance(2_000)
        assert await kernel.settled(turns[text], 3_000) is TurnOutcome.REPLIED
        assert turn(kernel, turns[text]).alone == 0


@pytest.mark.case("U07")
async def test_half_of_the_suspects_run_at_a_time_and_the_last_one_alone(
    gateway: Gateway,
) -> None:
    gateway.handler = _stuck
    kernel = await gateway.start()
    for number in range(8):
        await kernel.accept(inbound("1", conversation=f"{number}"))
    beside: list[int] = []
    while not (ran := _running(kernel)) or not ran[0].on_trial:
        beside.append(len(ran))
        kernel = await _die(gateway, kernel)
        assert len(beside) < 40, "nobody is tried alone"
    assert beside[:4] == [8, 4, 4, 2]
    assert beside == sorted(beside, reverse=True)
    assert len(ran) == 1
    fresh = await kernel.accept(inbound("1", conversation="new"))
    await spin()
    assert fresh.status is TurnPhase.ACCEPTED
    stop = await kernel.accept(inbound("2", conversation="new", control=True))
    assert stop.status is TurnPhase.RUNNING
    assert len(_running(kernel)) == 2


@pytest.mark.case("U07")
async def test_what_was_sent_at_the_death_was_beside_it(lone: Gateway) -> None:
    lone.handler = _stuck
    lone.platform.plays(hang())
    kernel = await lone.start()
    await kernel.enqueue(route("elsewhere"), "x")
    await until(lambda: lone.platform.calls)
    done = await kernel.accept(inbound())
    kernel = await lone.restart(kernel)
    assert turn(kernel, done.turn_id).deaths == 1
    assert turn(kernel, done.turn_id).alone == 0


@pytest.mark.case("U07")
async def test_nothing_runs_beside_the_last_suspect(lone: Gateway) -> None:
    """Nor does it begin while something runs, however long it has waited."""
    lone.handler = _stuck
    kernel = await lone.start()
    lonely = (await kernel.accept(inbound("1", conversation="a"))).turn_id
    for _ in range(2):
        kernel = await _die(lone, kernel)
    assert turn(kernel, lonely).on_trial
    other = await kernel.accept(inbound("1", conversation="b"))
    assert turn(kernel, other.turn_id).phase is TurnPhase.ACCEPTED
    kernel = await lone.restart(kernel)  # alone for the third time: held
    assert turn(kernel, lonely).held
    await lone.advance(2_000)
    assert turn(kernel, other.turn_id).phase is TurnPhase.RUNNING
