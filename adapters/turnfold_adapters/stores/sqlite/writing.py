"""The writing side of a SQLite store: BEGIN, COMMIT, the meaning of a failure, and the
thread in which a COMMIT waits for a slow disk.

One connection writes, one transaction at a time. It runs on the event loop while the
disk is quick, because a switch to a thread costs more than such a COMMIT; else in one
thread. See specs/decisions/0016.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import apsw

from turnfold.enums import Flush
from turnfold.errors import (
    BusyError,
    ConflictError,
    FateUnknownError,
    InvalidInputError,
    LostStoreError,
    NotOpenError,
    StoreError,
)
from turnfold.logs import lines
from turnfold.messages import LARGE
from turnfold.ports.store import Command, Posted, Refused, Stored, Summary, Write
from turnfold_adapters.stores.checking import check_projection, check_summary, no_stream
from turnfold_adapters.stores.ownership import Claim
from turnfold_adapters.stores.packing import packed
from turnfold_adapters.stores.sqlite import digest, keys, pruning
from turnfold_adapters.stores.sqlite.connection import problem_of, rollback, typed_error
from turnfold_adapters.stores.sqlite.files import (
    INLINE_MAX,
    BodyFolder,
    OpenFiles,
    place_in,
)
from turnfold_adapters.stores.sqlite.known import Remembered
from turnfold_adapters.stores.sqlite.reads import Reads
from turnfold_adapters.stores.sqlite.transaction import (
    CHANGED,
    WriteTransaction,
    summary_row,
)
from turnfold_adapters.stores.sqlite.wal import Wal

_LOG = lines()
T = TypeVar("T")

SLOW_MS, QUICK_MS = 2.0, 1.0  # per COMMIT: above it the thread, below it the loop
_SELDOM = 8  # commits on the loop for each timed one
_NEW = 0.2  # the weight of the latest COMMIT in the mean

_CLAIM = "INSERT OR REPLACE INTO owner VALUES (1, ?, ?, ?, ?, ?, ?, ?)"
_HOLDER = """
    SELECT stream FROM inbox WHERE id = ?1
    UNION ALL SELECT ?3 FROM answer WHERE id = ?1
    UNION ALL SELECT s.name FROM dedupe AS d JOIN stream AS s ON s.id = d.stream
              WHERE d.key = ?2
    UNION ALL SELECT stream FROM inbox WHERE key = ?2
    LIMIT 1
"""
_POST = """
    INSERT INTO inbox (id, kind, stream, key, at, data, bodies, answer)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
# Versions come from the log, too: after this only names come from the old rows.
_CLEAR = """
    UPDATE stream SET open = 0, phase = NULL, created = NULL, updated = NULL,
           lane = NULL, parent = NULL, kind = NULL, due = NULL, expires = NULL,
           reason = NULL, failure = NULL, person = 0, version = whole.version, last = whole.last
    FROM (SELECT stream, max(version) AS version, max(position) AS last
          FROM log GROUP BY stream) AS whole
    WHERE whole.stream = stream.id
"""
_REFUSED_VALUE = (apsw.SQLITE_CONSTRAINT_DATATYPE, apsw.SQLITE_CONSTRAINT_NOTNULL)


class WouldWaitError(Exception):
    """Another process is writing now, and this caller does not wait for it."""


