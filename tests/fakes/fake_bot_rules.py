"""What the fake Bot API refuses, as the official page and bots' logs have it."""

import json
from collections import defaultdict
from html.parser import HTMLParser
from typing import Any


class ApiError(Exception):
    """A refusal: status, description, and `parameters` of the answer."""

    def __init__(
        self, status: int, description: str, parameters: dict[str, Any] | None = None
    ) -> None:
        super().__init__(description)
        self.status, self.description = status, description
        self.parameters = parameters

    def body(self) -> dict[str, Any]:
        body = {
            "ok": False,
            "error_code": self.status,
            "description": self.description,
        }
        return body | ({"parameters": self.parameters} if self.parameters else {})


class Chats:
    """Who may be written to, and which messages and topics there are."""

    def __init__(self) -> None:
        self.gone: set[int] = set()
        self.blocked: set[int] = set()
        self.moved: dict[int, int] = {}
        self.topics: dict[int, set[int]] = defaultdict(set)
        self._messages: dict[int, set[int]] = defaultdict(set)

    def known(self, chat: int) -> set[int]:
        return self._messages[chat]

    def check(self, given: dict[str, Any]) -> None:
        chat = int(given["chat_id"])
        if chat in self.gone:
            raise ApiError(400, "Bad Request: chat not found")
        if chat in self.blocked:
            raise ApiError(403, "Forbidden: bot was blocked by the user")
        if chat in self.moved:
            words = "Bad Request: group chat was upgraded to a supergroup chat"
            raise ApiError(400, words, {"migrate_to_chat_id": self.moved[chat]})
        thread = given.get("message_thread_id")
        if thread is not None and int(thread) not in self.topics[chat]:
            raise ApiError(400, "Bad Request: message thread not found")
        self._check_reply(chat, json.loads(given.get("reply_parameters", "{}")))

    def _check_reply(self, chat: int, reply: dict[str, Any]) -> None:
        if not reply or reply["message_id"] in self._messages[chat]:
            return
        if not reply.get("allow_sending_without_reply"):
            raise ApiError(400, "Bad Request: message to be replied not found")


def check_text(
    given: dict[str, Any], name: str, limit: int, *, needed: bool = True
) -> str:
    """The text after its entities were parsed."""
    text = str(given.get(name, ""))
    if given.get("parse_mode") == "HTML":
        text = _parsed(text)
    if needed and not text.strip():
        raise ApiError(400, "Bad Request: message text is empty")
    if _units(text) > limit:
        what = "message is" if name == "text" else "message caption is"
        raise ApiError(400, f"Bad Request: {what} too long")
    for entity in json.loads(given.get("entities", "[]")):
        if entity["offset"] + entity["length"] > _units(text) or entity["length"] < 1:
            raise ApiError(400, "Bad Request: ENTITY_BOUNDS_INVALID")
    return text


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


class _Strict(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            raise ApiError(
                400, f"Bad Request: can't parse entities: Unexpected end tag {tag!r}"
            )

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def _parsed(source: str) -> str:
    parser = _Strict()
    parser.feed(source)
    parser.close()
    if parser.open:
        start = parser.open[-1]
        words = f"Can't find end tag corresponding to start tag {start!r}"
        raise ApiError(400, f"Bad Request: can't parse entities: {words}")
    return "".join(parser.words)
