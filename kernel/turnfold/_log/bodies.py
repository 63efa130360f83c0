"""Payloads to stored bytes and back.

A payload's body is canonical JSON. The content of each file is a body of its own, named
in the payload by digest. So the queue owns a copy, and the file on disk may be deleted.
"""

import mimetypes
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import Any

import msgspec
from attrs import evolve

from turnfold._log import canonical, large
from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._log.canonical import Body, BodyRef
from turnfold._log.events import Event
from turnfold._log.large import Seal, beside
from turnfold.enums import Format
from turnfold.errors import DamagedError, InvalidInputError, MissingBodyError
from turnfold.messages import LARGE, File, Native, Payload, Text, files_of, json_value

_OCTETS = "application/octet-stream"
_ATTACHED = "attached"  # sorts before "body", so the bytes begin with it (NATIVE)
_write = msgspec.json.Encoder(order="sorted").encode


class EncodedPayload(msgspec.Struct):
    """A payload ready to be stored. `encoded` is its head in canonical JSON, `contents`
    the contents of its files, in the order of their names. `identity` is equal for
    equal payloads, so an entry and its parts can share one body. `seals`: of the
    contents, or of `encoded` where there are none, if one of them is large."""

    kind: str  # "text", "file" or "native"
    head: Mapping[str, Any]  # empty where it is not needed
    identity: tuple[bytes, tuple[bytes, ...]]
    origin: Payload | None = None  # if unchanging
    seals: tuple[Seal | None, ...] = ()

    @property
    def encoded(self) -> bytes:
        return self.identity[0]

    @property
    def contents(self) -> tuple[bytes, ...]:
        return self.identity[1]

    @property
    def size(self) -> int:
        encoded, contents = self.identity
        return len(encoded) + sum(map(len, contents)) if contents else len(encoded)

    def make_seals(self, salt: Callable[[], bytes]) -> None:
        """Compute hash and seals in a thread, since it takes too long on the loop."""
        hash(self.identity)  # bytes cache it
        held = self.contents or (self.encoded,)
        self.seals = tuple([large.seal(salt, data) for data in held])


def is_large(payload: Payload) -> bool:
    if type(payload) is Text:  # nearly all, at once
        return len(payload.text) > LARGE
    if isinstance(payload, Native) and payload.large:
        return True
    return any(len(file.data or b"") > LARGE for file in files_of(payload))


def pack(payload: Payload) -> EncodedPayload:
    """Encode a payload; reads the file of a File. Raises InvalidInputError if the file
    cannot be read, and for values that the constructor of a large payload did not
    check."""
    try:
        if isinstance(payload, Text):
            head = {"format": payload.format, "text": payload.text, "type": "text"}
            # The same bytes as canonical.dumps makes, in an eighth of the time.
            return EncodedPayload("text", head, (_write(head), ()), payload)
        match payload:
            case Native():
                return _pack_native(payload)
            case File():
                return _pack_file(payload)
    except UnicodeEncodeError as exc:
        problem = "lone surrogate in text"
        raise InvalidInputError(field="payloads", problem=problem) from exc


def _pack_native(payload: Native) -> EncodedPayload:
    try:
        return _packed_native(payload)
    except RuntimeError as exc:  # other code adds keys meanwhile
        problem = f"changed while it was handed over: {exc}"
        raise InvalidInputError(field="body", problem=problem) from exc


def _packed_native(payload: Native) -> EncodedPayload:
    if payload.large:
        json_value(payload.body, "body")
    head = {"type": "native", "body": _thaw(payload.body)}
    files = [(name, _facts(file)) for name, file in sorted(payload.files.items())]
    if files:
        head[_ATTACHED] = {name: facts for name, (facts, _) in files}
    contents = tuple([content for _, (_, content) in files])
    encoded = large.dumps(head) if payload.large else canonical.dumps(head)
    return EncodedPayload("native", head, (encoded, contents))


def _pack_file(payload: File) -> EncodedPayload:
    facts, content = _facts(payload)
    head = {"type": "file", **facts}
    if payload.caption:
        head["text"] = payload.caption  # `content` stays the first key (FILE)
    return EncodedPayload("file", head, (canonical.dumps(head), (content,)))


def _facts(file: File) -> tuple[dict[str, str], bytes]:
    """The name and type of a file, and its bytes."""
    path = Path(file.path) if file.path is not None else None
    name = file.name or (path.name if path else "file")
    content = file.data if file.data is not None else _read(path)
    mime = file.mime
    if mime == _OCTETS:
        mime = mimetypes.guess_type(name)[0] or _OCTETS
    return {"name": name, "mime": mime}, content


