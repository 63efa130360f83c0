"""What operators do by hand: redrive, resolve, resubmit, reschedule."""

import pytest

from turnfold import FailureClass, Settings
from turnfold._decide.outcomes import settle
from turnfold.enums import Phase, TurnOutcome, TurnPhase
from turnfold.errors import (
    IllegalTransitionError,
    InvalidInputError,
    RuleBrokenError,
)
from turnfold.ports.channel import Accepted, Receipt
from turnfold_model.testing.gateway import (
    Gateway,
    entry,
    inbound,
    peek,
    route,
    spin,
    turn,
    until,
)
from turnfold_model.testing.platform import (
    reject,
    unknown,
)

PERMISSION, CANCELLED = FailureClass.PERMISSION, FailureClass.CANCELLED


@pytest.mark.case("N02")
async def test_a_dead_letter_is_redriven_and_amends_its_turn(gateway: Gateway) -> None:
    async def answer(handle) -> None:
        await handle.reply("a")

    gateway.handler = answer
    gateway.platform.plays(reject(PERMISSION))
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    assert await done.settled(1000) is TurnOutcome.FAILED
    final = turn(kernel, done.turn_id).finals[0]
    await kernel.acknowledge(final, by="op")
    await kernel.redrive(final, by="op")
    await kernel.settled(final, 1000)
    assert turn(kernel, done.turn_id).outcome is TurnOutcome.REPLIED
    with pytest.raises(IllegalTransitionError):
        await kernel.redrive(final, by="op")


async def test_a_doubtful_dead_letter_is_redriven_only_by_name(lone: Gateway) -> None:
    lone.platform.plays(unknown())
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "1", policy="drop")
    await spin()
    await lone.advance(1_000)
    with pytest.raises(RuleBrokenError, match="accept_duplicate"):
        await kernel.redrive(done.entry_id, by="op")
    await kernel.redrive(done.entry_id, by="op", accept_duplicate=True)
    await kernel.settled(done.entry_id, 1000)


async def test_a_dead_letter_whose_doubt_is_over_still_needs_the_word(
    lone: Gateway,
) -> None:
    """It failed as unknown; the receipt of the part in doubt says nothing of the rest."""
    lone.platform.plays(unknown(lands=True))
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "1", "2", policy="drop")
    await spin()
    await lone.advance(1_000)
    late = Accepted(receipt=Receipt(ids=("m1",)))
    await kernel.append(lambda draft: settle(draft, done.entry_id, 0, 1, late))
    found = entry(kernel, done.entry_id)
    assert (found.phase, found.reason, found.doubtful) == (
        Phase.FAILED,
        "outcome_unknown",
        False,
    )
    with pytest.raises(RuleBrokenError, match="accept_duplicate"):
        await kernel.redrive(done.entry_id, by="op")


@pytest.mark.case("X11")
@pytest.mark.parametrize(
    ("verdict", "phase", "calls"),
    [
        ("delivered", Phase.DELIVERED, 1),
        ("not_sent", Phase.DELIVERED, 2),
        ("resend", Phase.DELIVERED, 2),
        ("give_up", Phase.FAILED, 1),
    ],
)
async def test_a_person_ends_a_doubt_even_when_the_budget_is_spent(
    gateway: Gateway, verdict: str, phase: Phase, calls: int
) -> None:
    gateway.settings = Settings(max_failures=1)
    gateway.platform.plays(unknown())
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), "1")
    await spin()
    await gateway.advance(1_000)
    await kernel.resolve(done.entry_id, verdict, by="op", why="asked them")
    await spin()
    told = [event.text for event in (await kernel.inspect.show(done.entry_id)).happened]
    assert any("by op" in text and "asked them" in text for text in told), told
    assert entry(kernel, done.entry_id).phase is phase
    assert len(gateway.platform.calls) == calls


@pytest.mark.case("H14")
async def test_a_failed_turn_is_resubmitted_once(lone: Gateway) -> None:
    async def answer(handle) -> None:
        if handle.run == 1:
            await handle.block("beginning")
            await spin()
            raise RuntimeError("boom")
        await handle.reply("answer")

    lone.handler = answer
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    assert await done.settled(1000) is TurnOutcome.PARTIALLY_REPLIED
    await kernel.resubmit(done.turn_id, by="op")
    assert await done.settled(1000) is TurnOutcome.REPLIED
    with pytest.raises((RuleBrokenError, IllegalTransitionError)):
        await kernel.resubmit(done.turn_id, by="op")


async def test_a_turn_that_fails_again_is_not_resubmitted_again(lone: Gateway) -> None:
    async def answer(handle) -> None:
        raise RuntimeError("boom")

    lone.handler, lone.settings = answer, Settings(max_runs=1)
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    assert await done.settled(1000) is TurnOutcome.FAILED
    await kernel.resubmit(done.turn_id, by="op")
    await until(lambda: turn(kernel, done.turn_id).phase is TurnPhase.FAILED)
    with pytest.raises(RuleBrokenError, match="resubmit_once"):
        await kernel.resubmit(done.turn_id, by="op")


async def test_a_turn_whose_answer_is_owned_is_not_resubmitted(lone: Gateway) -> None:
    async def answer(handle) -> None:
        await handle.reply("a")

    lone.handler = answer
    lone.platform.plays(reject(PERMISSION))
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    await done.settled(1000)
    with pytest.raises(RuleBrokenError, match="redrive"):
        await kernel.resubmit(done.turn_id, by="op")


@pytest.mark.parametrize("bad", [None, 5, "\ud800"])
async def test_operators_must_say_who_they_are(lone: Gateway, bad: object) -> None:
    lone.platform.plays(unknown())
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "1")
    await spin()
    await lone.advance(1_000)
    calls = (
        kernel.resolve(done.entry_id, "give_up", by="op", why=bad),
        kernel.resolve(done.entry_id, "resend", by=bad),
        kernel.bounced(done.entry_id, detail=bad),
        kernel.reschedule(done.entry_id, bad, by="op"),
    )
    before = peek(kernel).head
    for call in calls:
        with pytest.raises((InvalidInputError, IllegalTransitionError)):
            await call
    assert peek(kernel).head == before


async def test_rescheduling_brings_a_retry_forward(lone: Gateway) -> None:
    lone.platform.plays(*[reject(CANCELLED)] * 5)
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "1")
    await lone.advance(15_000)
    before = len(lone.platform.calls)
    await kernel.reschedule(done.entry_id, 0, by="op")
    await spin()
    assert len(lone.platform.calls) == before + 1
