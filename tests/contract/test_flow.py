"""Behind a gate one lane is tried first, and after a rate limit all go at a pace."""

import asyncio
import time
from typing import Any

import pytest

from turnfold import (
    Accepted,
    CannotTell,
    Capabilities,
    DeliveryClass,
    FailureClass,
    Found,
    Kernel,
    PartClass,
    Receipt,
    Rejected,
    Route,
    Settings,
    Unknown,
)
from turnfold._log.events import GateClosed
from turnfold.enums import GateScope, Phase
from turnfold_model.flow import outages
from turnfold_model.testing.gateway import Gateway, entry, peek, route, spin
from turnfold_model.testing.platform import PlatformChannel, accept, reject

AUTH, OFFLINE = FailureClass.AUTH, FailureClass.NOT_CONNECTED
LIMITED, PASSES = FailureClass.RATE_LIMITED, FailureClass.TRANSIENT


class Bucket:
    """A platform that takes one message in each `every_s`, and says when to come back."""

    def __init__(self, every_s: float, *, whole_seconds: bool = False) -> None:
        self.every_s, self._whole = every_s, whole_seconds
        self.next_at, self.taken, self.refused = 0.0, 0, 0

    async def send(self, part: Any, key: str, attempt: Any) -> Accepted | Rejected:
        now = time.monotonic()
        if now >= self.next_at:
            self.next_at, self.taken = now + self.every_s, self.taken + 1
            return Accepted(receipt=Receipt(ids=(key,)))
        self.refused += 1
        wait = int((self.next_at - now) * 1000) + 1
        return Rejected(failure=LIMITED, retry_after_ms=wait, scope=GateScope.ACCOUNT)


@pytest.mark.case("S01")
@pytest.mark.timeout(60)
async def test_many_lanes_share_what_a_platform_lets_through(tmp_path) -> None:
    """`python -m turnfold_model flow` measures how much of the rate is used."""
    bucket = Bucket(0.02)
    kernel = Kernel(tmp_path / "g.db")
    kernel.attach("t", bucket, on_unknown="hold")
    async with kernel:
        names = [
            (
                await kernel.enqueue(
                    Route(channel="t", conversation=f"c{n % 100}"), "news"
                )
            ).entry_id
            for n in range(200)
        ]
        for name in names:
            await kernel.settled(name, 30_000)
    assert bucket.taken == 200
    assert bucket.refused <= 0.1 * bucket.taken + 10


@pytest.mark.case("S02")
async def test_many_lanes_that_are_not_connected_make_one_probe_each_interval(
    lone: Gateway,
) -> None:
    lone.platform.plays(*[reject(OFFLINE)] * 500)
    kernel = await lone.start()
    await kernel.disconnected("t")
    for n in range(100):
        await kernel.enqueue(route(f"c{n}"), "news")
    await spin()
    kernel = await lone.restart(kernel)  # a new worker tries once
    await spin()
    assert len(lone.platform.calls) == 1
    for probes in (2, 3, 4):
        await lone.advance(10_000)
        await spin()
        assert len(lone.platform.calls) == probes


@pytest.mark.case("S04")
@pytest.mark.parametrize("failure", [AUTH, OFFLINE])
async def test_a_restart_is_enough_after_the_token_was_renewed(
    gateway: Gateway, failure: FailureClass
) -> None:
    gateway.platform.plays(reject(failure))
    kernel = await gateway.start()
    first = await kernel.enqueue(route("a"), "from before")
    await spin()
    assert entry(kernel, first.entry_id).phase is Phase.QUEUED
    kernel = await gateway.restart(kernel)
    second = await kernel.enqueue(route("b"), "from after")
    await kernel.settled(first.entry_id, 1000)
    await kernel.settled(second.entry_id, 1000)


