"""From payloads to the arguments of Slack's methods. Pure: no I/O, no client.

Slack asks for texts of at most 4,000 characters and cuts those of more than 40,000
(docs.slack.dev/reference/methods/chat.postMessage); between the two it may break a
message into several (seen by others, not documented). So a text is cut at 4,000 UTF-16
units of what goes over the wire, escapes and marks among them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from turnfold.enums import Format
from turnfold.messages import File, Native, Payload, Text
from turnfold.ports.channel import Part, PlannedPart
from turnfold_adapters import text as texts
from turnfold_adapters.channels.slack_mrkdwn import escaped, mrkdwn, overhead
from turnfold_adapters.text.clusters import MEASURES, is_blank
from turnfold_adapters.text.cutting import FORMATTED_MOST
from turnfold_adapters.text.html import LINES, rich_of_html
from turnfold_adapters.text.markdown_telegram import telegram_html
from turnfold_adapters.text.rich import Rich, Span, cut

MARKER = "(may be a duplicate) "
TEXT_LIMIT = 4000 - len(MARKER)  # there is always room for the mark
POST = "chat.postMessage"
KEY_FIELD = "turnfold_part"
# An empty message, which is not yet the part; an edit makes it that.
PLACEHOLDER_FIELD = "turnfold_placeholder"
_NAME_MOST = 200
_TAG_LENGTH = 12
_TS = re.compile(r"\d{1,12}\.\d{1,9}", re.ASCII)
_LINES = LINES - {"pre", "blockquote"}  # they stand on lines of their own as it is
_units = MEASURES["utf16"]


def plan(payload: Payload) -> Sequence[PlannedPart]:
    """The parts of a payload. The pieces of a text are HTML, or plain text where there
    is nothing to format."""
    if not isinstance(payload, Text):
        return texts.plan(payload, None, "utf16")
    if is_blank(payload.text):
        return []
    whole = _units(escaped(payload.text)) <= TEXT_LIMIT
    if whole and payload.format is Format.PLAIN:
        return [PlannedPart(payload=payload, kind="text")]
    pieces = (Text(piece, format=form) for piece, form in _pieces(payload))
    return [PlannedPart(payload=piece, kind="text") for piece in pieces]


def _pieces(payload: Text) -> Iterator[tuple[str, Format]]:
    rich = _rich(payload)
    if len(payload.text) > FORMATTED_MOST:
        rich = Rich(rich.text)
    form = Format.HTML if rich.spans else Format.PLAIN
    if form is Format.PLAIN:
        rich = Rich(rich.text)
    if is_blank(rich.text):
        return
    for piece in cut(rich.loosened(_units, TEXT_LIMIT), TEXT_LIMIT, _size):
        yield piece, form


def _size(written: str, shown: str, spans: Sequence[Span]) -> int:
    del written
    return _units(escaped(shown)) + overhead(spans, shown)


def _rich(payload: Text) -> Rich:
    source = payload.text
    if payload.format is Format.PLAIN:
        return Rich(source)
    if payload.format is Format.MARKDOWN and len(source) > FORMATTED_MOST:
        return Rich(source)
    html = telegram_html(source) if payload.format is Format.MARKDOWN else source
    return rich_of_html(html, _LINES)


def words_of(payload: Text, *, marked: bool = False) -> dict[str, Any]:
    """A piece of a plan as Slack takes it. A text without a format is not read as
    mrkdwn; chat.update has no such switch."""
    prefix = MARKER if marked else ""
    rich = _rich(payload)
    if not rich.spans:
        return {"text": prefix + escaped(rich.text), "mrkdwn": False}
    return {"text": prefix + mrkdwn(rich), "mrkdwn": True}


# --- arguments ---


def metadata(key: str, field: str = KEY_FIELD) -> dict[str, Any]:
    return {"event_type": KEY_FIELD, "event_payload": {field: key}}


def is_ts(text: str | None) -> bool:
    """A Slack time stamp, which is the id of a message."""
    return bool(text and _TS.fullmatch(text))


def thread_of(part: Part, *, reply_in_thread: bool) -> str | None:
    """The thread that a part goes to. Slack has no quotes: an answer to a message may
    stand in its thread."""
    route = part.route
    if route.thread is not None or not reply_in_thread:
        return route.thread
    return route.reply_to if is_ts(route.reply_to) else None


def where(part: Part, *, reply_in_thread: bool) -> dict[str, Any]:
    thread = thread_of(part, reply_in_thread=reply_in_thread)
    place = {"channel": part.route.conversation}
    return place if thread is None else {**place, "thread_ts": thread}


def native_call(
    payload: Native, part: Part, *, marked: bool, reply_in_thread: bool
) -> tuple[str, dict[str, Any]]:
    """`{"method": "chat.postMessage", ...}`: a method and its arguments; channel and
    thread are added where the body names no channel. Without a method it is a
    chat.postMessage. Our key goes into its metadata, beside what the body has there."""
    body = thawed(payload.body)
    method = str(body.pop("method", POST))
    if "channel" not in body:
        body = {**where(part, reply_in_thread=reply_in_thread), **body}
    if method == POST:
        ours = metadata(part.key)
        theirs = body.get("metadata")
        if isinstance(theirs, dict):
            kept = theirs.get("event_payload")
            ours = {**ours, **theirs}
            ours["event_payload"] = {**(kept or {}), KEY_FIELD: part.key}
        body["metadata"] = ours
    if marked:
        _mark(body)
    return method, body


def _mark(body: dict[str, Any]) -> None:
    """Before the text, and above the blocks, which hide the text."""
    if isinstance(body.get("text"), str):
        body["text"] = MARKER + body["text"]
    if isinstance(body.get("blocks"), list):
        words = {"type": "plain_text", "text": MARKER.strip()}
        body["blocks"].insert(0, {"type": "context", "elements": [words]})


def file_name(file: File, key: str) -> str:
    """The name under which a file is uploaded. Slack keeps no metadata with a file, so
    the name carries the end of our key; readers see the title, which is the file's own
    name.

    >>> file_name(File(data=b"", name="report.pdf"), "abcdefghijklmnop")
    'report.efghijklmnop.pdf'
    """
    path = PurePath(file.name or "file")
    return f"{path.stem[:_NAME_MOST]}.{file_tag(key)}{path.suffix[:20]}"


def file_tag(key: str) -> str:
    return key[-_TAG_LENGTH:]


def thawed(value: Any) -> Any:
    """A plain deep copy of a frozen payload body."""
    if isinstance(value, Mapping):
        return {key: thawed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [thawed(item) for item in value]
    return value
