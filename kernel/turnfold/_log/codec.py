"""Events to the bytes of a log record and back.

An event is a msgspec Struct: msgspec leaves out the fields at their default, writes
canonical JSON and reads it strictly. `encode` proves that the types can be read again.
`decode` writes the events again and compares: it accepts only bytes that the kernel
itself would write. See specs/decisions/0011.

`events` of a record is a JSON array of `[kind, schema, data]`. A record that cannot be
read becomes CorruptLogError with its position; no other error comes out of here. Format:
specs/log-format.md.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from hashlib import sha256
from types import MappingProxyType
from typing import Any

import msgspec
from attrs import frozen

from turnfold._log import canonical
from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._log.canonical import Record, envelope
from turnfold._log.events import CLASSES, NAMES, SCHEMAS, Event
from turnfold.errors import CorruptLogError, InvalidInputError

_write = msgspec.json.Encoder(order="sorted").encode
# For most messages these events have the same fields, so streams share one object.
_ALIKE = frozenset({o.Attempted, o.Dispatched, t.Started, t.Completed})
_items = msgspec.json.Decoder(list[tuple[str, int, msgspec.Raw]], strict=True).decode


def encode(event: Event) -> bytes:
    """An event as an item of a record: `[kind, schema, data]` in canonical JSON.

    Raises InvalidInputError if a field has another type than it is declared with: its
    stream could never be read again.
    """
    form = _FORMS[type(event)]
    try:
        data = _write(event)
        form.read(data)
    except (TypeError, ValueError, AttributeError, OverflowError) as exc:
        raise InvalidInputError(field=form.kind, problem=str(exc)) from exc
    return form.front + data + b"]"


def record_of(
    items: Sequence[bytes],
    stream: str,
    version: int,
    at: int,
    position: int,
    wall: int | None = None,
) -> Record:
    """The record of one stream in one commit. `version`: of its last event."""
    events = b"[" + b",".join(items) + b"]"
    digest = sha256(envelope(stream, version, at, events, wall)).digest()
    return Record(position, stream, version, len(items), at, events, digest, wall)


def decode(record: Record) -> tuple[Event, ...]:
    """The events in a record. A reader of a store checks its hash first."""
    try:
        items = _items(record.events)
        events = tuple([_event(kind, schema, data) for kind, schema, data in items])
        _compare(record, items)
    except Exception as exc:
        raise CorruptLogError(
            position=record.position, stream=record.stream, problem=_problem(exc)
        ) from exc
    return events


def _compare(record: Record, items: Sequence[tuple[str, int, Any]]) -> None:
    """Check the array around the events: its bytes, and its length against `count`."""
    again = [b'["%b",%d,%b]' % (k.encode(), s, bytes(data)) for k, s, data in items]
    if len(items) != record.count:
        problem = f"{len(items)} events where {record.count} belong"
        raise InvalidInputError(field="events", problem=problem)
    if b"[%b]" % b",".join(again) != record.events:
        raise InvalidInputError(field="events", problem="not in canonical form")


def _event(kind: str, schema: int, data: Any) -> Event:
    newest, read = _READERS[kind]
    raw = bytes(data)
    return read(raw if schema == newest else _raised(kind, schema, raw))


def _read(form: "_Form", data: bytes) -> Event:
    event = form.read(data)
    again = _write(event)
    if again != data:
        problem = f"not in canonical form; written again it is {again.decode()}"
        raise InvalidInputError(field="data", problem=problem)
    return event


def _raised(kind: str, schema: int, data: bytes) -> bytes:
    """The data of an old schema, raised to the newest schema."""
    value = canonical.loads(data)
    if not isinstance(value, dict):
        raise InvalidInputError(field="data", problem="not an object")
    return canonical.dumps(upcast(kind, schema, value))


def _problem(exc: Exception) -> str:
    if isinstance(exc, KeyError):
        return f"unknown event kind {exc}"
    return str(exc)


# --- coders of a class, made at its first event: so an import is quick ---


@frozen
class _Form:
    """The stored form of one event class."""

    kind: str
    front: bytes  # the beginning of an item
    read: Callable[[bytes], Event]


class _Forms(dict[type[Event], _Form]):
    """By class."""

    def __missing__(self, cls: Any) -> _Form:
        kind = NAMES[cls]
        front = b'["%b",%d,' % (kind.encode(), SCHEMAS[kind])
        read = msgspec.json.Decoder(cls, strict=True).decode
        made = self[cls] = _Form(kind, front, read)
        return made


class _Readers(dict[str, tuple[int, Callable[[bytes], Event]]]):
    """By kind: the newest schema, and its reader."""

    def __missing__(self, kind: str) -> tuple[int, Callable[[bytes], Event]]:
        cls = CLASSES[kind]
        read: Callable[[bytes], Event] = partial(_read, _FORMS[cls])
        if cls in _ALIKE:
            read = lru_cache(1_000)(read)
        made = self[kind] = (SCHEMAS[kind], read)
        return made


_FORMS = _Forms()
_READERS = _Readers()


# --- Old schemas of events raised to the newest, one version at a time, as plain dicts ---


Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

UPCASTERS: Mapping[tuple[str, int], Upcaster] = MappingProxyType({})


def upcast(
    kind: str,
    schema: int,
    value: dict[str, Any],
    upcasters: Mapping[tuple[str, int], Upcaster] = UPCASTERS,
    schemas: Mapping[str, int] = SCHEMAS,
) -> dict[str, Any]:
    """Raise `value` from `schema` to the newest schema of its kind."""
    newest = schemas[kind]
    if not 1 <= schema <= newest:
        problem = f"schema {schema} of {kind} is not known here (1 to {newest})"
        raise InvalidInputError(field="schema", problem=problem)
    for version in range(schema, newest):
        value = upcasters[kind, version](value)
    return value
