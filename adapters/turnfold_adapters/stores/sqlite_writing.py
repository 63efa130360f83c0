"""The writing side of a SQLite store: BEGIN, COMMIT, and what a failure of one means.

One transaction at a time, as a `with` block or by hand: its end may run in another
thread than its beginning (the kernel waits for slow disks in one).
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import apsw

from turnfold.errors import BusyError, FateUnknownError
from turnfold_adapters.stores.sqlite_bodies import BodyFolder
from turnfold_adapters.stores.sqlite_connection import (
    problem_of,
    rollback,
    typed_error,
)
from turnfold_adapters.stores.sqlite_known import Remembered
from turnfold_adapters.stores.sqlite_rows import SqliteReads
from turnfold_adapters.stores.sqlite_tx import SqliteTx
from turnfold_adapters.stores.sqlite_wal import Wal


class Writing:
    """What `SqliteStore.write()` gives, the same for every transaction. `own` reads on
    the writing connection; `doubt` is told of a COMMIT that may have reached the disk.
    """

    def __init__(
        self,
        own: SqliteReads,
        wal: Wal,
        folder: BodyFolder,
        doubt: Callable[[BaseException], None],
    ) -> None:
        self.own, self.wal = own, wal
        self.known = Remembered()
        self._conn, self._run = own.conn, own.run
        self._folder, self._doubt = folder, doubt
        self._tx: SqliteTx | None = None

    def __enter__(self) -> SqliteTx:
        conn = self._conn
        if conn.in_transaction:  # of this very handle
            raise BusyError(path=self.own.path, waited_ms=0)
        try:
            self._run("BEGIN IMMEDIATE")
        except apsw.Error as exc:
            raise self._typed(exc) from exc
        try:
            self.wal.grow()
            self.known.check(conn)
            self._tx = tx = SqliteTx(self.own, self._folder, self.known)
        except BaseException as exc:
            self._undo(None, exc)
            if isinstance(exc, apsw.Error | OSError):
                raise self._typed(exc) from exc
            raise
        return tx

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tx, self._tx = self._tx, None
        assert tx is not None  # noqa: S101  entered before
        try:
            if exc is not None:
                self._undo(tx, exc)
                return
            self._flush(tx)
        finally:
            tx.over = True
        self._commit(tx)
        self.known.keep(self._conn, tx.head, tx.closed)
        if tx.erased:
            self._folder.doom(tx.doomed)
            self.wal.truncate(wait=True)
        else:
            self.wal.relieve()

    def _flush(self, tx: SqliteTx) -> None:
        try:
            tx.flush()
        except BaseException as exc:
            self._undo(tx, exc)
            raise

    def _undo(self, tx: SqliteTx | None, cause: BaseException) -> None:
        self.known.forget()
        if not rollback(self._conn, cause):
            self._doubt(cause)
        elif tx is not None:
            self._folder.remove(tx.files, cause)

    def _commit(self, tx: SqliteTx) -> None:
        try:
            self._run("COMMIT")
        except (apsw.BusyError, apsw.FullError) as exc:
            # The frame that would commit was not written whole: surely not stored.
            self._undo(tx, exc)
            raise self._typed(exc) from exc
        except apsw.Error as exc:
            problem = problem_of(exc)
            self._doubt(exc)
            raise FateUnknownError(path=self.own.path, problem=problem) from exc
        except BaseException as exc:  # interrupted, before or after it was done
            if self._conn.in_transaction:
                self._undo(tx, exc)
            raise

    def _typed(self, exc: Exception) -> Exception:
        return typed_error(exc, self.own.path, self.own.wait.waited_ms)
