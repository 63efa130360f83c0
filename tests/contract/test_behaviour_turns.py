"""Runs, aborts, shutdown: what becomes of a turn when things stop half way."""

import asyncio
from collections import defaultdict

import pytest

from turnfold import FailureClass, Settings
from turnfold._decide.schedule import attempt
from turnfold.enums import Phase, TurnOutcome, TurnPhase
from turnfold.errors import (
    AlreadyRepliedError,
    BackPressureError,
    NotOpenError,
    NotYetError,
    RuleBrokenError,
    StaleRunError,
    StepInDoubtError,
)
from turnfold_model.testing.gateway import (
    Gateway,
    commits,
    driver_of,
    entry,
    inbound,
    peek,
    route,
    spin,
    story,
    turn,
    until,
)
from turnfold_model.testing.platform import (
    PlatformChannel,
    accept,
    hang,
    reject,
    unknown,
    wait_for,
)

PERMISSION, CANCELLED = FailureClass.PERMISSION, FailureClass.CANCELLED


async def stuck(handle) -> None:
    await asyncio.Event().wait()


# --- runs ---


async def test_a_handler_that_raises_is_limited_and_the_user_told_once(
    lone: Gateway,
) -> None:
    async def broken(handle) -> None:
        raise RuntimeError("boom")

    lone.handler = broken
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    for _ in range(5):
        await lone.advance(60_000)
    assert await done.settled(1000) is TurnOutcome.FAILED
    await spin()
    assert len(lone.platform.messages) == 1
    assert commits(kernel)["turn.started"] == 3


async def test_a_notice_that_fails_causes_no_notice(lone: Gateway) -> None:
    async def broken(handle) -> None:
        raise RuntimeError("boom")

    lone.settings = Settings(max_runs=1)
    lone.handler = broken
    lone.platform.plays(reject(PERMISSION))
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    assert await done.settled(1000) is TurnOutcome.FAILED
    await spin()
    assert len(lone.platform.calls) == 1


@pytest.mark.case("A01", "I12", "I06")
async def test_an_owned_answer_is_never_computed_again(gateway: Gateway) -> None:
    ran: list[int] = []

    async def answer(handle) -> None:
        ran.append(handle.run)
        await handle.reply("answer")

    gateway.handler = answer
    gateway.platform.plays(reject(CANCELLED))
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    await spin()
    kernel = await gateway.restart(kernel)
    await gateway.advance(1_000)
    assert await kernel.settled(done.turn_id, 1000) is TurnOutcome.REPLIED
    assert ran == [1]
    assert gateway.platform.messages[0].conversation == "42"


@pytest.mark.case("I19")
@pytest.mark.parametrize("resume", [False, True])
async def test_what_somebody_has_seen_is_said_again_only_by_who_resumes(
    gateway: Gateway, resume: bool
) -> None:
    previous = []

    async def answer(handle) -> None:
        previous.append([said.delivered_parts for said in await handle.previous()])
        if handle.run > 1:
            await handle.reply("the rest")
            return
        await handle.block("beginning")
        await asyncio.Event().wait()

    gateway.handler, gateway.resume = answer, resume
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    await until(lambda: gateway.platform.messages)
    await spin()
    kernel = await gateway.restart(kernel)
    outcome = await kernel.settled(done.turn_id, 1000)
    await spin()
    if resume:
        assert outcome is TurnOutcome.REPLIED
        assert gateway.platform.contents == ["beginning", "the rest"]
        assert previous == [[], [1]]
    else:
        assert outcome is TurnOutcome.PARTIALLY_REPLIED
        assert "interrupted" in gateway.platform.contents[1]


