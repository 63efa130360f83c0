"""Arguments checked by the annotations of the call that takes them.

For constructors and other calls that are made once in the life of a program. A call that
is made for each message checks by hand (`turnfold.messages`), which costs less.

    @checked
    def __init__(self, token: Word, *, name: Id = "x", poll_ms: Some = 30_000) -> None:

A wrong type or an impossible value raises InvalidInputError, whose `field` is the name of
the argument. The words of an enum become the enum. Sequences and mappings are copied, so
that a later change of them changes nothing. An annotation that stands in quotes, because
its type is optional, is not checked.
"""

import inspect
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import StrEnum
from functools import wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ParamSpec, TypeAlias, TypeVar, Union
from typing import get_args as args_of
from typing import get_origin as origin_of
from urllib.parse import urlsplit

from attrs import fields

from turnfold.errors import InvalidInputError
from turnfold.messages import (
    check_enum,
    check_id,
    check_ms,
    check_text,
    control_problem,
    shown,
    unreadable,
)
from turnfold.wrong_calls import wrong_call

_P = ParamSpec("_P")
_T = TypeVar("_T")
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def checked(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """The same function, which checks its arguments first. An argument too few or too
    many is a WrongCallError."""
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: _P.args, **named: _P.kwargs) -> _T:
        try:
            given = signature.bind(*args, **named)
        except TypeError as exc:
            raise (wrong_call(function, args, named) or exc) from None
        for name, value in given.arguments.items():
            parameter = signature.parameters[name]
            if parameter.kind not in _VARIADIC:
                given.arguments[name] = check(name, value, parameter.annotation)
        return function(*given.args, **given.kwargs)

    return call


def check_fields(made: Any) -> None:
    """The same for an attrs object, from its `__attrs_post_init__`."""
    for one in fields(type(made)):
        value = getattr(made, one.name)
        kept = check(one.name, value, one.type)
        if kept is not value:
            object.__setattr__(made, one.name, kept)


def check(field: str, value: Any, wanted: Any) -> Any:
    """The value as it is kept. Raises InvalidInputError if it is not what is wanted."""
    try:
        return _checked(field, value, wanted)
    except InvalidInputError:
        raise
    except Exception as exc:  # the value may be of a class of its own
        raise unreadable(field, exc) from exc


def _checked(field: str, value: Any, wanted: Any) -> Any:
    fitting = next((one for one in _options(wanted) if _is_kind(value, one)), _NOTHING)
    if fitting is _NOTHING:
        problem = (
            f"expected {_told(wanted)}, got {type(value).__name__}: {shown(value)}"
        )
        raise InvalidInputError(field=field, problem=problem)
    if origin_of(fitting) is Annotated:
        base, *checks = args_of(fitting)
        value = check(field, value, base)
        for one in checks:
            value = one(field, value)
        return value
    return _inner(field, value, fitting)


_NOTHING = object()  # None is an annotation, too


def _options(wanted: Any) -> tuple[Any, ...]:
    return args_of(wanted) if origin_of(wanted) in (Union, UnionType) else (wanted,)


def _is_kind(value: Any, wanted: Any) -> bool:
    """Is it of this type from outside? A bool is no number, and a text no sequence."""
    origin = origin_of(wanted)
    if origin is Annotated:
        return any(_is_kind(value, one) for one in _options(args_of(wanted)[0]))
    if wanted is None or wanted is NoneType:
        return value is None
    if wanted in (bool, int):
        return type(value) is wanted
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if origin is _CALLABLE:
        return callable(value)
    if origin is not None and issubclass(origin, Iterable):
        origin = list | tuple if origin is tuple else origin
        other = str | bytes if issubclass(origin_of(wanted), Mapping) else _NO_SEQUENCE
        return isinstance(value, origin) and not isinstance(value, other)
    return _is_instance(value, wanted)


_CALLABLE: Any = Callable


_NO_SEQUENCE: Any = str | bytes | Mapping
_ANYTHING: tuple[Any, ...] = (Any, object, inspect.Parameter.empty)


def _is_instance(value: Any, wanted: Any) -> bool:
    wanted = origin_of(wanted) or wanted
    if wanted in _ANYTHING or not isinstance(wanted, type):
        return True  # Any, a quoted annotation, no annotation
    if issubclass(wanted, StrEnum):
        return isinstance(value, str)
    if getattr(wanted, "_is_protocol", False):
        return _has_members(value, wanted)
    return isinstance(value, wanted)


