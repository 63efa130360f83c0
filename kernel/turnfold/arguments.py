"""Arguments of public methods, checked at the call that brought them."""

from enum import StrEnum
from typing import Any, TypeVar

from turnfold.errors import InvalidInputError

Word = TypeVar("Word", bound=StrEnum)
_LIMIT_MS = 2**53  # what the log can carry


def a_text(field: str, value: Any, *, empty: bool = True) -> str:
    """A str that UTF-8 can carry."""
    if not isinstance(value, str):
        raise _wrong(field, "str", value)
    if not empty and not value:
        raise InvalidInputError(field=field, problem="is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as exc:
        problem = "lone surrogate in text"
        raise InvalidInputError(field=field, problem=problem) from exc
    return value


def a_time(field: str, value: Any, *, least: int = 0) -> int:
    """Milliseconds, as a plain int; a bool is none."""
    if type(value) is not int:
        raise _wrong(field, "int", value)
    if not least <= value < _LIMIT_MS:
        raise InvalidInputError(field=field, problem=f"{value} is not in range")
    return value


def a_word(field: str, value: Any, words: type[Word]) -> Word:
    """One of a closed set of words, given as itself or as its text."""
    try:
        return words(value)
    except ValueError as exc:
        problem = f"{value!r:.80} is none of {', '.join(words)}"
        raise InvalidInputError(field=field, problem=problem) from exc


def _wrong(field: str, wanted: str, value: object) -> InvalidInputError:
    problem = f"expected {wanted}, got {type(value).__name__}"
    return InvalidInputError(field=field, problem=problem)
