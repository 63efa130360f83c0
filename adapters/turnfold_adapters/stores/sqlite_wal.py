"""The write-ahead log of a store: grown ahead, kept, emptied when there is time.

Writing into a file that already has its size spares the file system's own journal:
commits became 1.7 times cheaper and the 99th percentile fell from 5.5 to 1.1 ms. A
checkpoint moves pages to the main file; it never runs in the middle of work unless the
log has grown past a cap.
"""

from __future__ import annotations

import os
from pathlib import Path

import apsw

from turnfold.errors import StoreError
from turnfold_adapters.stores.sqlite_connection import BusyWait, typed_error

_FRAME = 4096 + 24  # bytes of a page in the log
_AHEAD = 256 * 1024  # what one transaction may need
_STEP = 2 * 1024 * 1024


class Wal:
    """The log behind one writer connection. `pages` is what a checkpoint would move.

    `erased`: bytes that were erased may still stand in the file, so the next checkpoint
    has to cut it off. `found`: it was there before it was opened; its writer may have
    died just after it erased something.
    """

    def __init__(
        self,
        conn: apsw.Connection,
        path: str,
        wait: BusyWait,
        *,
        max_bytes: int,
        ahead: bool = True,
        found: bool = False,
    ) -> None:
        self._conn = conn
        self._path = path
        self._wait = wait
        self._max = max_bytes
        self.erased = found
        self._unused = 0 if ahead else max_bytes
        self._size = self._unused  # of the file, as far as it was grown here
        self._cap_pages = self._limit = max(max_bytes, _STEP) // _FRAME
        self.pages = 0
        self.failure: StoreError | None = None  # of the last checkpoint, for health
        conn.set_wal_hook(self._committed)

    def _committed(self, _conn: apsw.Connection, _name: str, pages: int) -> int:
        self.pages = pages
        return apsw.SQLITE_OK

    def relieve(self) -> None:
        """Before a transaction: checkpoint if the log is past its cap.

        A failure stops no work, for the log can still grow; it is kept in `failure`
        and tried again one cap later.
        """
        if self.pages >= self._limit:
            self.checkpoint()
            failed = self.failure is not None or self.pages >= self._limit
            self._limit = self.pages + self._cap_pages if failed else self._cap_pages

    @property
    def settled(self) -> bool:
        """True if everything that was committed here stands in the main file."""
        return not self.pages and not self.erased

    def checkpoint(self) -> bool:
        """Move all pages that no reader still needs; True if none is left."""
        if self.settled:
            return True
        if self.erased:
            return self.truncate(wait=False)
        return self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)

    def truncate(self, *, wait: bool) -> bool:
        """Move all pages and cut the file off; True if that was done. `wait`: for who
        is reading; else it is put off to the next checkpoint."""
        self.erased = True
        if not wait:
            self._conn.set_busy_handler(None)
        try:
            done = self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
        finally:
            self._conn.set_busy_handler(self._wait)
        if done:
            self.erased = False
            self._size = self._unused
        return done

    def _checkpoint(self, mode: int) -> bool:
        try:
            total, moved = self._conn.wal_checkpoint(mode=mode)
        except apsw.Error as exc:
            self.failure = typed_error(exc, self._path)
            return False
        self.failure = None
        self.pages = max(0, total - moved)
        return self.pages == 0

    def grow(self) -> None:
        """Fill the log's file up with zeros ahead of use; only in a write transaction.

        The write lock is what makes it safe: nobody else appends meanwhile. Zeros end
        the log for every reader. On a disk that is nearly full it is left out.
        """
        if self._size >= self._max or self.pages * _FRAME + _AHEAD < self._size:
            return
        path = Path(f"{self._path}-wal")
        if _free_bytes(path.parent) < 16 * self._max:
            self._size = self._max  # do not ask again
            return
        with path.open("r+b") as file:  # no lock of SQLite is on this file
            size = file.seek(0, os.SEEK_END)
            target = min(size + _STEP, self._max)
            file.write(bytes(max(0, target - size)))
        self._size = max(size, target)


def has_log(path: str) -> bool:
    """True if a store that is closed has left a log with something in it."""
    try:
        return Path(f"{path}-wal").stat().st_size > 0
    except FileNotFoundError:
        return False


def _free_bytes(folder: Path) -> int:
    space = os.statvfs(folder)
    return space.f_bavail * space.f_frsize
