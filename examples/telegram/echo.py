"""A Telegram bot that answers each message once, whatever kills it.

BOT_TOKEN=... python examples/telegram/echo.py bot.db
"""

import asyncio
import os
import sys

from turnfold import Kernel
from turnfold_adapters.channels.telegram import TelegramChannel


def make_bot(store, token, **options) -> Kernel:
    kernel = Kernel(store)
    telegram = TelegramChannel(token, **options)
    kernel.attach("telegram", telegram, on_unknown="resend_marked")
    kernel.source("telegram", telegram.source)

    @kernel.on_turn
    async def answer(turn):
        await turn.reply(f"You said: {turn.inbound.text}")

    return kernel


if __name__ == "__main__":
    # The tests name a fake server and a short settle time here.
    given = {
        "base_url": os.environ.get("BOT_API"),
        "settle_ms": os.environ.get("SETTLE"),
    }
    options = {k: int(v) if v.isdigit() else v for k, v in given.items() if v}
    asyncio.run(make_bot(sys.argv[1], os.environ["BOT_TOKEN"], **options).run())
