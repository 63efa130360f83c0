"""`turnfold watchdog`: ends workers of this machine whose lease is over."""

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from turnfold.errors import StoreError
from turnfold_cli import FOUND, USAGE
from turnfold_cli.certify import shared
from turnfold_cli.common import STORE, AsJson, RefusedError, StorePath, answering
from turnfold_cli.output import clean, plain, say_json
from turnfold_cli.screen import console

if TYPE_CHECKING:
    from turnfold_adapters.stores.postgres.watchdog import Act, Watchdog

Every = Annotated[
    float, typer.Option(min=0.1, help="Seconds between two looks at the workers.")
]
Once = Annotated[
    bool, typer.Option("--once", help="Look once and end: for a timer of the system.")
]
_LINE = "%(asctime)s %(message)s"


def watchdog(
    store: StorePath = STORE,
    every: Every = 1.0,
    once: Once = False,
    as_json: AsJson = False,
) -> None:
    """End workers of this machine whose lease is over, and say that they are dead, so
    that another host takes over without waiting.

    Only for a store in PostgreSQL, on Linux. Run it beside the workers: as their user,
    and in their pid namespace. It ends a stopped or hanging process with SIGKILL after
    the server has said that its lease is over, and nobody else; cut off from the server
    it ends nobody. Exit code 1 with --once: a worker should be ended and could not be.
    """
    with answering(as_json=as_json):
        dog = _watchdog(store)
        if as_json:
            logging.getLogger("turnfold").addHandler(logging.NullHandler())
        else:
            logging.basicConfig(format=_LINE)
        acts = asyncio.run(_watch(dog, None if once else every, as_json=as_json))
    if any(act.did == "left" for act in acts):
        raise typer.Exit(FOUND)


def _watchdog(store: str) -> "Watchdog":
    shared(store, "watchdog")  # refuses what is no store in PostgreSQL
    from turnfold_adapters.stores.postgres.watchdog import (  # noqa: PLC0415  an extra
        Watchdog,
    )

    if not Watchdog.can_work():
        text = "watchdog needs Linux with /proc and pidfd_open (5.3 or newer)"
        raise RefusedError(text, USAGE)
    return Watchdog(store)


async def _watch(
    dog: "Watchdog", every: float | None, *, as_json: bool
) -> Sequence["Act"]:
    """The acts of one look; with `every` it looks again and again."""
    try:
        await dog.open()
        acts = await dog.look()  # a store that cannot be watched is refused
        _say(acts, as_json=as_json, once=every is None)
        while every is not None:
            await asyncio.sleep(every)
            _say(await _looked(dog, as_json=as_json), as_json=as_json)
    finally:
        await dog.close()
    return acts


async def _looked(dog: "Watchdog", *, as_json: bool) -> Sequence["Act"]:
    """Look until the server answers."""
    told = False
    while True:
        try:
            acts = await dog.look()
        except StoreError as exc:
            if not told:
                _say_cut_off(exc, as_json=as_json)
            told = True
            await asyncio.sleep(1.0)
        else:
            return acts


def _say_cut_off(exc: StoreError, *, as_json: bool) -> None:
    if as_json:
        say_json({"error": {"code": exc.code, "message": str(exc)}})
    else:
        text = "nobody is ended while the server does not answer: %s"
        logging.getLogger(__name__).warning(text, exc)


def _say(acts: Sequence["Act"], *, as_json: bool, once: bool = False) -> None:
    """With --json one object for each act; the log has told the others."""
    if as_json:
        for act in acts:
            say_json(plain(act))
    elif once:
        counts = [f"{sum(a.did == did for a in acts)} {did}" for did in _WORDS]
        console().print(clean(", ".join(counts)))


_WORDS = ("ended", "gone", "left")
