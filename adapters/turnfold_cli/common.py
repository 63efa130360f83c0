"""What all commands share: options, opening a store for reading, and how errors end."""

import platform
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from turnfold.errors import CorruptLogError, StoreError, TurnfoldError, UsageError
from turnfold.ports.store import Store, store_at
from turnfold_adapters.stores.processes import is_alive
from turnfold_cli import FOUND, NO_STORE, USAGE
from turnfold_cli.output import clean, say_json

STORE = "gateway.db"
StorePath = Annotated[
    str,
    typer.Option(
        "--store", "-s", envvar="TURNFOLD_STORE", help="Path or address of the store."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]


class RefusedError(Exception):
    """The command ends here; `code` is its exit code."""

    def __init__(self, text: str, code: int, kind: str = "usage") -> None:
        super().__init__(text)
        self.text, self.code, self.kind = text, code, kind


@contextmanager
def answering(*, as_json: bool) -> Iterator[None]:
    """Every typed error becomes one line on stderr (with --json: one object on stdout)
    and an exit code."""
    try:
        yield
    except RefusedError as exc:
        _refuse(exc.text, exc.code, exc.kind, as_json=as_json)
    except CorruptLogError as exc:
        _refuse(str(exc), FOUND, exc.code, as_json=as_json)
    except UsageError as exc:
        _refuse(str(exc), USAGE, exc.code, as_json=as_json)
    except StoreError as exc:
        _refuse(str(exc), NO_STORE, exc.code, as_json=as_json)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _refuse(text: str, code: int, kind: str, *, as_json: bool) -> NoReturn:
    if as_json:
        say_json({"error": {"code": kind, "message": text}})
    else:
        typer.echo(f"turnfold: {clean(text)}", err=True)
    raise typer.Exit(code)


@asynccontextmanager
async def opened(address: str) -> AsyncIterator[Store]:
    """The store, for reading only: nothing is created, migrated, locked or written."""
    store = store_at(address)
    try:
        await store.open(read_only=True)
    except TurnfoldError as exc:
        raise RefusedError(str(exc), NO_STORE, exc.code) from exc
    try:
        yield store
    finally:
        await store.close()


async def worker_lives(store: Store) -> bool | None:
    """Is the last known worker alive? None where this host cannot know."""
    owner = await store.ownership().current()
    if owner is None:
        return False
    return is_alive(owner) if owner.host == platform.node() else None


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise RefusedError(f"{path}: {exc.strerror}", USAGE) from exc
