"""A Matrix bot that answers each message once, whatever kills it.

HOMESERVER=... BOT_ID=@bot:example.org BOT_DEVICE=... BOT_TOKEN=... \
    python examples/matrix/echo.py bot.db
"""

import asyncio
import os
import sys

from turnfold import Kernel
from turnfold_adapters.channels.matrix import MatrixChannel


def make_bot(store, homeserver, **options) -> Kernel:
    kernel = Kernel(store)
    matrix = MatrixChannel(homeserver, **options)
    kernel.attach("matrix", matrix)
    kernel.source("matrix", matrix.source)

    @kernel.on_turn
    async def answer(turn):
        await turn.reply(f"You said: {turn.inbound.text}")

    return kernel


if __name__ == "__main__":
    options = {
        "user_id": os.environ["BOT_ID"],
        "device_id": os.environ["BOT_DEVICE"],
        "token": os.environ["BOT_TOKEN"],
        "settle_ms": int(os.environ.get("SETTLE", "120000")),
    }
    asyncio.run(make_bot(sys.argv[1], os.environ["HOMESERVER"], **options).run())
