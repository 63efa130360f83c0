"""`turnfold archive`: old turns and entries are written to a file, then pruned."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from turnfold import Kernel
from turnfold.api.archiving import Archives
from turnfold_cli import USAGE
from turnfold_cli.acting import By, Why, named
from turnfold_cli.common import (
    STORE,
    AsJson,
    RefusedError,
    StorePath,
    answering,
    is_encrypted,
)
from turnfold_cli.output import clean, plain, say_json
from turnfold_cli.prune import (
    Dead,
    Dry,
    Older,
    Status,
    Sure,
    Yes,
    ask,
    old_enough,
    told,
    wish_of,
)
from turnfold_cli.screen import console
from turnfold_cli.times import length

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Where the archives are.")
]
NoText = Annotated[
    bool, typer.Option("--without-text", help="Leave texts and files out of it.")
]

Plain = Annotated[
    bool,
    typer.Option("--plain", help="An archive is not encrypted, and may hold texts."),
]


def archive(
    folder: Folder,
    older: Older,
    status: Status = None,
    dead: Dead = False,
    clock_is_right: Sure = False,
    without_text: NoText = False,
    in_clear: Plain = False,
    dry_run: Dry = False,
    yes: Yes = False,
    by: By = None,
    why: Why = "",
    store: StorePath = STORE,
    as_json: AsJson = False,
) -> None:
    """Write what `turnfold prune` would take into a compressed file, and then prune it.

    `turnfold audit FILE` checks an archive; `list`, `turns`, `find`, `show`, `stats` and
    `log` take one as their store. Doing it again goes on where it ended.
    """
    with answering(as_json=as_json):
        person, old = by or named(), length(older, "--older")
        if not folder.is_dir():
            raise RefusedError(f"{folder} is no folder", USAGE)
        secret = is_encrypted(store) and not without_text
        if secret and not (in_clear or dry_run):
            text = "the store is encrypted and an archive is not: say --plain, or"
            raise RefusedError(f"{text} --without-text", USAGE)
        found = old_enough(store, old)
        if not dry_run and found and not yes:
            ask(found, "Archive and prune")
        wish = wish_of(old, person, why, status, dead=dead, sure=clock_is_right)
        wish["text"] = not without_text
        done = Archives() if dry_run else asyncio.run(_archived(store, folder, wish))
        if as_json:
            facts = {"act": "archived", "by": person, "dry_run": dry_run}
            say_json(facts | {"found": found} | _plain(done))
        elif dry_run:
            console().print(f"{found:,} turns and entries are over and old enough")
        else:
            _print(done)
            if secret:
                text = (
                    f"what is in {folder} is not encrypted: keep it as you keep the key"
                )
                console(stderr=True).print(clean(text), soft_wrap=True)


async def _archived(address: str, folder: Path, wish: dict[str, Any]) -> Archives:
    screen = console(stderr=True)

    def tell(so_far: Archives) -> None:
        if sys.stderr.isatty():
            screen.print(f"{so_far.pruned.streams:,} streams", end="\r")

    async with Kernel(address, work=False) as kernel:
        return await kernel.archive(folder, **wish, tell=tell)


def _plain(done: Archives) -> dict[str, Any]:
    facts: dict[str, Any] = plain(done)
    return facts | {"files": [str(path) for path in done.files]}


def _print(done: Archives) -> None:
    screen = console()
    if done.again:
        text = (
            f"{done.again:,} streams of an earlier run, which was ended, are gone now"
        )
        screen.print(text)
    for path in done.files:
        screen.print(clean(path), soft_wrap=True)
    screen.print(
        f"{done.groups:,} turns and entries are in {len(done.files)} new files"
    )
    told(screen, done.pruned)
