"""The write transaction of a SQLite store.

An append is checked against the database and against what this transaction already
took; only then it is noted. Rows go in with few large statements just before the COMMIT
or the next read, so a refused append costs no savepoint and leaves no trace.
"""

from __future__ import annotations  # `list` is a method of the port, too

from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from operator import itemgetter
from typing import Any

import apsw

from turnfold.codec import Record
from turnfold.errors import ConflictError, NotOpenError, StoreError
from turnfold.ports.store import Append, Head, Listing, Summary
from turnfold_adapters.stores.checking import (
    check_projection,
    check_shape,
    no_stream,
    off_the_head,
    out_of_turn,
)
from turnfold_adapters.stores.ownership import Claim
from turnfold_adapters.stores.sqlite_bodies import INLINE_MAX, BodyFolder
from turnfold_adapters.stores.sqlite_connection import (
    BusyWait,
    row_of,
    typed,
    typed_error,
)
from turnfold_adapters.stores.sqlite_known import NOBODY, Known, Remembered
from turnfold_adapters.stores.sqlite_rows import BODY, SqliteReads, raw_digest


def _line(sql: str) -> str:
    """Without what only a reader needs: each row looks its statement up by its text."""
    return " ".join(sql.split())


_NEW = "INSERT INTO stream VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
CHANGED = _line("""
    UPDATE stream SET version = ?3, last = ?4, open = ?5, phase = ?6, created = ?7,
           updated = ?8, lane = ?9, parent = ?10, kind = ?11, due = ?12, expires = ?13,
           reason = ?14
    WHERE id = ?1
""")
_GROWN = "UPDATE stream SET version = ?, last = ? WHERE id = ?"
_LOG = "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_BODY = _line("""
    INSERT INTO body (digest, salt, data) VALUES (?, ?, ?)
    ON CONFLICT (digest) DO UPDATE SET salt = excluded.salt, data = excluded.data
    WHERE (body.salt, body.data) IS (x'', x'')
