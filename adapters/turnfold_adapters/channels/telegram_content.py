"""From payloads to the texts, entities and parameters of the Telegram Bot API. Pure: no
I/O, no client.

Texts go out as characters and *entities* (core.telegram.org/bots/api#messageentity), so
that Telegram never parses and refuses markup. Telegram counts the visible characters,
in UTF-16 units: 4096 for a text, 1024 for a caption. More than 100 entities in a
message are ignored (seen, not documented), so a text is cut before.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from turnfold.messages import ATTACHED, Native, Payload, Text, pointed
from turnfold.ports.channel import Part, PlannedPart
from turnfold_adapters.channels.payloads import thawed
from turnfold_adapters.text import chats
from turnfold_adapters.text.clusters import MEASURES
from turnfold_adapters.text.html import attributes
from turnfold_adapters.text.rich import Rich, Span, cut

MARKER = "(may be a duplicate) "
TEXT_LIMIT = 4096 - len(MARKER)  # there is always room for the mark
CAPTION_LIMIT = 1024 - len(MARKER)
ENTITIES_MOST = 100
# The room that an opening or a closing takes, if 100 entities fill a text.
_HALF_ENTITY = -(-TEXT_LIMIT // (2 * ENTITIES_MOST))

# The photo and document limits of the Bot API, "Sending files".
PHOTO_MOST = 10 * 1024 * 1024
PHOTOS = frozenset({"image/jpeg", "image/png", "image/webp"})

_units = MEASURES["utf16"]
_TAG = re.compile(r"<\s*([a-zA-Z][a-zA-Z0-9-]*)")
_SIMPLE = {
    **dict.fromkeys(("b", "strong", "h1", "h2", "h3", "h4", "h5", "h6"), "bold"),
    **dict.fromkeys(("i", "em"), "italic"),
    **dict.fromkeys(("u", "ins"), "underline"),
    **dict.fromkeys(("s", "strike", "del"), "strikethrough"),
    "tg-spoiler": "spoiler",
    "code": "code",
    "pre": "pre",
}
_LANGUAGE = "language-"


@frozen
class Words:
    """A text in Telegram's form."""

    text: str
    entities: tuple[dict[str, Any], ...] = ()


def plan(payload: Payload) -> Sequence[PlannedPart]:
    """The parts of a payload. A text is cut at Telegram's limit; its pieces are HTML,
    or plain text without any format."""
    return chats.plan(payload, _fits, _cut)


def _fits(text: str) -> bool:
    return _units(text) <= TEXT_LIMIT


def _cut(rich: Rich) -> Iterator[str]:
    """Entities that are open at a cut count in each piece, so some are dropped where
    many are nested: else a piece would have one character."""
    loose = rich.loosened(lambda _: _HALF_ENTITY, TEXT_LIMIT)
    return cut(loose, TEXT_LIMIT, _size)


def _size(written: str, shown: str, spans: Sequence[Span]) -> int:
    del written
    room_for_entities = TEXT_LIMIT * len(spans) // ENTITIES_MOST
    return max(_units(shown), room_for_entities)


def words_of(payload: Text, *, marked: bool = False) -> Words:
    """A piece of a plan as characters and entities."""
    rich = chats.rich_of(payload)
    prefix = MARKER if marked else ""
    return Words(prefix + rich.text, tuple(_entities(rich, len(prefix))))


def _entities(rich: Rich, shift: int) -> Iterator[dict[str, Any]]:
    """The entities of a rich text, with `offset` and `length` in UTF-16 units. Code has
    no entities inside."""
    code_until = 0
    for span in rich.spans:
        made = _entity(span)
        if made is None or span.start < code_until:
            continue
        if made["type"] in ("code", "pre"):
            code_until = span.end
            language = _language(rich, span) if made["type"] == "pre" else ""
            made |= {"language": language} if language else {}
        offset = shift + _units(rich.text[: span.start])
        length = _units(rich.text[span.start : span.end])
        yield {"offset": offset, "length": length, **made}


def _entity(span: Span) -> dict[str, Any] | None:
    tag, attributes = _opened(span.open)
    if tag in _SIMPLE:
        return {"type": _SIMPLE[tag]}
    if tag == "a" and attributes.get("href"):
        return {"type": "text_link", "url": attributes["href"]}
    if tag == "blockquote":
        wide = "expandable" in attributes
        return {"type": "expandable_blockquote" if wide else "blockquote"}
    if tag == "span" and attributes.get("class") == "tg-spoiler":
        return {"type": "spoiler"}
    if tag == "tg-emoji" and attributes.get("emoji-id"):
        return {"type": "custom_emoji", "custom_emoji_id": attributes["emoji-id"]}
    return None


def _language(rich: Rich, pre: Span) -> str:
    """The language of `<pre><code class="language-python">`."""
    for span in rich.spans:
        if (span.start, span.end) == (pre.start, pre.end) and span is not pre:
            said = _opened(span.open)[1].get("class") or ""
            return said.removeprefix(_LANGUAGE) if said.startswith(_LANGUAGE) else ""
    return ""


def _opened(source: str) -> tuple[str, dict[str, str | None]]:
    match = _TAG.match(source)
    tag = match.group(1).lower() if match else ""
    if tag in _SIMPLE and tag != "code":
        return tag, {}
    return tag, attributes(source)


# --- parameters ---


def where(part: Part, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Chat, topic and reply of a part; only the first part quotes. `without`: the
    decorations that Telegram refused."""
    route = part.route
    found: dict[str, Any] = {"chat_id": route.conversation}
    if route.thread is not None and "thread" not in without:
        found["message_thread_id"] = route.thread
    reply = route.reply_to if part.index == 0 else None
    if reply and reply.isascii() and reply.isdigit() and "reply_to" not in without:
        # If the quoted message is gone, the answer is still sent.
        found["reply_parameters"] = {
            "message_id": int(reply),
            "allow_sending_without_reply": True,
        }
    return found


def native_call(
    payload: Native,
    part: Part,
    *,
    marked: bool = False,
    without: frozenset[str] = frozenset(),
) -> tuple[str, dict[str, Any]]:
    """`{"method": "sendPoll", ...}`: a method of the Bot API and its parameters; chat,
    topic and reply are added if the body does not name them. Without a method it is a
    sendMessage. The mark goes before its text, caption or question."""
    body = thawed(payload.body)
    method = str(body.pop("method", "sendMessage"))
    if marked:
        _mark(body)
    return method, {**where(part, without), **body}


def with_files(given: dict[str, Any], files: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a native call with its uploads. A parameter that names a file
    becomes that file. A file that is named inside of a parameter keeps its name. Any
    other file becomes a parameter of its own name."""
    whole = {key: name for key, value in given.items() if (name := _points_to(value))}
    inside = pointed([value for key, value in given.items() if key not in whole])
    apart = [name for name in files if name in inside or name not in whole.values()]
    found = {key: files[name] for key, name in whole.items()}
    return {**given, **found, **{name: files[name] for name in apart}}


def _points_to(value: object) -> str:
    is_one = isinstance(value, str) and value.startswith(ATTACHED)
    return str(value).removeprefix(ATTACHED) if is_one else ""


def _mark(body: dict[str, Any]) -> None:
    for name, entities in (
        ("text", "entities"),
        ("caption", "caption_entities"),
        ("question", "question_entities"),
    ):
        if isinstance(body.get(name), str):
            written = body.get("parse_mode") == "MarkdownV2"
            mark = MARKER.replace("(", r"\(").replace(")", r"\)") if written else MARKER
            body[name] = mark + body[name]
            for entity in body.get(entities) or ():
                entity["offset"] += len(MARKER)
            return
