"""Constructors that say what was wrong with their call: an argument that does not exist,
one by position that is taken by name, or one that is missing.

Python's own TypeError says so in terms of `__init__`. A WrongCallError is a TypeError,
too; it is an error of turnfold, which names the argument and what the class takes.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from turnfold.errors import WrongCallError

_P = ParamSpec("_P")
_T = TypeVar("_T")
_BY_NAME = inspect.Parameter.KEYWORD_ONLY
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def explained(cls: type[_T]) -> type[_T]:
    """The same class, whose wrong calls raise WrongCallError."""
    cls.__init__ = explained_call(cls.__init__)  # type: ignore[method-assign]  # that is the purpose
    return cls


def explained_call(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """The same for a function or a method."""

    @wraps(function)
    def call(*given: _P.args, **named: _P.kwargs) -> _T:
        try:
            return function(*given, **named)
        except TypeError as exc:
            wrong = wrong_call(function, given, named)
            if wrong is None:
                raise
            raise wrong from exc

    return call


def wrong_call(
    function: Callable[..., Any], given: tuple[Any, ...], named: Mapping[str, Any]
) -> WrongCallError | None:
    """What was wrong with a call; None if its arguments fit."""
    signature = inspect.signature(function)
    try:
        signature.bind(*given, **named)
    except TypeError:
        takes = list(signature.parameters.values())
        own = bool(takes and given) and takes[0].name == "self"
        name = function.__name__
        if own:
            name = f"{type(given[0]).__name__}.{name}".removesuffix(".__init__")
        return _told(name, takes[own:], len(given) - own, named)
    return None


def _told(
    name: str, takes: list[inspect.Parameter], given: int, named: Mapping[str, Any]
) -> WrongCallError:
    known = [one.name for one in takes]
    odd = next((one for one in named if one not in known), None)
    if odd is not None:
        return WrongCallError(field=odd, problem=_no_such(name, odd, known))
    placed = [one.name for one in takes if one.kind not in (_BY_NAME, *_VARIADIC)]
    twice = next((one for one in placed[:given] if one in named), None)
    if twice is not None:
        return WrongCallError(field=twice, problem=f"{name} got it twice")
    lacks = [one.name for one in takes if _is_needed(one) and one.name not in named]
    if given > len(placed):
        first = next((one for one in lacks if one not in placed), None)
        most = f"takes {len(placed)} argument(s) by position, got {given}"
        problem = f"{most}; pass the others by name: {_shown(name, takes)}"
        if first is None:
            return WrongCallError(field=name, problem=problem)
        return WrongCallError(field=first, problem=f"{name} {problem}")
    missing = next((one for one in lacks if one not in placed[:given]), name)
    problem = f"{name} needs it: {_shown(name, takes)}"
    return WrongCallError(field=missing, problem=problem)


def _no_such(name: str, odd: str, known: list[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  for this error only

    like = get_close_matches(odd, known, 1)
    meant = f"; did you mean {like[0]}? If not," if like else ";"
    return f"{name} has no such argument{meant} it takes: {', '.join(known)}"


def _is_needed(one: inspect.Parameter) -> bool:
    return one.default is one.empty and one.kind not in _VARIADIC


def _shown(name: str, takes: list[inspect.Parameter]) -> str:
    """The call with all that it needs, and `...` for the rest."""
    needed = [
        f"{one.name}=..." if one.kind is _BY_NAME else one.name
        for one in takes
        if _is_needed(one)
    ]
    return f"{name}({', '.join([*needed, '...'][:8])})"
