"""A python-telegram-bot application as its authors write it, made durable by one line.

BOT_TOKEN=... python examples/ptb/bot.py bot.db
"""

import asyncio
import os
import sys

from telegram.ext import ApplicationBuilder, CommandHandler, MessageHandler, filters

from turnfold_adapters.bridges import ptb


async def start(update, context):
    await update.message.reply_text("Hello! Say something.")


async def answer(update, context):
    waiting = await update.message.reply_text("One moment ...")
    await asyncio.sleep(0.02)
    await waiting.edit_text(f"You said: {update.message.text}")


def build(token, base_url=None):
    builder = ApplicationBuilder().token(token)
    application = (builder.base_url(base_url) if base_url else builder).build()
    application.add_handler(CommandHandler("start", start))
    application.add_handler(MessageHandler(filters.TEXT & ~filters.COMMAND, answer))
    return application


if __name__ == "__main__":
    application = build(os.environ["BOT_TOKEN"], os.environ.get("BOT_API"))
    if os.environ.get("PLAIN"):  # as it was before; the tests compare
        application.run_polling()
        raise SystemExit
    options = {"settle_ms": int(os.environ.get("SETTLE", "30000"))}
    asyncio.run(ptb.run(application, sys.argv[1], **options))