def by_path(payload: Payload) -> bool:
    """Does the payload have files that are not read yet?"""
    return any(file.path is not None for file in files_of(payload))


def held(payload: Payload) -> Payload:
    """The same payload with the contents of its files. Raises InvalidInputError."""
    match payload:
        case File(path=str() | Path()):
            facts, content = _facts(payload)
            return evolve(payload, path=None, data=content, **facts)
        case Native(files=files) if files:
            kept = {name: held(file) for name, file in files.items()}
            return evolve(payload, files=kept)
        case _:
            return payload


def naming(packed: EncodedPayload, names: Sequence[str]) -> bytes:
    """The stored bytes of a payload with files. `names`: of the bodies that hold the
    contents."""
    if packed.kind == "file":
        return canonical.dumps({**packed.head, "content": names[0]})
    files = zip(packed.head[_ATTACHED].items(), names, strict=True)
    attached = {name: {**facts, "content": ref} for (name, facts), ref in files}
    return canonical.dumps({**packed.head, _ATTACHED: attached})


def _read(path: Path | None) -> bytes:
    try:
        if path is not None and not S_ISREG(path.stat().st_mode):
            problem = f"{path} is no regular file: reading it may never end"
            raise InvalidInputError(field="path", problem=problem)
        return path.read_bytes() if path else b""
    except (OSError, ValueError) as exc:
        raise InvalidInputError(field="path", problem=str(exc)) from exc


