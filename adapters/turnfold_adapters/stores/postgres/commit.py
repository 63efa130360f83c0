"""The commits of one handle: checked in memory, stored by one statement.

The statement stores nothing unless the shard ends at the base of the write, and unless
its owner and its token are this handle's: after a failover that lost a take, another
owner can have the same token. So the stream versions in memory for that head are true
when the statement runs, and need no query. The server makes two checks itself, because
the answer is nearly always yes: a new stream's name and a new key are unique. If the
server refuses one, `_refusal` finds out which.

Commits of several shards of one host share a statement (`combining`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Container
from contextlib import AbstractAsyncContextManager
from itertools import groupby
from typing import Any

import asyncpg
from attrs import define, field

from turnfold.errors import ConflictError, InvalidInputError, LostStoreError
from turnfold.ports.store import (
    BLANK,
    Body,
    Head,
    Prune,
    Record,
    Refused,
    Stored,
    Summary,
    Write,
    head_after,
)
from turnfold_adapters.stores.checking import (
    KEPT_ANSWERS,
    body_there,
    check_number,
    check_projection,
    check_values,
    key_taken,
    log_moved,
    no_events,
    no_stream,
    off_the_head,
    stream_moved,
    wrong_shard,
)
from turnfold_adapters.stores.postgres.combining import Combiner, Part
from turnfold_adapters.stores.postgres.connection import Session
from turnfold_adapters.stores.postgres.pruning import take_out
from turnfold_adapters.stores.postgres.rows import end_of_log, kept, shown
from turnfold_adapters.stores.postgres.statement import ONE, Values, of_one

_REMEMBERED = 20_000  # streams
_TRIM_EVERY = 1_000  # answers

_LOCK = """
SELECT true FROM shard WHERE shard = SHARD AND position = $1 AND head = $2
    AND ($3::bigint IS NULL OR (owner = $4 AND token = $3::bigint)) FOR UPDATE
"""
_IS_OURS = "SELECT owner = $1 AND token = $2 FROM shard WHERE shard = SHARD"
_KNOWN = "SELECT name, id, version FROM stream WHERE shard = SHARD AND name = ANY ($1::text[])"
_TRIM = """
DELETE FROM answer WHERE shard = SHARD AND number <= (
    SELECT number FROM answer WHERE shard = SHARD
    ORDER BY number DESC OFFSET $1 LIMIT 1)
