"""The right to send is checked in the commit that uses it, a lane keeps its order, and
each payload and each doubt has an end of its own."""

import asyncio
from functools import partial

import pytest

from turnfold import DeliveryClass, FailureClass
from turnfold._decide import schedule
from turnfold._log import outbox_events as o
from turnfold.audit import audit_store
from turnfold.enums import Phase
from turnfold.errors import OwnedError
from turnfold.ports.channel import Attempt, CannotTell, Part, Rejected
from turnfold.ports.store import Store
from turnfold_model.testing.faulty_store import FaultyStore
from turnfold_model.testing.gateway import (
    Gateway,
    driver_of,
    entry,
    events,
    inbound,
    route,
    spin,
    story,
    until,
)
from turnfold_model.testing.platform import (
    PlatformChannel,
    accept_in,
    raises,
    reject,
    unknown,
    wait_for,
)

case = pytest.mark.case
HOUR = 3_600_000


@case("A15")
async def test_who_has_lost_the_right_reserves_no_attempt(lone: Gateway) -> None:
    lone.platform.plays(reject(FailureClass.CANCELLED))
    old = await lone.start()
    later = await old.enqueue(route(), "later")
    await spin()
    lone.store().disk.room.holder = None  # type: ignore[attr-defined]  # the lock is gone
    new = await lone.start()
    await new.enqueue(route("99"), "other")
    with pytest.raises(OwnedError):
        await old.append(partial(schedule.attempt, stream=later.entry_id))
    found = entry(new, later.entry_id)
    assert (found.phase, found.attempt, found.used) == (Phase.RETRYABLE, 1, 1)
    await lone.advance(HOUR)
    assert lone.platform.contents == ["other", "later"]


class Hiding(PlatformChannel):
    """A layer that tells of a failure, and hides that the part went out before it."""

    async def send(self, part: Part, key: str, attempt: Attempt) -> object:
        await super().send(part, key, attempt)
        return {"delivered": False, "sentBeforeError": True}


@case("B10")
async def test_a_layer_that_hides_what_was_sent_makes_doubt_and_no_second_send(
    lone: Gateway,
) -> None:
    lone.channels = {("t", "default"): Hiding(lone.platform)}
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "one", "two")
    await lone.advance(HOUR)
    assert entry(kernel, done.entry_id).phase is Phase.PARKED
    assert lone.platform.contents == ["one"]


@case("B19")
async def test_a_message_that_comes_during_a_send_causes_no_notice(
    lone: Gateway,
) -> None:
    go = asyncio.Event()
    lone.handler = _echo
    lone.platform.plays(wait_for(go))
    kernel = await lone.start()
    await kernel.accept(inbound("1", text="one"))
    await spin()
    await kernel.accept(inbound("2", text="two"))
    await spin()
    assert lone.platform.contents == []
    go.set()
    await spin()
    assert lone.platform.contents == ["one", "two"]


@case("B19")
async def test_a_doubt_that_a_look_up_may_still_end_causes_no_notice(
    lone: Gateway,
) -> None:
    channel = PlatformChannel(lone.platform, DeliveryClass.LOOKUP)
    lone.handler, lone.channels = _echo, {("t", "default"): channel}
    lone.platform.plays(unknown(lands=True))
    lone.platform.verdicts.append(CannotTell())
    kernel = await lone.start()
    await kernel.accept(inbound("1", text="one"))
    await lone.advance(HOUR)
    assert lone.platform.contents == ["one"]


async def _echo(handle) -> None:  # type: ignore[no-untyped-def]  # a handler as users write it
    await handle.reply(handle.inbound.text)


def _cannot_be_prepared(gateway: Gateway, times: int) -> None:
    never = Rejected(failure=FailureClass.INVALID_PAYLOAD)
    channel = PlatformChannel(gateway.platform, prepares=True, classify=lambda _: never)
    gateway.channels = {("t", "default"): channel}
    gateway.platform.preparing.extend([raises(OSError("no"))] * times)


