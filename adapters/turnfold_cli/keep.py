"""Shared by `backup` and `restore`: a copy is made under another name, checked, and
only then renamed."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from turnfold.audit import Report, audit_store
from turnfold.ports.plugins import plugin_store_at
from turnfold.ports.store import Keeping, Store, store_at
from turnfold_adapters.stores.cipher import parsed
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_adapters.stores.sqlite.copying import clear, into_place, sides, take_back
from turnfold_cli import FOUND, USAGE
from turnfold_cli.common import RefusedError, opened

Tell = Callable[[int, int], None]
ONE_STORE = "source and target are one store"


def file_of(address: str) -> Path:
    """The file of a store's address. Raises RefusedError if the address names no
    file."""
    store = store_at(address)
    if not isinstance(store, SqliteStore):
        raise RefusedError(f"{store.address} is no file", USAGE)
    return Path(store.path)


def check_apart(source: str, target: str) -> None:
    """Raises RefusedError if both are one store."""
    files = [Path(parsed(address)[0]) for address in (source, target)]
    same = all(file.exists() for file in files) and files[0].samefile(files[1])
    if same or source == target:
        raise RefusedError(ONE_STORE, USAGE)


def free(target: Path) -> None:
    """Raises RefusedError if there is a file at this path, or no folder for it."""
    if not target.parent.is_dir():
        raise RefusedError(f"{target.parent} is no folder", USAGE)
    for path in sides(target):
        if path.exists():
            raise RefusedError(f"{path} is there already", USAGE)


def staged(target: Path, what: str) -> Path:
    """The name of an unfinished copy; the rest of an earlier crash is removed. Raises
    RefusedError if the target is a folder or a device, which nobody may move away."""
    if target.is_dir():
        raise RefusedError(f"{target} is a folder", USAGE)
    if target.exists() and not target.is_file():
        raise RefusedError(f"{target} is there, and is no file", USAGE)
    path = target.with_name(f"{target.name}.{what}")
    take_back(path, target)
    clear(path)
    return path


async def copied(address: str, target: Path, **how: bool) -> None:
    async with opened(address) as store:
        does = keeping(store)
        with progress("pages") as tell:
            await does.copy(target, tell, **how)


def keeping(store: Store) -> Keeping:
    does = store.maintenance
    if not isinstance(does, Keeping):
        raise RefusedError(f"{store.address}: this kind of store has no copies", USAGE)
    return does


async def checked(path: Path) -> Report:
    """Raises RefusedError if the copy breaks a rule."""
    async with opened(str(path)) as store:
        report = await audit_store(store, plugins=plugin_store_at(str(path)))
    if report.first is not None:
        text = f"the copy at {path} breaks a rule: {report.first}"
        raise RefusedError(text, FOUND, "audit")
    return report


def place(path: Path, target: Path) -> None:
    try:
        into_place(path, target)
    except OSError as exc:
        raise RefusedError(f"{target}: {exc.strerror}", USAGE) from exc


@contextmanager
def progress(what: str) -> Iterator[Tell]:
    """A bar on stderr, if it is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, whole: None  # noqa: ARG005  no terminal
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, whole: bar.update(task, completed=done, total=whole)