""")
_ERASE = "UPDATE body SET salt = x'', data = x'' WHERE digest = ?"
_KEY = "INSERT INTO dedupe (key, stream) VALUES (?, ?)"
_CLAIM = "INSERT OR REPLACE INTO owner VALUES (1, ?, ?, ?, ?, ?, ?, ?)"
_BARE = (0, None, None, None, None, None, None, None, None, None)  # no summary

_KIND = itemgetter(3)  # its number in a row of the log; None: not known yet

_Row = tuple[Any, ...]
_Rows = list[_Row]  # `list` is a method below


class SqliteTx:
    """The `Tx` of the port. `flush` before COMMIT; `files` are those written here,
    `doomed` those to remove after it, `erased` tells that bodies were emptied,
    `closed` are entries and turns that are over."""

    def __init__(
        self, reads: SqliteReads, folder: BodyFolder, known: Remembered
    ) -> None:
        self._reads, self._folder = reads, folder
        self._run, self._run_many = reads.run, reads.run_many
        self._kinds, self._streams = known.kinds, known.streams
        self._head = known.head or reads.head
        self._flushed = self._head.position  # a stream born after it has no row yet
        self._new: dict[int, _Row] = {}  # by id; whole rows
        self._changed: dict[int, _Row] = {}
        self._grown: dict[int, _Row] = {}
        self._log: _Rows = []
        self._bodies: list[tuple[bytes, bytes, bytes]] = []
        self._keys: list[tuple[str, int]] = []
        self._taken: dict[str, str] = {}
        self.files: list[bytes] = []
        self.doomed: list[bytes] = []
        self.closed: list[str] = []
        self.erased = self.over = False
        self.failure: StoreError | None = None

    @property
    def conn(self) -> apsw.Connection:
        return self._reads.conn

    @property
    def path(self) -> str:
        return self._reads.path

    @property
    def wait(self) -> BusyWait:
        return self._reads.wait

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

    def append(self, append: Append) -> None:
        """All checks come first, so a refused append leaves no trace."""
        if self.over:
            raise NotOpenError(state="past the end of this transaction")
        check_shape(append)
        try:
            self._take(append)
        except apsw.Error as exc:
            raise typed_error(exc, self.path, self.wait.waited_ms) from exc

    def _take(self, append: Append) -> None:
        bodies = [(raw_digest(b.digest), b.salt, b.data) for b in append.bodies]
        erase = [raw_digest(digest) for digest in append.erase]
        fresh, rows, head = self._follow(append.records)
        if append.keys:
            self._check_keys(append.keys, fresh)
        summaries = self._summary_rows(append.summaries, fresh)
        if None in map(_KIND, rows):
            rows = self._numbered(rows, append.records)
        self._log += rows
        self._streams.update(fresh)
        self._note_streams(summaries, fresh)
        for key, stream in append.keys:
            self._taken[key] = stream
            self._keys.append((key, self._streams[stream].id))
        self._bodies += bodies
        self._head = head
        if erase:
            self._attempt(partial(self._erase, erase))

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
            rows: Sequence[Any] = self._run(sql, (stream,)).fetchall()
            known = Known(*rows[0]) if rows else Known(0, 0, 0)
            self._streams[stream] = known
        return known

    def _follow(
        self, records: Sequence[Record]
    ) -> tuple[dict[str, Known], _Rows, Head]:
        """The streams as they are after these records, the records' rows, and the new
        head. The hash is canonical.next_head, written out: it is asked for each."""
        fresh: dict[str, Known] = {}
        rows: _Rows = []
        kinds, name, known = self._kinds, None, NOBODY
        position, digest = self._head.position, self._head.hash
        for r in records:
            stream, version = r.stream, r.version
            if stream is not name:  # mostly one stream after the other
                known = fresh.get(stream) or self._moving(stream, position + 1, fresh)
                name = stream
            if version != known.version + 1:
                raise out_of_turn(r, known.version)
            position += 1
            if r.position != position:
                raise off_the_head(r, position)
            kind, last = kinds.get(r.kind), known.last or None
            row = (position, known.id, version, kind, r.schema, r.at, r.data, r.hash)
            rows.append((*row, last, None))  # the running hash: see _write
            known.version, known.last = version, position
            digest = sha256(digest + r.hash).digest()
        return fresh, rows, Head(position, digest)

    def _moving(self, stream: str, position: int, fresh: dict[str, Known]) -> Known:
        known = self._streams.get(stream) or self.known(stream)
        moving = Known(known.id or position, known.version, known.last)
        fresh[stream] = moving
        return moving

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

    def _summary_rows(
        self, summaries: Sequence[Summary], fresh: dict[str, Known]
    ) -> _Rows:
        """The rows of streams with their summaries, each of which must fit."""
        rows: _Rows = []
        for summary in summaries:
            known = fresh.get(summary.stream) or self.known(summary.stream)
            if not known.version:
                raise no_stream("summary.stream", summary.stream)
            if summary.version != known.version or summary.order != known.id:
                check_projection(summary, known.version, known.id)
            parent = summary.parent
            above = None if parent is None else self._parent(parent, fresh)
            rows.append(summary_row(summary, known.last, above))
            if summary.lane is not None and not summary.open:
                self.closed.append(summary.stream)
        return rows

    def _parent(self, stream: str, fresh: dict[str, Known]) -> int:
        known = fresh.get(stream) or self.known(stream)
        if not known.version:
            raise no_stream("summary.parent", stream)
        return known.id

    def _numbered(self, rows: _Rows, records: Sequence[Record]) -> _Rows:
        """The records' rows with the numbers of kinds that were not known before."""
        for index, row in enumerate(rows):
            if row[3] is None:
                kind = self._kind(records[index].kind)
                rows[index] = (*row[:3], kind, *row[4:])
        return rows

    def _note_streams(self, rows: _Rows, fresh: dict[str, Known]) -> None:
        named = {row[1] for row in rows}
        for name, known in fresh.items():
            if name not in named:
                self._note_version(name, known)
        for row in rows:
            identity = row[0]
            if identity > self._flushed:
                self._new[identity] = row
            else:
                self._changed[identity] = row
                self._grown.pop(identity, None)

    def _note_version(self, name: str, known: Known) -> None:
        """A stream that moved and brought no summary keeps the one it has."""
        identity, version, last = known.id, known.version, known.last
        born = identity > self._flushed
        rows = self._new if born else self._changed
        pending = rows.get(identity)
        if born or pending:
            kept = pending[4:] if pending else _BARE
            rows[identity] = (identity, name, version, last, *kept)
        else:
            self._grown[identity] = (version, last, identity)

    def _kind(self, name: str) -> int:
        number = self._kinds.get(name)
        if number is None:
            sql = "SELECT id FROM kind WHERE name = ?"
            row = row_of(self.conn, sql, (name,))
            if row is None:
                self.conn.execute("INSERT INTO kind (name) VALUES (?)", (name,))
                row = (self.conn.last_insert_rowid(),)
            number = self._kinds[name] = int(row[0])
        return number

    def flush(self) -> None:
        """Write what was noted."""
        self._attempt(self._write)

    def _attempt(self, work: Callable[[], None]) -> None:
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
        run = self._run_many
        if self._new:
            run(_NEW, self._new.values())
            self._new.clear()
        if self._grown:
            run(_GROWN, self._grown.values())
            self._grown.clear()
        if self._changed:
            run(CHANGED, self._changed.values())
            self._changed.clear()
        if self._log:
            self._log[-1] = (*self._log[-1][:-1], self._head.hash)
            run(_LOG, self._log)
            self._log.clear()
        if self._bodies:
            run(_BODY, [self._body_row(*body) for body in self._bodies])
            self._bodies.clear()
        if self._keys:
            run(_KEY, self._keys)
            self._keys.clear()
        self._flushed = self._head.position

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

    def _body_row(self, digest: bytes, salt: bytes, data: bytes) -> _Row:
        """Its row; a large one goes to its file."""
        if len(data) <= INLINE_MAX:
            return digest, salt, data
        if digest in self.doomed:  # erased just now and there again
            self.doomed.remove(digest)
        elif not self._has_body(digest) and digest not in self.files:
            self._folder.write(digest, data)
            self.files.append(digest)
        return digest, salt, None

    def _has_body(self, digest: bytes) -> bool:
        return row_of(self.conn, BODY, (digest,)) is not None


def summary_row(s: Summary, last: int, parent: int | None) -> _Row:
    """The row of table `stream` that a summary makes."""
    return (
        s.order,
        s.stream,
        s.version,
        last,
        s.open,
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
