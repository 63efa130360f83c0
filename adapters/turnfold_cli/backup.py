"""`turnfold backup`: a copy of the store while its gateway runs, checked."""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from turnfold.audit import Report
from turnfold_cli.common import STORE, AsJson, StorePath, answering
from turnfold_cli.keep import checked, copied, free, place, staged
from turnfold_cli.output import clean, say_json
from turnfold_cli.screen import console

Target = Annotated[
    Path, typer.Argument(metavar="FILE", help="The copy; nothing may be there yet.")
]


NoText = Annotated[
    bool,
    typer.Option(
        "--without-text",
        help="Leave texts and files out of it, to give it to somebody who looks.",
    ),
]


def backup(
    target: Target,
    without_text: NoText = False,
    store: StorePath = STORE,
    as_json: AsJson = False,
) -> None:
    """Copy the store while its gateway runs, audit the copy, and give it its name.

    Keep it without a .mark file. `turnfold restore FILE` puts it back. A copy without
    text can only be read: ids, times, places and the notes of operators are in it.
    """
    with answering(as_json=as_json):
        began = time.monotonic()
        report = asyncio.run(_made(store, target, text=not without_text))
        seconds = round(time.monotonic() - began, 3)
        head = f"{report.head.position} {report.head.hash.hex()}"
        if as_json:
            facts = {"file": str(target), "seconds": seconds, "events": report.events}
            say_json(facts | {"head": head, "text": not without_text})
            return
        text = f"{report.events:,} events copied and audited in {seconds:.1f} s"
        console().print(clean(f"{target}: {text}; head {head}"), soft_wrap=True)


async def _made(address: str, target: Path, *, text: bool) -> Report:
    new = staged(target, "unchecked")
    free(target)
    await copied(address, new, text=text)
    report = await checked(new)
    place(new, target)
    return report
