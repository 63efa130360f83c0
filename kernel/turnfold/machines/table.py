"""How a transition table is asked, the same for every machine."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

import attrs

from turnfold.errors import IllegalTransitionError
from turnfold.events import NAMES

_T = TypeVar("_T")
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
    source = ["def copy(old):", "    new = make(cls)"]
    source += [f"    new.{a.name} = old.{a.name}" for a in fields]
    names: dict[str, Any] = {"make": object.__new__, "cls": cls}
    exec("\n".join([*source, "    return new"]), names)  # noqa: S102  our own names
    copy: Callable[[_T], _T] = names["copy"]
    return copy


def assign(state: Any, **changes: Any) -> None:
    """Set fields of a state that is being made."""
    for name, value in changes.items():
        setattr(state, name, value)