class Writing:
    """The writing connection of an open store. `own` reads on it. `doubt` is called
    after a failed COMMIT that may have reached the disk; then this object is `over`."""

    def __init__(
        self,
        own: Reads,
        wal: Wal,
        folder: BodyFolder,
        doubt: Callable[[BaseException], None],
        files: OpenFiles | None = None,
    ) -> None:
        self.own, self.wal, self._files = own, wal, files
        self.known = Remembered()
        self.over = False
        self._conn, self._run = own.conn, own.run
        self._folder, self._doubt = folder, doubt

    # --- the statements-------------------------------------------------------------

    def commit(self, write: Write, patient: bool = True) -> Stored | Refused:
        """Compare and store. Not `patient`: WouldWaitError instead of waiting for
        another process, and no work on the log's file."""
        tx = WriteTransaction(self.own, self._folder, self.known)
        self._begin(patient)
        try:
            self._check_log()
            self.wal.grow()
            self.known.check(self._conn)
            head = tx.apply(write)
        except BaseException as exc:  # noqa: BLE001  _refused raises all but a conflict
            self._undo(tx, exc)
            return self._refused(tx, write, exc)
        self._end(tx)
        self.known.keep(
            self._conn, head, tx.last_body, tx.digested, tx.moved, tx.closed
        )
        if tx.erased:
            self._folder.erase(tx.doomed)
            self.wal.truncate(wait=True)
        elif patient:
            self.wal.relieve()
        return Stored(head)

    def _refused(
        self, tx: WriteTransaction, write: Write, exc: BaseException
    ) -> Refused:
        why: BaseException = exc
        if isinstance(exc, apsw.ConstraintError) and not self.over:
            why = tx.refusal(write) or exc
        if isinstance(why, ConflictError):
            return Refused(why)
        if isinstance(why, InvalidInputError) and why is not exc:
            raise why from exc
        return self._raise(exc)

    def post(
        self, commands: Sequence[Command], patient: bool = True
    ) -> Sequence[Posted]:
        with self._transaction(patient):
            posted = [self._post(command) for command in commands]
        if patient:
            self.wal.relieve()
        return posted

    def _post(self, c: Command) -> Posted:
        row = self.own.row(_HOLDER, c.id, c.key, c.stream)
        if row is not None:
            return Posted(stream=row[0], new=False)
        bodies = packed(c.bodies)
        self._run(
            _POST, (c.id, c.kind, c.stream, c.key, c.at, c.data, bodies, c.answer)
        )
        return Posted(stream=c.stream, new=True)

    def record_claim(self, claim: Claim) -> None:
        """Replace the worker's record, which only names the owner."""
        o = claim.owner
        row = (o.id, o.boot, o.pid, o.started, o.host, claim.store, claim.lock)
        with self._transaction():
            self._run(_CLAIM, row)

    def rebuild(self, summaries: Iterable[Summary]) -> None:
        """Replace all summaries; they are projections of the log."""
        with self._transaction():
            self.known.forget()
            self._run(_CLEAR)
            self.own.run_many(CHANGED, list(map(self._rebuilt, summaries)))
            digest.renew(self._conn, self.own.head.position)
            keys.renew(self._conn)

    def _rebuilt(self, summary: Summary) -> tuple[Any, ...]:
        check_summary(summary)
        known = self.own.known(summary.stream)
        if not known.version:
            raise no_stream("summary.stream", summary.stream)
        check_projection(summary, known.version, known.id)
        if summary.parent is None:
            return summary_row(summary, known.last, None)
        parent = self.own.known(summary.parent)
        if not parent.version:
            raise no_stream("summary.parent", summary.parent)
        return summary_row(summary, known.last, parent.id)

    def sweep(self) -> int:
        """Remove body files that no body names. The write lock is held meanwhile, so no
        other process is about to name one; without such files no lock is taken."""
        if not self._stray():
            return 0
        with self._transaction():
            stray = self._stray()
            self._folder.discard(stray)
        return len(stray)

    def reclaim(self) -> bool:
        """Reclaim some room of pruned bodies. True if nothing is left to do."""
        with self._transaction():
            self.known.forget()
            return pruning.reclaim(self._conn)

    def _stray(self) -> Sequence[str]:
        return [n for n in self._folder.names() if not self._named(place_in(n))]

    def _named(self, place: int | None) -> bool:
        return place is not None and self.own.in_file(place)

    def checkpoint(self) -> bool:
        gone = self._folder.erase()
        if self._files is not None and not self.wal.settled:
            with self._transaction():
                pass  # a truncated log is not moved
        return self.wal.checkpoint() and gone

    def intact(self) -> bool:
        """Are the files still the opened ones, and complete? Called from time to time,
        so that an idle or unreadable store notices a change, too."""
        if self._files is None:
            return True
        try:
            self._files.check()
            whole = self._files.check_log(self.wal.least)
        except LostStoreError:
            return False
        return whole or self.wal.cut_by_sqlite()

    def end(self) -> None:
        """Call this before the connection is closed, when SQLite moves the log."""
        self.over = True
        try:
            if self._files is not None and not self._files.check_log(self.wal.least):
                self._leave("the database has another one now")
        except StoreError as exc:
            self._leave(str(exc))
        self.wal.close()

    def _leave(self, why: str) -> None:
        """Do not move a log into the database that may belong to another store."""
        _LOG.warning("the write-ahead log is not moved at closing: %s", why)
        self.wal.leave()

    # --- BEGIN and COMMIT ------------------------------------------------------------

    @contextmanager
    def _transaction(self, patient: bool = True) -> Iterator[None]:
        self._begin(patient)
        try:
            self._check_log()
            self.wal.grow()
            yield
        except BaseException as exc:  # noqa: BLE001  _raise always raises
            self._undo(None, exc)
            self._raise(exc)
        self._end(None)

    def _begin(self, patient: bool) -> None:
        if self.over:
            raise NotOpenError(state="closed, or in doubt after a failed commit")
        if self._conn.in_transaction:  # an earlier call was interrupted after BEGIN
            rollback(self._conn, RuntimeError())
        wait = self.own.wait
        wait.patient = patient
        try:
            self._run("BEGIN IMMEDIATE")
        except apsw.BusyError as exc:
            if not patient:
                raise WouldWaitError from exc
            raise BusyError(path=self.own.path, waited_ms=wait.waited_ms) from exc
        except apsw.Error as exc:
            self._check_log()  # a truncated log cannot be read either
            raise typed_error(exc, self.own.path, wait.waited_ms) from exc
        finally:
            wait.patient = True

    def _undo(self, tx: WriteTransaction | None, cause: BaseException) -> None:
        self.known.places.clear()
        if not isinstance(cause, ConflictError):
            self.known.forget()
        if not rollback(self._conn, cause):
            self._in_doubt(cause)
        elif tx is not None and tx.files:
            self._folder.take_back(tx.files, cause)

    def _end(self, tx: WriteTransaction | None) -> None:
        try:
            self._run("COMMIT")
        except (apsw.BusyError, apsw.FullError) as exc:
            # The commit frame was not written completely: surely not stored.
            self._undo(tx, exc)
            self._raise(exc)
        except apsw.Error as exc:
            problem = problem_of(exc)
            self._in_doubt(exc)
            raise FateUnknownError(path=self.own.path, problem=problem) from exc
        except BaseException as exc:  # interrupted, before or after the COMMIT
            self.known.forget()
            if self._conn.in_transaction:
                self._undo(tx, exc)
            raise
        if self._files is not None:
            try:
                self._files.check()
            except LostStoreError:
                self.wal.leave()
                raise

    def _check_log(self) -> None:
        """Check the log's file before the first row. Raises LostStoreError."""
        files = self._files
        if files is None:
            return
        try:
            if not files.check_log(self.wal.least) and not self.wal.cut_by_sqlite():
                raise files.cut_off()
        except LostStoreError:
            self.wal.leave()
            raise

    def _in_doubt(self, cause: BaseException) -> None:
        self.over = True
        self._doubt(cause)

    def _raise(self, exc: BaseException) -> NoReturn:
        """Raise the error of the port for an error in a transaction."""
        if _is_of_value(exc):
            raise InvalidInputError(field="write", problem=str(exc)) from exc
        if isinstance(exc, apsw.Error | OSError):
            raise typed_error(exc, self.own.path, self.own.wait.waited_ms) from exc
        raise exc


