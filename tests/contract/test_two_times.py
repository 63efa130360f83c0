"""Log time measures what is inside, wall time is what everybody else sees."""

import asyncio
import logging
from typing import Any

import pytest

from turnfold import (
    Absent,
    Accepted,
    Capabilities,
    DeliveryClass,
    Found,
    Kernel,
    PartClass,
    Receipt,
    Rejected,
    Settings,
    Unknown,
)
from turnfold._log.events import WallJumped
from turnfold.clock import AGREED_MS, CONFIRM_MS, LEAD_MS, Clock
from turnfold.enums import FailureClass, Phase, Reason
from turnfold.inspect import EntryView, Filter, TurnView
from turnfold_model.testing.gateway import (
    Gateway,
    crash,
    entry,
    in_file,
    inbound,
    peek,
    route,
    spin,
    until,
)

HOUR = 3_600_000
DAY = 24 * HOUR


class Channel:
    """Notes the time that it is given to sign with."""

    def __init__(self, *classes: DeliveryClass, window: int | None = None) -> None:
        offer = PartClass(classes=classes, key_window_ms=window, settle_ms=0)
        self.capabilities = Capabilities(parts={"text": offer})
        self.signed: list[int] = []
        self.answers: list[Any] = []
        self.down = False

    async def send(self, part, key, attempt):
        if self.down:
            return Rejected(failure=FailureClass.NOT_CONNECTED)
        self.signed.append(attempt.at_ms)
        if self.answers:
            return self.answers.pop(0)
        return Accepted(receipt=Receipt(ids=(key,)))


def gateway_of(channel: object) -> Gateway:
    return Gateway(
        channels={("t", "default"): channel},
        settings=Settings(backoff_base_ms=1_000),
    )


async def waiting(gateway: Gateway, kernel: Kernel, count: int = 5) -> list[str]:
    """Entries that wait behind a closed gate."""
    await kernel.disconnected("t")
    return [(await kernel.enqueue(route(str(n)), "x")).entry_id for n in range(count)]


def phases(kernel: Kernel, names: list[str]) -> set[Phase]:
    return {entry(kernel, name).phase for name in names}


@pytest.mark.case("R02")
@pytest.mark.case("R04")
@pytest.mark.parametrize("wrong", [2 * DAY, -2 * DAY])
async def test_a_jump_for_a_moment_expires_nothing_and_signs_right_afterwards(
    wrong: int,
) -> None:
    channel = Channel()
    gateway = gateway_of(channel)
    kernel = await gateway.start()
    names = await waiting(gateway, kernel)
    gateway.clock.jump_ms(wrong)
    await kernel.enqueue(route("meanwhile"), "x")
    await gateway.advance(1_000)
    gateway.clock.jump_ms(-wrong)
    await gateway.advance(1_000)
    await kernel.connected("t")
    await spin()
    assert phases(kernel, names) == {Phase.DELIVERED}
    assert set(channel.signed) == {gateway.clock.wall}
    kernel = await gateway.restart(kernel)
    await kernel.enqueue(route("after"), "x")
    await spin()
    assert channel.signed[-1] == gateway.clock.wall
    await gateway.end()


@pytest.mark.case("R04")
async def test_a_jump_is_an_event_and_a_fact_in_health() -> None:
    gateway = gateway_of(Channel())
    kernel = await gateway.start()
    gateway.clock.jump_ms(2 * DAY)
    await until(lambda: "store.wall_jumped" in peek(kernel).names())
    gateway.clock.jump_ms(-2 * DAY)
    steps = [e for e in peek(kernel).events("store") if isinstance(e, WallJumped)]
    assert steps == [WallJumped(by_ms=2 * DAY)]
    time = kernel.health()["time"]
    assert (time["wall_steps"], time["last_step_ms"]) == (2, -2 * DAY)
    assert time["log_ahead_ms"] == 0
    await gateway.end()


