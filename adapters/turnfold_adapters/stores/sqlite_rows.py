"""Reading a SQLite store: rows to records and summaries, over any one connection.

A row that was tampered with, or whose stream or kind is gone, still becomes a record
with its position; decoding that record then says what is wrong. So one bad row never
hides the others.
"""

from __future__ import annotations  # `list` is a method of the port, too

import re
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import apsw

from turnfold.canonical import EMPTY_HEAD, body_digest
from turnfold.codec import Record
from turnfold.errors import (
    CorruptLogError,
    DamagedError,
    InvalidInputError,
    MissingBodyError,
    StoreError,
)
from turnfold.ports.store import Body, Head, Listing, Owner, Summary
from turnfold_adapters.stores.ownership import Claim
from turnfold_adapters.stores.sqlite_bodies import BodyFolder
from turnfold_adapters.stores.sqlite_connection import BusyWait, row_of, typed

MANY = 100  # asked for in one statement: a few megabytes of bodies at most
CHUNK = 1000  # rows read at once: no cursor stays open across a checkpoint

_LOG = """
    SELECT l.position, s.name, l.version, k.name, l.schema, l.at, l.data, l.hash
    FROM log AS l LEFT JOIN stream AS s ON s.id = l.stream
    LEFT JOIN kind AS k ON k.id = l.kind
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
_HEAD = "SELECT position, head FROM log ORDER BY position DESC LIMIT 1"
_SINCE = f"{_LOG} WHERE l.position > ? ORDER BY l.position LIMIT ?"
_SUMMARY = """
    SELECT s.id, s.name, s.version, s.open, s.phase, s.created, s.updated, s.lane,
           p.name, s.kind, s.due, s.expires, s.reason
    FROM stream AS s LEFT JOIN stream AS p ON p.id = s.parent
"""
_ONE = f"{_SUMMARY} WHERE s.name = ? AND s.phase IS NOT NULL"
_OPEN = f"{_SUMMARY} WHERE s.open = 1 AND s.id > ? ORDER BY s.id LIMIT ?"
# An erased body leaves its row, emptied: a row that shrinks moves none of its
# neighbours, and what never moved can be erased later without leaving a copy.
BODY = """
    SELECT salt, data FROM body
    WHERE digest = ? AND (salt, data) IS NOT (x'', x'')
"""
_ANY = f"IN ({', '.join('?' * MANY)})"
_BODIES = BODY.replace("salt, data", "digest, salt, data", 1).replace("= ?", _ANY)
_SUMMARIES = f"{_SUMMARY} WHERE s.name {_ANY} AND s.phase IS NOT NULL"
_KEY = """
    SELECT s.name FROM dedupe AS d LEFT JOIN stream AS s ON s.id = d.stream
    WHERE d.key = ?
