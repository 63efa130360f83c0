"""What happens when nobody knows: classes, windows, settle times, policies."""

import asyncio
from typing import Any

import pytest

from turnfold import BlindPolicy, DeliveryClass, FailureClass, Kernel, Settings
from turnfold._decide import outcomes
from turnfold._runtime import scheduler
from turnfold._runtime.programs import Append, Effect, Send
from turnfold._runtime.scheduler import Key
from turnfold.enums import Phase
from turnfold.errors import InvalidInputError
from turnfold.ports.channel import CannotTell, Found, Receipt, Unknown
from turnfold_adapters.stores.memory import MemoryStore
from turnfold_model.testing.gateway import (
    Gateway,
    driver_of,
    entry,
    events,
    peek,
    route,
    spin,
    story,
    until,
)
from turnfold_model.testing.platform import (
    Platform,
    PlatformChannel,
    hang,
    raises,
    reject,
    unknown,
    wait_for,
)

KEYED, LOOKUP = DeliveryClass.KEYED, DeliveryClass.LOOKUP
HOUR = 3_600_000


def attached(gateway: Gateway, *classes: DeliveryClass, **more) -> None:
    gateway.platform.keyed = KEYED in classes
    gateway.channels = {
        ("t", "default"): PlatformChannel(gateway.platform, *classes, **more)
    }


async def sent(gateway: Gateway, *acts, **more):
    """A kernel, and the id of one entry whose first attempt met these acts."""
    gateway.platform.plays(*acts)
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), "hi", **more)
    await spin()
    return kernel, done.entry_id


# --- A: write-ahead and crash windows ---


@pytest.mark.case("A02")
async def test_what_was_queued_and_not_attempted_is_sent_once_plainly(
    gateway: Gateway,
) -> None:
    client = await gateway.start(work=False)
    done = await client.enqueue(route(), "hi")
    assert [command.stream for command in peek(client).inbox()] == [done.entry_id]
    await gateway.crash(client)
    kernel = await gateway.start()
    await kernel.settled(done.entry_id, 1000)
    assert gateway.platform.messages[0].marked is False
    assert gateway.platform.calls == [(done.entry_id, 0, 1)]


@pytest.mark.case("A03")
async def test_an_attempt_that_never_reached_the_wire_is_simply_tried_again(
    gateway: Gateway,
) -> None:
    attached(gateway, prepares=True)
    gateway.platform.preparing.append(hang())
    kernel, name = await sent(gateway)
    assert entry(kernel, name).phase is Phase.ATTEMPTED
    kernel = await gateway.restart(kernel)
    await kernel.settled(name, 1000)
    assert len(gateway.platform.messages) == 1
    assert story(kernel, name)[:6] == [
        "queued",
        "planned",
        "attempted",
        "failed_retryable",
        "attempted",
        "dispatched",
    ]


@pytest.mark.case("A04", "B01")
@pytest.mark.parametrize("lands", [True, False])
async def test_blind_after_a_crash_on_the_wire_is_parked_and_never_sent_again(
    gateway: Gateway, lands: bool
) -> None:
    kernel, name = await sent(gateway, hang(lands=lands))
    assert entry(kernel, name).phase is Phase.DISPATCHED
    for _ in range(3):
        kernel = await gateway.restart(kernel)
        await gateway.advance(60_000)
        assert entry(kernel, name).phase is Phase.PARKED
    assert len(gateway.platform.calls) == 1


@pytest.mark.case("A04")
@pytest.mark.parametrize("landed", [True, False])
async def test_keyed_after_a_crash_on_the_wire_is_sent_under_the_same_key(
    gateway: Gateway, landed: bool
) -> None:
    attached(gateway, KEYED)
    go = asyncio.Event()
    kernel, name = await sent(gateway, unknown(lands=landed), wait_for(go))
    await gateway.advance(1_000)
    kernel = await gateway.restart(kernel)
    go.set()
    await gateway.advance(60_000)
    await kernel.settled(name, 1000)
    assert len(gateway.platform.messages) == 1
    assert not gateway.platform.doubled


