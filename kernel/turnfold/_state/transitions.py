"""How a transition table is asked, the same for every machine."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

import attrs

from turnfold._log.events import NAMES
from turnfold.errors import IllegalTransitionError

_T = TypeVar("_T")
_NONE: Any = attrs.NOTHING
Row = Mapping[type[Any], frozenset[Any]]


def targets(
    table: Mapping[Any, Row], phase: Any, event: type[Any], stream: str
) -> frozenset[Any]:
    """The phases that `event` may lead to from `phase`; raises when there is none."""
    row = table[phase]
    try:
        return row[event]
    except KeyError:
        raise illegal(table, phase, event, stream) from None


def illegal(
    table: Mapping[Any, Row], phase: Any, event: type[Any], stream: str
) -> IllegalTransitionError:
    legal = ", ".join(sorted(NAMES[cls] for cls in table[phase])) or "nothing"
    name = "nothing" if phase is None else str(phase)
    return IllegalTransitionError(
        stream=stream, phase=name, event=NAMES[event], legal=legal
    )


@cache
def copier(cls: type[_T]) -> Callable[[_T], _T]:
    """What copies a state field by field: a third of the time that its constructor
    takes with so many names. Generated on first use."""
    fields: Any = attrs.fields(cls)  # type: ignore[arg-type]  # all states are
    return _made(cls, {a.name: f"old.{a.name}" for a in fields})


@cache
def beginner(cls: type[_T], first: type[Any]) -> Callable[[Any], Any]:
    """What makes a new state of its first event: the fields that both have are the
    event's, others are at their default. Those without one are still to be set."""
    fields: Any = attrs.fields(cls)  # type: ignore[arg-type]  # all states are
    known = {a.name for a in attrs.fields(first)}
    values = {a.name: f"default_{a.name}" for a in fields if a.default is not _NONE}
    defaults = {values[a.name]: a.default for a in fields if a.name in values}
    own = {a.name: f"old.{a.name}" for a in fields if a.name in known}
    return _made(cls, values | own, **defaults)


def _made(cls: type[_T], values: Mapping[str, str], **names: Any) -> Callable[..., _T]:
    source = ["def make(old):", "    new = blank(cls)"]
    source += [f"    new.{name} = {value}" for name, value in values.items()]
    names |= {"blank": object.__new__, "cls": cls}
    exec("\n".join([*source, "    return new"]), names)  # noqa: S102  our own names
    made: Callable[..., _T] = names["make"]
    return made


def assign(state: Any, **changes: Any) -> None:
    """Set fields of a state that is being made."""
    for name, value in changes.items():
        setattr(state, name, value)