"""


class SqliteReads:
    """The reading half of the port on one connection, committed or in a transaction."""

    def __init__(
        self, conn: apsw.Connection, path: str, wait: BusyWait, folder: BodyFolder
    ) -> None:
        self.conn = conn
        # One cursor for what is asked often: making one costs as much as a statement.
        # What it runs is over when the call returns, or its rows are fetched at once.
        cursor = conn.cursor()
        self.run, self.run_many = cursor.execute, cursor.executemany
        self.path = path
        self.wait = wait
        self._folder = folder

    @property
    @typed
    def head(self) -> Head:
        """Raises CorruptLogError if the last row is not the end of a transaction."""
        row = row_of(self.conn, _HEAD)
        if row is None:
            return Head(0, EMPTY_HEAD)
        if row[1] is None:
            problem = "the log ends inside a transaction: its tail is gone"
            raise CorruptLogError(position=row[0], stream=self.path, problem=problem)
        return Head(*row)

    @typed
    def read(self, stream: str) -> Sequence[Record]:
        records = self._records(_STREAM, (stream,))
        found = [(r.stream, r.version) for r in records]
        row = row_of(self.conn, "SELECT version FROM stream WHERE name = ?", (stream,))
        if found == [(stream, version + 1) for version in range(row[0] if row else 0)]:
            return records
        return self._records(_STREAM_SLOWLY, (stream,))  # a damaged link

    @typed
    def since(self, position: int, limit: int = -1) -> Sequence[Record]:
        return self._records(_SINCE, (position, limit))

    @typed
    def lookup(self, key: str) -> str | None:
        row = row_of(self.conn, _KEY, (key,))
        return None if row is None else row[0] or "?"

    @typed
    def summary(self, stream: str) -> Summary | None:
        row = row_of(self.conn, _ONE, (stream,))
        return None if row is None else summary_of(row)

    @typed
    def list(self, listing: Listing) -> Sequence[Summary]:
        sql, bindings = _listing(listing)
        return [summary_of(row) for row in self.conn.execute(sql, bindings)]

    @typed
    def open_after(self, order: int) -> Sequence[Summary]:
        rows = self.conn.execute(_OPEN, (order, CHUNK)).fetchall()
        return [summary_of(row) for row in rows]

    def body(self, digest: str) -> bytes:
        """Raises DamagedError if the bytes are not those that the digest names."""
        salt, data = self._body(digest)
        if data is None:
            data = self._folder.read(digest, raw_digest(digest))
        if body_digest(salt, data) != digest:
            problem = f"the bytes of body {digest} are not those that its digest names"
            raise DamagedError(path=self.path, problem=problem)
        return data

    def salt(self, digest: str) -> bytes:
        return self._body(digest)[0]

    def bodies(self, digests: Sequence[str]) -> Iterator[Body]:
        """At most `MANY`: those that can be read, a file only when it is its turn."""
        names: dict[bytes, str] = {}
        for digest in digests:
            with suppress(InvalidInputError):
                names[raw_digest(digest)] = digest
        for raw, salt, data in self._bodies(_filled(names)):
            with suppress(StoreError):
                kept = self._folder.read(names[raw], raw) if data is None else data
                yield Body(digest=names[raw], salt=salt, data=kept)

    @typed
    def _bodies(self, digests: tuple[Any, ...]) -> Sequence[tuple[Any, ...]]:
        return self.conn.execute(_BODIES, digests).fetchall()

    @typed
    def summaries(self, streams: Sequence[str]) -> Sequence[Summary]:
        """At most `MANY`."""
        rows = self.conn.execute(_SUMMARIES, _filled(streams)).fetchall()
        return [summary_of(row) for row in rows]

    @typed
    def has_file(self, name: str) -> bool:
        """True if a file of the body folder holds a body of the store."""
        try:
            digest = bytes.fromhex(name)
        except ValueError:  # a temporary one
            return False
        sql = "SELECT 1 FROM body WHERE digest = ? AND data IS NULL"
        return row_of(self.conn, sql, (digest,)) is not None

    @typed
    def had(self, head: Head) -> bool:
        if not head.position:
            return head.hash == EMPTY_HEAD
        sql = "SELECT 1 FROM log WHERE position = ? AND head = ?"
        return row_of(self.conn, sql, (head.position, head.hash)) is not None

    @typed
    def claim(self) -> Claim | None:
        sql = "SELECT name, boot, pid, started, host, store, lock FROM owner"
        row = row_of(self.conn, sql)
        if row is None:
            return None
        name, boot, pid, started, host, store, lock = row
        owner = Owner(id=name, boot=boot, pid=pid, started=started, host=host)
        return Claim(owner=owner, store=store, lock=lock)

    @typed
    def _body(self, digest: str) -> tuple[bytes, bytes | None]:
        row = row_of(self.conn, BODY, (raw_digest(digest),))
        if row is None:
            raise MissingBodyError(digest=digest)
        return row[0], row[1]

    def _records(self, sql: str, bindings: tuple[Any, ...]) -> Sequence[Record]:
        try:
            rows: Sequence[Any] = self.conn.execute(sql, bindings).fetchall()
        except UnicodeDecodeError:  # a damaged name: go again, row by row
            return list_damaged(self.conn, sql, bindings)
        return _all_records(rows)


def stream_log(reads: Callable[[], SqliteReads], after: int) -> Iterator[Record]:
    """Every record after a position, `CHUNK` at a time, each from the connection that
    is the right one by then."""
    while records := reads().since(after, CHUNK):
        yield from records
        after = records[-1].position


def stream_open(reads: SqliteReads) -> Iterator[Summary]:
    """The summaries of all open streams by order, `CHUNK` at a time."""
    order = -1
    while rows := reads.open_after(order):
        yield from rows
        order = rows[-1].order


def stream_bodies(reads: SqliteReads, digests: Sequence[str]) -> Iterator[Body]:
    """`MANY` at a time."""
    for start in range(0, len(digests), MANY):
        yield from reads.bodies(digests[start : start + MANY])


def stream_summaries(reads: SqliteReads, streams: Sequence[str]) -> Iterator[Summary]:
    """`MANY` at a time."""
    for start in range(0, len(streams), MANY):
        yield from reads.summaries(streams[start : start + MANY])


def _filled(values: Iterable[Any]) -> tuple[Any, ...]:
    """With nothing for the rest, so that there is one statement to prepare."""
    some = tuple(values)
    return some + (None,) * (MANY - len(some))


def list_damaged(
    conn: apsw.Connection, sql: str, bindings: tuple[Any, ...]
) -> Sequence[Record]:
    """As the query, with names that are not UTF-8 shown as well as can be."""
    sql = sql.replace("s.name, l", "CAST(s.name AS BLOB), l", 1)
    sql = sql.replace("k.name", "CAST(k.name AS BLOB)", 1)
    rows = conn.execute(sql, bindings).fetchall()
    return [_record(tuple(map(_shown, row, range(8)))) for row in rows]


def _shown(value: Any, column: int) -> Any:
    if column in (1, 3) and isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value


def _all_records(rows: Sequence[Any]) -> Sequence[Record]:
    """Field by field and without a call: a log is read by the million."""
    records = []
    for row in rows:
        new: Any = _blank(Record)
        # fmt: off
        (new.position, new.stream, new.version, new.kind,
         new.schema, new.at, new.data, new.hash) = row
        # fmt: on
        odd = new.stream is None or new.kind is None or type(new.data) is not bytes
        records.append(_record(row) if odd else new)
    return records


_blank = object.__new__


def _record(row: tuple[Any, ...]) -> Record:
    position, stream, version, kind, schema, at, data, digest = row
    stream = "?" if stream is None else stream
    kind = "?" if kind is None else kind
    data = data if isinstance(data, bytes) else repr(data).encode()
    return Record(position, stream, version, kind, schema, at, data, digest)


def summary_of(row: tuple[Any, ...]) -> Summary:
    return Summary(
        order=row[0],
        stream=row[1],
        version=row[2],
        open=bool(row[3]),
        phase=row[4],
        created=row[5],
        updated=row[6],
        lane=row[7],
        parent=row[8],
        kind=row[9],
        due=row[10],
        expires=row[11],
        reason=row[12],
    )


def _listing(want: Listing) -> tuple[str, dict[str, Any]]:
    marks = {f"phase{i}": phase for i, phase in enumerate(want.phases)}
    phases = ", ".join(f":{name}" for name in marks)
    tests = [
        ("substr(s.name, 1, length(:prefix)) = :prefix", want.prefix),
        (f"s.phase IN ({phases})", want.phases or None),
        ("s.open = 1" if want.open else "s.open = 0", want.open),
        ("s.lane = :lane", want.lane),
        ("s.parent = (SELECT id FROM stream WHERE name = :parent)", want.parent),
        ("s.created >= :since", want.since),
        ("s.created < :until", want.until),
        ("s.id < :before", want.before),
    ]
    used = " AND ".join(sql for sql, value in tests if value is not None)
    names = ("prefix", "lane", "parent", "since", "until", "before", "limit")
    bindings = {name: getattr(want, name) for name in names} | marks
    sql = f"{_SUMMARY} WHERE s.phase IS NOT NULL AND {used} ORDER BY s.id DESC LIMIT :limit"
    return sql, bindings


# 43 characters hold two bits more than 32 bytes have: those must be zero.
_DIGEST = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]").fullmatch


def raw_digest(digest: str) -> bytes:
    """The 32 bytes that a digest's text stands for. Raises InvalidInputError."""
    if _DIGEST(digest) is None:
        problem = f"{digest!r:.60} is no digest of canonical.body_digest"
        raise InvalidInputError(field="body.digest", problem=problem)
    return a2b_base64(digest.replace("-", "+").replace("_", "/") + "=")
