"""Events to stored records and back: exact types, unknown fields refused.

The envelope `{"at","data","kind","schema","stream","version"}` in canonical JSON is
what the event's hash covers. A record that cannot be read becomes CorruptLogError with
its position; nothing else ever comes out of here. Format: specs/log-format.md.
"""

from collections.abc import Callable, Iterable
from functools import cache
from json.encoder import encode_basestring
from typing import Any, get_origin

from cattrs import Converter, transform_error
from cattrs.gen import make_dict_structure_fn

from turnfold import canonical
from turnfold.errors import CorruptLogError, InvalidInputError
from turnfold.events import CLASSES, NAMES, SCHEMAS, Event
from turnfold.frozen import frozen
from turnfold.reading import Reader, reader
from turnfold.upcasters import upcast
from turnfold.writing import writer_of


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
    """An event as it is stored. Raises InvalidInputError for what cannot be written."""
    kind, schema, writer, middle = _STORED_AS[type(event)]
    data = writer(event)
    name = encode_basestring(stream)
    # as `envelope`, in one piece
    whole = f'{{"at":{at},"data":{data}{middle}{name},"version":{version}}}'.encode()
    digest = canonical.event_hash(whole)
    return Record(position, stream, version, kind, schema, at, data.encode(), digest)


_Form = tuple[str, int, Callable[[Any], str], str]


class _StoredAs(dict[Any, _Form]):
    """Name, schema, writer and the middle of its envelope, by class; made on first
    use, as all that is generated: importing the library stays quick."""

    def __missing__(self, cls: Any) -> _Form:
        kind = NAMES[cls]
        schema = SCHEMAS[kind]
        middle = f',"kind":"{kind}","schema":{schema},"stream":'
        made = self[cls] = (kind, schema, writer_of(cls), middle)
        return made


_STORED_AS = _StoredAs()


def decode(record: Record) -> Event:
    """The event in a record. Its hash is the audit's business, not checked here."""
    schema, quick = _QUICK.get(record.kind) or _quick(record.kind)
    event: Event | None = quick(record.data) if record.schema == schema else None
    return _strictly(record) if event is None else event


_QUICK: dict[str, tuple[int, Reader]] = {}  # kinds seen: newest schema and its reader


def _quick(kind: str) -> tuple[int, Reader]:
    cls: Any = CLASSES.get(kind)
    if cls is None:  # the strict reader says so
        return -1, bytes
    return _QUICK.setdefault(kind, (SCHEMAS[kind], reader(cls)))


def _strictly(record: Record) -> Event:
    """Old schemas, and everything that is not just what we would write."""
    try:
        value = canonical.loads(record.data)
        if not isinstance(value, dict):
            raise InvalidInputError(field="data", problem="not an object")  # noqa: TRY301  one place turns all into CorruptLogError
        value = upcast(record.kind, record.schema, value)
        cls: Any = CLASSES[record.kind]
        return _structurer(cls)(value)
    except Exception as exc:
        raise CorruptLogError(
            position=record.position, stream=record.stream, problem=_problem(exc)
        ) from exc


def verify(record: Record) -> bool:
    """True if the stored hash is the hash of what is stored."""
    r = record
    data = envelope(r.stream, r.version, r.kind, r.schema, r.at, r.data)
    return canonical.event_hash(data) == r.hash


def _problem(exc: Exception) -> str:
    if isinstance(exc, KeyError):
        return f"unknown event kind {exc}"
    if isinstance(exc, InvalidInputError):
        return str(exc)
    return "; ".join(transform_error(exc))


# --- cattrs, one converter for this boundary alone -------------------------------


def _exact(cls: type) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        if type(value) is not cls:
            msg = f"expected {cls.__name__}, got {type(value).__name__}"
            raise TypeError(msg)
        return value

    return structure


def _integer(value: Any, _: Any) -> int:
    if type(value) is not int or abs(value) >= 2**53:
        msg = f"expected int under 2^53, got {value!r:.40}"
        raise TypeError(msg)
    return value


def _string(value: Any, cls: type[str]) -> str:
    """A hook for `str` is asked for its subclasses, the enums, too."""
    if type(value) is not str:
        msg = f"expected str, got {type(value).__name__}"
        raise TypeError(msg)
    return value if cls is str else cls(value)


def _array(converter: Converter) -> Callable[[Any], Callable[[Any, Any], Any]]:
    def factory(cls: Any) -> Callable[[Any, Any], Any]:
        item = cls.__args__[0]

        def structure(value: Any, _: Any) -> Any:
            if type(value) is not list:  # a string is a sequence too
                msg = f"expected list, got {type(value).__name__}"
                raise TypeError(msg)
            return tuple(converter.structure(v, item) for v in value)

        return structure

    return factory


@cache
def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True, omit_if_default=True)
    # By class: cattrs asks its own coercing hooks for primitives before any predicate.
    converter.register_structure_hook(int, _integer)
    converter.register_structure_hook(str, _string)
    converter.register_structure_hook(bool, _exact(bool))
    converter.register_structure_hook_factory(
        lambda cls: str(get_origin(cls)) == str(tuple), _array(converter)
    )
    return converter


# Hooks are built when a class is first used: importing the library stays quick.
@cache
def _structurer(cls: Any) -> Callable[[Any], Event]:
    hook = make_dict_structure_fn(cls, _converter(), _cattrs_forbid_extra_keys=True)
    return lambda value: hook(value, cls)
