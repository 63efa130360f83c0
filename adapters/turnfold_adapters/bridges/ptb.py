"""An existing python-telegram-bot application, with all its handlers, made durable.

    application = ApplicationBuilder().token(TOKEN).build()
    application.add_handler(...)                     # as ever
    asyncio.run(ptb.run(application, "bot.db"))      # instead of run_polling()

An update is durable before Telegram may forget it, and becomes a turn. The turn gives
the update to the application, and its handlers run. While they run, their messages are
collected and not sent: together they are the answer of the turn. They leave through the
outbox once the handlers have returned. If the process dies before that, the handlers
run again, and no reader has seen any message. After that they never run again.

- A message that is sent gets an id only when it leaves. Until then the handler holds a
  message with a negative id. It may edit it or delete it: the collected message changes.
- Collected are sendMessage, and the other methods that send and upload nothing
  (sendPoll, sendLocation, sendPhoto by file id or address ...). Every other call goes out
  at once, as ever: uploads, edits of messages of the past, answers to callbacks, chat
  actions. If a run dies, such a call may be made again by the next run.
- A message of words alone, plain or HTML, is of class `editable`. One with a keyboard,
  another parse mode or another chat is a native call, of class `blind`: `on_unknown`
  decides about it.
- A handler that raises is run again with a pause, by the settings, unless the
  application has error handlers: then they decide.
- Messages that a handler with `block=False` or a job sends after the turn go out at
  once.
- `user_data`, `chat_data` and conversations are the application's own persistence.

Do not start the updater: it confirms updates before they are durable. The bridge
replaces the request object of the bot, which is a private attribute of the library.
"""

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from attrs import define, field
from telegram import Bot, Update
from telegram.ext import Application
from telegram.request import BaseRequest, RequestData

from turnfold import Kernel
from turnfold.api.handle import TurnHandle
from turnfold.arguments import Id, checked
from turnfold.enums import BlindPolicy, Format
from turnfold.inbound import Inbound
from turnfold.messages import Native, Payload, Text
from turnfold_adapters.channels.telegram import TelegramChannel

_SENDS = "send"
_AT_ONCE = frozenset({"sendChatAction", "sendMediaGroup", "sendMessageDraft"})
# MarkdownV2 is a language of its own; a message in it stays a native call.
_FORMATS = {None: Format.PLAIN, "HTML": Format.HTML}
_NOTHING_SENT = "nothing_sent"


@define
class _Collected:
    """The messages of one run, by the negative ids that the handlers hold."""

    messages: dict[int, dict[str, Any]] = field(factory=dict)
    last: int = 0
    error: BaseException | None = None
    over: bool = False

    def answer(self, method: str, given: dict[str, Any]) -> Any:
        """The answer to a call; None: the call is not collected."""
        if self.over:
            return None
        if method.startswith(_SENDS) and method not in _AT_ONCE:
            self.last -= 1
            self.messages[self.last] = {"method": method, **given}
            return self._shown(self.last)
        mine = given.get("message_id")
        if mine not in self.messages:
            return None
        if method == "deleteMessage":
            del self.messages[mine]
            return True
        if method.startswith("editMessage"):
            fresh = {
                k: v for k, v in given.items() if k not in ("chat_id", "message_id")
            }
            self.messages[mine].update(fresh)
            return self._shown(mine)
        return None

    def _shown(self, number: int) -> dict[str, Any]:
        given = self.messages[number]
        chat = given.get("chat_id", 0)
        whole = str(chat).lstrip("-").isdigit()
        return {
            "message_id": number,
            "date": int(time.time()),
            "chat": {"id": int(chat) if whole else 0, "type": "private"},
            "text": str(given.get("text", "")),
        }


_collected: ContextVar[_Collected | None] = ContextVar("_collected", default=None)


