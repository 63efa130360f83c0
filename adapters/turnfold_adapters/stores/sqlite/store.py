"""The default store: one SQLite file by apsw, WAL, `synchronous=FULL` (decision 0010).

One connection writes, in IMMEDIATE transactions; another reads and never waits for it.
No write is confirmed before COMMIT returned. After a failed COMMIT that may have
reached the disk, the store refuses all calls until it is opened again.

Commits run on the event loop while the disk is quick, else in one thread. All other
work that may wait for the disk or another process runs there. Reads run on the loop.
"""

from __future__ import annotations  # `list` is a method of the port, too

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw

from turnfold.clock import Lived
from turnfold.enums import Flush
from turnfold.errors import (
    DamagedError,
    DiskError,
    NotAStoreError,
    NotOpenError,
    ReadOnlyError,
    StoreError,
    UnsafeStoreError,
)
from turnfold.logs import lines
from turnfold.messages import LARGE
from turnfold.ports.store import (
    Body,
    BodyRef,
    Command,
    Count,
    Found,
    Head,
    Listing,
    Loaded,
    Owner,
    Posted,
    Record,
    Refused,
    Stored,
    Summary,
    Wanted,
    Watermark,
    Write,
)
from turnfold_adapters.plugins.sqlite import SqlitePluginStore
from turnfold_adapters.stores import cipher
from turnfold_adapters.stores.checking import check_shards
from turnfold_adapters.stores.doorbell import SocketDoorbell
from turnfold_adapters.stores.ownership import Claim, FileOwnership
from turnfold_adapters.stores.private import make_private
from turnfold_adapters.stores.sqlite import connection, copying, schema
from turnfold_adapters.stores.sqlite.connection import (
    BusyWait,
    Settings,
    Synchronous,
    problem_of,
    typed_error,
)
from turnfold_adapters.stores.sqlite.files import BodyFolder, MarkFile, OpenFiles
from turnfold_adapters.stores.sqlite.listing import Listings
from turnfold_adapters.stores.sqlite.log_damage import LostCommits, lost_commits
from turnfold_adapters.stores.sqlite.reads import Reads, read_files
from turnfold_adapters.stores.sqlite.wal import Mover, Wal, has_log
from turnfold_adapters.stores.sqlite.writing import (
    WouldWaitError,
    WriteQueue,
    Writing,
    is_heavy,
    is_large,
)

T = TypeVar("T")
_Parts = tuple[Writing | None, apsw.Connection | None, apsw.Connection | None]

_LOG = lines()
_MIB = 1024 * 1024
_HAS_LOCKS = os.name == "posix"
_DURABLE = ("FULL", "EXTRA")  # once COMMIT has returned


