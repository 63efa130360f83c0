"""What a handler sends, and what becomes of it: receipts, keys over all runs, places."""

import asyncio
from typing import Any

import pytest

import turnfold
from turnfold import (
    BlockingKernel,
    InvalidInputError,
    Kernel,
    NotDeliveredError,
    NoTurnError,
    Receipt,
    Route,
    Sent,
    TurnHandle,
)
from turnfold.enums import FailureClass, Status, TurnOutcome
from turnfold_model.testing.gateway import (
    Gateway,
    entry,
    inbound,
    route,
    spin,
    story,
    turn,
    until,
)
from turnfold_model.testing.platform import Platform, PlatformChannel, reject, unknown


@pytest.mark.case("Y03")
async def test_a_send_is_awaited_to_its_receipt(gateway: Gateway) -> None:
    kernel = await gateway.start()
    sent = await kernel.enqueue(route(), "one", "two", key="k")
    receipt = await sent.receipt(2_000)
    ids = [message.id for message in gateway.platform.messages]
    assert list(receipt.ids) == ids
    assert len(ids) == 2
    again = await kernel.enqueue(route(), "one", "two", key="k")
    assert (again.new, again.entry_id) == (False, sent.entry_id)
    assert await again.receipt(2_000) == receipt
    assert await again.settled(2_000) is Status.DELIVERED


@pytest.mark.case("Y03")
async def test_settled_tells_delivered_failed_and_aborted_apart(
    gateway: Gateway,
) -> None:
    gateway.platform.plays(reject(FailureClass.PERMISSION))
    kernel = await gateway.start()
    failed = await kernel.enqueue(route("1"), "x")
    assert await failed.settled(2_000) is Status.FAILED_TERMINAL
    with pytest.raises(NotDeliveredError) as caught:
        await failed.receipt(2_000)
    assert (caught.value.status, caught.value.reason) == ("failed", "permanent")
    delivered = await kernel.enqueue(route("1"), "x")
    assert await kernel.settled(delivered.entry_id, 2_000) is Status.DELIVERED
    waits = await kernel.enqueue(route("1", "nowhere"), "x")
    await kernel.abort(waits.entry_id)
    assert await waits.settled(2_000) is Status.ABORTED


@pytest.mark.case("Y03", "Y14")
async def test_a_wait_for_a_receipt_ends_when_the_entry_is_parked(
    gateway: Gateway,
) -> None:
    gateway.platform.plays(unknown())
    kernel = await gateway.start()
    sent = await kernel.enqueue(route(), "x")
    ends = asyncio.create_task(sent.settled())
    for _ in range(2):  # while it happens, and after it
        with pytest.raises(NotDeliveredError) as caught:
            await sent.receipt(2_000)
        assert caught.value.status == "parked"
    assert not ends.done()
    await kernel.resolve(sent.entry_id, "delivered", by="me")
    assert await ends is Status.DELIVERED


@pytest.mark.case("Y03")
async def test_another_process_waits_for_a_receipt_too(gateway: Gateway) -> None:
    worker = await gateway.start()
    client = await gateway.start(work=False)
    assert worker.working
    sent = await client.enqueue(route(), "x", key="k")
    again = await client.enqueue(route(), "x", key="k")
    ids = (await sent.receipt(5_000)).ids
    assert ids == (await again.receipt(5_000)).ids
    assert [message.id for message in gateway.platform.messages] == list(ids)
    gateway.platform.plays(unknown())
    parked = await client.enqueue(route(), "y")
    with pytest.raises(NotDeliveredError):
        await parked.receipt(5_000)


@pytest.mark.case("Y03", "Y04")
async def test_a_run_that_comes_back_gets_the_first_sent_and_its_receipt(
    gateway: Gateway,
) -> None:
    """Without `resume`: what is sent over all runs does not forbid another run."""
    seen: list[tuple[bool | None, Receipt]] = []

    async def answer(handle: TurnHandle) -> None:
        for key in ("greeting", None):
            sent = await handle.send("hello", key=key)
            seen.append((sent.new, await sent.receipt(2_000)))
        if handle.run == 1:
            await asyncio.Event().wait()
        await handle.reply("done")

    gateway.handler = answer
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    await until(lambda: len(seen) == 2)
    kernel = await gateway.restart(kernel)
    assert await kernel.settled(done.turn_id, 2_000) is TurnOutcome.REPLIED
    assert gateway.platform.contents == ["hello", "hello", "done"]
    assert [new for new, _ in seen] == [True, True, False, False]
    assert seen[0][1] == seen[2][1]
    assert seen[1][1] == seen[3][1]


