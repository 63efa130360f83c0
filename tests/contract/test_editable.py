"""The class editable: a placeholder goes out once, and an edit brings the answer."""

import asyncio

import pytest

from turnfold import DeliveryClass, FailureClass, Never, Settings
from turnfold.api.live import Live
from turnfold.audit import audit_store
from turnfold.enums import BlindPolicy, Format, Phase
from turnfold.errors import ContractError, InvalidInputError, NotYetError
from turnfold_model.testing.gateway import (
    Gateway,
    entry,
    inbound,
    route,
    spin,
    story,
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

EDITABLE, LOOKUP = DeliveryClass.EDITABLE, DeliveryClass.LOOKUP
HOUR = 3_600_000


def editing(gateway: Gateway, *more: DeliveryClass, **declared) -> None:
    channel = PlatformChannel(gateway.platform, EDITABLE, *more, **declared)
    gateway.channels = {("t", "default"): channel}


async def sent(gateway: Gateway, *acts, text="hi", **more):
    gateway.platform.plays(*acts)
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), text, **more)
    await spin()
    return kernel, done.entry_id


async def settled(gateway: Gateway, kernel, stream: str) -> Phase:
    for _ in range(12):
        if not entry(kernel, stream).open:
            break
        await gateway.advance(120_000)
    report = await audit_store(kernel.store)
    assert not report.findings
    return entry(kernel, stream).phase


async def test_a_final_is_a_placeholder_and_one_edit_of_it(gateway: Gateway):
    editing(gateway)
    kernel, stream = await sent(gateway)
    assert gateway.platform.contents == ["hi"]
    assert not gateway.platform.strays
    assert story(kernel, stream) == [
        "queued",
        "planned",
        "attempted",
        "placed",
        "attempted",
        "delivered",
    ]


async def test_each_part_of_a_long_answer_has_a_placeholder_of_its_own(
    gateway: Gateway,
):
    editing(gateway, limit=5)
    await sent(gateway, text="one two six")
    assert gateway.platform.contents == ["one", "two", "six"]


@pytest.mark.case("K14")
@pytest.mark.parametrize("lands", [True, False])
async def test_an_edit_of_unknown_fate_is_made_again(gateway: Gateway, lands: bool):
    editing(gateway)
    kernel, stream = await sent(gateway, accept(), unknown(lands=lands))
    assert await settled(gateway, kernel, stream) is Phase.DELIVERED
    assert gateway.platform.contents == ["hi"]


@pytest.mark.parametrize("lands", [True, False])
async def test_a_placeholder_of_unknown_fate_is_made_again_once(
    gateway: Gateway, lands: bool
):
    editing(gateway)
    kernel, stream = await sent(gateway, unknown(lands=lands))
    assert await settled(gateway, kernel, stream) is Phase.DELIVERED
    assert gateway.platform.contents == ["hi"]
    assert len(gateway.platform.strays) == int(lands)  # nobody knows its id


async def test_a_second_placeholder_in_doubt_is_for_a_person(gateway: Gateway):
    editing(gateway)
    kernel, stream = await sent(gateway, unknown(), unknown())
    await gateway.advance(120_000)
    assert entry(kernel, stream).phase is Phase.PARKED
    await kernel.resolve(stream, "not_sent", by="a person")
    assert await settled(gateway, kernel, stream) is Phase.DELIVERED


@pytest.mark.case("K12")
async def test_an_answer_waits_for_the_outcome_of_its_placeholder(gateway: Gateway):
    editing(gateway)
    there = asyncio.Event()
    kernel, stream = await sent(gateway, wait_for(there))
    assert gateway.platform.contents == []
    there.set()
    await spin()
    assert entry(kernel, stream).phase is Phase.DELIVERED
    assert gateway.platform.contents == ["hi"]
    assert len(gateway.platform.messages) == 1


@pytest.mark.case("K13")
async def test_an_edit_that_is_limited_waits_behind_its_gate(gateway: Gateway):
    editing(gateway)
    limited = reject(FailureClass.RATE_LIMITED, retry_after_ms=41_000)
    kernel, stream = await sent(gateway, accept(), limited)
    assert entry(kernel, stream).phase is Phase.QUEUED
    await gateway.advance(42_000)
    assert entry(kernel, stream).phase is Phase.DELIVERED
    assert len(gateway.platform.messages) == 1


@pytest.mark.case("K03")
async def test_a_placeholder_that_is_gone_is_made_anew(gateway: Gateway):
    editing(gateway)
    kernel, stream = await sent(gateway, accept(), reject(FailureClass.HANDLE_GONE))
    assert await settled(gateway, kernel, stream) is Phase.DELIVERED
    assert gateway.platform.contents == ["hi"]


