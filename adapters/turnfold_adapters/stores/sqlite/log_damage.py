"""Damage in a write-ahead log, as opposed to a torn end.

SQLite reads a log up to the first frame that does not fit, and ignores the rest without
an error. A crash or a loss of power leaves at most one incomplete transaction: the last
one, because each is synced before the next one begins. So a frame of the same log
generation *behind* the end of that transaction proves damage, and confirmed commits are
lost. Damage in the last transaction looks like a torn end.
"""

from __future__ import annotations

import os
import struct
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from attrs import frozen

from turnfold_adapters.stores.sqlite.wal import FRAME, HEADER, handles

_FRAME_HEAD = 24  # page, size after a commit or 0, two salts, two sums: 4 bytes each
_SALTS = slice(16, 24)  # in the header of the log
_FRAME_SALTS = slice(8, 16)
_COMMIT = slice(4, 8)
_INDEX = 48  # the first copy of the header of the index
_INDEX_PAGES = slice(16, 20)
_INDEX_SALTS = slice(32, 40)


@frozen(kw_only=True)
class LostCommits:
    """Commits in a log that cannot be read: their least number, and a digest that names
    them."""

    count: int
    digest: bytes


def lost_commits(path: str) -> LostCommits | None:
    """The lost commits of a log. Call it after SQLite has read the log, best while no
    process can write. None if no commit is lost, or if there is no proof."""
    known = _index(path)
    if known is None:
        return None
    salts, pages = known
    try:
        with Path(f"{path}-wal").open("rb") as file:  # no lock of SQLite is on this
            return _look(file.fileno(), salts, pages)
    except FileNotFoundError:
        return None


def _index(path: str) -> tuple[bytes, int] | None:
    """The part of the log that SQLite has accepted: its salts, and the number of
    pages."""
    for handle in handles(f"{path}-shm"):
        with suppress(OSError):
            data = os.pread(handle, _INDEX, 0)
            if len(data) == _INDEX:
                pages = int.from_bytes(data[_INDEX_PAGES], sys.byteorder)
                return data[_INDEX_SALTS], pages
    return None


def _look(handle: int, salts: bytes, pages: int) -> LostCommits | None:
    header = os.pread(handle, HEADER, 0)
    if not pages and any(header) and not _fits(header):  # SQLite accepted no page
        salts = _frame(handle, 0)[_FRAME_SALTS]
    elif header[_SALTS] != salts:
        return None  # the log begins anew with the next commit
    if not any(salts):  # a log of zeros alone, which may be long
        return None
    ends: list[bytes] = []
    behind = False
    for number in range(pages, (os.fstat(handle).st_size - HEADER) // FRAME):
        head = _frame(handle, number)
        if head[_FRAME_SALTS] != salts:
            continue
        behind = behind or bool(ends)
        if any(head[_COMMIT]):
            ends.append(head)
    if not behind:
        return None
    return LostCommits(count=len(ends), digest=sha256(b"".join(ends)).digest())


def _fits(header: bytes) -> bool:
    """Is the checksum of a log's header right? The last bit of its first word gives the
    byte order of the sum."""
    big = header[3] & 1
    words = struct.unpack(f"{'>' if big else '<'}6I", header[:24])
    first = second = 0
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return struct.pack(">2I", first, second) == header[24:32]


def _frame(handle: int, number: int) -> bytes:
    return os.pread(handle, _FRAME_HEAD, HEADER + number * FRAME)
