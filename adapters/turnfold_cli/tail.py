"""`turnfold tail`: new events as they come, one line each."""

import time
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from turnfold import ndjson
from turnfold.codec import Record
from turnfold.inspect import Inspect
from turnfold_cli.common import STORE, AsJson, StorePath, answering, opened
from turnfold_cli.output import clean, console, when

_POLL_S = 0.2
From = Annotated[
    int | None,
    typer.Option("--from", min=1, help="Begin at this position, not at the end."),
]
Count = Annotated[
    int | None, typer.Option("--count", "-n", min=1, help="Stop after so many events.")
]


def tail(
    store: StorePath = STORE,
    first: From = None,
    count: Count = None,
    as_json: AsJson = False,
) -> None:
    """Follow the log in plain words; with --json as lines like those of `log`.

    Ends with Ctrl-C.
    """
    with answering(as_json=as_json), opened(store) as opened_store:
        screen = console()
        inspect = Inspect(opened_store)
        position = opened_store.head.position if first is None else first - 1
        left = count
        while True:
            for record in opened_store.since(position)[:left]:
                position = record.position
                _show(screen, inspect, record, as_json=as_json)
                left = None if left is None else left - 1
            if left == 0:
                return
            time.sleep(_POLL_S)


def _show(screen: Console, inspect: Inspect, record: Record, *, as_json: bool) -> None:
    if as_json:
        typer.echo(ndjson.dump(record))
        return
    event = inspect.tell(record)
    line = Text(f"{event.position:>7} {when(event.at, date=False)} ", style="dim")
    line.append(clean(event.stream), style="cyan")
    line.append(f" {clean(event.text)}", style="none")
    screen.print(line, soft_wrap=True)