def _thaw(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _thaw(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_thaw(item) for item in value]
    return value


def same(packed: EncodedPayload, digest: str, body: Callable[[str], bytes]) -> bool:
    """True if a stored body holds exactly this payload. `body`: reads a stored body."""
    data = body(digest)
    names = contents_in(data)
    if len(names) != len(packed.contents):
        return False
    if data != (naming(packed, names) if names else packed.encoded):
        return False
    pairs = zip(names, packed.contents, strict=True)
    return all(body(name) == content for name, content in pairs)


def unpack(data: bytes, body: Callable[[str], bytes]) -> Payload:
    """The payload in stored bytes; `body` fetches a file's content by digest."""
    if len(data) > LARGE and (found := _text_in(data)) is not None:
        return found
    value: Any = large.loads(data) if len(data) > LARGE else canonical.loads(data)
    match value:
        case {"type": "text", "text": str(text), "format": str(form)}:
            return Text(text, format=Format(form))
        case {"type": "native", "body": dict(native)}:
            attached = value.get(_ATTACHED, {}).items()
            return Native(native, {name: _file(one, body) for name, one in attached})
        case {"type": "file"}:
            return _file(value, body)
        case _:
            raise InvalidInputError(field="body", problem="not a stored payload")


def plain_text(data: bytes) -> Text | None:
    """The payload in canonical bytes if it is a text: it need not be read again for its
    plan and its send. Raises InvalidInputError for bytes that are not canonical."""
    value: Any = canonical.loads(data)
    match value:
        case {"type": "text", "text": str(text), "format": str(form)}:
            with suppress(ValueError, InvalidInputError):  # its plan will refuse it
                return Text(text, format=Format(form))
        case _:
            pass
    return None


def _file(facts: Mapping[str, Any], body: Callable[[str], bytes]) -> File:
    match facts:
        case {"name": str(name), "mime": str(mime), "content": str(digest), **more}:
            caption = str(more.get("text", ""))
            return File(data=body(digest), name=name, mime=mime, caption=caption)
        case _:
            raise InvalidInputError(field="body", problem="not a stored file")


_TEXT = b'{"format":"%b","text":"'  # the first bytes of a text
_TEXT_END = b'","type":"text"}'


def _text_in(data: bytes) -> Text | None:
    """A long text, read in pieces; None for anything else."""
    for form in Format:
        start = _TEXT % form.encode()
        if data.startswith(start) and data.endswith(_TEXT_END):
            inner = data[len(start) : -len(_TEXT_END)]
            try:
                text = large.json_text(inner)
            except (msgspec.DecodeError, UnicodeDecodeError):
                return None
            head = {"format": form, "text": text, "type": "text"}
            return Text(text, format=form) if _write(head) == data else None
    return None


async def fetch_payload(
    read: Callable[[str, str], Awaitable[bytes]], stream: str, ref: str
) -> Payload:
    """The payload that an event of `stream` names. `read`: a body by stream and name.

    Raises the errors of `read`, and InvalidInputError for bytes that are no payload.
    """
    data = await read(stream, ref)
    if len(data) > LARGE:
        names = await beside(partial(contents_in, data))
        stored = {name: await read(stream, name) for name in names}
        return await beside(partial(unpack, data, stored.__getitem__))
    stored = {name: await read(stream, name) for name in contents_in(data)}
    return unpack(data, stored.__getitem__)


# --- How events name bodies: by number in their stream and by salted digest ---


FILE = b'{"content":'  # the first bytes of a file's payload
NATIVE = b'{"attached":'  # and of a native payload with files
PAYLOADS = (
    o.Queued,
    o.Planned,
    o.Imported,
    o.AmendedPart,
)  # events that name payloads of an entry


def body_ref(body: Body) -> str:
    """The text that names a body in an event: `<number>.<salted digest>`."""
    digest = body.digest or canonical.body_digest(body.salt, body.data)
    return f"{body.number}.{digest}"


def with_digest(body: Body) -> Body:
    """The body with its digest. Call this in a thread, so that the loop does not
    compute it."""
    digest = canonical.body_digest(body.salt, body.data)
    return msgspec.structs.replace(body, digest=digest)


async def digested(
    bodies: Mapping[BodyRef, Body | None],
) -> Mapping[BodyRef, Body | None]:
    """Bodies as they were fetched; the large ones with their digest."""
    long = [b for b in bodies.values() if b is not None and len(b.data) > LARGE]
    if not long:
        return bodies
    made = await beside(lambda: [*map(with_digest, long)])
    return {**bodies, **{(body.stream, body.number): body for body in made}}


def place_of(stream: str, ref: str) -> BodyRef:
    """Where a store keeps the body that an event of `stream` names.

    Raises InvalidInputError for a text that names no body.
    """
    return stream, number_of(ref)


def number_of(ref: str) -> int:
    """The number in the text that names a body. Raises InvalidInputError."""
    number, dot, _ = ref.partition(".")
    if not dot or not number.isascii() or not number.isdigit():
        raise InvalidInputError(field="body", problem=f"{ref!r:.60} names no body")
    return int(number)


def checked(ref: str, body: Body | None, address: str = "the store") -> bytes:
    """The bytes of a body from a store, checked.

    Raises MissingBodyError if it is missing, DamagedError if the bytes do not fit the
    digest in `ref`.
    """
    if body is None:
        raise MissingBodyError(digest=ref)
    if body_ref(body) != ref:
        problem = f"the bytes of body {ref} do not fit its digest"
        raise DamagedError(path=address, problem=problem)
    return body.data


def digests_of(event: Event) -> Iterator[str]:
    """The bodies that an event names."""
    match event:
        case o.Queued():
            yield from event.body
        case o.Imported():
            yield from (*event.body, *filter(None, (event.detail,)))
        case o.Planned():
            yield from (part.body for part in event.parts)
        case t.Accepted() | t.Joined():
            yield event.body
        case t.Dead():
            yield from (d for d in (event.body, event.detail) if d is not None)
        case o.AmendedPart():
            yield event.body
        case t.StepDone():
            yield event.result
        case _:
            for name in ("detail", "why"):
                text = getattr(event, name, None)
                if text is not None:
                    yield text


def contents_of(event: Event, data: bytes) -> tuple[str, ...]:
    """The bodies with the contents of files, if `data` is a payload with files. Only an
    entry's payload counts: a body from a message or a handler may look like one and
    name a body of another stream."""
    return contents_in(data) if isinstance(event, PAYLOADS) else ()


def contents_in(data: bytes) -> tuple[str, ...]:
    """The names of the bodies with the contents of files, read from the bytes of a
    payload; empty for any other payload."""
    if not data.startswith((FILE, NATIVE)):
        return ()
    try:
        value = canonical.loads(data)
    except InvalidInputError:
        return ()
    attached = value.get(_ATTACHED, {"": value})
    files = (
        [f for _, f in sorted(attached.items())] if isinstance(attached, dict) else []
    )
    names = [f.get("content") for f in files if isinstance(f, dict)]
    return tuple([name for name in names if isinstance(name, str)])


def left_of(events: Iterable[Event], stored: Callable[[str], bytes]) -> list[str]:
    """The bodies of these events that are still there, each once."""
    found: dict[str, None] = {}
    for event in events:
        for digest in digests_of(event):
            try:
                data = stored(digest)
            except MissingBodyError:
                continue
            except DamagedError:
                data = b""  # no longer readable, but stored
            found[digest] = None
            found |= dict.fromkeys(contents_of(event, data))
    return list(found)
