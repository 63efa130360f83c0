"""The output of results: tables that fit, times for people, JSON for programs.

Colours only on a terminal. Foreign text is data: its markup has no effect, and its
hidden characters are escaped, on the screen and in JSON (`turnfold.visible`).
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime, tzinfo
from typing import Any

import attrs
import typer
from msgspec import Struct
from msgspec.structs import asdict
from rich.cells import cell_len, set_cell_size

from turnfold.visible import shown, shown_json
from turnfold_cli.screen import Line, Screen

_TOO_LONG = 1000
_LEAST = 8  # the least columns of a cell
_DAY_MS = 86_400_000

ZONE: ContextVar[tzinfo | None] = ContextVar("zone", default=None)

_COLOURS = {
    "delivered": "green",
    "completed": "green",
    "failed": "red",
    "failed_terminal": "red",
    "parked": "magenta",
    "failed_retryable": "yellow",
    "attempted": "yellow",
}


def say_json(value: object) -> None:
    """One JSON object on one line of stdout."""
    typer.echo(to_json(value).encode())


def to_json(value: object) -> str:
    """JSON on one line, with hidden characters escaped."""
    return shown_json(json.dumps(plain(value), ensure_ascii=False))


def plain(value: object) -> Any:
    """attrs classes and Structs as dicts, bytes as hexadecimal; other values
    unchanged."""
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


def cut(text: str, width: int) -> str:
    """The text in at most `width` columns; two dots mark a cut."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 2)).rstrip() + ".."[: max(0, width)]


def columns(
    rows: Sequence[Mapping[str, str]],
    *,
    width: int,
    give: Sequence[str] = (),
    drop: Sequence[str] = (),
) -> Iterator[Line]:
    """Rows as lines that fit, with a header. If they are too wide, the columns `drop`
    are left out in that order, then those of `give` are cut, each to its share. Columns
    that are empty in every row are left out; `id` is the last one."""
    shown_ = [{name: clean(cell) for name, cell in row.items()} for row in rows]
    names = [name for name in shown_[0] if any(row[name] for row in shown_)]
    need = {n: max(cell_len(n), *(cell_len(r[n]) for r in shown_)) for n in names}
    for name in drop:
        if _total(need) <= width:
            break
        need.pop(name, None)
    _shrink(need, [name for name in give if name in need], width)
    yield Line().and_(_line(need, {name: name for name in need}), "bold")
    for row in shown_:
        yield _styled(_line(need, {n: cut(row[n], need[n]) for n in need}), row)


def _styled(line: str, row: Mapping[str, str]) -> Line:
    word = row.get("status", "")
    if word not in _COLOURS or word not in line:
        return Line().and_(line)
    before, _, after = line.partition(word)
    return Line().and_(before).and_(word, _COLOURS[word]).and_(after)


def _total(need: Mapping[str, int]) -> int:
    return sum(need.values()) + 2 * (len(need) - 1)


def _shrink(need: dict[str, int], give: Sequence[str], width: int) -> None:
    """Narrow the widest column of `give`, down to a minimum, until the line fits."""
    while give and _total(need) > width:
        widest = max(give, key=lambda name: need[name])
        if need[widest] <= _LEAST:
            return
        need[widest] -= 1


def _line(need: Mapping[str, int], row: Mapping[str, str]) -> str:
    cells = (row[n] + " " * (need[n] - cell_len(row[n])) for n in need)
    return "  ".join(cells).rstrip()


def screen_of(rows: Sequence[Mapping[str, str]], screen: Screen, **how: Any) -> None:
    """Print rows; see `columns`."""
    for line in columns(rows, width=screen.width, **how):
        screen.print(line, soft_wrap=True)


def steps(screen: Screen, commands: Sequence[tuple[str, str]]) -> None:
    """The options of a person, a line each, with the command to type at its end."""
    wide = max((cell_len(text) for text, _ in commands), default=0)
    for text, command in commands:
        gap = " " * (wide - cell_len(text) + 2)
        line = f"  {clean(text)}{gap}{clean(command)}"
        if cell_len(line) > screen.width:
            screen.print(f"  {clean(text)}")
            line = f"    {clean(command)}"
        screen.print(line, soft_wrap=True)


# --- times ---


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def zone() -> tzinfo | None:
    """The time zone of printed times; None is the local one."""
    return ZONE.get()


def zone_line() -> str:
    here = datetime.now(UTC).astimezone(zone())
    return f"times: {here.tzname()} ({here.strftime('%z')})"


def when(ms: int | None, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    if ms is None:
        return ""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone()).strftime(form)
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms"


def clock(ms: int | None) -> str:
    """The time of the day, for lines under their date."""
    return when(ms, "%H:%M:%S")


def until(ms: int | None) -> str:
    """A future time: the time of the day, or the date if it is on a later day."""
    if ms is None:
        return ""
    return when(ms, "%Y-%m-%d") if ms - now_ms() > _DAY_MS else clock(ms)


def day(ms: int) -> str:
    return when(ms, "%a %Y-%m-%d")


def span(ms: int) -> str:
    """A length of time in one unit: 350 ms, 12 s, 5 min, 3 h, 2 d."""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000)):
        if ms >= 2 * size:
            return f"{ms // size} {unit}"
    return f"{ms / 1000:.0f} s" if ms >= 1000 else f"{ms} ms"


def age(ms: int | None) -> str:
    """The time since then."""
    return "" if ms is None else span(max(0, now_ms() - ms))
