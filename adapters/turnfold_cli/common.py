"""Shared by all commands: options, opening a store for reading, and errors with their
exit codes."""

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer

from turnfold.enums import Trial
from turnfold.errors import (
    AmbiguousIdError,
    CorruptLogError,
    StoreError,
    TurnfoldError,
    UsageError,
)
from turnfold.inspect import Inspect, Row
from turnfold.inspect.shards import read_all
from turnfold.ports.store import Following, Store, store_at
from turnfold_adapters.stores.cipher import encrypts, parsed
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_cli import FOUND, NO_STORE, USAGE
from turnfold_cli.output import age, clean, columns, say_json, when
from turnfold_cli.screen import console
from turnfold_cli.usage import use_key

T = TypeVar("T")
_CANDIDATES = 8

STORE = "gateway.db"
UNDER_WAY = {Trial.PLAN: "is planned now", Trial.LOOK_UP: "is looked up now"}
_CONFIG = Path("turnfold.toml")
_OF_ARCHIVES = ("list", "turns", "find", "show", "stats", "channels", "log", "audit")


def _configured(context: typer.Context, value: str) -> str:
    """The option, else the variable, else `store` in turnfold.toml of this folder."""
    if value != STORE or context.resilient_parsing or not _CONFIG.is_file():
        return _keyed(context, value)
    import tomllib  # noqa: PLC0415  rarely needed

    try:
        found = tomllib.loads(_CONFIG.read_text("utf-8")).get("store", STORE)
    except (OSError, ValueError) as exc:
        raise typer.BadParameter(f"{_CONFIG} cannot be read: {exc}") from exc
    if not isinstance(found, str):
        raise typer.BadParameter(f"{_CONFIG}: store is no text")
    return _keyed(context, found)


def _keyed(context: typer.Context, address: str) -> str:
    """The address without its key file, which is the key of this command then: of a
    backup and of the state of plugins, too."""
    if is_archive(address) and context.info_name not in _OF_ARCHIVES:
        raise typer.BadParameter(not_for_archives(address))
    path, key_file = parsed(address)
    if key_file is None or "://" in address:
        return address
    use_key(context, key_file)
    return path


def _here(context: typer.Context, value: str | None) -> str | None:
    return None if value is None else _keyed(context, value)


StorePath = Annotated[
    str,
    typer.Option(
        "--store",
        "-s",
        envvar="TURNFOLD_STORE",
        callback=_configured,
        help="Path or address of the store; also `store` in ./turnfold.toml.",
    ),
]
StoreHere = Annotated[
    str | None,
    typer.Argument(
        metavar="[STORE]",
        help="The same as --store.",
        show_default=False,
        callback=_here,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]


class RefusedError(Exception):
    """The command ends here; `code` is its exit code."""

    def __init__(self, text: str, code: int, kind: str = "usage") -> None:
        super().__init__(text)
        self.text, self.code, self.kind = text, code, kind


class SeveralError(Exception):
    """An id fits several rows; `rows` are some of them."""

    def __init__(self, several: AmbiguousIdError, rows: Sequence[Row]) -> None:
        super().__init__(str(several))
        self.several, self.rows = several, rows


@contextmanager
def answering(*, as_json: bool) -> Iterator[None]:
    """Every typed error becomes one line on stderr (with --json: one object on stdout)
    and an exit code."""
    try:
        yield
    except SeveralError as exc:
        if not as_json:
            screen = console(stderr=True)
            rows = shown_rows(exc.rows)
            for line in columns(rows, width=screen.width, give=("words", "to")):
                screen.print(line, soft_wrap=True)
        names = ", ".join(row.short for row in exc.rows)
        more = "" if len(exc.several.streams) <= len(exc.rows) else ", ..."
        text = f"{exc.several.wanted!r} fits several: {names}{more}"
        _refuse(text, USAGE, exc.several.code, as_json=as_json)
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


def shown_rows(rows: Sequence[Row]) -> list[Mapping[str, str]]:
    """Turns and entries as candidates for an id: time, place and words."""
    return [
        {
            "id": clean(row.short),
            "time": when(row.created),
            "to": place_text(row.channel, row.account, row.conversation),
            "status": clean(row.status),
            "words": clean(row.words),
        }
        for row in rows
    ]


def place_text(channel: str, account: str, conversation: str) -> str:
    """A place in its shortest form: the account is left out if it is the default."""
    where = channel if account == "default" else f"{channel}/{account}"
    return clean(f"{where} {conversation}".rstrip())


def ask(address: str, question: Callable[[Inspect], Awaitable[T]]) -> T:
    """Ask a store that is opened for reading only. If an id fits several rows, they are
    shown."""

    async def asked() -> T:
        async with opened(address) as store:
            return await told(await inspect_of(store), question)

    return asyncio.run(asked())


async def inspect_of(store: Store) -> Inspect:
    """The questions to an open store. It knows if a worker lives, so that a next step
    says when nobody is there to take it."""
    alive = await store.ownership().taken()
    return Inspect(store, alive=lambda: alive)


async def told(inspect: Inspect, question: Callable[[Inspect], Awaitable[T]]) -> T:
    """The answer. Raises SeveralError if an id fits several rows."""
    try:
        return await question(inspect)
    except AmbiguousIdError as exc:
        rows = await inspect.rows(exc.streams[:_CANDIDATES], words=True)
        raise SeveralError(exc, rows) from exc


@asynccontextmanager
async def opened(address: str) -> AsyncIterator[Store]:
    """The store with all its shards, opened for reading only: it is not created,
    migrated, locked or written."""
    store = _store_at(address)
    try:
        await store.open(read_only=True)
        if isinstance(store, Following):
            _say_as_of(await store.as_of())
        store = await read_all(store)
    except TurnfoldError as exc:
        raise RefusedError(str(exc), NO_STORE, exc.code) from exc
    try:
        yield store
    finally:
        await store.close()


def _say_as_of(at: int | None) -> None:
    """On stderr, since every command that looks may read a standby."""
    if at is not None:
        typer.echo(f"turnfold: as of {as_of_text(at)}", err=True)


def as_of_text(at: int) -> str:
    """`at`: the last commit of a standby. One without a worker gets none for long."""
    return f"{when(at)}, {age(at)} ago: the last commit that this standby has"


def is_archive(address: str) -> bool:
    return address.endswith(".gz")


def not_for_archives(address: str) -> str:
    return f"{address} is an archive: only {', '.join(_OF_ARCHIVES)} read one"


def _store_at(address: str) -> Store:
    """The store at an address. A plain path is a SQLite store, which needs no entry
    points."""
    if is_archive(address):
        from turnfold_adapters.stores.archive import ArchiveStore  # noqa: PLC0415  rare

        return ArchiveStore(address)
    if ":" not in address:
        return SqliteStore(address)
    return store_at(address)


def is_encrypted(address: str) -> bool:
    """Of a store that can be opened: a key for a store without one is refused."""
    return "://" not in address and encrypts(None)


def for_people(address: str) -> str:
    """The address of a store for a screen: without a password."""
    return _store_at(address).address if "://" in address else address


def read_file(path: Path) -> bytes:
    if path.is_char_device():  # it may never end; a pipe of a shell's `<(...)` does
        raise RefusedError(f"{path} is a device and no file", USAGE)
    try:
        return path.read_bytes()
    except OSError as exc:
        raise RefusedError(f"{path}: {exc.strerror}", USAGE) from exc