@pytest.mark.case("A04", "B02")
@pytest.mark.parametrize("landed", [True, False])
async def test_lookup_after_a_crash_asks_before_it_sends(
    gateway: Gateway, landed: bool
) -> None:
    attached(gateway, LOOKUP)
    kernel, name = await sent(gateway, unknown(lands=landed))
    await kernel.settled(name, 1000)
    assert gateway.platform.asked == [(name, 0)]
    assert len(gateway.platform.messages) == 1
    assert len(gateway.platform.calls) == (1 if landed else 2)


@pytest.mark.case("A05")
async def test_a_delivered_entry_is_not_touched_by_restarts(gateway: Gateway) -> None:
    kernel, name = await sent(gateway)
    await kernel.settled(name, 1000)
    before = peek(kernel).head
    for _ in range(2):
        kernel = await gateway.restart(kernel)
        await gateway.advance(HOUR)
    assert peek(kernel).head == before  # opening a store changes nothing
    assert len(gateway.platform.calls) == 1


@pytest.mark.case("A07")
async def test_an_old_attempt_is_found_by_ownership_not_by_age(
    gateway: Gateway,
) -> None:
    kernel, name = await sent(gateway, hang())
    kernel = await gateway.restart(kernel)  # not a millisecond later
    await spin()
    assert entry(kernel, name).phase is Phase.PARKED


@pytest.mark.case("A11", "D08")
async def test_back_off_and_attempts_survive_crashes(gateway: Gateway) -> None:
    failing = [reject(FailureClass.CANCELLED)] * 3
    kernel, name = await sent(gateway, *failing)
    for used, wait in ((1, 1_000), (2, 2_000), (3, 4_000)):
        kernel = await gateway.restart(kernel)
        assert entry(kernel, name).used == used
        await gateway.advance(wait - 1)
        assert len(gateway.platform.calls) == used
        await gateway.advance(1)
    await kernel.settled(name, 1000)
    assert [attempt for _, _, attempt in gateway.platform.calls] == [1, 2, 3, 4]


@pytest.mark.case("A10")
async def test_a_hook_that_raises_disturbs_nothing(lone: Gateway) -> None:
    seen: list[str] = []

    def broken(found) -> None:
        seen.append(found.stream)
        raise RuntimeError("hook")

    lone.platform.plays(reject(FailureClass.PERMISSION), unknown())
    kernel = await lone.start()
    for register in (
        kernel.hooks.on_terminal,
        kernel.hooks.on_parked,
        kernel.hooks.on_bounced,
    ):
        register(broken)
    first = await kernel.enqueue(route(), "1")
    second = await kernel.enqueue(route(), "2")
    await kernel.settled(first.entry_id, 1000)
    await spin()
    await lone.advance(1_000)
    third = await kernel.enqueue(route(), "3")
    await kernel.settled(third.entry_id, 1000)
    await kernel.bounced(third.entry_id)
    await until(lambda: len(seen) == 3)
    assert seen == [first.entry_id, second.entry_id, third.entry_id]
    assert entry(kernel, second.entry_id).phase is Phase.PARKED
    assert len(lone.platform.calls) == 3


# --- B: unknown outcomes ---


@pytest.mark.case("B01")
@pytest.mark.parametrize(
    ("policy", "calls", "phase"),
    [
        (BlindPolicy.HOLD, 1, Phase.PARKED),
        (BlindPolicy.RESEND, 2, Phase.DELIVERED),
        (BlindPolicy.RESEND_MARKED, 2, Phase.DELIVERED),
        (BlindPolicy.DROP, 1, Phase.FAILED),
    ],
)
async def test_each_blind_policy_does_what_it_says(
    lone: Gateway, policy: BlindPolicy, calls: int, phase: Phase
) -> None:
    kernel, name = await sent(lone, unknown(), policy=policy)
    await lone.advance(1_000)
    found = entry(kernel, name)
    assert (len(lone.platform.calls), found.phase) == (calls, phase)
    if phase is Phase.FAILED:
        assert found.reason == "outcome_unknown"
    marked = [message.marked for message in lone.platform.messages]
    assert marked == ([policy is BlindPolicy.RESEND_MARKED] if calls == 2 else [])


