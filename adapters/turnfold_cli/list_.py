"""`turnfold list`: turns and entries by status, place, time, reason and kind."""

import asyncio
import re
import time
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer
from rich.text import Text

from turnfold.enums import Phase, Status, TurnPhase
from turnfold.inspect import Filter, Inspect, Row
from turnfold_cli import USAGE
from turnfold_cli.common import (
    STORE,
    AsJson,
    RefusedError,
    StorePath,
    answering,
    opened,
)
from turnfold_cli.output import clean, console, fitting, plain, say_json, status, when

_WORDS = {*Status, *TurnPhase, *Phase, "parked"}
_SPAN = re.compile(r"(\d+)(s|m|h|d)")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DROP = ("expires", "account", "updated", "kind", "reason", "to", "created")


class What(StrEnum):
    TURN = "turn"
    ENTRY = "entry"


StatusOption = Annotated[
    list[str] | None,
    typer.Option("--status", help="queued, parked, failed_terminal, answered, ..."),
]
Window = Annotated[
    str | None, typer.Option(help="A time as 2026-01-31T12:00, or 90m, 2h, 7d ago.")
]
Name = Annotated[str | None, typer.Option()]
Names = Annotated[list[str] | None, typer.Option()]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1)]
OpenOnly = Annotated[
    bool | None, typer.Option("--open/--closed", help="What may still move by itself.")
]


def list_(
    store: StorePath = STORE,
    what: Annotated[What | None, typer.Option()] = None,
    status_: StatusOption = None,
    channel: Name = None,
    account: Name = None,
    conversation: Name = None,
    lane: Name = None,
    kind: Names = None,
    reason: Names = None,
    turn: Name = None,
    open_: OpenOnly = None,
    since: Window = None,
    until: Window = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List turns and entries, newest first. Filters add up; some may be repeated."""
    with answering(as_json=as_json):
        want = Filter(
            what=what,
            status=tuple(_known(word) for word in status_ or ()),
            channel=channel,
            account=account,
            conversation=conversation,
            lane=lane,
            kind=tuple(kind or ()),
            reason=tuple(reason or ()),
            turn=_stream(turn),
            open=open_,
            since=_time(since),
            until=_time(until),
            limit=limit + 1,
        )
        rows = asyncio.run(_rows(store, want))
        _print(rows[:limit], more=len(rows) > limit, as_json=as_json)


async def _rows(address: str, want: Filter) -> tuple[Row, ...]:
    async with opened(address) as store:
        return await Inspect(store).list(want)


def _print(rows: tuple[Row, ...], *, more: bool, as_json: bool) -> None:
    if as_json:
        say_json({"rows": [plain(row) for row in rows], "more": more})
        return
    screen = console()
    if not rows:
        screen.print("nothing that fits")
        return
    columns: dict[str, Callable[[Row], str | Text]] = {
        "id": lambda r: clean(r.id),
        "status": lambda r: status(r.status),
        "kind": lambda r: clean(r.kind),
        "to": lambda r: clean("/".join(filter(None, (r.channel, r.conversation)))),
        "account": lambda r: clean(r.account),
        "reason": lambda r: clean(r.reason),
        "created": lambda r: when(r.created),
        "updated": lambda r: when(r.updated, date=False),
        "expires": lambda r: when(r.expires),
    }
    screen.print(fitting(columns, rows, width=screen.width, drop=_DROP))
    if more:
        screen.print("more with --limit", style="dim")


def _known(word: str) -> str:
    if word not in _WORDS:
        known = ", ".join(sorted({*Status, *TurnPhase, "parked"}))
        raise RefusedError(f"--status {word}: there is only {known}", USAGE)
    return word


def _stream(turn: str | None) -> str | None:
    return turn if turn is None or turn.startswith("turn:") else f"turn:{turn}"


def _time(text: str | None) -> int | None:
    """Wall milliseconds from a time, or from how long ago it was."""
    if text is None:
        return None
    ago = _SPAN.fullmatch(text)
    if ago:
        return time.time_ns() // 1_000_000 - int(ago[1]) * _UNIT_MS[ago[2]]
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError, OSError) as exc:
        problem = f"{text!r} is no time: give 2026-01-31T12:00, or 90m, 2h, 7d"
        raise RefusedError(problem, USAGE) from exc
