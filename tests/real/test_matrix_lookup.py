"""MatrixChannel against a real Synapse: finding what was sent."""

import time

import pytest

from turnfold.ports.channel import Absent, CannotTell, Found, Unknown

from .cutting_proxy import CuttingProxy, Fault
from .matrix_scene import MakeChannel, a_part, deliver, id_of
from .synapse import User


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.mark.case("B02", "B16")
async def test_a_part_whose_answer_was_lost_is_found_by_its_key(
    make_channel: MakeChannel, bot: User, room_id: str, proxy: CuttingProxy
) -> None:
    since = now_ms()
    channel = make_channel(proxy.base_url)
    part, same_text = a_part(room_id, "same"), a_part(room_id, "same")
    await deliver(channel, same_text)
    proxy.plan(Fault.CUT_AFTER)
    assert isinstance(await deliver(channel, part), Unknown)
    _, event = bot.events(room_id, bot.user_id)
    verdict = await channel.reconcile(part, since)
    assert isinstance(verdict, Found)
    assert verdict.receipt.ids == (event["event_id"],)


@pytest.mark.case("B02")
async def test_another_device_of_the_bot_finds_it_too(
    make_channel: MakeChannel, room_id: str
) -> None:
    """The server shows transaction ids to the sending device only; our key is ours."""
    since = now_ms()
    part = a_part(room_id)
    sent = await deliver(make_channel(), part)
    other = make_channel(token=None, password="bot", device_id="SECOND")
    verdict = await other.reconcile(part, since)
    assert isinstance(verdict, Found)
    assert verdict.receipt.ids == (id_of(sent),)


@pytest.mark.case("B16")
async def test_a_part_that_never_arrived_is_absent_even_beside_its_twin(
    make_channel: MakeChannel, room_id: str, proxy: CuttingProxy
) -> None:
    since = now_ms()
    channel = make_channel(proxy.base_url)
    await deliver(channel, a_part(room_id, "same"))
    part = a_part(room_id, "same")
    proxy.plan(Fault.CUT_BEFORE)
    assert isinstance(await deliver(channel, part), Unknown)
    assert isinstance(await channel.reconcile(part, since), Absent)


@pytest.mark.case("B16")
async def test_somebody_else_using_our_key_is_not_us(
    make_channel: MakeChannel, alice: User, room_id: str
) -> None:
    part = a_part(room_id)
    alice.say(room_id, "hello", **{"io.turnfold.part": part.key})
    assert isinstance(await make_channel().reconcile(part, now_ms()), Absent)


async def test_a_part_is_found_behind_many_later_ones(
    make_channel: MakeChannel, bot: User, room_id: str
) -> None:
    since = now_ms()
    channel = make_channel()
    part = a_part(room_id)
    sent = await deliver(channel, part)
    for number in range(120):
        bot.say(room_id, f"later {number}")
    verdict = await channel.reconcile(part, since)
    assert isinstance(verdict, Found)
    assert verdict.receipt.ids == (id_of(sent),)


async def test_the_search_stops_at_what_is_older_than_the_attempt(
    make_channel: MakeChannel, bot: User, room_id: str, proxy: CuttingProxy
) -> None:
    for number in range(120):
        bot.say(room_id, f"old {number}")
    channel = make_channel(proxy.base_url, skew_ms=0)
    await channel.prepare(a_part(room_id))
    before = proxy.count("GET")
    verdict = await channel.reconcile(a_part(room_id), now_ms() + 1000)
    assert isinstance(verdict, Absent)
    assert proxy.count("GET") == before + 1


async def test_a_redacted_event_of_that_time_forbids_to_say_absent(
    make_channel: MakeChannel, bot: User, alice: User, room_id: str
) -> None:
    since = now_ms()
    channel = make_channel()
    event_id = bot.say(room_id, "sent by another program")
    alice.redact(room_id, event_id)
    assert isinstance(await channel.reconcile(a_part(room_id), since), CannotTell)


async def test_a_part_that_a_moderator_redacted_is_never_absent(
    make_channel: MakeChannel, alice: User, room_id: str
) -> None:
    since = now_ms()
    channel = make_channel()
    part = a_part(room_id)
    alice.redact(room_id, id_of(await deliver(channel, part)))
    verdict = await channel.reconcile(part, since)
    assert not isinstance(verdict, Absent)


@pytest.mark.case("B04")
async def test_a_server_that_does_not_answer_tells_nothing(
    make_channel: MakeChannel, alice: User, room_id: str, proxy: CuttingProxy
) -> None:
    channel = make_channel(proxy.base_url)
    part = a_part(room_id)
    await proxy.refuse()
    assert isinstance(await channel.reconcile(part, now_ms()), CannotTell)
    elsewhere = a_part(alice.create_room())
    assert isinstance(await make_channel().reconcile(elsewhere, 0), CannotTell)
