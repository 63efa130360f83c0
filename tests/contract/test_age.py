"""Yesterday's question is not answered as if it were fresh."""

from typing import Any

import attrs
import pytest

from turnfold import InvalidInputError, Settings
from turnfold.enums import TurnOutcome, TurnPhase
from turnfold_model.testing.clock import FakeClock
from turnfold_model.testing.gateway import (
    Gateway,
    commits,
    entry,
    inbound,
    route,
    spin,
    turn,
    until,
)

HOUR = 3_600_000


@pytest.mark.case("T06")
async def test_a_message_too_old_to_be_run_expires_and_its_sender_is_told(
    gateway: Gateway,
) -> None:
    ran: list[str] = []

    async def answer(handle: Any) -> str:
        ran.append(handle.inbound.text)
        return "good morning"

    kernel = await gateway.start()  # no handler yet
    old = await kernel.accept(inbound("1", text="old"))
    gateway.settings = attrs.evolve(gateway.settings, max_turn_age_ms=24 * HOUR)
    gateway.handler = answer
    await gateway.crash(kernel)
    gateway.clock.pass_ms(50 * HOUR)
    kernel = await gateway.start()
    assert await kernel.settled(old.turn_id, 2_000) is TurnOutcome.EXPIRED
    await until(lambda: len(gateway.platform.contents) == 1)
    assert "too late" in gateway.platform.contents[0]
    fresh = await kernel.accept(inbound("2", text="fresh"))
    assert await fresh.settled(2_000) is TurnOutcome.REPLIED
    assert ran == ["fresh"]
    await kernel.resubmit(old.turn_id, by="me")
    await until(lambda: ran == ["fresh", "old"])


@pytest.mark.case("T06")
async def test_a_message_that_was_sent_long_ago_is_old_when_it_comes(
    lone: Gateway,
) -> None:
    async def answer(handle: Any) -> str:
        return "good morning"

    lone.handler = answer
    lone.settings = attrs.evolve(lone.settings, max_turn_age_ms=HOUR)
    kernel = await lone.start()
    sent = lone.clock.wall_now() - 2 * HOUR
    done = await kernel.accept(inbound("1", sent_at=sent))
    assert await done.settled(2_000) is TurnOutcome.EXPIRED
    assert commits(kernel)["turn.started"] == 0


@pytest.mark.case("T06")
async def test_a_message_that_lay_in_the_inbox_is_as_old_as_its_wait(
    gateway: Gateway,
) -> None:
    ages: list[tuple[int | None, int]] = []

    async def answer(handle: Any) -> str:
        ages.append((await handle.age_ms(), handle.accepted_at))
        return "good morning"

    began = gateway.clock.wall_now()
    front = await gateway.start(work=False)  # nobody works for two days
    old = await front.accept(inbound("1", text="old"))
    newer = await front.accept(inbound("2", conversation="43"), busy="supersede")
    await gateway.crash(front)
    gateway.clock.pass_ms(50 * HOUR)
    gateway.settings = attrs.evolve(gateway.settings, max_turn_age_ms=51 * HOUR)
    gateway.handler = answer
    kernel = await gateway.start()
    assert await kernel.settled(old.turn_id, 2_000) is TurnOutcome.REPLIED
    assert await kernel.settled(newer.turn_id, 2_000) is TurnOutcome.REPLIED
    for age, accepted_at in ages:
        assert age is not None
        assert 50 * HOUR <= age < 51 * HOUR
        assert 0 <= accepted_at - began < HOUR
    assert len(ages) == 2