@pytest.mark.case("R04")
async def test_a_record_holds_the_wall_time_while_the_two_differ() -> None:
    gateway = gateway_of(Channel())
    kernel = await gateway.start()
    await kernel.enqueue(route(), "right")
    assert {record.wall for record in peek(kernel).log()} == {None}
    gateway.clock.jump_ms(DAY)
    await kernel.enqueue(route(), "wrong")
    last = list(peek(kernel).log())[-1]
    assert last.wall == gateway.clock.wall
    assert last.at == gateway.clock.wall - DAY
    await gateway.end()


@pytest.mark.case("R02")
async def test_a_log_that_is_ahead_is_told_and_signs_with_the_wall_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    channel = Channel()
    gateway = gateway_of(channel)
    kernel = await gateway.start()
    gateway.clock.jump_ms(DAY)
    await gateway.look_again()
    await gateway.advance(AGREED_MS)  # nobody corrected it: the log follows
    await kernel.enqueue(route(), "x")
    await gateway.crash(kernel)
    gateway.clock.jump_ms(-DAY)
    gateway.clock = gateway.clock.after_boot()
    with caplog.at_level(logging.WARNING, "turnfold"):
        kernel = await gateway.start()
    assert "the log is 86400 s ahead of the wall clock" in caplog.text
    assert kernel.health()["time"]["log_ahead_ms"] == DAY
    await kernel.enqueue(route(), "y")
    await spin()
    assert channel.signed[-1] == gateway.clock.wall
    await gateway.end()


@pytest.mark.case("R05")
@pytest.mark.parametrize("wrong", [34 * 365 * DAY, -57 * 365 * DAY])
async def test_a_boot_with_a_wrong_clock_expires_nothing(wrong: int) -> None:
    channel = Channel()
    gateway = gateway_of(channel)
    kernel = await gateway.start()
    names = await waiting(gateway, kernel)
    channel.down = True  # a new worker tries accounts that were held
    await gateway.crash(kernel)
    gateway.clock.jump_ms(wrong)
    gateway.clock = gateway.clock.after_boot(synchronised=False)
    kernel = await gateway.start()
    await gateway.advance(60_000)
    assert phases(kernel, names) == {Phase.QUEUED}
    channel.down = False
    gateway.clock.jump_ms(-wrong)
    gateway.clock.synchronised_now = True
    await gateway.look_again()
    await gateway.advance(CONFIRM_MS)
    await kernel.connected("t")
    await spin()
    assert phases(kernel, names) == {Phase.DELIVERED}
    assert set(channel.signed) == {gateway.clock.wall}
    await gateway.end()