@pytest.mark.parametrize("acts", [(), (accept(),), (accept(), accept())])
async def test_a_kill_at_any_call_shows_the_answer_once(gateway: Gateway, acts):
    editing(gateway)
    hangs = [hang(lands=True)] if len(acts) < 2 else []  # two calls are all there are
    gateway.platform.plays(*acts, *hangs)
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), "hi")
    await until(lambda: not hangs or len(gateway.platform.calls) > len(acts))
    kernel = await gateway.restart(kernel)
    assert await settled(gateway, kernel, done.entry_id) is Phase.DELIVERED
    assert gateway.platform.contents == ["hi"]
    assert len(gateway.platform.strays) <= 1


@pytest.mark.case("K03")
async def test_what_fails_takes_its_placeholder_back(gateway: Gateway):
    editing(gateway)
    barred = reject(FailureClass.INVALID_PAYLOAD)
    kernel, stream = await sent(gateway, accept(), barred)
    assert not entry(kernel, stream).open
    assert gateway.platform.messages == []


async def test_an_abort_takes_its_placeholder_back(gateway: Gateway):
    editing(gateway)
    limited = reject(FailureClass.RATE_LIMITED, retry_after_ms=HOUR)
    kernel, stream = await sent(gateway, accept(), limited)
    await kernel.abort(stream)
    await spin()
    assert entry(kernel, stream).phase is Phase.ABORTED
    assert gateway.platform.messages == []


async def test_an_answer_that_may_stand_is_never_taken_back(gateway: Gateway):
    """Its time is over while the edit is in doubt: nobody knows what the reader sees."""
    editing(gateway)
    kernel, stream = await sent(
        gateway, accept(), *[unknown(lands=True)] * 40, ttl_ms=HOUR
    )
    await gateway.advance(HOUR + 1)
    assert entry(kernel, stream).reason == "outcome_unknown"
    assert gateway.platform.contents == ["hi"]


async def test_a_late_placeholder_ends_its_doubt(gateway: Gateway):
    gateway.settings = Settings(attempt_deadline_ms=500)
    editing(gateway)
    there = asyncio.Event()
    kernel, stream = await sent(gateway, wait_for(there))
    await until(lambda: entry(kernel, stream).phase is Phase.IN_DOUBT)
    there.set()
    await until(lambda: gateway.platform.contents == ["hi"])
    assert len(gateway.platform.messages) == 1


async def test_a_placeholder_too_many_is_taken_back(gateway: Gateway):
    gateway.settings = Settings(attempt_deadline_ms=200)
    editing(gateway)
    there = asyncio.Event()
    kernel, stream = await sent(gateway, wait_for(there, deaf=True))
    await until(lambda: entry(kernel, stream).phase is Phase.IN_DOUBT)
    await gateway.advance(120_000)
    await until(lambda: gateway.platform.contents == ["hi"])
    there.set()
    await until(lambda: "placed" in story(kernel, stream)[-1:])
    await until(lambda: not gateway.platform.strays)
    assert gateway.platform.contents == ["hi"]


async def test_a_look_up_is_never_asked_for_a_placeholder(gateway: Gateway):
    editing(gateway, LOOKUP)
    kernel, stream = await sent(gateway, unknown(), unknown())
    await gateway.advance(120_000)
    assert entry(kernel, stream).phase is Phase.PARKED
    assert gateway.platform.asked == []


async def test_the_class_needs_an_edit_and_ids(gateway: Gateway):
    kernel = await gateway.start()
    channel = PlatformChannel(gateway.platform, EDITABLE)
    del channel.edit
    with pytest.raises(ContractError, match="edit"):
        kernel.attach("a", channel)
    channel = PlatformChannel(gateway.platform, EDITABLE, gives_ids=False)
    with pytest.raises(ContractError, match="gives_ids"):
        kernel.attach("b", channel)


async def test_a_channel_that_cannot_edit_any_more_is_waited_out(gateway: Gateway):
    editing(gateway)
    limited = reject(FailureClass.RATE_LIMITED, retry_after_ms=1_000)
    kernel, stream = await sent(gateway, accept(), limited)
    gateway.channels = {("t", "default"): PlatformChannel(gateway.platform)}
    kernel = await gateway.restart(kernel)
    await gateway.advance(2_000)
    assert entry(kernel, stream).phase is Phase.QUEUED
    editing(gateway)
    kernel = await gateway.restart(kernel)
    assert await settled(gateway, kernel, stream) is Phase.DELIVERED
    assert gateway.platform.contents == ["hi"]


