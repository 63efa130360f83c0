"""A backlog is not sent in full: a policy for the age of an entry that waits."""

from typing import Any

import attrs
import pytest

from turnfold import FailureClass, InvalidInputError, Kernel, Kind, Settings
from turnfold.enums import DeliveryClass, Phase, TurnOutcome
from turnfold.inspect.lookup import Filter
from turnfold_model.testing.gateway import (
    Gateway,
    entry,
    inbound,
    route,
    spin,
    story,
    turn,
)
from turnfold_model.testing.platform import (
    Platform,
    PlatformChannel,
    accept,
    reject,
    unknown,
)

MINUTE, HOUR = 60_000, 3_600_000
OFFLINE = FailureClass.NOT_CONNECTED
LIMIT = Settings(max_entry_age_ms=HOUR)


@pytest.mark.case("S15")
async def test_after_an_outage_what_is_too_old_ends_and_the_rest_is_sent(
    gateway: Gateway,
) -> None:
    gateway.settings = LIMIT
    client = await gateway.start(work=False)
    old = await client.enqueue(route(), "old")
    await gateway.advance(50 * MINUTE)
    young = await client.enqueue(route(), "young")
    await gateway.crash(client)
    gateway.clock.pass_ms(20 * MINUTE)
    kernel = await gateway.start()
    await kernel.settled(young.entry_id, 2_000)
    assert gateway.platform.contents == ["young"]
    ended = entry(kernel, old.entry_id)
    assert (ended.phase, ended.reason) == (Phase.FAILED, "too_old")
    (row,) = await kernel.inspect.list(Filter(status=("failed_terminal",)))
    assert row.id == old.entry_id
    (group,) = await kernel.inspect.stats()
    assert dict(group.why) == {"too_old": 1}
    assert kernel.health()["dead_letters"] == 1


@pytest.mark.case("S15")
async def test_an_entry_behind_a_closed_gate_ends_when_it_is_too_old(
    lone: Gateway,
) -> None:
    lone.settings = attrs.evolve(LIMIT, probe_ms=10 * HOUR)
    lone.platform.plays(reject(OFFLINE))
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "old")
    await spin()
    await lone.advance(HOUR)
    assert entry(kernel, done.entry_id).phase is Phase.QUEUED
    await lone.advance(1)
    assert entry(kernel, done.entry_id).reason == "too_old"
    assert story(kernel, done.entry_id)[-2:] == ["failed_terminal", "lane_yielded"]


async def test_the_reader_of_an_answer_that_is_too_old_is_told(lone: Gateway) -> None:
    async def answer(handle: Any) -> str:
        return "42"

    lone.settings = attrs.evolve(LIMIT, probe_ms=HOUR + MINUTE)
    lone.platform.plays(reject(OFFLINE))
    lone.handler = answer
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    await spin()
    await lone.advance(HOUR + 1)
    assert await done.settled(2_000) is TurnOutcome.EXPIRED
    assert turn(kernel, done.turn_id).reason == "too_old"
    await lone.advance(MINUTE)
    assert ["waited too long" in text for text in lone.platform.contents] == [True]


async def test_what_is_in_doubt_is_never_called_too_old(lone: Gateway) -> None:
    lone.settings = LIMIT
    lone.platform.plays(unknown())
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "hi")
    await spin()
    await lone.advance(2 * HOUR)
    assert entry(kernel, done.entry_id).phase is Phase.PARKED
    await kernel.resolve(done.entry_id, "not_sent", by="me")  # and its age begins anew
    assert await kernel.settled(done.entry_id, 2_000)
    assert lone.platform.contents == ["hi"]


@pytest.mark.parametrize("verdict", ["not_sent", "resend"])
async def test_the_word_of_a_person_gives_new_time(lone: Gateway, verdict: str) -> None:
    """Its gate opens after the time that the entry had."""
    lone.settings = Settings(probe_ms=2 * HOUR)
    lone.platform.plays(unknown(), reject(OFFLINE))
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "hi", ttl_ms=HOUR)
    await spin()
    await lone.advance(HOUR - MINUTE)
    await kernel.resolve(done.entry_id, verdict, by="ann")
    await lone.advance(2 * MINUTE)
    assert entry(kernel, done.entry_id).open
    await lone.advance(2 * HOUR)
    assert await kernel.settled(done.entry_id, 2_000)
    assert lone.platform.contents == ["hi"]


