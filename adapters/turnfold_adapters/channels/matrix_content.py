"""From a part to the content of a Matrix event, and back from an event to an inbound
message. Pure: no I/O, no nio."""

import json
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from types import MappingProxyType
from typing import Any, TypeGuard

from attrs import frozen

from turnfold.enums import Format
from turnfold.inbound import Inbound
from turnfold.messages import File, Native, Text
from turnfold.ports.channel import Part
from turnfold_adapters.channels.payloads import addressed

# The part's key inside the content. It outlives the server's memory of transaction ids,
# and a look-up searches for it.
KEY_FIELD = "io.turnfold.part"
MARKER = "(may be a duplicate) "
MESSAGE = "m.room.message"
ITSELF = ""  # the name of the only file of a file part

# A whole event may have 65,536 bytes. Content may have 60,000: the server adds the rest
# (20 ancestors, signatures, room and sender names: about 3 kB).
CONTENT_MAX_BYTES = 60_000
# At worst each byte of a text is escaped to two, and HTML carries it twice.
TEXT_MAX_BYTES = CONTENT_MAX_BYTES // 4

# The fields of an event that are the same in each answer of a server. Others are not:
# `unsigned` has the age of the event, and only the history names its room.
_LASTING = ("type", "event_id", "sender", "origin_server_ts", "state_key", "redacts")

_FAMILIES = ("image", "audio", "video")
Markdown = Callable[[str], str]


@frozen(kw_only=True)
class Event:
    """The request on the wire: an event type and its content."""

    type: str
    content: dict[str, Any]


def event_for(
    part: Part,
    *,
    marked: bool,
    uris: Mapping[str, str] = MappingProxyType({}),
    markdown: Markdown | None,
) -> Event:
    """The event of a part. `uris`: the mxc addresses of uploaded files, by name."""
    payload = part.payload
    if isinstance(payload, Native):
        return _native(payload, part, uris)
    prefix = MARKER if marked else ""
    if isinstance(payload, File):
        content = _file(payload, prefix, uris.get(ITSELF, ""))
    else:
        content = _text(payload, prefix, markdown)
    content.update(relation(part))
    content[KEY_FIELD] = part.key
    return Event(type=MESSAGE, content=_within_size(content))


def relation(part: Part) -> dict[str, Any]:
    """`m.relates_to` for thread and reply; only the first part quotes."""
    thread = part.route.thread
    reply_to = part.route.reply_to if part.index == 0 else None
    if thread is None:
        reply = {"m.in_reply_to": {"event_id": reply_to}}
        return {"m.relates_to": reply} if reply_to else {}
    return {
        "m.relates_to": {
            "rel_type": "m.thread",
            "event_id": thread,
            # Clients without threads show a reply; `is_falling_back` marks it as none.
            "is_falling_back": reply_to is None,
            "m.in_reply_to": {"event_id": reply_to or thread},
        }
    }


def _text(payload: Text, prefix: str, markdown: Markdown | None) -> dict[str, Any]:
    text = prefix + printable(payload.text)
    content: dict[str, Any] = {"msgtype": "m.text", "body": text}
    if payload.format is Format.HTML:
        content["body"] = prefix + without_tags(printable(payload.text))
        content["formatted_body"] = text
    elif payload.format is Format.MARKDOWN and markdown is not None:
        content["formatted_body"] = prefix + markdown(printable(payload.text))
    if "formatted_body" in content:
        content["format"] = "org.matrix.custom.html"
    return content


def _file(payload: File, prefix: str, uri: str) -> dict[str, Any]:
    family = payload.mime.partition("/")[0]
    name, caption = printable(payload.name) or "file", printable(payload.caption)
    info: dict[str, Any] = {"mimetype": payload.mime}
    if payload.data is not None:
        info["size"] = len(payload.data)
    content = {
        "msgtype": f"m.{family}" if family in _FAMILIES else "m.file",
        "body": prefix + (caption or name),
        "url": uri,
        "info": info,
    }
    # A body that differs from the file name is a caption (spec since v1.10).
    return {**content, "filename": name} if prefix or caption else content