async def test_no_placeholder_is_begun_for_a_channel_that_cannot_edit_any_more(
    gateway: Gateway,
):
    editing(gateway)
    limited = reject(FailureClass.RATE_LIMITED, retry_after_ms=1_000)
    kernel, stream = await sent(gateway, limited)
    gateway.channels = {("t", "default"): PlatformChannel(gateway.platform)}
    kernel = await gateway.restart(kernel)
    assert await settled(gateway, kernel, stream) is Phase.DELIVERED
    assert gateway.platform.contents == ["hi"]
    assert not gateway.platform.strays
    assert "placed" not in story(kernel, stream)


async def test_a_turn_is_replied_by_its_edit(gateway: Gateway):
    async def answer(turn):
        await turn.reply("hello back")

    editing(gateway)
    gateway.handler = answer
    kernel = await gateway.start()
    turn = await kernel.accept(inbound())
    await spin()
    assert await turn.settled() == "replied"
    assert gateway.platform.contents == ["hello back"]


async def test_a_policy_may_send_a_second_doubtful_placeholder(gateway: Gateway):
    editing(gateway)
    gateway.on_unknown = BlindPolicy.RESEND
    kernel, stream = await sent(gateway, unknown(), unknown())
    assert await settled(gateway, kernel, stream) is Phase.DELIVERED
    assert gateway.platform.contents == ["hi"]


# --- live replies ---


def growing(gateway: Gateway, *more: DeliveryClass, **declared) -> None:
    editing(gateway, *more, preview_ms=1, **declared)


async def test_a_live_reply_is_one_message_that_grows(gateway: Gateway):
    seen = []

    async def answer(turn):
        async with turn.live() as live:
            for word in ("one ", "two ", "three"):
                live.append(word)
                await until(lambda: live.text in gateway.platform.contents)
                seen.append(list(gateway.platform.contents))

    growing(gateway)
    gateway.handler = answer
    kernel = await gateway.start()
    turn = await kernel.accept(inbound())
    assert await turn.settled(10_000) == "replied"
    assert seen == [["one "], ["one two "], ["one two three"]]
    assert gateway.platform.contents == ["one two three"]
    assert len(gateway.platform.messages) == 1


@pytest.mark.case("V10")
async def test_a_live_reply_that_dies_is_taken_up_by_the_next_run(gateway: Gateway):
    runs = []

    async def answer(turn):
        runs.append(turn.run)
        async with turn.live() as live:
            live.append(f"run {turn.run}")
            await until(lambda: live.text in gateway.platform.contents)
            if turn.run == 1:
                await asyncio.sleep(3_600)

    growing(gateway)
    gateway.handler = answer
    kernel = await gateway.start()
    turn = await kernel.accept(inbound())
    await until(lambda: gateway.platform.contents == ["run 1"])
    kernel = await gateway.restart(kernel)
    await until(lambda: gateway.platform.contents == ["run 2"])
    await until(lambda: story(kernel, turn.turn_id)[-1] == "completed")
    assert len(gateway.platform.messages) == 1


async def test_a_later_run_begins_behind_a_live_reply_that_keeps_its_place(
    gateway: Gateway,
):
    """The lane was busy, so nothing of the first run was seen. Its block goes; its reply
    goes on, before the block of the second run."""

    async def answer(turn):
        await turn.block("thinking")
        async with turn.live() as live:
            live.append("one")
            if turn.run == 1:
                await asyncio.sleep(3_600)

    growing(gateway)
    gateway.handler, gateway.resume = answer, True
    gateway.platform.plays(hang)
    kernel = await gateway.start()
    await kernel.enqueue(route(), "note")
    turn = await kernel.accept(inbound())
    await spin()
    kernel = await gateway.restart(kernel)
    for _ in range(4):
        await gateway.advance(120_000)
    assert story(kernel, turn.turn_id)[-1] == "completed"
    assert gateway.platform.contents == ["note", "one", "thinking"]
    assert not (await audit_store(kernel.store)).findings


async def test_a_live_reply_that_raises_is_taken_up_by_the_next_run(gateway: Gateway):
    async def answer(turn):
        async with turn.live() as live:
            live.append(f"run {turn.run}")
            await until(lambda: live.text in gateway.platform.contents)
            if turn.run == 1:
                raise RuntimeError

    growing(gateway)
    gateway.handler = answer
    kernel = await gateway.start()
    turn = await kernel.accept(inbound())
    await until(lambda: gateway.platform.contents == ["run 1"])
    await spin()
    await gateway.advance(60_000)
    assert await turn.settled(10_000) == "replied"
    assert gateway.platform.contents == ["run 2"]
    assert len(gateway.platform.messages) == 1