@case("C13")
async def test_when_preparing_fails_for_several_payloads_each_has_an_end_of_its_own(
    lone: Gateway,
) -> None:
    _cannot_be_prepared(lone, 3)
    kernel = await lone.start()
    done = [await kernel.enqueue(route(f"{n}"), f"{n}") for n in range(4)]
    await spin()
    ends = [story(kernel, one.entry_id).count("failed_terminal") for one in done]
    assert ends == [1, 1, 1, 0]
    assert lone.platform.contents == ["3"]


@case("C13")
async def test_a_part_that_cannot_be_prepared_takes_no_other_part_with_it(
    lone: Gateway,
) -> None:
    _cannot_be_prepared(lone, 1)
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "one", "two", "three")
    await spin()
    assert lone.platform.contents == ["two", "three"]
    assert story(kernel, done.entry_id).count("part_refused") == 1


@case("D14")
async def test_after_an_outage_each_entry_waits_by_a_draw_of_its_own(
    lone: Gateway,
) -> None:
    draws = iter(range(100, 1_100, 100))
    lone.clock.jitter = lambda: next(draws)  # type: ignore[method-assign]  # a draw for each
    channel = PlatformChannel(lone.platform, DeliveryClass.KEYED)
    lone.channels = {("t", "default"): channel}
    lone.platform.plays(*[unknown()] * 3)
    kernel = await lone.start()
    done = [await kernel.enqueue(route(f"{n}"), f"{n}") for n in range(3)]
    await spin()
    assert len({entry(kernel, one.entry_id).due for one in done}) == 3


async def _faulty(gateway: Gateway) -> tuple[object, FaultyStore]:
    made: list[FaultyStore] = []

    def wrap(store: Store) -> Store:
        made.append(FaultyStore(store))
        return made[0]  # type: ignore[return-value]  # it stands in for all the rest

    return await gateway.start(wrap=wrap), made[0]


@case("G05")
async def test_a_lane_waits_while_the_end_of_its_head_cannot_be_stored(
    gateway: Gateway, impatient: None
) -> None:
    go = asyncio.Event()
    gateway.platform.plays(wait_for(go))
    kernel, store = await _faulty(gateway)
    await kernel.enqueue(route(), "one")  # type: ignore[attr-defined]
    last = await kernel.enqueue(route(), "two")  # type: ignore[attr-defined]
    await spin()
    store.fails(*["full"] * 5)
    go.set()
    await until(lambda: driver_of(kernel).troubles >= 3)  # type: ignore[arg-type]
    assert len(gateway.platform.calls) == 1
    await kernel.settled(last.entry_id, 5_000)  # type: ignore[attr-defined]
    assert gateway.platform.contents == ["one", "two"]


@case("G07")
@pytest.mark.parametrize("fault", ["full", "busy", "lost", "landed"])
async def test_an_append_that_fails_at_first_changes_no_order(
    gateway: Gateway, impatient: None, fault: str
) -> None:
    kernel, store = await _faulty(gateway)
    store.fails(fault)
    texts = ("one", "two", "three")
    asked = [kernel.enqueue(route(), text) for text in texts]  # type: ignore[attr-defined]
    done = await asyncio.gather(*asked, return_exceptions=True)
    taken = [
        t for t, d in zip(texts, done, strict=True) if not isinstance(d, Exception)
    ]
    await until(lambda: len(gateway.platform.contents) == len(taken))
    assert gateway.platform.contents == taken


@case("G08")
async def test_the_lane_of_an_entry_is_fixed_when_it_is_queued(lone: Gateway) -> None:
    moved = reject(FailureClass.TARGET_MOVED, target="99")
    lone.platform.plays(moved, accept_in("7"))
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "one", "two")
    lane = entry(kernel, done.entry_id).lane
    for _ in range(3):
        await lone.advance(60_000)
    found = entry(kernel, done.entry_id)
    assert {(m.conversation, m.thread) for m in lone.platform.messages[1:]} == {
        ("99", "7")
    }
    assert (found.phase, found.lane) == (Phase.DELIVERED, lane)
    queued = events(kernel, done.entry_id)[0]
    assert isinstance(queued, o.Queued)
    assert queued.lane == lane == route().lane
    report = await audit_store(kernel.store)
    assert report.passed, report.findings[:3]