def _is_of_value(exc: BaseException) -> bool:
    """True if a value was refused: text that is no Unicode, an integer over 64 bit, a
    wrong type, something too large."""
    if isinstance(exc, apsw.ConstraintError):
        return getattr(exc, "extendedresult", 0) in _REFUSED_VALUE
    kinds = (UnicodeEncodeError, OverflowError, TypeError, apsw.TooBigError)
    return isinstance(exc, kinds)


def is_large(command: Command) -> bool:
    """Is a command too large for the loop? A missing body is refused later, by the
    database."""
    pieces = (command.data, *command.bodies)
    return sum(len(piece) for piece in pieces if piece) > INLINE_MAX


def is_heavy(write: Write) -> bool:
    """True for a write that waits longer than for a COMMIT: an erasing truncates the
    log, which waits for readers, and a body's file is synced with its folder. True also
    for a large write."""
    if write.erase or write.prune is not None:
        return True
    size = 0
    for body in write.bodies:
        length = len(body.data)
        if length > INLINE_MAX:
            return True
        size += length
    return size > LARGE


class WriteQueue:
    """Runs the work of the writing connection, one piece after the other: on the loop,
    or in a thread of its own, which is made at first use.

    `threaded`: commits go to the thread. `wait_ms`: for the disk, per COMMIT, smoothed.
    """

    def __init__(self, flush: Flush) -> None:
        self.flush = flush
        self.threaded = flush is Flush.THREAD
        self.wait_ms = 0.0
        self._thread: ThreadPoolExecutor | None = None
        self._waiting = 0  # unfinished pieces of work of the thread
        self._guard = threading.Lock()  # of that number
        self._unwatched = 0  # commits until the next timed one
        self._ident: int | None = None  # of the thread

    @property
    def idle(self) -> bool:
        """True if the thread has no work, so that work can run here."""
        return self._waiting == 0

    @property
    def is_here(self) -> bool:
        """True if the caller runs in the thread."""
        return self._ident == threading.get_ident()

    @property
    def inline(self) -> bool:
        """True if a commit runs at once on the loop."""
        return self._waiting == 0 and not self.threaded

    def here(self, work: Callable[[], T]) -> T:
        """Run work on the loop. Only some calls are timed: reading a thread's clock is
        a system call."""
        self._unwatched -= 1
        if self._unwatched >= 0:
            return work()
        self._unwatched = _SELDOM
        return self._timed(work)

    async def there(self, work: Callable[[], T], *, timed: bool = False) -> T:
        """Run work in the thread, after all earlier work; in mode LOOP on the loop.
        Cancelling the caller does not cancel the work."""
        if self.flush is Flush.LOOP:
            return work()
        future = asyncio.wrap_future(self._submit(work, timed=timed))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(_retrieved)
            raise

    def after(self, work: Callable[[], object]) -> None:
        """As `there`, for a caller that does not wait. `work` must not raise."""
        if self.flush is Flush.LOOP:
            work()
        else:
            self._submit(work, timed=False)

    def close(self) -> None:
        """End the thread, after its work."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown()

    def _submit(self, work: Callable[[], T], *, timed: bool) -> Any:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "turnfold-writer")
        with self._guard:
            self._waiting += 1
        return self._thread.submit(self._work, work, timed)

    def _work(self, work: Callable[[], T], timed: bool) -> T:
        self._ident = threading.get_ident()
        try:
            return self._timed(work) if timed else work()
        finally:
            with self._guard:
                self._waiting -= 1

    def _timed(self, work: Callable[[], T]) -> T:
        """Run work and measure its wait: its time without processor time, because the
        rows of a large batch are work and no reason for a thread."""
        began, worked = time.perf_counter(), time.thread_time()
        try:
            return work()
        finally:
            waited = time.perf_counter() - began - (time.thread_time() - worked)
            self._saw(max(0.0, waited * 1000))

    def _saw(self, wait_ms: float) -> None:
        self.wait_ms += _NEW * (wait_ms - self.wait_ms)
        if self.flush is Flush.AUTO:
            limit = QUICK_MS if self.threaded else SLOW_MS
            self.threaded = self.wait_ms > limit


def _retrieved(future: asyncio.Future[Any]) -> None:
    """The caller is gone: mark the error as retrieved, so that it is not reported
    again."""
    if not future.cancelled():
        future.exception()
