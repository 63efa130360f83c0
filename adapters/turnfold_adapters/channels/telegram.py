"""Telegram bots, by the Bot API and python-telegram-bot.

Needs the extra `turnfold[telegram]`; this module imports without it.
python-telegram-bot is under the LGPL: it is a dependency, and none of its code is
copied.

The Bot API has no idempotency key and no look-up (tdlib/telegram-bot-api issue 482). So
a text is of class `editable`: a placeholder, then an edit of it, which may be made
again. `editable=False` sends each text in one call, of class `blind`. Files and native
calls are `blind`. `attach(..., on_unknown=)` decides about parts with an unknown
outcome.

    text      sendMessage, with entities     file   sendPhoto or sendDocument
    edit      editMessageText                native {"method": ..., parameters}

Threads are forum topics (`message_thread_id`), a reply quotes a message if it is still
there. A deleted topic, or an entity that Telegram refuses, is a decoration: the next
attempt goes without it. `telegram_errors` has the table of exceptions.

When is an update acknowledged? By the next call of getUpdates, and so after the update
is durable; see `telegram_source`. Do not run an `Updater` beside it.
"""

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from attrs import evolve

from turnfold.arguments import Id, Some, Url, Word, Words, checked
from turnfold.enums import DeliveryClass, FailureClass, GateScope, Kind, PartAct
from turnfold.errors import InvalidInputError, MissingExtraError
from turnfold.inbound import Inbound
from turnfold.messages import File, Native, Payload, Route, Text
from turnfold.messages import files_of as uploads_of
from turnfold.ports.channel import (
    Accepted,
    Attempt,
    Capabilities,
    Outcome,
    Part,
    PartClass,
    PlanContext,
    PlannedPart,
    Receipt,
    Rejected,
    Unknown,
)
from turnfold_adapters.channels.payloads import bytes_of, files_of

if TYPE_CHECKING:
    from telegram import Bot

OFFICIAL = "https://api.telegram.org/bot"
UPDATES = ("message", "edited_message", "channel_post", "callback_query")