class Moves:
    """The ways in which a wrong clock becomes right while something waits."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def correct(self, by: int) -> None:
        self.gateway.clock.jump_ms(by)
        self.gateway.clock.synchronised_now = True
        await self.gateway.look_again()
        await self.gateway.advance(CONFIRM_MS)
        await self.gateway.advance(60_000)

    async def boot(self, kernel: Kernel) -> Kernel:
        await until(lambda: not kernel._worker.upkeep.has_news)  # the mark knows it
        kernel = await self.gateway.restart(kernel)
        await self.gateway.advance(1_000)
        return kernel


async def gateway_with_a_wrong_clock(
    channel: Channel, wrong: int, path: Any
) -> tuple[Gateway, Kernel]:
    gateway = Gateway(
        store=in_file(path / "g.db"),
        channels={("t", "default"): channel},
        settings=Settings(backoff_base_ms=1_000),
    )
    gateway.clock = type(gateway.clock)(synchronised=False)
    gateway.clock.jump_ms(wrong)
    gateway.clock = gateway.clock.after_boot()
    return gateway, await gateway.start()


@pytest.mark.case("R05")
@pytest.mark.parametrize("wrong", [-2 * 365 * DAY, 2 * 365 * DAY])
@pytest.mark.parametrize("restarted", ["never", "before", "after"])
async def test_what_was_taken_with_a_wrong_clock_outlives_its_correction(
    wrong: int, restarted: str, tmp_path: Any
) -> None:
    """A turn and entries are taken while the clock is wrong; then NTP sets it."""
    channel = Channel()
    gateway, kernel = await gateway_with_a_wrong_clock(channel, wrong, tmp_path)
    moves = Moves(gateway)
    names = await waiting(gateway, kernel)
    turn = (await kernel.accept(inbound())).turn_id
    await gateway.advance(30_000)
    channel.down = True  # a new worker tries accounts that were held
    if restarted == "before":
        kernel = await moves.boot(kernel)
    await moves.correct(-wrong)
    if restarted == "after":
        kernel = await moves.boot(kernel)
    names.append((await kernel.enqueue(route("new"), "x")).entry_id)
    assert phases(kernel, names) <= {Phase.QUEUED, Phase.RETRYABLE}
    shown = await kernel.inspect.show(turn)
    assert isinstance(shown, TurnView)
    assert shown.phase == "accepted"
    channel.down = False
    await kernel.connected("t")
    await gateway.advance(60_000)
    assert phases(kernel, names) == {Phase.DELIVERED}
    assert set(channel.signed) <= {gateway.clock.wall, gateway.clock.wall - 60_000}
    await gateway.end()


@pytest.mark.case("R05")
async def test_what_is_queued_right_after_a_correction_lives_as_long_as_it_may(
    tmp_path: Any,
) -> None:
    gateway, kernel = await gateway_with_a_wrong_clock(Channel(), -700 * DAY, tmp_path)
    gateway.clock.jump_ms(700 * DAY)  # nobody vouches for it yet
    await kernel.disconnected("t")
    made = await kernel.enqueue(route(), "x", ttl_ms=5_000)
    found = entry(kernel, made.entry_id)
    assert found.expires_at - found.created == 5_000
    await gateway.end()


@pytest.mark.case("R05")
async def test_a_key_from_before_a_correction_may_be_as_old_as_the_correction(
    tmp_path: Any,
) -> None:
    """Perhaps the clock was right, and the machine was paused for two days."""
    channel = Channel(DeliveryClass.KEYED, window=DAY)
    gateway, kernel = await gateway_with_a_wrong_clock(channel, -2 * DAY, tmp_path)
    channel.answers = [Unknown(cause="cut")]
    made = await kernel.enqueue(route(), "x", ttl_ms=30 * DAY)
    await until(lambda: entry(kernel, made.entry_id).phase is Phase.IN_DOUBT)
    await Moves(gateway).correct(2 * DAY)
    await until(lambda: entry(kernel, made.entry_id).phase is Phase.PARKED)
    assert len(channel.signed) == 1
    channel.answers = [Unknown(cause="cut")]
    later = await kernel.enqueue(route("2"), "x")
    await spin()
    await gateway.advance(60_000)
    await until(lambda: entry(kernel, later.entry_id).phase is Phase.DELIVERED)
    await gateway.end()


@pytest.mark.case("R02", "R05")
async def test_a_step_that_is_taken_back_ages_no_key(tmp_path: Any) -> None:
    """The system never says if its clock is right, so the step could be a correction."""
    channel = Channel(DeliveryClass.KEYED, window=DAY)
    gateway, kernel = await gateway_with_a_wrong_clock(channel, 0, tmp_path)
    channel.answers = [Unknown(cause="cut")]
    made = await kernel.enqueue(route(), "x", ttl_ms=30 * DAY)
    await until(lambda: entry(kernel, made.entry_id).phase is Phase.IN_DOUBT)
    gateway.clock.jump_ms(2 * DAY)
    await gateway.look_again()
    await gateway.advance(60_000)
    assert entry(kernel, made.entry_id).phase is Phase.IN_DOUBT
    gateway.clock.jump_ms(-2 * DAY)
    await gateway.look_again()
    await gateway.advance(60_000)
    await until(lambda: entry(kernel, made.entry_id).phase is Phase.DELIVERED)
    await gateway.end()


@pytest.mark.case("R05")
async def test_an_old_entry_waits_for_trust_before_it_expires() -> None:
    """By log time it is over, but nobody knows how long the machine was off."""
    channel = Channel()
    gateway = gateway_of(channel)
    kernel = await gateway.start()
    await kernel.disconnected("t")
    made = await kernel.enqueue(route(), "x", ttl_ms=5_000)
    channel.down = True
    await gateway.crash(kernel)
    gateway.clock = gateway.clock.after_boot(synchronised=False)
    kernel = await gateway.start()
    await gateway.advance(6_000)
    channel.down = False
    await kernel.connected("t")
    await spin()
    found = entry(kernel, made.entry_id)
    assert (found.phase, channel.signed) == (Phase.QUEUED, [])
    gateway.clock.synchronised_now = True
    await gateway.advance(60_000)
    found = entry(kernel, made.entry_id)
    assert (found.phase, found.reason) == (Phase.FAILED, Reason.EXPIRED)
    await gateway.end()


@pytest.mark.case("R05")
async def test_no_key_window_counts_as_open_after_a_boot_with_a_wrong_clock() -> None:
    channel = Channel(DeliveryClass.KEYED, window=DAY)
    gateway = gateway_of(channel)
    kernel = await gateway.start()
    channel.answers = [Unknown(cause="cut")]
    made = await kernel.enqueue(route(), "x", ttl_ms=30 * DAY)
    await spin()
    await gateway.crash(kernel)
    gateway.clock.jump_ms(-DAY)  # a day was lost, too: the key is forgotten by now
    gateway.clock = gateway.clock.after_boot(synchronised=False)
    kernel = await gateway.start()
    await gateway.advance(60_000)
    assert entry(kernel, made.entry_id).phase is Phase.IN_DOUBT
    assert len(channel.signed) == 1
    gateway.clock.jump_ms(2 * DAY + HOUR)
    gateway.clock.synchronised_now = True
    await gateway.look_again()
    await gateway.advance(CONFIRM_MS)
    await gateway.advance(60_000)
    assert entry(kernel, made.entry_id).phase is Phase.PARKED
    assert len(channel.signed) == 1
    await gateway.end()


@pytest.mark.case("R05")
async def test_a_key_is_used_again_when_the_clock_turns_out_to_be_right() -> None:
    channel = Channel(DeliveryClass.KEYED, window=DAY)
    gateway = gateway_of(channel)
    kernel = await gateway.start()
    channel.answers = [Unknown(cause="cut")]
    made = await kernel.enqueue(route(), "x")
    await spin()
    await gateway.crash(kernel)
    gateway.clock = gateway.clock.after_boot(synchronised=False)
    kernel = await gateway.start()
    await gateway.advance(60_000)
    assert entry(kernel, made.entry_id).phase is Phase.IN_DOUBT
    gateway.clock.synchronised_now = True
    await gateway.advance(60_000)
    assert entry(kernel, made.entry_id).phase is Phase.DELIVERED
    await gateway.end()


@pytest.mark.case("R05")
async def test_what_is_sent_in_this_life_needs_no_trust() -> None:
    channel = Channel(DeliveryClass.KEYED, window=DAY)
    gateway = gateway_of(channel)
    gateway.clock = type(gateway.clock)(synchronised=None)
    kernel = await gateway.start()
    channel.answers = [Unknown(cause="cut")]
    made = await kernel.enqueue(route(), "x")
    await spin()
    await gateway.advance(60_000)
    assert entry(kernel, made.entry_id).phase is Phase.DELIVERED
    await gateway.end()


@pytest.mark.case("R05")
async def test_not_before_is_a_wall_date_and_the_time_to_live_counts_from_it() -> None:
    channel = Channel()
    gateway = gateway_of(channel)
    kernel = await gateway.start()
    gateway.clock.jump_ms(DAY)
    await gateway.look_again()
    await gateway.advance(AGREED_MS)
    gateway.clock.jump_ms(-DAY)
    await gateway.look_again()
    await gateway.advance(AGREED_MS)  # the log is a day ahead for good
    date = gateway.clock.wall + HOUR
    made = await kernel.enqueue(route(), "x", not_before=date, ttl_ms=5_000)
    found = entry(kernel, made.entry_id)
    assert found.due == date + DAY
    assert found.expires_at == date + DAY + 5_000
    await gateway.advance(HOUR)
    await until(lambda: channel.signed)
    assert channel.signed == [date]
    await gateway.end()


class Readable:
    """A platform whose parts can be read back. Its own clock is right."""

    def __init__(self, gateway: Gateway, ahead: int, skew_ms: int | None) -> None:
        offer = PartClass(classes=(DeliveryClass.LOOKUP,), settle_ms=0)
        self.capabilities = Capabilities(parts={"text": offer}, skew_ms=skew_ms)
        self.gateway, self.ahead = gateway, ahead
        self.shown: list[tuple[int, str]] = []
        self.asked: list[int] = []
        self.hangs = False

    async def send(self, part, key, attempt):
        self.shown.append((self.gateway.clock.wall - self.ahead, key))
        if len(self.shown) == 1:
            if self.hangs:
                await asyncio.Event().wait()
            return Unknown(cause="timeout")
        return Accepted(receipt=Receipt(ids=(key,)))

    async def reconcile(self, part, since_ms):
        self.asked.append(since_ms)
        if any(key == part.key and at >= since_ms for at, key in self.shown):
            return Found(receipt=Receipt(ids=(part.key,)))
        return Absent()


@pytest.mark.case("R01")
@pytest.mark.parametrize("ahead", [0, 30_000, 90_000, 600_000, -600_000])
@pytest.mark.parametrize("skew_ms", [None, 600_000])
async def test_a_clock_that_is_ahead_does_not_make_a_look_up_send_twice(
    ahead: int, skew_ms: int | None
) -> None:
    gateway = Gateway()
    platform = Readable(gateway, ahead, skew_ms)
    gateway.channels = {("t", "default"): platform}
    kernel = await gateway.start()
    made = await kernel.enqueue(route(), "x")
    await spin()
    await gateway.advance(60_000)
    assert entry(kernel, made.entry_id).phase is Phase.DELIVERED
    assert len(platform.shown) == 1
    first = platform.shown[0][0] + ahead
    assert platform.asked[0] == (0 if skew_ms is None else first - skew_ms - LEAD_MS)
    await gateway.end()


@pytest.mark.case("R01")
async def test_a_look_up_after_a_boot_with_a_wrong_clock_cuts_nothing_off() -> None:
    gateway = Gateway()
    platform = Readable(gateway, 0, 60_000)
    platform.hangs = True
    gateway.channels = {("t", "default"): platform}
    kernel = await gateway.start()
    await kernel.enqueue(route(), "x")
    await spin()
    await gateway.crash(kernel)
    gateway.clock.jump_ms(DAY)
    gateway.clock = gateway.clock.after_boot(synchronised=False)
    await gateway.start()
    await gateway.advance(60_000)
    assert len(platform.shown) == 1
    assert platform.asked[0] == 0
    await gateway.end()


@pytest.mark.case("R01", "R04")
@pytest.mark.parametrize("step", [HOUR, -HOUR])
async def test_a_look_up_while_the_wall_clock_is_wrong_cuts_nothing_off(
    step: int,
) -> None:
    """The part was sent after the step, so its age is known; the wall time is not."""
    gateway = Gateway()
    platform = Readable(gateway, step, 60_000)
    gateway.channels = {("t", "default"): platform}
    kernel = await gateway.start()
    gateway.clock.jump_ms(step)
    gateway.clock.synchronised_now = None
    await gateway.advance(1_000)
    await kernel.enqueue(route(), "x")
    await gateway.advance(60_000)
    assert (len(platform.shown), platform.asked[0]) == (1, 0)
    await gateway.end()


class Strict(Channel):
    """Refuses a signature that is more than five minutes off, as a receiver may."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__()
        self.gateway = gateway

    async def send(self, part, key, attempt):
        if abs(attempt.at_ms - self.gateway.clock.wall) > 300_000:
            return Rejected(failure=FailureClass.AUTH)
        return await super().send(part, key, attempt)


