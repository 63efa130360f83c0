"""`turnfold inbox`: the commands that the worker has not taken up yet."""

from collections.abc import Mapping

from turnfold.inspect import CommandView
from turnfold_cli.common import STORE, AsJson, StoreHere, StorePath, answering, ask
from turnfold_cli.output import age, plain, say_json, screen_of, when, zone_line
from turnfold_cli.screen import console
from turnfold_cli.times import Utc


def inbox(
    at: StoreHere = None,
    store: StorePath = STORE,
    utc: Utc = False,  # noqa: ARG001  its callback has chosen the zone
    as_json: AsJson = False,
) -> None:
    """List what other processes asked for and the worker has not logged yet, the oldest
    first."""
    with answering(as_json=as_json):
        commands = ask(at or store, lambda inspect: inspect.inbox())
        if as_json:
            say_json({"commands": [plain(command) for command in commands]})
        else:
            _print(commands)


def _print(commands: tuple[CommandView, ...]) -> None:
    screen = console()
    if not commands:
        screen.print("nothing waits")
        return
    screen.print(zone_line(), style="dim")
    rows = [command_cells(command) for command in commands]
    screen_of(rows, screen, give=("for",), drop=("key", "posted"))


def command_cells(command: CommandView) -> Mapping[str, str]:
    """A command in the inbox as cells of a table."""
    return {
        "age": age(command.at),
        "command": command.kind,
        "for": command.stream,
        "posted": when(command.at),
        "key": command.key or "",
    }
