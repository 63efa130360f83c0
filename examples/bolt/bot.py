"""A Slack Bolt app as its authors write it, made durable by one line.

BOT_TOKEN=xoxb-... APP_TOKEN=xapp-... python examples/bolt/bot.py bot.db
"""

import asyncio
import os
import sys

from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from turnfold import Settings
from turnfold_adapters.bridges import bolt


def build(token, base_url=None):
    client = AsyncWebClient(token, base_url) if base_url else None
    app = AsyncApp(token=token, client=client)

    @app.event("message")
    async def answer(event, client, say):
        waiting = await say("One moment ...")
        await asyncio.sleep(0.02)
        where = {"channel": waiting["channel"], "ts": waiting["ts"]}
        await client.chat_update(**where, text=f"You said: {event['text']}")

    return app


async def plain(app, app_token):
    await AsyncSocketModeHandler(app, app_token).start_async()


if __name__ == "__main__":
    app = build(os.environ["BOT_TOKEN"], os.environ.get("BOT_API"))
    app_token = os.environ["APP_TOKEN"]
    if os.environ.get("PLAIN"):  # as it was before; the tests compare
        asyncio.run(plain(app, app_token))
        raise SystemExit
    # The tests name a short settle time, and that their kills are no fault of a message.
    options = {"settle_ms": int(os.environ.get("SETTLE", "60000"))}
    options["settings"] = Settings(max_deaths_alone=int(os.environ.get("DEATHS", "3")))
    asyncio.run(bolt.run(app, sys.argv[1], app_token=app_token, **options))
