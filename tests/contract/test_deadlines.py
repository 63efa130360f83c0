"""Deadlines end waiting, never listening; typed ends of runs; hooks that are async."""

import asyncio
import time
from typing import Any

import pytest
from msgspec.structs import replace

from turnfold import Never, NotNow
from turnfold.enums import BlindPolicy, Phase, TurnPhase
from turnfold.errors import DiskError, InvalidInputError
from turnfold.messages import File, Text
from turnfold.ports.channel import Accepted, Attempt, Part, Receipt
from turnfold.settings import Settings
from turnfold_model.testing.gateway import (
    Gateway,
    driver_of,
    entry,
    inbound,
    route,
    spin,
    story,
    turn,
    until,
)
from turnfold_model.testing.platform import hang, wait_for


@pytest.mark.case("U14", "B06")
@pytest.mark.parametrize("policy", [BlindPolicy.HOLD, BlindPolicy.RESEND])
async def test_a_receipt_after_the_deadline_is_recorded(
    lone: Gateway, policy: BlindPolicy
) -> None:
    """The call ends when it is cancelled. It is not cancelled while it is listened to."""
    lone.settings = Settings(attempt_deadline_ms=150)
    go = asyncio.Event()
    lone.platform.plays(wait_for(go))
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "x", policy=policy)
    await until(lambda: entry(kernel, done.entry_id).doubt)
    assert entry(kernel, done.entry_id).reason == "deadline"
    assert kernel.health()["hung_calls"] == 1
    go.set()
    await until(lambda: entry(kernel, done.entry_id).phase is Phase.DELIVERED)
    assert story(kernel, done.entry_id)[-1] == "late_receipt"
    assert len(lone.platform.calls) == 1
    await until(lambda: not kernel.health()["hung_calls"])


@pytest.mark.case("U14")
async def test_no_blind_resend_while_the_call_is_listened_to(lone: Gateway) -> None:
    lone.settings = Settings(attempt_deadline_ms=100, backoff_base_ms=1)
    lone.platform.plays(hang())
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "x", policy=BlindPolicy.RESEND)
    await until(lambda: entry(kernel, done.entry_id).doubt)
    await lone.advance(50)
    assert len(lone.platform.calls) == 1
    await until(lambda: not kernel.health()["hung_calls"])
    await lone.advance(100)
    await until(lambda: entry(kernel, done.entry_id).phase is Phase.DELIVERED)
    assert len(lone.platform.calls) == 2