class SqliteStore:
    """The store port over one file, resolved to an absolute path at construction.

    `synchronous`: anything weaker than FULL loses confirmed data when power fails.
    `flush`: where commits run. "auto": on the event loop while they wait less than 2 ms
    for the disk, else in a thread. "loop": everything runs on the loop and no call
    suspends, which is for callers without an event loop (`ports.store.now`). "thread".
    `busy_ms`: how long to wait for another process's transaction before BusyError.
    `wal_bytes`: the size of the log at which work waits for a checkpoint; a thread
    begins one at a quarter of it. The log's file is filled up ahead of use to spare the
    file system's journal. `vfs`, `exclusive`: a SQLite VFS by name, and one connection
    without shared memory, which makes `flush` "loop": for tests with a simulated disk.
    `key_file`: holds the key of an encrypted store; `PATH?key_file=FILE` says the same.

    Python's own `sqlite3` must not open the file in the same process: closing it there
    drops the locks of this one.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Synchronous = "FULL",
        flush: Flush | str = Flush.AUTO,
        busy_ms: int = 2000,
        wal_bytes: int = 32 * _MIB,
        key_file: str | os.PathLike[str] | None = None,
        vfs: str | None = None,
        exclusive: bool = False,
    ) -> None:
        self.path, key = connection.located(path)
        self._settings = Settings(
            path=self.path,
            synchronous=synchronous,
            vfs=vfs,
            exclusive=exclusive,
            key_file=key if key_file is None else os.fspath(key_file),
        )
        self._queue = WriteQueue(Flush.LOOP if exclusive else Flush(flush))
        self._busy_ms, self._wal_bytes = busy_ms, wal_bytes
        self._wait = BusyWait(busy_ms)  # of the reader; the writer has its own
        self._folder = BodyFolder(self.path, self._settings.key_file)
        self._mark = MarkFile(self.path)
        self._state = "not open"
        self._writer: apsw.Connection | None = None
        self._reader: apsw.Connection | None = None
        self._reads: Reads | None = None  # committed rows
        self._writing: Writing | None = None
        self._pid = 0
        self._immutable = False
        self._stamp: tuple[int, ...] = ()  # of the file opened as immutable
        self._ownership = FileOwnership(self.path, self)

    @property
    def address(self) -> str:
        return cipher.address_of(self.path, self._settings.key_file)

    @staticmethod
    def plugin_store(address: str) -> SqlitePluginStore:
        """The store of plugin state: a file of its own, beside the store."""
        path, key_file = connection.located(address)
        return SqlitePluginStore(path, key_file=key_file)

    # --- opening and closing ---------------------------------------------------------

    async def open(self, *, read_only: bool = False) -> None:
        """A second open has no effect. An existing store is not changed.

        `read_only` creates, locks and writes nothing at all, not even a -shm file, and
        does not suspend. Raises NotAStoreError, NewerSchemaError, UnsafeStoreError,
        BusyError, DiskError.
        """
        if read_only:
            self._open(read_only=True)
        else:
            await self._queue.there(self._open)

    async def close(self) -> None:
        """Close, and release the ownership. A commit that is under way ends first.
        Harmless when closed."""
        idle = self._queue.idle and self._writing is None  # reading only, or in doubt
        forked = self._pid not in (0, os.getpid())  # a child has no thread
        end = partial(self._end, self._detached("closed"))
        if idle or forked:
            end()
        else:
            await self._queue.there(end)
        if not forked:
            self._queue.close()

    async def reopen(self) -> None:
        """After a COMMIT of unknown outcome: new connections, the same ownership. Other
        calls raise NotOpenError until this is done."""
        read_only = self._state == "open for reading only"
        parts = self._detached("being opened anew")
        await self._queue.there(partial(self._reopen, parts, read_only=read_only))

    def _open(self, *, read_only: bool = False) -> None:
        if self._reads is not None:
            return
        if not _HAS_LOCKS:
            problem = "this system has no POSIX record locks; use Linux or macOS"
            raise UnsafeStoreError(path=self.path, problem=problem)
        try:
            connection.check_file(self.path)
            if read_only:
                self._open_to_read()
            else:
                self._open_to_write()
        except (apsw.Error, OSError, StoreError) as exc:
            _close(*self._detached(self._state))
            if isinstance(exc, StoreError):
                raise
            raise typed_error(exc, self.path, self._wait.waited_ms) from exc
        self._state = "open for reading only" if read_only else "open"
        self._pid = os.getpid()

    def _open_to_write(self) -> None:
        connection.check_disk(self.path)
        if not Path(self.path).parent.is_dir():
            raise DiskError(path=self.path, problem="its folder does not exist")
        real = self._settings.vfs is None
        if real:
            make_private(self.path)
            connection.check_links(self.path)
        found, wait = has_log(self.path), BusyWait(self._busy_ms)
        looks = found and real and not self._settings.exclusive
        look = self._look_for_damage if looks else None
        self._writer = connection.open_writer(self._settings, wait, look)
        own = Reads(self._writer, self.path, wait)
        wal = Wal(
            self._writer,
            self.path,
            wait,
            max_bytes=self._wal_bytes,
            ahead=self._settings.vfs is None,
            found=found,
            mover=self._mover(),
        )
        if self._settings.exclusive:
            self._reader, reads = self._writer, own
        else:
            self._reader = connection.open_reader(self._settings, self._wait)
            reads = Reads(self._reader, self.path, self._wait)
        files = OpenFiles(self.path) if real else None
        self._writing = Writing(own, wal, self._folder, self._doubt, files)
        self._reads = reads

    def _look_for_damage(self, conn: apsw.Connection) -> None:
        """Note lost commits of a damaged log in the mark. Then any later worker treats
        the store as an older copy of itself."""
        if lost_commits(self.path) is None:
            return
        try:
            conn.execute("BEGIN IMMEDIATE")  # look again while no process writes
        except apsw.BusyError:
            return  # a process that works with this log
        try:
            lost = lost_commits(self.path)
            if lost is not None:
                self._note_damage(conn, lost)
        finally:
            conn.execute("ROLLBACK")

    def _note_damage(self, conn: apsw.Connection, lost: LostCommits) -> None:
        problem = f"its log is damaged: {lost.count} commits or more cannot be read"
        _LOG.error("%s: %s", self.path, problem)
        own = Reads(conn, self.path, self._wait)
        before, store = self._mark.read(), own.store_id()
        if store is None:  # the log is kept for a person
            conn.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            raise DamagedError(
                path=self.path, problem=f"{problem}, and no commit is left"
            )
        seen = Head(own.head.position + lost.count, lost.digest)
        lived = None if before is None else before.lived
        self._mark.write(Watermark(store=store, head=seen, lived=lived))

    def _mover(self) -> Mover | None:
        """The mover of the log; None where no second connection is allowed."""
        if self._settings.exclusive:
            return None
        connect = partial(connection.open_mover, self._settings)
        return Mover(self.path, connect, sync=self._settings.synchronous != "OFF")

    def _open_to_read(self) -> None:
        if not Path(self.path).exists():
            raise NotAStoreError(path=self.path, problem="it does not exist")
        self._stamp = connection.stamp(self.path)
        self._immutable = not connection.has_wal(self.path)
        if not self._immutable:
            connection.check_disk(self.path)
        self._reader = connection.open_read_only(
            self._settings, self._wait, immutable=self._immutable
        )
        schema.check(self._reader, self.path, read_only=True)
        self._reads = Reads(self._reader, self.path, self._wait)

    def _detached(self, state: str) -> _Parts:
        """Take all connections out, so that the thread can close them: no call reads
        here any more."""
        parts = self._writing, self._reader, self._writer
        self._writing = self._reads = self._reader = self._writer = None
        self._state = state
        return parts

    def _end(self, parts: _Parts) -> None:
        self._ownership.release()
        _close(*parts)

    def _reopen(self, parts: _Parts, *, read_only: bool) -> None:
        _close(*parts)
        self._open(read_only=read_only)

    def _doubt(self, cause: BaseException) -> None:
        """Memory and disk may differ now: only `reopen` goes on. This may run in the
        thread while the loop reads, so `reopen` or `close` closes the reader."""
        writing, self._writing, self._reads = self._writing, None, None
        self._state = "in doubt after a failed commit; close, open and read"
        try:
            if writing is not None:
                writing.wal.close()
            if self._writer is not None:
                self._writer.close()
        except apsw.Error as second:
            cause.add_note(f"closing failed too: {problem_of(second)}")

    # --- the owner -------------------------------------------------------------------

    async def load(self) -> Loaded:
        return self._read().load()

    async def commit(self, writes: Sequence[Write]) -> Sequence[Stored | Refused]:
        """See the port. Runs on the loop without suspending while the disk is quick and
        no other process is writing; erasing and large bodies wait, so in the thread."""
        writing, queue = self._desk(), self._queue
        check_shards(writes)
        if not writes:
            return ()
        write = writes[0]
        if queue.flush is Flush.LOOP:
            return (writing.commit(write),)
        heavy = is_heavy(write)
        if queue.inline and not heavy:
            try:
                done = queue.here(partial(writing.commit, write, patient=False))
            except WouldWaitError:
                pass  # the thread waits for the other process
            else:
                if writing.wal.due:
                    queue.after(writing.wal.relieve)
                return (done,)
        work = partial(writing.commit, write)
        return (await queue.there(work, timed=not heavy),)

    async def inbox(self, limit: int = 100) -> Sequence[Command]:
        if self._read().inbox_size(limit) <= LARGE or self._queue.flush is Flush.LOOP:
            return self._read().inbox(limit)
        read = partial(self._on_a_reader, lambda reads: reads.inbox(limit))
        return await asyncio.to_thread(read)

    # --- everybody -------------------------------------------------------------------

    async def post(self, commands: Sequence[Command]) -> Sequence[Posted]:
        """See the port. `new` is exact: both the log and the inbox are checked."""
        writing, queue = self._desk(), self._queue
        if not commands:
            return ()
        large = any(map(is_large, commands))
        if queue.inline and queue.flush is not Flush.LOOP and not large:
            try:
                posted = queue.here(partial(writing.post, commands, patient=False))
            except WouldWaitError:
                pass  # the thread waits for the other process
            else:
                if writing.wal.due:
                    queue.after(writing.wal.relieve)
                return posted
        work = partial(writing.post, commands)
        return await queue.there(work, timed=not large)

    async def fetch(self, wanted: Wanted) -> Found:
        found, files = self._read().fetch(wanted)
        if not files:
            return found
        read = partial(read_files, self._folder, found.bodies, files)
        bodies = await self._beside(read)
        return Found(
            streams=found.streams,
            summaries=found.summaries,
            keys=found.keys,
            bodies=bodies,
            children=found.children,
            answers=found.answers,
            waiting=found.waiting,
        )

    async def log(self, after: int = 0, limit: int = 1000) -> Sequence[Record]:
        return self._read().log(after, limit)

    async def list(self, listing: Listing) -> Sequence[Summary]:
        return Listings(self._read()).find(listing)

    async def count(self, listing: Listing, by: Sequence[str] = ()) -> Sequence[Count]:
        return Listings(self._read()).count(listing, by)

    async def places(self) -> Sequence[str]:
        return Listings(self._read()).places()

    async def last(self) -> Record | None:
        return self._read().last()

    async def bodies(
        self, after: BodyRef | None = None, limit: int = 100
    ) -> Sequence[Body]:
        while True:
            page, files = self._read().bodies(after, limit)
            found: dict[BodyRef, Body | None] = {(b.stream, b.number): b for b in page}
            if files:
                read = partial(read_files, self._folder, found, files)
                found = await self._beside(read)
            kept = [body for body in found.values() if body is not None]
            if kept or not page:
                return kept
            after = (page[-1].stream, page[-1].number)  # all files are missing

    async def keys(
        self, after: str = "", limit: int = 1000, part: str = ""
    ) -> Sequence[tuple[str, str]]:
        return self._read().keys(after, limit, part)

    # --- its means -------------------------------------------------------------------

    @property
    def maintenance(self) -> SqliteStore:
        return self

    def facts(self) -> Mapping[str, object]:
        """`flush`: "loop" or "thread". `disk_wait_ms`: per COMMIT, smoothed.
        `checkpoint_failure`: why a checkpoint or the removal of a file failed. `bytes`:
        of the database with its log; `free_bytes`: of its disk."""
        failure = self.checkpoint_failure
        return {
            "flush": "thread" if self._queue.threaded else "loop",
            "disk_wait_ms": round(self._queue.wait_ms, 3),
            "checkpoint_failure": None if failure is None else str(failure),
            **copying.room(self.path),
            **copying.kind(None if self._reads is None else self._reads.conn),
        }

    @property
    def checkpoint_failure(self) -> StoreError | None:
        wal = self._writing.wal if self._writing else None
        return self._folder.failure or (wal.failure if wal else None)

    def ownership(self) -> FileOwnership:
        return self._ownership

    def doorbell(self) -> SocketDoorbell:
        return SocketDoorbell(self.path)

    # --- maintenance -----------------------------------------------------------------

    async def checkpoint(self) -> bool:
        """Move the log into the main file, and finish a pending erasing; `facts` has
        the obstacle."""
        return await self._queue.there(self._desk().checkpoint)

    async def sweep(self) -> int:
        """Remove body files that no body names."""
        return await self._queue.there(self._desk().sweep)

    async def reclaim(self) -> bool:
        """See `pruning`: one block of bodies at a time."""
        return await self._queue.there(self._desk().reclaim)

    async def pruned(self) -> Sequence[Count]:
        return self._read().pruned()

    async def rebuild(self, summaries: Iterable[Summary]) -> None:
        rebuild = partial(self._desk().rebuild, tuple(summaries))
        await self._queue.there(rebuild)

    async def note_watermark(self, store: str, lived: Lived | None = None) -> None:
        """See the port. Skipped if `synchronous` does not make commits durable."""
        await self._queue.there(partial(self._note, self._desk(), store, lived))

    def _note(self, writing: Writing, store: str, lived: Lived | None) -> None:
        level, settled = self._settings.synchronous, writing.wal.settled
        if level in _DURABLE or (level == "NORMAL" and settled):
            mark = Watermark(store=store, head=writing.own.head, lived=lived)
            self._mark.write(mark)

    async def watermark(self) -> Watermark | None:
        self._read()
        return self._mark.read()

    async def contains_head(self, head: Head) -> bool:
        return self._read().contains_head(head)

    async def integrity(self) -> Sequence[str]:
        """The lines of SQLite's integrity check. It reads the whole file, so it has a
        connection and a thread of its own."""
        self._read()
        if self._settings.exclusive:
            return self._read().integrity()
        return await self._beside(partial(self._on_a_reader, Reads.integrity))

    async def size(self) -> Mapping[str, int]:
        self._read()
        return await self._beside(partial(self._on_a_reader, self._size))

    async def copy(
        self, target: Path, tell: copying.Tell, *, text: bool = True
    ) -> None:
        """See `copying`. The list of bodies in files is kept in memory."""
        self._read()
        place = Path(connection.resolve(target))

        def work(reads: Reads) -> None:
            copying.copy(reads.conn, self._folder, place, tell, text=text)

        await self._beside(partial(self._on_a_reader, work))

    def _size(self, reads: Reads) -> Mapping[str, int]:
        return copying.size(reads.conn, self.path)

    def _on_a_reader(self, work: Callable[[Reads], T]) -> T:
        """Run work on a connection of its own, so that other work does not wait."""
        wait, how = BusyWait(self._busy_ms), self._settings
        if self._state == "open for reading only":
            conn = connection.open_read_only(how, wait, immutable=self._immutable)
        else:
            conn = connection.open_reader(how, wait)
        try:
            return work(Reads(conn, self.path, wait))
        finally:
            conn.close()

    # --- the worker: turnfold_adapters.stores.ownership.Book -----------------

    def claim(self) -> Claim | None:
        return self._read().claim()

    def record_claim(self, claim: Claim) -> None:
        self._desk().record_claim(claim)

    def check_writable(self) -> None:
        self._desk()

    def intact(self) -> bool:
        """Are the files of the store still the opened ones?"""
        return self._writing is None or self._writing.intact()

    async def in_turn(self, work: Callable[[], Owner | None]) -> Owner | None:
        return await self._queue.there(work)

    def after_writing(self, work: Callable[[], None]) -> None:
        if self._queue.idle or self._queue.is_here:
            work()
        else:
            self._queue.after(work)

    # --- inside ----------------------------------------------------------------------

    def _read(self) -> Reads:
        """Raises NotOpenError."""
        if self._reads is None:
            raise NotOpenError(state=self._state)
        self._check_process()
        # a writer had the file open meanwhile
        if self._immutable and connection.touched(self.path, self._stamp):
            _close(*self._detached("not open"))
            self._open(read_only=True)
        return self._reads

    def _desk(self) -> Writing:
        """Raises NotOpenError or ReadOnlyError."""
        writing = self._writing
        if writing is None:
            if self._reads is None:
                raise NotOpenError(state=self._state)
            raise ReadOnlyError(path=self.path)
        self._check_process()
        return writing

    def _check_process(self) -> None:
        # SQLite forbids use after a fork: a child that goes on can damage the file.
        if self._pid != os.getpid():
            raise NotOpenError(state="the one of the process that forked this one")

    async def _beside(self, work: Callable[[], T]) -> T:
        """Run work that uses neither connection, in any thread."""
        if self._queue.flush is Flush.LOOP:
            return work()
        return await asyncio.to_thread(work)


def _close(
    writing: Writing | None,
    reader: apsw.Connection | None,
    writer: apsw.Connection | None,
) -> None:
    if writing is not None:
        writing.end()
    for conn in filter(None, (reader, writer)):  # the last close empties the log
        conn.close()
