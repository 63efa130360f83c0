"""Connections to files that may be encrypted (specs/keep.md, Encryption).

The variable TURNFOLD_KEY_FILE names a file. Its bytes are the key of every store that
this process opens. It needs the build of apsw with SQLite3 Multiple Ciphers. The key
itself is in no error and no log.
"""

import os
from pathlib import Path

import apsw

from turnfold.errors import StoreKeyError

VARIABLE = "TURNFOLD_KEY_FILE"
_WRITE = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE


def encrypted() -> bool:
    """Does this process have a key?"""
    return bool(os.environ.get(VARIABLE))


def connect(
    name: str, *, path: str, flags: int = _WRITE, vfs: str | None = None
) -> apsw.Connection:
    """`path`: of the file, for errors. Raises StoreKeyError where a key cannot be used.
    Only the first read shows if the key fits."""
    key = _key(path)
    conn = apsw.Connection(name, flags=flags, vfs=vfs)
    if key is not None:
        conn.pragma("hexkey", key.hex())
    return conn


def _key(path: str) -> bytes | None:
    where = os.environ.get(VARIABLE)
    if not where:
        return None
    if getattr(apsw, "mc_version", None) is None:
        problem = "this SQLite cannot encrypt; install apsw-sqlite3mc in place of apsw"
        raise StoreKeyError(path=path, problem=problem)
    try:
        key = Path(where).read_bytes().strip()
    except OSError as exc:
        problem = f"the key file {where} cannot be read: {exc.strerror}"
        raise StoreKeyError(path=path, problem=problem) from exc
    if not key:
        raise StoreKeyError(path=path, problem=f"the key file {where} is empty")
    return key