@pytest.mark.case("Y04")
async def test_what_waits_under_a_key_over_all_runs_is_sent_after_a_failed_run(
    gateway: Gateway,
) -> None:
    gateway.platform.plays(reject(FailureClass.TRANSIENT))
    differs: list[bool] = []

    async def answer(handle: TurnHandle) -> None:
        differs.append((await handle.send(f"run {handle.run}", key="k")).differs)
        if handle.run == 1:
            raise RuntimeError("boom")
        await handle.reply("done")

    gateway.handler = answer
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    for _ in range(4):
        await gateway.advance(2_000)
    assert await kernel.settled(done.turn_id, 2_000) is TurnOutcome.REPLIED
    assert gateway.platform.contents == ["run 1", "done"]
    assert differs == [False, True]


@pytest.mark.case("Y04")
async def test_a_block_without_a_key_is_said_anew_and_one_with_a_key_is_not(
    gateway: Gateway,
) -> None:
    previous: list[Any] = []

    async def answer(handle: TurnHandle) -> None:
        await handle.block("a", key="a")
        await handle.tool("t", key="a")
        previous.extend(await handle.previous())
        if handle.run == 1:
            await handle.block("draft")
            await asyncio.Event().wait()
        await handle.reply("done")

    gateway.handler, gateway.resume = answer, True
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    await until(lambda: len(gateway.platform.messages) == 3)
    await spin()
    kernel = await gateway.restart(kernel)
    assert await kernel.settled(done.turn_id, 2_000) is TurnOutcome.REPLIED
    assert gateway.platform.contents == ["a", "t", "draft", "done"]
    ids = [message.id for message in gateway.platform.messages]
    assert [(s.key, s.receipt) for s in previous] == [
        ("a", (ids[0],)),
        ("a", (ids[1],)),
        ("3", (ids[2],)),
    ]


async def test_the_last_send_is_the_answer_if_nothing_is_replied(
    lone: Gateway,
) -> None:
    async def answer(handle: TurnHandle) -> None:
        await handle.send("one")
        await handle.send("two")

    lone.handler = answer
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    assert await done.settled(2_000) is TurnOutcome.REPLIED
    finals = turn(kernel, done.turn_id).finals
    assert [entry(kernel, name).key for name in finals] == ["2"]


async def test_a_block_of_an_earlier_run_is_not_the_answer_of_a_later_one(
    gateway: Gateway,
) -> None:
    async def answer(handle: TurnHandle) -> None:
        if handle.run == 1:
            await handle.block("beginning")
            await asyncio.Event().wait()

    gateway.handler, gateway.resume = answer, True
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    await until(lambda: gateway.platform.messages)
    kernel = await gateway.restart(kernel)
    assert await kernel.settled(done.turn_id, 2_000) is TurnOutcome.SILENT


async def test_an_abort_stops_what_is_sent_over_all_runs(gateway: Gateway) -> None:
    gateway.platform.plays(reject(FailureClass.TRANSIENT))

    async def answer(handle: TurnHandle) -> None:
        await handle.send("hello", key="k")
        await asyncio.Event().wait()

    gateway.handler = answer
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    await spin()
    assert (await kernel.abort(done.turn_id)).aborted
    await gateway.advance(60_000)
    assert gateway.platform.contents == []


@pytest.mark.case("Y07")
async def test_each_call_says_where_it_answers(gateway: Gateway) -> None:
    channel = PlatformChannel(gateway.platform)
    gateway.channels = {("t", "default"): channel, ("u", "default"): channel}

    async def answer(handle: TurnHandle) -> None:
        await handle.send("a", reply_to=None)
        await handle.block("b", thread="side", reply_to=77)
        await handle.tool("c", route=Route(channel="u", conversation="log"))
        await handle.send("d", policy="drop", ttl_ms=5_000)
        await handle.reply("e")

    gateway.handler = answer
    kernel = await gateway.start()
    done = await kernel.accept(inbound("9", thread="main"))
    assert await done.settled(2_000) is TurnOutcome.REPLIED
    await spin()
    first = f"entry:{done.turn_id.removeprefix('turn:')}"
    names = [f"{first}.all.block.1", f"{first}.1.block.1", f"{first}.1.tool.2"]
    names += [f"{first}.all.block.2", f"{first}.final"]
    places = [(e.thread, e.reply_to) for e in (entry(kernel, n) for n in names)]
    quote = inbound("9").message_id
    assert places == [
        ("main", None),
        ("side", "77"),
        (None, None),
        ("main", quote),
        ("main", quote),
    ]
    where = [(m.content, m.conversation, m.thread) for m in gateway.platform.messages]
    assert ("c", "log", None) in where
    held = entry(kernel, names[3])
    assert (held.policy, held.expires_at - held.created) == ("drop", 5_000)


