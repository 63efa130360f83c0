"""The thread that moves the log of a busy store into its main file.

It has a connection of its own, which holds no lock that a writer or reader waits for,
and SQLite works without the interpreter's lock. See specs/decisions/0017.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import EIO
from pathlib import Path
from threading import Thread

import apsw

from turnfold.errors import StoreError

_PASSES = 2  # the second moves what was written during the first: the rest is small
_FD = Path("/dev/fd")
_sync = getattr(os, "fdatasync", os.fsync)  # macOS has no such


class Mover:
    """`connect` opens its connection, when it is first needed. `done`: it has moved
    what it could, and nobody has looked at that yet. `failure`: why it could not."""

    def __init__(
        self, path: str, connect: Callable[[], apsw.Connection], *, sync: bool = True
    ) -> None:
        self._path, self._connect, self._sync = path, connect, sync
        self._conn: apsw.Connection | None = None
        self._thread: Thread | None = None
        self.done = False
        self._handle = -1  # the descriptor that was last used for a sync
        self.failure: Exception | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None

    def start(self, then: Callable[[], None]) -> None:
        """`then` is called in the thread when it is done."""
        thread = Thread(target=self._run, args=(then,), name="turnfold-checkpoint")
        self._thread = thread
        try:
            thread.start()
        except RuntimeError as exc:  # no more threads, or the interpreter ends
            self._thread, self.failure, self.done = None, exc, True
            then()

    def wait(self) -> None:
        """Until no pass is running."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        """When no pass is running."""
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()

    def _run(self, then: Callable[[], None]) -> None:
        self.failure = None
        try:
            if self._conn is None:
                self._conn = self._connect()
            for _ in range(_PASSES):
                self._conn.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                if self._sync:
                    self._handle = flush(self._path, self._handle)
        except (apsw.Error, StoreError, OSError) as exc:
            self.failure = exc
        self.done = True
        then()


def flush(path: str, last: int = -1) -> int:
    """Write to the disk what the kernel still holds of a file that SQLite has open.

    SQLite does so itself before it uses the log anew; that is quick if it was done
    before. A descriptor of SQLite is used: were the file opened here, closing it would
    drop the locks of this process. `last`: the one that was used before, which spares
    a gateway with thousands of connections to look at them all. Returns the one that
    was used, -1 for none. Raises OSError if the disk fails.
    """
    for handle in _handles(path, last):
        try:
            _sync(handle)
        except OSError as exc:
            if exc.errno == EIO:
                raise
            continue  # closed just now, by another handle on this store
        return handle
    return -1


def _handles(path: str, last: int = -1) -> Iterator[int]:
    """Descriptors of a file in this process; none where they are not listed."""
    with suppress(OSError):
        file = os.stat(path)  # noqa: PTH116  beside fstat
        if last >= 0 and _is(last, file):
            yield last
        for name in os.listdir(_FD):  # noqa: PTH208  names, one of which is gone again
            if _is(int(name), file):
                yield int(name)


def _is(handle: int, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), file)
    except OSError:  # closed since
        return False
