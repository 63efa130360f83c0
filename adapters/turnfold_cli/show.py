"""`turnfold show ID`: the verdict, the next step and the commands to type, then the
facts. With -v every event, in the order in which they came."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Annotated

import typer

from turnfold.inspect import (
    AttemptView,
    CommandView,
    EntryView,
    EventView,
    InboundView,
    LedgerView,
    Next,
    PartView,
    RunView,
    TurnView,
    View,
)
from turnfold_cli.common import (
    STORE,
    UNDER_WAY,
    AsJson,
    StorePath,
    answering,
    ask,
    place_text,
)
from turnfold_cli.output import (
    clean,
    clock,
    day,
    now_ms,
    plain,
    say_json,
    span,
    steps,
    when,
    zone_line,
)
from turnfold_cli.screen import Line, Screen, console
from turnfold_cli.times import Utc

_NAME = 10  # columns of the names of facts
Id = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="A short id (t12, e15), a message id, or a whole id, its beginning or end.",
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="With all events.")]


def show(
    wanted: Id,
    verbose: Verbose = False,
    store: StorePath = STORE,
    utc: Utc = False,  # noqa: ARG001  its callback has chosen the zone
    as_json: AsJson = False,
) -> None:
    """Tell what became of one message, turn or entry, and what happens next."""
    with answering(as_json=as_json):
        view = ask(store, lambda inspect: inspect.show(wanted))
        if as_json:
            say_json({"what": what_of(view)} | plain(view))
        else:
            _print(console(), view, verbose=verbose)


def what_of(view: View) -> str:
    match view:
        case CommandView():
            return "command"
        case TurnView():
            return "turn"
        case EntryView():
            return "entry"
        case LedgerView():
            return view.id.partition(":")[0]


def _print(screen: Screen, view: View, *, verbose: bool) -> None:
    screen.print(clean(verdict_of(view)), style="bold")
    _next(screen, view.next)
    screen.print()
    for name, text in facts_of(view):
        _fact(screen, name, text)
    if not isinstance(view, CommandView):
        _events(screen, events_of(view), verbose=verbose)
    screen.print(zone_line(), style="dim")


def verdict_of(view: View) -> str:
    """The verdict in one sentence."""
    match view:
        case TurnView():
            return _sentence(view.verdict.partition(": " + view.next.text)[0])
        case EntryView():
            return _sentence(view.verdict)
        case LedgerView():
            why = f" ({view.reason})" if view.reason else ""
            return f"{view.id} is {view.state}{why}"
        case CommandView():
            text = f"{view.kind} of {view.stream} is posted, and not in the log yet"
            return _sentence(text)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _next(screen: Screen, following: Next) -> None:
    colour = "magenta" if following.person else ""
    line = Line().and_(f"Next: {clean(following.text)}", colour)
    screen.print(line.and_(due_text(following), f"dim {colour}".strip()))
    steps(screen, following.commands)


def due_text(following: Next) -> str:
    """The time of the next step; empty if it is not known."""
    if following.at is None:
        return ""
    left = following.at - now_ms()
    due = f"in {span(left)}" if left > 0 else "due"
    return f" ({when(following.at)}, {due})"


def facts_of(view: View) -> Iterator[tuple[str, str]]:
    """The facts, by name; a fact without a name continues the one before."""
    match view:
        case TurnView():
            yield from _turn(view)
        case EntryView():
            yield from _entry(view)
        case LedgerView():
            yield "since", when(view.updated)
        case CommandView():
            yield "posted", when(view.at)
            yield "id", view.stream
    if not isinstance(view, CommandView | LedgerView):
        for command in view.waiting:
            posted = f"{command.kind}, posted {when(command.at)}, {command.next.text}"
            yield "inbox", posted


def _turn(turn: TurnView) -> Iterator[tuple[str, str]]:
    word = str(turn.outcome or turn.phase)
    yield "turn", f"{turn.short}  {turn.id}  {word}"
    for inbound in turn.inbound:
        yield from _inbound(inbound)
    for run in turn.runs:
        yield f"run {run.number}", _run(run)
    for entry in turn.entries:
        yield from _entry(entry)


def _inbound(inbound: InboundView) -> Iterator[tuple[str, str]]:
    place = place_text(inbound.channel, inbound.account, inbound.conversation)
    name = inbound.message_id or "(without an id)"
    revision = f", revision {inbound.revision}" if inbound.revision else ""
    yield "in", f"{place}  {when(inbound.at)}  message {name}{revision}"
    if inbound.sender is not None or inbound.sent_at is not None:
        at = "" if inbound.sent_at is None else f", {when(inbound.sent_at)}"
        yield "", f"sent by {inbound.sender or '(unknown)'}{at}"
    if inbound.changes is not None:
        yield "", f"edits {inbound.changes}"
    if inbound.problem is not None:
        yield "", f"problem: {inbound.problem}"
    yield "", _said(inbound.text)


def _said(text: str | None) -> str:
    return "(text not kept)" if text is None else f'"{text}"'


def _run(run: RunView) -> str:
    detail = f": {run.detail}" if run.detail else ""
    return f"{when(run.at)}  {run.ended or 'under way'}{detail}"


def _entry(entry: EntryView) -> Iterator[tuple[str, str]]:
    place = place_text(entry.channel, entry.account, entry.conversation)
    thread = f", thread {entry.thread}" if entry.thread else ""
    now = None if entry.under_way is None else UNDER_WAY[entry.under_way]
    why = ", ".join(filter(None, (entry.reason, now)))
    why = f" ({why})" if why else ""
    head = f"{entry.short}  {entry.kind} to {place}{thread}  {entry.status}{why}"
    yield "out", head
    yield "", f"{entry.id}, queued {when(entry.created)}"
    for part in entry.parts:
        yield from _part(part, len(entry.parts))
    if not entry.phase.closed:
        yield "expires", when(entry.expires_at)


def _part(part: PartView, count: int) -> Iterator[tuple[str, str]]:
    classes = ", ".join(part.classes) or "blind"
    receipt = f", receipt {', '.join(part.receipt)}" if part.receipt else ""
    settled = (part.settled or "not settled") + receipt
    which = f"part {part.index + 1} of {count}, {part.kind} ({classes}): {settled}"
    yield "", which
    yield "", _said(part.text)
    for attempt in part.attempts:
        yield "", _attempt(attempt)


def _attempt(attempt: AttemptView) -> str:
    text = f"attempt {attempt.number}  {when(attempt.at)}  "
    text += attempt.outcome or "no outcome yet"
    if attempt.outcome_at is not None:
        text += f" after {span(attempt.outcome_at - attempt.at)}"
    if attempt.marked:
        text += ", marked as a possible duplicate"
    return f"{text}: {attempt.detail}" if attempt.detail else text


def events_of(view: TurnView | EntryView | LedgerView) -> list[EventView]:
    """All events in their order; of a turn with its entries."""
    events = list(view.happened)
    if isinstance(view, TurnView):
        events += [event for entry in view.entries for event in entry.happened]
    return sorted(events, key=lambda event: event.position)


def _events(screen: Screen, events: Sequence[EventView], *, verbose: bool) -> None:
    if not verbose:
        acts = [event for event in events if event.by is not None]
        if acts:
            screen.print()
            _timeline(screen, acts[-_ACTS:])
        screen.print(f"-v shows the {len(events)} events", style="dim")
        return
    screen.print()
    _timeline(screen, events)


_ACTS = 10  # decisions of people that the short page shows, the last ones


def _timeline(screen: Screen, events: Sequence[EventView]) -> None:
    """A line for each event, and one for each new day."""
    for today, happened in days_of(events):
        screen.print(today, style="dim")
        for event, text in happened:
            line = Line().and_(f"{event.position:>7}  {clock(event.at)}  ", "dim")
            screen.print(line.and_(clean(text)), indent=19)
    screen.print()


def days_of(
    events: Sequence[EventView],
) -> Iterator[tuple[str, list[tuple[EventView, str]]]]:
    """The events of each day, each with its text; with several streams the text names
    the stream."""
    several = len({event.stream for event in events}) > 1
    for today, happened in groupby(events, lambda event: day(event.at)):
        yield (
            today,
            [
                (e, (f"{_short(e.stream)}: " if several else "") + e.text)
                for e in happened
            ],
        )


def _short(stream: str) -> str:
    """The short name of a stream: the part of an entry's id after the turn's id."""
    name, _, tail = stream.partition(".")
    return tail or name.partition(":")[0]


def _fact(screen: Screen, name: str, text: str) -> None:
    line = Line().and_(f"{name:<{_NAME}}", "dim").and_(clean(text))
    screen.print(line, indent=_NAME)
