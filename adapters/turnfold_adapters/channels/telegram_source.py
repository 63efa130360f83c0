"""Inbound messages by getUpdates, none lost and none taken twice.

Telegram forgets an update once getUpdates is called with a higher offset
(core.telegram.org/bots/api#getupdates). The kernel asks this source for the next
message only after the last one is durable, and a new call is made only then. So an
update is confirmed after it was accepted, never before. An accepted update that was not
confirmed comes again after a crash; the kernel's dedupe keys drop it.

Telegram keeps an update for 24 hours. After a week without updates its next id is
random, so an offset is dropped after six days without an update. That is safe:
unconfirmed updates come again without it.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, NoReturn

from attrs import frozen
from telegram.error import Conflict, InvalidToken, RetryAfter, TelegramError

from turnfold.inbound import Inbound
from turnfold.logs import lines
from turnfold_adapters.channels.telegram_errors import retry_after_ms

_log = lines("turnfold.telegram")

_BACKOFF_MAX_MS = 60_000
_PACE_S = 1.0  # from one call to the next, where an answer brings nothing
_OFFSET_LIFE_S = 6 * 24 * 3600
_MESSAGES = ("message", "edited_message", "channel_post", "edited_channel_post")

GetUpdates = Callable[[int | None], Awaitable[Any]]


@frozen(kw_only=True)
class Names:
    """This bot's names in the kernel."""

    channel: str
    account: str


@frozen
class Cursor:
    """The next offset, and when the last update came (wall seconds)."""

    offset: int
    at_s: int

    @classmethod
    def of(cls, text: str | None) -> "Cursor | None":
        offset, _, at_s = (text or "").partition("@")
        if not (offset.isdigit() and at_s.isdigit()):
            return None
        return cls(int(offset), int(at_s))

    def __str__(self) -> str:
        return f"{self.offset}@{self.at_s}"


async def listen(
    get_updates: GetUpdates, names: Names, cursor: str | None
) -> AsyncGenerator[tuple[Inbound | None, str], None]:
    """(message, cursor) pairs, for ever. During an outage it waits. Raises
    InvalidToken, where only an operator can help."""
    at = Cursor.of(cursor)
    while True:
        if at is not None and time.time() - at.at_s > _OFFSET_LIFE_S:
            at = None
        asked, brought = time.monotonic(), False
        for update in await _patiently(get_updates, at):
            update_id = update.get("update_id")
            if type(update_id) is not int or update_id < 0:
                _log.error("an update without an id was skipped: %.200r", update)
                continue
            at, brought = Cursor(update_id + 1, int(time.time())), True
            yield inbound_of(update, names), str(at)
        if not brought:  # a proxy in between may answer at once
            await asyncio.sleep(asked + _PACE_S - time.monotonic())


async def _patiently(
    get_updates: GetUpdates, at: Cursor | None
) -> list[Mapping[str, Any]]:
    failed = 0
    while True:
        try:
            updates = await get_updates(None if at is None else at.offset)
            if not isinstance(updates, list):
                _refuse(updates)
            return [one for one in updates if isinstance(one, dict)]
        except InvalidToken:
            raise
        except TelegramError as exc:
            wait_ms = min(1000 << min(failed, 10), _BACKOFF_MAX_MS)
            if isinstance(exc, RetryAfter):
                wait_ms = retry_after_ms(exc)
            hint = "; does another process or a webhook read updates of this bot?"
            hint = hint if isinstance(exc, Conflict) else ""
            failed += 1
            _log.warning("getUpdates failed (%s%s); again in %d ms", exc, hint, wait_ms)
            await asyncio.sleep(wait_ms / 1000)


def _refuse(updates: object) -> NoReturn:
    problem = f"no list of updates: {updates!r:.200}"
    raise TelegramError(problem)


def inbound_of(update: Mapping[str, Any], names: Names) -> Inbound:
    """The inbound message of an update. `body` is the unchanged update, with its `text`
    beside it. An edit has its message's id and a revision; a callback has its own id
    and its event `callback`; an update of another kind has its update id.

    The update is foreign, so this never raises.
    """
    for kind in _MESSAGES:
        message = update.get(kind)
        if isinstance(message, dict) and _id(message.get("message_id")):
            return _message(update, kind, message, names)
    callback = update.get("callback_query")
    if isinstance(callback, dict) and _id(callback.get("id")):
        return _callback(update, callback, names)
    return _other(update, names)


def _message(
    update: Mapping[str, Any], kind: str, message: Mapping[str, Any], names: Names
) -> Inbound:
    edited = kind.startswith("edited_")
    thread = (
        message.get("message_thread_id") if message.get("is_topic_message") else None
    )
    sent_at = message.get("date")
    return Inbound(
        names.channel,
        account=names.account,
        conversation=_chat(message) or "unknown",
        message_id=_id(message.get("message_id")),
        event="edit" if edited else "message",
        revision=str(update["update_id"]) if edited else None,
        thread=_id(thread),
        sender=_sender(message),
        locale=_locale(message),
        sent_at=sent_at * 1000
        if type(sent_at) is int and 0 <= sent_at < 2**40
        else None,
        body={**update, "text": _text(message, "text") or _text(message, "caption")},
    )


def _callback(
    update: Mapping[str, Any], callback: Mapping[str, Any], names: Names
) -> Inbound:
    message = callback.get("message")
    message = message if isinstance(message, dict) else {}
    thread = (
        message.get("message_thread_id") if message.get("is_topic_message") else None
    )
    return Inbound(
        names.channel,
        account=names.account,
        conversation=_chat(message) or _sender(callback) or "unknown",
        message_id=_id(callback.get("id")),
        event="callback",
        thread=_id(thread),
        sender=_sender(callback),
        locale=_locale(callback),
        body={**update, "text": _text(callback, "data")},
    )


def _other(update: Mapping[str, Any], names: Names) -> Inbound:
    kinds = [key for key, value in update.items() if isinstance(value, dict)]
    kind = kinds[0] if kinds else "unknown"
    inner = update.get(kind)
    inner = inner if isinstance(inner, dict) else {}
    return Inbound(
        names.channel,
        account=names.account,
        conversation=_chat(inner) or _sender(inner) or "unknown",
        message_id=f"update:{update['update_id']}",
        event=_id(kind) or "unknown",
        sender=_sender(inner),
        body={**update, "text": ""},
    )


def _chat(inner: Mapping[str, Any]) -> str | None:
    chat = inner.get("chat")
    return _id(chat.get("id")) if isinstance(chat, dict) else None


def _sender(inner: Mapping[str, Any]) -> str | None:
    for name in ("from", "sender_chat", "user"):
        who = inner.get(name)
        if isinstance(who, dict) and _id(who.get("id")):
            return _id(who.get("id"))
    return None


def _locale(inner: Mapping[str, Any]) -> str | None:
    who = inner.get("from")
    return _id(who.get("language_code")) if isinstance(who, dict) else None


def _id(value: object) -> str | None:
    """An id as text: an integer, or printable text."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value) if abs(value) < 2**63 else None
    good = isinstance(value, str) and 0 < len(value) <= 255 and value.isprintable()
    return value if good and isinstance(value, str) else None


def _text(inner: Mapping[str, Any], name: str) -> str:
    value = inner.get(name)
    return value if isinstance(value, str) else ""
