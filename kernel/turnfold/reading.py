"""The quick way to read an event: build it, write it again, compare the bytes.

Events that this library wrote come out of it; whatever is unusual in any way - another
type, an unknown field, a default that was spelled out, bytes that are not canonical -
comes out as nothing, and the strict reader of the codec says what it is. Comparing what
was written with what was stored proves types and canonical form in one go, so nothing
is checked twice. See specs/decisions/0013.
"""

import json
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import attrs

from turnfold.errors import InvalidInputError
from turnfold.events import Event
from turnfold.writing import write

_Builder = Callable[[Any], Any]
_decode = json.JSONDecoder().decode
# What broken or foreign data can make of building and writing.
_ODD = (TypeError, ValueError, KeyError, AttributeError, RecursionError)


def read(cls: Any, data: bytes) -> Event | None:
    """The event, if writing it gives just these bytes; else nothing."""
    try:
        event: Event = _record(cls)(_decode(data.decode()))
        same = write(event).encode() == data
    except (*_ODD, InvalidInputError):
        return None  # the strict reader says why
    return event if same else None


@cache
def _record(cls: Any) -> _Builder:
    hints = get_type_hints(cls)
    made = {a.name: _builder(hints[a.name]) for a in attrs.fields(cls)}
    builders = [(name, build) for name, build in made.items() if build is not None]

    def builder(value: dict[str, Any]) -> Any:
        for name, build in builders:
            if name in value:
                value[name] = build(value[name])
        return cls(**value)

    return builder


def _builder(hint: Any) -> _Builder | None:
    """None where JSON's value is the field's value."""
    if get_origin(hint) is UnionType:
        (other,) = (arg for arg in get_args(hint) if arg is not NoneType)
        return _optional(_builder(other))
    if get_origin(hint) is tuple:
        return _many(_builder(get_args(hint)[0]))
    if attrs.has(hint):
        return _record(hint)
    if issubclass(hint, StrEnum):
        return {word.value: word for word in hint}.__getitem__
    return None


def _optional(inner: _Builder | None) -> _Builder | None:
    if inner is None:
        return None
    return lambda value: None if value is None else inner(value)


def _many(inner: _Builder | None) -> _Builder:
    if inner is None:
        return tuple
    return lambda value: tuple([inner(item) for item in value])
