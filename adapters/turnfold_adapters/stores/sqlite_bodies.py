"""Large bodies as files in `<db>.bodies/`, durable before the commit that names them.

A file is written under a temporary name, fsynced, renamed to the digest in hexadecimal
(base64 would clash on a disk that ignores case) and made durable by an fsync of its
folder. A rolled back transaction takes its files away again; a crash may leave a file
that nothing names, which is only lost space.
"""

from __future__ import annotations

import os
from pathlib import Path

from turnfold.errors import DiskError, MissingBodyError

INLINE_MAX = 64 * 1024  # bytes; above it a file is faster to write and to erase


class BodyFolder:
    """The folder of one store. It is made when the first large body comes."""

    def __init__(self, path: str) -> None:
        self._path = Path(f"{path}.bodies")
        self._doomed: list[str] = []
        self.failure: DiskError | None = None  # why a doomed file is still there

    def write(self, digest: bytes, data: bytes) -> None:
        """Durable when it returns. Raises DiskError; then no such file is there."""
        target = self._path / digest.hex()
        temporary = self._path / f"{digest.hex()}.{os.getpid()}.new"
        try:
            self._make()
            try:
                write_synced(temporary, data)
                temporary.replace(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            sync_folder(self._path)
        except OSError as exc:
            raise DiskError(path=str(target), problem=str(exc)) from exc

    def read(self, digest: str, raw: bytes) -> bytes:
        """Raises MissingBodyError or DiskError."""
        target = self._path / raw.hex()
        try:
            return target.read_bytes()
        except FileNotFoundError as exc:
            raise MissingBodyError(digest=digest) from exc
        except OSError as exc:
            raise DiskError(path=str(target), problem=str(exc)) from exc

    def remove(self, digests: list[bytes], cause: BaseException) -> None:
        """Take back what a failed transaction wrote; never masks its cause."""
        for digest in digests:
            try:
                (self._path / digest.hex()).unlink(missing_ok=True)
            except OSError as exc:
                cause.add_note(f"a body file stays behind: {exc}")

    def names(self) -> list[str]:
        """The files that are there, whoever wrote them."""
        if not self._path.is_dir():
            return []
        return sorted(file.name for file in self._path.iterdir())

    def discard(self, names: list[str]) -> None:
        """Remove files for good: durable when it returns. What the disk itself keeps
        of them is its own affair. Raises DiskError at the first that cannot go."""
        try:
            for name in names:
                (self._path / name).unlink(missing_ok=True)
            if names:
                sync_folder(self._path)
        except OSError as exc:
            raise DiskError(path=str(self._path), problem=str(exc)) from exc

    def doom(self, digests: list[bytes]) -> bool:
        """Remove the files of bodies that are erased already; what cannot go now is
        tried again with the next. True if none is left."""
        self._doomed += [digest.hex() for digest in digests]
        try:
            self.discard(self._doomed)
        except DiskError as exc:
            self.failure = exc
            return False
        self._doomed.clear()
        self.failure = None
        return True

    def _make(self) -> None:
        if not self._path.is_dir():
            self._path.mkdir(exist_ok=True)
            sync_folder(self._path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and make its bytes durable; its name is not yet."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
