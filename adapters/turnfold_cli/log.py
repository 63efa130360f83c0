"""`turnfold log`: the log as lines for other programs (specs/log-format.md)."""

import asyncio
from typing import Annotated

import typer

from turnfold.inspect import export
from turnfold_cli.common import (
    STORE,
    AsJson,
    StorePath,
    answering,
    is_encrypted,
    opened,
)

After = Annotated[int, typer.Option("--from", min=1, help="First position to print.")]
Bodies = Annotated[
    bool, typer.Option("--bodies", help="With the bodies that each record names.")
]


def log(
    store: StorePath = STORE,
    first: After = 1,
    bodies: Bodies = False,
    as_json: AsJson = False,
) -> None:
    """Print the log as NDJSON: the canonical envelope of each record, with its position
    and hash. The format is specs/log-format.md; it is JSON with or without --json."""
    with answering(as_json=as_json):
        if bodies and is_encrypted(store):
            text = (
                "turnfold: the store is encrypted; these lines with its texts are not"
            )
            typer.echo(text, err=True)
        asyncio.run(_print(store, first - 1, bodies=bodies))


async def _print(address: str, after: int, *, bodies: bool) -> None:
    async with opened(address) as store:
        async for line in export.lines(store, after, bodies=bodies):
            typer.echo(line)
