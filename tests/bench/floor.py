"""The floor: the durable work of one message, written in a straight line.

The floor does the work that turnfold does for one message and leaves out all that
decides: no state machine, no overlay of a commit, no read model, no checks. A kernel in
this interpreter with these tables cannot be faster, so the bench reports turnfold's
figures as multiples of the floor's from the same run.

A message costs one body, one projection row inserted and updated, and four events in
two commits, each event with its place in the hash chain. All messages of one tick of
the loop share a transaction. A caller awaits a future for the enqueue and another for
the delivery, and the call of the channel is a task.

There are two layouts. `EventRows` stores a row per event and finds bodies by an index
on their digest. `CommitRows` stores a row per commit and stream, keys a body by its
stream, and updates three columns of the projection.
"""

from __future__ import annotations

import asyncio
import os
import time
from binascii import b2a_base64
from hashlib import sha256
from json.encoder import encode_basestring as quoted
from pathlib import Path
from typing import Any

import apsw
from tests.bench.inside import LEVELS
from tests.bench.ours import PAYLOAD, Instant

_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_DAY_MS = 86_400_000
_WAL_BYTES = 32 * 1024 * 1024
_WAL_PAGES = _WAL_BYTES // 4096

_STREAM = """
    CREATE TABLE stream (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, version INTEGER NOT NULL,
        last INTEGER NOT NULL, open INTEGER NOT NULL, phase TEXT, created INTEGER,
        updated INTEGER, lane TEXT, parent INTEGER, kind TEXT, due INTEGER,
        expires INTEGER, reason TEXT
    ) STRICT;
    CREATE INDEX stream_open ON stream (id) WHERE open = 1;
    CREATE INDEX stream_parent ON stream (parent) WHERE parent IS NOT NULL;
"""
_NEW_STREAM = "INSERT INTO stream VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class _Message:
    """One message on its way. `first` and `last` are positions in the log."""

    __slots__ = (
        "enqueued",
        "expires",
        "first",
        "lane",
        "last",
        "name",
        "queued_at",
        "receipt",
    )

    def __init__(self, lane: str, enqueued: asyncio.Future[_Message]) -> None:
        self.lane, self.enqueued = lane, enqueued
        self.receipt: str | None = None


