"""What is held back shows: each gate in health, and each lane that stands still."""

import asyncio
from typing import Any

import pytest

from turnfold import FailureClass, Settings
from turnfold_model.testing.gateway import Gateway, route, spin
from turnfold_model.testing.platform import PlatformChannel, hang, reject

AUTH = FailureClass.AUTH


async def _look(kernel: Any) -> None:
    await kernel._stalls.look()  # it looks by itself, once in a while


@pytest.mark.case("S05")
async def test_a_gate_shows_its_reason_its_age_and_how_much_waits(
    lone: Gateway,
) -> None:
    lone.platform.plays(*[reject(AUTH)] * 99)
    kernel = await lone.start()
    for n in range(25):
        await kernel.enqueue(route(f"c{n}"), "hi")
    await spin()
    await lone.advance(600_000)  # one is tried and refused
    await lone.advance(60_000)
    (gate,) = kernel.health()["gates"]
    assert (gate["gate"], gate["reason"]) == ("gate:t/default", "auth")
    assert (gate["age_ms"], gate["behind"]) == (660_000, 25)
    assert gate["until"] - gate["since"] == 600_000
    assert any("gate:t/default is closed: auth" in r for r in kernel.is_well().reasons)


@pytest.mark.case("S05")
@pytest.mark.parametrize(("scope", "behind"), [("conversation", 2), ("route", 1)])
async def test_a_narrow_gate_counts_what_it_holds(
    lone: Gateway, scope: str, behind: int
) -> None:
    limit = FailureClass.RATE_LIMITED
    lone.platform.plays(reject(limit, retry_after_ms=60_000, scope=scope))
    kernel = await lone.start()
    await kernel.enqueue(route("a", thread="1"), "hi")
    await spin()
    lone.platform.plays(*[hang()] * 9)
    await kernel.enqueue(route("a", thread="2"), "hi")
    await kernel.enqueue(route("b"), "hi")
    await spin()
    (gate,) = kernel.health()["gates"]
    assert gate["behind"] == behind


@pytest.mark.case("S13")
async def test_a_lane_that_stands_still_is_told_once_with_its_cause(
    lone: Gateway,
) -> None:
    lone.settings = Settings(stall_ms=1_000_000)
    lone.platform.plays(*[reject(AUTH)] * 99)
    kernel = await lone.start()
    told = []
    kernel.hooks.on_stalled(told.append)
    made = [await kernel.enqueue(route(), f"{n}") for n in range(4)]
    await spin()
    await _look(kernel)
    await lone.advance(999_999)
    await _look(kernel)
    assert (kernel.health()["stalled"], told) == ([], [])
    await lone.advance(1)
    await _look(kernel)
    await _look(kernel)
    await spin()
    (stall,) = kernel.health()["stalled"]
    assert (stall["lane"], stall["entry"]) == ("t/default/42/", made[0].entry_id)
    assert (stall["behind"], stall["since_ms"]) == (3, 1_000_000)
    assert stall["cause"] == "gate:t/default is closed: auth"
    assert [entry.stream for entry in told] == [made[0].entry_id]
    assert any("stands still" in reason for reason in kernel.is_well().reasons)


@pytest.mark.case("S13")
async def test_a_lane_that_moves_or_waits_for_a_date_does_not_stand_still(
    lone: Gateway,
) -> None:
    lone.settings = Settings(stall_ms=1_000_000)
    kernel = await lone.start()
    later = lone.clock.wall_now() + 5_000_000
    await kernel.enqueue(route("later"), "hi", not_before=later)
    await kernel.hold_back("t/default", by="ann")  # until a person opens it
    for n in range(4):
        await kernel.enqueue(route(), f"{n}", ttl_ms=900_000 * (n + 1))
    for _ in range(3):
        await _look(kernel)
        await lone.advance(900_000)  # the first of the lane expires each time
    await _look(kernel)
    assert kernel.health()["stalled"] == []


async def test_lanes_are_looked_at_by_themselves(lone: Gateway) -> None:
    lone.settings = Settings(stall_ms=1)
    lone.channels = {("t", "default"): PlatformChannel(lone.platform)}
    kernel = await lone.start()
    told = []
    kernel.hooks.on_stalled(told.append)
    await kernel.disconnected("t")
    await kernel.enqueue(route(), "hi")
    async with asyncio.timeout(5):
        while not told:
            await lone.advance(10)
            await asyncio.sleep(0.01)
