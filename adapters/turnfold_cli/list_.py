"""`turnfold list` and `turnfold turns`: what went out, and what came in."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from turnfold.enums import Phase, Status, TurnPhase
from turnfold.inspect import Filter, Page, Row
from turnfold_cli import USAGE
from turnfold_cli.common import (
    STORE,
    AsJson,
    RefusedError,
    StoreHere,
    StorePath,
    answering,
    ask,
    place_text,
)
from turnfold_cli.output import (
    age,
    console,
    plain,
    say_json,
    screen_of,
    when,
    zone_line,
)
from turnfold_cli.times import Since, Until, Utc, moment

_OF_ENTRIES = {*Status, *Phase}
Statuses = Annotated[
    list[str] | None, typer.Option("--status", help="One or more, as a,b.")
]
Name = Annotated[str | None, typer.Option(show_default=False)]
Kinds = Annotated[list[str] | None, typer.Option("--kind", help="final, block, ...")]
Reasons = Annotated[
    list[str] | None,
    typer.Option("--reason", help="expired, permission, ...: a reason or a failure."),
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000)]
Before = Annotated[
    int | None,
    typer.Option(min=1, help="The page after an earlier one: its `before`."),
]
Parked = Annotated[bool, typer.Option("--parked", help="In doubt; a person decides.")]
Dead = Annotated[bool, typer.Option("--dead", help="Ended without delivery.")]
Unseen = Annotated[bool, typer.Option("--unseen", help="A person is needed.")]
Held = Annotated[bool, typer.Option("--held", help="A person must let it run.")]
OpenOnly = Annotated[
    bool | None, typer.Option("--open/--closed", help="What may still move by itself.")
]


def list_(
    at: StoreHere = None,
    store: StorePath = STORE,
    parked: Parked = False,
    dead: Dead = False,
    unseen: Unseen = False,
    status: Statuses = None,
    reason: Reasons = None,
    kind: Kinds = None,
    channel: Name = None,
    account: Name = None,
    conversation: Name = None,
    turn: Name = None,
    open_: OpenOnly = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    before: Before = None,
    utc: Utc = False,  # noqa: ARG001  its callback has chosen the zone
    as_json: AsJson = False,
) -> None:
    """List what goes out (entries), newest first. Filters add up."""
    with answering(as_json=as_json):
        words = split("--status", status, {*_OF_ENTRIES, "parked"})
        words += ("parked",) * parked + (str(Status.FAILED_TERMINAL),) * dead
        want = Filter(
            what="entry",
            status=words,
            person=unseen or None,
            channel=channel,
            account=account,
            conversation=conversation,
            kind=split("--kind", kind),
            reason=split("--reason", reason),
            turn=None if turn is None else _turn(at or store, turn),
            open=open_,
            since=moment(since),
            until=moment(until, "--until"),
            before=before,
            limit=limit,
        )
        page = ask(at or store, lambda inspect: inspect.page(want))
        _print(page, _entry, as_json=as_json, one=len(set(words)) == 1)


def turns(
    at: StoreHere = None,
    store: StorePath = STORE,
    held: Held = False,
    status: Statuses = None,
    reason: Reasons = None,
    channel: Name = None,
    account: Name = None,
    conversation: Name = None,
    open_: OpenOnly = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    before: Before = None,
    utc: Utc = False,  # noqa: ARG001  its callback has chosen the zone
    as_json: AsJson = False,
) -> None:
    """List what came in (turns), newest first. Filters add up."""
    with answering(as_json=as_json):
        want = Filter(
            what="turn",
            status=split("--status", status, {*TurnPhase}),
            person=held or None,
            reason=split("--reason", reason),
            channel=channel,
            account=account,
            conversation=conversation,
            open=open_,
            since=moment(since),
            until=moment(until, "--until"),
            before=before,
            limit=limit,
        )
        page = ask(at or store, lambda inspect: inspect.page(want))
        _print(page, _turn_row, as_json=as_json, one=False)


def split(
    option: str, values: Sequence[str] | None, known: set[str] | None = None
) -> tuple[str, ...]:
    """The words of an option that may be repeated and may hold commas."""
    words = tuple(w.strip() for value in values or () for w in value.split(",") if w)
    odd = [word for word in words if known is not None and word not in known]
    if odd:
        there = ", ".join(sorted(map(str, known or ())))
        raise RefusedError(f"{option}: no {odd[0]!r}; there are: {there}", USAGE)
    return words


def _turn(address: str, wanted: str) -> str:
    return ask(address, lambda inspect: inspect.resolve(wanted))


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
    if page.before is not None:
        screen.print(f"more: the same with --before {page.before}", style="dim")


def _entry(row: Row) -> Mapping[str, str]:
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
    """The class of the failure says more than "permanent"; then who said what."""
    if row.status == "delivered":
        return row.words or ""
    names = [row.reason if row.reason != "permanent" else None, row.failure]
    cause = ", ".join(dict.fromkeys(name for name in names if name))
    return ": ".join(filter(None, (cause, row.words)))


def _turn_row(row: Row) -> Mapping[str, str]:
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