def _native(payload: Native, part: Part, uris: Mapping[str, str]) -> Event:
    """The given content with the part's key, and with thread and reply unless it has a
    relation of its own.

    Either the content alone (an `m.room.message`) or `{"type": ..., "content": ...}`.
    `"attach://<name>"` becomes the address of that file.
    """
    body = addressed(payload.body, uris)
    kind, content = body.get("type"), body.get("content")
    if not (isinstance(kind, str) and isinstance(content, dict)):
        kind, content = MESSAGE, body
    full = {**relation(part), **content, KEY_FIELD: part.key}
    return Event(type=kind, content=full)


def _within_size(content: dict[str, Any]) -> dict[str, Any]:
    """Drop the formatting rather than the message when both are too much."""
    if "formatted_body" not in content or size_of(content) <= CONTENT_MAX_BYTES:
        return content
    dropped = ("format", "formatted_body")
    return {key: value for key, value in content.items() if key not in dropped}


def size_of(content: Mapping[str, Any]) -> int:
    """Bytes of the content in the server's count."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode())


def printable(text: str) -> str:
    r"""Without control characters, which no client shows and each of which takes six
    bytes in JSON. Tab and line ends stay.

    >>> printable("a\x00b\n")
    'ab\n'
    """
    return "".join(c for c in text if c >= " " or c in "\t\n\r")


class _TextOnly(HTMLParser):
    _ENDS = frozenset({"p", "div", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6"})
    _BLIND = frozenset({"script", "style"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.words: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002  the base's
        self._hidden += tag in self._BLIND
        if tag == "br":
            self.words.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in self._BLIND and self._hidden > 0
        if tag in self._ENDS:
            self.words.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)


def without_tags(html: str) -> str:
    """The plain body beside an HTML one.

    >>> without_tags("<p>a &lt; <b>b</b></p>")
    'a < b'
    """
    parser = _TextOnly()
    parser.feed(html)
    parser.close()
    return "".join(parser.words).strip("\n")


def inbound_of(
    event: Mapping[str, Any], *, room_id: str, channel: str, account: str
) -> Inbound | None:
    """The inbound message in an event, or None if it has no usable id or content.

    The content is foreign, so this never raises: one hostile event must not stop the
    reading of all rooms. `body` is the event without what its server adds at each
    reading, with its `text` beside it: an event that is read again has the same bytes.
    `sent_at` is the clock of the sender's server. An edit (`m.replace`) has the id of
    the message that it changes, and its own id is its revision.
    """
    content = event.get("content")
    event_id = event.get("event_id")
    if not _is_id(event_id) or not isinstance(content, dict) or not content:
        return None
    relates = content.get("m.relates_to")
    relates = relates if isinstance(relates, dict) else {}
    kind = relates.get("rel_type")
    root = relates.get("event_id")
    body = {
        "text": content.get("body") if isinstance(content.get("body"), str) else "",
        "content": content,
        **{name: event[name] for name in _LASTING if name in event},
    }
    edits = kind == "m.replace" and _is_id(root)
    sender, sent_at = event.get("sender"), event.get("origin_server_ts")
    return Inbound(
        channel,
        account=account,
        conversation=room_id,
        message_id=root if edits else event_id,
        event="edit" if edits else "message",
        revision=event_id if edits else None,
        thread=root if kind == "m.thread" and _is_id(root) else None,
        sender=sender if _is_id(sender) else None,
        sent_at=sent_at if _is_time(sent_at) else None,
        body=body,
    )


def _is_time(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 2**53


def _is_id(value: object) -> TypeGuard[str]:
    """Could this be an event id (spec: at most 255 bytes) that the kernel takes?"""
    return isinstance(value, str) and 0 < len(value) <= 255 and value.isprintable()
