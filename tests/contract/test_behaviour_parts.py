"""Replies in several parts: frozen once, resumed at the first unsent one."""

from pathlib import Path

import pytest

from turnfold import DeliveryClass, FailureClass, File, Native, Settings, Text
from turnfold._log.bodies import place_of
from turnfold._log.codec import decode
from turnfold._log.events import NAMES
from turnfold.enums import Kind, Phase, Reason, TurnOutcome
from turnfold.errors import ContractError, InvalidInputError
from turnfold.ports.channel import PlannedPart
from turnfold_model.testing.gateway import (
    Gateway,
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
    accept_in,
    hang,
    reject,
    unknown,
)


async def long_answer(handle) -> None:
    await handle.reply("one", "two", File(data=b"x", name="plot.png"), "four")


@pytest.mark.case("C03", "C02", "A04")
@pytest.mark.parametrize("after", [0, 1, 2, 3])
async def test_a_crash_between_parts_resumes_at_the_first_unsent(
    gateway: Gateway, after: int
) -> None:
    gateway.handler = long_answer
    gateway.platform.keyed = True
    gateway.channels = {
        ("t", "default"): PlatformChannel(gateway.platform, DeliveryClass.KEYED)
    }
    gateway.platform.plays(*[accept()] * after, hang(lands=True))
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    await until(lambda: len(gateway.platform.calls) == after + 1)
    kernel = await gateway.restart(kernel)
    await gateway.advance(1_000)
    assert await kernel.settled(done.turn_id, 1000) is TurnOutcome.REPLIED
    assert gateway.platform.contents == ["one", "two", "[plot.png]", "four"]
    assert turn(kernel, done.turn_id).run == 1  # owned: never computed again


@pytest.mark.case("C01", "C02")
async def test_a_failing_part_keeps_the_delivered_ones(lone: Gateway) -> None:
    kernel = await lone.start()
    lone.platform.plays(accept(), reject(FailureClass.PERMISSION))
    done = await kernel.enqueue(route(), "1", "2", "3")
    await spin()
    found = entry(kernel, done.entry_id)
    assert (found.phase, found.part, found.receipts) == (Phase.FAILED, 1, (("m1",),))
    await kernel.redrive(done.entry_id, by="op")
    await kernel.settled(done.entry_id, 1000)
    assert lone.platform.contents == ["1", "2", "3"]


@pytest.mark.case("C01", "B09")
async def test_a_doubtful_middle_part_holds_the_later_ones(lone: Gateway) -> None:
    kernel = await lone.start()
    lone.platform.plays(accept(), unknown())
    done = await kernel.enqueue(route(), "1", "2", "3")
    await spin()
    await lone.advance(1_000)
    assert entry(kernel, done.entry_id).phase is Phase.PARKED
    assert lone.platform.contents == ["1"]
    await kernel.resolve(done.entry_id, "not_sent", by="op")
    await kernel.settled(done.entry_id, 1000)
    assert lone.platform.contents == ["1", "2", "3"]


@pytest.mark.case("C01")
async def test_an_entry_ends_in_the_commit_of_its_last_part(lone: Gateway) -> None:
    """Its first part bounced in the meantime, so it cannot become delivered."""
    kernel = await lone.start()
    lone.platform.plays(accept(), reject(FailureClass.CANCELLED))
    done = await kernel.enqueue(route(), "1", "2")
    await until(lambda: entry(kernel, done.entry_id).phase is Phase.RETRYABLE)
    await kernel.bounced(done.entry_id, part=0)
    await lone.advance(1_000)
    found = entry(kernel, done.entry_id)
    assert (found.phase, found.reason) == (Phase.FAILED, Reason.PARTIAL)
    last = peek(kernel).read(done.entry_id)[-1]
    kinds = [NAMES[type(event)] for event in decode(last)]
    assert kinds[:2] == ["outbox.part_delivered", "outbox.failed_terminal"]


async def test_a_final_that_was_partly_delivered_is_a_partial_reply(
    lone: Gateway,
) -> None:
    lone.handler = long_answer
    lone.platform.plays(accept(), reject(FailureClass.TARGET_GONE))
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    outcome = await done.settled(1000)
    assert outcome is TurnOutcome.PARTIALLY_REPLIED


@pytest.mark.case("C14")
async def test_the_same_text_twice_is_two_messages(gateway: Gateway) -> None:
    async def twice(handle) -> None:
        await handle.block("delivered")
        await handle.block("delivered")
        await handle.reply("delivered", "delivered")

    gateway.handler = twice
    kernel = await gateway.start()
    for number in ("1", "2"):
        done = await kernel.accept(inbound(number))
        await done.settled(1000)
    assert gateway.platform.contents == ["delivered"] * 8
    assert len({message.key for message in gateway.platform.messages}) == 8


