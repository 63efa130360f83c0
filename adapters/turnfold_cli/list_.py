"""`turnfold list` and `turnfold turns`: outgoing entries and inbound turns."""

from collections.abc import Mapping
from typing import Annotated

import typer
from attrs import evolve

from turnfold.inspect import Page, Row
from turnfold_cli.common import (
    STORE,
    UNDER_WAY,
    AsJson,
    StoreHere,
    StorePath,
    answering,
    ask,
    place_text,
)
from turnfold_cli.filters import ENTRIES, TIMES, TURNS, Wanted, filtered
from turnfold_cli.output import age, plain, say_json, screen_of, when, zone_line
from turnfold_cli.screen import console
from turnfold_cli.times import Utc

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000)]
Before = Annotated[
    int | None, typer.Option(min=1, help="The page after an earlier one: its `before`.")
]


@filtered(*ENTRIES, "open_", *TIMES)
def list_(
    want: Wanted,
    at: StoreHere = None,
    store: StorePath = STORE,
    limit: Limit = 50,
    before: Before = None,
    utc: Utc = False,  # noqa: ARG001  its callback has chosen the zone
    as_json: AsJson = False,
) -> None:
    """List what goes out (entries), newest first. Filters add up."""
    with answering(as_json=as_json):
        question = want.filter(at or store, limit=limit, before=before)
        page = ask(at or store, lambda inspect: inspect.page(question))
        _print(page, entry_cells, as_json=as_json, one=len(set(want.words)) == 1)


@filtered(*TURNS, "open_", *TIMES)
def turns(
    want: Wanted,
    at: StoreHere = None,
    store: StorePath = STORE,
    limit: Limit = 50,
    before: Before = None,
    utc: Utc = False,  # noqa: ARG001  its callback has chosen the zone
    as_json: AsJson = False,
) -> None:
    """List what came in (turns), newest first. Filters add up."""
    with answering(as_json=as_json):
        about = evolve(want, turns=True)
        question = about.filter(at or store, limit=limit, before=before)
        page = ask(at or store, lambda inspect: inspect.page(question))
        _print(page, turn_cells, as_json=as_json, one=False)


def _print(page: Page, cells: object, *, as_json: bool, one: bool) -> None:
    if as_json:
        rows = [plain(row) for row in page.rows]
        say_json({"rows": rows, "more": page.before is not None, "before": page.before})
        return
    screen = console()
    if not page.rows:
        screen.print("nothing that fits")
        return
    assert callable(cells)  # noqa: S101  one of the two below
    rows_ = [cells(row) for row in page.rows]
    if one:
        for row in rows_:
            row["status"] = ""
    screen.print(zone_line(), style="dim")
    drop = ("kind", "expires", "updated", "created")
    screen_of(rows_, screen, give=("why", "words", "to"), drop=drop)
    waits = next((row for row in page.rows if row.person), None)
    if waits is not None:
        screen.print(f"next: turnfold show {waits.short}  (what can be done, and how)")
    if page.before is not None:
        screen.print(f"more: the same with --before {page.before}", style="dim")


def entry_cells(row: Row) -> Mapping[str, str]:
    """An entry as cells of a table."""
    return {
        "age": age(row.created),
        "status": row.status,
        "to": place_text(row.channel, row.account, row.conversation),
        "kind": row.kind or "",
        "why": _why(row),
        "created": when(row.created),
        "updated": when(row.updated),
        "expires": when(row.expires) if row.open else "",
        "id": row.short,
    }


def _why(row: Row) -> str:
    """Why an entry is not delivered: the failure class is more precise than
    "permanent"; then the error text."""
    if row.status == "delivered":
        return row.words or ""
    names = [row.reason if row.reason != "permanent" else None, row.failure]
    names.append(None if row.under_way is None else UNDER_WAY[row.under_way])
    cause = ", ".join(dict.fromkeys(name for name in names if name))
    return ": ".join(filter(None, (cause, row.words)))


def turn_cells(row: Row) -> Mapping[str, str]:
    """A turn as cells of a table."""
    return {
        "age": age(row.created),
        "status": row.status,
        "from": place_text(row.channel, row.account, row.conversation),
        "why": row.failure or "",
        "words": row.words or "",
        "created": when(row.created),
        "updated": when(row.updated),
        "id": row.short,
    }