@pytest.mark.parametrize(
    ("said", "own", "calls"),
    [("drop", None, 1), ("hold", "resend", 2), ("resend", "hold", 1)],
)
async def test_the_plan_freezes_the_policy_of_the_channel(
    lone: Gateway, said: str, own: str | None, calls: int
) -> None:
    """An entry that was given its own keeps that, and a later attach changes neither."""
    lone.on_unknown = said
    kernel, name = await sent(lone, unknown(), policy=own)
    lone.on_unknown = "resend_marked"
    kernel = await lone.restart(kernel)
    assert entry(kernel, name).on_unknown == (own or said)
    await lone.advance(1_000)
    assert len(lone.platform.calls) == calls


@pytest.mark.case("V11")
async def test_an_entry_cannot_ask_for_a_mark_that_its_channel_does_not_show(
    lone: Gateway,
) -> None:
    kernel = await lone.start()
    kernel.attach("plain", Unmarked(), on_unknown="hold")
    with pytest.raises(InvalidInputError, match="marks=True"):
        await kernel.enqueue(route(channel="plain"), "x", policy="resend_marked")
    early = await kernel.enqueue(route(channel="later"), "x", policy="resend_marked")
    kernel.attach("later", Unmarked(), on_unknown="drop")
    await spin()
    assert entry(kernel, early.entry_id).phase is Phase.PARKED
    assert entry(kernel, early.entry_id).on_unknown is BlindPolicy.HOLD


@pytest.mark.case("V14")
@pytest.mark.parametrize(
    ("before", "after", "calls"),
    [((KEYED,), (KEYED,), 2), ((KEYED,), (), 1), ((), (KEYED,), 1), ((LOOKUP,), (), 1)],
)
async def test_a_part_in_doubt_relies_on_what_plan_and_channel_both_name(
    lone: Gateway,
    before: tuple[DeliveryClass, ...],
    after: tuple[DeliveryClass, ...],
    calls: int,
) -> None:
    attached(lone, *before)
    kernel, name = await sent(lone, hang())
    attached(lone, *after)
    kernel = await lone.restart(kernel)
    await lone.advance(60_000)
    assert len(lone.platform.calls) == calls
    assert not lone.platform.asked
    held = entry(kernel, name).phase is Phase.PARKED
    assert held == (calls == 1)


@pytest.mark.case("V14")
async def test_absence_counts_after_the_longer_settle_time(lone: Gateway) -> None:
    attached(lone, LOOKUP, settle_ms=1_000)
    kernel, _ = await sent(lone, hang())
    attached(lone, LOOKUP, settle_ms=30_000)
    kernel = await lone.restart(kernel)
    await lone.advance(29_000)
    assert len(lone.platform.calls) == 1
    await lone.advance(2_000)
    assert len(lone.platform.calls) == 2


@pytest.mark.case("V11", "V14")
async def test_a_part_is_held_where_its_channel_shows_no_mark_any_more(
    lone: Gateway,
) -> None:
    lone.on_unknown = "resend_marked"
    kernel, name = await sent(lone, hang())
    plain = Unmarked()
    lone.channels = {("t", "default"): plain}
    lone.on_unknown = "hold"
    kernel = await lone.restart(kernel)
    await lone.advance(60_000)
    assert not plain.calls
    assert entry(kernel, name).phase is Phase.PARKED


class Unmarked:
    calls = 0

    async def send(self, part: Any, key: str, attempt: Any) -> Unknown:
        self.calls += 1
        return Unknown(cause="cut")


