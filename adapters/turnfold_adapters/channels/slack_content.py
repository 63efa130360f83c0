"""From payloads to the arguments of Slack's methods. Pure: no I/O, no client.

Slack asks for texts of at most 4,000 characters and cuts those of more than 40,000
(docs.slack.dev/reference/methods/chat.postMessage); between the two it may break a
message into several (seen by others, not documented). So a text is cut at 4,000 UTF-16
units on the wire, escapes and marks among them.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from turnfold.errors import InvalidInputError
from turnfold.messages import File, Native, Payload, Text, pointed
from turnfold.ports.channel import Part, PlannedPart
from turnfold_adapters.channels.payloads import thawed
from turnfold_adapters.channels.slack_mrkdwn import escaped, mrkdwn, overhead
from turnfold_adapters.text import chats
from turnfold_adapters.text.clusters import MEASURES
from turnfold_adapters.text.rich import Rich, Span, cut

MARKER = "(may be a duplicate) "
TEXT_LIMIT = 4000 - len(MARKER)  # there is always room for the mark
POST = "chat.postMessage"
KEY_FIELD = "turnfold_part"
# An empty message: a placeholder, which an edit makes the part.
PLACEHOLDER_FIELD = "turnfold_placeholder"
_NAME_MOST = 200
_TAG_LENGTH = 12
_TS = re.compile(r"\d{1,12}\.\d{1,9}", re.ASCII)
_units = MEASURES["utf16"]


def plan(payload: Payload) -> Sequence[PlannedPart]:
    """The parts of a payload. The pieces of a text are HTML, or plain text where there
    is nothing to format."""
    return chats.plan(payload, _fits, _cut)


def _fits(text: str) -> bool:
    return _units(escaped(text)) <= TEXT_LIMIT


def _cut(rich: Rich) -> Iterator[str]:
    return cut(rich.loosened(_units, TEXT_LIMIT), TEXT_LIMIT, _size)


def _size(written: str, shown: str, spans: Sequence[Span]) -> int:
    del written
    return _units(escaped(shown)) + overhead(spans, shown)


def words_of(payload: Text, *, marked: bool = False) -> dict[str, Any]:
    """A piece of a plan in Slack's form. A text without a format is not read as mrkdwn;
    chat.update has no switch for that."""
    prefix = MARKER if marked else ""
    rich = chats.rich_of(payload)
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
    """The thread of a part. Slack has no quotes: an answer to a message may go to its
    thread."""
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
    thread are added if the body names no channel. Without a method it is a
    chat.postMessage. Our key goes into its metadata, beside the metadata of the
    body."""
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


_BESIDE_FILES = frozenset({"text", "blocks"})


def check(payload: Payload) -> None:
    """Raises InvalidInputError for a native message that Slack cannot show: files go
    with a text or with blocks, and blocks cannot name a file of the same message."""
    if not isinstance(payload, Native) or not payload.files:
        return
    odd = sorted(set(payload.body) - _BESIDE_FILES)
    if odd or len(payload.body) > 1:
        problem = f"beside files Slack takes text or blocks, not {odd or 'both'}"
        raise InvalidInputError(field="body", problem=problem)
    if pointed(payload.body):
        problem = "blocks cannot point to a file of the same message"
        raise InvalidInputError(field="body", problem=problem)


def beside_files(payload: Native, *, marked: bool) -> dict[str, Any]:
    """The words of a native message with shared files. Slack ignores blocks beside a
    comment."""
    body = thawed(payload.body)
    if marked:
        _mark(body)
        body = body or {"text": MARKER.strip()}
    names = {"text": "initial_comment", "blocks": "blocks"}
    return {names[name]: value for name, value in body.items()}


def comment(caption: str, *, marked: bool) -> dict[str, str]:
    """The words of a file."""
    words = f"{MARKER if marked else ''}{escaped(caption)}".strip()
    return {"initial_comment": words} if words else {}


def _mark(body: dict[str, Any]) -> None:
    """Put the mark before the text, and above the blocks, which hide the text."""
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
