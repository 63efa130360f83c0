"""MatrixChannel against a real Synapse: what goes out."""

import asyncio
from urllib.parse import quote

import pytest

from turnfold.enums import FailureClass, Format
from turnfold.messages import File, Native, Text
from turnfold.ports.channel import Accepted, Attempt, Rejected, Unknown
from turnfold_adapters.channels.matrix_content import KEY_FIELD, TEXT_MAX_BYTES

from .cutting_proxy import CuttingProxy, Fault
from .matrix_scene import MakeChannel, a_part, deliver, id_of
from .synapse import Synapse, User


@pytest.mark.case("A04")
async def test_the_same_key_twice_is_one_event_with_one_id(
    make_channel: MakeChannel, bot: User, room_id: str
) -> None:
    channel = make_channel()
    part = a_part(room_id)
    first = await deliver(channel, part)
    again = await deliver(channel, part)
    (event,) = bot.events(room_id, bot.user_id)
    assert id_of(first) == id_of(again) == event["event_id"]
    assert event["content"][KEY_FIELD] == part.key


@pytest.mark.case("E03")
async def test_the_same_key_eight_times_at_once_is_one_event(
    make_channel: MakeChannel, bot: User, room_id: str
) -> None:
    channel = make_channel()
    part = a_part(room_id)
    outcomes = await asyncio.gather(*(deliver(channel, part) for _ in range(8)))
    assert len({id_of(outcome) for outcome in outcomes}) == 1
    assert len(bot.events(room_id, bot.user_id)) == 1


@pytest.mark.case("A04", "B06", "D17")
async def test_a_cut_after_the_request_is_unknown_and_the_same_key_again_is_one_event(
    make_channel: MakeChannel, bot: User, room_id: str, proxy: CuttingProxy
) -> None:
    channel = make_channel(proxy.base_url)
    part = a_part(room_id)
    proxy.plan(Fault.CUT_AFTER)
    lost = await deliver(channel, part)
    assert isinstance(lost, Unknown)
    assert proxy.count("PUT") == 1  # nobody below us tried again
    (event,) = bot.events(room_id, bot.user_id)
    again = await deliver(channel, part)
    assert id_of(again) == event["event_id"]
    assert len(bot.events(room_id, bot.user_id)) == 1


