"""Odd texts and captions in a room of a real Synapse: every part is taken, within the
limit, and the parts together show the text, but for characters that the protocol has
not."""

import asyncio

from hypothesis import given
from tests.odd_texts import FORMATS, MARK, TEXTS, many, plan, send, shown

from turnfold import File, Text
from turnfold_adapters.channels.matrix_content import TEXT_MAX_BYTES, printable
from turnfold_adapters.text.clusters import is_blank

from .matrix_scene import MakeChannel
from .synapse import Synapse, User


def test_every_piece_of_a_text_is_taken_and_together_they_show_it(
    synapse: Synapse, bot: User, make_channel: MakeChannel, room_id: str
) -> None:
    @many
    @given(TEXTS, FORMATS)
    def check(said: str, form: str) -> None:
        async def play() -> None:
            async with make_channel() as channel:
                await send(
                    channel, room_id, plan(channel, Text(said, format=form), room_id)
                )

        before = len(bot.events(room_id, bot.user_id))
        asyncio.run(play())
        texts = [
            e["content"]["body"] for e in bot.events(room_id, bot.user_id)[before:]
        ]
        assert all(len(text.encode()) <= TEXT_MAX_BYTES + len(MARK) for text in texts)
        assert not any(map(is_blank, texts))
        if form == "plain":
            together = "".join(text.removeprefix(MARK) for text in texts)
            said = "" if is_blank(said) else printable(said)
            assert shown(together) == shown(said)

    check()


def test_every_caption_within_the_offer_is_taken_beside_its_file(
    make_channel: MakeChannel, room_id: str
) -> None:
    @many
    @given(TEXTS)
    def check(said: str) -> None:
        async def play() -> None:
            async with make_channel() as channel:
                caption = said
                while len(caption.encode()) > channel.capabilities.captions:
                    caption = caption[: len(caption) // 2]
                file = File(data=b"x", name="a.png", caption=caption)
                await send(channel, room_id, plan(channel, file, room_id))

        asyncio.run(play())

    check()