@pytest.mark.case("S04")
async def test_a_refused_token_is_tried_now_and_then(lone: Gateway) -> None:
    lone.platform.plays(*[reject(AUTH)] * 3)
    kernel = await lone.start()
    names = [(await kernel.enqueue(route(f"c{n}"), "hi")).entry_id for n in range(5)]
    await spin()
    began = len(lone.platform.calls)
    await lone.advance(599_000)
    assert len(lone.platform.calls) == began
    for _ in range(4):
        await lone.advance(600_000)
    for name in names:
        await kernel.settled(name, 1000)


@pytest.mark.case("S04")
async def test_an_account_that_was_held_is_tried_when_its_channel_is_attached(
    gateway: Gateway,
) -> None:
    gateway.channels = {("other", "default"): PlatformChannel(gateway.platform)}
    kernel = await gateway.start()
    await kernel.disconnected("t")
    await kernel.disconnected("other")
    done = await kernel.enqueue(route(), "hi")
    held = await kernel.enqueue(route(channel="other"), "hi")
    await spin()
    kernel.attach("t", PlatformChannel(gateway.platform), on_unknown="hold")
    await kernel.settled(done.entry_id, 1_000)
    assert entry(kernel, held.entry_id).phase is Phase.QUEUED


async def test_a_rate_limit_keeps_its_wait_over_a_restart(lone: Gateway) -> None:
    account = GateScope.ACCOUNT
    lone.platform.plays(reject(LIMITED, retry_after_ms=60_000, scope=account))
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "hi")
    await spin()
    kernel = await lone.restart(kernel)
    await lone.advance(59_000)
    assert len(lone.platform.calls) == 1
    await lone.advance(1_000)
    await kernel.settled(done.entry_id, 1000)


async def test_a_probe_that_ends_unsent_leaves_its_place_to_the_next(
    lone: Gateway,
) -> None:
    kernel = await lone.start()
    await kernel.disconnected("t")
    first = await kernel.enqueue(route("a"), "1", ttl_ms=1_000)
    second = await kernel.enqueue(route("b"), "2")
    await lone.advance(2_000)  # the first is over
    kernel = await lone.restart(kernel)
    await kernel.settled(second.entry_id, 1000)
    assert entry(kernel, first.entry_id).phase is Phase.FAILED


async def test_the_log_has_one_gate_event_for_each_refusal(lone: Gateway) -> None:
    account = GateScope.ACCOUNT
    limit = reject(LIMITED, retry_after_ms=1_000, scope=account)
    lone.platform.plays(*[limit] * 3)
    kernel = await lone.start()
    await kernel.disconnected("t")
    for n in range(50):
        await kernel.enqueue(route(f"c{n}"), "hi")
    kernel = await lone.restart(kernel)
    for _ in range(10):
        await lone.advance(1_000)
        await asyncio.sleep(0.01)
    closings = [
        event
        for record, event in peek(kernel).happened()
        if isinstance(event, GateClosed) and event.reason == LIMITED
    ]
    assert len(closings) == 3


# --- failures that pass ---


class Outage:
    """A platform that is down until it is up again."""

    def __init__(self, failure: FailureClass = PASSES) -> None:
        self.failure = failure
        self.down, self.refused, self.texts = True, 0, list[str]()

    async def send(self, part: Any, key: str, attempt: Any) -> Accepted | Rejected:
        if self.down:
            self.refused += 1
            return Rejected(failure=self.failure, detail="503")
        self.texts.append(part.payload.text)
        return Accepted(receipt=Receipt(ids=(key,)))


@pytest.mark.case("S03")
async def test_an_outage_of_two_hours_loses_nothing() -> None:
    outage = Outage()
    lone = Gateway(channels={("t", "default"): outage})
    kernel = await lone.start()
    names = [(await kernel.enqueue(route(f"c{n}"), f"{n}")).entry_id for n in range(50)]
    for _ in range(120):
        await lone.advance(60_000)
    outage.down = False
    await lone.advance(60_000)
    for name in names:
        await kernel.settled(name, 1_000)
    assert sorted(outage.texts, key=int) == [str(n) for n in range(50)]
    assert outage.refused <= 50 + 120  # all at once, and then one each time
    await lone.end()


