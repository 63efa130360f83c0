"""Old schemas of events raised to the newest, one version at a time, as plain dicts.

Only the newest class of an event exists in code. An upcaster from version n to n+1
stands in UPCASTERS under (kind, n) and is never changed once released.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from turnfold.errors import InvalidInputError
from turnfold.events import SCHEMAS

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

UPCASTERS: Mapping[tuple[str, int], Upcaster] = MappingProxyType({})


def upcast(
    kind: str,
    schema: int,
    value: dict[str, Any],
    upcasters: Mapping[tuple[str, int], Upcaster] = UPCASTERS,
    schemas: Mapping[str, int] = SCHEMAS,
) -> dict[str, Any]:
    """Raise `value` from `schema` to the newest schema of its kind."""
    newest = schemas[kind]
    if not 1 <= schema <= newest:
        problem = f"schema {schema} of {kind} is not known here (1 to {newest})"
        raise InvalidInputError(field="schema", problem=problem)
    for version in range(schema, newest):
        value = upcasters[kind, version](value)
    return value
