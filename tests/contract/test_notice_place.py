"""A notice stands directly behind the entry that it tells of (INV-8)."""

from asyncio import Event
from typing import Any

import pytest

from turnfold import FailureClass, Never, Settings
from turnfold.enums import BlindPolicy
from turnfold.notices import DEFAULTS
from turnfold_model.testing.gateway import Gateway, entry, inbound, spin, turn
from turnfold_model.testing.platform import Act, accept, reject, unknown, wait_for

OFFLINE, REFUSED = FailureClass.NOT_CONNECTED, FailureClass.INVALID_PAYLOAD
UNDELIVERED, INTERRUPTED = DEFAULTS["undeliverable"], DEFAULTS["interrupted"]
MINUTE = 60_000


async def answered(gateway: Gateway, *acts: Act) -> list[str]:
    """Three turns of one conversation have answers. Returns the names of the entries."""

    async def handler(handle: Any) -> None:
        number = handle.inbound.message_id
        await handle.reply(*([number] if number != "2" else ["2a", "2b"]))

    gateway.handler = handler
    gateway.settings = Settings(probe_ms=MINUTE)
    gateway.platform.plays(*acts)
    kernel = await gateway.start()
    names = []
    for number in ("1", "2", "3"):
        done = await kernel.accept(inbound(number))
        await spin()
        names.append(turn(kernel, done.turn_id).finals[0])
    return names


@pytest.mark.case("V03")
async def test_a_refusal_is_told_before_the_next_answer(lone: Gateway) -> None:
    await answered(lone, reject(OFFLINE), reject(REFUSED))
    await lone.advance(MINUTE)
    await spin()
    assert lone.platform.contents == [UNDELIVERED, "2a", "2b", "3"]


@pytest.mark.case("V03")
async def test_a_hold_is_told_before_the_next_answer(lone: Gateway) -> None:
    await answered(lone, reject(OFFLINE), unknown())
    await lone.advance(MINUTE)
    await spin()
    assert lone.platform.contents == [INTERRUPTED, "2a", "2b", "3"]


@pytest.mark.case("V03")
async def test_an_answer_that_is_given_up_in_doubt_is_told(lone: Gateway) -> None:
    """Not a single part of it is known to be there. The policy gives it up at once, so
    it was never parked, and no hold was told."""
    lone.on_unknown = BlindPolicy.DROP
    first, *_ = await answered(lone, reject(OFFLINE), unknown())
    await lone.advance(MINUTE)
    await spin()
    assert lone.platform.contents == [INTERRUPTED, "2a", "2b", "3"]
    (kernel,) = lone.alive
    assert entry(kernel, first).reason == "outcome_unknown"


@pytest.mark.case("V03", "V15")
async def test_what_the_reader_stopped_in_doubt_is_not_told(lone: Gateway) -> None:
    first, *_ = await answered(lone, reject(OFFLINE), wait_for(forever := Event()))
    (kernel,) = lone.alive
    await lone.advance(MINUTE)
    await spin()
    await kernel.abort(first.rpartition(".")[0].replace("entry:", "turn:"), by="me")
    lone.on_unknown = BlindPolicy.HOLD
    await lone.restart(kernel)
    forever.set()
    await lone.advance(MINUTE)
    await spin()
    assert lone.platform.contents == ["2a", "2b", "3"]


@pytest.mark.parametrize("dies", [False, True])
async def test_a_notice_that_waits_keeps_its_place(lone: Gateway, dies: bool) -> None:
    """Also for a worker that knows no more of it than its row."""
    await answered(lone, reject(OFFLINE), reject(REFUSED), reject(OFFLINE))
    await lone.advance(MINUTE)
    if dies:
        await lone.restart(lone.alive[0])
    await lone.advance(MINUTE)
    await spin()
    assert lone.platform.contents == [UNDELIVERED, "2a", "2b", "3"]


@pytest.mark.case("V05")
async def test_a_bounce_is_told_before_the_next_answer(lone: Gateway) -> None:
    first, _, _ = await answered(lone, accept(), reject(OFFLINE))
    (kernel,) = lone.alive
    await kernel.bounced(first)
    await lone.advance(MINUTE)
    await spin()
    assert lone.platform.contents == ["1", UNDELIVERED, "2a", "2b", "3"]


@pytest.mark.case("V05")
async def test_a_notice_cuts_no_answer_in_two(lone: Gateway) -> None:
    first, _, _ = await answered(lone, accept(), accept(), reject(OFFLINE))
    (kernel,) = lone.alive
    await kernel.bounced(first)
    await lone.advance(MINUTE)
    await spin()
    assert lone.platform.contents == ["1", "2a", "2b", UNDELIVERED, "3"]


async def test_a_notice_of_a_later_turn_stays_behind_earlier_answers(
    lone: Gateway,
) -> None:
    """It tells of no entry: its turn has failed before it had an answer."""
    names: list[str] = []

    async def handler(handle: Any) -> str:
        names.append(handle.inbound.message_id)
        if names[-1] == "2":
            raise Never("no")
        return names[-1]

    lone.handler = handler
    lone.settings = Settings(probe_ms=MINUTE)
    lone.platform.plays(reject(OFFLINE))
    kernel = await lone.start()
    for number in ("1", "2", "3"):
        await kernel.accept(inbound(number))
        await spin()
    await lone.advance(MINUTE)
    await spin()
    assert lone.platform.contents == ["1", DEFAULTS["runs_exhausted"], "3"]


async def test_inspect_shows_the_lane_in_the_order_of_sending(lone: Gateway) -> None:
    _, second, _ = await answered(
        lone, reject(OFFLINE), reject(REFUSED), reject(OFFLINE)
    )
    await lone.advance(MINUTE)
    (kernel,) = lone.alive
    view = await kernel.inspect.show(second)
    assert ".notice.undeliverable" in view.next.text
