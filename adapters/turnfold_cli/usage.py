"""The usage of the command line: `turnfold` alone, `--version`, and wrong usage, which
is one line on stderr (with --json: one object on stdout) and exit code 2."""

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from turnfold.visible import shown, shown_json
from turnfold_cli import USAGE


class Commands(TyperGroup):
    """All commands."""

    def main(  # type: ignore[override]  # typer's has many arguments, passed on as they are
        self, args: Sequence[str] | None = None, **how: Any
    ) -> None:
        """Run a command, and end the process with its exit code."""
        words = list(sys.argv[1:] if args is None else args)
        how["standalone_mode"] = False
        try:
            code = super().main(words, **how)
        except typer.Abort:
            sys.exit(130)
        except Exception as exc:
            say = getattr(exc, "format_message", None)
            if say is None:
                raise
            _refuse(exc, say(), as_json="--json" in words)
        sys.exit(code or 0)


def _refuse(exc: Exception, message: str, *, as_json: bool) -> NoReturn:
    """Refuse wrong usage. `exc`: from the parser of arguments; its `ctx` is of the
    command, if any."""
    text = " ".join(message.split())
    if as_json:
        error = {"error": {"code": "usage", "message": text}}
        typer.echo(shown_json(json.dumps(error, ensure_ascii=False)))
    else:
        context = getattr(exc, "ctx", None)
        path = "turnfold" if context is None else context.command_path
        typer.echo(f"turnfold: {shown(text)} ({path} --help)", err=True)
    sys.exit(USAGE)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version as version_of  # noqa: PLC0415  slow

        typer.echo(f"turnfold {version_of('turnfold')}")
        raise typer.Exit


def alone(
    context: typer.Context,
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Which one."),
    ] = False,
) -> None:
    """Without a command: print the list of commands, with exit code 2."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(USAGE)
