"""The transport of python-telegram-bot, with a check of the shape of each answer.

The library reads fields of an answer unseen. For JSON of another shape, such as
`"ok": false` with status 200 or a list of a proxy, it raises a KeyError or an
AttributeError, which looks like a bug of the channel. Here such an answer is a
TelegramError: it is not of Telegram and says nothing about the message.
"""

import json
from typing import Any, NoReturn

from telegram.error import TelegramError
from telegram.request import HTTPXRequest


class _Answer(dict[str, Any]):
    def __missing__(self, name: str) -> NoReturn:
        problem = f"no answer of the Bot API: {dict(self)!r:.200}"
        raise TelegramError(problem)


class Request(HTTPXRequest):
    """Used for the calls of one bot."""

    @staticmethod
    def parse_json_payload(payload: bytes) -> dict[str, Any]:
        """An answer of the Bot API. Raises TelegramError for anything else, and does not
        log a traceback for it, as the library does."""
        try:
            answer = json.loads(payload.decode("utf-8", "replace"))
        except (ValueError, RecursionError) as exc:
            problem = f"no JSON: {payload[:200]!r}"
            raise TelegramError(problem) from exc
        if not isinstance(answer, dict):
            problem = f"no answer of the Bot API: {payload[:200]!r}"
            raise TelegramError(problem)
        words = answer.get("description")
        read = {
            "description": words if isinstance(words, str) else "",
            "parameters": _parameters(answer.get("parameters")),
        }
        return _Answer(answer, **read)


def _parameters(given: object) -> dict[str, int]:
    """Those that the library reads, if they can be read."""
    found = given if isinstance(given, dict) else {}
    wait, target = found.get("retry_after"), found.get("migrate_to_chat_id")
    kept = {"retry_after": wait} if type(wait) is int and wait > 0 else {}
    return kept | ({"migrate_to_chat_id": target} if type(target) is int else {})
