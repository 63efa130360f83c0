"""`restored`: a person declares that a store is a restored copy."""

import asyncio

from turnfold import Kernel
from turnfold_cli.acting import By, Why, named
from turnfold_cli.common import STORE, AsJson, StorePath, answering, for_people, opened
from turnfold_cli.output import clean, say_json
from turnfold_cli.screen import console


def restored(
    by: By = None, why: Why = "", store: StorePath = STORE, as_json: AsJson = False
) -> None:
    """Say that the store is a restored copy: all that is open in it may have been done
    already, so it waits for a person. Do this before the worker starts."""
    with answering(as_json=as_json):
        person = by or named()
        done = asyncio.run(_done(store, person, why))
        if as_json:
            say_json({"act": "restored", "by": person, "done": done})
            return
        waits = "it is in the inbox: the next worker does it before all else"
        text = "what was open waits for a person" if done else waits
        console().print(clean(f"{for_people(store)}: {text}, by {person}"))
        console().print("see: turnfold list --status parked")


async def _done(address: str, person: str, why: str) -> bool:
    async with opened(address):  # raises if there is no store
        pass
    async with Kernel(address, work=False) as kernel:
        return await kernel.declare_restored(by=person, why=why)
