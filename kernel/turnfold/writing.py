"""Events to canonical JSON, exactly typed: the writing half of the codec.

A writer is generated once per class from its attrs fields, as attrs generates its own
methods: straight code, in the order of canonical JSON. A field at its default is left
out; a value of any other type than the declared one is refused, so that what is written
can be read. (The other half is reading.py, and cattrs where that gives up. See
specs/decisions/0011, 0013 and 0014.)
"""

from collections.abc import Callable, Iterator
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


@cache
def writer_of(cls: Any) -> _Writer:
    """What writes the data of events, or of parts of events, of one class. It raises
    InvalidInputError that names class and field."""
    names: dict[str, Any] = {
        "encode": encode_basestring,
        "text": _text,
        "texts": _texts,
        "integer": _integer,
        "wrong": _wrong,
        "Wrong": _WrongTypeError,
        "refused": _refused,
    }
    body = [line for a, hint in _fields(cls) for line in _field(a, hint, names)]
    exec("\n".join([*_HEAD, *body, *_TAIL]), names)  # noqa: S102  names of our own classes, nothing from outside
    writer: _Writer = names["writer"]
    return writer


def _fields(cls: Any) -> list[tuple[Any, Any]]:
    """The attributes of a class and their types, in the order of canonical JSON."""
    hints = get_type_hints(cls)
    fields = sorted(attrs.fields(cls), key=lambda field: field.name)
    return [(field, hints[field.name]) for field in fields]


_HEAD = (
    "def writer(event):",
    "    out = ''",
    "    try:",
)
_TAIL = (
    "    except Wrong:",
    "        raise refused(event) from None",
    "    return '{' + out[1:] + '}'",
)


def _field(a: Any, hint: Any, names: dict[str, Any]) -> Iterator[str]:
    """The lines that write one field, unless it is at its default."""
    default = names[f"default_{a.name}"] = a.default
    yield f"        value = event.{a.name}"
    test = f"value is not default_{a.name}"
    if type(default) in (int, str, tuple):  # an equal value may be another object
        kind = type(default).__name__
        test += f" and (value != default_{a.name} or type(value) is not {kind})"
    yield f"        if {test}:"
    yield f"            out += ',\"{a.name}\":' + ({_inline(a, hint, names)})"


def _inline(a: Any, hint: Any, names: dict[str, Any]) -> str:
    """An expression for the types that most fields have. They call a function only
    for what is unusual, mostly to have it refused."""
    if a.default is None and get_origin(hint) is UnionType:
        (hint,) = (arg for arg in get_args(hint) if arg is not NoneType)
    if hint is str:
        return "encode(value) if type(value) is str else text(value)"
    if hint is int:
        fits = f"type(value) is int and -{_LIMIT} < value < {_LIMIT}"
        return f"str(value) if {fits} else integer(value)"
    if hint is bool:
        return "'true' if value is True else 'false' if value is False else wrong()"
    if hint == tuple[str, ...]:
        return "texts(value)"
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        names[f"cls_{a.name}"], names[f"words_{a.name}"] = hint, _words(hint)
        # it would equal a plain text
        return f"words_{a.name}[value] if type(value) is cls_{a.name} else wrong()"
    names[f"write_{a.name}"] = _writer(hint)
    return f"write_{a.name}(value)"


def _wrong() -> str:
    raise _WrongTypeError


def _refused(event: Any) -> InvalidInputError:
    """The error that names the first field that cannot be written."""
    for a, hint in _fields(type(event)):
        value = getattr(event, a.name)
        try:
            _writer(hint)(value)
        except _WrongTypeError:
            name = f"{type(event).__name__}.{a.name}"
            return InvalidInputError(
                field=name, problem=f"cannot be stored: {value!r:.80}"
            )
    raise AssertionError(event)


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


def _texts(value: Any) -> str:
    if type(value) is not tuple:
        raise _WrongTypeError
    if len(value) == 1 and type(value[0]) is str:  # nearly all
        return f"[{encode_basestring(value[0])}]"
    return "[" + ",".join([_text(item) for item in value]) + "]"


def _flag(value: Any) -> str:
    if type(value) is not bool:
        raise _WrongTypeError
    return "true" if value else "false"


def _integer(value: Any) -> str:
    if type(value) is not int or not -_LIMIT < value < _LIMIT:
        raise _WrongTypeError
    return str(value)


def _words(cls: type[StrEnum]) -> dict[StrEnum, str]:
    return {word: encode_basestring(word.value) for word in cls}


def _word(cls: type[StrEnum]) -> _Writer:
    words = _words(cls)

    def writer(value: Any) -> str:
        if type(value) is not cls:  # it would equal a plain text
            raise _WrongTypeError
        return words[value]

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
    written = writer_of(cls)

    def writer(value: Any) -> str:
        if type(value) is not cls:
            raise _WrongTypeError
        return written(value)

    return writer
