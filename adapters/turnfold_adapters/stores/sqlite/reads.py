"""Queries of a SQLite store: rows to records, summaries and bodies, on one connection.

A damaged row still becomes a record with its position, and the reader of that record
reports its damage. So one bad row never hides the others.
"""

from __future__ import annotations  # `list` is a method of the port, too

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import apsw

from turnfold.errors import CorruptLogError
from turnfold.ports.store import (
    BLANK,
    Answer,
    Body,
    BodyRef,
    Command,
    Count,
    Found,
    Head,
    Loaded,
    Owner,
    Record,
    Summary,
    Wanted,
)
from turnfold_adapters.stores.ownership import Claim
from turnfold_adapters.stores.packing import unpacked
from turnfold_adapters.stores.sqlite import keys, links, pruning
from turnfold_adapters.stores.sqlite.connection import BusyWait, typed
from turnfold_adapters.stores.sqlite.files import BodyFolder
from turnfold_adapters.stores.sqlite.known import Known, head_of
from turnfold_adapters.stores.sqlite.schema import NUMBER_BITS, place_of

_MANY = 100  # names in one statement

_LOG = """
    SELECT l.position, s.name, l.version, l.count, l.at, l.events, l.hash, l.wall,
           l.shard
    FROM log AS l LEFT JOIN stream AS s ON s.id = l.stream
"""
_CHAIN = """
    WITH RECURSIVE chain (position) AS (
        SELECT last FROM stream WHERE name = ?
        UNION ALL
        SELECT log.prev FROM chain JOIN log ON log.position = chain.position
        WHERE log.prev < log.position
    )
"""
_STREAM = f"{_CHAIN} {_LOG} WHERE l.position IN chain ORDER BY l.version"
_NAMED = "l.stream = (SELECT id FROM stream WHERE name = ?)"
_STREAM_SLOWLY = f"{_LOG} WHERE {_NAMED} ORDER BY l.version"
_SINCE = f"""
    {_LOG} WHERE l.position > ?1
    UNION ALL
    SELECT position, '', "by", 0, 0, x'', hash, NULL, 0 FROM pruned WHERE position > ?1
    ORDER BY 1 LIMIT ?2
"""  # noqa: S608  made of its own words
_LAST = f"{_LOG} ORDER BY l.position DESC LIMIT 1"
SUMMARY = """
    SELECT s.name, s.version, s.open, s.phase, s.id, s.created, s.updated, s.lane,
           p.name, s.kind, s.due, s.expires, s.reason, s.failure, s.person
    FROM stream AS s LEFT JOIN stream AS p ON p.id = s.parent
"""
# For a row with text that is not UTF-8.
_DAMAGED_SUMMARY = """
    SELECT CAST(s.name AS BLOB), s.version, s.open, CAST(s.phase AS BLOB), s.id,
           s.created, s.updated, CAST(s.lane AS BLOB), CAST(p.name AS BLOB),
           CAST(s.kind AS BLOB), s.due, s.expires, CAST(s.reason AS BLOB),
           CAST(s.failure AS BLOB), s.person
    FROM stream AS s LEFT JOIN stream AS p ON p.id = s.parent
"""
_OPEN = f"{SUMMARY} WHERE s.open = 1 ORDER BY s.id"
_ANY = f"IN ({', '.join('?' * _MANY)})"
_SUMMARIES = f"{SUMMARY} WHERE s.name {_ANY} AND s.phase IS NOT NULL"
_CHILDREN = """
    SELECT name FROM stream WHERE parent = (SELECT id FROM stream WHERE name = ?)
    ORDER BY id
"""
_KEY = """
    SELECT s.name FROM dedupe AS d LEFT JOIN stream AS s ON s.id = d.stream
    WHERE d.key = ?1
    UNION ALL SELECT stream FROM inbox WHERE key = ?1
"""
_KEYS = """
    SELECT d.key, coalesce(s.name, '?')
    FROM dedupe AS d LEFT JOIN stream AS s ON s.id = d.stream
    WHERE d.key > ?1
    ORDER BY d.key LIMIT ?2
"""
_BODY = """
    SELECT salt, data FROM body WHERE id = ?1 AND salt IS NOT NULL
    UNION ALL
    SELECT salt, data FROM late_body WHERE place = ?1 AND salt IS NOT NULL
"""
_BODIES = """
    SELECT b.place, coalesce(s.name, '?' || (b.place >> 20)), b.salt, b.data
    FROM (
        SELECT id AS place, salt, data FROM body WHERE id > ?1 AND salt IS NOT NULL
        UNION ALL
        SELECT place, salt, data FROM late_body
        WHERE place > ?1 AND salt IS NOT NULL
        ORDER BY 1 LIMIT ?2
    ) AS b LEFT JOIN stream AS s ON s.id = b.place >> 20
    ORDER BY 1
"""
_IN_FILES = """
    SELECT id FROM body WHERE id = ?1 AND salt IS NOT NULL AND data IS NULL
    UNION ALL
    SELECT id FROM late_body WHERE place = ?1 AND salt IS NOT NULL AND data IS NULL
"""
_INBOX = """
    SELECT id, kind, stream, at, data, key, bodies, answer
    FROM inbox ORDER BY number LIMIT ?
"""
_INBOX_SIZE = """
    SELECT coalesce(sum(size), 0) FROM (
        SELECT length(data) + coalesce(length(bodies), 0) AS size
        FROM inbox ORDER BY number LIMIT ?)
"""
_ANSWER = "SELECT id, at, data FROM answer WHERE id = ?"
_CLAIM = "SELECT name, boot, pid, started, host, store, lock FROM owner"
_KNOWN = "SELECT id, version, last FROM stream WHERE name = ?"

