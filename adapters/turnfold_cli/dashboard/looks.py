"""Rendering pages: tables, links, and values.

No expression of a template can put markup or a hidden character on a page: each value
is escaped twice, once for the eye (`turnfold.visible`) and once for HTML.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from attrs import field, frozen
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from turnfold_cli.dashboard.site import Site
from turnfold_cli.output import clean, zone_line

_HERE = Path(__file__).parent
STYLE = (_HERE / "style.css").read_bytes()
_TONES = {
    "delivered": "good",
    "completed": "good",
    "failed": "bad",
    "failed_terminal": "bad",
    "parked": "ask",
    "failed_retryable": "warn",
    "attempted": "warn",
}


@frozen(kw_only=True)
class Page:
    """The content of one address. `data`: the same as JSON, as on the command line.
    `facts`: for the template."""

    template: str
    title: str
    data: Mapping[str, Any]
    facts: Mapping[str, Any] = field(factory=dict)
    status: int = 200
    moves: bool = True  # may reload itself: it has no input fields


@frozen
class Cell:
    text: str
    href: str | None = None
    tone: str = ""
    bar: float | None = None  # a share of the longest bar


@frozen
class Table:
    names: Sequence[str]
    rows: Sequence[Sequence[tuple[str, Cell]]]


def table(
    rows: Iterable[Mapping[str, str | Cell]], *, leave: Sequence[str] = ()
) -> Table:
    """Rows of text, without columns that are empty in every row."""
    whole = [
        {
            name: cell if isinstance(cell, Cell) else _cell(name, cell)
            for name, cell in row.items()
        }
        for row in rows
    ]
    names = [
        name
        for name in (whole[0] if whole else ())
        if name not in leave and any(row[name].text or row[name].bar for row in whole)
    ]
    return Table(names, [[(name, row[name]) for name in names] for row in whole])


def _cell(name: str, text: str) -> Cell:
    return Cell(text, tone=_TONES.get(text, "") if name == "status" else "")


def link(path: str, query: Mapping[str, Any] | None = None) -> str:
    """An address of the site. Empty parameters are left out."""
    given = {
        name: value
        for name, value in (query or {}).items()
        if value not in (None, "", ())
    }
    words = urlencode(given, doseq=True, errors="backslashreplace")
    return f"{path}?{words}" if words else path


def _as_data(value: object) -> object:
    return value if isinstance(value, Markup) else clean(value)


def environment(site: Site) -> Environment:
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_as_data,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(
        site=site,
        zone=zone_line,
        at=lambda path, **query: site.prefix + link(path, query),
    )
    return made
