"""The meaning of an exception of python-telegram-bot for a part.

| exception | outcome |
|---|---|
| `RetryAfter` | rate_limited, with its wait |
| `ChatMigrated` | target_moved, with the new chat |
| `InvalidToken` (401, 404) | auth |
| `Forbidden` (403) | target_gone if the user or group is deleted, else permission |
| `BadRequest` (400) | by its description, see `_REFUSALS`; else invalid_payload |
| `Conflict` (409) | transient |
| 413, a page too | too_long |
| `TimedOut`, `NetworkError` caused by a failed connect | not_connected |
| any other `TimedOut`, `NetworkError`, 5xx, an answer that is not JSON | unknown |

An answer counts only if it comes from Telegram. A page of a proxy (no JSON) says
nothing about the message, with any status but 413: what is too large for the first
server on the way goes no further.
"""

import re
import warnings
from datetime import timedelta
from types import MappingProxyType

from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    Forbidden,
    InvalidToken,
    NetworkError,
    RetryAfter,
    TelegramError,
)

from turnfold.enums import Decoration, FailureClass, GateScope
from turnfold.ports.channel import Outcome, Rejected, Unknown
from turnfold_adapters.channels import webhook_errors

# A wait of more than a day is misread, or an error of the server.
RETRY_AFTER_MAX_MS = 24 * 3600 * 1000

# Words in the description of a 400 or 403. Telegram does not document them; bots meet
# these. The first that fits counts.
_REFUSALS = MappingProxyType(
    {
        FailureClass.TARGET_GONE: (
            *("chat not found", "user not found", "peer_id_invalid"),
            *("user is deactivated", "group chat was deleted", "chat was deleted"),
        ),
        FailureClass.DECORATION: (
            *("can't parse entities", "message thread not found", "topic_deleted"),
            *("message to be replied not found", "reply message not found"),
            *("replied message not found", "quote_text_invalid"),
        ),
        FailureClass.HANDLE_GONE: (
            *("message to edit not found", "message can't be edited"),
            *("message_id_invalid", "message to delete not found"),
        ),
        FailureClass.TOO_LONG: (
            *("message is too long", "message_too_long", "caption is too long"),
            *("file is too big", "request entity too large"),
        ),
        FailureClass.PERMISSION: (
            *("not enough rights", "have no rights", "need administrator rights"),
            *("chat_admin_required", "chat_write_forbidden", "chat_restricted"),
            *("topic_closed", "voice_messages_forbidden", "_forbidden"),
        ),
    }
)
_TOO_LARGE = re.compile(r"[\w ]*\(413\)")  # how the library's text begins for any 413
NOT_MODIFIED = "message is not modified"


def classify(
    exception: BaseException, scope: GateScope = GateScope.CONVERSATION
) -> Outcome | None:
    """The outcome for an exception of a call; None if it does not come from the client
    library. `scope`: of a rate limit, since Telegram names none."""
    if not isinstance(exception, TelegramError):
        return webhook_errors.classify(exception)
    if _is_no_answer_of_telegram(exception):
        if _TOO_LARGE.match(str(exception)):
            detail = "413, without words of Telegram"
            return Rejected(failure=FailureClass.TOO_LONG, detail=detail)
        return Unknown(cause="no_answer", detail=str(exception)[:300])
    said = _said(exception, scope)
    return said if said is not None else _lost(exception)


def _said(exception: TelegramError, scope: GateScope) -> Rejected | None:
    """The refusal in an answer."""
    detail = str(exception)[:300]
    if isinstance(exception, RetryAfter):
        return Rejected(
            failure=FailureClass.RATE_LIMITED,
            detail=detail,
            retry_after_ms=min(retry_after_ms(exception), RETRY_AFTER_MAX_MS),
            scope=scope,
        )
    if isinstance(exception, ChatMigrated):
        target = str(exception.new_chat_id)
        return Rejected(failure=FailureClass.TARGET_MOVED, detail=detail, target=target)
    failure = _failure(exception, detail.lower())
    if failure is FailureClass.DECORATION:
        what = _decoration(detail.lower())
        return Rejected(failure=failure, detail=detail, decoration=what)
    return None if failure is None else Rejected(failure=failure, detail=detail)


def _decoration(words: str) -> Decoration:
    if "entities" in words:
        return Decoration.FORMAT
    gone = "thread" in words or "topic" in words
    return Decoration.THREAD if gone else Decoration.REPLY_TO


def _failure(exception: TelegramError, words: str) -> FailureClass | None:
    if isinstance(exception, InvalidToken):
        return FailureClass.AUTH
    if isinstance(exception, Conflict):
        return FailureClass.TRANSIENT
    if "request entity too large" in words:
        return FailureClass.TOO_LONG
    if "too many requests" in words:  # without a wait
        return FailureClass.RATE_LIMITED
    if not isinstance(exception, BadRequest | Forbidden):
        return None
    for failure, phrases in _REFUSALS.items():
        if any(phrase in words for phrase in phrases):
            return failure
    forbidden = isinstance(exception, Forbidden)
    return FailureClass.PERMISSION if forbidden else FailureClass.INVALID_PAYLOAD


def _is_no_answer_of_telegram(exception: TelegramError) -> bool:
    """True if the answer was no JSON: the library then raises from its parser's
    error."""
    cause = exception.__cause__
    plain = type(exception) is TelegramError  # a 2xx that could not be parsed
    return plain or type(cause) is TelegramError


def _lost(exception: TelegramError) -> Outcome:
    """The outcome without an answer: unsent only if the connect failed."""
    found = webhook_errors.classify(exception)
    if isinstance(found, Rejected):
        return found
    answered = isinstance(exception, NetworkError) and exception.__cause__ is None
    cause = "server_error" if answered else "no_answer"
    return Unknown(cause=cause, detail=str(exception)[:300])


def retry_after_ms(exception: RetryAfter) -> int:
    with warnings.catch_warnings():  # the library warns that its integer will go
        warnings.simplefilter("ignore")
        wait = exception.retry_after
    seconds = wait.total_seconds() if isinstance(wait, timedelta) else wait
    return int(seconds * 1000)


def is_not_modified(exception: TelegramError) -> bool:
    return isinstance(exception, BadRequest) and NOT_MODIFIED in str(exception).lower()
