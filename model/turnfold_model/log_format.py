"""The tables of specs/log-format.md, made from the event classes.

    python -m turnfold_model.log_format specs/log-format.md

writes them into the file between its markers; a test checks that they are current.
"""

import sys
import types
import typing
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from turnfold import enums
from turnfold._log.events import NAMES, SCHEMAS, PrunedCount
from turnfold._log.outbox_events import PlannedPart

BEGIN, END = "<!-- {}: made by turnfold_model.log_format -->", "<!-- /{} -->"
# Text that is the name of a body beside the log, not the text itself.
_BODIES = {"body", "detail", "why", "result"}


def events_table() -> str:
    """Every event with its fields, their types and defaults."""
    lines = [
        "| event | schema | field | type | when left out |",
        "|---|---|---|---|---|",
    ]
    for cls, name in NAMES.items():
        rows = list(_rows(cls))
        if not rows:
            lines.append(f"| `{name}` | {SCHEMAS[name]} | | | |")
        for index, row in enumerate(rows):
            first = f"`{name}` | {SCHEMAS[name]}" if index == 0 else " |"
            lines.append(f"| {first} | {row} |")
    lines += [f"| part | | {row} |" for row in _rows(PlannedPart)]
    lines += [f"| count | | {row} |" for row in _rows(PrunedCount)]
    return "\n".join(lines)


def words_table() -> str:
    """The closed sets of words that events use."""
    lines = ["| type | words |", "|---|---|"]
    for name, cls in sorted(vars(enums).items()):
        if isinstance(cls, type) and issubclass(cls, StrEnum) and name in _used():
            shown = ", ".join(f"`{word.value}`" for word in cls)
            lines.append(f"| {name} | {shown} |")
    return "\n".join(lines)


def _used() -> set[str]:
    classes: list[Any] = [*NAMES, PlannedPart]
    hints = [hint for cls in classes for hint in typing.get_type_hints(cls).values()]
    return {cls.__name__ for hint in hints for cls in _leaves(hint)}


def _leaves(hint: Any) -> Iterator[type]:
    inner = typing.get_args(hint)
    if not inner and isinstance(hint, type):
        yield hint
    for item in inner:
        yield from _leaves(item)


def _rows(cls: Any) -> Iterator[str]:
    hints = typing.get_type_hints(cls)
    for field in msgspec.structs.fields(cls):
        shown = _type(hints[field.name], field.name)
        yield f"`{field.name}` | {shown} | {_default(field.default)}"


def _type(hint: Any, field: str) -> str:
    inner = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        rest = [item for item in inner if item is not types.NoneType]
        return f"{_type(rest[0], field)} or null"
    if typing.get_origin(hint) is tuple:
        return f"array of {_type(inner[0], field)}"
    if hint in (PlannedPart, PrunedCount):
        return f"{'part' if hint is PlannedPart else 'count'} (see the end)"
    if issubclass(hint, StrEnum):
        return str(hint.__name__)
    if hint is str:
        return "body" if field in _BODIES else "text"
    return {int: "integer", bool: "boolean"}[hint]


def _default(value: Any) -> str:
    if value is msgspec.NODEFAULT:
        return "*must be there*"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if value == ():
        return "[]"
    return f"`{value}`"


TABLES = {"events": events_table, "words": words_table}


def renewed(text: str) -> str:
    """The text of the specification with its tables made anew."""
    for name, make in TABLES.items():
        begin, end = BEGIN.format(name), END.format(name)
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not found or not closed:
            msg = f"no markers for the table {name!r}"
            raise ValueError(msg)
        text = f"{head}{begin}\n{make()}\n{end}{tail}"
    return text


def main() -> None:
    path = Path(sys.argv[1])
    path.write_text(renewed(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
