"""Events to the bytes of a log record and back: exact types, unknown fields refused.

`events` of a record is a JSON array of `[kind, schema, data]`, each item in canonical
JSON. What cannot be read becomes CorruptLogError with its position; nothing else ever
comes out of here. Format: specs/log-format.md.
"""

from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha256
from typing import Any, get_origin

from cattrs import Converter, transform_error
from cattrs.gen import make_dict_structure_fn

from turnfold import canonical
from turnfold.errors import CorruptLogError, InvalidInputError
from turnfold.events import CLASSES, NAMES, SCHEMAS, Event
from turnfold.reading import Reader, reader
from turnfold.records import Record, envelope
from turnfold.upcasters import upcast
from turnfold.writing import writer_of

__all__ = ["Record"]


def encode(event: Event) -> bytes:
    """An event as an item of a record: `[kind, schema, data]` in canonical JSON.

    Raises ValueError or TypeError for a value that cannot be written.
    """
    front, writer = _STORED_AS[type(event)]
    return f"{front}{writer(event)}]".encode()


def record_of(
    items: Sequence[bytes],
    stream: str,
    version: int,
    at: int,
    position: int,
    wall: int | None = None,
) -> Record:
    """The record of what one commit says of one stream. `version`: of its last event."""
    events = b"[%b]" % b",".join(items)
    digest = sha256(envelope(stream, version, at, events, wall)).digest()
    return Record(position, stream, version, len(items), at, events, digest, wall)


_Form = tuple[str, Callable[[Any], str]]


class _StoredAs(dict[Any, _Form]):
    """The beginning of the item and the writer of its data, by class; made on first
    use: importing the library stays quick."""

    def __missing__(self, cls: Any) -> _Form:
        kind = NAMES[cls]
        schema = SCHEMAS[kind]
        made = self[cls] = (f'["{kind}",{schema},', writer_of(cls))
        return made


_STORED_AS = _StoredAs()


def decode(record: Record) -> tuple[Event, ...]:
    """The events in a record. Its hash is the audit's business, not checked here."""
    try:
        items = _items(record.events)
        if len(items) != record.count:
            problem = f"{len(items)} events where {record.count} belong"
            raise InvalidInputError(field="events", problem=problem)  # noqa: TRY301  one place turns all into CorruptLogError
        return tuple([_event(*item) for item in items])
    except Exception as exc:
        raise CorruptLogError(
            position=record.position, stream=record.stream, problem=_problem(exc)
        ) from exc


def _items(data: bytes) -> list[tuple[str, int, Any]]:
    value = canonical.loads(data)
    good = isinstance(value, list) and all(
        isinstance(item, list)
        and len(item) == 3
        and type(item[0]) is str
        and type(item[1]) is int
        and isinstance(item[2], dict)
        for item in value
    )
    if not good:
        raise InvalidInputError(field="events", problem="not [kind, schema, data]")
    return [tuple(item) for item in value]


def _event(kind: str, schema: int, data: Any) -> Event:
    newest, quick = _QUICK.get(kind) or _quick(kind)
    found: Event | None = quick(canonical.dumps(data)) if schema == newest else None
    if found is not None:
        return found
    cls: Any = CLASSES[kind]
    return _structurer(cls)(upcast(kind, schema, data))


_QUICK: dict[str, tuple[int, Reader]] = {}  # kinds seen: newest schema and its reader


def _quick(kind: str) -> tuple[int, Reader]:
    cls: Any = CLASSES.get(kind)
    if cls is None:  # the strict reader says so
        return -1, bytes
    return _QUICK.setdefault(kind, (SCHEMAS[kind], reader(cls)))


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
