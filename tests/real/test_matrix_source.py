"""MatrixChannel against a real Synapse: what comes in."""

import asyncio

import pytest

from turnfold_adapters.channels.matrix import MatrixChannel

from .cutting_proxy import CuttingProxy, Fault
from .matrix_scene import MakeChannel, a_part, deliver, pairs, texts
from .synapse import Synapse, User


async def now(channel: MatrixChannel) -> str:
    """The cursor of this moment."""
    ((message, cursor),) = await pairs(channel.source(None), lambda seen: True)
    assert message is None
    return cursor


async def test_a_first_start_begins_now_and_a_message_has_its_ids(
    make_channel: MakeChannel, alice: User, room_id: str
) -> None:
    channel = make_channel()
    root_id = alice.say(room_id, "long ago")
    cursor = await now(channel)
    thread = {"rel_type": "m.thread", "event_id": root_id}
    event_id = alice.say(room_id, "hi", **{"m.relates_to": thread})
    seen = await pairs(channel.source(cursor), lambda seen: bool(texts(seen)))
    message = seen[-1][0]
    assert message is not None
    assert message.text == "hi"
    assert message.message_id == event_id
    assert message.conversation == room_id
    assert message.thread == root_id
    assert message.body["sender"] == alice.user_id


@pytest.mark.case("H05", "H20")
async def test_only_the_last_message_of_a_round_carries_the_new_cursor(
    make_channel: MakeChannel, alice: User, room_id: str
) -> None:
    channel = make_channel()
    cursor = await now(channel)
    for number in range(5):
        alice.say(room_id, f"m{number}")
    seen = await pairs(channel.source(cursor), lambda seen: len(texts(seen)) == 5)
    assert texts(seen) == ["m0", "m1", "m2", "m3", "m4"]
    assert [c == cursor for _, c in seen] == [True, True, True, True, False]
    again = await pairs(channel.source(cursor), lambda seen: len(texts(seen)) == 5)
    assert texts(again) == texts(seen)


@pytest.mark.case("H05", "H08")
async def test_own_messages_move_the_cursor_and_nothing_else(
    make_channel: MakeChannel, room_id: str
) -> None:
    channel = make_channel()
    cursor = await now(channel)
    await deliver(channel, a_part(room_id))
    ((message, moved),) = await pairs(channel.source(cursor), lambda seen: True)
    assert message is None
    assert moved != cursor


@pytest.mark.case("H03", "H05")
async def test_messages_beyond_a_limited_timeline_are_fetched_in_order(
    make_channel: MakeChannel, alice: User, room_id: str
) -> None:
    channel = make_channel()
    alice.say(room_id, "before")
    cursor = await now(channel)
    said = [f"m{number}" for number in range(220)]
    for text in said:
        alice.say(room_id, text)
    seen = await pairs(channel.source(cursor), lambda seen: len(texts(seen)) >= 220)
    assert texts(seen) == said


@pytest.mark.case("H03", "H05")
async def test_nothing_is_lost_when_the_gap_cannot_be_read_at_once(
    make_channel: MakeChannel,
    alice: User,
    room_id: str,
    proxy: CuttingProxy,
) -> None:
    channel = make_channel(proxy.base_url)
    cursor = await now(channel)
    said = [f"m{number}" for number in range(150)]
    for text in said:
        alice.say(room_id, text)
    proxy.plan(Fault.CUT_AFTER, method="GET", path="/messages", times=2)
    seen = await pairs(channel.source(cursor), lambda seen: len(texts(seen)) >= 150)
    assert texts(seen) == said
    asked = [one.path for one in proxy.seen if "/messages" in one.path]
    assert len(asked) >= 3


@pytest.mark.case("H03", "H16")
async def test_a_source_outlives_kill_9_of_the_server_and_loses_nothing(
    make_channel: MakeChannel, synapse: Synapse, alice: User, room_id: str
) -> None:
    channel = make_channel()
    cursor = await now(channel)
    alice.say(room_id, "one")
    reading = asyncio.create_task(
        pairs(channel.source(cursor), lambda seen: "three" in texts(seen))
    )
    await asyncio.sleep(0.3)
    await asyncio.to_thread(alice.say, room_id, "two")
    await asyncio.to_thread(synapse.restart)
    await asyncio.to_thread(alice.say, room_id, "three")
    seen = await asyncio.wait_for(reading, 60)
    assert texts(seen) == ["one", "two", "three"]
    rest = await pairs(
        make_channel().source(cursor), lambda seen: "three" in texts(seen)
    )
    assert texts(rest) == ["one", "two", "three"]


async def test_an_invite_is_accepted_and_what_was_said_since_then_comes_in(
    make_channel: MakeChannel, alice: User, bot: User
) -> None:
    channel = make_channel(auto_join=True)
    cursor = await now(channel)
    room_id = alice.create_room()
    alice.say(room_id, "before the bot was asked in")
    alice.post(f"/v3/rooms/{room_id}/invite", {"user_id": bot.user_id})
    alice.say(room_id, "are you there?")
    seen = await pairs(channel.source(cursor), lambda seen: bool(texts(seen)))
    assert texts(seen) == ["are you there?"]


async def test_without_the_flag_an_invite_waits(
    make_channel: MakeChannel, alice: User, bot: User
) -> None:
    channel = make_channel()
    cursor = await now(channel)
    room_id = alice.create_room(bot.user_id)
    ((message, _),) = await pairs(channel.source(cursor), lambda seen: True)
    assert message is None
    invited = bot.call("GET", "/v3/sync?timeout=0")["rooms"]["invite"]
    assert room_id in invited
    bot.leave(room_id)


async def test_what_was_said_before_the_bot_was_thrown_out_still_comes_in(
    make_channel: MakeChannel, alice: User, bot: User, room_id: str
) -> None:
    channel = make_channel()
    cursor = await now(channel)
    alice.say(room_id, "last words")
    alice.post(f"/v3/rooms/{room_id}/kick", {"user_id": bot.user_id})
    seen = await pairs(channel.source(cursor), lambda seen: bool(texts(seen)))
    assert texts(seen) == ["last words"]


@pytest.mark.case("H11", "Q01")
async def test_a_hostile_event_does_not_stop_the_source(
    make_channel: MakeChannel, alice: User, room_id: str
) -> None:
    channel = make_channel()
    cursor = await now(channel)
    deep: object = "x"
    for _ in range(100):  # Synapse takes this and refuses 300
        deep = [deep]
    alice.say(room_id, "deep", deep=deep, big=2**52)
    alice.say(room_id, "", **{"m.relates_to": {"rel_type": "m.thread", "event_id": 5}})
    alice.put_event(room_id, "m.room.message", {"msgtype": "m.x", "body": ""})
    alice.say(room_id, "after")
    seen = await pairs(channel.source(cursor), lambda seen: "after" in texts(seen))
    assert [text for text in texts(seen) if text] == ["deep", "after"]
