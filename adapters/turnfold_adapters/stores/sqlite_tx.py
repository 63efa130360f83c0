"""The write transaction of a SQLite store.

An append is checked against the database and against what this transaction already
took; only then it is noted. Rows go in with few large statements just before the COMMIT
or the next read, so a refused append costs no savepoint and leaves no trace.
"""

from __future__ import annotations  # `list` is a method of the port, too

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import apsw
from attrs import define

from turnfold.canonical import next_head
from turnfold.codec import Record
from turnfold.errors import ConflictError, NotOpenError, StoreError
from turnfold.ports.store import Append, Body, Head, Listing, Summary
from turnfold_adapters.stores.checking import (
    check_projection,
    check_shape,
    no_stream,
    off_the_head,
    out_of_turn,
)
from turnfold_adapters.stores.ownership import Claim
from turnfold_adapters.stores.sqlite_bodies import INLINE_MAX, BodyFolder
from turnfold_adapters.stores.sqlite_connection import row_of, typed, typed_error
from turnfold_adapters.stores.sqlite_rows import BODY, SqliteReads, raw_digest

_NEW = """
    INSERT INTO stream (id, name, version, last, open, phase, created, updated, lane,
                        parent, kind, due, expires, reason)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
"""
CHANGED = """
    UPDATE stream SET version = ?3, last = ?4, open = ?5, phase = ?6, created = ?7,
           updated = ?8, lane = ?9, parent = ?10, kind = ?11, due = ?12, expires = ?13,
           reason = ?14
    WHERE id = ?1
"""
_GROWN = "UPDATE stream SET version = ?, last = ? WHERE id = ?"
_LOG = "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_BODY = """
    INSERT INTO body (digest, salt, data) VALUES (?, ?, ?)
    ON CONFLICT (digest) DO UPDATE SET salt = excluded.salt, data = excluded.data
    WHERE (body.salt, body.data) IS (x'', x'')
