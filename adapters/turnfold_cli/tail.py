"""`turnfold tail`: prints what is added to a store, as it is added."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from turnfold.inspect import EventView, Inspect, export
from turnfold.ports.store import Record
from turnfold_cli.common import STORE, AsJson, StorePath, answering, opened
from turnfold_cli.output import clean, console, when

_POLL_S = 0.2
From = Annotated[
    int | None,
    typer.Option("--from", min=1, help="Begin at this position, not at the end."),
]
Count = Annotated[
    int | None,
    typer.Option("--count", "-n", min=1, help="Stop after so many lines."),
]


def tail(
    store: StorePath = STORE,
    first: From = None,
    count: Count = None,
    as_json: AsJson = False,
) -> None:
    """Print new events in plain words, one a line; with --json new records, one a line,
    as `turnfold log` prints them.

    The store is opened for reading only, so nobody who writes to it waits. Ends with
    Ctrl-C.
    """
    with answering(as_json=as_json):
        asyncio.run(_follow(store, first, count, as_json=as_json))


async def _follow(
    address: str, first: int | None, count: int | None, *, as_json: bool
) -> None:
    async with opened(address) as store:
        tell = _lines if as_json else partial(_events, console(), Inspect(store))
        if first is None:
            first = (await store.load()).head.position + 1
        position, left = first - 1, count
        while True:
            records = await store.log(position)
            for show in (await tell(records))[:left]:
                show()
                left = None if left is None else left - 1
            if left == 0:
                return
            if records:
                position = records[-1].position
            else:
                await asyncio.sleep(_POLL_S)


async def _lines(records: Sequence[Record]) -> Sequence[Callable[[], None]]:
    return [partial(typer.echo, export.dump(record)) for record in records]


async def _events(
    screen: Console, inspect: Inspect, records: Sequence[Record]
) -> Sequence[Callable[[], None]]:
    return [partial(_show, screen, event) for event in await inspect.tell(records)]


def _show(screen: Console, event: EventView) -> None:
    line = Text(f"{event.position:>7} {when(event.at, date=False)} ", style="dim")
    line.append(clean(event.stream), style="cyan")
    line.append(f" {clean(event.text)}", style="none")
    screen.print(line, soft_wrap=True)
