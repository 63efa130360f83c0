"""Where a store lies: one resolver for its path, and what its file system can do.

Every part of the library asks `resolve`, so a writer and a sweeper can never mean
different files (and a later change of directory or HOME moves nothing).
"""

from __future__ import annotations

import os
from pathlib import Path

from turnfold.errors import NotAStoreError, UnsafeStoreError

# POSIX locks or shared memory of these do not hold between machines.
_NETWORK = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "davfs",
        "fuse.ceph-fuse",
        "fuse.davfs",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "gfs2",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "smb3",
        "smbfs",
    }
)
_MOUNTS = Path("/proc/self/mountinfo")


def resolve(path: str | os.PathLike[str]) -> str:
    """The absolute path without links that this path means now.

    Raises UnsafeStoreError for what SQLite would take as a database in memory.
    """
    text = os.fspath(path)
    if not text or text == ":memory:" or "\0" in text:
        problem = "it is not the path of a file; for a store in memory use MemoryStore"
        raise UnsafeStoreError(path=text, problem=problem)
    return os.path.realpath(Path(text).expanduser())


def check_file(path: str) -> None:
    """Raises NotAStoreError for a folder."""
    if Path(path).is_dir():
        raise NotAStoreError(path=path, problem="it is a folder")


def check_disk(path: str) -> None:
    """Raises UnsafeStoreError for a network disk."""
    kind = file_system(path)
    if kind in _NETWORK:
        problem = f"{kind} is a network file system; locks do not hold there"
        raise UnsafeStoreError(path=path, problem=problem)


def file_system(path: str) -> str | None:
    """The type of the file system under a path, None where the system does not say."""
    try:
        lines = _MOUNTS.read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:  # not Linux
        return None
    return file_system_in(lines, path)


def file_system_in(mounts: list[str], path: str) -> str | None:
    """As `file_system`, from lines of mountinfo; later mounts cover earlier ones."""
    best, found = -1, None
    for line in mounts:
        left, _, right = line.partition(" - ")
        point = _unescaped(left.split(" ")[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, found = len(point), right.split(" ")[0]
    return found


def _unescaped(point: str) -> str:
    for code, char in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
        point = point.replace("\\" + code, char)
    return point


def has_wal(path: str) -> bool:
    """True if a store must be read through its write-ahead log.

    Raises UnsafeStoreError if there is one that cannot be read without writing.
    """
    try:
        size = os.stat(f"{path}-wal").st_size  # noqa: PTH116  asked before each read
    except (FileNotFoundError, NotADirectoryError):
        return False
    shm = Path(f"{path}-shm").exists()
    if not shm and size:
        problem = "it has a -wal but no -shm; open it once for writing"
        raise UnsafeStoreError(path=path, problem=problem)
    return shm


def stamp(path: str) -> tuple[int, ...]:
    """Changes when a writer has been here, even if it left no log behind."""
    status = os.stat(path)  # noqa: PTH116  as above
    return status.st_ino, status.st_size, status.st_mtime_ns


def touched(path: str, before: tuple[int, ...]) -> bool:
    """True if a writer is here, or has been since the stamp was `before`."""
    return has_wal(path) or stamp(path) != before
