"""The default store: one SQLite file through apsw, WAL, `synchronous=FULL`.

One connection writes, in IMMEDIATE transactions; another reads and never blocks it.
Nothing is confirmed before COMMIT returned. After a COMMIT that failed in a way that
may have reached the disk, the store refuses everything until it is opened again.

The layout and the figures behind it: specs/decisions/0010-sqlite-layout.md.
"""

from __future__ import annotations  # `list` is a method of the port, too

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import apsw

from turnfold.codec import Record
from turnfold.errors import (
    DiskError,
    NotAStoreError,
    NotOpenError,
    ReadOnlyError,
    StoreError,
)
from turnfold.ports.store import Body, Head, Listing, Mark, Summary
from turnfold_adapters.stores import sqlite_place as place
from turnfold_adapters.stores import sqlite_rows as rows
from turnfold_adapters.stores import sqlite_schema
from turnfold_adapters.stores.doorbell import SocketDoorbell
from turnfold_adapters.stores.ownership import Claim, FileOwnership
from turnfold_adapters.stores.sqlite_bodies import BodyFolder
from turnfold_adapters.stores.sqlite_connection import (
    BusyWait,
    Settings,
    Synchronous,
    open_mover,
    open_read_only,
    open_reader,
    open_writer,
    problem_of,
    typed,
    typed_error,
)
from turnfold_adapters.stores.sqlite_mark import MarkFile
from turnfold_adapters.stores.sqlite_mover import Mover
from turnfold_adapters.stores.sqlite_rebuild import replace_summaries
from turnfold_adapters.stores.sqlite_wal import Wal, has_log
from turnfold_adapters.stores.sqlite_writing import Writing

_MIB = 1024 * 1024
_DURABLE = ("FULL", "EXTRA")  # once COMMIT has returned


