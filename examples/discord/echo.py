"""A Discord bot that answers each message once, whatever kills it.

BOT_TOKEN=... python examples/discord/echo.py bot.db
"""

import asyncio
import os
import sys

from turnfold import Kernel
from turnfold_adapters.channels.discord import DiscordChannel


def make_bot(store, token, **options) -> Kernel:
    kernel = Kernel(store)
    discord = DiscordChannel(token, **options)
    kernel.attach("discord", discord, on_unknown="resend_marked")
    kernel.source("discord", discord.source)

    @kernel.on_turn
    async def answer(turn):
        await turn.reply(f"You said: {turn.inbound.text}")

    return kernel


if __name__ == "__main__":
    # The tests name a fake server and short waits here.
    given = {
        "base_url": os.environ.get("BOT_API"),
        "gateway": os.environ.get("BOT_GATEWAY"),
        "settle_ms": os.environ.get("SETTLE"),
        "ready_ms": os.environ.get("SETTLE"),
    }
    options = {k: int(v) if v.isdigit() else v for k, v in given.items() if v}
    asyncio.run(make_bot(sys.argv[1], os.environ["BOT_TOKEN"], **options).run())