def _has_members(value: Any, protocol: type) -> bool:
    """An instance with all methods of a protocol. Properties are not called, and an
    object that passes calls on to another one is taken as it is."""
    if isinstance(value, type):
        return False
    names = [name for name in dir(protocol) if not name.startswith("_")]
    known = all(
        inspect.getattr_static(value, name, _NOTHING) is not _NOTHING for name in names
    )
    return known or hasattr(type(value), "__getattr__")


def _inner(field: str, value: Any, wanted: Any) -> Any:
    """What its type does not tell yet."""
    if wanted is int:
        return check_ms(field, value)
    if wanted is float:
        return _number(field, value)
    if wanted is str:
        return _text(field, value)
    if isinstance(wanted, type) and issubclass(wanted, StrEnum):
        return check_enum(field, value, wanted)
    origin, inner = origin_of(wanted), args_of(wanted)
    if not isinstance(origin, type) or origin is _CALLABLE:
        return value
    if issubclass(origin, Mapping):
        return {
            check(field, key, inner[0]): check(f"{field}.{key!s:.80}", item, inner[1])
            for key, item in value.items()
        }
    if issubclass(origin, Iterable):
        return tuple(
            check(f"{field}[{at}]", item, inner[0]) for at, item in enumerate(value)
        )
    return value


def _number(field: str, value: Any) -> float:
    if not (value >= 0 and math.isfinite(value)):
        problem = f"expected a number of 0 or more, got {value}"
        raise InvalidInputError(field=field, problem=problem)
    return float(value)


def _text(field: str, value: Any) -> str:
    text = check_text(field, value)
    if "\0" in text:
        raise InvalidInputError(field=field, problem="NUL in text")
    return text


_WORDS: Mapping[Any, str] = {
    None: "None",
    NoneType: "None",
    int: "an int",
    float: "a number",
    bool: "True or False",
    str: "text",
}


def _told(wanted: Any) -> str:
    """An annotation in words."""
    if origin_of(wanted) is Annotated:
        return _told(args_of(wanted)[0])
    options = _options(wanted)
    if len(options) > 1:
        return " or ".join(dict.fromkeys(map(_told, options)))
    origin = origin_of(wanted)
    if origin is _CALLABLE:
        return "a function"
    if origin is not None:
        kind = "a mapping" if issubclass(origin, Mapping) else "a sequence"
        return f"{kind} of {_told(args_of(wanted)[-1 if kind == 'a mapping' else 0])}"
    return str(_WORDS.get(wanted) or getattr(wanted, "__name__", "something else"))


# --- Checks that an annotation may name: Annotated[str, check_id] ---


def _some(field: str, value: int) -> int:
    return check_ms(field, value, least=1)


def _word(field: str, value: str) -> str:
    if not value or not value.isprintable() or any(c.isspace() for c in value):
        problem = (
            "expected text without spaces and control characters; it may not be empty"
        )
        raise InvalidInputError(field=field, problem=problem)
    return value


def _port(field: str, value: int) -> int:
    if value > 65_535:
        raise InvalidInputError(field=field, problem="expected 0 to 65535")
    return value


def _line(field: str, value: str) -> str:
    problem = "" if value else "is empty"
    problem = problem or control_problem(value)
    if problem:
        raise InvalidInputError(field=field, problem=problem)
    return value


def _url(field: str, value: str) -> str:
    _word(field, value)
    try:
        parsed = urlsplit(value)
        whole = parsed.scheme in _SCHEMES and bool(parsed.hostname)
        whole = whole and parsed.port != 0  # reading a port that is none raises
    except ValueError:
        whole = False
    if not whole:
        problem = f"expected an address such as https://host/path, got {value!r:.80}"
        raise InvalidInputError(field=field, problem=problem)
    return value


_SCHEMES = ("http", "https", "ws", "wss")


def check_address(field: str, value: Any) -> Any:
    """The address of a store, or the store itself."""
    if isinstance(value, str | Path):
        _line(field, _text(field, str(value)))
    return value


Id: TypeAlias = Annotated[
    str, check_id
]  # 1 to 512 characters, none a control character
Word: TypeAlias = Annotated[str, _word]  # text without a space
Line: TypeAlias = Annotated[str, _line]  # text of one line
Url: TypeAlias = Annotated[str, _url]
Some: TypeAlias = Annotated[int, _some]  # 1 or more
Port: TypeAlias = Annotated[int, _port]  # 0: any that is free
Words: TypeAlias = Collection[Word]
