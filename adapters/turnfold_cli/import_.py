"""`import`: take in the queue of another gateway, a folder of JSON delivery files."""

import asyncio
import sys
from collections import Counter
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from turnfold import Kernel
from turnfold.api.deliveries import Queue, read_queue
from turnfold.api.importing import Imported, Step, begun, stored
from turnfold.ports.store import store_at
from turnfold_cli import FOUND, NO_STORE
from turnfold_cli.common import (
    STORE,
    AsJson,
    RefusedError,
    StoreHere,
    StorePath,
    answering,
    for_people,
    opened,
)
from turnfold_cli.output import clean, say_json
from turnfold_cli.screen import console

_SHOWN = 20  # left files to list

Directory = Annotated[
    Path,
    typer.Argument(
        metavar="DIR",
        help="Folder with `delivery-queue/`, or that folder itself; also its `failed/`.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")
]
New = Annotated[bool, typer.Option("--new", help="Make the store if there is none.")]


def import_(
    directory: Directory,
    at: StoreHere = None,
    store: StorePath = STORE,
    dry_run: DryRun = False,
    new: New = False,
    as_json: AsJson = False,
) -> None:
    """Take in the delivery files of another gateway, and move each into `imported/`.

    Nobody knows what was sent: all of it is parked, or a dead letter if it is too old
    or had failed. Doing it again is harmless. Exit code 1 if a file was left.
    """
    address = at or store
    with answering(as_json=as_json):
        if dry_run:
            queue, known = asyncio.run(_looked(directory, address, new=new))
            left = begun(queue).left
            facts = _plan(queue, known)
        else:
            step = _silent if as_json or not sys.stderr.isatty() else _progress
            done = asyncio.run(_done(directory, address, step, new=new))
            left, facts = done.left, _result(done)
        facts["left"] = [{"path": str(one.path), "why": one.why} for one in left]
        if as_json:
            say_json(facts)
        else:
            _print(facts, for_people(address))
    if left:
        raise typer.Exit(FOUND)


def _is_missing(address: str) -> bool:
    """True if there is no file for a store at this path."""
    return not Path(store_at(address).address).exists()


async def _exists(address: str, *, new: bool) -> bool:
    """Raises RefusedError for a missing store, unless it may be made, and for one that
    cannot be read."""
    missing = _is_missing(address)
    if missing and new:
        return False
    try:
        async with opened(address):
            return True
    except RefusedError as exc:
        hint = "; --new makes it" if missing else ""
        raise RefusedError(f"{exc.text}{hint}", NO_STORE, exc.kind) from exc


async def _looked(
    directory: Path, address: str, *, new: bool
) -> tuple[Queue, frozenset[str]]:
    queue = read_queue(directory)
    if not await _exists(address, new=new):
        return queue, frozenset()
    async with opened(address) as store:
        return queue, frozenset(await stored(store, queue.deliveries))


async def _done(directory: Path, address: str, step: Step, *, new: bool) -> Imported:
    read_queue(directory)  # before a store is made
    await _exists(address, new=new)
    try:
        async with Kernel(address, work=False) as kernel:
            return await kernel.import_queue(directory, on_step=step)
    finally:
        if step is _progress:
            sys.stderr.write("\r\033[K")


def _silent(step: str, done: int, total: int) -> None:
    del step, done, total


def _progress(step: str, done: int, total: int) -> None:
    sys.stderr.write(f"\r\033[K{done:,} of {total:,}, {step}")
    sys.stderr.flush()


def _plan(queue: Queue, known: frozenset[str]) -> dict[str, Any]:
    places = Counter(
        f"{one.route.channel}/{one.route.account}" for one in queue.deliveries
    )
    return {
        "dry_run": True,
        "folder": str(queue.folder),
        "found": len(queue.deliveries),
        "failed": sum(one.dead for one in queue.deliveries),
        "again": sum(one.key in known for one in queue.deliveries),
        "places": dict(places.most_common()),
    }


def _result(done: Imported) -> dict[str, Any]:
    return {
        "dry_run": False,
        "folder": str(done.folder),
        "found": done.found,
        "parked": done.parked,
        "dead": done.dead,
        "again": done.again,
        "moved": done.moved,
    }


def _print(facts: dict[str, Any], address: str) -> None:
    screen = console()

    def say(text: str) -> None:
        screen.print(clean(text), soft_wrap=True)

    say(f"{facts['folder']}: {facts['found']:,} deliveries")
    if facts["dry_run"]:
        say(f"would come in: {facts['found'] - facts['again']:,}, all of it in doubt")
        say(f"  {facts['failed']:,} of failed/ as dead letters, outcome unknown")
        for place, count in facts["places"].items():
            say(f"  {count:,} for {place}")
    else:
        say(f"in {address}: {facts['parked']:,} parked, {facts['dead']:,} dead;")
        say(f"  nobody knows if they were sent. {facts['moved']:,} files moved")
    if facts["again"]:
        say(f"  {facts['again']:,} of them were there already")
    for one in facts["left"][:_SHOWN]:
        say(f"left: {one['path']}: {one['why']}")
    if len(facts["left"]) > _SHOWN:
        say(f"left: {len(facts['left']) - _SHOWN:,} more; --json has them all")
    if not facts["dry_run"] and facts["parked"]:
        say(f"next: turnfold list {quote(address)} --status parked")
