"""Events to the bytes of a log record and back.

cattrs leaves out the fields at their default, msgspec writes canonical JSON and reads it
strictly. `encode` proves that the types can be read again. `decode` also writes the events
again and compares: only bytes that the kernel would write are read. See specs/decisions/0011.

`events` of a record is a JSON array of `[kind, schema, data]`. A record that cannot be
read becomes CorruptLogError with its position; no other error comes out of here. Format:
specs/log-format.md.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, partial
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NotRequired, TypedDict, get_type_hints

import attrs
import msgspec
from attrs import frozen
from cattrs.gen import make_dict_unstructure_fn
from cattrs.preconf.msgspec import MsgspecJsonConverter, make_converter

from turnfold._log import canonical
from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._log.canonical import Record, envelope
from turnfold._log.events import (
    CLASSES,
    NAMES,
    SCHEMAS,
    Event,
)
from turnfold.errors import CorruptLogError, InvalidInputError

_Fields = Callable[[Any], dict[str, Any]]
_write = msgspec.json.Encoder(order="sorted").encode
_typed_dict: Any = TypedDict  # made of fields that are known at run time
# A worker says these of most messages in the same words: streams share the event.
_ALIKE = frozenset({o.Attempted, o.Dispatched, t.Started, t.Completed})
# The one field that holds records of a class of its own.
_PARTS_OF: Mapping[Any, Any] = {o.Planned: (("parts", o.PlannedPart),)}
_items = msgspec.json.Decoder(list[tuple[str, int, msgspec.Raw]], strict=True).decode


def encode(event: Event) -> bytes:
    """An event as an item of a record: `[kind, schema, data]` in canonical JSON.

    Raises InvalidInputError if a field has another type than it is declared with: its
    stream could never be read again.
    """
    form = _FORMS[type(event)]
    try:
        data = _write(form.fields(event))
        form.prove(data)
    except (TypeError, ValueError, AttributeError, OverflowError) as exc:
        raise InvalidInputError(field=form.kind, problem=str(exc)) from exc
    return b"%b%b]" % (form.front, data)


def record_of(
    items: Sequence[bytes],
    stream: str,
    version: int,
    at: int,
    position: int,
    wall: int | None = None,
) -> Record:
    """The record of one stream in one commit. `version`: of its last event."""
    events = b"[%b]" % b",".join(items)
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
    """The array around the events is as it would be written, and as long as it says."""
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
    event = form.cls(**form.read(data))
    again = _write(form.fields(event))
    if again != data:
        problem = f"not in canonical form; written again it is {again.decode()}"
        raise InvalidInputError(field="data", problem=problem)
    return event


def _raised(kind: str, schema: int, data: bytes) -> bytes:
    """The data of an old schema as the newest one writes it."""
    value = canonical.loads(data)
    if not isinstance(value, dict):
        raise InvalidInputError(field="data", problem="not an object")
    return canonical.dumps(upcast(kind, schema, value))


def _problem(exc: Exception) -> str:
    if isinstance(exc, KeyError):
        return f"unknown event kind {exc}"
    return str(exc)


# --- the libraries, asked for a class when its first event comes: an import is quick ---


@frozen
class _Form:
    """How the events of one class are stored."""

    cls: Callable[..., Event]
    kind: str
    schema: int
    front: bytes  # the beginning of an item
    fields: _Fields  # those that are written
    read: Callable[[bytes], dict[str, Any]]  # the same, each of its declared type
    prove: Callable[[bytes], object]  # raises where `read` would, in half the time


class _Forms(dict[type[Event], _Form]):
    """By class."""

    def __missing__(self, cls: Any) -> _Form:
        kind = NAMES[cls]
        schema = SCHEMAS[kind]
        front = b'["%b",%d,' % (kind.encode(), schema)
        read = msgspec.json.Decoder(_typed(cls), strict=True).decode
        prove = msgspec.json.Decoder(_proof(cls), strict=True).decode
        made = self[cls] = _Form(cls, kind, schema, front, _fields_of(cls), read, prove)
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


def _typed(cls: Any) -> Any:
    """The fields of a class as a TypedDict. msgspec fills the class itself, too, but it
    finds each field that was left out by an exception, which takes twice as long."""
    hints = get_type_hints(cls, include_extras=True)
    for a in attrs.fields(cls):
        if a.default is not attrs.NOTHING:
            hints[a.name] = NotRequired[hints[a.name]]
    return _typed_dict(cls.__name__, hints)


@cache
def _proof(cls: Any) -> Any:
    """The fields of a class as a msgspec Struct, which is the quickest to read."""
    hints = get_type_hints(cls, include_extras=True)
    for name, part in _PARTS_OF.get(cls, ()):
        proof: Any = _proof(part)
        hints[name] = tuple[proof, ...]
    return msgspec.defstruct(
        cls.__name__,
        [
            (a.name, hints[a.name])
            if a.default is attrs.NOTHING
            else (a.name, hints[a.name], a.default)
            for a in attrs.fields(cls)
        ],
        kw_only=True,
    )


@cache
def _converter() -> MsgspecJsonConverter:
    converter = make_converter()
    # The preset hands a class of plain fields to msgspec, which writes the defaults.
    converter.register_unstructure_hook_factory(attrs.has, _fields_of)
    return converter


@cache
def _fields_of(cls: type[Any]) -> _Fields:
    """The function that makes a dict of an event, or of a part of one, without its defaults."""
    return make_dict_unstructure_fn(cls, _converter(), _cattrs_omit_if_default=True)


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
