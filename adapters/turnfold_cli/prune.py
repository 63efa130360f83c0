"""`turnfold prune`: removes old turns and entries from the store, and logs it."""

import asyncio
import sys
from typing import Annotated, Any

import typer

from turnfold import Kernel
from turnfold.api.keeping import Pruning, candidates
from turnfold.inspect.times import clock_of
from turnfold_cli import USAGE
from turnfold_cli.acting import By, Why, named
from turnfold_cli.common import (
    STORE,
    AsJson,
    RefusedError,
    StorePath,
    answering,
    opened,
)
from turnfold_cli.filters import split
from turnfold_cli.output import clean, now_ms, plain, say_json
from turnfold_cli.screen import Screen, console
from turnfold_cli.times import length

Older = Annotated[
    str,
    typer.Option(
        "--older", metavar="AGE", help="Not moved for so long: 90m, 12h, 30d, 4w."
    ),
]
Status = Annotated[
    list[str] | None,
    typer.Option("--status", help="Only these: delivered, failed, aborted, ..."),
]
Dead = Annotated[
    bool, typer.Option("--dead", help="Dead letters that nobody has seen, too.")
]
Dry = Annotated[
    bool, typer.Option("--dry-run", help="Say how many there are, and do nothing.")
]
Sure = Annotated[
    bool,
    typer.Option(
        "--clock-is-right", help="You have looked: trust the clock of this machine."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def prune(
    older: Older,
    status: Status = None,
    dead: Dead = False,
    clock_is_right: Sure = False,
    dry_run: Dry = False,
    yes: Yes = False,
    by: By = None,
    why: Why = "",
    store: StorePath = STORE,
    as_json: AsJson = False,
) -> None:
    """Take turns with their entries out of the store that are over and have not moved
    for a while. Counts stay for `stats`, and the log still audits.

    What is open, what waits for a person, and what has a dedupe key that a platform
    could still repeat stays. Messages pass meanwhile. Doing it again goes on.
    """
    with answering(as_json=as_json):
        person, old = by or named(), length(older, "--older")
        found = old_enough(store, old)
        if not dry_run and found and not yes:
            ask(found, "Prune")
        done = Pruning()
        if found and not dry_run:
            wish = wish_of(old, person, why, status, dead=dead, sure=clock_is_right)
            done = asyncio.run(_pruned(store, wish))
        if as_json:
            facts = {"act": "pruned", "by": person, "dry_run": dry_run, "found": found}
            say_json(facts | plain(done))
        else:
            _print(console(), found, done, dry=dry_run)


def wish_of(
    old: int, by: str, why: str, status: Status, *, dead: bool, sure: bool
) -> dict[str, Any]:
    """The options of the command as arguments of `prune` and `archive`."""
    return {
        "older_ms": old,
        "by": by,
        "why": why,
        "statuses": split("--status", status),
        "dead": dead,
        "clock_is_right": sure,
    }


def ask(found: int, act: str) -> None:
    """Ask for a confirmation. Raises RefusedError without a terminal."""
    if not sys.stdin.isatty():
        text = f"{found} would go, and there is no terminal to ask: say --yes"
        raise RefusedError(text, USAGE)
    typer.confirm(f"{found:,} turns and entries are old enough. {act}?", abort=True)


def old_enough(address: str, old: int) -> int:
    """How many closed turns, and closed entries without a turn, are old enough."""
    return asyncio.run(_found(address, old))


async def _found(address: str, old: int) -> int:
    async with opened(address) as store:
        before = max((await clock_of(store)).now(), now_ms()) - old
        return len([row.stream async for row in candidates(store, before)])


async def _pruned(address: str, wish: dict[str, Any]) -> Pruning:
    screen = console(stderr=True)

    def tell(so_far: Pruning) -> None:
        if sys.stderr.isatty():
            screen.print(f"{so_far.streams:,} streams", end="\r")

    async with Kernel(address, work=False) as kernel:
        return await kernel.prune(**wish, tell=tell)


def _print(screen: Screen, found: int, done: Pruning, *, dry: bool) -> None:
    if dry or not found:
        screen.print(f"{found:,} turns and entries are over and old enough")
        return
    told(screen, done)


def told(screen: Screen, done: Pruning) -> None:
    """Print how many streams were removed, and how many stayed."""
    screen.print(f"{done.streams:,} streams with {done.events:,} events are gone")
    for reason, count in sorted(done.left.items()):
        screen.print(clean(f"{count:,} left: {_LEFT.get(reason, reason)}"))


_LEFT = {
    "key": "a platform could still repeat the message (Settings.dedupe_ms)",
    "needs a person": "a dead letter that nobody has seen (--dead)",
    "young": "a part of it moved lately",
    "open": "a part of it is open",
    "other status": "a part of it has another status",
    "clock": "nobody knows whether the clock of this machine is right "
    "(--clock-is-right)",
    "moved": "it has changed since it was looked at",
    "unreadable": "a part of it cannot be read (turnfold audit)",
}
