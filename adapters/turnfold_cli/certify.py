"""`turnfold certify`: a person or an orchestrator declares a worker of a shared store
dead."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from turnfold_cli import FOUND, USAGE
from turnfold_cli.acting import By, Why, named
from turnfold_cli.common import STORE, AsJson, RefusedError, StorePath, answering
from turnfold_cli.output import clean, plain, say_json, span
from turnfold_cli.screen import console

if TYPE_CHECKING:
    from turnfold_adapters.stores.postgres import PostgresStore
    from turnfold_adapters.stores.postgres.certificates import (
        Certifier,
        Silent,
        Verdict,
    )

_T = TypeVar("_T")
Worker = Annotated[
    str | None,
    typer.Argument(
        metavar="[WORKER]",
        help="Id of the worker, as `worker` shows it.",
        show_default=False,
    ),
]
Instance = Annotated[
    str | None,
    typer.Option(
        "--instance",
        help="Name of the instance, as its orchestrator has set TURNFOLD_INSTANCE.",
    ),
]
Wait = Annotated[
    bool,
    typer.Option(
        "--wait/--no-wait", help="With --instance: wait until its lease is over."
    ),
]


def certify(
    worker: Worker = None,
    instance: Instance = None,
    wait: Wait = True,
    by: By = None,
    why: Why = "",
    store: StorePath = STORE,
    as_json: AsJson = False,
) -> None:
    """Say that the process of a worker is dead, so that another host takes over now.
    Without a name: list the silent workers that other hosts wait for.

    Only for a store in PostgreSQL, and only when you know it: the host is gone, or its
    process was ended. A worker that is stopped and goes on later may send a message that
    the next one sends, too.

    --instance is for the hooks of an orchestrator. It is refused if the instance shows
    that it lives: it renews its lease, or its process runs on this machine. Exit code 1:
    it lives, no worker began under this name, or WORKER is not the living worker.
    """
    with answering(as_json=as_json):
        if worker is not None and instance is not None:
            raise RefusedError("give a worker or --instance, not both", USAGE)
        word = f"{by or named()}: {why}" if why else by or named()
        if instance is not None:
            name = instance
            _say_verdict(
                _asked(store, lambda c: c.certify(name, word, wait=wait)), as_json
            )
        elif worker is not None:
            _one(store, worker, word, as_json=as_json)
        else:
            _say_silent(_asked(store, lambda c: c.silent()), as_json)


def _one(store: str, worker: str, word: str, *, as_json: bool) -> None:
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


def _say_verdict(verdict: "Verdict", as_json: bool) -> None:
    if as_json:
        say_json(plain(verdict))
    else:
        console().print(clean(_words(verdict)), soft_wrap=True)
    if verdict.did in ("lives", "unknown"):
        raise typer.Exit(FOUND)


def _words(verdict: "Verdict") -> str:
    name, workers = verdict.instance, ", ".join(verdict.workers)
    return {
        "certified": f"worker {workers} of {name} counts as dead; the next one takes over",
        "ended": f"{name} counts as ended already",
        "lives": f"{name} is not certified, since it lives: {verdict.why}",
        "unknown": f"{name}: {verdict.why}; see turnfold certify without a name",
    }[verdict.did]


def _say_silent(silent: "Sequence[Silent]", as_json: bool) -> None:
    if as_json:
        say_json({"silent": [plain(one) for one in silent]})
        return
    if not silent:
        console().print("no worker is waited for")
    for one in silent:
        name = f"instance {one.instance}" if one.instance else "without an instance"
        who = f"worker {one.worker}, {name}, pid {one.pid} on {one.host}"
        console().print(
            clean(f"{who}: silent for {span(one.silent_ms)}"), soft_wrap=True
        )


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


def _asked(store: str, ask: "Callable[[Certifier], Awaitable[_T]]") -> _T:
    """Ask the certifier of this store."""
    shared(store, "certify")  # refuses what is no store in PostgreSQL
    logging.getLogger("turnfold").addHandler(
        logging.NullHandler()
    )  # the answer says it
    from turnfold_adapters.stores.postgres.certificates import (  # noqa: PLC0415  extra
        Certifier,
    )

    async def asked() -> _T:
        certifier = Certifier(store)
        try:
            await certifier.open()
            return await ask(certifier)
        finally:
            await certifier.close()

    return asyncio.run(asked())


async def _certified(store: "PostgresStore", worker: str, word: str) -> bool:
    await store.open()
    try:
        return await store.certify(worker, word)
    finally:
        await store.close()