@pytest.mark.case("T06", "R05")
@pytest.mark.parametrize("rebooted", [False, True])
async def test_the_wait_in_the_inbox_is_known_under_one_boot_without_a_trusted_clock(
    gateway: Gateway, rebooted: bool
) -> None:
    """Nobody vouches for the wall clock. The boot-time clock of the same boot knows the
    wait; after another boot nothing does."""
    seen: list[int] = []

    async def answer(handle: Any) -> str:
        seen.append(handle.accepted_at)
        return "good morning"

    gateway.clock = clock = FakeClock(synchronised=None)
    began = clock.wall_now()
    front = await gateway.start(work=False)
    old = await front.accept(inbound("1", text="old"))
    sent = await front.enqueue(route("7"), "old, too")
    await gateway.crash(front)
    clock.pass_ms(50 * HOUR)
    boot = "another" if rebooted else clock.boot
    gateway.clock = FakeClock(clock.wall, clock.mono, boot=boot, synchronised=None)
    gateway.handler = answer
    kernel = await gateway.start()
    assert not kernel.health()["time"]["wall_trusted"]
    assert await kernel.settled(old.turn_id, 2_000) is TurnOutcome.REPLIED
    (accepted_at,) = seen
    waited = 0 if rebooted else 50 * HOUR
    assert abs(gateway.clock.wall_now() - waited - accepted_at) < HOUR
    assert rebooted or abs(accepted_at - began) < HOUR
    if not rebooted:
        row = entry(kernel, sent.entry_id)
        assert row.expires_at - gateway.clock.now() < 0, "it may live for 24 h"


@pytest.mark.case("T06")
async def test_a_message_that_lay_in_the_inbox_may_be_too_old_to_be_run(
    gateway: Gateway,
) -> None:
    async def answer(handle: Any) -> str:
        return "good morning"

    gateway.handler = answer
    gateway.settings = attrs.evolve(gateway.settings, max_turn_age_ms=24 * HOUR)
    front = await gateway.start(work=False)
    old = await front.accept(inbound("1", text="old"))
    await gateway.crash(front)
    gateway.clock.pass_ms(50 * HOUR)
    kernel = await gateway.start()
    assert await kernel.settled(old.turn_id, 2_000) is TurnOutcome.EXPIRED
    await until(lambda: len(gateway.platform.contents) == 1)
    assert "too late" in gateway.platform.contents[0]


@pytest.mark.case("T06")
async def test_without_a_limit_a_handler_knows_the_age(lone: Gateway) -> None:
    ages: list[int | None] = []

    async def answer(handle: Any) -> str:
        ages.append(await handle.age_ms())
        assert abs(handle.accepted_at - lone.clock.wall_now()) < HOUR
        return "good morning"

    lone.handler = answer
    kernel = await lone.start()
    sent = lone.clock.wall_now() - 2 * HOUR
    done = await kernel.accept(inbound("1", sent_at=sent))
    assert await done.settled(2_000) is TurnOutcome.REPLIED
    await spin()
    assert ages[0] is not None
    assert 2 * HOUR <= ages[0] < 3 * HOUR
    assert turn(kernel, done.turn_id).first.sent_at == sent


@pytest.mark.case("T06")
@pytest.mark.parametrize("runs", [True, False])
async def test_a_person_is_asked_about_a_message_that_is_too_old(
    lone: Gateway, runs: bool
) -> None:
    asked: list[str] = []

    async def answer(handle: Any) -> str:
        return "good morning"

    lone.handler = answer
    lone.settings = Settings(max_turn_age_ms=HOUR, old_turns="ask")
    kernel = await lone.start()
    kernel.hooks.on_held(lambda turn: asked.append(turn.stream))
    sent = lone.clock.wall_now() - 2 * HOUR
    old = await kernel.accept(inbound("1", sent_at=sent))
    fresh = await kernel.accept(inbound("2"))
    assert await fresh.settled(2_000) is TurnOutcome.REPLIED  # it waits for nobody
    held = turn(kernel, old.turn_id)
    assert (held.phase, held.held, held.reason) == (
        TurnPhase.ACCEPTED,
        True,
        "too_old",
    )
    await until(lambda: asked == [old.turn_id])
    if runs:
        await kernel.unhold(old.turn_id, by="me")
        assert await old.settled(2_000) is TurnOutcome.REPLIED
    else:
        await kernel.abort(old.turn_id, by="me")
        assert await old.settled(2_000) is TurnOutcome.ABORTED
    assert commits(kernel)["turn.held"] == 1


def test_a_policy_for_old_turns_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="old_turns"):
        Settings(old_turns="forget")  # type: ignore[arg-type]  # that is the fault