async def test_a_resend_by_policy_is_in_the_log_before_it_happens(
    lone: Gateway,
) -> None:
    kernel, name = await sent(lone, unknown(), policy=BlindPolicy.RESEND)
    await lone.advance(1_000)
    told = story(kernel, name)
    assert told.index("resolved") < told.index("attempted", 3)


@pytest.mark.case("B01")
@pytest.mark.parametrize("policy", [BlindPolicy.RESEND, BlindPolicy.RESEND_MARKED])
@pytest.mark.parametrize("times", [None, 0, 2])
async def test_a_policy_sends_again_so_often_and_then_asks_a_person(
    lone: Gateway, policy: BlindPolicy, times: int | None
) -> None:
    """Once, unless the setting says otherwise. The person may send it again after it."""
    if times is not None:
        lone.settings = Settings(max_resends=times)
    kernel, name = await sent(lone, *[unknown()] * 9, policy=policy)
    for _ in range(9):
        await lone.advance(60_000)
    sends = 1 + (1 if times is None else times)
    assert len(lone.platform.calls) == sends
    assert entry(kernel, name).phase is Phase.PARKED
    assert (await kernel.inspect.show(name)).next.person
    await kernel.resolve(name, "resend", by="you")
    await spin()
    assert len(lone.platform.calls) == sends + 1


async def test_a_deferral_costs_nothing_while_an_older_attempt_is_in_doubt(
    lone: Gateway,
) -> None:
    """The word that allowed the attempt allows the next one, and the doubt stays."""
    limit = reject(FailureClass.RATE_LIMITED, retry_after_ms=1_000)
    kernel, name = await sent(lone, unknown(), *[limit] * 12, policy=BlindPolicy.RESEND)
    for _ in range(12):
        await lone.advance(1_000)
        found = entry(kernel, name)
        assert (found.phase, found.doubt, found.resend) == (Phase.IN_DOUBT, True, True)
        assert found.used <= 1
    await lone.advance(1_000)
    assert entry(kernel, name).phase is Phase.DELIVERED
    assert len(lone.platform.calls) == 14
    told = story(kernel, name)
    assert (told.count("resolved"), told.count("deferred")) == (1, 12)


async def test_a_resend_policy_ends_with_the_budget(lone: Gateway) -> None:
    lone.settings = Settings(max_failures=3, max_resends=9)
    kernel, name = await sent(lone, *[unknown()] * 9, policy=BlindPolicy.RESEND)
    for _ in range(9):
        await lone.advance(60_000)
    assert len(lone.platform.calls) == 3
    assert entry(kernel, name).reason == "outcome_unknown"


@pytest.mark.case("B04")
@pytest.mark.parametrize(
    "answer", [RuntimeError("down"), CannotTell(), None, "absent", True]
)
async def test_a_look_up_that_cannot_tell_never_sends_again(
    lone: Gateway, answer
) -> None:
    attached(lone, LOOKUP)
    lone.platform.verdicts.extend([answer] * 20)
    kernel, name = await sent(lone, unknown())
    for _ in range(30):
        await lone.advance(900_000)
    assert entry(kernel, name).phase is Phase.PARKED
    assert len(lone.platform.calls) == 1
    assert len(lone.platform.asked) == lone.settings.max_lookups


@pytest.mark.case("L05", "B09")
@pytest.mark.parametrize("ids", [(), ("",), None, (None,), ("a\0b",), ("\ud800",)])
async def test_a_look_up_without_a_receipt_settles_nothing(lone: Gateway, ids) -> None:
    attached(lone, LOOKUP)
    receipt = Receipt(ids=ids) if ids is not None else None
    lone.platform.verdicts.append(Found(receipt=receipt))
    kernel, name = await sent(lone, unknown(lands=True))
    assert entry(kernel, name).doubt
    await lone.advance(1_000)  # the next look-up tells the truth
    assert entry(kernel, name).phase is Phase.DELIVERED


