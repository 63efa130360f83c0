"""The side file `<db>.mark`: how far the log had got, noted outside of it.

It tells when an older copy of the database was put in place of the newer one: then the
mark is ahead of the log, or speaks of a log that went another way. A copy that was made
together with its side file cannot be told from the original.

The file is replaced whole. If power fails in between it may be the older one, or none
that can be read: then nothing is noticed, and nothing is claimed either.
"""

from __future__ import annotations

from pathlib import Path

from turnfold import canonical
from turnfold.errors import DiskError, InvalidInputError
from turnfold.ports.store import Head, Mark
from turnfold_adapters.stores.sqlite_bodies import write_synced


class MarkFile:
    """The mark of one store. Only its worker writes it."""

    def __init__(self, path: str) -> None:
        self._path = Path(f"{path}.mark")

    def read(self) -> Mark | None:
        """None if there is none, or none that anybody could have written whole."""
        try:
            return _mark(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise DiskError(path=str(self._path), problem=str(exc)) from exc

    def write(self, mark: Mark) -> None:
        """Raises DiskError; then the mark before this one stands. The same again is
        not written."""
        if self.read() == mark:
            return
        new = Path(f"{self._path}.new")
        try:
            write_synced(new, _bytes(mark))
            new.replace(self._path)
        except OSError as exc:
            raise DiskError(path=str(self._path), problem=str(exc)) from exc


def _bytes(mark: Mark) -> bytes:
    head = mark.head
    value = {"hash": head.hash.hex(), "position": head.position, "store": mark.store}
    return canonical.dumps(value) + b"\n"


def _mark(data: bytes) -> Mark | None:
    try:
        value = canonical.loads(data.removesuffix(b"\n"))
    except InvalidInputError:
        return None
    match value:
        case {"hash": str(digest), "position": int(position), "store": str(store)}:
            return _parsed(store, position, digest)
        case _:
            return None


def _parsed(store: str, position: int, digest: str) -> Mark | None:
    try:
        return Mark(store=store, head=Head(position, bytes.fromhex(digest)))
    except ValueError:
        return None
