"""The Python twins of the TLA+ modules, and the search that counts their states.

A twin is written by hand from its module, action by action under the same names. It
and TLC must find the same number of distinct states: two readings of one text, by two
programs, with the same result.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from turnfold_model import twin_entry, twin_lane, twin_turn

Constants: TypeAlias = Mapping[str, Any]
Steps: TypeAlias = Callable[[Any, Any], Iterator[tuple[str, Any]]]


@dataclass(frozen=True, slots=True)
class Twin:
    """One module: where it begins, what may happen, what must hold."""

    start: Callable[[Any], Hashable]
    steps: Steps
    wrong: Callable[[Any, Any], str]
    actions: frozenset[str]


@dataclass(slots=True)
class Count:
    """What the search of one twin found."""

    distinct: int = 0
    fired: set[str] = field(default_factory=set)
    broken: str = ""


TWINS: Final[Mapping[str, Twin]] = MappingProxyType(
    {
        module.MODULE: Twin(module.start, module.steps, module.wrong, module.ACTIONS)
        for module in (twin_entry, twin_turn, twin_lane)
    }
)


def count(module: str, constants: Constants) -> Count:
    """All states of a twin; ends at the first invariant that breaks."""
    twin, result = TWINS[module], Count()
    start = twin.start(constants)
    seen, todo = {start}, [start]
    while todo:
        state = todo.pop()
        result.broken = twin.wrong(constants, state)
        if result.broken:
            break
        for name, after in twin.steps(constants, state):
            result.fired.add(name)
            if after not in seen:
                seen.add(after)
                todo.append(after)
    result.distinct = len(seen)
    return result