_Row = tuple[Any, ...]


class Reads:
    """All queries on one connection, which may have an open transaction."""

    def __init__(self, conn: apsw.Connection, path: str, wait: BusyWait) -> None:
        self.conn, self.path, self.wait = conn, path, wait
        # One cursor for frequent statements: making a cursor costs as much as a
        # statement. Rows are fetched at once, so the cursor is free again when a call
        # returns.
        cursor = conn.cursor()
        self.run, self.run_many = cursor.execute, cursor.executemany

    def rows(self, sql: str, *bindings: Any) -> Sequence[Any]:
        return self.run(sql, bindings).fetchall()

    def named(self, sql: str, bindings: Mapping[str, Any]) -> Sequence[Any]:
        return self.run(sql, bindings).fetchall()

    def row(self, sql: str, *bindings: Any) -> Any:
        """The first row, or None."""
        rows = self.run(sql, bindings).fetchall()
        return rows[0] if rows else None

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Several queries see one commit."""
        if self.conn.in_transaction:
            yield
            return
        self.run("BEGIN")
        try:
            yield
        finally:
            if self.conn.in_transaction:
                self.run("COMMIT")

    # --- the port --------------------------------------------------------------------

    @property
    @typed
    def head(self) -> Head:
        """Raises CorruptLogError if the last row is not the end of a commit."""
        head = head_of(self.conn)
        if not head.hash:
            problem = "the log ends inside a commit: its tail is gone"
            raise CorruptLogError(
                position=head.position, stream=self.path, problem=problem
            )
        return head

    @typed
    def store_id(self) -> str | None:
        """The id in the first event of the log; None if there is no such event."""
        try:
            row = self.row("SELECT events FROM log WHERE position = 1")
            return str(json.loads(row[0])[0][2]["store"])
        except (apsw.SQLError, ValueError, TypeError, LookupError):  # no such table
            return None

    @typed
    def load(self) -> Loaded:
        with self.snapshot():
            rows = self.summary_rows(_OPEN)
            last = self.row("SELECT at FROM log ORDER BY position DESC LIMIT 1")
            return Loaded(
                head=self.head,
                last_at=0 if last is None else last[0],
                open=rows,
                store=self._summaries(["store"])["store"],
            )

    @typed
    def inbox_size(self, limit: int) -> int:
        """The bytes of the first commands, without reading them."""
        row = self.row(_INBOX_SIZE, limit)
        return 0 if row is None else int(row[0])

    @typed
    def inbox(self, limit: int) -> Sequence[Command]:
        return [_command(*row) for row in self.rows(_INBOX, limit)]

    @typed
    def fetch(self, wanted: Wanted) -> tuple[Found, Mapping[BodyRef, int]]:
        """All wanted rows. Bodies in files are returned without their data, and their
        places beside."""
        w = wanted
        with self.snapshot():
            bodies, files = self._bodies(w.bodies) if w.bodies else ({}, {})
            found = Found(
                streams={name: self.stream(name) for name in w.streams},
                summaries=self._summaries(w.summaries),
                keys={key: self.key(key) for key in w.keys},
                bodies=bodies,
                children={name: self._children(name) for name in w.children},
                answers={name: self._answer(name) for name in w.answers},
                waiting=frozenset(filter(self._waits, w.answers)),
            )
        return found, files

    @typed
    def log(self, after: int, limit: int) -> Sequence[Record]:
        return self._records(_SINCE, (after, limit))

    @typed
    def last(self) -> Record | None:
        found = self._records(_LAST, ())
        return found[0] if found else None

    @typed
    def bodies(
        self, after: BodyRef | None, limit: int
    ) -> tuple[Sequence[Body], Mapping[BodyRef, int]]:
        """As `fetch`: bodies in files are returned without their data."""
        place = -1 if after is None else place_of(self._stream_id(after[0]), after[1])
        bodies, files = [], {}
        for key, name, salt, data in self.rows(_BODIES, place, limit):
            number = key & (1 << NUMBER_BITS) - 1
            bodies.append(Body(stream=name, number=number, salt=salt, data=data or b""))
            if data is None:
                files[name, number] = key
        return bodies, files

    @typed
    def keys(self, after: str, limit: int, part: str) -> Sequence[tuple[str, str]]:
        if part:
            return keys.of_message(self.conn, after, limit, part)
        return self.rows(_KEYS, after, limit)

    @typed
    def contains_head(self, head: Head) -> bool:
        if not head.position:
            return head == BLANK
        sql = "SELECT 1 FROM {0} WHERE position = ? AND head = ?"
        found = (
            self.row(sql.format(name), head.position, head.hash)
            for name in ("log", "pruned")
        )
        return any(found)

    @typed
    def integrity(self) -> Sequence[str]:
        lines = [row[0] for row in self.rows("PRAGMA integrity_check")]
        if lines != ["ok"]:
            return lines
        return [*links.problems(self.conn), *keys.problems(self.conn)]

    @typed
    def pruned(self) -> Sequence[Count]:
        return pruning.counts(self.conn)

    @typed
    def claim(self) -> Claim | None:
        row = self.row(_CLAIM)
        if row is None:
            return None
        name, boot, pid, started, host, store, lock = row
        owner = Owner(id=name, boot=boot, pid=pid, started=started, host=host)
        return Claim(owner=owner, store=store, lock=lock)

    @typed
    def in_file(self, place: int) -> bool:
        """True if the body with this key is in a file."""
        return self.row(_IN_FILES, place) is not None

    # --- single things ---------------------------------------------------------------

    def stream(self, name: str) -> Sequence[Record]:
        """All records of a stream, found along its links. With a damaged link this
        scans the log."""
        records = self._records(_STREAM, (name,))
        row = self.row("SELECT version FROM stream WHERE name = ?", name)
        if _complete(records, name, row[0] if row else 0):
            return records
        return self._records(_STREAM_SLOWLY, (name,))

    def known(self, name: str) -> Known:
        row = self.row(_KNOWN, name)
        return Known(0, 0, 0) if row is None else Known(*row)

    def key(self, key: str) -> str | None:
        """The stream that holds a key; `?` if the stream is gone."""
        row = self.row(_KEY, key)
        return None if row is None else row[0] or "?"

    def has_body(self, place: int) -> bool:
        """True if there is, or was, a body at this place."""
        sql = "SELECT 1 FROM {0} WHERE {1} = ?"
        tables = (("body", "id"), ("late_body", "place"))
        return any(self.row(sql.format(*table), place) for table in tables)

    def _summaries(self, names: Iterable[str]) -> dict[str, Summary | None]:
        found: dict[str, Summary | None] = dict.fromkeys(names)
        every = tuple(found)
        for start in range(0, len(every), _MANY):
            some = every[start : start + _MANY]
            filled = some + (None,) * (_MANY - len(some))  # one statement for all
            for summary in self.summary_rows(_SUMMARIES, filled):
                found[summary.stream] = summary
        return found

    def summary_rows(self, sql: str, bindings: Any = ()) -> Sequence[Summary]:
        try:
            return [summary_of(row) for row in self.run(sql, bindings).fetchall()]
        except UnicodeDecodeError:
            sql = sql.replace(SUMMARY, _DAMAGED_SUMMARY, 1)
            rows = self.run(sql, bindings).fetchall()
            return [summary_of(tuple(map(_shown, row))) for row in rows]

    def _bodies(
        self, refs: Iterable[BodyRef]
    ) -> tuple[dict[BodyRef, Body | None], dict[BodyRef, int]]:
        found: dict[BodyRef, Body | None] = {}
        files: dict[BodyRef, int] = {}
        ids: dict[str, int] = {}
        for stream, number in refs:
            if stream not in ids:
                ids[stream] = self.known(stream).id
            place = place_of(ids[stream], number)
            row = self.row(_BODY, place) if ids[stream] else None
            if row is None:
                found[stream, number] = None
                continue
            salt, data = row
            if data is None:
                files[stream, number] = place
            body = Body(stream=stream, number=number, salt=salt, data=data or b"")
            found[stream, number] = body
        return found, files

    def _stream_id(self, name: str) -> int:
        """The id of a stream. `?17`, as `bodies` returns it, is the stream 17 without
        its row."""
        return int(name[1:]) if name.startswith("?") else self.known(name).id

    def _children(self, turn: str) -> Sequence[str]:
        return [row[0] for row in self.rows(_CHILDREN, turn)]

    def _answer(self, name: str) -> Answer | None:
        row = self.row(_ANSWER, name)
        return None if row is None else Answer(id=row[0], at=row[1], data=row[2])

    def _waits(self, name: str) -> bool:
        return self.row("SELECT 1 FROM inbox WHERE id = ?", name) is not None

    def _records(self, sql: str, bindings: _Row) -> Sequence[Record]:
        try:
            rows: Sequence[Any] = self.run(sql, bindings).fetchall()
        except UnicodeDecodeError:  # a damaged name: once more, row by row
            sql = sql.replace("s.name, l", "CAST(s.name AS BLOB), l", 1)
            rows = self.run(sql, bindings).fetchall()
        return [Record(*row) if _plain(*row) else _odd(*row) for row in rows]


def read_files(
    folder: BodyFolder,
    bodies: Mapping[BodyRef, Body | None],
    files: Mapping[BodyRef, int],
) -> dict[BodyRef, Body | None]:
    """The bodies with the data of those in files; None for one without its file.

    It may run in any thread. Raises DiskError.
    """
    found = dict(bodies)
    for ref, place in files.items():
        data, body = folder.read(place), found[ref]
        if data is None or body is None:
            found[ref] = None
        else:
            found[ref] = Body(stream=ref[0], number=ref[1], salt=body.salt, data=data)
    return found


# --- rows to values ------------------------------------------------------------------


def summary_of(row: _Row) -> Summary:
    """A summary from a row of `SUMMARY`."""
    name, version, is_open, phase, order, created, updated, *rest = row
    lane, parent, kind, due, expires, reason, failure, person = rest
    return Summary(
        stream=name,
        version=version,
        open=is_open == 1,  # as in the index of open streams
        phase=phase,
        order=order,
        created=created,
        updated=updated,
        lane=lane,
        parent=parent,
        kind=kind,
        due=due,
        expires=expires,
        reason=reason,
        failure=failure,
        person=person == 1,
    )


def _shown(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _plain(*row: Any) -> bool:
    """True for a row that has the types of a record."""
    _, name, version, count, at, events, digest, wall, shard = row
    return (
        type(name) is str
        and type(version) is type(count) is type(at) is type(shard) is int
        and type(events) is type(digest) is bytes
        and (wall is None or type(wall) is int)
    )


def _odd(*row: Any) -> Record:
    """A record of a damaged row, with all readable fields; its hash will not fit."""
    position, name, version, count, at, events, digest, wall, shard = row
    name = _shown(name)
    return Record(
        position,
        name if isinstance(name, str) else "?",
        _int(version),
        _int(count),
        _int(at),
        events if isinstance(events, bytes) else repr(events).encode(),
        digest if isinstance(digest, bytes) else b"",
        wall if isinstance(wall, int) else None,
        _int(shard),
    )


def _int(value: object) -> int:
    return value if isinstance(value, int) else -1


def _complete(records: Sequence[Record], name: str, version: int) -> bool:
    """True if these records are the whole stream up to this version, without a gap."""
    at = 0
    for record in records:
        if record.stream != name or record.before != at:
            return False
        at = record.version
    return at == version


def _command(*row: Any) -> Command:
    name, kind, stream, at, data, key, bodies, answer = row
    return Command(
        id=name,
        kind=kind,
        stream=stream,
        at=at,
        data=data,
        key=key,
        bodies=() if bodies is None else unpacked(bodies),
        answer=bool(answer),
    )