async def test_an_answer_that_was_shown_in_part_is_finished(lone: Gateway) -> None:
    lone.settings = attrs.evolve(LIMIT, probe_ms=2 * HOUR)
    lone.platform.plays(accept(), reject(OFFLINE))
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "one", "two", kind=Kind.FINAL)
    await spin()
    await lone.advance(2 * HOUR)
    await kernel.settled(done.entry_id, 2_000)
    assert lone.platform.contents == ["one", "two"]


async def test_a_placeholder_that_stands_gets_its_text(lone: Gateway) -> None:
    lone.settings = attrs.evolve(LIMIT, probe_ms=2 * HOUR)
    lone.channels = {
        ("t", "default"): PlatformChannel(lone.platform, DeliveryClass.EDITABLE)
    }
    lone.platform.plays(accept(), reject(OFFLINE))
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "hi", kind=Kind.FINAL)
    await spin()
    await lone.advance(2 * HOUR)
    await kernel.settled(done.entry_id, 2_000)
    assert entry(kernel, done.entry_id).phase is Phase.DELIVERED


async def test_a_person_may_send_it_all_the_same(lone: Gateway) -> None:
    lone.settings = attrs.evolve(LIMIT, probe_ms=10 * HOUR)
    lone.platform.plays(reject(OFFLINE))
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "old")
    await lone.advance(HOUR + 1)
    await kernel.redrive(done.entry_id, by="me")
    await kernel.connected("t")
    await kernel.settled(done.entry_id, 2_000)
    assert lone.platform.contents == ["old"]


async def test_the_age_counts_from_when_an_entry_falls_due(lone: Gateway) -> None:
    lone.settings = LIMIT
    kernel = await lone.start()
    at = lone.clock.wall_now() + 5 * HOUR
    done = await kernel.enqueue(route(), "reminder", not_before=at)
    await lone.advance(5 * HOUR)
    await kernel.settled(done.entry_id, 2_000)
    assert lone.platform.contents == ["reminder"]


async def test_a_person_who_moves_the_time_moves_the_age(lone: Gateway) -> None:
    lone.settings = attrs.evolve(LIMIT, probe_ms=HOUR // 2)
    lone.platform.plays(reject(OFFLINE))
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "hi")
    await spin()
    at = lone.clock.now() + 3 * HOUR
    await kernel.reschedule(done.entry_id, at, by="me")
    await lone.advance(3 * HOUR)
    await kernel.settled(done.entry_id, 2_000)
    assert lone.platform.contents == ["hi"]


async def test_an_account_may_have_a_limit_of_its_own(lone: Gateway) -> None:
    kernel = Kernel(lone.store(), clock=lone.clock, settings=Settings())
    channel = PlatformChannel(lone.platform)
    kernel.attach("t", channel, on_unknown="hold", max_entry_age_ms=MINUTE)
    kernel.attach("u", channel, on_unknown="hold")
    lone.platform.plays(reject(OFFLINE), reject(OFFLINE))
    async with kernel:
        short = await kernel.enqueue(route(), "short")
        long = await kernel.enqueue(route(channel="u"), "long")
        await spin()
        lone.clock.pass_ms(MINUTE + 1)
        await kernel.settled(short.entry_id, 2_000)
        await kernel.settled(long.entry_id, 2_000)
        assert entry(kernel, short.entry_id).reason == "too_old"
        assert lone.platform.contents == ["long"]


@pytest.mark.parametrize("wrong", [0, -1, "1", 1.5, True])
def test_a_limit_is_a_whole_number_of_at_least_one(wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="max_entry_age_ms"):
        Settings(max_entry_age_ms=wrong)
    channel = PlatformChannel(Platform())
    with pytest.raises(InvalidInputError, match="max_entry_age_ms"):
        Kernel("unused.db").attach(
            "t", channel, on_unknown="hold", max_entry_age_ms=wrong
        )