@pytest.mark.case("C07", "I13")
async def test_what_recovery_sends_is_what_was_planned(gateway: Gateway) -> None:
    """The plan runs once, before anything is queued; recovery never plans again."""
    planned: list[str] = []

    def planner(payload):
        planned.append(payload.text)
        text = payload.text.removeprefix("MEDIA:")
        return [PlannedPart(payload=Text(f"<{text}>"), kind="text")]

    channel = PlatformChannel(gateway.platform, DeliveryClass.KEYED, planner=planner)
    gateway.platform.keyed = True
    gateway.channels = {("t", "default"): channel}
    gateway.platform.plays(hang())
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), "MEDIA:/path")
    await spin()
    kernel = await gateway.restart(kernel)
    await gateway.advance(1_000)
    await kernel.settled(done.entry_id, 1000)
    assert gateway.platform.contents == ["</path>"]
    assert planned == ["MEDIA:/path"]


@pytest.mark.case("C08")
async def test_the_queue_owns_a_copy_of_a_file(
    gateway: Gateway, tmp_path: Path
) -> None:
    path = tmp_path / "plot.png"
    path.write_bytes(b"bytes")
    got: list[bytes] = []

    class Keeper(PlatformChannel):
        async def send(self, part, key, attempt):
            if isinstance(part.payload, File):
                got.append(part.payload.data or b"")
            return await super().send(part, key, attempt)

    gateway.channels = {("t", "default"): Keeper(gateway.platform)}
    gateway.platform.plays(reject(FailureClass.CANCELLED))
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), File(path), "text")
    await spin()
    path.unlink()
    kernel = await gateway.restart(kernel)
    await gateway.advance(1_000)
    await kernel.settled(done.entry_id, 1000)
    assert got == [b"bytes", b"bytes"]
    assert gateway.platform.contents == ["[plot.png]", "text"]


@pytest.mark.case("C08")
async def test_a_file_that_is_not_there_is_refused_before_anything(
    lone: Gateway,
) -> None:
    kernel = await lone.start()
    with pytest.raises(InvalidInputError):
        await kernel.enqueue(route(), File("/nowhere/x.png"))
    assert kernel.health()["open_entries"] == 0


@pytest.mark.case("C08")
async def test_a_lost_body_ends_its_entry_and_not_the_lane(wild: Gateway) -> None:
    wild.channels = {("elsewhere", "default"): PlatformChannel(wild.platform)}
    kernel = await wild.start()
    done = await kernel.enqueue(route(), "gone")
    after = await kernel.enqueue(route(), "next")
    place = place_of(done.entry_id, entry(kernel, done.entry_id).body[0])
    await wild.crash(kernel)
    del wild.store().disk.bodies[place]
    wild.channels = {}
    kernel = await wild.start()
    await kernel.settled(after.entry_id, 1000)
    found = entry(kernel, done.entry_id)
    assert (found.phase, found.failure) == (Phase.FAILED, FailureClass.INVALID_PAYLOAD)
    assert wild.platform.contents == ["next"]


@pytest.mark.case("C09")
async def test_bodies_stay_as_long_as_their_entry_is_open(gateway: Gateway) -> None:
    gateway.platform.plays(*[reject(FailureClass.CANCELLED)] * 3)
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), File(data=b"x", name="a"), "text")
    await spin()
    for _ in range(4):
        kernel = await gateway.restart(kernel)
        for planned in entry(kernel, done.entry_id).parts:
            assert peek(kernel).body(done.entry_id, planned.body)
        await gateway.advance(10_000)
    await kernel.settled(done.entry_id, 1000)


@pytest.mark.case("C12")
async def test_later_parts_follow_the_thread_of_the_first(lone: Gateway) -> None:
    kernel = await lone.start()
    lone.platform.plays(accept_in("th1"))
    done = await kernel.enqueue(route(), "1", "2")
    explicit = await kernel.enqueue(route("43", thread="mine"), "3")
    await kernel.settled(done.entry_id, 1000)
    await kernel.settled(explicit.entry_id, 1000)
    threads = {m.content: m.thread for m in lone.platform.messages}
    assert threads == {"1": None, "2": "th1", "3": "mine"}


@pytest.mark.case("B12", "C15")
@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
async def test_nothing_to_see_is_suppressed_and_its_turn_silent(
    lone: Gateway, text: str
) -> None:
    async def blank(handle) -> None:
        await handle.reply(text)

    lone.handler = blank
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    assert await done.settled(1000) is TurnOutcome.SILENT
    assert lone.platform.calls == []
    final = turn(kernel, done.turn_id).finals[0]
    assert story(kernel, final) == ["queued", "aborted"]


@pytest.mark.case("C04", "C05")
async def test_native_payloads_and_many_files_all_go_out(lone: Gateway) -> None:
    kernel = await lone.start()
    files = [File(data=b"x", name=f"{n}.png") for n in range(3)]
    done = await kernel.enqueue(route(), Native({"quick": ["a"]}), *files)
    await kernel.settled(done.entry_id, 1000)
    assert lone.platform.contents == ["{quick}", "[0.png]", "[1.png]", "[2.png]"]