async def test_a_shutdown_after_something_was_seen_is_no_reason_to_repeat_it(
    gateway: Gateway,
) -> None:
    async def answer(handle) -> None:
        await handle.block("beginning")
        await asyncio.Event().wait()

    gateway.handler = answer
    gateway.settings = Settings(drain_ms=0)
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    await until(lambda: gateway.platform.messages)
    gateway.alive.remove(kernel)
    await kernel.close()
    kernel = await gateway.start()
    outcome = await kernel.settled(done.turn_id, 1000)
    assert outcome is TurnOutcome.PARTIALLY_REPLIED
    await spin()
    assert gateway.platform.contents.count("beginning") == 1


@pytest.mark.parametrize("prepares", [False, True])
async def test_unsent_blocks_of_a_failed_run_are_never_sent(
    gateway: Gateway, prepares: bool
) -> None:
    """Sent after the failure, they would be said again by the next run."""
    channel = PlatformChannel(gateway.platform, prepares=prepares)
    gateway.channels = {("t", "default"): channel}
    slow = hang()
    if prepares:
        gateway.platform.preparing.append(slow)
    else:
        gateway.platform.plays(reject(CANCELLED))

    async def answer(handle) -> None:
        await handle.block("draft")
        await spin(5)
        if handle.run == 1:
            raise RuntimeError("boom")
        await handle.reply("final")

    gateway.handler = answer
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    await spin()
    assert slow.hold
    slow.hold.set()
    await gateway.advance(1_000)
    await gateway.advance(1_000)
    assert await kernel.settled(done.turn_id, 1000) is TurnOutcome.REPLIED
    assert gateway.platform.contents == ["draft", "final"]
    assert turn(kernel, done.turn_id).run == 2


async def test_a_block_queued_when_the_process_died_is_not_sent_by_recovery(
    gateway: Gateway,
) -> None:
    gateway.platform.plays(reject(CANCELLED))

    async def answer(handle) -> None:
        if handle.run > 1:
            await handle.reply("final")
            return
        await handle.block("draft")
        await asyncio.Event().wait()

    gateway.handler = answer
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    await spin()
    gateway.clock.pass_ms(60_000)  # due in the very moment of the restart
    kernel = await gateway.restart(kernel)
    assert await kernel.settled(done.turn_id, 1000) is TurnOutcome.REPLIED
    assert gateway.platform.contents == ["final"]


@pytest.mark.case("K02")
async def test_without_a_reply_the_last_block_is_the_answer(lone: Gateway) -> None:
    async def blocks(handle) -> None:
        await handle.block("1")
        await handle.block("2")

    lone.handler = blocks
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    assert await done.settled(1000) is TurnOutcome.REPLIED