@pytest.mark.case("R03")
async def test_a_clock_that_was_ahead_while_nothing_was_sent_closes_no_gate() -> None:
    gateway = Gateway()
    strict = Strict(gateway)
    gateway.channels = {("t", "default"): strict}
    kernel = await gateway.start()
    gateway.clock.jump_ms(600_000)
    await kernel.disconnected("t")  # one record is written while the clock is ahead
    gateway.clock.jump_ms(-600_000)
    await gateway.advance(1_000)
    await kernel.connected("t")
    made = await kernel.enqueue(route(), "x")
    await spin()
    assert entry(kernel, made.entry_id).phase is Phase.DELIVERED
    assert strict.signed == [gateway.clock.wall]
    assert kernel.health()["gates"] == []
    kernel = await gateway.restart(kernel)
    made = await kernel.enqueue(route(), "y")
    await spin()
    assert entry(kernel, made.entry_id).phase is Phase.DELIVERED
    await gateway.end()


@pytest.mark.case("R07")
async def test_the_injected_clock_drives_the_timers() -> None:
    """Nobody calls `look_again` here: the kernel looks at its own clock."""
    channel = Channel()
    gateway = gateway_of(channel)
    kernel = await gateway.start()
    await kernel.enqueue(route(), "x", not_before=gateway.clock.wall + HOUR)
    await asyncio.sleep(0.05)
    assert channel.signed == []
    gateway.clock.pass_ms(HOUR)
    await until(lambda: channel.signed)
    await gateway.end()


