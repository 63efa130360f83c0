"""Events to stored records and back.

cattrs leaves out the fields at their default, msgspec writes canonical JSON and reads it
strictly. `encode` proves that the types can be read again. `decode` also writes the event
again and compares: only what the kernel would write is read. See specs/decisions/0011.

The envelope `{"at","data","kind","schema","stream","version"}` in canonical JSON is
what the event's hash covers. A record that cannot be read becomes CorruptLogError with
its position; no other error comes out of here. Format: specs/log-format.md.
"""

from collections.abc import Callable, Iterable
from functools import cache, lru_cache, partial
from json.encoder import encode_basestring
from typing import Any, NotRequired, TypedDict, get_type_hints

import attrs
import msgspec
from cattrs.gen import make_dict_unstructure_fn
from cattrs.preconf.msgspec import MsgspecJsonConverter, make_converter

from turnfold import canonical
from turnfold.errors import CorruptLogError, InvalidInputError
from turnfold.events import CLASSES, NAMES, SCHEMAS, Event
from turnfold.events import outbox as o
from turnfold.events import turn as t
from turnfold.frozen import frozen
from turnfold.upcasters import upcast

_Fields = Callable[[Any], dict[str, Any]]
_write = msgspec.json.Encoder(order="sorted").encode
_typed_dict: Any = TypedDict  # made of fields that are known at run time
# A worker says these of most messages in the same words: streams share the event.
_ALIKE = frozenset({o.Attempted, o.Dispatched, t.Started, t.Completed})


@frozen
class Record:
    """One stored event. `data` is canonical JSON; `hash` covers the envelope."""

    position: int
    stream: str
    version: int  # from 1, without gaps
    kind: str
    schema: int
    at: int
    data: bytes
    hash: bytes


def envelope(
    stream: str, version: int, kind: str, schema: int, at: int, data: bytes
) -> bytes:
    """The bytes that an event's hash covers."""
    name = encode_basestring(stream)
    tail = f'"kind":"{kind}","schema":{schema},"stream":{name},"version":{version}}}'
    return b'{"at":%d,"data":%b,%b' % (at, data, tail.encode())


def envelopes(records: Iterable[Record]) -> list[bytes]:
    """The envelope of each record. In one loop, and the time of a commit is written
    once, for a third less than by one call each."""
    made, at, head = [], None, b""
    for r in records:
        if r.at != at:
            at, head = r.at, b'{"at":%d,"data":' % r.at
        kind, name = r.kind, encode_basestring(r.stream)
        tail = f',"kind":"{kind}","schema":{r.schema},"stream":{name},"version":{r.version}}}'
        made.append(head + r.data + tail.encode())
    return made


def encode(event: Event, stream: str, version: int, at: int, position: int) -> Record:
    """An event as it is stored. Raises InvalidInputError if a field has another type
    than it is declared with: its stream could never be read again."""
    form = _FORMS[type(event)]
    try:
        data = _write(form.fields(event))
        form.read(data)
    except (TypeError, ValueError, AttributeError, OverflowError) as exc:
        raise InvalidInputError(field=form.kind, problem=str(exc)) from exc
    tail = f'{form.middle}{encode_basestring(stream)},"version":{version}}}'
    # as `envelope`, with the text of the kind at hand
    digest = canonical.event_hash(b'{"at":%d,"data":%b%b' % (at, data, tail.encode()))
    return Record(position, stream, version, form.kind, form.schema, at, data, digest)


def decode(record: Record) -> Event:
    """The event in a record. Its hash is the audit's business, not checked here."""
    try:
        schema, read = _READERS[record.kind]
        return read(record.data if record.schema == schema else _raised(record))
    except Exception as exc:
        raise CorruptLogError(
            position=record.position, stream=record.stream, problem=_problem(exc)
        ) from exc


def _read(form: "_Form", data: bytes) -> Event:
    event = form.cls(**form.read(data))
    again = _write(form.fields(event))
    if again != data:
        problem = f"not in canonical form; written again it is {again.decode()}"
        raise InvalidInputError(field="data", problem=problem)
    return event


def _raised(record: Record) -> bytes:
    """The data of an old schema as the newest one writes it."""
    value = canonical.loads(record.data)
    if not isinstance(value, dict):
        raise InvalidInputError(field="data", problem="not an object")
    return canonical.dumps(upcast(record.kind, record.schema, value))


def verify(record: Record) -> bool:
    """True if the stored hash is the hash of what is stored."""
    r = record
    data = envelope(r.stream, r.version, r.kind, r.schema, r.at, r.data)
    return canonical.event_hash(data) == r.hash


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
    middle: str  # of the envelope
    fields: _Fields  # those that are written
    read: Callable[[bytes], dict[str, Any]]  # the same, each of its declared type


class _Forms(dict[type[Event], _Form]):
    """By class."""

    def __missing__(self, cls: Any) -> _Form:
        kind = NAMES[cls]
        schema = SCHEMAS[kind]
        middle = f',"kind":"{kind}","schema":{schema},"stream":'
        read = msgspec.json.Decoder(_typed(cls), strict=True).decode
        made = self[cls] = _Form(cls, kind, schema, middle, _fields_of(cls), read)
        return made


class _Readers(dict[str, tuple[int, Callable[[bytes], Event]]]):
    """By kind: the newest schema, and what reads it."""

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
def _converter() -> MsgspecJsonConverter:
    converter = make_converter()
    # The preset hands a class of plain fields to msgspec, which writes the defaults.
    converter.register_unstructure_hook_factory(attrs.has, _fields_of)
    return converter


@cache
def _fields_of(cls: type[Any]) -> _Fields:
    """What makes a dict of an event, or of a part of one, without its defaults."""
    return make_dict_unstructure_fn(cls, _converter(), _cattrs_omit_if_default=True)
