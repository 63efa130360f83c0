"""What waits and for how long: back-off, gates, expiry, lanes, clocks that jump."""

import asyncio
from functools import partial

import pytest

from turnfold import BlindPolicy, DeliveryClass, FailureClass, Settings
from turnfold._decide import operator
from turnfold.clock import CONFIRM_MS
from turnfold.enums import (
    AbortReason,
    GateScope,
    Kind,
    Phase,
    TurnOutcome,
)
from turnfold.ports.channel import Rejected
from turnfold_model.testing.clock import START_MS
from turnfold_model.testing.gateway import (
    Gateway,
    driver_of,
    entry,
    inbound,
    peek,
    route,
    spin,
    story,
)
from turnfold_model.testing.platform import (
    Platform,
    PlatformChannel,
    accept,
    answers,
    hang,
    reject,
    unknown,
)

HOUR = 3_600_000
CANCELLED, LIMITED = FailureClass.CANCELLED, FailureClass.RATE_LIMITED
OFFLINE, AUTH = FailureClass.NOT_CONNECTED, FailureClass.AUTH


async def queued(gateway: Gateway, *acts, where="42", **more):
    gateway.platform.plays(*acts)
    kernel = await gateway.start()
    done = await kernel.enqueue(route(where), "hi", **more)
    await spin()
    return kernel, done.entry_id


# --- retry and gates ---


@pytest.mark.case("D06")
async def test_each_tier_of_the_back_off_begins_at_its_millisecond(
    lone: Gateway,
) -> None:
    kernel, name = await queued(lone, *[reject(CANCELLED)] * 7)
    for tries, wait in enumerate((1, 2, 4, 8, 16, 32, 64), 1):
        await lone.advance(wait * 1000 - 1)
        assert len(lone.platform.calls) == tries
        await lone.advance(1)
        assert len(lone.platform.calls) == tries + 1
    assert entry(kernel, name).phase is Phase.DELIVERED


@pytest.mark.case("D07")
async def test_the_budget_ends_at_its_last_unit(gateway: Gateway) -> None:
    gateway.settings = Settings(max_failures=3)
    kernel, name = await queued(gateway, *[reject(CANCELLED)] * 9)
    for _ in range(5):
        kernel = await gateway.restart(kernel)
        await gateway.advance(60_000)
    assert len(gateway.platform.calls) == 3
    assert entry(kernel, name).reason == "attempts_exhausted"


@pytest.mark.case("D09")
@pytest.mark.parametrize("failure", [LIMITED, OFFLINE])
async def test_a_deferral_never_spends_an_attempt(
    lone: Gateway, failure: FailureClass
) -> None:
    lone.settings = Settings(max_failures=1)
    kernel, name = await queued(lone, *[reject(failure)] * 20)
    for _ in range(20):
        assert entry(kernel, name).used == 0
        await lone.advance(30_000)
    assert entry(kernel, name).phase is Phase.DELIVERED
    assert [attempt for _, _, attempt in lone.platform.calls] == list(range(1, 22))


@pytest.mark.case("D09", "B05", "D12")
async def test_a_missing_channel_costs_no_attempt(gateway: Gateway) -> None:
    channels = {("t", "default"): PlatformChannel(gateway.platform)}
    gateway.channels = {("other", "default"): PlatformChannel(Platform())}
    kernel, name = await queued(gateway, ttl_ms=HOUR)
    for _ in range(3):
        kernel = await gateway.restart(kernel)
        await gateway.advance(60_000)
    assert entry(kernel, name).attempt == 0
    kernel.attach("t", channels["t", "default"], on_unknown="hold")
    await kernel.settled(name, 1000)
    assert gateway.platform.calls == [(name, 0, 1)]


async def test_attaching_a_channel_with_a_slash_wakes_its_lanes(lone: Gateway) -> None:
    lone.channels = {("other", "default"): PlatformChannel(Platform())}
    kernel = await lone.start()
    done = await kernel.enqueue(route(channel="t/x", account="a/b"), "hi")
    kernel.attach(
        "t/x", PlatformChannel(lone.platform), account="a/b", on_unknown="hold"
    )
    await kernel.settled(done.entry_id, 1000)