@pytest.mark.case("U03", "U05")
async def test_a_second_reply_is_the_first_one_again_or_refused(
    lone: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    said = []

    async def twice(handle) -> None:
        said.append(await handle.reply("a"))
        await spin()
        said.append(await handle.reply("a"))
        with pytest.raises(AlreadyRepliedError):
            await handle.reply("b")
        said.append("and went on")

    lone.handler = twice
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    await done.settled(1000)
    await spin(200)
    assert [s.new for s in said[:2]] == [True, False]
    assert said[2] == "and went on"  # a delivered reply does not stop its handler
    assert "has its reply" in caplog.text
    assert lone.platform.contents == ["a"]


@pytest.mark.case("I02")
@pytest.mark.parametrize("repeat", [False, True])
async def test_a_step_is_done_once_and_its_doubt_is_told(
    gateway: Gateway, repeat: bool
) -> None:
    calls: list[str] = []
    raised: list[Exception] = []

    async def mail() -> str:
        calls.append("mail")
        return "sent"

    async def pay() -> None:
        calls.append("pay")
        await asyncio.Event().wait()

    async def answer(handle) -> None:
        assert await handle.step("mail", mail) == "sent"
        if handle.run == 1:
            await handle.step("pay", pay)
        try:
            await handle.step("pay", mail, repeat=repeat)
        except StepInDoubtError as exc:
            raised.append(exc)
        await handle.reply("done")

    gateway.handler = answer
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    await until(lambda: "pay" in calls)
    kernel = await gateway.restart(kernel)
    assert await kernel.settled(done.turn_id, 1000) is TurnOutcome.REPLIED
    assert calls == ["mail", "pay", *(["mail"] if repeat else [])]
    assert len(raised) == (0 if repeat else 1)


@pytest.mark.case("G06")
async def test_control_input_takes_no_lane(lone: Gateway) -> None:
    async def answer(handle) -> None:
        if handle.inbound.control:
            await handle.reply("reset")
            return
        await asyncio.Event().wait()

    lone.handler = answer
    kernel = await lone.start()
    await kernel.accept(inbound("1"))
    done = await kernel.accept(inbound("2", control=True))
    assert await done.settled(1000) is TurnOutcome.REPLIED


@pytest.mark.case("U02")
async def test_control_input_needs_no_place_and_what_waits_for_one_does_not_run(
    lone: Gateway,
) -> None:
    async def answer(handle) -> str:
        if not handle.inbound.control:
            await asyncio.Event().wait()
        return "stopped"

    lone.handler = answer
    lone.settings = Settings(concurrent_runs=1)
    kernel = await lone.start()
    await kernel.accept(inbound("1", conversation="a"))
    waits = await kernel.accept(inbound("2", conversation="b"))
    await spin()
    stop = await kernel.accept(inbound("3", conversation="c", control=True))
    assert await stop.settled(1_000) is TurnOutcome.REPLIED
    assert turn(kernel, waits.turn_id).phase is TurnPhase.ACCEPTED
    assert (kernel.health()["runs"], kernel.health()["runs_waiting"]) == (1, 1)


async def test_places_are_given_to_the_oldest_turns_first(lone: Gateway) -> None:
    ran: list[str] = []
    all_are_here = asyncio.Event()

    async def answer(handle) -> str:
        ran.append(handle.inbound.conversation)
        await all_are_here.wait()
        return "x"

    lone.handler = answer
    lone.settings = Settings(concurrent_runs=2)
    kernel = await lone.start()
    accepted = [await kernel.accept(inbound(n, conversation=n)) for n in "123456789"]
    assert ran == ["1", "2"]
    all_are_here.set()
    for done in accepted:
        assert await done.settled(2_000) is TurnOutcome.REPLIED
    assert ran == list("123456789")
    assert kernel.health()["runs_waiting"] == 0


class Ended:
    """A handler whose runs end, without an answer, when the test says so."""

    def __init__(self, gateway: Gateway) -> None:
        self.ran: list[str] = []
        self._end = defaultdict[str, asyncio.Event](asyncio.Event)
        gateway.handler, gateway.settings = self.handle, Settings(concurrent_runs=1)

    async def handle(self, handle) -> None:
        self.ran.append(handle.inbound.conversation)
        await self._end[handle.inbound.conversation].wait()

    async def end(self, conversation: str) -> None:
        self._end[conversation].set()
        await spin()


@pytest.mark.case("U02")
async def test_a_run_of_control_input_takes_no_place_from_a_turn_that_waits(
    lone: Gateway,
) -> None:
    runs = Ended(lone)
    kernel = await lone.start()
    await kernel.accept(inbound("1", conversation="a"))
    await kernel.accept(inbound("2", conversation="b"))
    await kernel.accept(inbound("3", conversation="c", control=True))
    await spin()
    await runs.end("a")
    assert runs.ran == ["a", "c", "b"]


@pytest.mark.case("U02")
async def test_turns_that_were_stopped_while_they_wait_give_their_place_to_others(
    lone: Gateway,
) -> None:
    runs = Ended(lone)
    kernel = await lone.start()
    await kernel.accept(inbound("1", conversation="a"))
    waits = [await kernel.accept(inbound(n, conversation=n)) for n in "234"]
    for done in waits[:2]:
        await kernel.abort(done.turn_id)
    await spin()
    assert kernel.health()["runs_waiting"] == 1
    await runs.end("a")
    assert runs.ran == ["a", "4"]


async def test_back_pressure_refuses_loudly_and_leaves_nothing(lone: Gateway) -> None:
    lone.settings = Settings(max_open_entries=1)
    lone.platform.plays(hang())
    kernel = await lone.start()
    await kernel.enqueue(route(), "1")
    with pytest.raises(BackPressureError):
        await kernel.enqueue(route(), "2")
    assert commits(kernel)["outbox.queued"] == 1


# --- abort and supersede ---


@pytest.mark.case("J01", "J07")
async def test_an_abort_before_any_attempt_holds_for_ever(gateway: Gateway) -> None:
    gateway.platform.plays(reject(FailureClass.NOT_CONNECTED))

    async def answer(handle) -> None:
        await handle.reply("a")

    gateway.handler = answer
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    await spin()
    ended = await kernel.abort(done.turn_id, by="user")
    assert ended.aborted
    kernel = await gateway.restart(kernel)
    await gateway.advance(3_600_000)
    assert len(gateway.platform.calls) == 1
    assert turn(kernel, done.turn_id).outcome is TurnOutcome.ABORTED


@pytest.mark.case("J07", "J09", "J10")
@pytest.mark.parametrize("supersede", [False, True])
async def test_an_abort_stops_the_run_and_its_late_words(
    lone: Gateway, supersede: bool
) -> None:
    late: list[BaseException] = []

    async def stubborn(handle) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as exc:
            late.append(exc)
        for say in (handle.reply, handle.block, handle.tool, handle.silent):
            try:
                await say("late")
            except StaleRunError as exc:
                late.append(exc)

    lone.handler = stubborn
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    await spin()
    stop = kernel.supersede if supersede else kernel.abort
    assert (await stop(done.turn_id)).aborted
    await until(lambda: len(late) == 5)
    outcome = TurnOutcome.SUPERSEDED if supersede else TurnOutcome.ABORTED
    assert turn(kernel, done.turn_id).outcome is outcome
    assert lone.platform.calls == []


async def test_a_run_that_waits_for_its_place_is_not_begun_after_an_abort(
    lone: Gateway,
) -> None:
    ran: list[str] = []

    async def slow(handle) -> None:
        ran.append(handle.inbound.text)
        await asyncio.Event().wait()

    lone.handler = slow
    lone.settings = Settings(concurrent_runs=1, drain_ms=0)
    kernel = await lone.start()
    first = await kernel.accept(inbound("1", "42", "first"))
    second = await kernel.accept(inbound("2", "43", "second"))
    third = await kernel.accept(inbound("3", "44", "third"))
    await spin()
    await kernel.abort(second.turn_id)
    await kernel.abort(first.turn_id)
    await spin()
    assert ran == ["first", "third"]
    fourth = await kernel.accept(inbound("4", "45", "fourth"))
    await spin()
    lone.alive.remove(kernel)
    await kernel.close()
    kernel = await lone.start()
    for done in (third, fourth):
        assert turn(kernel, done.turn_id).failed_runs == 0


@pytest.mark.case("J03")
@pytest.mark.parametrize(
    ("act", "aborted", "outcome"),
    [
        (accept(), False, TurnOutcome.REPLIED),
        (reject(CANCELLED), True, TurnOutcome.ABORTED),
        (reject(FailureClass.RATE_LIMITED), True, TurnOutcome.ABORTED),
        (unknown(lands=True), False, TurnOutcome.FAILED),
    ],
)
async def test_an_abort_on_the_wire_keeps_the_truth(
    lone: Gateway, act, aborted: bool, outcome: TurnOutcome
) -> None:
    async def answer(handle) -> None:
        await handle.reply("a")

    go = asyncio.Event()
    lone.handler = answer

    class Waits(PlatformChannel):
        async def send(self, part, key, attempt):
            await go.wait()
            return await super().send(part, key, attempt)

    lone.channels = {("t", "default"): Waits(lone.platform)}
    lone.platform.plays(act)
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    await spin()
    said = await kernel.abort(done.turn_id)
    assert not said.aborted  # too early to say
    go.set()
    await spin()
    await lone.advance(1_000)
    assert await done.settled(1000) is outcome
    assert len(lone.platform.calls) == 1


async def test_an_abort_between_parts_stops_the_rest(lone: Gateway) -> None:
    go = asyncio.Event()
    lone.platform.plays(wait_for(go))
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "1", "2", "3")
    await spin()
    await kernel.abort(done.entry_id)
    go.set()
    await spin()
    found = entry(kernel, done.entry_id)
    assert (found.phase, len(found.receipts)) == (Phase.ABORTED, 1)
    assert lone.platform.contents == ["1"]