@pytest.mark.case("S03", "D14")
@pytest.mark.parametrize("failure", [PASSES, OFFLINE])
async def test_an_account_that_fails_for_hours_is_tried_more_rarely(
    failure: FailureClass,
) -> None:
    """Each probe costs some events of the log, for as long as the account fails."""
    outage = Outage(failure)
    lone = Gateway(channels={("t", "default"): outage})
    kernel = await lone.start()
    names = [(await kernel.enqueue(route(f"c{n}"), f"{n}")).entry_id for n in range(5)]
    probes = []
    for _ in range(4):
        before = outage.refused
        for _ in range(360):
            await lone.advance(10_000)
        probes.append(outage.refused - before)
    assert probes[0] >= 100, "soon after it began it is tried often"
    assert probes[-1] <= 360 / 7, "and a seventh as often in the end"
    outage.down = False
    await lone.advance(120_000)
    for name in names:
        await kernel.settled(name, 1_000)
    await lone.end()


@pytest.mark.case("S03")
@pytest.mark.case("S07")
async def test_a_failure_that_passes_costs_a_part_nothing(lone: Gateway) -> None:
    lone.settings = Settings(max_failures=1)
    lone.platform.plays(*[reject(PASSES)] * 20)
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "hi")
    await spin()
    waits = []
    for _ in range(20):
        due = entry(kernel, done.entry_id).due
        waits.append(due - lone.clock.now())
        await lone.advance(waits[-1])
    await kernel.settled(done.entry_id, 1_000)
    assert waits[:4] == [1_000, 2_000, 4_000, 8_000]
    assert waits[-1] == 900_000


async def test_a_wait_that_a_platform_gives_with_a_passing_failure_is_kept(
    lone: Gateway,
) -> None:
    lone.platform.plays(reject(PASSES, retry_after_ms=30_000))
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "hi")
    await spin()
    await lone.advance(29_000)
    assert len(lone.platform.calls) == 1
    await lone.advance(1_000)
    await kernel.settled(done.entry_id, 1_000)


@pytest.mark.case("S02")
async def test_a_failing_account_is_one_gate_and_its_wait_grows(lone: Gateway) -> None:
    lone.platform.plays(*[reject(PASSES)] * 500)
    kernel = await lone.start()
    for n in range(20):
        await kernel.enqueue(route(f"c{n}"), "hi")
    await spin()
    calls = []
    for _ in range(7):
        began = len(lone.platform.calls)
        (gate,) = kernel.health()["gates"]
        await lone.advance(gate["until"] - lone.clock.now())
        calls.append((gate["reason"], len(lone.platform.calls) - began))
    assert calls == [("transient", 1)] * 7
    assert kernel.health()["gates"][0]["until"] - lone.clock.now() == 10_000


@pytest.mark.case("S02")
async def test_after_a_restart_one_refusal_says_that_the_account_still_fails(
    lone: Gateway,
) -> None:
    lone.platform.plays(*[reject(PASSES)] * 500)
    kernel = await lone.start()
    for n in range(20):
        await kernel.enqueue(route(f"c{n}"), "hi")
    await spin()
    began = len(lone.platform.calls)
    kernel = await lone.restart(kernel)
    await lone.advance(1)
    assert len(lone.platform.calls) == began + 1
    assert len(kernel.health()["gates"]) == 1


async def test_calls_that_are_refused_behind_a_closed_gate_do_not_prolong_it() -> None:
    out: list[asyncio.Future[Rejected]] = []

    class Slow:
        async def send(self, part: Any, key: str, attempt: Any) -> Rejected:
            out.append(asyncio.get_running_loop().create_future())
            return await out[-1]

    lone = Gateway(channels={("t", "default"): Slow()})
    kernel = await lone.start()
    for n in range(20):
        await kernel.enqueue(route(f"c{n}"), "hi")
    await spin()
    for call in out:
        lone.clock.pass_ms(5)
        call.set_result(Rejected(failure=PASSES))
        await spin()
    closings = [e for _, e in peek(kernel).happened() if isinstance(e, GateClosed)]
    assert len(closings) == 1
    await lone.end()