@pytest.mark.case("B05")
async def test_a_look_up_waits_for_its_adapter_and_spends_nothing(
    gateway: Gateway,
) -> None:
    attached(gateway, LOOKUP)
    kernel, name = await sent(gateway, hang(lands=True))
    channels, gateway.channels = (
        gateway.channels,
        {("other", "default"): PlatformChannel(Platform())},
    )
    kernel = await gateway.restart(kernel)
    for _ in range(20):
        await gateway.advance(60_000)
    found = entry(kernel, name)
    assert (found.phase, found.asks) == (Phase.IN_DOUBT, 0)
    kernel.attach("t", channels["t", "default"], on_unknown="hold")
    await kernel.settled(name, 1000)
    assert len(gateway.platform.calls) == 1


@pytest.mark.case("B06", "D18")
async def test_a_call_beyond_its_deadline_is_unknown_not_failed(
    lone: Gateway,
) -> None:
    lone.settings = Settings(attempt_deadline_ms=10)
    kernel, name = await sent(lone, hang())
    await until(lambda: entry(kernel, name).doubt)
    assert entry(kernel, name).reason == "deadline"


@pytest.mark.case("D18")
async def test_a_hanging_adapter_blocks_its_own_lane_only(
    lone: Gateway, impatient: None
) -> None:
    lone.settings = Settings(attempt_deadline_ms=20)
    go = asyncio.Event()
    lone.platform.plays(wait_for(go, deaf=True), conversation="42")
    kernel, name = await sent(lone)
    other = await kernel.enqueue(route("43"), "other")
    await kernel.settled(other.entry_id, 1000)
    await until(lambda: entry(kernel, name).doubt)
    assert kernel.health()["hung_calls"] == 1
    await lone.advance(1_000)
    assert entry(kernel, name).phase is Phase.PARKED
    go.set()  # it did succeed, long after we gave it up: that is evidence
    await until(lambda: entry(kernel, name).phase is Phase.DELIVERED)
    assert story(kernel, name)[-1] == "late_receipt"
    assert kernel.health()["hung_calls"] == 0


async def test_while_a_call_hangs_absence_is_never_believed(
    lone: Gateway, impatient: None
) -> None:
    lone.settings = Settings(attempt_deadline_ms=10)
    attached(lone, LOOKUP)
    go = asyncio.Event()
    kernel, name = await sent(lone, wait_for(go, deaf=True))
    await until(lambda: lone.platform.asked)
    for _ in range(4):
        await lone.advance(2_000)
    assert len(lone.platform.calls) == 1
    go.set()
    await until(lambda: entry(kernel, name).phase is Phase.DELIVERED)
    assert not lone.platform.doubled


async def test_doubt_is_sticky_through_definite_refusals(lone: Gateway) -> None:
    attached(lone, KEYED)
    refusals = [reject(FailureClass.CANCELLED), reject(FailureClass.RATE_LIMITED)]
    kernel, name = await sent(lone, unknown(), *refusals)
    for _ in range(2):
        await lone.advance(10_000)
        assert entry(kernel, name).doubt
        assert entry(kernel, name).doubt
    await lone.advance(60_000)
    assert entry(kernel, name).phase is Phase.DELIVERED


async def test_a_refusal_for_good_of_a_doubtful_part_is_not_called_undelivered(
    lone: Gateway,
) -> None:
    attached(lone, KEYED)
    kernel, name = await sent(lone, unknown(lands=True), reject(FailureClass.TOO_LONG))
    await lone.advance(1_000)
    assert entry(kernel, name).reason == "outcome_unknown"


async def test_a_key_is_used_only_inside_half_of_its_window(lone: Gateway) -> None:
    attached(lone, KEYED, key_window_ms=10_000)
    kernel, name = await sent(lone, *[unknown()] * 9)
    await lone.advance(1_000)  # the second attempt, at 1 s
    await lone.advance(2_000)  # the third, at 3 s
    assert len(lone.platform.calls) == 3
    await lone.advance(4_000)  # 7 s: a clock set back could be past 10 s
    assert len(lone.platform.calls) == 3
    assert entry(kernel, name).phase is Phase.PARKED


