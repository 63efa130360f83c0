"""`turnfold restore`: puts a backup in the place of a store, declared as restored."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from turnfold import Kernel
from turnfold.errors import StoreError
from turnfold.ports.store import store_at
from turnfold_adapters.stores.sqlite.copying import move_away
from turnfold_cli import USAGE
from turnfold_cli.acting import By, Why, named
from turnfold_cli.common import (
    STORE,
    AsJson,
    RefusedError,
    StorePath,
    answering,
    is_archive,
    not_for_archives,
)
from turnfold_cli.keep import check_apart, checked, copied, file_of, free, place, staged
from turnfold_cli.output import clean, say_json
from turnfold_cli.screen import console

Source = Annotated[
    Path, typer.Argument(metavar="FILE", help="A backup (`turnfold backup`).")
]
Replace = Annotated[
    bool,
    typer.Option("--replace", help="Keep the store that is there as STORE.replaced."),
]


def restore(
    source: Source,
    replace: Replace = False,
    by: By = None,
    why: Why = "",
    store: StorePath = STORE,
    as_json: AsJson = False,
) -> None:
    """Put a copy of a backup in the place of the store. The copy is audited first, and
    it says that it is a restored one: its worker holds everything that was open."""
    with answering(as_json=as_json):
        if is_archive(str(source)):
            raise RefusedError(not_for_archives(str(source)), USAGE)
        person, target = by or named(), file_of(store)
        check_apart(str(source), str(target))
        new = staged(target, "restoring")
        if not replace:
            free(target)
        asyncio.run(_restored(source, new, target, person, why, replace=replace))
        if as_json:
            say_json({"act": "restored", "by": person, "store": str(target)})
            return
        screen = console()
        screen.print(clean(f"{target} is {source} now, declared restored by {person}"))
        screen.print("next: start the gateway; what was open waits for a person")
        screen.print("see: turnfold list --parked; turnfold turns --held")


async def _restored(
    source: Path, new: Path, target: Path, person: str, why: str, *, replace: bool
) -> None:
    if replace:
        await _nobody_works(target)
    await copied(str(source), new)
    await checked(new)
    async with Kernel(str(new), work=False) as kernel:
        await kernel.declare_restored(by=person, why=why, wait=False)
    _tidy(new)
    if replace:
        move_away(target, target.with_name(f"{target.name}.replaced"))
    place(new, target)


async def _nobody_works(target: Path) -> None:
    """Raises RefusedError while a worker has the store; moves its log into its file."""
    with suppress(StoreError):  # a damaged one is moved unchanged
        store = store_at(str(target))
        await store.open(read_only=True)  # does not create one
        await store.close()
        await store.open()
        try:
            owner = await store.ownership().take()
            alive = owner is None
        finally:
            await store.close()
        if alive:
            raise RefusedError(f"a worker has {target}: stop its gateway first", USAGE)


def _tidy(path: Path) -> None:
    """Remove the copy's side files: its mark would belong to another file."""
    for name in ("mark", "worker"):
        path.with_name(f"{path.name}.{name}").unlink(missing_ok=True)