@pytest.mark.case("D17")
async def test_without_our_middleware_a_cut_put_is_silently_sent_twice(
    bot: User, room_id: str, proxy: CuttingProxy
) -> None:
    """Why the middleware exists. If this fails, aiohttp has changed its mind."""
    import aiohttp

    proxy.plan(Fault.CUT_AFTER, times=2)
    path = f"/_matrix/client/v3/rooms/{quote(room_id)}/send/m.room.message/txn1"
    headers = {"Authorization": f"Bearer {bot.token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.put(proxy.base_url + path, json={"body": "x"})
    assert proxy.count("PUT") == 2


@pytest.mark.case("B06")
async def test_a_cut_on_a_connection_in_use_is_not_repeated_either(
    make_channel: MakeChannel, bot: User, room_id: str, proxy: CuttingProxy
) -> None:
    channel = make_channel(proxy.base_url)
    await deliver(channel, a_part(room_id))
    proxy.plan(Fault.CUT_BEFORE)
    part = a_part(room_id)
    assert isinstance(await deliver(channel, part), Unknown)
    assert proxy.count("PUT") == 2
    assert len(bot.events(room_id, bot.user_id)) == 1
    assert isinstance(await deliver(channel, part), Accepted)
    assert len(bot.events(room_id, bot.user_id)) == 2


@pytest.mark.case("B06", "D12")
async def test_a_refused_connection_is_proven_not_sent(
    make_channel: MakeChannel, room_id: str, proxy: CuttingProxy
) -> None:
    channel = make_channel(proxy.base_url)
    part = a_part(room_id)
    assert await channel.prepare(part) == {}
    await proxy.refuse()
    outcome = await deliver(channel, part)
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.NOT_CONNECTED
    await proxy.accept()
    assert isinstance(await deliver(channel, part), Accepted)


@pytest.mark.case("B06", "D18")
async def test_an_answer_that_comes_too_late_is_unknown_and_one_event(
    make_channel: MakeChannel, bot: User, room_id: str, proxy: CuttingProxy
) -> None:
    channel = make_channel(proxy.base_url, request_timeout_ms=400)
    part = a_part(room_id)
    proxy.plan(Fault.DELAY, delay_s=5)
    assert isinstance(await deliver(channel, part), Unknown)
    assert proxy.count("PUT") == 1
    assert isinstance(await deliver(channel, part), Accepted)
    assert len(bot.events(room_id, bot.user_id)) == 1


@pytest.mark.case("A04", "B06")
@pytest.mark.parametrize("delay_ms", [0, 3, 6, 10, 20, 60])
async def test_kill_9_of_the_server_around_the_put_leaves_one_event(
    make_channel: MakeChannel,
    synapse: Synapse,
    bot: User,
    room_id: str,
    delay_ms: int,
) -> None:
    channel = make_channel()
    part = a_part(room_id)
    await channel.prepare(part)
    sending = asyncio.create_task(deliver(channel, part))
    await asyncio.sleep(delay_ms / 1000)
    await asyncio.to_thread(synapse.kill9)
    first = await sending
    await asyncio.to_thread(synapse.restart)
    again = await deliver(channel, part)
    (event,) = bot.events(room_id, bot.user_id)
    assert id_of(again) == event["event_id"]
    if isinstance(first, Accepted):
        assert id_of(first) == event["event_id"]


@pytest.mark.case("B13", "D17")
async def test_a_rate_limit_says_how_long_and_is_not_waited_out_in_secret(
    make_channel: MakeChannel, synapse: Synapse, alice: User, root: User
) -> None:
    synapse.register("slow")
    slow = synapse.login("slow", "SLOW")
    room_id = slow.create_room(alice.user_id)
    alice.join(room_id)
    async with CuttingProxy(synapse.port) as proxy:
        channel = make_channel(proxy.base_url, user=slow)
        first = a_part(room_id)
        assert isinstance(await deliver(channel, first), Accepted)
        root.limit_messages(slow.user_id, per_second=1, burst=1)
        parts = [a_part(room_id) for _ in range(4)]
        outcomes = [await deliver(channel, part) for part in parts]
        limited = [o for o in outcomes if isinstance(o, Rejected)]
        assert limited
        assert {o.failure for o in limited} == {FailureClass.RATE_LIMITED}
        assert all(0 < (o.retry_after_ms or 0) <= 10_000 for o in limited)
        assert proxy.count("PUT") == 5
        # What it has already, it confirms even while it limits.
        assert isinstance(await deliver(channel, first), Accepted)


@pytest.mark.case("C04")
async def test_a_file_is_uploaded_unseen_and_then_sent_as_one_event(
    make_channel: MakeChannel, bot: User, alice: User, room_id: str
) -> None:
    channel = make_channel()
    file = File(data=b"\x89PNG not really", name="plot 1.png", mime="image/png")
    part = a_part(room_id, file)
    uri = await channel.prepare(part)
    assert await channel.prepare(part) == uri
    assert bot.events(room_id, bot.user_id) == []
    await deliver(channel, part)
    (event,) = alice.events(room_id, bot.user_id)
    content = event["content"]
    assert content["msgtype"] == "m.image"
    assert content["body"] == "plot 1.png"
    assert content["info"] == {"mimetype": "image/png", "size": 15}
    assert uri == {"": content["url"]}
    assert alice.download(content["url"]) == file.data


@pytest.mark.case("C08")
async def test_a_file_that_is_gone_is_a_lasting_refusal(
    make_channel: MakeChannel, room_id: str
) -> None:
    outcome = await deliver(make_channel(), a_part(room_id, File("/no/such/file")))
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.INVALID_PAYLOAD


async def test_a_file_sent_without_its_upload_is_refused_before_the_wire(
    make_channel: MakeChannel, room_id: str
) -> None:
    part = a_part(room_id, File(data=b"x"))
    outcome = await make_channel().send(part, part.key, Attempt(number=1, at_ms=0))
    assert isinstance(outcome, Rejected)


@pytest.mark.case("C12", "L04")
async def test_a_part_lands_in_its_thread_and_only_the_first_quotes(
    make_channel: MakeChannel, alice: User, bot: User, room_id: str
) -> None:
    channel = make_channel()
    root_id = alice.say(room_id, "root")
    asked_id = alice.say(room_id, "question")
    place = {"thread": root_id, "reply_to": asked_id}
    outcome = await deliver(channel, a_part(room_id, "one", **place))
    await deliver(channel, a_part(room_id, "two", index=1, **place))
    assert isinstance(outcome, Accepted)
    assert outcome.receipt.thread == root_id
    one, two = (e["content"]["m.relates_to"] for e in bot.events(room_id, bot.user_id))
    assert one["rel_type"] == two["rel_type"] == "m.thread"
    assert one["event_id"] == two["event_id"] == root_id
    assert one["m.in_reply_to"]["event_id"] == asked_id
    assert (one["is_falling_back"], two["is_falling_back"]) == (False, True)


@pytest.mark.case("C05")
async def test_native_content_goes_out_as_given_with_our_key(
    make_channel: MakeChannel, alice: User, bot: User, room_id: str
) -> None:
    channel = make_channel()
    target = alice.say(room_id, "like me")
    likes = {"rel_type": "m.annotation", "event_id": target, "key": "+1"}
    reaction = {"type": "m.reaction", "content": {"m.relates_to": likes}}
    await deliver(channel, a_part(room_id, Native(reaction)))
    notice = a_part(room_id, Native({"msgtype": "m.notice", "body": "n"}))
    await deliver(channel, notice)
    first, second = bot.events(room_id, bot.user_id)
    assert first["type"] == "m.reaction"
    assert first["content"]["m.relates_to"] == likes
    assert second["content"] == {
        "msgtype": "m.notice",
        "body": "n",
        KEY_FIELD: notice.key,
    }


@pytest.mark.case("V08")
async def test_a_caption_and_the_file_of_a_native_content_are_uploaded_and_shown(
    make_channel: MakeChannel, bot: User, room_id: str
) -> None:
    channel = make_channel()
    plot = File(data=b"plot", name="week 1.png", mime="image/png", caption="the week")
    await deliver(channel, a_part(room_id, plot))
    image = {"msgtype": "m.image", "body": "by hand", "url": "attach://plot"}
    files = {"plot": File(data=b"plot", name="week 1.png", mime="image/png")}
    await deliver(channel, a_part(room_id, Native(image, files)))
    first, second = [event["content"] for event in bot.events(room_id, bot.user_id)]
    assert (first["body"], first["filename"]) == ("the week", "week 1.png")
    assert second["body"] == "by hand"
    assert first["url"].startswith("mxc://")
    assert second["url"].startswith("mxc://")


@pytest.mark.case("D01")
async def test_the_largest_text_fits_however_it_is_escaped(
    make_channel: MakeChannel, alice: User, bot: User, room_id: str
) -> None:
    channel = make_channel()
    root_id = alice.say(room_id, "root")
    for unit in ('"', "\n", "\\", "字", "<", "\x01"):
        count = TEXT_MAX_BYTES // len(unit.encode())
        worst = Text("a" + unit * (count - 1), format=Format.HTML)
        part = a_part(room_id, worst, thread=root_id)
        assert isinstance(await deliver(channel, part, marked=True), Accepted)


@pytest.mark.case("D01")
async def test_an_event_that_is_too_large_is_a_lasting_refusal(
    make_channel: MakeChannel, room_id: str
) -> None:
    native = Native({"msgtype": "m.text", "body": "x" * 70_000})
    outcome = await deliver(make_channel(), a_part(room_id, native))
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.TOO_LONG


@pytest.mark.case("D02", "D05")
async def test_a_room_the_bot_is_not_in_is_a_matter_of_permission(
    make_channel: MakeChannel, alice: User
) -> None:
    room_id = alice.create_room()
    outcome = await deliver(make_channel(), a_part(room_id))
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.PERMISSION


@pytest.mark.case("D05")
async def test_a_bad_token_and_a_token_of_another_user_are_matters_of_auth(
    make_channel: MakeChannel, bot: User, alice: User, room_id: str
) -> None:
    for wrong in ({"token": "nonsense"}, {"token": alice.token}):
        outcome = await deliver(make_channel(**wrong), a_part(room_id))
        assert isinstance(outcome, Rejected)
        assert outcome.failure is FailureClass.AUTH
    other_device = make_channel(device_id="OTHER")
    outcome = await deliver(other_device, a_part(room_id))
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.AUTH
    assert bot.events(room_id, bot.user_id) == []


@pytest.mark.case("A04", "H06")
async def test_a_new_login_on_the_pinned_device_keeps_the_scope_of_the_keys(
    make_channel: MakeChannel, synapse: Synapse, bot: User, room_id: str
) -> None:
    part = a_part(room_id)
    pinned = {"token": None, "password": "bot", "device_id": "PINNED"}
    first = await deliver(make_channel(**pinned), part)
    await asyncio.to_thread(synapse.restart)  # its memory is cold; its disk knows
    again = await deliver(make_channel(**pinned), part)
    assert id_of(again) == id_of(first)
    assert len(bot.events(room_id, bot.user_id)) == 1


async def test_with_a_password_an_ended_session_is_renewed_without_an_operator(
    make_channel: MakeChannel, bot: User, room_id: str
) -> None:
    channel = make_channel(token=None, password="bot", device_id="ENDED")
    await deliver(channel, a_part(room_id))
    await channel._client.ask(("POST", "/_matrix/client/v3/logout"), "log out")
    part = a_part(room_id)
    refused = await channel.send(part, part.key, Attempt(number=1, at_ms=0))
    assert isinstance(refused, Rejected)
    assert refused.failure is FailureClass.TRANSIENT
    assert isinstance(await deliver(channel, part), Accepted)
    assert len(bot.events(room_id, bot.user_id)) == 2


@pytest.mark.case("D05")
async def test_a_wrong_password_is_a_matter_of_auth(
    make_channel: MakeChannel, room_id: str
) -> None:
    channel = make_channel(token=None, password="wrong")
    outcome = await deliver(channel, a_part(room_id))
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.AUTH


async def test_an_encrypted_room_gets_no_clear_text_unless_allowed(
    make_channel: MakeChannel, alice: User, bot: User
) -> None:
    encryption = {
        "type": "m.room.encryption",
        "state_key": "",
        "content": {"algorithm": "m.megolm.v1.aes-sha2"},
    }
    room_id = alice.create_room(bot.user_id, initial_state=[encryption])
    bot.join(room_id)
    outcome = await deliver(make_channel(), a_part(room_id))
    assert isinstance(outcome, Rejected)
    assert outcome.failure is FailureClass.PERMISSION
    assert bot.events(room_id, bot.user_id) == []
    careless = make_channel(clear_text_in_encrypted_rooms=True)
    assert isinstance(await deliver(careless, a_part(room_id)), Accepted)