class Floor:
    """`lifecycle(lane)` sends one message and waits for its delivery."""

    name = ""
    tables = ""
    new_log = new_body = closed = ""

    def __init__(self, path: Path, level: str, vfs: str | None = None) -> None:
        self._conn = conn = apsw.Connection(str(path), vfs=vfs)
        _prepare(conn, path, level, _STREAM + self.tables)
        conn.set_wal_hook(self._committed)
        cursor = conn.cursor()
        self._run, self._run_many = cursor.execute, cursor.executemany
        self._loop = asyncio.get_running_loop()
        self._channel = Instant()
        self._position, self._head = 0, bytes(32)
        self._wal_pages = 0
        self._log: list[tuple[Any, ...]] = []
        self._batch: list[_Message] = []
        self._settled: dict[str, asyncio.Future[None]] = {}

    async def lifecycle(self, lane: int) -> None:
        loop = self._loop
        message = _Message(f"c{lane}", loop.create_future())
        self._append(message)
        message = await message.enqueued
        settled = self._settled[message.name] = loop.create_future()
        await settled

    def close(self) -> None:
        self._conn.close()

    def _append(self, message: _Message) -> None:
        if not self._batch:
            self._loop.call_soon(self._flush)
        self._batch.append(message)

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        now = time.time_ns() // 1_000_000
        begun = [message for message in batch if message.receipt is None]
        ended = [message for message in batch if message.receipt is not None]
        run, run_many = self._run, self._run_many
        run("BEGIN IMMEDIATE")
        bodies = [self._begin(message, now) for message in begun]
        closed = [self._end(message, now) for message in ended]
        log = self._log
        log[-1] = (*log[-1][:-1], self._head)
        if begun:
            run_many(_NEW_STREAM, [_projection(message) for message in begun])
            run_many(self.new_body, bodies)
        if ended:
            run_many(self.closed, closed)
        run_many(self.new_log, log)
        log.clear()
        run("COMMIT")
        if self._wal_pages > _WAL_PAGES:
            self._conn.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        for message in begun:
            message.enqueued.set_result(message)
            self._loop.create_task(self._send(message))
        for message in ended:
            self._settled.pop(message.name).set_result(None)

    async def _send(self, message: _Message) -> None:
        accepted = await self._channel.send(None, message.name, None)
        message.receipt = accepted.receipt.ids[0]
        self._append(message)

    def _committed(self, _conn: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _begin(self, message: _Message, now: int) -> tuple[Any, ...]:
        """Log queued, planned and attempted; the row of the body."""
        body = f'{{"format":"plain","text":{quoted(PAYLOAD)},"type":"text"}}'.encode()
        salt = os.urandom(16)
        raw = sha256(salt + body).digest()
        digest = b2a_base64(raw, newline=False)[:43].translate(_URL_SAFE).decode()
        message.name = name = "entry:" + _time_ordered_id(now)
        message.queued_at, message.expires = now, now + _DAY_MS
        message.first = self._position + 1
        key = _short(int.from_bytes(sha256(name.encode()).digest()[:13], "big"), 90)
        self._log_begin(
            message,
            now,
            f'{{"account":"default","body":["{digest}"],"channel":"t",'
            f'"conversation":{quoted(message.lane)},"expires_at":{message.expires},'
            f'"kind":"notice","lane":{quoted("t/default/" + message.lane)}}}',
            f'{{"budget":8,"parts":[{{"body":"{digest}","classes":["blind"],'
            f'"key":"{key}","kind":"text"}}]}}',
            '{"attempt":1,"fence":1,"on_wire":true,"owner":"4711-host","part":0}',
        )
        message.last = self._position
        return self._body_row(message, raw, salt, body)

    def _log_begin(
        self, message: _Message, now: int, queued: str, planned: str, attempted: str
    ) -> None:
        raise NotImplementedError

    def _body_row(
        self, message: _Message, digest: bytes, salt: bytes, body: bytes
    ) -> tuple[Any, ...]:
        raise NotImplementedError

    def _end(self, message: _Message, now: int) -> tuple[Any, ...]:
        """Log delivered; the bindings of the projection's closing update."""
        raise NotImplementedError


class EventRows(Floor):
    name = "floor, event rows"
    tables = """
        CREATE TABLE log (
            position INTEGER PRIMARY KEY, stream INTEGER NOT NULL,
            version INTEGER NOT NULL, kind INTEGER NOT NULL, schema INTEGER NOT NULL,
            at INTEGER NOT NULL, data BLOB NOT NULL, hash BLOB NOT NULL, prev INTEGER,
            head BLOB
        ) STRICT;
        CREATE TABLE body (
            id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, salt BLOB NOT NULL,
            data BLOB
        ) STRICT;
    """
    new_log = "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    new_body = (
        "INSERT INTO body (digest, salt, data) VALUES (?, ?, ?) ON CONFLICT (digest) "
        "DO UPDATE SET salt = excluded.salt, data = excluded.data "
        "WHERE (body.salt, body.data) IS (x'', x'')"
    )
    closed = (
        "UPDATE stream SET version = ?2, last = ?3, open = ?4, phase = ?5, "
        "created = ?6, updated = ?7, lane = ?8, parent = ?9, kind = ?10, due = ?11, "
        "expires = ?12, reason = ?13 WHERE id = ?1"
    )

    def _log_begin(
        self, message: _Message, now: int, queued: str, planned: str, attempted: str
    ) -> None:
        self._event(message, 1, 1, "outbox.queued", queued, now, None)
        self._event(message, 2, 2, "outbox.planned", planned, now, message.first)
        self._event(
            message, 3, 3, "outbox.attempted", attempted, now, message.first + 1
        )

    def _body_row(
        self, message: _Message, digest: bytes, salt: bytes, body: bytes
    ) -> tuple[Any, ...]:
        return digest, salt, body

    def _end(self, message: _Message, now: int) -> tuple[Any, ...]:
        delivered = f'{{"attempt":1,"part":0,"receipt":["{message.receipt}"]}}'
        self._event(message, 4, 4, "outbox.delivered", delivered, now, message.last)
        row = _projection(message)
        return (row[0], 4, self._position, 0, "OK", row[6], now, *row[8:])

    def _event(
        self,
        message: _Message,
        version: int,
        kind: int,
        word: str,
        data: str,
        now: int,
        prev: int | None,
    ) -> None:
        self._position += 1
        stored = data.encode()
        envelope = (
            b'{"at":%d,"data":' % now
            + stored
            + f',"kind":"{word}","schema":1,"stream":"{message.name}",'
            f'"version":{version}}}'.encode()
        )
        digest = sha256(envelope).digest()
        self._head = sha256(self._head + digest).digest()
        self._log.append(
            (
                self._position,
                message.first,
                version,
                kind,
                1,
                now,
                stored,
                digest,
                prev,
                None,
            )
        )