"""


@define
class _Known:
    """A stream: the position of its first record, and its version."""

    id: int
    version: int


@define
class _Rows:
    """The rows of one write."""

    log: list[tuple[Any, ...]] = field(factory=list)
    streams: dict[int, tuple[Any, ...]] = field(factory=dict)
    bodies: list[tuple[Any, ...]] = field(factory=list)
    erased: list[tuple[int, int]] = field(factory=list)
    keys: list[tuple[str, str]] = field(factory=list)


class Committer:
    """The commits of one handle of a shard. `address` is for errors. `combiner`: of all
    handles of the host."""

    def __init__(self, address: str, shard: int, combiner: Combiner) -> None:
        self._address, self._shard = address, shard
        self._combiner, self._link = combiner, combiner.link
        self._turn = asyncio.Lock()  # the memory is that of one commit at a time
        self._head = BLANK
        self._known: dict[str, _Known] = {}
        self._answers = 0
        self._alone = False

    def forget(self) -> None:
        """Forget the memory: another owner wrote, or a commit has an unknown
        outcome."""
        self._known.clear()

    def failed(self) -> None:
        """The last commit failed. The next one goes alone: if the reason is in its
        data, it fails no commit of another shard again."""
        self._alone = True
        self.forget()

    async def store(
        self, write: Write, seat: tuple[str, int] | None
    ) -> Stored | Refused:
        """`seat`: owner and token in hand; None for a handle that never was the owner.

        Raises InvalidInputError, LostStoreError, or an error of the server."""
        async with self._turn:
            moved_on = await self._learn(write)
            if moved_on is not None:
                return Refused(moved_on)
            check_values(write)
            moved: dict[str, _Known] = {}
            try:
                rows, head = self._rows(write, moved)
            except ConflictError as exc:
                return Refused(exc)
            values = _values(write, rows, head, seat)
            return await self._stored(write, seat, values, moved, head)

    async def _stored(
        self,
        write: Write,
        seat: tuple[str, int] | None,
        values: Values,
        moved: dict[str, _Known],
        head: Head,
    ) -> Stored | Refused:
        try:
            if write.prune is None:
                part = Part(self._shard, values, _size(write), alone=self._alone)
                stored = await self._combiner.stored(part)
            else:
                stored = await self._pruned(write.prune, values)
        except asyncpg.UniqueViolationError as exc:
            return await self._refusal(write, exc)
        if not stored:
            return Refused(await self._moved_on(write, seat))
        self._alone = False
        self._known |= moved
        self._head = head
        if write.answers:
            await self._trim(len(write.answers))
        return Stored(head)

    async def _pruned(self, prune: Prune, values: Values) -> bool:
        """Prune in several statements of one transaction. The first one checks the
        right to write and locks the shard."""
        async with self._used() as connection, connection.transaction():
            position, digest, *_, token, owner = values.head
            if not await connection.fetchval(_LOCK, position, digest, token, owner):
                return False
            await take_out(connection, prune)
            self.forget()
            return bool(await connection.fetchval(*of_one(ONE, values)))

    def _used(self) -> AbstractAsyncContextManager[Session]:
        return self._link.used(self._shard)

    async def _learn(self, write: Write) -> ConflictError | None:
        """Look up the streams that memory does not know. Returns an error if the log
        has moved: then the answer belongs to another head."""
        if write.base != self._head or len(self._known) > _REMEMBERED:
            self._known.clear()
        names = _unknown(write, self._known)
        if not names and write.base == self._head:
            return None
        # The head is read last, so it can only be newer than the streams. A commit in
        # between moves the head, which then differs from the base.
        async with self._used() as connection:
            found = [] if not names else await connection.fetch(_KNOWN, names)
            head, _ = await end_of_log(connection)
        if write.base != head:
            return log_moved(write.base, head)
        self._head = write.base
        of = {kept(name): name for name in _spoken_of(write) if _is_text(name)}
        self._known |= {of[name]: _Known(id_, at) for name, id_, at in found}
        return None

    async def _moved_on(
        self, write: Write, seat: tuple[str, int] | None
    ) -> ConflictError:
        """Why the statement stored nothing: the log has moved, or the token is
        outdated."""
        self.forget()
        async with self._used() as connection:
            head, _ = await end_of_log(connection)
            ours = seat is None or await connection.fetchval(_IS_OURS, *seat)
        if not ours:
            problem = "another worker has taken this store over"
            raise LostStoreError(path=self._address, problem=problem)
        return log_moved(write.base, head)

    # --- rows --------------------------------------------------------------------

    def _rows(self, write: Write, moved: dict[str, _Known]) -> tuple[_Rows, Head]:
        rows = _Rows()
        position = write.base.position
        for record in write.records:
            position += 1
            known = self._grown(record, position, moved)
            self._check_record(record, position, write.shard)
            rows.log.append(_log_row(record, known.id))
            moved[record.stream] = _Known(known.id, record.version)
        head = head_after(write.base, write.records)
        if rows.log:
            rows.log[-1] = (*rows.log[-1][:-1], head.hash)
        self._side_rows(write, moved, rows)
        return rows, head

    def _grown(self, record: Record, position: int, moved: dict[str, _Known]) -> _Known:
        known = moved.get(record.stream) or self._known.get(record.stream)
        known = known or _Known(position, 0)
        if record.before != known.version:
            raise stream_moved(record, known.version)
        return known

    def _check_record(self, record: Record, position: int, shard: int) -> None:
        if record.count < 1:
            raise no_events(record)
        if record.position != position:
            raise off_the_head(record, position)
        if record.shard != shard:
            raise wrong_shard(record)

    def _side_rows(self, write: Write, moved: dict[str, _Known], rows: _Rows) -> None:
        for name, known in moved.items():
            rows.streams[known.id] = _bare_row(name, known)
        for summary in write.summaries:
            known = self._seen("summary.stream", summary.stream, moved)
            check_projection(summary, known.version, known.id)
            if summary.parent is not None:
                self._seen("summary.parent", summary.parent, moved)
            rows.streams[known.id] = summary_row(summary)
        self._put_keys(write, moved, rows)
        self._put_bodies(write, moved, rows)

    def _put_keys(self, write: Write, moved: dict[str, _Known], rows: _Rows) -> None:
        new: dict[str, str] = {}
        for key, stream in write.keys:
            if key in new:
                version = self._seen("key.stream", new[key], moved).version
                raise key_taken(key, new[key], version)
            self._seen("key.stream", stream, moved)
            rows.keys.append((kept(key), kept(stream)))
            new[key] = stream

    def _put_bodies(self, write: Write, moved: dict[str, _Known], rows: _Rows) -> None:
        erased = {*write.erase}
        new: set[tuple[str, int]] = set()
        for body in write.bodies:
            check_number(body.number)
            known = self._seen("body.stream", body.stream, moved)
            ref = (body.stream, body.number)
            if ref in new:
                raise body_there(ref)
            new.add(ref)
            rows.bodies.append(_body_row(body, known.id, gone=ref in erased))
        for stream, number in erased - new:
            known_ = moved.get(stream) or self._known.get(stream)
            if known_ is not None:
                rows.erased.append((known_.id, number))

    def _seen(self, field_: str, stream: str, moved: dict[str, _Known]) -> _Known:
        known = moved.get(stream) or self._known.get(stream)
        if known is None:
            raise no_stream(field_, stream)
        return known

    # --- if the server refused ------------------------------------------------------

    async def _refusal(self, write: Write, exc: Exception) -> Refused:
        """The name or key that was not new. Raises InvalidInputError for a body's place
        that was not new, or the server's error if all of them are new."""
        self.forget()
        async with self._used() as connection:
            return await self._why(connection, write, exc)

    async def _why(self, connection: Session, write: Write, exc: Exception) -> Refused:
        head, _ = await end_of_log(connection)
        if write.base != head:
            return Refused(log_moved(write.base, head))
        for record in write.records:
            known = await _look_up(connection, record.stream)
            if record.before == 0 and known.version:
                return Refused(stream_moved(record, known.version))
        for key, stream in write.keys:
            done = [kept(name) for name in write.done]
            holder = await connection.fetchval(_HOLDER, kept(key), kept(stream), done)
            if holder is not None:
                known = await _look_up(connection, shown(holder))
                return Refused(key_taken(key, shown(holder), known.version))
        for body in write.bodies:
            known = await _look_up(connection, body.stream)
            if await connection.fetchval(_BODY_THERE, known.id, body.number):
                raise body_there((body.stream, body.number))
        raise exc

    async def _trim(self, answers: int) -> None:
        self._answers += answers
        if self._answers >= _TRIM_EVERY:
            self._answers = 0
            async with self._used() as connection:
                await connection.execute(_TRIM, KEPT_ANSWERS)