async def test_a_key_out_of_its_window_falls_back_to_asking(lone: Gateway) -> None:
    attached(lone, KEYED, LOOKUP, key_window_ms=1_000)
    kernel, name = await sent(lone, unknown(lands=True))
    await lone.advance(1_000)
    assert entry(kernel, name).phase is Phase.DELIVERED
    assert len(lone.platform.calls) == 1
    assert lone.platform.asked == [(name, 0)]


async def test_absence_counts_only_after_the_settle_time(gateway: Gateway) -> None:
    attached(gateway, LOOKUP, settle_ms=30_000)
    kernel, name = await sent(gateway, unknown())
    await gateway.advance(29_999)
    assert len(gateway.platform.calls) == 1
    await gateway.advance(1)
    await kernel.settled(name, 1000)
    assert len(gateway.platform.calls) == 2


async def test_settle_time_is_monotonic_and_begins_again_with_the_process(
    gateway: Gateway,
) -> None:
    attached(gateway, LOOKUP, settle_ms=30_000)
    kernel, name = await sent(gateway, hang())
    gateway.clock.jump_ms(HOUR)  # the wall says that an hour is over
    kernel = await gateway.restart(kernel)
    await gateway.advance(29_000)
    assert len(gateway.platform.calls) == 1
    await gateway.advance(1_000)
    await kernel.settled(name, 1000)
    assert len(gateway.platform.messages) == 1


async def test_settle_time_counts_from_the_takeover_of_a_standby(
    gateway: Gateway,
) -> None:
    attached(gateway, LOOKUP, settle_ms=30_000)
    first = await gateway.start()
    second = await gateway.start()  # stands by for a long time
    await gateway.advance(HOUR)
    gateway.platform.plays(hang())
    name = (await first.enqueue(route(), "hi")).entry_id
    await until(lambda: gateway.platform.calls)
    clock = gateway.clock
    await gateway.crash(first)
    gateway.clock = clock
    await until(lambda: second.working)
    await spin()  # its first look-up is answered: too early to count
    await gateway.advance(29_000)
    assert len(gateway.platform.calls) == 1  # it may still land
    await gateway.advance(1_000)
    await until(lambda: entry(second, name).phase is Phase.DELIVERED)
    assert len(gateway.platform.messages) == 1


@pytest.mark.case("B18")
async def test_a_receipt_that_comes_before_the_next_send_stops_it(
    lone: Gateway, impatient: None
) -> None:
    """INV-4, in the moment between the dispatch and the wire."""
    lone.settings = Settings(attempt_deadline_ms=10, concurrent_sends=1)
    attached(lone, KEYED, prepares=True)
    first, block = asyncio.Event(), asyncio.Event()
    kernel, name = await sent(lone, wait_for(first, deaf=True))
    await until(lambda: entry(kernel, name).doubt)
    lone.platform.plays(wait_for(block), conversation="43")
    driver_of(kernel).sender._settings = Settings()
    other = await kernel.enqueue(route("43"), "other")  # takes the only place
    await lone.advance(1_000)
    await until(lambda: entry(kernel, name).phase is Phase.DISPATCHED)
    first.set()
    await until(lambda: entry(kernel, name).phase is Phase.DELIVERED)
    block.set()
    await kernel.settled(other.entry_id, 1000)
    await spin()
    assert [call for call in lone.platform.calls if call[0] == name] == [(name, 0, 1)]
    assert not driver_of(kernel).troubles


