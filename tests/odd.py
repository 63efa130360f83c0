"""Values that no caller should pass, and which of them an annotation lets through.

Read from the signature alone: a new argument is tried without a change of any test. The
judgement is written anew here and shares nothing with `turnfold.arguments`.
"""

import inspect
import math
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from types import NoneType, UnionType
from typing import Any

ODD: tuple[Any, ...] = (
    None,
    "",
    " ",
    "no such word",
    "sur\udcffogate",
    "nul\0nul",
    "x" * 100_000,
    -1,
    0,
    10**30,
    -(10**30),
    1.5,
    float("nan"),
    float("inf"),
    True,
    b"bytes",
    [],
    {},
    ["sur\udcffogate"],
    {"a": object()},
    object(),
    Exception,
    Exception("no argument"),
)


def parameters(call: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    """Those that a caller names. Several at once (`*payloads`) count as one of them."""
    for one in inspect.signature(call).parameters.values():
        if one.kind is not one.VAR_KEYWORD and one.name != "self":
            yield one


def fits(value: Any, wanted: Any) -> bool:
    """Is it of the type, and possible at all? A bool is no number; a number is finite
    and below 2^53; a text has no lone surrogate; an enum has its words only."""
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is typing.Annotated:
        return fits(value, inner[0])
    if origin in (typing.Union, UnionType):
        return any(fits(value, one) for one in inner)
    if wanted is Any or wanted is object or isinstance(wanted, str):
        return True
    if wanted in (None, NoneType):
        return value is None
    if wanted in (int, float):
        kinds = (int,) if wanted is int else (int, float)
        return type(value) in kinds and math.isfinite(value) and 0 <= value < 2**53
    if wanted is str:
        return isinstance(value, str) and encodes(value)
    if origin is Callable:
        return callable(value)
    return _of_class(value, wanted, origin, inner)


def _of_class(value: Any, wanted: Any, origin: Any, inner: tuple[Any, ...]) -> bool:
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items()
        )
    if isinstance(origin, type) and issubclass(origin, Iterable):
        several = isinstance(value, Iterable) and not isinstance(value, str | bytes)
        return several and all(fits(one, inner[0]) for one in value)
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return value in list(wanted)
    if getattr(wanted, "_is_protocol", False):
        return False  # none of these has the methods of a protocol
    return isinstance(value, origin or wanted)


def encodes(text: str) -> bool:
    """Has the text no lone surrogate?"""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
