"""The first gateway of the page of Matrix, as it stands there, on a real Synapse."""

import asyncio
from pathlib import Path

import pytest
from tests.docs.test_channel_pages import PAGES, first_gateway

from .synapse import Synapse, User


async def test_the_first_gateway_of_the_page_answers(
    synapse: Synapse,
    bot: User,
    alice: User,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("HOMESERVER", synapse.base_url)
    monkeypatch.setenv("BOT_ID", bot.user_id)
    monkeypatch.setenv("BOT_DEVICE", bot.device_id)
    monkeypatch.setenv("BOT_TOKEN", bot.token)
    room = alice.create_room(bot.user_id)
    bot.join(room)
    given = first_gateway(PAGES / "matrix.md", tmp_path)

    def texts() -> list[str]:
        return [one["content"]["body"] for one in bot.events(room, bot.user_id)]

    async with given["kernel"], asyncio.timeout(60):
        while "You said: hello" not in texts():
            alice.say(room, "hello")  # what is said before the first sync is not heard
            await asyncio.sleep(1)
    bot.leave_all()
    alice.leave_all()
