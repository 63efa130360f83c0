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


def identifier_problem(value: str) -> str:
    """What keeps a text from being an id; nothing if it may be one. Control characters
    (NUL, DEL and the C1 block, too) are in no platform's ids, and some databases and
    most terminals cannot take them."""
    if not value or len(value) > 512:
        return f"expected 1 to 512 characters, got {len(value)}"
    return control_problem(value)


def control_problem(value: str) -> str:
    if value.isascii() and value.isprintable():  # nearly all, at once
        return ""
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in value):
        return "control character"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return "lone surrogate in text"
    return ""


def a_name(field: str, value: Any) -> str:
    """An id: what `identifier_problem` finds nothing wrong with."""
    name = a_text(field, value)
    problem = identifier_problem(name)
    if problem:
        raise InvalidInputError(field=field, problem=problem)
    return name


def a_name_or_none(field: str, value: Any) -> str | None:
    return None if value is None else a_name(field, value)


def a_time(field: str, value: Any, *, least: int = 0) -> int:
    """Milliseconds, as a plain int; a bool is none."""
    if type(value) is not int:
        raise _wrong(field, "int", value)
    if not least <= value < _LIMIT_MS:
        raise InvalidInputError(field=field, problem=f"{value} is not in range")
    return value


def a_word(field: str, value: Any, words: type[Word]) -> Word:
    """One of a closed set of words, given as itself or as its text."""
    if type(value) is words:
        return value
    try:
        return words(value)
    except ValueError as exc:
        problem = f"{value!r:.80} is none of {', '.join(words)}"
        raise InvalidInputError(field=field, problem=problem) from exc


def _wrong(field: str, wanted: str, value: object) -> InvalidInputError:
    problem = f"expected {wanted}, got {type(value).__name__}"
    return InvalidInputError(field=field, problem=problem)
