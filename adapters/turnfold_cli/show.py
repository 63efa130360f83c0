"""`turnfold show ID`: one timeline in plain words, and what happens next."""

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from turnfold.inspect import (
    AttemptView,
    CommandView,
    EntryView,
    EventView,
    InboundView,
    Inspect,
    LedgerView,
    Next,
    PartView,
    TurnView,
    View,
)
from turnfold_cli.common import (
    STORE,
    AsJson,
    StorePath,
    answering,
    opened,
    worker_lives,
)
from turnfold_cli.output import clean, console, plain, say_json, span, status, when

Id = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="Id of a turn, entry or gate (its beginning will do), or a message id.",
    ),
]


def show(wanted: Id, store: StorePath = STORE, as_json: AsJson = False) -> None:
    """Tell what happened to one message, turn or entry, and what happens next."""
    with answering(as_json=as_json):
        view = asyncio.run(_view(store, wanted))
        if as_json:
            say_json({"what": _what(view)} | plain(view))
        else:
            _print(console(), view)


async def _view(address: str, wanted: str) -> View:
    async with opened(address) as store:
        alive = await worker_lives(store)
        return await Inspect(store, alive=lambda: alive).show(wanted)


def _print(screen: Console, view: View) -> None:
    match view:
        case TurnView():
            _turn(screen, view)
            _waiting(screen, view.waiting)
        case EntryView():
            _entry(screen, view)
            _timeline(screen, view.happened)
            _waiting(screen, view.waiting)
        case LedgerView():
            _ledger(screen, view)
        case CommandView():
            screen.print(_title(view.stream, "posted"))
            _line(screen, view.kind, f"posted {when(view.at)}, not in the log yet")
    _next(screen, view.next)


def _waiting(screen: Console, commands: Sequence[CommandView]) -> None:
    """Commands about a turn or entry that the worker has not taken up yet."""
    for command in commands:
        text = f"{command.kind}, posted {when(command.at)}, {command.next.text}"
        _line(screen, "in the inbox", text)


def _what(view: View) -> str:
    match view:
        case CommandView():
            return "command"
        case TurnView():
            return "turn"
        case EntryView():
            return "entry"
        case LedgerView():
            return view.id.partition(":")[0]


def _turn(screen: Console, turn: TurnView) -> None:
    screen.print(_title(turn.id, turn.outcome or turn.phase))
    for inbound in turn.inbound:
        _inbound(screen, inbound)
    for run in turn.runs:
        end = run.ended or "under way"
        detail = f": {run.detail}" if run.detail else ""
        _line(screen, f"run {run.number}", f"{when(run.at)}, {end}{detail}")
    for entry in turn.entries:
        screen.print()
        _entry(screen, entry)
    _timeline(screen, _merged(turn))
    _line(screen, "verdict", turn.verdict)


def _inbound(screen: Console, inbound: InboundView) -> None:
    place = f"{inbound.channel}/{inbound.account}, {inbound.conversation}"
    name = inbound.message_id or "(without an id)"
    revision = f", revision {inbound.revision}" if inbound.revision else ""
    _line(screen, "message", f"{name}{revision} from {place}, {when(inbound.at)}")
    if inbound.sender is not None or inbound.sent_at is not None:
        at = "" if inbound.sent_at is None else f", {when(inbound.sent_at)}"
        _line(screen, "sent by", f"{inbound.sender or '(unknown)'}{at}")
    if inbound.changes is not None:
        _line(screen, "edits", inbound.changes)
    if inbound.problem is not None:
        _line(screen, "problem", inbound.problem)
    _line(screen, "", inbound.text)


def _merged(turn: TurnView) -> list[EventView]:
    """The events of the turn and of its entries, as they came."""
    events = [*turn.happened, *(h for e in turn.entries for h in e.happened)]
    return sorted(events, key=lambda h: h.position)


def _entry(screen: Console, entry: EntryView) -> None:
    screen.print(
        _title(entry.id, "parked" if entry.phase == "parked" else entry.status)
    )
    place = f"{entry.channel}/{entry.account}, {entry.conversation}"
    thread = f", thread {entry.thread}" if entry.thread else ""
    _line(screen, entry.kind, f"to {place}{thread}")
    if entry.reason:
        _line(screen, "reason", entry.reason)
    _line(screen, "expires", when(entry.expires_at))
    for part in entry.parts:
        _part(screen, part, len(entry.parts))


def _part(screen: Console, part: PartView, count: int) -> None:
    classes = ", ".join(part.classes) or "blind"
    settled = part.settled or "not settled"
    if part.receipt:
        settled += f", receipt {', '.join(part.receipt)}"
    name = f"part {part.index + 1} of {count}"
    _line(screen, name, f"{part.kind} ({classes}): {settled}")
    _line(screen, "", part.text)
    for attempt in part.attempts:
        _line(screen, "", _attempt(attempt))


def _attempt(attempt: AttemptView) -> str:
    text = f"attempt {attempt.number}, {when(attempt.at)}: "
    text += attempt.outcome or "no outcome yet"
    if attempt.outcome_at is not None:
        text += f" after {span(attempt.outcome_at - attempt.at)}"
    if attempt.marked:
        text += ", marked as a possible duplicate"
    return f"{text}: {attempt.detail}" if attempt.detail else text


def _ledger(screen: Console, view: LedgerView) -> None:
    screen.print(_title(view.id, view.state))
    if view.reason:
        _line(screen, "reason", view.reason)
    _timeline(screen, view.happened)


def _timeline(
    screen: Console, events: "list[EventView] | tuple[EventView, ...]"
) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("position", justify="right", style="dim", no_wrap=True)
    table.add_column("time", style="dim", no_wrap=True)
    table.add_column("what happened", overflow="fold")
    several = len({event.stream for event in events}) > 1
    for event in events:
        where = f"{_short(event.stream)}: " if several else ""
        time_ = when(event.at, date=False)
        table.add_row(str(event.position), time_, clean(where + event.text))
    screen.print()
    screen.print(table)
    screen.print()


def _short(stream: str) -> str:
    """Entries of a turn are told apart by what follows the turn's id."""
    name, _, tail = stream.partition(".")
    return tail or name.partition(":")[0]


def _next(screen: Console, following: Next) -> None:
    text = Text(clean(following.text))
    if following.at is not None:
        left = following.at - time.time_ns() // 1_000_000
        text.append(f" (at {when(following.at)}, ", style="dim")
        text.append(f"in {span(left)})" if left > 0 else "due)", style="dim")
    if following.person:
        text.stylize("bold magenta")
    _line(screen, "next", text)


def _title(name: str, word: object) -> Text:
    return Text.assemble((clean(name), "bold"), "  ", status(word))


def _line(screen: Console, name: str, value: "str | Text | None") -> None:
    if value is None:
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=12, style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(name, value if isinstance(value, Text) else Text(clean(value)))
    screen.print(table)