class SqliteStore:
    """The store port over one file, resolved to an absolute path at construction.

    `synchronous`: anything weaker than FULL loses confirmed data when power fails.
    `busy_ms`: how long to wait for another process's transaction before BusyError.
    `wal_bytes`: what the log may grow to before work waits until it is moved; a thread
    begins at a quarter of it. Its file is filled up ahead of use to spare the file
    system's journal.
    `vfs`, `exclusive`: a SQLite VFS by name, and one connection without shared memory:
    for tests with a simulated disk.

    Python's own `sqlite3` must not open the file in the same process: closing it there
    drops the locks of this one.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Synchronous = "FULL",
        busy_ms: int = 2000,
        wal_bytes: int = 32 * _MIB,
        vfs: str | None = None,
        exclusive: bool = False,
    ) -> None:
        self.path = place.resolve(path)
        self.wait = BusyWait(busy_ms)
        self._settings = Settings(
            path=self.path, synchronous=synchronous, vfs=vfs, exclusive=exclusive
        )
        self._wal_bytes = wal_bytes
        self._folder = BodyFolder(self.path)
        self._mark = MarkFile(self.path)
        self._state = "not open"
        self._writer: apsw.Connection | None = None
        self._reader: apsw.Connection | None = None
        self._reads: rows.SqliteReads | None = None  # what is committed
        self._writing: Writing | None = None
        self._pid = 0
        self._immutable = False
        self._stamp: tuple[int, ...] = ()  # of the file that was opened as immutable
        self._version = 0
        self._ownership = FileOwnership(self.path, self)

    @property
    def address(self) -> str:
        return self.path

    @property
    def reads_while_writing(self) -> bool:
        """There is a connection for each."""
        return not self._settings.exclusive

    # --- opening and closing ---------------------------------------------------------

    def open(self, *, read_only: bool = False) -> None:
        """Opening twice is opening once; nothing of an existing store changes.

        `read_only` creates, locks and writes nothing at all, not even a -shm file.
        Raises NotAStoreError, NewerSchemaError, UnsafeStoreError, BusyError, DiskError.
        """
        if self._reads is not None:
            return
        place.check_file(self.path)
        try:
            if read_only:
                self._open_read_only()
            else:
                self._open()
        except (apsw.Error, StoreError) as exc:
            self._close_connections()
            if isinstance(exc, StoreError):
                raise
            raise typed_error(exc, self.path, self.wait.waited_ms) from exc
        self._state = "open for reading only" if read_only else "open"
        self._pid = os.getpid()

    def _open(self) -> None:
        place.check_disk(self.path)
        if not Path(self.path).parent.is_dir():
            raise DiskError(path=self.path, problem="its folder does not exist")
        found = has_log(self.path)
        self._writer = open_writer(self._settings, self.wait)
        if self._settings.exclusive:
            self._reader = self._writer
        else:
            self._reader = open_reader(self._settings, self.wait)
        self._reads = self._reads_on(self._reader)
        own = self._reads_on(self._writer)
        wal = Wal(
            self._writer,
            self.path,
            self.wait,
            max_bytes=self._wal_bytes,
            ahead=self._settings.vfs is None,
            found=found,
            mover=self._mover(),
        )
        self._writing = Writing(own, wal, self._folder, self._doubt)
        self._version = self._writer.pragma("data_version")

    def _mover(self) -> Mover | None:
        """None where no second connection may be."""
        if self._settings.exclusive:
            return None
        connect = partial(open_mover, self._settings)
        return Mover(self.path, connect, sync=self._settings.synchronous != "OFF")

    def _open_read_only(self) -> None:
        if not Path(self.path).exists():
            raise NotAStoreError(path=self.path, problem="it does not exist")
        self._stamp = place.stamp(self.path)
        self._immutable = not place.has_wal(self.path)
        if not self._immutable:
            place.check_disk(self.path)
        self._reader = open_read_only(
            self._settings, self.wait, immutable=self._immutable
        )
        sqlite_schema.check(self._reader, self.path, read_only=True)
        self._reads = self._reads_on(self._reader)
        self._version = self._reader.pragma("data_version")

    def _reads_on(self, conn: apsw.Connection) -> rows.SqliteReads:
        return rows.SqliteReads(conn, self.path, self.wait, self._folder)

    def close(self) -> None:
        """Gives up ownership, too. Harmless when closed."""
        self._ownership.release()
        self._close_connections()
        self._state = "closed"

    def reopen(self) -> None:
        """After a COMMIT of unknown fate: new connections, the same ownership."""
        self._close_connections()
        self.open(read_only=self._state == "open for reading only")

    def _close_connections(self) -> None:
        writing, self._reads, self._writing = self._writing, None, None
        if writing is not None:
            writing.wal.close()
        connections = [self._reader, self._writer]  # the last one empties the log
        self._reader = self._writer = None
        for conn in filter(None, connections):
            conn.close()

    def _doubt(self, exc: BaseException) -> None:
        """What is in memory no longer tells what is on disk: reopen to go on."""
        try:
            self._close_connections()
        except apsw.Error as second:
            exc.add_note(f"closing failed too: {problem_of(second)}")
        self._state = "in doubt after a failed commit; close, open and read"

    # --- reading ---------------------------------------------------------------------

    @property
    def head(self) -> Head:
        return self._read().head

    def read(self, stream: str) -> Sequence[Record]:
        return self._read().read(stream)

    def since(self, position: int) -> Sequence[Record]:
        return self._read().since(position)

    def log(self, after: int = 0) -> Iterator[Record]:
        return rows.stream_log(self._read, after)

    def lookup(self, key: str) -> str | None:
        return self._read().lookup(key)

    def summary(self, stream: str) -> Summary | None:
        return self._read().summary(stream)

    def list(self, listing: Listing) -> Sequence[Summary]:
        return self._read().list(listing)

    def open_streams(self) -> Iterator[Summary]:
        return rows.stream_open(self._read())

    def body(self, digest: str) -> bytes:
        return self._read().body(digest)

    def salt(self, digest: str) -> bytes:
        return self._read().salt(digest)

    def bodies(self, digests: Sequence[str]) -> Iterator[Body]:
        return rows.stream_bodies(self._read(), digests)

    def summaries(self, streams: Sequence[str]) -> Iterator[Summary]:
        return rows.stream_summaries(self._read(), streams)

    @typed
    def changed(self) -> bool:
        """Changes by this handle's own writes do not count."""
        self._read()
        conn = self._writer or self._reader
        if conn is None:
            return False
        version, self._version = self._version, conn.pragma("data_version")
        return version != self._version

    def _read(self) -> rows.SqliteReads:
        if self._reads is None:
            raise NotOpenError(state=self._state)
        self._check_process()
        # a writer came, and may have left again
        if self._immutable and place.touched(self.path, self._stamp):
            self._close_connections()
            self._state = "not open"
            self.open(read_only=True)
            self._version = -1
        return self._reads

    # --- writing ---------------------------------------------------------------------

    def write(self) -> Writing:
        writing = self._desk()
        self._check_process()
        return writing

    def _desk(self) -> Writing:
        """Raises NotOpenError or ReadOnlyError."""
        if self._writing is not None:
            return self._writing
        if self._reads is not None:
            raise ReadOnlyError(path=self.path)
        raise NotOpenError(state=self._state)

    def _check_process(self) -> None:
        # SQLite forbids it, and a child that goes on anyway can damage the file.
        if self._pid != os.getpid():
            raise NotOpenError(state="the one of the process that forked this one")

    def rebuild(self, summaries: Iterable[Summary]) -> None:
        with self.write() as tx:
            replace_summaries(tx, summaries)
        self._desk().known.forget()  # it may have mended versions

    # --- what can wait for an idle moment -------------------------------------------

    def checkpoint(self) -> bool:
        """Move the log into the main file, and end what an erasing could not. What
        stood in the way is `checkpoint_failure`."""
        wal = self._desk().wal
        gone = self._folder.doom([])
        return wal.checkpoint() and gone

    @property
    def checkpoint_failure(self) -> StoreError | None:
        wal = self._writing.wal if self._writing else None
        return self._folder.failure or (wal.failure if wal else None)

    def sweep(self) -> int:
        """Remove body files that no body names. The write lock is held meanwhile, so
        no other process is just about to name one; without such files nothing is."""
        reads, own = self._read(), self._desk().own
        if all(reads.has_file(name) for name in self._folder.names()):
            return 0
        with self.write():
            stray = [name for name in self._folder.names() if not own.has_file(name)]
            self._folder.discard(stray)
        return len(stray)

    def mark(self, store: str) -> None:
        """Skipped while `synchronous` leaves open what is durable."""
        head, level = self.head, self._settings.synchronous
        settled = self._desk().wal.settled
        if level in _DURABLE or (level == "NORMAL" and settled):
            self._mark.write(Mark(store=store, head=head))

    def marked(self) -> Mark | None:
        self._read()
        return self._mark.read()

    def had(self, head: Head) -> bool:
        return self._read().had(head)

    # --- the worker ------------------------------------------------------------------

    def ownership(self) -> FileOwnership:
        return self._ownership

    def doorbell(self) -> SocketDoorbell:
        return SocketDoorbell(self.path)

    def claim(self) -> Claim | None:
        """The last worker's record."""
        return self._read().claim()

    def record_claim(self, claim: Claim) -> None:
        """Replace the worker's record; it explains and decides nothing."""
        with self.write() as tx:
            tx.record_claim(claim)
