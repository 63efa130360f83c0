"""A Slack bot that answers each message once, whatever kills it.

BOT_TOKEN=xoxb-... APP_TOKEN=xapp-... python examples/slack/echo.py bot.db
"""

import asyncio
import os
import sys

from turnfold import Kernel, Settings
from turnfold_adapters.channels.slack import SlackChannel


def make_bot(store, token, app_token, **options) -> Kernel:
    deaths = int(os.environ.get("DEATHS", "3"))
    kernel = Kernel(store, settings=Settings(max_deaths_alone=deaths))
    slack = SlackChannel(token, app_token=app_token, **options)
    kernel.attach("slack", slack)
    kernel.source("slack", slack.source)

    @kernel.on_turn
    async def answer(turn):
        await turn.reply(f"You said: {turn.inbound.text}")

    return kernel


if __name__ == "__main__":
    # The tests name a fake server and a short settle time here, and say by DEATHS that
    # their kills are no fault of a message.
    given = {
        "base_url": os.environ.get("BOT_API"),
        "settle_ms": os.environ.get("SETTLE"),
    }
    options = {k: int(v) if v.isdigit() else v for k, v in given.items() if v}
    tokens = os.environ["BOT_TOKEN"], os.environ["APP_TOKEN"]
    asyncio.run(make_bot(sys.argv[1], *tokens, **options).run())