@pytest.mark.parametrize("account", ["default", "a/b"])
async def test_connected_opens_the_gate_of_just_that_account(
    gateway: Gateway, account: str
) -> None:
    gateway.channels = {("t", account): PlatformChannel(gateway.platform)}
    gateway.platform.plays(reject(AUTH))
    kernel = await gateway.start()
    done = await kernel.enqueue(route(account=account), "hi")
    await spin()
    await gateway.advance(599_999)
    assert len(gateway.platform.calls) == 1
    await kernel.connected("t", account="nobody")
    await spin()
    assert len(gateway.platform.calls) == 1
    await kernel.connected("t", account=account)
    await kernel.settled(done.entry_id, 1000)


async def test_disconnected_holds_an_account_until_it_is_connected(
    lone: Gateway,
) -> None:
    kernel = await lone.start()
    await kernel.disconnected("t")
    await kernel.disconnected("t")
    done = await kernel.enqueue(route(), "hi")
    await lone.advance(HOUR // 10)
    assert lone.platform.calls == []
    await kernel.connected("t")
    await kernel.settled(done.entry_id, 1000)


@pytest.mark.case("D15")
@pytest.mark.parametrize(
    ("scope", "held"),
    [
        (GateScope.ROUTE, {"42"}),
        (GateScope.CONVERSATION, {"42", "42/th"}),
        (GateScope.ACCOUNT, {"42", "42/th", "43"}),
    ],
)
async def test_a_rate_limit_holds_its_scope_and_nothing_else(
    gateway: Gateway, scope: GateScope, held: set[str]
) -> None:
    limit = reject(LIMITED, retry_after_ms=20_000, scope=scope)
    kernel, _ = await queued(gateway, limit)
    kernel = await gateway.restart(kernel)
    routes = {"42": route(), "42/th": route(thread="th"), "43": route("43")}
    names = {}
    for label, where in routes.items():
        names[label] = (await kernel.enqueue(where, label)).entry_id
    await gateway.advance(19_999)
    waiting = {label for label in names if entry(kernel, names[label]).attempt == 0}
    waiting -= {
        label for label in names if entry(kernel, names[label]).phase == "delivered"
    }
    assert waiting == held
    await gateway.advance(1)
    for name in names.values():
        await kernel.settled(name, 1000)


@pytest.mark.case("D11")
@pytest.mark.parametrize("wait", [None, "soon", -5, 0, float("nan"), True, 0.5, 1e30])
async def test_an_unreadable_or_wild_retry_after_is_a_wait_all_the_same(
    lone: Gateway, wait: object
) -> None:
    lies = Rejected(failure=LIMITED, retry_after_ms=wait, scope="galaxy")
    kernel, name = await queued(lone, answers(lies))
    assert len(lone.platform.calls) == 1
    assert entry(kernel, name).phase is Phase.QUEUED
    if wait != 1e30:
        await lone.advance(5_000)
        await kernel.settled(name, 1000)


async def test_a_longer_gate_is_not_shortened_by_a_later_limit(lone: Gateway) -> None:
    account = GateScope.ACCOUNT
    lone.platform.plays(
        reject(LIMITED, retry_after_ms=60_000, scope=account), conversation="42"
    )
    lone.platform.plays(
        reject(LIMITED, retry_after_ms=1_000, scope=account), conversation="43"
    )
    kernel = await lone.start()
    both = kernel.enqueue(route("42"), "a"), kernel.enqueue(route("43"), "b")
    await asyncio.gather(*both)  # on the wire before either gate is closed
    await spin()
    assert len(lone.platform.calls) == 2
    await lone.advance(59_999)
    assert len(lone.platform.calls) == 2
    await lone.advance(1)
    assert len(lone.platform.calls) == 3  # the probe; the other keeps its distance
    await lone.advance(1_000)
    assert len(lone.platform.calls) == 4


@pytest.mark.case("D15")
async def test_a_waiting_head_holds_its_own_lane_only(lone: Gateway) -> None:
    kernel, _ = await queued(lone, reject(CANCELLED))
    behind = await kernel.enqueue(route(), "behind")
    other = await kernel.enqueue(route("43"), "other")
    await kernel.settled(other.entry_id, 1000)
    assert entry(kernel, behind.entry_id).attempt == 0
    await lone.advance(1_000)
    await kernel.settled(behind.entry_id, 1000)
    assert lone.platform.contents == ["other", "hi", "behind"]


# --- expiry ---


@pytest.mark.case("E05")
async def test_an_entry_expires_exactly_at_its_time(lone: Gateway) -> None:
    kernel, name = await queued(lone, reject(CANCELLED), ttl_ms=1_000)
    await lone.advance(999)
    assert entry(kernel, name).phase is Phase.RETRYABLE
    await lone.advance(1)  # its retry is due in the same millisecond
    assert entry(kernel, name).phase is Phase.FAILED
    assert entry(kernel, name).reason == "expired"
    assert len(lone.platform.calls) == 1


@pytest.mark.case("E04")
async def test_expiry_reaches_entries_that_are_not_at_the_head(
    gateway: Gateway,
) -> None:
    kernel, _ = await queued(gateway, hang())
    behind = await kernel.enqueue(route(), "behind", ttl_ms=5_000)
    await gateway.advance(5_000)
    assert entry(kernel, behind.entry_id).reason == "expired"
    assert story(kernel, behind.entry_id)[-2:] == ["failed_terminal", "lane_yielded"]


@pytest.mark.case("E01")
async def test_what_expired_while_nobody_worked_is_not_sent(gateway: Gateway) -> None:
    client = await gateway.start(work=False)
    names = [(await client.enqueue(route(), str(n))).entry_id for n in range(5)]
    await gateway.crash(client)
    gateway.clock.pass_ms(15 * 24 * HOUR)
    kernel = await gateway.start()
    await spin()
    assert gateway.platform.calls == []
    assert {entry(kernel, name).reason for name in names} == {"expired"}


@pytest.mark.case("E02")
@pytest.mark.parametrize(
    ("kind", "ttl"),
    [
        (Kind.FINAL, 24 * HOUR),
        (Kind.NOTICE, 24 * HOUR),
        (Kind.BLOCK, 600_000),
        (Kind.TOOL, 600_000),
    ],
)
async def test_every_kind_has_an_expiry_of_its_own(
    lone: Gateway, kind: Kind, ttl: int
) -> None:
    kernel, name = await queued(lone, hang(), kind=kind)
    assert entry(kernel, name).expires_at == START_MS + ttl


@pytest.mark.case("B21", "E05")
@pytest.mark.parametrize("policy", [BlindPolicy.HOLD, BlindPolicy.RESEND])
async def test_what_expires_in_doubt_is_never_called_undelivered(
    lone: Gateway, policy: BlindPolicy
) -> None:
    kernel, name = await queued(lone, unknown(), ttl_ms=500, policy=policy)
    await lone.advance(500)
    assert entry(kernel, name).reason == "outcome_unknown"
    assert len(lone.platform.calls) == 1


async def test_a_parked_entry_expires_too(lone: Gateway) -> None:
    kernel, name = await queued(lone, unknown(), ttl_ms=60_000)
    await lone.advance(1_000)
    assert entry(kernel, name).phase is Phase.PARKED
    await lone.advance(59_000)
    assert entry(kernel, name).reason == "outcome_unknown"


async def test_an_entry_that_expires_in_prepare_is_not_dispatched(
    lone: Gateway,
) -> None:
    lone.channels = {("t", "default"): PlatformChannel(lone.platform, prepares=True)}
    slow = hang()
    lone.platform.preparing.append(slow)
    kernel, name = await queued(lone, ttl_ms=1_000)
    await lone.advance(1_000)
    assert slow.hold
    slow.hold.set()
    await spin()
    assert entry(kernel, name).reason == "expired"
    assert lone.platform.calls == []


async def test_a_turn_whose_answer_expired_says_so(lone: Gateway) -> None:
    async def answer(handle) -> None:
        await handle.reply("late", ttl_ms=1_000)

    lone.handler = answer
    lone.platform.plays(reject(OFFLINE))
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    await spin()
    await lone.advance(1_000)
    assert await done.settled(1000) is TurnOutcome.EXPIRED


# --- lanes ---


@pytest.mark.case("G02", "G04")
async def test_a_lane_keeps_the_order_of_enqueueing(gateway: Gateway) -> None:
    kernel = await gateway.start()
    client = await gateway.start(work=False)
    gateway.platform.plays(reject(CANCELLED), accept(), reject(CANCELLED))
    names = []
    for number in range(6):  # all within one millisecond, from two processes
        source = client if number % 2 else kernel
        names.append((await source.enqueue(route(), str(number))).entry_id)
    for _ in range(4):
        await gateway.advance(2_000)
    for name in names:
        await kernel.settled(name, 1000)
    # The owner orders the payloads of another process when it logs them.
    assert sorted(gateway.platform.contents) == [str(n) for n in range(6)]
    for process in (0, 1):
        own = [n for n in gateway.platform.contents if int(n) % 2 == process]
        assert own == sorted(own)


@pytest.mark.case("G03")
async def test_a_parked_head_yields_and_the_log_says_so(gateway: Gateway) -> None:
    kernel, head = await queued(gateway, unknown())
    behind = await kernel.enqueue(route(), "behind")
    await gateway.advance(1_000)
    await kernel.settled(behind.entry_id, 1000)
    assert story(kernel, head)[-2:] == ["parked", "lane_yielded"]
    await kernel.resolve(head, "resend", by="op", marked=True)
    await kernel.settled(head, 1000)
    assert [m.marked for m in gateway.platform.messages] == [False, True]


@pytest.mark.case("G03")
async def test_without_yield_a_parked_head_holds_its_lane(lone: Gateway) -> None:
    lone.settings = Settings(yield_closed=False)
    kernel, head = await queued(lone, unknown())
    behind = await kernel.enqueue(route(), "behind")
    await lone.advance(10_000)
    assert entry(kernel, behind.entry_id).attempt == 0
    await kernel.resolve(head, "give_up", by="op")
    await kernel.settled(behind.entry_id, 1000)


async def test_only_one_entry_of_a_lane_is_on_the_wire(lone: Gateway) -> None:
    kernel, _ = await queued(lone, hang())
    for number in range(3):
        await kernel.enqueue(route(), str(number))
    await spin()
    assert len(lone.platform.calls) == 1


# --- clocks ---


@pytest.mark.case("P01")
async def test_after_a_forward_jump_due_work_runs(lone: Gateway) -> None:
    kernel, name = await queued(lone, *[reject(CANCELLED)] * 5)
    await lone.advance(7_000)
    lone.clock.jump_ms(HOUR)
    await lone.look_again()
    await lone.advance(CONFIRM_MS)  # a jump for a moment moves nothing
    assert entry(kernel, name).attempt == 3


@pytest.mark.case("P02")
async def test_a_backward_jump_delays_nothing(lone: Gateway) -> None:
    kernel, name = await queued(lone, reject(CANCELLED))
    lone.clock.jump_ms(-24 * HOUR)
    await lone.advance(1_000)
    assert entry(kernel, name).phase is Phase.DELIVERED


@pytest.mark.case("P02")
async def test_a_backward_jump_over_a_restart_parks_nothing(gateway: Gateway) -> None:
    kernel, name = await queued(gateway, reject(CANCELLED))
    gateway.clock.jump_ms(-24 * HOUR)
    kernel = await gateway.restart(kernel)
    await gateway.advance(1_000)
    await kernel.settled(name, 1000)
    times = [record.at for record in peek(kernel).log()]
    assert times == sorted(times)


async def test_a_backward_jump_over_a_restart_stretches_no_key_window(
    lone: Gateway,
) -> None:
    lone.platform.keyed = True
    channel = PlatformChannel(lone.platform, DeliveryClass.KEYED, key_window_ms=10_000)
    lone.channels = {("t", "default"): channel}
    await queued(lone, unknown(), unknown())
    await lone.advance(1_000)
    await lone.advance(3_999)
    assert len(lone.platform.calls) == 3
    assert not lone.platform.doubled


async def test_not_before_waits_and_expiry_still_rules(lone: Gateway) -> None:
    kernel, name = await queued(lone, not_before=START_MS + 5_000)
    await lone.advance(4_999)
    assert lone.platform.calls == []
    await lone.advance(1)
    await kernel.settled(name, 1000)
    assert driver_of(kernel).troubles == 0


# --- who waits for an end ---


async def test_an_end_is_heard_of_whatever_comes_before_the_waiter_runs(
    lone: Gateway,
) -> None:
    """Two commits in one turn of the loop: the first one moves, the second one ends."""
    lone.channels = {("other", "default"): PlatformChannel(Platform())}
    kernel, name = await queued(lone)
    waiting = asyncio.ensure_future(kernel.settled(name))
    await spin()
    for decision in (
        partial(operator.reschedule, stream=name, due=START_MS + HOUR, by="me"),
        partial(operator.abort_entry, stream=name, reason=AbortReason.USER),
    ):
        driver = driver_of(kernel)
        commit = await driver.journal.commit([decision])
        commit.results[0].get()
        driver.moved(commit)
    await asyncio.wait_for(waiting, 1)
    assert entry(kernel, name).phase is Phase.ABORTED