@pytest.mark.case("B20")
async def test_when_the_one_part_of_a_stopped_reply_bounces_nothing_was_replied(
    lone: Gateway,
) -> None:
    async def answer(handle) -> None:
        await handle.reply("1", "2")

    go = asyncio.Event()
    lone.handler = answer
    lone.platform.plays(wait_for(go))
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    await spin()
    await kernel.abort(done.turn_id)
    go.set()
    await spin()
    assert await done.settled(1000) is TurnOutcome.PARTIALLY_REPLIED
    (final,) = turn(kernel, done.turn_id).finals
    await kernel.bounced(final)
    found = turn(kernel, done.turn_id)
    assert (found.phase, found.outcome) == (TurnPhase.FAILED, TurnOutcome.ABORTED)


async def test_an_abort_in_prepare_keeps_it_off_the_wire(lone: Gateway) -> None:
    lone.channels = {("t", "default"): PlatformChannel(lone.platform, prepares=True)}
    slow = hang()
    lone.platform.preparing.append(slow)
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "1")
    await spin()
    await kernel.abort(done.entry_id)
    assert slow.hold
    slow.hold.set()
    await spin()
    assert entry(kernel, done.entry_id).phase is Phase.ABORTED
    assert lone.platform.calls == []


async def test_an_abort_of_a_parked_entry_is_the_end_of_an_unknown(
    lone: Gateway,
) -> None:
    lone.platform.plays(unknown())
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "1")
    await spin()
    await lone.advance(1_000)
    said = await kernel.abort(done.entry_id)
    assert not said.aborted
    assert entry(kernel, done.entry_id).reason == "outcome_unknown"


