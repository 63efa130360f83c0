"""Files beside a SQLite store: large bodies in `<db>.bodies/`, and `<db>.mark`.

A body's file is written under a temporary name, fsynced, renamed to the id of its
stream and its number, and made durable by an fsync of its folder, all before the COMMIT
that names it. A rolled back transaction removes its files again. A crash may leave an
unnamed file, which only wastes space.

The mark is the head of the log, noted outside of it. It reveals an older copy in the
place of the database: then the mark is ahead of the log, or belongs to a log with
another history. A copy that was made together with its mark cannot be recognised. The
mark is replaced as a whole. After a power failure it may be the older one, or
unreadable: then an older copy is not noticed, and no false alarm is raised.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from stat import S_ISREG

import attrs

from turnfold.clock import Lived
from turnfold.errors import DiskError, LostStoreError
from turnfold.ports.store import Head, Watermark
from turnfold_adapters.stores import cipher
from turnfold_adapters.stores.sqlite.schema import NUMBER_BITS

INLINE_MAX = 64 * 1024  # bytes; above it a file is faster to write and erase


# The names of body files: `17-0`, and `17-0.4711.new` while process 4711 writes it.
_OURS = re.compile(r"(\d+)-(\d+)(\.\d+\.new)?").fullmatch


def file_name(place: int) -> str:
    """The file of the body with this key: `<id of its stream>-<number>`."""
    return f"{place >> NUMBER_BITS}-{place & (1 << NUMBER_BITS) - 1}"


def place_in(name: str) -> int | None:
    """The key of the body in a file; None for a temporary file."""
    match = _OURS(name)
    if match is None or match[3]:
        return None
    return int(match[1]) << NUMBER_BITS | int(match[2])


class BodyFolder:
    """The folder of one store. It is made when the first large body comes. `used`: an
    encrypted store keeps large bodies in its database."""

    def __init__(self, path: str, key_file: str | None = None) -> None:
        self.key_file, self.used = key_file, not cipher.encrypts(key_file)
        self._path = Path(f"{path}.bodies")
        self._owed: list[int] = []  # erased bodies whose files are still there
        self.failure: DiskError | None = None  # why these files are still there

    def write(self, place: int, data: bytes) -> None:
        """Write a body's file, durable when this returns. Raises DiskError; then there
        is no such file."""
        target = self._path / file_name(place)
        temporary = self._path / f"{file_name(place)}.{os.getpid()}.new"
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

    def read(self, place: int) -> bytes | None:
        """The bytes of a body's file. None if the file is gone. Raises DiskError if it
        cannot be read."""
        target = self._path / file_name(place)
        try:
            return target.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise DiskError(path=str(target), problem=str(exc)) from exc

    def take_back(self, places: Sequence[int], cause: BaseException) -> None:
        """Remove the files of a failed transaction; never masks its cause."""
        for place in places:
            try:
                (self._path / file_name(place)).unlink(missing_ok=True)
            except OSError as exc:
                cause.add_note(f"a body file stays behind: {exc}")

    def names(self) -> Sequence[str]:
        """The files that this library may have written; all other files are foreign."""
        if self._path.is_symlink() or not self._path.is_dir():
            return []
        with os.scandir(self._path) as found:
            ours = [f.name for f in found if f.is_file(follow_symlinks=False)]
        return sorted(filter(_OURS, ours))

    def discard(self, names: Sequence[str]) -> None:
        """Remove files for good, durable when this returns. The disk itself may keep
        old blocks that no program can reach. Raises DiskError at the first file that
        stays."""
        try:
            for name in names:
                (self._path / name).unlink(missing_ok=True)
            if names:
                sync_folder(self._path)
        except OSError as exc:
            raise DiskError(path=str(self._path), problem=str(exc)) from exc

    def erase(self, places: Sequence[int] = ()) -> bool:
        """Remove the files of erased bodies. A file that cannot be removed now is tried
        again by the next call. True if none is left."""
        self._owed += places
        try:
            self.discard([file_name(place) for place in self._owed])
        except DiskError as exc:
            self.failure = exc
            return False
        self._owed.clear()
        self.failure = None
        return True

    def _make(self) -> None:
        if self._path.is_symlink():
            raise OSError(errno.ELOOP, "the folder of bodies is a link")
        if not self._path.is_dir():
            self._path.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self._path.parent)


def sync_folder(path: Path) -> None:
    """Make the file names in a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file that no other user may read, and make its bytes durable, but not
    its name. An older file of this name is removed first: so a link is never
    followed."""
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb") as file:  # noqa: PTH123  a descriptor
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


class OpenFiles:
    """The database and its WAL as they were opened. A commit into files that have lost
    their names is in no store."""

    def __init__(self, path: str) -> None:
        self._path, self._log = path, f"{path}-wal"
        self._known = {name: _file(name) for name in (path, self._log)}

    def check(self) -> None:
        """Raises LostStoreError if a name belongs to another file now, or to none, or
        if the database is shorter than before: SQLite never shortens it."""
        known, now = self._known[self._path], self._look(self._path)
        if known is not None and now is not None and now[2] < known[2]:
            raise self._lost(self._path, "cut off")
        self._known[self._path] = now
        self._look(self._log)

    def check_log(self, least: int) -> bool:
        """Check the log before a transaction writes: after the write a truncated log
        has its old size again, with a hole. False if it is shorter than `least`. Raises
        LostStoreError if it was moved, replaced or deleted."""
        now = self._look(self._log)
        return now is None or now[2] >= least

    def cut_off(self) -> LostStoreError:
        """The error for a truncated log, if SQLite itself did not truncate it."""
        return self._lost(self._log, "cut off")

    def _look(self, name: str) -> _File | None:
        known, now = self._known[name], _file(name)
        if known is None:
            self._known[name] = now  # the WAL comes with the first commit
        elif now is None or now[:2] != known[:2]:
            raise self._lost(name, "moved, replaced or deleted")
        return now

    def _lost(self, name: str, how: str) -> LostStoreError:
        problem = f"{name} was {how} under this process"
        return LostStoreError(path=self._path, problem=problem)


_File = tuple[int, int, int]  # device, inode, size


def _file(name: str) -> _File | None:
    """The identity and size of a file; None if there is none. Raises DiskError."""
    try:
        status = os.stat(name)  # noqa: PTH116  once for each commit: no Path is made
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise DiskError(path=name, problem=str(exc)) from exc
    return status.st_dev, status.st_ino, status.st_size


_MARK_BYTES = 64 * 1024  # a mark has some hundred


class MarkFile:
    """The mark of one store. Only its worker writes it."""

    def __init__(self, path: str) -> None:
        self._path = Path(f"{path}.mark")

    def read(self) -> Watermark | None:
        """The mark; None if there is none, or if it is incomplete."""
        try:
            return _mark(_content(self._path))
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise DiskError(path=str(self._path), problem=str(exc)) from exc

    def write(self, mark: Watermark) -> None:
        """Write a mark. Raises DiskError; then the mark before it stays. An equal mark
        is not written again."""
        if self.read() == mark:
            return
        new = Path(f"{self._path}.new")
        try:
            write_synced(new, _bytes(mark))
            new.replace(self._path)
        except OSError as exc:
            raise DiskError(path=str(self._path), problem=str(exc)) from exc


def _content(path: Path) -> bytes:
    """The bytes of a regular file. A pipe in its place would never end."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123  of a descriptor
        if not S_ISREG(os.fstat(file.fileno()).st_mode):
            msg = f"{path} is no regular file; take it away"
            raise OSError(msg)
        return file.read(_MARK_BYTES)


