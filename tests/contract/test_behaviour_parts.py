"""Replies in several parts: frozen once, resumed at the first unsent one."""

from functools import partial
from pathlib import Path

import pytest

from turnfold import (
    DeliveryClass,
    FailureClass,
    File,
    Kernel,
    Native,
    Payload,
    Settings,
    Text,
    TurnHandle,
)
from turnfold._decide import outcomes
from turnfold._log.bodies import place_of
from turnfold._log.codec import decode
from turnfold._log.events import NAMES
from turnfold._state.entry import Entry
from turnfold.enums import Decoration, Kind, PartEnd, Phase, Reason, TurnOutcome
from turnfold.errors import ContractError, InvalidInputError
from turnfold.inspect import EntryView
from turnfold.notices import DEFAULTS
from turnfold.ports.channel import Attempt, Part, PlannedPart, Rejected
from turnfold_model.testing.gateway import (
    Gateway,
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
    Act,
    Platform,
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


@pytest.mark.case("U12")
async def test_an_adapter_plan_that_breaks_later_refuses_its_entry_alone(
    lone: Gateway, caplog: pytest.LogCaptureFixture
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
    ended = entry(kernel, bad.entry_id)
    assert (ended.reason, ended.failure) == ("refused", FailureClass.INVALID_PAYLOAD)
    assert lone.platform.contents == ["good"]
    health = kernel.health()
    assert (health["dead_letters"], health["foreign_bugs"]["t/default"]) == (1, 1)
    assert any(record.exc_info for record in caplog.records)
    shown = await kernel.inspect.show(bad.entry_id)
    assert isinstance(shown, EntryView)
    assert "RuntimeError: plan" in str(shown)


async def test_an_entry_whose_channel_is_detached_before_its_plan_waits(
    lone: Gateway,
) -> None:
    client = await lone.start(work=False)
    client._desks.clear()
    made = await client.enqueue(route(), "x")
    lone.channels = {("other", "default"): PlatformChannel(lone.platform)}
    kernel = await lone.start()
    gone = Rejected(failure=FailureClass.NOT_CONNECTED)
    decision = partial(outcomes.refuse_plan, stream=made.entry_id, outcome=gone)
    await driver_of(kernel).submit(decision)
    assert entry(kernel, made.entry_id).phase is Phase.QUEUED


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


# --- V: parts that fail alone ---

BARRED = FailureClass.INVALID_PAYLOAD
INCOMPLETE = "1 of 3 parts of the answer could not be delivered."
BAD, OK = File(data=b"x", name="bad.png"), File(data=b"y", name="ok.png")


async def answered(gateway: Gateway, *payloads: Payload | str) -> tuple[Kernel, str]:
    """A kernel and its turn, whose answer has these payloads."""

    async def answer(handle: TurnHandle) -> None:
        await handle.reply(*payloads)

    gateway.handler = answer
    kernel = await gateway.start()
    accepted = await kernel.accept(inbound())
    await spin()
    return kernel, accepted.turn_id


@pytest.mark.case("V01")
async def test_a_refused_picture_does_not_take_the_words_with_it(
    gateway: Gateway,
) -> None:
    gateway.platform.plays(reject(BARRED, detail="no picture"))
    kernel, name = await answered(gateway, BAD, "It is 42.", OK)
    assert gateway.platform.contents == ["It is 42.", "[ok.png]", INCOMPLETE]
    found = turn(kernel, name)
    assert found.outcome is TurnOutcome.PARTIALLY_REPLIED
    final = entry(kernel, found.finals[0])
    assert (final.phase, final.reason) == (Phase.FAILED, Reason.PARTIAL)
    view = await kernel.inspect.show(final.stream)
    assert (view.delivered, len(view.parts)) == (2, 3)
    told = "\n".join(happened.text for happened in view.happened)
    assert "part 1 will never be accepted (invalid_payload)" in told


@pytest.mark.case("V01")
async def test_once_a_part_was_refused_words_go_before_files(lone: Gateway) -> None:
    lone.platform.plays(reject(BARRED))
    await answered(lone, BAD, OK, "It is 42.")
    assert lone.platform.contents == ["It is 42.", "[ok.png]", INCOMPLETE]


@pytest.mark.case("V01")
async def test_a_part_that_was_refused_stays_refused_after_a_crash(
    gateway: Gateway,
) -> None:
    gateway.platform.plays(reject(BARRED), hang())
    kernel, name = await answered(gateway, BAD, "words")
    kernel = await gateway.restart(kernel)
    final = entry(kernel, turn(kernel, name).finals[0])
    assert [state.end for state in final.others] == [PartEnd.REFUSED]
    calls = [part for to, part, _ in gateway.platform.calls if to == final.stream]
    assert calls == [0, 1]


@pytest.mark.case("V01")
async def test_an_answer_of_which_nothing_is_taken_is_refused(lone: Gateway) -> None:
    lone.platform.plays(reject(BARRED), reject(FailureClass.TOO_LONG))
    kernel, name = await answered(lone, BAD, "words")
    found = turn(kernel, name)
    final = entry(kernel, found.finals[0])
    assert (final.reason, final.failure) == (Reason.REFUSED, FailureClass.TOO_LONG)
    assert found.outcome is TurnOutcome.FAILED
    assert lone.platform.contents == [DEFAULTS["undeliverable"]]
    assert story(kernel, final.stream)[-4:] == [
        *("attempted", "part_refused", "failed_terminal", "lane_yielded")
    ]


@pytest.mark.case("V01")
@pytest.mark.parametrize("failure", [FailureClass.PERMISSION, FailureClass.TARGET_GONE])
async def test_where_nobody_reads_the_whole_answer_ends(
    lone: Gateway, failure: FailureClass
) -> None:
    lone.platform.plays(accept(), reject(failure))
    kernel, name = await answered(lone, "one", "two", "three")
    assert lone.platform.contents == ["one"]
    assert turn(kernel, name).outcome is TurnOutcome.PARTIALLY_REPLIED
    assert turn(kernel, name).notice is None


@pytest.mark.case("V01")
async def test_a_refusal_says_nothing_of_an_older_attempt_in_doubt(
    lone: Gateway,
) -> None:
    channel = PlatformChannel(lone.platform, DeliveryClass.KEYED)
    lone.channels = {("t", "default"): channel}
    lone.platform.plays(unknown(lands=True), reject(BARRED))
    kernel, name = await answered(lone, "one", "two")
    await lone.advance(1_000)
    final = entry(kernel, turn(kernel, name).finals[0])
    assert final.doubt or final.reason == Reason.OUTCOME_UNKNOWN
    assert "part_refused" not in story(kernel, final.stream)


@pytest.mark.case("V01")
async def test_a_refused_part_is_redriven_under_a_new_key_and_nothing_else(
    lone: Gateway,
) -> None:
    lone.platform.plays(accept(), reject(BARRED))
    kernel, name = await answered(lone, "one", "two", "three")
    final = turn(kernel, name).finals[0]
    before = [part.key for part in entry(kernel, final).parts]
    await kernel.redrive(final, by="me")
    await kernel.settled(final, 1_000)
    after = [part.key for part in entry(kernel, final).parts]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    assert lone.platform.contents == ["one", "three", INCOMPLETE, "two"]
    assert turn(kernel, name).outcome is TurnOutcome.REPLIED


@pytest.mark.case("V01")
async def test_what_the_user_stopped_is_not_called_missing(lone: Gateway) -> None:
    lone.platform.plays(reject(BARRED), hang())
    kernel, name = await answered(lone, BAD, "words")
    await kernel.abort(name)
    await lone.advance(120_000)
    assert lone.platform.contents == []
    assert not [e for e in await kernel.inspect.list() if e.kind is Kind.NOTICE]


# --- V: decorations ---

NO_DECORATION = FailureClass.DECORATION


class Shown(PlatformChannel):
    """Keeps what each call would have shown."""

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform)
        self.sent: list[tuple[str, str | None, str | None, str]] = []

    async def send(self, part: Part, key: str, attempt: Attempt) -> object:
        assert isinstance(part.payload, Text)
        place = part.route.thread, part.route.reply_to
        self.sent.append((part.payload.text, *place, key))
        return await super().send(part, key, attempt)


async def decorated(
    gateway: Gateway, *acts: Act, text: str = "<b>hi</b> &amp; <i>you</i>"
) -> tuple[Shown, Entry]:
    """A text with format, thread and reply, and the answers that it meets."""
    channel = Shown(gateway.platform)
    gateway.channels = {("t", "default"): channel}
    gateway.platform.plays(*acts)
    kernel = await gateway.start()
    place = route(thread="7", reply_to="1")
    done = await kernel.enqueue(place, Text(text, format="html"))
    await spin()
    return channel, entry(kernel, done.entry_id)


@pytest.mark.case("V04")
@pytest.mark.parametrize(
    ("refused", "shown"),
    [
        (Decoration.THREAD, ("<b>hi</b> &amp; <i>you</i>", None, "1")),
        (Decoration.REPLY_TO, ("<b>hi</b> &amp; <i>you</i>", "7", None)),
        (Decoration.FORMAT, ("hi & you", "7", "1")),
        ("nonsense", ("hi & you", "7", "1")),
    ],
)
async def test_a_refused_decoration_is_left_out_by_the_next_attempt(
    lone: Gateway, refused: Decoration, shown: tuple[str, str | None, str | None]
) -> None:
    channel, found = await decorated(lone, reject(NO_DECORATION, decoration=refused))
    assert found.phase is Phase.DELIVERED
    assert channel.sent[1][:3] == shown
    assert channel.sent[0][3] != channel.sent[1][3], "another body, another key"


@pytest.mark.case("V04")
async def test_the_loss_of_every_decoration_ends_nothing_and_costs_nothing(
    lone: Gateway,
) -> None:
    lone.settings = Settings(max_failures=1)
    channel, found = await decorated(lone, *[reject(NO_DECORATION)] * 3)
    assert found.phase is Phase.DELIVERED
    assert [sent[:3] for sent in channel.sent] == [
        ("<b>hi</b> &amp; <i>you</i>", "7", "1"),
        ("hi & you", "7", "1"),
        ("hi & you", "7", None),
        ("hi & you", None, None),
    ]


@pytest.mark.case("V04")
async def test_a_platform_that_goes_on_refusing_what_is_not_there_is_counted(
    lone: Gateway,
) -> None:
    lone.settings = Settings(max_failures=1)
    channel, found = await decorated(lone, *[reject(NO_DECORATION)] * 4)
    assert len(channel.sent) == 4
    assert (found.phase, found.reason) == (Phase.FAILED, Reason.ATTEMPTS_EXHAUSTED)


@pytest.mark.case("V04")
async def test_a_decoration_that_was_dropped_stays_dropped_after_a_crash(
    lone: Gateway,
) -> None:
    refusal = reject(NO_DECORATION, decoration=Decoration.THREAD)
    channel, found = await decorated(lone, refusal, hang())
    kernel = await lone.restart(lone.alive[0])
    assert entry(kernel, found.stream).current.dropped == (Decoration.THREAD,)
    await kernel.resolve(found.stream, "not_sent", by="me")
    await spin()
    assert channel.sent[-1][1:3] == (None, "1")


# --- V: a hold and a bounce reach the reader ---


async def long_and_short(handle: TurnHandle) -> None:
    """Two parts for a long question, one for a short one."""
    words = ("one", "two") if handle.inbound.text == "long" else ("other",)
    await handle.reply(*words)


@pytest.mark.case("V03", "B19")
async def test_a_hold_reaches_the_reader_before_the_lane_passes_it(
    gateway: Gateway,
) -> None:
    gateway.handler = long_and_short
    gateway.platform.plays(accept(), unknown())
    kernel = await gateway.start()
    first = await kernel.accept(inbound(text="long"))
    await spin()
    await kernel.accept(inbound("2", text="short"))
    await spin()
    told = DEFAULTS["interrupted"]
    assert gateway.platform.contents == ["one", told, "other"]
    assert turn(kernel, first.turn_id).open
    kernel = await gateway.restart(kernel)
    await gateway.advance(25 * 3_600_000)
    assert gateway.platform.contents == ["one", told, "other"], "told once"


@pytest.mark.case("V03")
async def test_a_notice_of_a_hold_is_withdrawn_when_the_answer_arrives(
    lone: Gateway,
) -> None:
    lone.handler = long_and_short
    limit = reject(FailureClass.RATE_LIMITED, retry_after_ms=60_000)
    lone.platform.plays(unknown(), limit)
    kernel = await lone.start()
    accepted = await kernel.accept(inbound(text="short"))
    await spin()
    final = turn(kernel, accepted.turn_id).finals[0]
    await kernel.resolve(final, "delivered", by="me")
    await lone.advance(120_000)
    assert lone.platform.contents == []
    assert turn(kernel, accepted.turn_id).outcome is TurnOutcome.REPLIED


@pytest.mark.case("V03")
async def test_a_hold_of_what_answers_nobody_is_not_told(lone: Gateway) -> None:
    lone.platform.plays(unknown())
    kernel = await lone.start()
    done = await kernel.enqueue(route("43"), "reminder")
    await spin()
    assert entry(kernel, done.entry_id).phase is Phase.PARKED
    assert lone.platform.contents == []


@pytest.mark.case("V05")
async def test_a_bounce_reaches_the_reader_and_a_redrive_pays_the_debt(
    gateway: Gateway,
) -> None:
    gateway.handler = long_and_short
    kernel = await gateway.start()
    accepted = await kernel.accept(inbound(text="short"))
    await accepted.settled(1_000)
    final = turn(kernel, accepted.turn_id).finals[0]
    key = entry(kernel, final).parts[0].key
    await kernel.bounced(final, detail="blocked")
    await spin()
    told = DEFAULTS["undeliverable"]
    assert gateway.platform.contents == ["other", told]
    await kernel.redrive(final, by="me")
    await spin()
    assert gateway.platform.contents == ["other", told, "other"]
    assert entry(kernel, final).parts[0].key != key
    assert turn(kernel, accepted.turn_id).outcome is TurnOutcome.REPLIED