class CommitRows(Floor):
    name = "floor, commit rows"
    tables = """
        CREATE TABLE log (
            position INTEGER PRIMARY KEY, stream INTEGER NOT NULL,
            version INTEGER NOT NULL, at INTEGER NOT NULL, events BLOB NOT NULL,
            hash BLOB NOT NULL, prev INTEGER, head BLOB
        ) STRICT;
        CREATE TABLE body (
            id INTEGER PRIMARY KEY, salt BLOB NOT NULL, data BLOB
        ) STRICT;
    """
    new_log = "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    new_body = "INSERT INTO body VALUES (?, ?, ?)"
    closed = (
        "UPDATE stream SET version = ?2, last = ?3, open = 0, phase = 'DELIVERED', "
        "updated = ?4 WHERE id = ?1"
    )

    def _log_begin(
        self, message: _Message, now: int, queued: str, planned: str, attempted: str
    ) -> None:
        events = (
            f'[["outbox.queued",1,{queued}],["outbox.planned",1,{planned}],'
            f'["outbox.attempted",1,{attempted}]]'
        )
        self._record(message, 3, events, now, None)

    def _body_row(
        self, message: _Message, digest: bytes, salt: bytes, body: bytes
    ) -> tuple[Any, ...]:
        return message.first << 10, salt, body  # 1,024 bodies for a stream's record

    def _end(self, message: _Message, now: int) -> tuple[Any, ...]:
        events = (
            '[["outbox.delivered",1,'
            f'{{"attempt":1,"part":0,"receipt":["{message.receipt}"]}}]]'
        )
        self._record(message, 4, events, now, message.last)
        return message.first, 4, self._position, now

    def _record(
        self, message: _Message, version: int, events: str, now: int, prev: int | None
    ) -> None:
        self._position += 1
        stored = events.encode()
        envelope = (
            b'{"at":%d,"events":' % now
            + stored
            + f',"stream":"{message.name}","version":{version}}}'.encode()
        )
        digest = sha256(envelope).digest()
        self._head = sha256(self._head + digest).digest()
        self._log.append(
            (self._position, message.first, version, now, stored, digest, prev, None)
        )


LAYOUTS: tuple[type[Floor], ...] = (EventRows, CommitRows)


def _prepare(conn: apsw.Connection, path: Path, level: str, tables: str) -> None:
    """The settings of turnfold's store, and a log file that has its size already."""
    conn.pragma("journal_mode", "WAL")
    conn.pragma("synchronous", level)
    conn.pragma("wal_autocheckpoint", 0)
    conn.pragma("secure_delete", 1)
    conn.execute(tables)
    found = conn.pragma("journal_mode"), conn.pragma("synchronous")
    assert found == ("wal", LEVELS[level]), found
    conn.execute("BEGIN IMMEDIATE")  # nobody else appends to the log file meanwhile
    with Path(f"{path}-wal").open("ab") as file:
        file.write(bytes(_WAL_BYTES))
    conn.execute("COMMIT")


def _projection(message: _Message) -> tuple[Any, ...]:
    return (
        message.first,
        message.name,
        3,
        message.last,
        1,
        "DISPATCHED",
        message.queued_at,
        message.queued_at,
        "t/default/" + message.lane,
        None,
        "notice",
        None,
        message.expires,
        None,
    )


def _time_ordered_id(now: int) -> str:
    return _short(now << 80 | int.from_bytes(os.urandom(10), "big"), 120)


def _short(value: int, bits: int) -> str:
    """Text of base 32, two digits at a time."""
    return "".join([_PAIRS[value >> n & 1023] for n in range(bits, -10, -10)])
