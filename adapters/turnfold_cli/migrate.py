"""`turnfold migrate`: brings the tables of a store in PostgreSQL up to this
turnfold."""

import asyncio
from typing import Annotated

import typer

from turnfold_cli.certify import shared
from turnfold_cli.common import STORE, AsJson, StorePath, answering
from turnfold_cli.output import say_json
from turnfold_cli.screen import console

Dry = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")
]


def migrate(
    store: StorePath = STORE, dry_run: Dry = False, as_json: AsJson = False
) -> None:
    """Bring the tables of a store in PostgreSQL up to the layout of this turnfold.

    All steps are one transaction: it is done, or nothing is. A store of a newer turnfold
    is refused. Workers of the older turnfold go on until they are ended.
    """
    with answering(as_json=as_json):
        before, now = asyncio.run(shared(store, "migrate").migrate(dry=dry_run))
        done = not dry_run and before < now
        if as_json:
            say_json({"before": before, "layout": now, "migrated": done})
        elif before == now:
            console().print(f"layout {now}: nothing to do")
        else:
            verb = "would become" if dry_run else "is now"
            console().print(f"layout {before} {verb} {now}")