async def test_no_more_is_sent_at_once_than_the_settings_allow(lone: Gateway) -> None:
    lone.settings = Settings(concurrent_sends=1)
    go = asyncio.Event()
    kernel, _ = await sent(lone, wait_for(go))
    other = await kernel.enqueue(route("43"), "other")
    await spin()
    assert len(lone.platform.calls) == 1
    go.set()
    await kernel.settled(other.entry_id, 1_000)


async def test_an_attempt_goes_to_the_wire_once_in_the_life_of_a_process(
    lone: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its program breaks when the outcome is there, and is started again."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(outcomes, "settle", broken)
        kernel, name = await sent(lone)
        await until(lambda: driver_of(kernel).troubles)
    await lone.advance(5_000)
    await kernel.settled(name, 1_000)
    assert story(kernel, name)[2:] == ["attempted", "delivered"]
    assert len(lone.platform.calls) == 1


@pytest.mark.case("G02")
async def test_an_attempt_is_carried_once_though_a_lane_program_looks_at_the_same_time(
    lone: Gateway,
) -> None:
    go = asyncio.Event()
    kernel, name = await sent(lone, wait_for(go))
    await until(lambda: lone.platform.calls)
    driver_of(kernel).start([Key("lane", entry(kernel, name).lane)])
    await spin()
    go.set()
    await kernel.settled(name, 1_000)
    await spin()
    assert story(kernel, name)[2:] == ["attempted", "delivered"]
    assert len(lone.platform.calls) == 1


async def test_no_lane_program_looks_at_a_message_that_is_sent_at_once() -> None:
    """The commit of its `queued` hands its attempt out."""
    seen: list[Effect] = []
    kernel = Kernel(MemoryStore(), probe=lambda _, effect: seen.append(effect))
    kernel.attach("t", PlatformChannel(Platform()), on_unknown="hold")
    async with kernel:
        seen.clear()  # of what opening does
        done = await kernel.enqueue(route(), "hi")
        await kernel.settled(done.entry_id, 1_000)
    assert {type(effect) for effect in seen} == {Send, Append}


@pytest.mark.case("A06")
async def test_a_drain_records_that_an_attempt_nobody_took_up_was_not_sent(
    lone: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(scheduler, "taken_up", lambda *_: [])
        kernel, name = await sent(lone)
    assert entry(kernel, name).phase is Phase.DISPATCHED
    await kernel.drain(0)
    assert events(kernel, name)[-1].failure is FailureClass.DRAIN
    assert not lone.platform.calls


@pytest.mark.case("B07", "B06")
async def test_only_what_the_adapter_classifies_as_unsent_is_unsent(
    lone: Gateway,
) -> None:
    def classify(exc):
        from turnfold import Rejected

        cause = exc.__cause__ or exc
        refused = isinstance(cause, ConnectionRefusedError)
        return Rejected(failure=FailureClass.CANCELLED) if refused else None

    attached(lone, classify=classify)
    wrapped = TimeoutError("generic")
    wrapped.__cause__ = ConnectionRefusedError()
    lone.platform.plays(raises(ConnectionResetError(), lands=True), conversation="43")
    kernel, name = await sent(lone, raises(wrapped))
    assert entry(kernel, name).phase is Phase.RETRYABLE
    other = await kernel.enqueue(route("43"), "other")
    await spin()
    assert entry(kernel, other.entry_id).doubt


@pytest.mark.case("B18")
async def test_a_late_success_of_a_settled_part_changes_and_logs_nothing(
    lone: Gateway, impatient: None
) -> None:
    lone.settings = Settings(attempt_deadline_ms=10)
    attached(lone, KEYED)
    go = asyncio.Event()
    kernel, name = await sent(lone, wait_for(go, deaf=True))
    await until(lambda: entry(kernel, name).doubt)
    await lone.advance(1_000)
    await until(lambda: entry(kernel, name).phase is Phase.DELIVERED)
    before = peek(kernel).head
    go.set()
    await until(lambda: kernel.health()["hung_calls"] == 0)
    await spin()
    assert peek(kernel).head == before
    assert not lone.platform.doubled