@pytest.mark.case("R07")
async def test_jitter_comes_from_the_clock() -> None:
    draws: list[int] = []

    def draw() -> int:
        draws.append(500)
        return 500

    channel = Channel()
    channel.answers = [Rejected(failure=FailureClass.CANCELLED)]
    kernel = Kernel("memory:", clock=Clock(jitter=draw))
    kernel.attach("t", channel, on_unknown="hold")
    async with kernel:
        await kernel.enqueue(route(), "x")
        await until(lambda: draws)


@pytest.mark.case("R05")
async def test_time_between_two_lives_of_one_boot_counts(tmp_path: Any) -> None:
    """An entry that waited longer than it may live is not sent, trusted clock or not."""
    channel = Channel()
    gateway = Gateway(
        store=in_file(tmp_path / "g.db"), channels={("t", "default"): channel}
    )
    gateway.clock = type(gateway.clock)(synchronised=None)
    kernel = await gateway.start()
    await kernel.disconnected("t")
    made = await kernel.enqueue(route(), "x", ttl_ms=5_000)
    gateway.alive.remove(kernel)  # the mark was written at the take-over
    await crash(kernel)
    gateway.clock.pass_ms(6_000)
    gateway.clock = gateway.clock.of_next_life()
    kernel = await gateway.start()
    await spin()
    found = entry(kernel, made.entry_id)
    assert (found.phase, found.reason) == (Phase.FAILED, Reason.EXPIRED)
    await gateway.end()