class TelegramChannel:
    """A Telegram bot as a channel and as a source of messages.

    `token`: of the bot. `base_url`: of a Bot API server, up to the token. `name` and
    `account`: as the kernel knows this bot. `editable`: see the module. `updates`: the
    kinds of update to ask for. `quote`: an answer quotes its message. `rate_scope`: the
    scope that a 429 holds back; Telegram does not say whether it means the chat or the
    bot, and nearly always it means the chat. All times in ms; a send takes at most
    connect plus request time. After a death of the process an edit of unknown fate is
    made again once `settle_ms` has passed. Raises MissingExtraError when the extra is
    not installed, InvalidInputError for a token that cannot be one.
    """

    @checked
    def __init__(
        self,
        token: Word,
        *,
        base_url: Url = OFFICIAL,
        name: Id = "telegram",
        account: Id = "default",
        editable: bool = True,
        updates: Words = UPDATES,
        quote: bool = True,
        rate_scope: GateScope = GateScope.CONVERSATION,
        settle_ms: int = 30_000,
        connect_timeout_ms: Some = 10_000,
        request_timeout_ms: Some = 30_000,
        upload_timeout_ms: Some = 120_000,
        poll_ms: int = 30_000,
    ) -> None:
        if "/" in token:
            raise InvalidInputError(field="token", problem="not a token of BotFather")
        self._content, self._errors, self._sources = _modules()
        self._bot = _bot(token, base_url, connect_timeout_ms, request_timeout_ms)
        _hide(token)
        self._name, self._account = name, account
        self._updates, self._scope = tuple(updates), rate_scope
        self._request_s = request_timeout_ms / 1000
        self._upload_s = upload_timeout_ms / 1000
        self._poll_s = poll_ms // 1000
        # The decorations that parts of this channel never have.
        self._without = frozenset[str]() if quote else frozenset({"reply_to"})
        classes = (DeliveryClass.EDITABLE,) if editable else ()
        blind = PartClass(settle_ms=settle_ms)
        self.capabilities = Capabilities(
            parts={
                "text": evolve(blind, classes=classes),
                "file": blind,
                "native": blind,
            },
            limit=self._content.TEXT_LIMIT,
            unit="utf16",
            captions=self._content.CAPTION_LIMIT,
            native_files=True,
            marks=True,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._bot.request.shutdown()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def plan(
        self, payload: Payload, route: Route, kind: Kind, context: PlanContext
    ) -> Sequence[PlannedPart]:
        """Texts of at most 4075 visible UTF-16 units, other payloads whole."""
        del route, kind, context
        planned: Sequence[PlannedPart] = self._content.plan(payload)
        return planned

    async def send(self, part: Part, key: str, attempt: Attempt) -> Outcome:
        """One call of a sending method."""
        del key
        if isinstance(part.payload, File):
            return await self._send_file(part, attempt)
        if isinstance(part.payload, Native):
            return await self._send_native(part, attempt)
        text = part.payload
        if attempt.act is PartAct.PLACEHOLDER:
            text = Text(text.text)
        given = {
            **self._content.where(part, self._without),
            **self._words(text, attempt),
        }
        return await self._outcome(part, "sendMessage", given)

    async def edit(
        self, handle: Receipt, part: Part, key: str, attempt: Attempt
    ) -> Outcome:
        """Edit the message of `handle` so that it shows the text of the part. "Not
        modified" is success: the edit was made before."""
        del key
        if not isinstance(part.payload, Text) or len(handle.ids) != 1:
            detail = "only one text message can be edited"
            return Rejected(failure=FailureClass.HANDLE_GONE, detail=detail)
        given = {
            "chat_id": part.route.conversation,
            "message_id": int(handle.ids[0]),
            **self._words(part.payload, attempt),
        }
        return await self._outcome(part, "editMessageText", given, handle)

    async def retract(self, handle: Receipt, route: Route) -> None:
        """Delete a placeholder. Raises the errors of the client library."""
        for message_id in handle.ids:
            given = {"chat_id": route.conversation, "message_id": int(message_id)}
            await self._call("deleteMessage", given)

    def classify(self, exception: BaseException) -> Outcome | None:
        """See `telegram_errors.classify`."""
        found: Outcome | None = self._errors.classify(exception, self._scope)
        return found

    def source(
        self, cursor: str | None
    ) -> AsyncGenerator[tuple[Inbound | None, str], None]:
        """Inbound messages since `cursor`; see `telegram_source`."""
        names = self._sources.Names(channel=self._name, account=self._account)
        messages: AsyncGenerator[tuple[Inbound | None, str], None]
        messages = self._sources.listen(self.get_updates, names, cursor)
        return messages

    async def get_updates(self, offset: int | None) -> Any:
        """One long poll: updates as Telegram sent them."""
        given = {"timeout": self._poll_s, "allowed_updates": list(self._updates)}
        given |= {} if offset is None else {"offset": offset}
        return await self._call("getUpdates", given, self._poll_s + self._request_s)

    def _words(self, text: Text, attempt: Attempt) -> dict[str, Any]:
        words = self._content.words_of(text, marked=attempt.marked)
        entities = {"entities": list(words.entities)} if words.entities else {}
        return {"text": words.text, **entities}

    async def _send_native(self, part: Part, attempt: Attempt) -> Outcome:
        assert isinstance(part.payload, Native)  # noqa: S101  narrowed by the caller
        method, given = self._content.native_call(
            part.payload, part, marked=attempt.marked, without=self._without
        )
        if part.payload.files:
            try:
                files = await self._uploads(part.payload)
            except OSError as exc:  # its bytes are lost for good
                return Rejected(failure=FailureClass.INVALID_PAYLOAD, detail=str(exc))
            given = self._content.with_files(given, files)
        return await self._outcome(part, method, _with_albums(given))

    async def _uploads(self, native: Native) -> dict[str, Any]:
        from telegram import InputFile  # noqa: PLC0415  an extra

        contents = await files_of(native)
        return {
            name: InputFile(data, filename=native.files[name].name or name)
            for name, data in contents.items()
        }

    async def _send_file(self, part: Part, attempt: Attempt) -> Outcome:
        from telegram import InputFile  # noqa: PLC0415  an extra

        assert isinstance(part.payload, File)  # noqa: S101  narrowed by the caller
        file = part.payload
        try:
            data = await bytes_of(file)
        except OSError as exc:  # its bytes are lost for good
            return Rejected(failure=FailureClass.INVALID_PAYLOAD, detail=str(exc))
        photo = file.mime in self._content.PHOTOS
        photo = photo and len(data) <= self._content.PHOTO_MOST
        kind = "photo" if photo else "document"
        given = self._content.where(part, self._without)
        given[kind] = InputFile(data, filename=file.name or "file")
        marker = self._content.MARKER if attempt.marked else ""
        if marker or file.caption:
            given["caption"] = f"{marker}{file.caption}".strip()
        return await self._outcome(part, f"send{kind.title()}", given)

    async def _outcome(
        self,
        part: Part,
        method: str,
        given: Mapping[str, Any],
        edited: Receipt | None = None,
    ) -> Outcome:
        """One call, and the outcome for the part."""
        from telegram.error import TelegramError  # noqa: PLC0415  an extra

        wait_s = self._upload_s if uploads_of(part.payload) else self._request_s
        try:
            answer = await self._call(method, given, wait_s)
        except TelegramError as exc:
            if edited is not None and self._errors.is_not_modified(exc):
                return Accepted(receipt=edited, deduplicated=True)
            outcome: Outcome = self._errors.classify(exc, self._scope)
            return outcome
        return _receipt_of(answer)

    async def _call(
        self, method: str, given: Mapping[str, Any], wait_s: float | None = None
    ) -> Any:
        """One request. The Bot API ignores the case of method names, and for a
        lower-case name the library does not warn that it has a method of its own."""
        wait_s = wait_s or self._request_s
        return await self._bot.do_api_request(
            method.lower(),
            api_kwargs=dict(given),
            read_timeout=wait_s,
            write_timeout=wait_s,
        )


def _with_albums(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call, with the library's own objects for the pictures of an
    album."""
    from telegram import InputMedia  # noqa: PLC0415  an extra

    album = given.get("media")
    if not isinstance(album, list) or not all(isinstance(one, dict) for one in album):
        return given
    shown = [
        InputMedia(
            one.get("type", ""),
            one.get("media", ""),
            api_kwargs={k: v for k, v in one.items() if k not in ("type", "media")},
        )
        for one in album
    ]
    return {**given, "media": shown}


def _receipt_of(answer: Any) -> Outcome:
    """The receipt of a message, or of an album with several."""
    messages = answer if isinstance(answer, list) else [answer]
    ids = [m.get("message_id") for m in messages if isinstance(m, dict)]
    if not ids or not all(type(i) is int for i in ids):
        return Unknown(cause="no_message_id", detail=f"{answer!r:.200}")
    return Accepted(receipt=Receipt(ids=tuple(str(i) for i in ids)))


def _modules() -> tuple[Any, Any, Any]:
    try:
        from turnfold_adapters.channels import (  # noqa: PLC0415  an extra
            telegram_content,
            telegram_errors,
            telegram_source,
        )
    except ImportError as exc:
        package = exc.name or "python-telegram-bot"
        raise MissingExtraError(extra="telegram", package=package) from exc
    return telegram_content, telegram_errors, telegram_source


def _bot(token: str, base_url: str, connect_ms: int, request_ms: int) -> "Bot":
    import httpx  # noqa: PLC0415  the client library's own
    from telegram import Bot  # noqa: PLC0415  an extra

    from turnfold_adapters.channels.telegram_request import (  # noqa: PLC0415  an extra
        Request,
    )

    request = Request(
        connect_timeout=connect_ms / 1000,
        read_timeout=request_ms / 1000,
        write_timeout=request_ms / 1000,
        pool_timeout=connect_ms / 1000,
        httpx_kwargs={
            "trust_env": False,  # a proxy of the environment would get the token
            # Each call has a connection of its own: if Telegram closed a kept one
            # during a write, the message would be in doubt.
            "limits": httpx.Limits(max_connections=256, max_keepalive_connections=0),
        },
    )
    return Bot(token, base_url=base_url, request=request, get_updates_request=request)


class _Hiding(logging.Filter):
    """Hides log lines of httpx, which logs each address at INFO: the address of a Bot
    API call holds the token."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self.token = token

    def filter(self, record: logging.LogRecord) -> bool:
        if self.token in record.getMessage():
            record.msg = record.getMessage().replace(self.token, "<token>")
            record.args = ()
        return True


def _hide(token: str) -> None:
    logger = logging.getLogger("httpx")
    known = (f.token for f in logger.filters if isinstance(f, _Hiding))
    if token not in known:
        logger.addFilter(_Hiding(token))
