"""The same bot as authors of discord.py write it, without turnfold: to compare.

BOT_TOKEN=... python examples/discord/plain.py
"""

import os

import discord
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route

client = discord.Client(
    intents=discord.Intents(guilds=True, messages=True, message_content=True)
)


@client.event
async def on_message(message):
    if message.author != client.user:
        await message.channel.send(f"You said: {message.content}")


if __name__ == "__main__":
    if os.environ.get("BOT_API"):  # the tests name a fake server
        Route.BASE = os.environ["BOT_API"]
        DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(os.environ["BOT_GATEWAY"])
    client.run(os.environ["BOT_TOKEN"], log_handler=None)
