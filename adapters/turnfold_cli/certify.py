"""`turnfold certify`: a person declares the worker of a shared store dead."""

import asyncio
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from turnfold_cli import FOUND, USAGE
from turnfold_cli.acting import By, Why, named
from turnfold_cli.common import STORE, AsJson, RefusedError, StorePath, answering
from turnfold_cli.output import clean, say_json
from turnfold_cli.screen import console

if TYPE_CHECKING:
    from turnfold_adapters.stores.postgres import PostgresStore

Worker = Annotated[
    str,
    typer.Argument(metavar="WORKER", help="Id of the worker, as `worker` shows it."),
]


def certify(
    worker: Worker,
    by: By = None,
    why: Why = "",
    store: StorePath = STORE,
    as_json: AsJson = False,
) -> None:
    """Say that the process of a worker is dead, so that another host takes over now.

    Only for a store in PostgreSQL, and only when you know it: the host is gone, or its
    process was ended. A worker that is stopped and goes on later may send a message that
    the next one sends, too. Exit code 1: it is not the living worker.
    """
    with answering(as_json=as_json):
        word = f"{by or named()}: {why}" if why else by or named()
        done = asyncio.run(_certified(shared(store, "certify"), worker, word))
    if as_json:
        say_json({"worker": worker, "certified": done})
    elif done:
        console().print(
            f"worker {clean(worker)} counts as dead; the next one takes over"
        )
    else:
        console().print(f"{clean(worker)} is no living worker; see turnfold worker")
    if not done:
        raise typer.Exit(FOUND)


def shared(address: str, act: str) -> "PostgresStore":
    """The store in PostgreSQL; raises RefusedError for any other kind, which does not
    have this act."""
    if not str(address).startswith("postgresql:"):
        text = f"{act} is for a store in PostgreSQL; {address} is a file"
        raise RefusedError(text, USAGE)
    if find_spec("asyncpg") is None:
        raise RefusedError("needs asyncpg; pip install 'turnfold[postgres]'", USAGE)
    from turnfold_adapters.stores.postgres import PostgresStore  # noqa: PLC0415  extra

    return PostgresStore(address)


async def _certified(store: "PostgresStore", worker: str, word: str) -> bool:
    await store.open()
    try:
        return await store.certify(worker, word)
    finally:
        await store.close()
