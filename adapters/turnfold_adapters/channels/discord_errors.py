"""The meaning of an exception of a request to Discord.

| exception | outcome |
|---|---|
| `SlowDownError` (429) | rate_limited, with its wait and scope |
| a refusal with a code of Discord's | by the code, see `_CODES` |
| 401, and other refusals without a code that is listed | auth; by status, see `_STATUS` |
| `ForeignAnswerError`: no JSON, so a page of a proxy | unknown |
| 5xx | unknown |
| `LoginFailure`, `PrivilegedIntentsRequired`, of the source | auth |
| a connect that failed | not_connected |
| any other error of the connection, a deadline | unknown |

Codes: the page "Opcodes and Status Codes", JSON error codes.
"""

from types import MappingProxyType
from typing import Any

import aiohttp
from discord.errors import HTTPException, LoginFailure, PrivilegedIntentsRequired

from turnfold.enums import Decoration, FailureClass, GateScope
from turnfold.ports.channel import Outcome, Rejected, Unknown

# A wait of more than a day is misread, or an error of the server.
RETRY_AFTER_MAX_MS = 24 * 3600 * 1000

_F = FailureClass
_CODES = MappingProxyType(
    {
        # Unknown channel, guild, user.
        **dict.fromkeys((10003, 10004, 10013), _F.TARGET_GONE),
        # Unknown message; another user's; a system message.
        **dict.fromkeys((10008, 50005, 50021), _F.HANDLE_GONE),
        # Write limits of a channel or a server, slow mode; opening too many chats;
        # a resource under load.
        **dict.fromkeys((20016, 20022, 20028, 20029), _F.RATE_LIMITED),
        **dict.fromkeys((40003, 40062), _F.RATE_LIMITED),
        # Unauthorized, account not verified, invalid token.
        **dict.fromkeys((40001, 40002, 50014), _F.AUTH),
        # Too many edits of an old message; a feature that is switched off; overload.
        **dict.fromkeys((30046, 40006, 130000), _F.TRANSIENT),
        # Request entity too large; a file that is too large.
        **dict.fromkeys((40005, 50045), _F.TOO_LONG),
        # Missing access, a user who takes no messages, verification level, missing
        # permissions.
        **dict.fromkeys((50001, 50007, 50009, 50013), _F.PERMISSION),
        # Explicit, forbidden or blocked words; empty; a channel that has no text; a form
        # that is wrong; a file that is.
        **dict.fromkeys((20009, 20031, 200000, 200001, 240000), _F.INVALID_PAYLOAD),
        **dict.fromkeys((40058, 50006, 50008, 50024), _F.INVALID_PAYLOAD),
        **dict.fromkeys((50035, 50046), _F.INVALID_PAYLOAD),
        # No reply without the right to read; a thread that is archived or locked.
        **dict.fromkeys((160002, 50083, 160005), _F.DECORATION),
    }
)
_STATUS = MappingProxyType(
    {
        400: _F.INVALID_PAYLOAD,
        401: _F.AUTH,
        403: _F.PERMISSION,
        404: _F.TARGET_GONE,
        413: _F.TOO_LONG,
    }
)
_THREAD = frozenset({50083, 160005})
_TOO_LONG = "or fewer in length"  # of 50035, "Invalid Form Body"
_CONNECTING = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    ConnectionRefusedError,
)


class SlowDownError(HTTPException):
    """429. `retry_after`: seconds, None if they cannot be read."""

    retry_after: float | None = None
    whole_account: bool = False


class ForeignAnswerError(HTTPException):
    """An answer that is not Discord's: a page of a proxy, a 2xx without JSON."""


def classify(exception: BaseException) -> Outcome | None:
    """The outcome for an exception of a call. None if it comes neither from the client
    library nor from the connection."""
    if isinstance(exception, SlowDownError):
        return _slow_down(exception)
    if isinstance(exception, ForeignAnswerError):
        return _unknown("no_answer", exception)
    if isinstance(exception, HTTPException):
        refusal = None if exception.status >= 500 else _refusal(exception)
        return refusal or _unknown("server_error", exception)
    if isinstance(exception, LoginFailure | PrivilegedIntentsRequired):
        return Rejected(failure=_F.AUTH, detail=_text(exception))
    if isinstance(exception, _CONNECTING):
        return Rejected(failure=_F.NOT_CONNECTED, detail=_text(exception))
    if isinstance(exception, aiohttp.ClientError | OSError):  # TimeoutError among them
        return _unknown("no_answer", exception)
    return None


def _refusal(exception: HTTPException) -> Rejected | None:
    given: Any = exception.code  # as it came; Discord's are numbers
    code, detail = given if type(given) is int else 0, _text(exception)
    failure = _CODES.get(code) or _STATUS.get(exception.status)
    if failure is None:
        return None
    if code == 50035 and "message_reference" in detail:
        failure = _F.DECORATION
    if code == 50035 and _TOO_LONG in detail:
        failure = _F.TOO_LONG
    what = None
    if failure is _F.DECORATION:
        what = Decoration.THREAD if code in _THREAD else Decoration.REPLY_TO
    return Rejected(failure=failure, detail=detail, decoration=what)


def _slow_down(exception: SlowDownError) -> Rejected:
    wide = exception.whole_account
    return Rejected(
        failure=_F.RATE_LIMITED,
        detail=_text(exception),
        retry_after_ms=wait_ms(exception.retry_after),
        scope=GateScope.ACCOUNT if wide else GateScope.CONVERSATION,
    )


def wait_ms(seconds: Any) -> int | None:
    """A wait in ms; None for a value that is no number of seconds.

    >>> wait_ms(0.251)
    251
    """
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not 0 <= seconds < float("inf"):
        return None
    return int(min(seconds * 1000, RETRY_AFTER_MAX_MS))


def _unknown(cause: str, exception: BaseException) -> Unknown:
    return Unknown(cause=cause, detail=_text(exception))


def _text(exception: BaseException) -> str:
    return (str(exception) or type(exception).__name__)[:300]
