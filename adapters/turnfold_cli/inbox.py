"""`turnfold inbox`: the commands that the worker has not taken up yet."""

import asyncio
from collections.abc import Callable

from rich.text import Text

from turnfold.inspect import CommandView, Inspect
from turnfold_cli.common import STORE, AsJson, StorePath, answering, opened
from turnfold_cli.output import clean, console, fitting, plain, say_json, when


def inbox(store: StorePath = STORE, as_json: AsJson = False) -> None:
    """List what other processes asked for and the worker has not logged yet, the oldest
    first."""
    with answering(as_json=as_json):
        commands = asyncio.run(_commands(store))
        if as_json:
            say_json({"commands": [plain(command) for command in commands]})
        else:
            _print(commands)


async def _commands(address: str) -> tuple[CommandView, ...]:
    async with opened(address) as store:
        return await Inspect(store).inbox()


def _print(commands: tuple[CommandView, ...]) -> None:
    screen = console()
    if not commands:
        screen.print("nothing waits")
        return
    columns: dict[str, Callable[[CommandView], str | Text]] = {
        "command": lambda c: clean(c.kind),
        "for": lambda c: clean(c.stream),
        "key": lambda c: clean(c.key),
        "posted": lambda c: when(c.at),
    }
    screen.print(fitting(columns, commands, width=screen.width, drop=("key",)))
