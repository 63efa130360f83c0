"""Reading a transition table, the same for every machine."""

from collections.abc import Mapping
from typing import Any

from turnfold._log.events import NAMES
from turnfold.errors import IllegalTransitionError

Row = Mapping[type[Any], frozenset[Any]]


def targets(
    table: Mapping[Any, Row], phase: Any, event: type[Any], stream: str
) -> frozenset[Any]:
    """The phases that `event` may lead to from `phase`; raises if there is none."""
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