@pytest.mark.case("Y07")
async def test_a_place_that_is_none_is_refused(lone: Gateway) -> None:
    fields: list[str] = []

    async def answer(handle: TurnHandle) -> None:
        odd: Any
        for odd in ({"route": "t/1"}, {"thread": 1.5}, {"reply_to": ""}):
            with pytest.raises(InvalidInputError) as caught:
                await handle.send("x", **odd)
            fields.append(caught.value.field)
        await handle.silent("tested")

    lone.handler = answer
    kernel = await lone.start()
    await (await kernel.accept(inbound())).settled(2_000)
    assert fields == ["route", "thread", "reply_to"]


@pytest.mark.case("Y13")
async def test_a_tool_asks_for_the_turn_at_hand(gateway: Gateway) -> None:
    async def tool() -> TurnHandle:
        here = turnfold.current_turn()
        await here.tool("working")
        return here

    async def answer(handle: TurnHandle) -> str:
        assert await asyncio.gather(tool(), tool()) == [handle, handle]
        assert handle.kernel is gateway.alive[0]
        return "done"

    with pytest.raises(NoTurnError):
        turnfold.current_turn()
    gateway.handler = answer
    kernel = await gateway.start()
    two = [await kernel.accept(inbound(str(n), conversation=str(n))) for n in (1, 2)]
    ends = [await done.settled(2_000) for done in two]
    assert ends == [TurnOutcome.REPLIED] * 2
    with pytest.raises(NoTurnError):
        turnfold.current_turn()


@pytest.mark.case("Y10", "Y13")
async def test_a_plain_handler_sends_and_waits_in_its_thread(gateway: Gateway) -> None:
    seen: list[Any] = []

    def answer(handle: TurnHandle) -> str:
        mine = turnfold.current_turn().blocking
        sent = mine.send("one moment", key="k")
        seen.extend([sent.new, sent.receipt(2_000).ids, sent.settled(2_000)])
        mine.block("b")
        mine.tool("t")
        seen.append([said.key for said in mine.previous()])
        return "done"

    gateway.handler = answer
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    assert await done.settled(5_000) is TurnOutcome.REPLIED
    assert gateway.platform.contents == ["one moment", "b", "t", "done"]
    first = gateway.platform.messages[0].id
    assert seen == [True, (first,), Status.DELIVERED, []]


@pytest.mark.case("Y10")
async def test_a_plain_handler_is_silent_or_replies_itself(gateway: Gateway) -> None:
    def answer(handle: TurnHandle) -> None:
        if handle.inbound.message_id == "1":
            handle.blocking.silent("not_addressed")
        else:
            assert handle.blocking.reply("yes").new

    gateway.handler = answer
    kernel = await gateway.start()
    first = await kernel.accept(inbound("1"))
    assert await first.settled(5_000) is TurnOutcome.SILENT
    second = await kernel.accept(inbound("2"))
    assert await second.settled(5_000) is TurnOutcome.REPLIED


@pytest.mark.case("Y10")
def test_a_blocking_kernel_waits_for_receipts() -> None:
    platform = Platform()
    kernel = Kernel("memory:")
    kernel.attach("t", PlatformChannel(platform), on_unknown="hold")
    with BlockingKernel(kernel) as blocking:
        sent = blocking.enqueue(route(), "x")
        ids = blocking.receipt(sent.entry_id, 5_000).ids
        assert blocking.settled(sent.entry_id, 5_000) is Status.DELIVERED
    assert [message.id for message in platform.messages] == list(ids)


async def test_a_sent_shows_its_facts(lone: Gateway) -> None:
    kernel = await lone.start()
    sent = await kernel.enqueue(route(), "x", key="k")
    assert isinstance(sent, Sent)
    assert repr(sent) == f"Sent('{sent.entry_id}', {sent.status.value}, new=True)"
    other = await kernel.enqueue(route(), "y", key="k")
    assert repr(other).endswith("new=False, differs)")
    assert story(kernel, sent.entry_id).count("queued") == 1
