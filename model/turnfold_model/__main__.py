"""`python -m turnfold_model <command>`: every check of the model, for people and CI.

A command is a module with `HELP`, `configure(parser)` and `run(options, say)`, which
returns the object that `--json` prints and whether all is well. Add a row to COMMANDS;
modules are imported when they are asked for, since some need packages of an extra.
Progress goes to standard error, the result to standard output. Exit code: 0 passed, 1 a
violation, 2 wrong usage or a missing extra, 3 no violation so far, but the search is
not complete.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from turnfold_model.command_kit import UnavailableError

COMMANDS: Final = {
    "crash": "turnfold_model.crash.command",
    "day": "turnfold_model.day.command",
    "edges": "turnfold_model.edge_walks.command",
    "explore": "turnfold_model.protocol_model.command",
    "flow": "turnfold_model.flow.command",
    "kill9": "turnfold_model.kill9.command",
    "mutants": "turnfold_model.mutants.command",
    "ownership": "turnfold_model.ownership_model.command",
    "powerloss": "turnfold_model.powerloss.command",
    "readings": "turnfold_model.readings.command",
    "tlc": "turnfold_model.tla.command",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    name = words[0] if words else ""
    if name not in COMMANDS:
        return _usage(asked=name in ("-h", "--help"))
    try:
        module = import_module(COMMANDS[name])
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("turnfold"):
            raise
        _say(f"{name} needs {exc.name}: pip install 'turnfold[model,formal]'")
        return 2
    options = _parser(name, module).parse_args(words[1:])
    began = time.monotonic()
    try:
        result, well = module.run(options, _say)
    except UnavailableError as exc:
        _say(f"{name}: {exc}")
        return 2
    text, code = _verdict(result, well=well)
    _say(f"{name}: {text} in {time.monotonic() - began:.1f} s")
    _print(result, as_json=options.json)
    return code


def _verdict(result: dict[str, Any], *, well: bool) -> tuple[str, int]:
    """The verdict in words, and as an exit code. A search that ran out of time does not
    count as passed."""
    complete = result.get("complete")
    total = result.get("scenarios", result.get("configurations"))
    if not well:
        return "BROKEN", 1
    if complete is False:
        return "nothing found, cut short", 3
    if complete is None or complete is True or complete == total:
        return "well", 0
    return f"nothing found, {complete} of {total} searched to their end", 3


def _parser(name: str, module: ModuleType) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m turnfold_model {name}", description=module.HELP
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--seconds", type=float, metavar="N", help="stop after about N seconds"
    )
    module.configure(parser)
    return parser


def _usage(*, asked: bool) -> int:
    lines = ["usage: python -m turnfold_model <command> [--json] [--seconds N]"]
    for name, where in COMMANDS.items():
        try:
            text = import_module(where).HELP
        except ModuleNotFoundError as exc:
            text = f"(needs {exc.name})"
        lines.append(f"  {name:12} {text}")
    print("\n".join(lines), file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201  progress for people


def _print(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))  # noqa: T201  the result is the output
        return
    for key, value in result.items():
        if isinstance(value, list) and all(isinstance(word, str) for word in value):
            print(f"{key}: {'; '.join(value) or 'none'}")  # noqa: T201  as above
        elif not isinstance(value, (list, dict)):
            print(f"{key}: {value}")  # noqa: T201  as above


if __name__ == "__main__":
    sys.exit(main())