async def test_two_lanes_that_fail_are_no_failing_account(lone: Gateway) -> None:
    lone.platform.plays(*[reject(PASSES)] * 2)
    kernel = await lone.start()
    for n in range(2):
        await kernel.enqueue(route(f"c{n}"), "hi")
        await spin()
    assert kernel.health()["gates"] == []


async def test_lanes_that_fail_between_deliveries_are_no_failing_account(
    lone: Gateway,
) -> None:
    lone.platform.plays(*[reject(PASSES), accept()] * 5)
    kernel = await lone.start()
    for n in range(10):
        await kernel.enqueue(route(f"c{n}"), "hi")
        await spin()
    assert kernel.health()["gates"] == []


async def test_a_head_that_waits_for_a_failure_to_pass_may_let_others_pass(
    lone: Gateway,
) -> None:
    lone.settings = Settings(yield_retryable=True)
    lone.platform.plays(reject(PASSES))
    kernel = await lone.start()
    first = await kernel.enqueue(route(), "1")
    await spin()
    second = await kernel.enqueue(route(), "2")
    await kernel.settled(second.entry_id, 1_000)
    assert entry(kernel, first.entry_id).phase is Phase.QUEUED


# --- look-ups that the platform does not answer ---


class Silent:
    """Every answer to a send is lost. A look-up is answered when `up`."""

    capabilities = Capabilities(
        parts={"text": PartClass(classes=(DeliveryClass.LOOKUP,), settle_ms=0)}
    )

    def __init__(self, failure: FailureClass | None, *, raises: bool = False) -> None:
        self.failure, self.raises = failure, raises
        self.up, self.asked = False, 0

    async def send(self, part: Any, key: str, attempt: Any) -> Unknown:
        return Unknown(cause="cut")

    async def reconcile(self, part: Any, since_ms: int) -> CannotTell | Found:
        if self.up:
            return Found(receipt=Receipt(ids=(part.key,)))
        self.asked += 1
        if self.raises:
            raise ConnectionError("500")
        return CannotTell(detail="500", failure=self.failure)

    def classify(self, exception: BaseException) -> Rejected | None:
        known = self.failure is not None and isinstance(exception, ConnectionError)
        return Rejected(failure=self.failure, detail="500") if known else None


async def _asked_for_two_hours(channel: Silent) -> tuple[Kernel, list[str]]:
    lone = Gateway(channels={("t", "default"): channel})
    kernel = await lone.start()
    names = [(await kernel.enqueue(route(f"c{n}"), f"{n}")).entry_id for n in range(10)]
    await spin()
    began = channel.asked
    for _ in range(720):
        await lone.advance(10_000)
    assert channel.asked - began <= 720 + 10  # one each time, after the first
    assert {entry(kernel, name).phase for name in names} == {Phase.IN_DOUBT}
    assert {entry(kernel, name).asks for name in names} == {0}
    channel.up = True
    for _ in range(12):  # after two hours the probes are 70 s apart
        await lone.advance(10_000)
    assert {entry(kernel, name).phase for name in names} == {Phase.DELIVERED}
    await lone.end()
    return kernel, names


@pytest.mark.case("S07")
@pytest.mark.case("S13")
@pytest.mark.parametrize("failure", [PASSES, OFFLINE])
@pytest.mark.parametrize("raises", [False, True])
async def test_failing_look_ups_close_a_gate_and_cost_nothing(
    failure: FailureClass, raises: bool
) -> None:
    await _asked_for_two_hours(Silent(failure, raises=raises))


async def test_a_look_up_that_cannot_tell_for_no_reason_is_counted() -> None:
    channel = Silent(None)
    lone = Gateway(channels={("t", "default"): channel})
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "hi")
    for _ in range(20):
        await lone.advance(900_000)
    assert entry(kernel, done.entry_id).phase is Phase.PARKED
    assert channel.asked == 8
    await lone.end()