@pytest.mark.case("U14", "U15")
async def test_a_slow_platform_is_no_bug_of_its_channel(
    wild: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel listens on after the deadline, and then cancels the call itself."""

    class Slow:
        cut = 0

        async def send(self, part: Part, key: str, attempt: Attempt) -> Accepted:
            try:
                await asyncio.sleep(30)
            finally:
                self.cut += 1
            return Accepted(receipt=Receipt(ids=(key,)))

    slow = Slow()
    wild.settings = Settings(attempt_deadline_ms=30)
    wild.channels = {("t", "default"): slow}
    kernel = await wild.start()
    done = await kernel.enqueue(route(), "x")
    await until(lambda: entry(kernel, done.entry_id).phase is Phase.PARKED)
    await until(lambda: slow.cut and not kernel.health()["hung_calls"])
    await spin()
    assert "t/default" not in kernel.health()["foreign_bugs"]
    assert "raised" not in caplog.text


@pytest.mark.case("U14")
async def test_after_a_stall_of_the_loop_an_answer_is_read_before_it_is_judged(
    wild: Gateway,
) -> None:
    class Answers:
        """Its answer comes through several turns of the loop, as from a socket."""

        async def send(self, part: Part, key: str, attempt: Attempt) -> Accepted:
            answer = asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.01)
            await asyncio.sleep(0)
            time.sleep(0.2)  # noqa: ASYNC251  it stalls the loop on purpose
            await answer
            for _ in range(20):
                await asyncio.sleep(0)
            return Accepted(receipt=Receipt(ids=(key,)))

    wild.settings = Settings(attempt_deadline_ms=50)
    wild.channels = {("t", "default"): Answers()}
    kernel = await wild.start()
    done = await kernel.enqueue(route(), "x")
    await kernel.settled(done.entry_id, 2_000)
    assert "outcome_unknown" not in story(kernel, done.entry_id)
    assert story(kernel, done.entry_id)[-1] == "delivered"


@pytest.mark.case("U01")
async def test_a_run_without_an_end_is_ended_by_its_deadline(
    lone: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    lone.settings = Settings(run_deadline_ms=100, max_runs=1)

    async def answer(handle: Any) -> None:
        if handle.inbound.body["text"] == "hang":
            await asyncio.Event().wait()
        await handle.reply("ok")

    lone.handler = answer
    kernel = await lone.start()
    hangs = await kernel.accept(inbound("1", text="hang"))
    second = await kernel.accept(inbound("2"))
    assert kernel.health()["runs"] == 1
    assert kernel.health()["oldest_run_ms"] >= 0
    assert await hangs.settled(2_000) == "failed"
    assert await second.settled(2_000) == "replied"
    assert "TimeoutError" in caplog.text
    assert kernel.health()["foreign_bugs"]["handler"] == 1


def test_a_run_may_have_no_deadline() -> None:
    assert Settings(run_deadline_ms=None).run_deadline_ms is None
    with pytest.raises(InvalidInputError):
        Settings(run_deadline_ms=-1)


@pytest.mark.case("S06")
async def test_not_now_is_no_failure_and_keeps_its_time(lone: Gateway) -> None:
    lone.settings = Settings(max_runs=2)
    runs: list[int] = []

    async def answer(handle: Any) -> None:
        runs.append(handle.run)
        if len(runs) < 5:
            raise NotNow("overloaded", retry_after_ms=7_000)
        await handle.reply("at last")

    lone.handler = answer
    kernel = await lone.start()
    accepted = await kernel.accept(inbound("1"))
    await until(lambda: turn(kernel, accepted.turn_id).phase is TurnPhase.ACCEPTED)
    await lone.advance(6_900)
    assert len(runs) == 1
    for _ in range(4):
        await lone.advance(7_000)
    assert await accepted.settled(1_000) == "replied"
    assert runs == [1, 2, 3, 4, 5]
    assert story(kernel, accepted.turn_id).count("released") == 4
    assert kernel.health()["foreign_bugs"]["handler"] == 0


async def test_never_ends_a_turn_at_once_and_the_user_is_told(lone: Gateway) -> None:
    runs: list[int] = []

    async def answer(handle: Any) -> None:
        runs.append(handle.run)
        raise Never("this account is closed")

    lone.handler = answer
    kernel = await lone.start()
    accepted = await kernel.accept(inbound("1"))
    assert await accepted.settled(1_000) == "failed"
    assert runs == [1]
    await until(lambda: lone.platform.messages)
    assert "Something went wrong" in lone.platform.contents[0]


def _group(*errors: Exception) -> Exception:
    return ExceptionGroup("of tasks", [ExceptionGroup("inner", errors)])


@pytest.mark.case("S06", "U06")
@pytest.mark.parametrize(
    ("error", "outcome", "runs"),
    [
        (_group(NotNow("a", retry_after_ms=1), NotNow("b")), "replied", 5),
        (_group(NotNow("a"), Never("b")), "failed", 1),
        (_group(Never("b"), ValueError("a bug")), "failed", 2),
        (_group(ValueError("a bug")), "failed", 2),
    ],
    ids=["not now", "never", "never, and a bug", "a bug"],
)
async def test_an_end_that_a_task_group_wraps_is_that_end(
    lone: Gateway, error: Exception, outcome: str, runs: int
) -> None:
    """A TaskGroup wraps what its tasks raise. `NotNow` counted as a failed run."""
    lone.settings = Settings(max_runs=2)
    seen: list[int] = []

    async def answer(handle: Any) -> None:
        seen.append(handle.run)
        if len(seen) < 5:
            raise error
        await handle.reply("at last")

    lone.handler = answer
    kernel = await lone.start()
    accepted = await kernel.accept(inbound("1"))
    for _ in range(6):
        await lone.advance(900_000)
    assert await accepted.settled(1_000) == outcome
    assert len(seen) == runs


@pytest.mark.case("U06", "W02")
async def test_a_store_that_fails_in_a_task_group_costs_no_run(lone: Gateway) -> None:
    seen: list[int] = []

    async def answer(handle: Any) -> None:
        seen.append(handle.run)
        if len(seen) < 5:
            raise _group(DiskError(path=handle.kernel.store.address, problem="full"))
        await handle.reply("at last")

    lone.settings, lone.handler = Settings(max_runs=2), answer
    kernel = await lone.start()
    accepted = await kernel.accept(inbound("1"))
    for _ in range(6):
        await lone.advance(900_000)
    assert await accepted.settled(1_000) == "replied"
    assert kernel.health()["foreign_bugs"]["handler"] == 0


@pytest.mark.case("U04")
async def test_a_text_that_is_returned_is_the_reply(lone: Gateway) -> None:
    async def answer(handle: Any) -> Any:
        number = handle.inbound.message_id
        return {"1": "my answer", "2": Text("another")}.get(
            number, ["one", Text("two")]
        )

    lone.handler = answer
    kernel = await lone.start()
    for number in ("1", "2", "3"):
        accepted = await kernel.accept(inbound(number))
        assert await accepted.settled(1_000) == "replied"
    assert lone.platform.contents == ["my answer", "another", "one", "two"]


@pytest.mark.case("U04")
@pytest.mark.parametrize("given", [None, 7, [], ["one", 7]], ids=repr)
async def test_silence_that_nobody_stated_is_told(
    lone: Gateway, given: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(handle: Any) -> Any:
        return given

    lone.handler = answer
    kernel = await lone.start()
    accepted = await kernel.accept(inbound("1"))
    assert await accepted.settled(1_000) == "silent"
    assert "returned and said nothing" in caplog.text
    assert ("returned a int, which is no reply" in caplog.text) is (given == 7)


async def test_a_hook_may_be_async_and_no_commit_waits_for_it(wild: Gateway) -> None:
    told: list[str] = []
    go = asyncio.Event()
    wild.platform.plays(hang())
    wild.settings = Settings(attempt_deadline_ms=10)
    kernel = await wild.start()

    async def hook(found: Any) -> None:
        await go.wait()
        told.append(found.stream)

    kernel.hooks.on_parked(hook)
    done = await kernel.enqueue(route(), "x")
    await until(lambda: entry(kernel, done.entry_id).phase is Phase.PARKED)
    other = await kernel.enqueue(route("43"), "y")
    await kernel.settled(other.entry_id, 1_000)
    assert not told
    go.set()
    await until(lambda: told)
    assert told == [done.entry_id]


async def test_closing_tells_what_is_still_to_be_told(wild: Gateway) -> None:
    told: list[str] = []
    wild.platform.plays(hang())
    wild.settings = Settings(attempt_deadline_ms=10)
    kernel = await wild.start()

    async def hook(found: Any) -> None:
        await asyncio.sleep(0.02)
        told.append(found.stream)

    for _ in range(3):
        kernel.hooks.on_parked(hook)
    done = await kernel.enqueue(route(), "x")
    await until(lambda: entry(kernel, done.entry_id).phase is Phase.PARKED)
    wild.alive.remove(kernel)
    await kernel.close()
    assert told == [done.entry_id] * 3


@pytest.mark.case("U11")
async def test_a_cancellation_from_outside_ends_a_source(wild: Gateway) -> None:
    ended: list[str] = []

    async def feed(cursor: str | None) -> Any:
        try:
            await asyncio.Event().wait()
            yield None, "1"
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    kernel = await wild.start()
    kernel.source("t", feed)
    await spin()
    wild.alive.remove(kernel)
    await kernel.close()
    assert ended == ["cancelled"]


async def test_two_sources_may_not_have_one_name(lone: Gateway) -> None:
    async def feed(cursor: str | None) -> Any:
        await asyncio.Event().wait()
        yield None, "1"

    kernel = await lone.start()
    kernel.source("t", feed)
    kernel.source("t", feed, account="other")
    with pytest.raises(InvalidInputError, match="t/default already"):
        kernel.source("t", feed)
    assert set(kernel.health()["sources"]) == {"t/default", "t/other"}


async def test_a_file_gets_more_time_than_a_text(lone: Gateway) -> None:
    kernel = await lone.start()
    part = Part(
        entry_id="e",
        index=0,
        count=1,
        kind="file",
        payload=File(data=bytes(320_000), name="x"),
        key="k",
        route=route(),
    )
    sender = driver_of(kernel).sender
    assert sender._deadline_ms(part) == 70_000
    assert sender._deadline_ms(replace(part, payload=Text("x"))) == 60_000


def test_a_wait_of_not_now_is_a_day_at_most() -> None:
    day = 24 * 3_600_000
    assert NotNow(retry_after_ms=day - 1).retry_after_ms == day - 1
    assert NotNow(retry_after_ms=10 * day).retry_after_ms == day
    assert NotNow().retry_after_ms is None


@pytest.mark.case("U04")
async def test_more_payloads_than_one_call_may_have_are_refused_at_once(
    lone: Gateway,
) -> None:
    """A million of them kept the loop for some seconds, to be refused in the end."""
    kernel = await lone.start()
    with pytest.raises(InvalidInputError, match="at most 10,000 in one call") as caught:
        await kernel.enqueue(route(), *["x"] * 10_001)
    assert caught.value.field == "payloads"