async def test_what_is_said_meanwhile_stands_behind_it(gateway: Gateway):
    async def answer(turn):
        async with turn.live() as live:
            live.append("so")
            await until(lambda: gateway.platform.contents == ["so"])
            await turn.tool("a tool works")
            await until(lambda: "a tool works" in gateway.platform.contents)
            live.append(" it is")

    growing(gateway)
    gateway.handler = answer
    gateway.resume = True
    kernel = await gateway.start()
    turn = await kernel.accept(inbound())
    assert await turn.settled(10_000) == "replied"
    assert gateway.platform.contents == ["so it is", "a tool works"]


async def test_a_live_reply_outside_of_its_block_says_how_it_is_used(gateway: Gateway):
    said: list[str] = []

    async def answer(turn):
        live = turn.live()
        for act in (live.append, live.replace):
            with pytest.raises(InvalidInputError, match="async with") as caught:
                act("unseen")
            said.append(caught.value.field)
        return "seen"

    growing(gateway)
    gateway.handler = answer
    kernel = await gateway.start()
    turn = await kernel.accept(inbound())
    assert await turn.settled(10_000) == "replied"
    assert (said, gateway.platform.contents) == (["live", "live"], ["seen"])


async def test_a_reply_seals_what_grows(gateway: Gateway):
    async def answer(turn):
        async with turn.live() as live:
            live.append("a draft")
            await live.seal("the answer")

    growing(gateway)
    gateway.handler = answer
    kernel = await gateway.start()
    turn = await kernel.accept(inbound())
    assert await turn.settled(10_000) == "replied"
    assert gateway.platform.contents == ["the answer"]


async def test_text_beyond_the_limit_becomes_parts(gateway: Gateway):
    async def answer(turn):
        async with turn.live() as live:
            live.append("one two six")

    growing(gateway, limit=5)
    gateway.handler = answer
    kernel = await gateway.start()
    turn = await kernel.accept(inbound())
    assert await turn.settled(10_000) == "replied"
    assert gateway.platform.contents == ["one", "two", "six"]


@pytest.mark.parametrize("end", ["silent", "nothing", "never"])
async def test_without_an_answer_the_placeholder_goes(gateway: Gateway, end: str):
    async def answer(turn):
        live = turn.live()
        await live.__aenter__()
        await until(lambda: len(gateway.platform.messages) == 1)
        await spin()
        if end == "silent":
            await turn.silent("not_addressed")
        elif end == "never":
            raise Never

    growing(gateway)
    gateway.handler = answer
    gateway.settings = Settings(notices={})
    kernel = await gateway.start()
    turn = await kernel.accept(inbound())
    await turn.settled(10_000)
    await until(lambda: not gateway.platform.messages)


@pytest.mark.parametrize("end", ["it returns", "the kernel closes"])
async def test_a_handler_that_leaves_its_reply_open_leaves_no_preview(
    gateway: Gateway, end: str
):
    """Each preview would go on for ever in a task that nobody owns."""
    others = asyncio.all_tasks()
    go = asyncio.Event()

    async def answer(turn):
        live = await turn.live().__aenter__()
        live.append("half")
        await go.wait()

    growing(gateway)
    gateway.handler = answer
    gateway.settings = Settings(max_runs=1, drain_ms=200)
    kernel = await gateway.start()
    turn = await kernel.accept(inbound())
    await until(lambda: gateway.platform.contents == ["half"])
    if end == "it returns":
        go.set()
        assert await turn.settled(10_000) == "failed"
    else:
        await kernel.close()
    names = {task.get_coro().__qualname__ for task in asyncio.all_tasks() - others}
    assert "Live._show" not in names


async def test_the_run_of_an_open_reply_ends_behind_its_last_preview(
    gateway: Gateway,
):
    """Else that preview could overwrite what the end of the turn writes there."""
    go, left = asyncio.Event(), asyncio.Event()

    async def answer(turn):
        live = await turn.live().__aenter__()
        await until(lambda: len(gateway.platform.messages) == 1)
        gateway.platform.plays(wait_for(go))
        before = len(gateway.platform.calls)
        live.append("half")
        await until(lambda: len(gateway.platform.calls) > before)
        left.set()

    growing(gateway)
    gateway.handler = answer
    gateway.settings = Settings(max_runs=1, notices={})
    kernel = await gateway.start()
    turn = await kernel.accept(inbound())
    await left.wait()
    await spin()
    with pytest.raises(NotYetError):
        await turn.settled(1)
    go.set()
    assert await turn.settled(10_000) == "failed"
    await until(lambda: not gateway.platform.messages)