@pytest.mark.case("R02")
async def test_people_see_wall_time_and_never_log_time() -> None:
    """The log is an hour ahead, since a wrong clock was called synchronised."""
    gateway = gateway_of(Channel())
    kernel = await gateway.start()
    await waiting(gateway, kernel, 1)
    await kernel.hold_back("t/default", by="me")  # so nothing is tried meanwhile
    gateway.clock.jump_ms(HOUR)
    await gateway.advance(1_000)
    await gateway.advance(CONFIRM_MS + 1_000)
    await kernel.enqueue(route("other"), "x")
    gateway.clock.jump_ms(-HOUR)
    await gateway.advance(1_000)
    assert gateway.clock.now() - gateway.clock.wall_now() == HOUR
    made = await kernel.enqueue(route("late"), "x", ttl_ms=5 * HOUR)
    now = gateway.clock.wall_now()
    shown = await kernel.inspect.show(made.entry_id)
    assert isinstance(shown, EntryView)
    assert (shown.created, shown.updated, shown.happened[0].at) == (now, now, now)
    assert shown.expires_at == now + 5 * HOUR
    behind = await kernel.enqueue(route("late"), "x")
    following = (await kernel.inspect.show(behind.entry_id)).next
    assert following.at == now + 5 * HOUR  # when the one before it expires
    row = (await kernel.inspect.list(Filter(since=now, what="entry")))[-1]
    assert (row.id, row.created, row.expires) == (shown.id, now, now + 5 * HOUR)
    await gateway.end()