"""
_ERASE = "UPDATE body SET salt = x'', data = x'' WHERE digest = ?"
_KEY = "INSERT INTO dedupe (key, stream) VALUES (?, ?)"
_CLAIM = "INSERT OR REPLACE INTO owner VALUES (1, ?, ?, ?, ?, ?, ?, ?)"
_BARE = (0, None, None, None, None, None, None, None, None, None)  # no summary

_REMEMBERED = 10_000  # streams

_Row = tuple[Any, ...]
_Links = list[tuple[int, int]]  # stream, position before; `list` is a method below


@define
class Known:
    """A stream as this transaction sees it; version 0 is one that is not there."""

    id: int
    version: int
    last: int  # position


class Remembered:
    """What a writer knows after its own commit: true until somebody else commits,
    which SQLite's data version tells without a statement. It spares the look at the
    head and, for each stream that moves again, the one at its row."""

    def __init__(self) -> None:
        self.kinds: dict[str, int] = {}
        self.streams: dict[str, Known] = {}
        self.head: Head | None = None
        self._version = -1

    def check(self, conn: apsw.Connection) -> None:
        """Right after BEGIN IMMEDIATE: forget all if another connection has written."""
        if conn.data_version() != self._version:
            self.forget()

    def keep(self, conn: apsw.Connection, head: Head) -> None:
        """Right after COMMIT."""
        self.head, self._version = head, conn.data_version()
        if len(self.streams) > _REMEMBERED:
            self.streams.clear()

    def forget(self) -> None:
        """After a rollback too: nothing of it may stay."""
        self.kinds.clear()
        self.streams.clear()
        self.head = None
        self._version = -1


class SqliteTx:
    """The `Tx` of the port. `flush` before COMMIT; `files` are those written here,
    `doomed` those to remove after it, `erased` tells that bodies were emptied."""

    def __init__(
        self, reads: SqliteReads, folder: BodyFolder, known: Remembered
    ) -> None:
        self._reads = reads
        self.conn: apsw.Connection = reads.conn
        self._folder = folder
        self._kinds = known.kinds
        self.path, self.wait = reads.path, reads.wait
        self.files: list[bytes] = []
        self.doomed: list[bytes] = []
        self.erased = False
        self.over = False
        self.failure: StoreError | None = None
        self._head = known.head or reads.head
        self._streams = known.streams
        self._taken: dict[str, str] = {}
        self._forget()

    def _forget(self) -> None:
        self._new: dict[int, _Row] = {}  # by id; whole rows
        self._changed: dict[int, _Row] = {}
        self._grown: dict[int, tuple[int, int]] = {}
        self._log: list[_Row] = []
        self._bodies: list[tuple[bytes, Body]] = []
        self._keys: list[tuple[str, int]] = []

    @property
    def head(self) -> Head:
        return self._head

    def read(self, stream: str) -> Sequence[Record]:
        self.flush()
        return self._reads.read(stream)

    def since(self, position: int) -> Sequence[Record]:
        if position >= self._head.position:
            return ()
        self.flush()
        return self._reads.since(position)

    def lookup(self, key: str) -> str | None:
        return self._taken.get(key) or self._reads.lookup(key)

    def summary(self, stream: str) -> Summary | None:
        self.flush()
        return self._reads.summary(stream)

    def list(self, listing: Listing) -> Sequence[Summary]:
        self.flush()
        return self._reads.list(listing)

    @typed
    def append(self, append: Append) -> None:
        """All checks come first, so a refused append leaves no trace."""
        if self.over:
            raise NotOpenError(state="past the end of this transaction")
        check_shape(append)
        bodies = [(raw_digest(body.digest), body) for body in append.bodies]
        erase = [raw_digest(digest) for digest in append.erase]
        fresh, links, head = self._follow(append.records)
        self._check_keys(append.keys, fresh)
        self._check_summaries(append.summaries, fresh)
        self._note_records(append.records, links)
        self._note_streams(append.summaries, fresh)
        for key, stream in append.keys:
            self._taken[key] = stream
            self._keys.append((key, self._streams[stream].id))
        self._bodies.extend(bodies)
        self._head = head
        if erase:
            self._run(partial(self._erase, erase))

    @typed
    def record_claim(self, claim: Claim) -> None:
        o = claim.owner
        row = (o.id, o.boot, o.pid, o.started, o.host, claim.store, claim.lock)
        self.conn.execute(_CLAIM, row)

    def forget_streams(self) -> None:
        """Look at every row anew: somebody is about to mend them."""
        self._streams.clear()

    def known(self, stream: str) -> Known:
        known = self._streams.get(stream)
        if known is None:
            sql = "SELECT id, version, last FROM stream WHERE name = ?"
            row = row_of(self.conn, sql, (stream,))
            known = Known(*row) if row else Known(0, 0, 0)
            self._streams[stream] = known
        return known

    def _follow(
        self, records: Sequence[Record]
    ) -> tuple[dict[str, Known], _Links, Head]:
        """The streams as they are after these records, each record's stream and the
        position of the one before it there, and the new head."""
        fresh: dict[str, Known] = {}
        links: _Links = []
        position, digest = self._head.position, self._head.hash
        for record in records:
            stream = record.stream
            known = fresh.get(stream)
            if known is None:
                known = fresh[stream] = self._moving(stream, record.position)
            if record.version != known.version + 1:
                raise out_of_turn(record, known.version)
            position += 1
            if record.position != position:
                raise off_the_head(record, position)
            links.append((known.id, known.last))
            known.version, known.last = record.version, position
            digest = next_head(digest, record.hash)
        return fresh, links, Head(position, digest)

    def _moving(self, stream: str, position: int) -> Known:
        known = self._streams.get(stream) or self.known(stream)
        return Known(known.id or position, known.version, known.last)

    def _check_keys(
        self, keys: Sequence[tuple[str, str]], fresh: dict[str, Known]
    ) -> None:
        own: set[str] = set()
        for key, stream in keys:
            holder = stream if key in own else self.lookup(key)
            if holder is not None:
                known = fresh.get(holder) or self.known(holder)
                raise ConflictError(stream=holder, expected=0, actual=known.version)
            if stream not in fresh and not self.known(stream).version:
                raise no_stream("key.stream", stream)
            own.add(key)

    def _check_summaries(
        self, summaries: Sequence[Summary], fresh: dict[str, Known]
    ) -> None:
        for summary in summaries:
            known = fresh.get(summary.stream) or self.known(summary.stream)
            if not known.version:
                raise no_stream("summary.stream", summary.stream)
            check_projection(summary, known.version, known.id)
            parent = summary.parent
            if parent and parent not in fresh and not self.known(parent).version:
                raise no_stream("summary.parent", parent)

    def _note_records(
        self, records: Sequence[Record], links: Sequence[tuple[int, int]]
    ) -> None:
        kinds, note = self._kinds, self._log.append
        for r, (stream, last) in zip(records, links, strict=True):
            kind = kinds.get(r.kind) or self._kind(r.kind)
            row = (r.position, stream, r.version, kind, r.schema, r.at, r.data, r.hash)
            note((*row, last or None, None))  # the head: see _write

    def _note_streams(
        self, summaries: Sequence[Summary], fresh: dict[str, Known]
    ) -> None:
        named = {summary.stream for summary in summaries}
        for name, known in fresh.items():
            if name not in named:
                self._note_version(name, known)
            elif not self._streams[name].version:
                self._new[known.id] = ()  # its row follows
        self._streams.update(fresh)
        for summary in summaries:
            self._note_summary(summary)

    def _note_version(self, name: str, known: Known) -> None:
        identity, version, last = known.id, known.version, known.last
        pending = self._new.get(identity) or self._changed.get(identity)
        if not self._streams[name].version:
            self._new[identity] = (identity, name, version, last, *_BARE)
        elif pending:
            pending_rows = self._new if identity in self._new else self._changed
            pending_rows[identity] = (identity, name, version, last, *pending[4:])
        else:
            self._grown[identity] = (version, last)

    def _note_summary(self, summary: Summary) -> None:
        parent = None if summary.parent is None else self._streams[summary.parent].id
        row = summary_row(summary, self._streams[summary.stream].last, parent)
        if summary.order in self._new:
            self._new[summary.order] = row
        else:
            self._changed[summary.order] = row
            self._grown.pop(summary.order, None)

    def _kind(self, name: str) -> int:
        number = self._kinds.get(name)
        if number is None:
            sql = "SELECT id FROM kind WHERE name = ?"
            row = row_of(self.conn, sql, (name,))
            if row is None:
                self.conn.execute("INSERT INTO kind (name) VALUES (?)", (name,))
                row = (self.conn.last_insert_rowid(),)
            number = self._kinds[name] = row[0]
        return number

    def flush(self) -> None:
        """Write what was noted."""
        self._run(self._write)

    def _run(self, work: Callable[[], None]) -> None:
        """Once this failed, the transaction can only roll back."""
        if self.failure is not None:
            raise self.failure
        try:
            work()
        except StoreError as exc:
            self.failure = exc
            raise
        except apsw.Error as exc:
            self.failure = typed_error(exc, self.path, self.wait.waited_ms)
            raise self.failure from exc

    def _write(self) -> None:
        conn = self.conn
        if self._new:
            conn.executemany(_NEW, self._new.values())
        if self._grown:
            conn.executemany(_GROWN, [(v, p, i) for i, (v, p) in self._grown.items()])
        if self._changed:
            conn.executemany(CHANGED, self._changed.values())
        if self._log:
            self._log[-1] = (*self._log[-1][:-1], self._head.hash)
            conn.executemany(_LOG, self._log)
        if self._bodies:
            conn.executemany(_BODY, self._body_rows())  # large ones to their files
        if self._keys:
            conn.executemany(_KEY, self._keys)
        self._forget()

    def _erase(self, digests: Sequence[bytes]) -> None:
        self._write()  # what came before
        for digest in digests:
            row = row_of(self.conn, BODY, (digest,))
            if row is None:
                continue
            self.conn.execute(_ERASE, (digest,))
            self.erased = True
            if row[1] is None:
                self.doomed.append(digest)

    def _body_rows(self) -> Sequence[_Row]:
        rows = []
        for digest, body in self._bodies:
            data: bytes | None = body.data
            if len(body.data) > INLINE_MAX:
                data = None
                if digest in self.doomed:  # erased just now and there again
                    self.doomed.remove(digest)
                elif not self._has_body(digest) and digest not in self.files:
                    self._folder.write(digest, body.data)
                    self.files.append(digest)
            rows.append((digest, body.salt, data))
        return rows

    def _has_body(self, digest: bytes) -> bool:
        return row_of(self.conn, BODY, (digest,)) is not None


def summary_row(s: Summary, last: int, parent: int | None) -> _Row:
    """The row of table `stream` that a summary makes."""
    return (
        s.order,
        s.stream,
        s.version,
        last,
        int(s.open),
        s.phase,
        s.created,
        s.updated,
        s.lane,
        parent,
        s.kind,
        s.due,
        s.expires,
        s.reason,
    )
