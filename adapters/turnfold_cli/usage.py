"""The usage of the command line: `turnfold` alone, `--version`, and wrong usage, which
is one line on stderr (with --json: one object on stdout) and exit code 2."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup, TyperOption

from turnfold.visible import shown, shown_json
from turnfold_cli import USAGE

_KEY_FILE = "TURNFOLD_KEY_FILE"
_PATH = 200  # characters of a path in a message


def _with_key(context: typer.Context, _: object, key_file: str | None) -> None:
    if key_file is not None and not context.resilient_parsing:
        use_key(context, key_file)


def use_key(context: typer.Context, key_file: str) -> None:
    """The key file of all stores that this command opens, until it ends."""
    before = os.environ.get(_KEY_FILE)
    try:
        os.environ[_KEY_FILE] = key_file
    except ValueError as exc:  # a NUL, or half of a character
        raise typer.BadParameter(f"no name of a key file: {exc}") from exc

    def put_back() -> None:
        os.environ.pop(_KEY_FILE)
        if before is not None:
            os.environ[_KEY_FILE] = before

    context.call_on_close(put_back)


class Commands(TyperGroup):
    """All commands. Those that open a store take the file of its key."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """With `--key-file`, once."""
        command = super().get_command(ctx, cmd_name)
        if command is not None and cmd_name != "demo":
            names = [name for option in command.params for name in option.opts]
            if "--key-file" not in names:
                command.params.append(_key_option())
        return command

    def main(  # type: ignore[override]  # typer's has many arguments, passed on as they are
        self, args: Sequence[str] | None = None, **how: Any
    ) -> None:
        """Run a command, and end the process with its exit code."""
        words = list(sys.argv[1:] if args is None else args)
        how["standalone_mode"] = False
        try:
            _check(words)
            code = super().main(words, **how)
            sys.stdout.flush()
        except typer.Abort:
            sys.exit(130)
        except OSError as exc:
            if exc.filename is None:
                _unwritten(exc)
            text = f"{str(exc.filename)[:_PATH]}: {exc.strerror}"
            _refuse(exc, text, as_json="--json" in words)
        except Exception as exc:
            say = getattr(exc, "format_message", None)
            if say is None:
                raise
            _refuse(exc, say(), as_json="--json" in words)
        sys.exit(code or 0)


def _check(words: Sequence[str]) -> None:
    """Refuse words that no shell can pass, and a program can."""
    for word in words:
        try:
            odd = b"\0" in os.fsencode(word)
        except UnicodeEncodeError:
            odd = True
        if odd:
            raise typer.BadParameter(f"no argument: {word[:_PATH]!r}")


def _unwritten(exc: OSError) -> NoReturn:
    """The output has no room, or its reader is gone: all that names no file."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the rest is flushed at the end
    typer.echo(f"turnfold: the output cannot be written: {exc.strerror}", err=True)
    sys.exit(USAGE)


def _refuse(exc: Exception, message: str, *, as_json: bool) -> NoReturn:
    """Refuse wrong usage. `exc`: from the parser of arguments; its `ctx` is of the
    command, if any."""
    text = " ".join(message.split())
    context = getattr(exc, "ctx", None)
    if hasattr(exc, "option_name") and context is not None and context.parent is None:
        text += "; the options of a command stand behind its name"
    if as_json:
        error = {"error": {"code": "usage", "message": text}}
        typer.echo(shown_json(json.dumps(error, ensure_ascii=False)))
    else:
        path = "turnfold" if context is None else context.command_path
        typer.echo(f"turnfold: {shown(text)} ({path} --help)", err=True)
    sys.exit(USAGE)


def _key_option() -> TyperOption:
    return TyperOption(
        param_decls=["--key-file"],
        metavar="FILE",
        help="The key of an encrypted store; else TURNFOLD_KEY_FILE.",
        expose_value=False,
        is_eager=True,
        callback=_with_key,
    )


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