def _bytes(mark: Watermark) -> bytes:
    head = mark.head
    value = {"hash": head.hash.hex(), "position": head.position, "store": mark.store}
    if mark.lived is not None:
        value["lived"] = attrs.asdict(mark.lived)
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _mark(data: bytes) -> Watermark | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    match value:
        case {"hash": str(digest), "position": int(position), "store": str(store)}:
            return _parsed(store, position, digest, value.get("lived"))
        case _:
            return None


def _parsed(store: str, position: int, digest: str, lived: object) -> Watermark | None:
    try:
        head = Head(position, bytes.fromhex(digest))
    except ValueError:
        return None
    return Watermark(store=store, head=head, lived=_lived(lived))


def _lived(value: object) -> Lived | None:
    """The clock facts in a mark; None if they are incomplete: then log time goes on
    from the last record."""
    match value:
        case {
            "boot": str(boot),
            "log": int(log),
            "wall": int(wall),
            "since": int(since),
            "sure": int(sure),
            "trusted": bool(trusted),
            "vouched": bool(vouched),
            "behind": int(behind),
            "corrected": int(corrected),
        }:
            return Lived(
                boot=boot,
                log=log,
                wall=wall,
                since=since,
                sure=sure,
                trusted=trusted,
                vouched=vouched,
                behind=behind,
                corrected=corrected,
            )
        case _:
            return None