_HOLDER = """
SELECT name FROM dedupe AS d WHERE key = $1
    AND NOT EXISTS (SELECT FROM inbox AS p
        WHERE p.key = $1 AND (p.stream = $2 OR p.id = ANY ($3::text[])))
"""
_BODY_THERE = (
    "SELECT true FROM body WHERE shard = SHARD AND stream = $1 AND number = $2"
)


async def _look_up(connection: Session, stream: str) -> _Known:
    row = await connection.fetchrow(_KNOWN, [kept(stream)])
    return _Known(0, 0) if row is None else _Known(row[1], row[2])


def _spoken_of(write: Write) -> list[str]:
    """All streams that a write names."""
    names = [record.stream for record in write.records]
    names += [summary.stream for summary in write.summaries]
    names += [s.parent for s in write.summaries if s.parent is not None]
    names += [stream for _, stream in write.keys]
    names += [body.stream for body in write.bodies]
    return names + [stream for stream, _ in write.erase]


def _is_text(name: str) -> bool:
    """False for a value that is refused later."""
    try:
        name.encode()
    except (UnicodeEncodeError, AttributeError):
        return False
    return True


def _unknown(write: Write, known: Container[str]) -> list[str]:
    """The streams to look up: not known, and not marked as new."""
    new = {record.stream for record in write.records if record.version == record.count}
    left = {n for n in _spoken_of(write) if n not in new and n not in known}
    return [kept(name) for name in left if _is_text(name)]


def _log_row(record: Record, stream: int) -> tuple[Any, ...]:
    row = (record.position, stream, record.version, record.count, record.at)
    return (*row, record.wall, record.events, record.hash, None)


def _bare_row(name: str, known: _Known) -> tuple[Any, ...]:
    return (known.id, kept(name), known.version, False, *(None,) * 10, False)


def summary_row(s: Summary) -> tuple[Any, ...]:
    if s.phase is None:  # in the table None means that there is no summary
        raise InvalidInputError(field="summary.phase", problem="is None")
    row = (s.order, kept(s.stream), s.version, s.open, kept(s.phase), s.created)
    more = (s.updated, kept(s.lane), kept(s.parent), kept(s.kind), s.due, s.expires)
    return (*row, *more, kept(s.reason), kept(s.failure), s.person)


def _body_row(body: Body, stream: int, *, gone: bool) -> tuple[Any, ...]:
    if gone:
        return (stream, body.number, None, None)
    return (stream, body.number, body.salt, body.data)


def _values(
    write: Write, rows: _Rows, head: Head, seat: tuple[str, int] | None
) -> Values:
    owner, token = (None, None) if seat is None else seat
    last_at = write.records[-1].at if write.records else None
    base = write.base
    return Values(
        (base.position, base.hash, head.position, head.hash, last_at, token, owner),
        (
            rows.log,
            [*rows.streams.values()],
            rows.bodies,
            rows.erased,
            rows.keys,
            [(kept(name),) for name in write.done],
            [(kept(a.id), a.at, a.data) for a in _first(write)],
        ),
    )


def _size(write: Write) -> int:
    """About the bytes of its rows."""
    bodies = sum([len(body.data or b"") for body in write.bodies])
    return bodies + sum([len(record.events) for record in write.records])


def _first(write: Write) -> list[Any]:
    """The first answer to each command."""
    ordered = sorted(write.answers, key=lambda answer: answer.id)
    return [next(same) for _, same in groupby(ordered, key=lambda answer: answer.id)]
