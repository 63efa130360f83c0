"""Events to canonical JSON, exactly typed: the writing half of the codec.

Generated once per class from its attrs fields, in the order of canonical JSON. A field
at its default is left out; a value of any other type than the declared one is refused,
so that what is written can be read. (Reading is cattrs; this half is on the path of
every message, and an event written without being read back costs a fifth. See
specs/decisions/0011 and 0013.)
"""

from collections.abc import Callable
from enum import StrEnum
from functools import cache
from json.encoder import encode_basestring
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import attrs

from turnfold.errors import InvalidInputError

_Writer = Callable[[Any], str]
_LIMIT = 2**53


class _WrongTypeError(Exception):
    pass


def write(event: object) -> str:
    """The data of an event. Raises InvalidInputError that names class and field."""
    out = []
    cls: Any = type(event)
    for name, head, default, alike, writer in _fields(cls):
        value = getattr(event, name)
        if value is default:
            continue
        if alike and value == default and type(value) is type(default):
            continue
        try:
            out.append(head + writer(value))
        except _WrongTypeError:
            field = f"{cls.__name__}.{name}"
            problem = f"cannot be stored: {value!r:.80}"
            raise InvalidInputError(field=field, problem=problem) from None
    return "{" + ",".join(out) + "}"


@cache
def _fields(cls: Any) -> tuple[tuple[str, str, Any, bool, _Writer], ...]:
    """Name, how it begins, default, may an equal value be another object, writer."""
    hints = get_type_hints(cls)
    fields = sorted(attrs.fields(cls), key=lambda field: field.name)
    return tuple(
        (
            a.name,
            f'"{a.name}":',
            a.default,
            type(a.default) in (int, str, tuple),
            _writer(hints[a.name]),
        )
        for a in fields
    )


def _writer(hint: Any) -> _Writer:
    if get_origin(hint) is UnionType:
        (other,) = (arg for arg in get_args(hint) if arg is not NoneType)
        return _optional(_writer(other))
    if get_origin(hint) is tuple:
        return _many(_writer(get_args(hint)[0]))
    if attrs.has(hint):
        return _record(hint)
    if issubclass(hint, StrEnum):
        return _word(hint)
    if hint is str:
        return _text
    if hint is int:
        return _integer
    assert hint is bool, hint  # noqa: S101  no event has any other field
    return _flag


def _text(value: Any) -> str:
    """Text; a word of a closed set is text wherever any text may stand."""
    if isinstance(value, StrEnum):
        return encode_basestring(value.value)
    if type(value) is not str:
        raise _WrongTypeError
    return encode_basestring(value)


def _flag(value: Any) -> str:
    if type(value) is not bool:
        raise _WrongTypeError
    return "true" if value else "false"


def _integer(value: Any) -> str:
    if type(value) is not int or not -_LIMIT < value < _LIMIT:
        raise _WrongTypeError
    return str(value)


def _word(cls: type[StrEnum]) -> _Writer:
    def writer(value: Any) -> str:
        if type(value) is not cls:
            raise _WrongTypeError
        return encode_basestring(value.value)

    return writer


def _optional(inner: _Writer) -> _Writer:
    return lambda value: "null" if value is None else inner(value)


def _many(inner: _Writer) -> _Writer:
    def writer(value: Any) -> str:
        if type(value) is not tuple:
            raise _WrongTypeError
        return "[" + ",".join([inner(item) for item in value]) + "]"

    return writer


def _record(cls: type) -> _Writer:
    def writer(value: Any) -> str:
        if type(value) is not cls:
            raise _WrongTypeError
        return write(value)

    return writer
