"""What becomes of messages and answers around a run: its end, its death, its neighbours."""

import asyncio

import pytest
from attrs import evolve

from turnfold import FailureClass, Settings
from turnfold.api.handle import TurnHandle
from turnfold.enums import Phase, TurnOutcome, TurnPhase
from turnfold.ports.channel import Accepted, Receipt
from turnfold_model.testing.gateway import (
    Gateway,
    entry,
    inbound,
    route,
    spin,
    story,
    turn,
)
from turnfold_model.testing.platform import answers, reject

DAY_MS = 24 * 3_600_000


async def echo(handle: TurnHandle) -> None:
    await handle.reply(f"answer to {handle.inbound.message_id}")


@pytest.mark.case("I08")
async def test_a_failure_after_acceptance_reaches_the_reader_once_over_restarts(
    lone: Gateway,
) -> None:
    async def broken(handle: TurnHandle) -> None:
        raise RuntimeError("boom")

    lone.handler, lone.settings = broken, Settings(max_runs=1)
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    await spin()
    assert turn(kernel, done.turn_id).phase is TurnPhase.FAILED
    kernel = await lone.restart(kernel)
    await kernel.accept(inbound())  # the platform brings it again
    await lone.advance(60_000)
    assert len(lone.platform.messages) == 1


@pytest.mark.case("I09")
async def test_a_run_that_its_deadline_ended_is_told_like_any_failure(
    lone: Gateway,
) -> None:
    async def stuck(handle: TurnHandle) -> None:
        await asyncio.Event().wait()

    lone.handler = stuck
    lone.settings = Settings(max_runs=1, run_deadline_ms=20)
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    await asyncio.wait_for(kernel.settled(done.turn_id), 5)
    await spin()
    assert turn(kernel, done.turn_id).outcome is TurnOutcome.FAILED
    assert len(lone.platform.messages) == 1


@pytest.mark.case("I11")
async def test_a_run_that_takes_long_is_run_once(lone: Gateway) -> None:
    end, runs = asyncio.Event(), []

    async def slow(handle: TurnHandle) -> None:
        runs.append(handle.run)
        await end.wait()
        await handle.reply("at last")

    lone.handler, lone.settings = slow, Settings(run_deadline_ms=None)
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    for _ in range(5):
        await lone.advance(DAY_MS)
    assert turn(kernel, done.turn_id).phase is TurnPhase.RUNNING
    end.set()
    await spin()
    assert runs == [1]
    assert lone.platform.contents == ["at last"]


@pytest.mark.case("I17")
async def test_a_message_after_the_end_of_a_run_becomes_a_turn_of_its_own(
    lone: Gateway,
) -> None:
    lone.handler = echo
    kernel = await lone.start()
    first = await kernel.accept(inbound("1"))
    await spin()
    assert turn(kernel, first.turn_id).phase is TurnPhase.COMPLETED
    second = await kernel.accept(inbound("2"))
    await spin()
    assert second.turn_id != first.turn_id
    assert lone.platform.contents == ["answer to 1", "answer to 2"]


@pytest.mark.case("I20")
async def test_a_count_of_failed_runs_goes_on_after_a_restart(lone: Gateway) -> None:
    async def broken(handle: TurnHandle) -> None:
        raise RuntimeError("boom")

    lone.handler, lone.settings = broken, Settings(max_runs=2)
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    await spin()
    assert turn(kernel, done.turn_id).failed_runs == 1
    kernel = await lone.restart(kernel)
    assert turn(kernel, done.turn_id).failed_runs == 1
    await lone.advance(60_000)
    assert turn(kernel, done.turn_id).phase is TurnPhase.FAILED


@pytest.mark.case("J12")
async def test_a_message_in_the_middle_of_a_run_waits_for_its_end(
    lone: Gateway,
) -> None:
    end = asyncio.Event()

    async def waits(handle: TurnHandle) -> None:
        await end.wait()
        await echo(handle)

    lone.handler = waits
    kernel = await lone.start()
    first = await kernel.accept(inbound("1"))
    await spin()
    second = await kernel.accept(inbound("2"))
    await spin()
    assert turn(kernel, first.turn_id).phase is TurnPhase.RUNNING
    assert turn(kernel, second.turn_id).phase is TurnPhase.ACCEPTED
    end.set()
    await spin()
    assert lone.platform.contents == ["answer to 1", "answer to 2"]


@pytest.mark.case("K09")
async def test_a_block_and_a_final_with_the_same_text_are_two_messages(
    lone: Gateway,
) -> None:
    async def twice(handle: TurnHandle) -> None:
        await handle.block("yes")
        await handle.reply("yes")

    lone.handler = twice
    kernel = await lone.start()
    await kernel.accept(inbound())
    await spin()
    assert lone.platform.contents == ["yes", "yes"]


@pytest.mark.case("I05")
async def test_a_block_that_nobody_can_see_does_not_fail_its_turn(
    lone: Gateway,
) -> None:
    async def blank(handle: TurnHandle) -> None:
        await handle.block(" ")
        await handle.reply("done")

    lone.handler = blank
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    await spin()
    assert turn(kernel, done.turn_id).outcome is TurnOutcome.REPLIED
    assert lone.platform.contents == ["done"]


@pytest.mark.case("B17")
async def test_parts_that_got_the_same_id_are_counted_as_parts(lone: Gateway) -> None:
    kernel = await lone.start()
    same = Accepted(receipt=Receipt(ids=("album",)))
    lone.platform.plays(answers(same, lands=True), answers(same, lands=True))
    done = await kernel.enqueue(route(), "one", "two")
    await spin()
    assert entry(kernel, done.entry_id).phase is Phase.DELIVERED
    assert lone.platform.contents == ["one", "two"]
    lone.platform.messages = [evolve(m, id="album") for m in lone.platform.messages]
    assert story(kernel, done.entry_id).count("attempted") == 2


@pytest.mark.case("D13")
async def test_a_reconnect_wakes_what_waited_for_it(lone: Gateway) -> None:
    kernel = await lone.start()
    lone.platform.plays(reject(FailureClass.NOT_CONNECTED))
    done = await kernel.enqueue(route(), "hi")
    await spin()
    assert entry(kernel, done.entry_id).phase is Phase.QUEUED
    await kernel.connected("t")  # no time passes
    await spin()
    assert entry(kernel, done.entry_id).phase is Phase.DELIVERED


@pytest.mark.case("E06")
async def test_a_prompt_past_its_time_is_never_delivered(lone: Gateway) -> None:
    kernel = await lone.start()
    lone.platform.plays(reject(FailureClass.NOT_CONNECTED))
    done = await kernel.enqueue(route(), "approve?", ttl_ms=10_000)
    await spin()
    await lone.advance(10_001)
    await kernel.connected("t")
    await lone.advance(60_000)
    assert entry(kernel, done.entry_id).phase is Phase.FAILED
    assert lone.platform.messages == []


@pytest.mark.case("F11")
async def test_the_same_key_from_two_producers_at_once_is_one_entry(
    lone: Gateway,
) -> None:
    kernel = await lone.start()
    one, other = await asyncio.gather(
        kernel.enqueue(route(), "hi", key="k"), kernel.enqueue(route(), "hi", key="k")
    )
    await spin()
    assert one.entry_id == other.entry_id
    assert [one.new, other.new].count(True) == 1
    assert lone.platform.contents == ["hi"]