# --- shutdown ---


@pytest.mark.case("A19", "J08")
async def test_a_shutdown_without_time_loses_nothing(gateway: Gateway) -> None:
    gateway.settings = Settings(drain_ms=0)
    gateway.platform.plays(reject(CANCELLED))
    kernel = await gateway.start()
    names = [(await kernel.enqueue(route(), str(n))).entry_id for n in range(12)]
    await spin()
    gateway.alive.remove(kernel)
    await kernel.close()
    assert commits(await gateway.start(work=False)).get("outbox.aborted") is None
    kernel = await gateway.start()
    await gateway.advance(2_000)
    for name in names:
        await kernel.settled(name, 1000)
    assert gateway.platform.contents == [str(n) for n in range(12)]


@pytest.mark.case("A19", "H16")
async def test_draining_finishes_the_wire_and_still_accepts(lone: Gateway) -> None:
    go = asyncio.Event()
    lone.platform.plays(wait_for(go))
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "1")
    after = await kernel.enqueue(route(), "2")
    await spin()
    draining = asyncio.ensure_future(kernel.drain(5_000))
    await spin()
    taken = await kernel.accept(inbound())
    assert taken.status is TurnPhase.ACCEPTED
    go.set()
    await draining
    assert entry(kernel, done.entry_id).phase is Phase.DELIVERED
    assert entry(kernel, after.entry_id).attempt == 0


