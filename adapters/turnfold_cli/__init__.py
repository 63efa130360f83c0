"""The command line: composition root, may import all, nothing imports it.

`main` is always installed. It knows every command by name and loads only the requested
one; without the extra `cli` it lists the commands and names the missing extra.

Exit codes: 0 success, 1 a finding (a broken rule, a loss), 2 wrong usage or a missing
extra, 3 the store cannot be opened.
"""

import gc
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

FOUND, USAGE, NO_STORE = 1, 2, 3

# Name -> (module, function, one line). A command is a function that typer understands.
COMMANDS = MappingProxyType(
    {
        "status": ("status", "status", "Is a person needed? Exit code 1 if so."),
        "stats": ("stats", "stats", "Counts and rates by channel, reason, day ..."),
        "list": ("list_", "list_", "What goes out: parked, dead, waiting, delivered."),
        "turns": ("list_", "turns", "What came in."),
        "find": ("find", "find", "A message by place and time: what became of it."),
        "show": (
            "show",
            "show",
            "What happened to a message, turn or entry; what next.",
        ),
        "gates": (
            "gates",
            "gates",
            "What is held back, why, how much waits behind it.",
        ),
        "worker": ("gates", "worker", "Who works on the store. Exit code 1 if nobody."),
        "channels": ("gates", "channels", "Accounts with counts, help and gates."),
        "inbox": ("inbox", "inbox", "What waits for the worker to take it up."),
        "retry": ("act", "retry", "Send a dead letter again; run a failed turn again."),
        "resolve": ("act", "resolve", "Say what became of an entry in doubt."),
        "discard": ("act", "discard", "Do nothing more about a turn or an entry."),
        "ack": ("act", "ack", "Say that a dead letter was seen."),
        "abort": ("act", "abort", "Stop a turn or an entry."),
        "open": ("act", "open_", "Open the gates of a place; let a held turn run."),
        "close": ("act", "close", "Hold a place back until a person opens it."),
        "unhold": ("act", "unhold", "Let a turn run that is held for a person."),
        "redact": ("act", "redact", "Erase texts and files of what is over."),
        "resubmit": ("act", "resubmit", "Run a failed turn again, once."),
        "certify": ("certify", "certify", "Say that the worker's host is dead."),
        "watchdog": ("watchdog", "watchdog", "End workers whose lease is over."),
        "copy": ("copy", "copy", "Move a store between a file and PostgreSQL."),
        "migrate": ("migrate", "migrate", "Bring tables up to this turnfold."),
        "prune": ("prune", "prune", "Take old turns and entries out of the store."),
        "archive": ("archive", "archive", "Old turns go into a file, and then away."),
        "size": ("size", "size", "What takes the room."),
        "backup": ("backup", "backup", "Copy the store while its gateway runs."),
        "restore": ("restore", "restore", "Put a backup in the place of the store."),
        "restored": ("restored", "restored", "Say that the store is a restored copy."),
        "health": ("health", "health", "Does it make progress? For probes."),
        "serve": ("serve", "serve", "The dashboard, for a browser."),
        "import": ("import_", "import_", "Take in the queue of another gateway."),
        "tail": ("tail", "tail", "Follow new events in plain words."),
        "log": ("log", "log", "The log as NDJSON, one record a line."),
        "audit": ("audit", "audit", "Check a log against every rule it must keep."),
        "demo": ("demo", "demo", "Kill a real gateway over and over, and count."),
        "head": ("head", "head", "Where the log ends; keep it to check the log later."),
    }
)
_NEEDS = ("typer", "rich")
_ABOUT = """Look into a turnfold store, and decide about what waits in it.

Only retry, resolve, discard, ack, abort, open, close, unhold, redact, resubmit, prune,
archive, restore, restored, certify, watchdog, copy, migrate, import and serve --acts
change a store.

Exit codes: 0 all is well, 1 something was found, 2 wrong usage or a missing extra,
3 the store cannot be opened. `turnfold COMMAND --help` has the options."""


def main() -> None:
    """The script `turnfold`."""
    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        sys.stderr.write(_without(missing))
        sys.exit(USAGE)
    _claim_streams()
    gc.disable()  # imports leave no garbage; looking for it costs a tenth
    application = app(sys.argv[1:])
    gc.freeze()
    gc.enable()
    application()


def _claim_streams() -> None:
    """A closed stream becomes one that forgets. A store must not get its number: what is
    printed would go into the store."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)


def _without(missing: list[str]) -> str:
    width = max(map(len, COMMANDS))
    rows = (f"  turnfold {name:{width}}  {row[2]}\n" for name, row in COMMANDS.items())
    return (
        f"{''.join(rows)}\nThe command line needs the extra 'cli' "
        f"(missing: {', '.join(missing)}):\n  pip install 'turnfold[cli]'\n"
    )


def app(arguments: list[str]) -> "typer.Typer":
    """The application with the requested command in full and the others by name
    only."""
    import typer  # noqa: PLC0415  may be missing, see main

    from turnfold_cli.usage import Commands, alone  # noqa: PLC0415  as typer

    whole = typer.Typer(
        name="turnfold",
        cls=Commands,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    whole.callback(invoke_without_command=True, help=_ABOUT)(alone)
    asked = next((word for word in arguments if not word.startswith("-")), None)
    for name, (module, function, about) in COMMANDS.items():
        if find_spec(f"turnfold_cli.{module}") is None:
            continue  # a distribution may leave a command out
        if name == asked:
            command = getattr(import_module(f"turnfold_cli.{module}"), function)
            whole.command(name, short_help=about)(command)
        else:
            whole.command(name, help=about)(_stub)
    return whole


def _stub() -> None:
    """A placeholder for a command that was not requested."""
