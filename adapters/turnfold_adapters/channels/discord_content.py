"""From payloads to the JSON of Discord's messages. Importing this needs discord.py; no I/O.

Discord reads Markdown of its own and no HTML. Plain text is escaped, HTML becomes
Markdown. A message has at most 2000 characters; we count UTF-16 units, of which a text
never has fewer.
"""

import hashlib
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import PurePath
from typing import Any

from attrs import evolve
from discord.utils import escape_markdown

from turnfold.enums import Format, PartAct
from turnfold.messages import File, Native, Payload, Route, Text, pointed
from turnfold.ports.channel import Attempt, Part, PlannedPart
from turnfold_adapters import text as texts
from turnfold_adapters.channels.payloads import addressed, thawed
from turnfold_adapters.text.clusters import MEASURES, is_blank
from turnfold_adapters.text.cutting import FORMATTED_MOST
from turnfold_adapters.text.html import rich_of_html
from turnfold_adapters.text.rich import Rich, Span, cut

MARKER = "(may be a duplicate) "
TEXT_LIMIT = 2000 - len(MARKER)  # there is always room for the mark
CAPTION_LIMIT = TEXT_LIMIT // 2  # with an escape before each character
NONCE_MOST = 25

_units = MEASURES["utf16"]
_MARKS = {
    **dict.fromkeys(("b", "strong", "h1", "h2", "h3", "h4", "h5", "h6"), "**"),
    **dict.fromkeys(("i", "em"), "*"),
    **dict.fromkeys(("u", "ins"), "__"),
    **dict.fromkeys(("s", "strike", "del"), "~~"),
}


def plan(payload: Payload) -> Sequence[PlannedPart]:
    """The parts of a payload. The pieces of a text are Markdown as Discord reads it."""
    if not isinstance(payload, Text):
        return texts.plan(payload, None, "utf16")
    if payload.format is Format.MARKDOWN:
        return texts.plan(payload, TEXT_LIMIT, "utf16")
    return [
        PlannedPart(payload=Text(piece, format=Format.MARKDOWN), kind="text")
        for piece in _pieces(payload)
    ]


def _pieces(payload: Text) -> Iterator[str]:
    rich = _rich(payload)
    if is_blank(rich.text):
        return iter(())
    loose = rich.loosened(_units, TEXT_LIMIT)
    return cut(loose, TEXT_LIMIT, lambda written, *_: _units(written))


def _rich(payload: Text) -> Rich:
    if payload.format is Format.PLAIN:
        return Rich(payload.text, escape=escape_markdown)
    rich = rich_of_html(payload.text)
    long = len(payload.text) > FORMATTED_MOST
    spans = () if long else tuple(filter(None, map(_span, rich.spans)))
    return Rich(rich.text.strip("\n"), spans, escape=escape_markdown)


def _span(span: Span) -> Span | None:
    """The Markdown of an HTML tag; None: Discord shows nothing like it."""
    tag, address = _opened(span.open)
    if tag == "pre":
        return evolve(span, open="```\n", close="\n```", raw=True)
    if tag == "code":
        return evolve(span, open="`", close="`", raw=True)
    if tag == "a" and address.startswith(("http://", "https://")):
        return evolve(span, open="[", close=f"]({address})")
    mark = _MARKS.get(tag)
    return None if mark is None else evolve(span, open=mark, close=mark)


class _Tag(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found = ("", "")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found = (tag, dict(attrs).get("href") or "")


def _opened(source: str) -> tuple[str, str]:
    reader = _Tag()
    reader.feed(source)
    return reader.found


# --- requests ---


def channel_of(route: Route) -> str:
    """A thread is a channel of its own."""
    return route.thread or route.conversation


def nonce_of(key: str) -> str:
    """The nonce for a key: 25 characters, 100 bits of its hash."""
    return hashlib.sha256(key.encode()).hexdigest()[:NONCE_MOST]


def message_of(
    part: Part, key: str, attempt: Attempt, mentions: Sequence[str]
) -> dict[str, Any]:
    """The JSON of a new message. A placeholder has no nonce: if it was deleted and is
    made anew, Discord might answer with the deleted one."""
    payload = part.payload
    made = _native(payload) if isinstance(payload, Native) else {}
    if isinstance(payload, Text):
        made = content_of(payload, attempt, mentions)
    else:
        made |= _words_beside(payload, made.get("content"), marked=attempt.marked)
    made.setdefault("allowed_mentions", _allowed(mentions))
    if "message_reference" not in made:
        made |= _reply(part)
    if attempt.act is not PartAct.PLACEHOLDER:
        made |= {"nonce": nonce_of(key), "enforce_nonce": True}
    if isinstance(payload, File):
        made["attachments"] = [{"id": 0, "filename": payload.name or "file"}]
    return made


def _native(payload: Native) -> dict[str, Any]:
    """The body, with Discord's own references to files: by file name."""
    names = file_names(payload)
    if not names:
        return dict(thawed(payload.body))
    places = {name: f"attachment://{shown}" for name, shown in names.items()}
    made: dict[str, Any] = addressed(payload.body, places)
    shown = [{"id": n, "filename": name} for n, name in enumerate(names.values())]
    made.setdefault("attachments", shown)
    return made


def file_names(payload: Native) -> dict[str, str]:
    """The file name on Discord for each file, in the order of the request. Embeds point
    only to names of letters, digits, _, - and . that are not taken twice; readers
    do not see those names."""
    used = pointed(payload.body)
    return {
        name: f"{name}{PurePath(file.name).suffix}"
        if name in used
        else file.name or name
        for name, file in sorted(payload.files.items())
    }


def _words_beside(payload: Payload, own: Any, *, marked: bool) -> dict[str, Any]:
    """The mark and the caption of a file or a native message."""
    caption = payload.caption if isinstance(payload, File) else ""
    words = (MARKER if marked else "") + (escape_markdown(caption) or str(own or ""))
    return {"content": words.strip()} if words else {}


def content_of(
    payload: Text, attempt: Attempt, mentions: Sequence[str]
) -> dict[str, Any]:
    """The JSON of an edit, and of the text of a new message."""
    mark = MARKER if attempt.marked else ""
    words = payload.text
    if payload.format is not Format.MARKDOWN:  # a preview, or a format that was refused
        words = next(_pieces(payload), words)
    return {"content": mark + words, "allowed_mentions": _allowed(mentions)}


def _allowed(mentions: Sequence[str]) -> dict[str, Any]:
    return {"parse": list(mentions), "replied_user": False}


def _reply(part: Part) -> dict[str, Any]:
    """Only the first part quotes. If the quoted message is gone, the answer is still
    sent."""
    reply = part.route.reply_to if part.index == 0 else None
    if not reply or not (reply.isascii() and reply.isdigit()):
        return {}
    return {"message_reference": {"message_id": reply, "fail_if_not_exists": False}}