@pytest.mark.case("L07", "Z03")
async def test_a_drain_that_cuts_a_send_off_says_so(lone: Gateway) -> None:
    lone.platform.plays(hang(lands=False))
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "1")
    await spin()
    with pytest.raises(NotYetError, match="drain is not over after 0 ms: 1 lanes"):
        await kernel.drain(0)
    assert entry(kernel, done.entry_id).phase is Phase.IN_DOUBT
    await kernel.drain(0)  # nothing is left to wait for


@pytest.mark.case("J08", "L07")
@pytest.mark.parametrize("lands", [False, True])
async def test_a_send_that_shutdown_cuts_is_unknown_not_failed(
    gateway: Gateway, lands: bool
) -> None:
    gateway.settings = Settings(drain_ms=0)
    gateway.platform.plays(hang(lands=lands))
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), "1")
    await spin()
    gateway.alive.remove(kernel)
    await kernel.close()
    kernel = await gateway.start()
    await gateway.advance(1_000)
    found = entry(kernel, done.entry_id)
    assert (found.phase, found.reason) == (Phase.PARKED, "shutdown")


@pytest.mark.case("L07")
async def test_a_shutdown_in_prepare_defers_and_refunds(gateway: Gateway) -> None:
    gateway.settings = Settings(drain_ms=0)
    channel = PlatformChannel(gateway.platform, prepares=True)
    gateway.channels = {("t", "default"): channel}
    gateway.platform.preparing.append(hang())
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), "1")
    await spin()
    gateway.alive.remove(kernel)
    await kernel.close()
    kernel = await gateway.start()
    await kernel.settled(done.entry_id, 1000)
    assert "deferred" in story(kernel, done.entry_id)


@pytest.mark.case("A18")
async def test_the_end_of_an_entry_and_of_its_turn_are_one_commit(
    gateway: Gateway,
) -> None:
    async def answer(handle) -> None:
        await handle.reply("a")

    gateway.handler = answer
    gateway.platform.plays(reject(PERMISSION))
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    assert await done.settled(1000) is TurnOutcome.FAILED
    log = peek(kernel).names()
    ended = log.index("outbox.failed_terminal")
    assert log[ended : ended + 3] == [
        "outbox.failed_terminal",
        "outbox.lane_yielded",
        "turn.failed",
    ]


async def test_a_closed_kernel_says_so(lone: Gateway) -> None:
    kernel = await lone.start()
    waiting = asyncio.ensure_future(
        kernel.settled((await kernel.accept(inbound())).turn_id)
    )
    await spin()
    lone.alive.remove(kernel)
    await kernel.close()
    with pytest.raises(NotOpenError):
        await waiting
    with pytest.raises(NotOpenError):
        await kernel.accept(inbound("2"))


async def test_silence_and_return_after_a_reply_leave_the_answer_alone(
    lone: Gateway,
) -> None:
    said: list[str] = []

    async def answer(handle) -> None:
        await handle.reply("a")
        await handle.silent("changed_my_mind")
        said.append("done")

    lone.handler = answer
    go = asyncio.Event()
    lone.platform.plays(wait_for(go))
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    await until(lambda: said)
    await spin()
    assert driver_of(kernel).troubles == 0
    assert turn(kernel, done.turn_id).silent is None
    go.set()
    assert await done.settled(1000) is TurnOutcome.REPLIED


@pytest.mark.case("G02")
async def test_an_attempt_out_of_turn_is_refused_by_its_rule(lone: Gateway) -> None:
    lone.platform.plays(hang())
    kernel = await lone.start()
    await kernel.enqueue(route(), "1")
    second = await kernel.enqueue(route(), "2")
    with pytest.raises(RuleBrokenError) as caught:
        await kernel.append(lambda draft: attempt(draft, second.entry_id))
    assert caught.value.rule == "head_of_lane"
