"""Payloads to stored bytes and back.

A payload's body is canonical JSON; the content of a file is a body of its own, named
in it by digest, so that the queue owns a copy and the file on disk may vanish.
"""

import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

from attrs import field

from turnfold import canonical
from turnfold.bodies import content_in
from turnfold.decide.draft import Draft
from turnfold.errors import InvalidInputError
from turnfold.frozen import frozen
from turnfold.payloads import File, Inbound, Native, Payload, Text
from turnfold.words import Format

_OCTETS = "application/octet-stream"


@frozen
class Packed:
    """A payload ready to be stored. `encoded` is its head in canonical JSON, `content`
    the content of a file. Both together are the same for the same payload: what an
    entry and its parts share a body by."""

    kind: str  # "text", "file" or "native"
    head: Mapping[str, Any]
    identity: tuple[bytes, bytes | None]
    origin: Payload | None = field(default=None, eq=False, repr=False)  # if unchanging

    @property
    def encoded(self) -> bytes:
        return self.identity[0]

    @property
    def content(self) -> bytes | None:
        return self.identity[1]


def _encoded(payload: Text) -> bytes:
    """What canonical.dumps would make of it."""
    form, text = encode_basestring(payload.format), encode_basestring(payload.text)
    return f'{{"format":{form},"text":{text},"type":"text"}}'.encode()


def pack(payload: Payload) -> Packed:
    """Reads the file of a File; raises InvalidInputError if it cannot be read."""
    match payload:
        case Text():
            head = {"type": "text", "text": payload.text, "format": payload.format}
            return Packed("text", head, (_encoded(payload), None), payload)
        case Native():
            head = {"type": "native", "body": _thaw(payload.body)}
            return Packed("native", head, (canonical.dumps(head), None))
        case File():
            return _pack_file(payload)


def _pack_file(payload: File) -> Packed:
    path = Path(payload.path) if payload.path is not None else None
    name = payload.name or (path.name if path else "file")
    content = payload.data if payload.data is not None else _read(path)
    mime = payload.mime
    if mime == _OCTETS:
        mime = mimetypes.guess_type(name)[0] or _OCTETS
    head = {"type": "file", "name": name, "mime": mime}
    return Packed("file", head, (canonical.dumps(head), content))


def _read(path: Path | None) -> bytes:
    try:
        return path.read_bytes() if path else b""
    except OSError as exc:
        raise InvalidInputError(field="path", problem=str(exc)) from exc


def _thaw(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _thaw(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_thaw(item) for item in value]
    return value


def store(draft: Draft, stream: str, packed: Packed) -> str:
    """Put a packed payload beside the log; the text that names it in its stream."""
    encoded, content = packed.identity
    if content is None:
        return draft.body(stream, encoded, packed.origin)
    head = {**packed.head, "content": draft.body(stream, content)}
    return draft.body(stream, canonical.dumps(head))


def same(packed: Packed, digest: str, body: Callable[[str], bytes]) -> bool:
    """True if a stored body holds just this payload. `body` reads a stored one."""
    stored = canonical.loads(body(digest))
    content = stored.pop("content", None)
    if stored != dict(packed.head) or (content is None) != (packed.content is None):
        return False
    return content is None or body(content) == packed.content


def unpack(data: bytes, body: Callable[[str], bytes]) -> Payload:
    """The payload in stored bytes; `body` fetches a file's content by digest."""
    match canonical.loads(data):
        case {"type": "text", "text": str(text), "format": str(form)}:
            return Text(text, format=Format(form))
        case {"type": "native", "body": dict(native)}:
            return Native(native)
        case {
            "type": "file",
            "name": str(name),
            "mime": str(mime),
            "content": str(digest),
        }:
            return File(data=body(digest), name=name, mime=mime)
        case _:
            raise InvalidInputError(field="body", problem="not a stored payload")


async def fetch_payload(
    read: Callable[[str, str], Awaitable[bytes]], stream: str, ref: str
) -> Payload:
    """The payload that an event of `stream` names. `read`: a body by stream and name.

    Raises what `read` raises, and InvalidInputError for bytes that are no payload.
    """
    data = await read(stream, ref)
    content = content_in(data)
    stored = {} if content is None else {content: await read(stream, content)}
    return unpack(data, stored.__getitem__)


def pack_inbound(inbound: Inbound) -> bytes:
    """The body of an accepted message; its ids stand in the event."""
    return canonical.dumps(_thaw(inbound.body))
