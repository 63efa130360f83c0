"""The findings of the reference when a log breaks a rule, and the record that it reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Record: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that an event breaks. `rule` is an invariant or a word of specs/design.md.

    `stream` and `position` are filled by the checker of a whole log.
    """

    rule: str
    text: str
    stream: str = ""
    position: int = 0

    def __str__(self) -> str:
        where = f" at {self.position} in {self.stream}" if self.stream else ""
        return f"{self.rule}{where}: {self.text}"


class Breach(Exception):  # noqa: N818  not an error of ours: a finding about a log
    """Ends the check of one event; `legal` returns it as a Violation."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(rule, text)
        self.violation = Violation(rule, text)


def need(condition: bool, rule: str, text: str) -> None:
    """The rule is broken unless the condition holds."""
    if not condition:
        raise Breach(rule, text)


def whole(data: Record, name: str, least: int = 0) -> int:
    """An integer field that must be there."""
    value = data.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise Breach("field", f"{name} is {value!r}, not an integer from {least}")
    return value


def words(data: Record, name: str) -> str:
    """A text field that must be there and say something."""
    value = data.get(name)
    if not isinstance(value, str) or not value:
        raise Breach("field", f"{name} is {value!r}, not text")
    return value


def one_of(data: Record, name: str, allowed: frozenset[str]) -> str:
    """A text field with a closed set of values."""
    value = words(data, name)
    need(value in allowed, "field", f"{name} is {value!r}")
    return value


def texts(data: Record, name: str) -> tuple[str, ...]:
    """A list of texts; left out means empty."""
    value = data.get(name, ())
    if not isinstance(value, (list, tuple)) or not all(
        isinstance(item, str) for item in value
    ):
        raise Breach("field", f"{name} is {value!r}, not a list of texts")
    return tuple(value)