async def test_an_abort_without_a_notice_takes_the_growing_reply_back(
    gateway: Gateway,
):
    async def answer(turn):
        async with turn.live() as live:
            live.append("never mind")
            await asyncio.sleep(3_600)

    growing(gateway)
    gateway.handler = answer
    gateway.settings = Settings(notices={})
    kernel = await gateway.start()
    turn = await kernel.accept(inbound())
    await until(lambda: gateway.platform.contents == ["never mind"])
    await kernel.abort(turn.turn_id)
    assert await turn.settled(10_000) == "aborted"
    await until(lambda: not gateway.platform.messages)


async def test_where_nothing_can_be_edited_the_seal_sends_it(gateway: Gateway):
    async def answer(turn):
        async with turn.live() as live:
            live.append("whole")

    gateway.handler = answer
    kernel = await gateway.start()
    turn = await kernel.accept(inbound())
    assert await turn.settled(10_000) == "replied"
    assert gateway.platform.contents == ["whole"]


@pytest.mark.parametrize("lands", [True, False])
async def test_a_live_reply_whose_placeholder_is_in_doubt(
    gateway: Gateway, lands: bool
):
    async def answer(turn):
        async with turn.live() as live:
            live.append("here")

    channel = PlatformChannel(gateway.platform, LOOKUP, EDITABLE, preview_ms=1)
    gateway.channels = {("t", "default"): channel}
    gateway.platform.plays(unknown(lands=lands))
    gateway.handler = answer
    kernel = await gateway.start()
    turn = await kernel.accept(inbound())
    await spin()
    await gateway.advance(120_000)
    assert await turn.settled(10_000) == "replied"
    assert gateway.platform.contents == ["here"]
    assert gateway.platform.asked == []


@pytest.mark.case("V09")
async def test_no_preview_overwrites_the_sealed_text(gateway: Gateway):
    there = asyncio.Event()

    async def answer(turn):
        async with turn.live() as live:
            await until(lambda: gateway.platform.messages)
            await spin()
            gateway.platform.plays(wait_for(there, deaf=True))
            live.append("a")
            await until(lambda: len(gateway.platform.calls) == 2)
            live.append(" and b")
            asyncio.get_running_loop().call_later(0.1, there.set)

    growing(gateway)
    gateway.handler = answer
    kernel = await gateway.start()
    turn = await kernel.accept(inbound())
    assert await turn.settled(10_000) == "replied"
    await asyncio.sleep(0.15)
    assert gateway.platform.contents == ["a and b"]


async def test_an_unchanged_text_is_not_shown_again(gateway: Gateway):
    async def answer(turn):
        async with turn.live() as live:
            live.append("same")
            await until(lambda: gateway.platform.contents == ["same"])
            for _ in range(5):
                live.replace("same")
                await asyncio.sleep(0.01)

    growing(gateway)
    gateway.handler = answer
    kernel = await gateway.start()
    turn = await kernel.accept(inbound())
    assert await turn.settled(10_000) == "replied"
    assert len(gateway.platform.calls) == 3  # the placeholder, one preview, the seal


async def test_a_limited_preview_slows_down_and_the_seal_still_comes(gateway: Gateway):
    async def answer(turn):
        async with turn.live() as live:
            await until(lambda: gateway.platform.messages)
            await spin()
            limited = reject(FailureClass.RATE_LIMITED, retry_after_ms=50)
            gateway.platform.plays(limited)
            live.append("slow")
            await until(lambda: gateway.platform.contents == ["slow"])

    growing(gateway)
    gateway.handler = answer
    kernel = await gateway.start()
    turn = await kernel.accept(inbound())
    assert await turn.settled(10_000) == "replied"
    assert gateway.platform.contents == ["slow"]


async def test_a_cancelled_handler_is_not_held_back_by_its_previews():
    """The end of the previews takes a while here; the cancellation must still pass."""

    async def slow_to_end() -> None:
        try:
            await asyncio.sleep(3_600)
        finally:
            await asyncio.sleep(0.2)

    live = Live(None, None, None, Format.PLAIN, None, None)
    live._task = asyncio.create_task(slow_to_end())
    previews = live._task
    await asyncio.sleep(0)
    ending = asyncio.create_task(live.end_previews())
    await asyncio.sleep(0.05)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    await asyncio.wait({previews})
