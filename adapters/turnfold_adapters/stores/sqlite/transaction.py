"""The rows of one write, between BEGIN and COMMIT.

All checks that memory allows come before the first row is written. The database makes
two checks itself, because the answer is nearly always yes: a new stream's name and a
new key are unique. If SQLite refuses one, `refusal` finds out which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from operator import itemgetter
from typing import Any

from turnfold.errors import InvalidInputError
from turnfold.ports.store import Body, BodyRef, Head, Prune, Record, Summary, Write
from turnfold_adapters.stores.checking import (
    KEPT_ANSWERS,
    NUMBER_LIMIT,
    body_there,
    check_number,
    check_projection,
    key_taken,
    log_moved,
    no_events,
    no_stream,
    off_the_head,
    stream_moved,
    wrong_shard,
)
from turnfold_adapters.stores.sqlite.digest import BLOCK_BITS, Recount, digest, due
from turnfold_adapters.stores.sqlite.files import INLINE_MAX, BodyFolder, file_name
from turnfold_adapters.stores.sqlite.keys import place_of_key
from turnfold_adapters.stores.sqlite.known import Kept, Known, Remembered
from turnfold_adapters.stores.sqlite.pruning import take_out
from turnfold_adapters.stores.sqlite.reads import Reads
from turnfold_adapters.stores.sqlite.schema import NUMBER_BITS, place_of


def _line(sql: str) -> str:
    """SQL in one line: apsw finds a prepared statement by its text, for each row."""
    return " ".join(sql.split())


_NEW = "INSERT INTO stream VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# An update with fewer columns checks fewer indexes.
_GROWN = "UPDATE stream SET version = ?2, last = ?3 WHERE id = ?1"
_MOVED = _line("""
    UPDATE stream SET version = ?2, last = ?3, phase = ?4, updated = ?5, due = ?6,
           expires = ?7, reason = ?8, failure = ?9
    WHERE id = ?1
""")
_OPENED = _MOVED.replace("failure = ?9", "failure = ?9, open = ?10, person = ?11")
CHANGED = _line("""
    UPDATE stream SET version = ?3, last = ?4, open = ?5, phase = ?6, created = ?7,
           updated = ?8, lane = ?9, parent = ?10, kind = ?11, due = ?12, expires = ?13,
           reason = ?14, failure = ?15, person = ?16
    WHERE id = ?1
""")
_LOG = "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_BODY = "INSERT INTO body VALUES (?, ?, ?)"
_LATE = "INSERT INTO late_body (place, salt, data) VALUES (?, ?, ?)"
# A key is taken if a command in the inbox promised it to another stream.
_KEY = _line("""
    INSERT INTO dedupe SELECT ?1, ?2 WHERE NOT EXISTS (
        SELECT 1 FROM inbox WHERE key = ?1 AND stream <> ?3)
""")
_KEY_PLACE = "INSERT OR IGNORE INTO key_place VALUES (?)"
_DONE = "DELETE FROM inbox WHERE id = ?"
_BLOCKS = 4  # digested by one commit; many records in a commit make several due
_ANSWER = _line("""
    INSERT INTO answer (id, at, data) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING
""")
_OLD_ANSWERS = _line("""
    DELETE FROM answer WHERE number <= (SELECT max(number) FROM answer) - ?
""")
_FIND = _line("""
    SELECT data IS NULL FROM {0} WHERE {1} = ? AND salt IS NOT NULL