class _Collecting(BaseRequest):
    """The bot's own request object. It collects the messages that a run sends."""

    def __init__(self, real: BaseRequest) -> None:
        self._real = real

    @property
    def read_timeout(self) -> float | None:
        return self._real.read_timeout

    async def initialize(self) -> None:
        await self._real.initialize()

    async def shutdown(self) -> None:
        await self._real.shutdown()

    async def do_request(  # type: ignore[override]  # time-outs pass as they come
        self,
        url: str,
        method: str,
        request_data: RequestData | None = None,
        **timeouts: Any,
    ) -> tuple[int, bytes]:
        collected = _collected.get()
        uploads = bool(request_data and request_data.contains_files)
        if collected is not None and request_data is not None and not uploads:
            name = url.rpartition("/")[2]
            result = collected.answer(name, _jsonable(request_data.parameters))
            if result is not None:
                return 200, json.dumps({"ok": True, "result": result}).encode()
        return await self._real.do_request(url, method, request_data, **timeouts)


def _jsonable(parameters: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(parameters))
    return found


@checked
def durable(
    application: Application[Any, Any, Any, Any, Any, Any],
    kernel: Kernel,
    *,
    on_unknown: BlindPolicy | str | Mapping[str, BlindPolicy | str] = "resend_marked",
    name: Id = "telegram",
    account: Id = "default",
    **options: Any,
) -> TelegramChannel:
    """Attach an application to a kernel: its bot as a channel and a source, its handlers
    as the handler of turns. `options`: of TelegramChannel. The application must be
    initialized and started by `serving`, without its updater."""
    bot = application.bot
    channel = TelegramChannel(
        bot.token,
        base_url=bot.base_url.removesuffix(bot.token),
        name=name,
        account=account,
        updates=tuple(Update.ALL_TYPES),
        quote=False,  # a handler chooses its quote itself
        **options,
    )
    kernel.attach(name, channel, account=account, on_unknown=on_unknown)
    kernel.source(name, channel.source, account=account)
    bot._request = (bot._request[0], _Collecting(bot._request[1]))  # noqa: SLF001  no other way into a bot that exists
    if not application.error_handlers:
        application.add_error_handler(_note_error)

    async def handle(turn: TurnHandle) -> None:
        await _run(application, bot, turn)

    kernel.on_turn(handle)

    return channel


async def _note_error(_: object, context: Any) -> None:
    collected = _collected.get()
    if collected is not None:
        collected.error = context.error


async def _run(
    application: "Application[Any, Any, Any, Any, Any, Any]", bot: Bot, turn: TurnHandle
) -> None:
    """One run of the handlers; their messages are the answer."""
    body = {k: v for k, v in turn.inbound.body.items() if k != "text"}
    collected = _Collected()
    token = _collected.set(collected)
    try:
        await application.process_update(Update.de_json(body, bot))
    finally:
        collected.over = True
        _collected.reset(token)
    if collected.error is not None:
        raise collected.error
    if collected.messages:
        messages = collected.messages.values()
        await turn.reply(*(_payload(given, turn.inbound) for given in messages))
    else:
        await turn.silent(_NOTHING_SENT)


def _payload(given: Mapping[str, Any], inbound: Inbound) -> Payload:
    """A message of words alone to the conversation is a Text, of class editable. Any
    other message (keyboards, other chats, polls) is a native call, of class blind."""
    here = {
        "method": "sendMessage",
        "chat_id": inbound.conversation,
        "message_thread_id": inbound.thread,
    }
    facts = {name: given.get(name) for name in here}
    facts = {k: v if v is None else str(v) for k, v in facts.items()}
    form = _FORMATS.get(given.get("parse_mode"))
    more = given.keys() - here.keys() - {"text", "parse_mode"}
    if facts != here or form is None or more:
        return Native(given)
    return Text(str(given.get("text", "")), format=form)


@asynccontextmanager
async def serving(
    application: "Application[Any, Any, Any, Any, Any, Any]",
) -> AsyncIterator[None]:
    """The application initialized and started, without its updater; stopped at the end."""
    async with application:
        await application.start()
        try:
            yield
        finally:
            await application.stop()


async def run(
    application: "Application[Any, Any, Any, Any, Any, Any]", store: Any, **options: Any
) -> None:
    """Serve an application until SIGINT or SIGTERM, with a kernel on that store."""
    kernel = Kernel(store)
    durable(application, kernel, **options)
    async with serving(application):
        await kernel.run()
