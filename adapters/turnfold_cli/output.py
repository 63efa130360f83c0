"""How results look: tables that fit, times people read, JSON that programs read.

Colours only on a terminal. What came from outside is data: no markup in it counts, and
its hidden characters are escaped, on the screen and in JSON (`turnfold.inspect.visible`).
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
import typer
from msgspec import Struct
from msgspec.structs import asdict
from rich.console import Console
from rich.table import Table
from rich.text import Text

from turnfold.inspect.visible import shown, shown_json

_PIPED_WIDTH = 200  # columns where there is no terminal
_TOO_LONG = 1000

_COLOURS = {
    "delivered": "green",
    "completed": "green",
    "failed": "red",
    "failed_terminal": "red",
    "parked": "magenta",
    "failed_retryable": "yellow",
    "attempted": "yellow",
}


def console(*, stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else _PIPED_WIDTH
    return Console(
        stderr=stderr, highlight=False, markup=False, emoji=False, width=width
    )


def say_json(value: object) -> None:
    """One JSON object on one line of stdout."""
    typer.echo(shown_json(json.dumps(plain(value), ensure_ascii=False)).encode())


def plain(value: object) -> Any:
    """attrs classes and Structs as dicts, bytes as hexadecimal; the rest as it is."""
    if isinstance(value, Struct):
        return {name: plain(item) for name, item in asdict(value).items()}
    if isinstance(value, type) or not attrs.has(type(value)):
        return value
    instance: Any = value
    return attrs.asdict(instance, value_serializer=_serialised)


def _serialised(_: object, __: object, value: object) -> object:
    return value.hex() if isinstance(value, bytes) else plain(value)


def clean(value: object) -> str:
    """Text on one line, with its hidden characters escaped."""
    text = "" if value is None else str(value)
    return shown(text[:_TOO_LONG]) + ("..." if len(text) > _TOO_LONG else "")


def status(word: object) -> Text:
    return Text(clean(word), style=_COLOURS.get(str(word), ""))


def when(ms: int | None, *, date: bool = True) -> str:
    """A wall time in the zone of whoever looks."""
    if ms is None:
        return ""
    try:
        local = datetime.fromtimestamp(ms / 1000, tz=UTC).astimezone()
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms"
    form = "%Y-%m-%d %H:%M:%S" if date else "%H:%M:%S"
    return f"{local.strftime(form)}.{ms % 1000:03}"


def span(ms: int) -> str:
    """A length of time, coarse enough to read: 350 ms, 12 s, 5 min, 3 h, 2 d."""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000)):
        if ms >= 2 * size:
            return f"{ms // size} {unit}"
    return f"{ms / 1000:.0f} s" if ms >= 1000 else f"{ms} ms"


def fitting(
    columns: Mapping[str, Callable[[Any], str | Text]],
    rows: Sequence[Any],
    *,
    width: int,
    drop: Sequence[str],
) -> Table:
    """A table of rows; columns in `drop` go, in that order, until the rest fits."""
    cells = {name: [get(row) for row in rows] for name, get in columns.items()}
    need = {
        name: max([len(name), *(len(str(cell)) for cell in column)]) + 2
        for name, column in cells.items()
    }
    for name in drop:
        if sum(need.values()) <= width:
            break
        need.pop(name, None)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in need:
        table.add_column(name, overflow="fold")
    for index in range(len(rows)):
        table.add_row(*(cells[name][index] for name in need))
    return table
