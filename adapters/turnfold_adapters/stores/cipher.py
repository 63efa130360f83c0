"""Connections to files that may be encrypted (specs/keep.md, Encryption).

A key is the bytes of a file. A store names its key file (`SqliteStore(key_file=)`, or
`?key_file=` behind the path in its address). For a store that names none, the variable
TURNFOLD_KEY_FILE does. A key needs the build of apsw with SQLite3 Multiple Ciphers. The
key itself stands in no error and no log.
"""

import os
from pathlib import Path

import apsw

from turnfold.errors import (
    MissingKeyError,
    NotEncryptedError,
    StoreKeyError,
    WrongKeyError,
)

VARIABLE = "TURNFOLD_KEY_FILE"
_MARK = "?key_file="
_WRITE = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
_PLAIN = b"SQLite format 3\0"
# The cipher leaves eight bytes of SQLite's header readable; these three never change.
_CONSTANT, _CONSTANT_AT, _HEADER = bytes((64, 32, 32)), 21, 24


def parsed(address: str) -> tuple[str, str | None]:
    """The path in an address, and the key file that it names."""
    path, mark, key_file = address.partition(_MARK)
    return path, key_file if mark else None


def address_of(path: str, key_file: str | None) -> str:
    return path if key_file is None else f"{path}{_MARK}{key_file}"


def encrypts(key_file: str | None) -> bool:
    """Is a store that names this key file encrypted?"""
    return key_file is not None or bool(os.environ.get(VARIABLE))


def connect(
    name: str,
    *,
    path: str,
    key_file: str | None = None,
    flags: int = _WRITE,
    vfs: str | None = None,
) -> apsw.Connection:
    """`path`: of the file. Raises StoreKeyError where a key cannot be used or none is
    given, NotEncryptedError for a key of a file without one. The first read shows whether
    the key fits."""
    key = _key(path, key_file)
    if vfs is None:
        _check(path, key)
    conn = apsw.Connection(name, flags=flags, vfs=vfs)
    if key is not None:
        conn.pragma("hexkey", key.hex())
    return conn


def is_database(path: str) -> bool:
    """Does the file begin as a SQLite database does, plain or encrypted? A cipher fills
    the first bytes with chance, so a single one of them says nothing."""
    header = _header(path)
    return header.startswith(_PLAIN) or _is_encrypted(header)


def unreadable(path: str) -> WrongKeyError | None:
    """The error for a file that SQLite takes for no database, if it is encrypted."""
    return WrongKeyError(path=path) if _is_encrypted(_header(path)) else None


def _check(path: str, key: bytes | None) -> None:
    header = _header(path)
    if key is None and _is_encrypted(header):
        raise MissingKeyError(path=path)
    if key is not None and header.startswith(_PLAIN):
        raise NotEncryptedError(path=path)


def _header(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_HEADER)
    except OSError:  # whoever opens the database says what is wrong
        return b""


def _is_encrypted(header: bytes) -> bool:
    return header[_CONSTANT_AT:] == _CONSTANT and not header.startswith(_PLAIN)


def _key(path: str, key_file: str | None) -> bytes | None:
    where = os.environ.get(VARIABLE) or None if key_file is None else key_file
    if where is None:
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