@pytest.mark.case("B15")
async def test_the_same_key_with_other_bytes_is_flagged_and_the_first_stands(
    gateway: Gateway,
) -> None:
    kernel = await gateway.start()
    first = await kernel.enqueue(route(), "a", key="k")
    await kernel.settled(first.entry_id, 1000)
    kernel = await gateway.restart(kernel)
    same = await kernel.enqueue(route(), "a", key="k")
    other = await kernel.enqueue(route(), "b", key="k")
    assert (first.new, same.new, other.new) == (True, False, False)
    assert (same.differs, other.differs) == (False, True)
    assert first.entry_id == same.entry_id == other.entry_id
    await spin()
    assert gateway.platform.contents == ["a"]


async def test_the_same_key_with_another_file_is_flagged(gateway: Gateway) -> None:
    kernel = await gateway.start()
    await kernel.enqueue(route(), File(data=b"1", name="a"), key="k")
    same = await kernel.enqueue(route(), File(data=b"1", name="a"), key="k")
    name = await kernel.enqueue(route(), File(data=b"1", name="b"), key="k")
    data = await kernel.enqueue(route(), File(data=b"2", name="a"), key="k")
    assert (same.differs, name.differs, data.differs) == (False, True, True)


async def test_long_text_is_split_once_and_attempts_count_per_part(
    lone: Gateway,
) -> None:
    lone.settings = Settings(max_failures=2)
    lone.channels = {("t", "default"): PlatformChannel(lone.platform, limit=10)}
    lone.platform.plays(
        reject(FailureClass.CANCELLED), accept(), reject(FailureClass.CANCELLED)
    )
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "aaaa bbbb cccc dddd")
    for _ in range(3):
        await lone.advance(5_000)
    await kernel.settled(done.entry_id, 1000)
    assert lone.platform.contents == ["aaaa bbbb", "cccc dddd"]
    assert [c[1:] for c in lone.platform.calls] == [(0, 1), (0, 2), (1, 1), (1, 2)]


@pytest.mark.case("L03")
@pytest.mark.parametrize("made", [None, "text", [Text("x")], 5])
async def test_a_plan_that_is_none_is_refused_at_the_call(
    lone: Gateway, made: object
) -> None:
    channel = PlatformChannel(lone.platform, planner=lambda _: made)
    lone.channels = {("t", "default"): channel}
    kernel = await lone.start()
    with pytest.raises(ContractError):
        await kernel.enqueue(route(), "x")
    assert kernel.health()["open_entries"] == 0


async def test_an_adapter_plan_that_breaks_later_refuses_its_entry_alone(
    lone: Gateway,
) -> None:
    client = await lone.start(work=False)
    client._desks.clear()
    bad = await client.enqueue(route(), "bad")
    good = await client.enqueue(route(), "good")

    def planner(payload):
        if payload.text == "bad":
            raise RuntimeError("plan")
        return [PlannedPart(payload=payload, kind="text")]

    channel = PlatformChannel(lone.platform, planner=planner)
    lone.channels = {("t", "default"): channel}
    kernel = await lone.start()
    await kernel.settled(good.entry_id, 1000)
    assert entry(kernel, bad.entry_id).reason == "refused"
    assert lone.platform.contents == ["good"]


@pytest.mark.parametrize(
    ("payloads", "more"),
    [
        ((), {}),
        ((None,), {}),
        ((b"x",), {}),
        (("x",), {"kind": "nonsense"}),
        (("x",), {"policy": "nonsense"}),
        (("x",), {"ttl_ms": 1.5}),
        (("x",), {"ttl_ms": "1"}),
        (("x",), {"ttl_ms": 0}),
        (("x",), {"ttl_ms": -1}),
        (("x",), {"ttl_ms": True}),
        (("x",), {"not_before": 1.5}),
        (("x",), {"key": ""}),
        (("x",), {"key": 5}),
        (("x",), {"key": "\ud800"}),
        (("\ud800",), {}),
    ],
)
async def test_what_cannot_be_queued_is_refused_and_leaves_nothing(
    gateway: Gateway, payloads, more
) -> None:
    kernel = await gateway.start()
    before = peek(kernel).head
    with pytest.raises(InvalidInputError):
        await kernel.enqueue(route(), *payloads, **more)
    assert peek(kernel).head == before


async def test_a_route_that_is_none_is_refused(lone: Gateway) -> None:
    kernel = await lone.start()
    with pytest.raises(InvalidInputError):
        await kernel.enqueue("t/42", "x")


async def test_a_kind_may_be_given_as_its_text(lone: Gateway) -> None:
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "x", kind="tool")
    assert entry(kernel, done.entry_id).kind is Kind.TOOL
