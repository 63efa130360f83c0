"""An application of python-telegram-bot made durable, on our FAKE of the Bot API."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from telegram import InlineKeyboardButton, InlineKeyboardMarkup
from telegram.ext import Application, ApplicationBuilder, MessageHandler, filters
from tests.fakes.fake_bot_api import TOKEN, FakeBotApi

from turnfold import Kernel, Settings
from turnfold_adapters.bridges import ptb

pytestmark = pytest.mark.filterwarnings("ignore:Deprecated since version v22.2")
QUICK = Settings(backoff_base_ms=5, backoff_cap_ms=20, probe_ms=20)


@pytest.fixture
def api() -> Iterator[FakeBotApi]:
    with FakeBotApi() as running:
        yield running


def built(
    api: FakeBotApi, *handlers: Any
) -> "Application[Any, Any, Any, Any, Any, Any]":
    application = ApplicationBuilder().token(TOKEN).base_url(api.base_url).build()
    for group, one in enumerate(handlers):
        application.add_handler(MessageHandler(filters.ALL, one), group)
    return application


@asynccontextmanager
async def served(
    api: FakeBotApi, store: Path, *handlers: Any, application: Any = None
) -> AsyncIterator[Kernel]:
    application = application or built(api, *handlers)
    kernel = Kernel(store, settings=QUICK)
    ptb.durable(application, kernel, settle_ms=50, poll_ms=1_000)
    async with ptb.serving(application), kernel:
        yield kernel


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not what():
            await asyncio.sleep(0.01)


async def test_the_messages_of_all_handlers_are_one_answer(
    api: FakeBotApi, tmp_path: Path
) -> None:
    keys = InlineKeyboardMarkup([[InlineKeyboardButton("ok", callback_data="1")]])

    async def first(update: Any, context: Any) -> None:
        waiting = await update.message.reply_text("one moment")
        gone = await context.bot.send_message(update.message.chat_id, "never seen")
        assert waiting.message_id < 0
        await waiting.edit_text("<b>one</b>", parse_mode="HTML")
        await gone.delete()

    async def second(update: Any, context: Any) -> None:
        assert api.texts() == []  # nothing leaves while handlers run
        await update.message.reply_text("two", reply_markup=keys)
        await context.bot.send_poll(update.message.chat_id, "three?", ["a", "b"])

    async with served(api, tmp_path / "g.db", first, second):
        api.says(42, "hello")
        await until(lambda: len(api.texts()) == 3 and api.texts()[1] == "two")
    assert api.texts() == ["one", "two", "three?"]
    assert [m.edits for m in api.messages] == [1, 0, 0]  # words are of class editable
    assert "reply_parameters" not in api.messages[0].given
    assert json.loads(api.messages[1].given["reply_markup"]) == keys.to_dict()


@pytest.mark.case("A01")
async def test_a_handler_that_raises_is_run_again_and_nobody_saw_the_first_run(
    api: FakeBotApi, tmp_path: Path
) -> None:
    runs = []

    async def fails_once(update: Any, context: Any) -> None:
        runs.append(update.update_id)
        await update.message.reply_text(f"run {len(runs)}")
        if len(runs) == 1:
            raise RuntimeError("a bug that passes")

    async with served(api, tmp_path / "g.db", fails_once):
        api.says(42, "hello")
        await until(lambda: api.texts() == ["run 2"])
    assert runs == [1001, 1001]


async def test_an_error_handler_of_the_application_has_the_last_word(
    api: FakeBotApi, tmp_path: Path
) -> None:
    async def fails(update: Any, context: Any) -> None:
        raise RuntimeError("a bug that stays")

    async def sorry(update: Any, context: Any) -> None:
        await context.bot.send_message(update.effective_chat.id, "sorry")

    application = built(api, fails)
    application.add_error_handler(sorry)
    async with served(api, tmp_path / "g.db", application=application):
        api.says(42, "hello")
        await until(lambda: api.texts() == ["sorry"])


async def test_what_is_sent_outside_of_a_turn_goes_out_at_once(
    api: FakeBotApi, tmp_path: Path
) -> None:
    application = built(api)
    async with served(api, tmp_path / "g.db", application=application) as kernel:
        message = await application.bot.send_message(42, "from a job")
        assert message.message_id > 0
        turn_over = api.says(42, "nobody handles this")
        assert turn_over
        await until(
            lambda: kernel.health()["sources"]["telegram/default"]["items"] == 1
        )
    assert api.texts() == ["from a job"]