""")
# An erased body leaves its row, emptied: a row that shrinks moves none of its
# neighbours, and bytes that never moved can be erased later without leaving a copy.
_ERASE = "UPDATE {0} SET salt = NULL, data = NULL WHERE {1} = ?"
_TABLES = (("body", "id"), ("late_body", "place"))

_Row = tuple[Any, ...]


class WriteTransaction:
    """One write. After `apply`: `moved`: the changed streams in their new state;
    `closed`: the closed ones among them; `files`: the places of bodies that were
    written to files; `doomed`: the files to remove after the COMMIT; `erased`: True if
    a body was erased.
    """

    def __init__(self, reads: Reads, folder: BodyFolder, known: Remembered) -> None:
        self._reads, self._folder, self._known = reads, folder, known
        self._many = reads.run_many
        self.moved: dict[str, Known] = {}
        self.closed: list[str] = []
        self.files: list[int] = []
        self.doomed: list[int] = []
        self.erased = False
        self.last_body = -1
        self.digested = 0  # blocks
        self._old: list[tuple[int, str | None]] = []  # streams that are digested

    def apply(self, write: Write) -> Head:
        """Check and write. Raises ConflictError, InvalidInputError, DiskError, or an
        error of the database; then the transaction can only be rolled back."""
        base, self.last_body = self._known.head, self._known.last_body
        self.digested = self._known.digested
        if write.base is not base and write.base != base:
            raise log_moved(write.base, base)
        log, head = self._log_rows(write)
        summaries = self._summary_rows(write.summaries, base.position)
        keys = [(key, self._id("key.stream", name), name) for key, name in write.keys]
        bodies = [self._place(body) for body in write.bodies]
        if write.prune is not None:
            self._prune(write.prune)
        write_rows = self._rewrite if self._old else self._write
        write_rows(log, summaries)
        if due(self.digested, head.position):
            self._digest(head)
        if write.done:
            self._many(_DONE, [(name,) for name in write.done])
        if keys:
            self._put_keys(keys)
        if bodies:
            self._put(bodies)
        if write.erase:
            self._erase(write.erase)
        if write.answers:
            self._many(_ANSWER, [(a.id, a.at, a.data) for a in write.answers])
            self._reads.run(_OLD_ANSWERS, (KEPT_ANSWERS,))
        if self.erased:
            self._renew_inbox()
        return head

    # --- checks ----------------------------------------------------------------------

    def _log_rows(self, write: Write) -> tuple[list[_Row], Head]:
        """The rows of the log, and its new head."""
        base = write.base
        position, digest = base.position, base.hash
        shard, moved, old = write.shard, self.moved, self._known.streams
        rows: list[_Row] = []
        for r in write.records:
            name, version, count = r.stream, r.version, r.count
            position += 1
            known = moved.get(name)
            if known is None:
                if version == count and name not in old:  # the record marks it as new
                    known = Known(position, 0, 0)
                else:
                    known = self._before(r, position)
                moved[name] = known
            if version - count != known.version or count < 1:
                raise no_events(r) if count < 1 else stream_moved(r, known.version)
            if r.position != position:
                raise off_the_head(r, position)
            if r.shard != shard:
                raise wrong_shard(r)
            last = known.last or None
            row = position, known.id, version, count, r.at, r.wall, shard, r.events
            rows.append((*row, r.hash, last, None))
            known.version, known.last = version, position
            digest = sha256(digest + r.hash).digest()
        if not rows:
            return rows, base
        rows[-1] = (*rows[-1][:-1], digest)
        return rows, Head(position, digest)

    def _before(self, record: Record, position: int) -> Known:
        """The stream before this write, as a copy to change."""
        known = self._known.streams.get(record.stream)
        known = known or self._reads.known(record.stream)
        if not known.version:
            return Known(position, 0, 0)
        return Known(known.id, known.version, known.last, known.kept)

    def _seen(self, field: str, stream: str) -> Known:
        """A stream that this write names. Raises InvalidInputError for an unknown
        one."""
        known = self.moved.get(stream) or self._known.streams.get(stream)
        if known is None:
            known = self._reads.known(stream)
            if not known.version:
                raise no_stream(field, stream)
            self._known.streams[stream] = known
        return known

    def _id(self, field: str, stream: str) -> int:
        return self._seen(field, stream).id

    def _summary_rows(
        self, summaries: Sequence[Summary], base: int
    ) -> dict[int, tuple[str, _Row]]:
        """By stream: the statement for its row, and the row."""
        rows: dict[int, tuple[str, _Row]] = {}
        for s in summaries:
            if s.phase is None:  # in the table None means that there is no summary
                raise InvalidInputError(field="summary.phase", problem="is None")
            known = self.moved.get(s.stream) or self._seen("summary.stream", s.stream)
            if s.version != known.version or s.order != known.id:
                check_projection(s, known.version, known.id)
            rows[known.id] = self._summary_row(s, known, base)
            if s.lane is not None and not s.open:
                self.closed.append(s.stream)
        for name, known in self.moved.items():
            if known.id not in rows:
                rows[known.id] = _bare(name, known, base)
        return rows

    def _summary_row(self, s: Summary, known: Known, base: int) -> tuple[str, _Row]:
        kept = ((s.open, s.person), s.created, s.lane, s.parent, s.kind)
        old, known.kept = known.kept, kept
        if known.id >> BLOCK_BITS < self.digested and not _stays(old, kept):
            self._old.append((known.id, s.lane))
        if known.id > base or old is None or old[1:] != kept[1:]:
            parent = None if s.parent is None else self._id("summary.parent", s.parent)
            sql = _NEW if known.id > base else CHANGED
            return sql, summary_row(s, known.last, parent)
        row = (s.order, s.version, known.last, s.phase, s.updated, s.due, s.expires)
        if old[0] == kept[0]:
            return _MOVED, (*row, s.reason, s.failure)
        return _OPENED, (*row, s.reason, s.failure, s.open, s.person)

    def _place(self, body: Body) -> tuple[int, bytes, bytes]:
        salt, data, number = body.salt, body.data, body.number
        if type(salt) is not bytes or type(data) is not bytes:
            raise InvalidInputError(field="body", problem="salt or data is not bytes")
        if not 0 <= number < NUMBER_LIMIT:
            check_number(number)
        known = self.moved.get(body.stream) or self._seen("body.stream", body.stream)
        return known.id << NUMBER_BITS | number, salt, data

    # --- rows ------------------------------------------------------------------------

    def _digest(self, head: Head) -> None:
        for _ in range(_BLOCKS):
            if not due(self.digested, head.position):
                break
            digest(self._reads.conn, self.digested)
            self.digested += 1

    def _write(self, log: list[_Row], streams: dict[int, tuple[str, _Row]]) -> None:
        by_sql: dict[str, list[_Row]] = {}
        for sql, row in streams.values():
            by_sql.setdefault(sql, []).append(row)
        for sql, rows in by_sql.items():
            self._many(sql, rows)
        if log:
            self._many(_LOG, log)

    def _rewrite(self, log: list[_Row], streams: dict[int, tuple[str, _Row]]) -> None:
        recount = Recount(self._reads.conn, self._old)
        recount.before()
        self._write(log, streams)
        recount.after()

    def _put_keys(self, keys: list[tuple[str, int, str]]) -> None:
        before = self._reads.conn.total_changes()
        self._many(_KEY, keys)
        if self._reads.conn.total_changes() - before == len(keys):
            self._put_places({place_of_key(row[0]) for row in keys})
            return
        for key, _, stream in keys:
            sql = "SELECT stream FROM inbox WHERE key = ? AND stream <> ?"
            row = self._reads.row(sql, key, stream)
            if row is not None:
                raise key_taken(key, row[0], self._reads.known(row[0]).version)

    def _put_places(self, places: set[str]) -> None:
        new = places - self._known.places - {""}
        if new:
            self._many(_KEY_PLACE, [(place,) for place in new])
            self._known.places |= new  # cleared if the write is undone

    def _put(self, bodies: list[tuple[int, bytes, bytes]]) -> None:
        if len(bodies) > 1:
            bodies.sort(key=itemgetter(0))
        rows: list[_Row] = []
        late: list[_Row] = []
        for place, salt, data in bodies:
            filed = len(data) > INLINE_MAX and self._folder.used
            if filed:
                self._write_file(place, data)
            row = (place, salt, None if filed else data)
            if place > self.last_body:
                self.last_body = place
                rows.append(row)
            else:
                late.append(row)
        if rows:
            self._many(_BODY, rows)
        if late:
            self._put_late(late)

    def _put_late(self, rows: list[_Row]) -> None:
        for place, salt, data in rows:
            if self._reads.row("SELECT 1 FROM body WHERE id = ?", place) is not None:
                raise _taken(place)
            self._reads.run(_LATE, (place, salt, data))

    def _write_file(self, place: int, data: bytes) -> None:
        """Write a body's file, unless the body exists: its file must not be
        replaced."""
        if self._reads.has_body(place):
            raise _taken(place)
        self._folder.write(place, data)
        self.files.append(place)

    def _erase(self, refs: Sequence[BodyRef]) -> None:
        for stream, number in refs:
            known = self.moved.get(stream) or self._reads.known(stream)
            if not known.version:
                continue
            place = place_of(known.id, number)
            for table in _TABLES:
                row = self._reads.row(_FIND.format(*table), place)
                if row is None:
                    continue
                self._reads.run(_ERASE.format(*table), (place,))
                self.erased = True
                if row[0]:
                    self.doomed.append(place)

    def _prune(self, prune: Prune) -> None:
        self.erased, files = take_out(self._reads.conn, prune, self.digested)
        self.doomed += files
        self._known.places.clear()
        for name in prune.streams:
            self._known.streams.pop(name, None)

    def _renew_inbox(self) -> None:
        """Write all commands in the inbox anew. Rows of this table come and go, and
        their neighbours move; emptying the whole table clears it page by page."""
        rows = self._reads.rows("SELECT * FROM inbox ORDER BY number")
        self._reads.run("DELETE FROM inbox")
        if rows:
            self._many(POST, rows)

    # --- if the database refused -----------------------------------------------------

    def refusal(self, write: Write) -> Exception | None:
        """After the rollback: the name, key or place that was not new, if one was not."""
        return next(self._refusals(write), None)

    def _refusals(self, write: Write) -> Iterator[Exception]:
        reads, own = self._reads, {r.stream for r in write.records}
        for record in write.records:
            actual = reads.known(record.stream).version
            if record.before == 0 and actual:
                yield stream_moved(record, actual)
        for index, (key, stream) in enumerate(write.keys):
            holder = reads.key(key)
            if holder is not None:
                yield key_taken(key, holder, reads.known(holder).version)
            elif key in {k for k, _ in write.keys[:index]}:
                yield key_taken(key, stream, int(stream in own))
        places = set()
        for body in write.bodies:
            known = self.moved.get(body.stream) or reads.known(body.stream)
            place = place_of(known.id, body.number)
            if place in places or reads.has_body(place):
                yield body_there((body.stream, body.number))
            places.add(place)


POST = "INSERT INTO inbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


def _taken(place: int) -> InvalidInputError:
    problem = f"there is, or was, a body {file_name(place)} (stream, number)"
    return InvalidInputError(field="body.number", problem=problem)


def _bare(name: str, known: Known, base: int) -> tuple[str, _Row]:
    """The row of a changed stream without a new summary: it keeps its old one."""
    row = (known.id, known.version, known.last)
    if known.id <= base:
        return _GROWN, row
    return _NEW, (known.id, name, known.version, known.last, 0, *(None,) * 10, 0)


def _stays(old: Kept | None, new: Kept) -> bool:
    """True for a stream that was and is open, in the same lane: it is not counted."""
    return old is not None and old[0][0] and new[0][0] and old[2] == new[2]


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
        s.failure,
        s.person,
    )