async def test_the_figures_of_an_account_that_is_offline_and_of_one_that_is_down() -> (
    None
):
    """`python -m turnfold_model flow` plays two hours."""
    report = await outages.figures(30, 600_000)
    assert outages.well(report)
    assert 40 < report["offline_probes"] <= report["offline_intervals"]


# --- many lanes behind a gate that opens again ---


class Line:
    """Not connected until it is `up`; then each answer waits for `go`."""

    def __init__(self) -> None:
        self.up, self.go, self.texts = False, asyncio.Semaphore(0), list[str]()

    async def send(self, part: Any, key: str, attempt: Any) -> Accepted | Rejected:
        if not self.up:
            return Rejected(failure=OFFLINE)
        self.texts.append(part.payload.text)
        await self.go.acquire()
        return Accepted(receipt=Receipt(ids=(key,)))


async def _behind(line: Line, wild: Gateway, lanes: int) -> Kernel:
    """So many lanes wait behind a closed gate, asked for in another order than theirs."""
    wild.channels = {("t", "default"): line}
    kernel = await wild.start()
    for n in range(lanes):
        await kernel.enqueue(route(f"c{(7 * n) % lanes}"), f"{n}")
    await spin()
    line.up = True
    await wild.advance(10_000)
    return kernel


@pytest.mark.case("S02", "S15", "D14")
async def test_a_gate_that_opens_lets_lanes_through_at_a_growing_pace(
    wild: Gateway,
) -> None:
    line = Line()
    kernel = await _behind(line, wild, 40)
    seen = [0, len(line.texts)]
    while sum(kernel.health()["paced"].values()) or len(seen) == 2:
        for _ in range(seen[-1] - seen[-2]):
            line.go.release()
        await spin()
        seen.append(len(line.texts))
    assert seen[:5] == [0, 1, 5, 13, 29]
    for _ in range(40):
        line.go.release()
    await spin()
    assert len(set(line.texts)) == 40
    assert kernel.health()["accounts"] == {}


@pytest.mark.case("S15")
async def test_behind_a_gate_the_oldest_entry_goes_first(wild: Gateway) -> None:
    line = Line()
    kernel = await _behind(line, wild, 40)
    assert kernel.health()["accounts"]["t/default"]["open"] == 40
    for _ in range(80):
        line.go.release()
        await spin()
    others = [int(text) for text in line.texts[1:]]
    assert others == sorted(others)


@pytest.mark.case("S02")
async def test_a_ramp_without_an_answer_ends(wild: Gateway) -> None:
    line = Line()
    await _behind(line, wild, 40)
    line.go.release()
    await spin()
    assert len(line.texts) == 5
    await wild.advance(10_001)
    assert len(set(line.texts)) == 40
    for _ in range(40):
        line.go.release()
    await spin()


@pytest.mark.case("S15")
@pytest.mark.parametrize(("lanes", "first"), [(40, 10), (10, 10)])
async def test_a_worker_that_begins_with_a_backlog_tries_a_few_lanes_first(
    wild: Gateway, lanes: int, first: int
) -> None:
    """It does not know what the platform allows: a thousand calls may be under way
    before the first one is refused."""
    line = Line()
    line.up = True
    wild.channels = {("other", "default"): line}
    kernel = await wild.start()
    for n in range(lanes):
        await kernel.enqueue(route(f"c{n}"), f"{n}")
    await wild.end()
    wild.channels = {("t", "default"): line}
    await wild.start()
    await spin()
    assert len(line.texts) == first
    line.go.release()
    await spin()
    assert len(line.texts) == min(first + 2, lanes)
    for _ in range(lanes):
        line.go.release()
    await spin()
    assert len(set(line.texts)) == lanes


@pytest.mark.case("S04")
async def test_an_account_that_was_said_to_be_offline_is_tried_now_and_then(
    lone: Gateway,
) -> None:
    kernel = await lone.start()
    await kernel.disconnected("t")
    done = await kernel.enqueue(route(), "x")
    await lone.advance(599_000)
    assert entry(kernel, done.entry_id).attempt == 0
    await lone.advance(1_000)
    assert entry(kernel, done.entry_id).phase is Phase.DELIVERED
