"""The upkeep of a store in PostgreSQL.

The server maintains its own files. Two calls have work: rewriting the projection from
folded summaries, and noting the head. The note lies in the same database and goes back
with a restore, so it also names the server's history: a different history means that
commits may be lost (`history`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from turnfold.clock import Lived
from turnfold.errors import DiskError, InvalidInputError, StoreError
from turnfold.ports.store import BLANK, Count, Head, Summary, Watermark
from turnfold_adapters.stores.checking import check_projection, check_summary, no_stream
from turnfold_adapters.stores.postgres import history, pruning, reads
from turnfold_adapters.stores.postgres.commit import summary_row
from turnfold_adapters.stores.postgres.connection import Place, Session
from turnfold_adapters.stores.postgres.rows import kept
from turnfold_adapters.stores.postgres.statement import UPDATE_SUMMARY

_CLEARED = """
UPDATE stream SET open = false, phase = NULL, created = NULL, updated = NULL,
    lane = NULL, parent = NULL, kind = NULL, due = NULL, expires = NULL, reason = NULL,
    failure = NULL, person = false
WHERE shard = SHARD
"""
_PLACES = "SELECT name, id, version FROM stream WHERE shard = SHARD"
# No note where the log lacks this handle's head: the server went back.
_NOTE = """
UPDATE mark SET store = $1, position = s.position, head = s.head, lived = $2,
    history = $3
FROM shard AS s WHERE mark.shard = SHARD AND s.shard = SHARD AND ($4::bigint = 0
    OR EXISTS (SELECT FROM log WHERE shard = SHARD AND position = $4 AND head = $5)
    OR EXISTS (SELECT FROM pruned WHERE shard = SHARD AND position = $4 AND head = $5))
RETURNING true
"""
_MARK = "SELECT store, position, head, lived, history FROM mark WHERE shard = SHARD"
_READ_ALL = """
SELECT (SELECT sum(length(events)) FROM log), (SELECT sum(length(data)) FROM body),
    (SELECT sum(length(name)) FROM stream), (SELECT sum(length(key)) FROM dedupe)
"""
_Ask = Callable[[Session], Awaitable[Any]]
_Run = Callable[[_Ask], Awaitable[Any]]


class PostgresMaintenance:
    """`reading`, `writing` and `noting` ask the server, `check` raises unless the store may be
    written, `forget` empties the memory of commits. `head`: the last stored or loaded
    head of the handle. `lost`: called if the log lacks that head. `place`: of the
    store."""

    def __init__(
        self,
        reading: _Run,
        writing: _Run,
        noting: _Run,
        check: Callable[[], None],
        forget: Callable[[], None],
        head: Callable[[], Head],
        lost: Callable[[], StoreError],
        place: Place,
    ) -> None:
        self._reading, self._writing, self._noting = reading, writing, noting
        self._check, self._forget, self._head, self._lost = check, forget, head, lost
        self._place = place

    async def checkpoint(self) -> bool:
        """No work. Readers cannot read erased bodies after their commit. VACUUM frees
        their pages; the server's log, replicas and backups keep the bytes as long as
        configured."""
        self._check()
        return True

    async def sweep(self) -> int:
        """No work: the database has no files beside it."""
        self._check()
        return 0

    async def rebuild(self, summaries: Iterable[Summary]) -> None:
        fresh = list(summaries)
        await self._writing(lambda c: _rebuild(c, fresh))
        self._forget()

    async def note_watermark(self, store: str, lived: Lived | None = None) -> None:
        data = None if lived is None else msgspec.json.encode(_fields(lived))
        head = self._head()
        if not await self._noting(lambda c: _note(c, store, data, head)):
            raise self._lost()

    async def watermark(self) -> Watermark | None:
        row, found = await self._reading(_noted)
        if row is None:
            return None
        store, position, digest, data, noted = row
        failover = history.failover(noted, found)
        if not store and failover is None:
            return None
        lived = None if data is None else Lived(**msgspec.json.decode(data))
        head = Head(position, digest)
        return Watermark(store=store, head=head, lived=lived, failover=failover)

    async def contains_head(self, head: Head) -> bool:
        found = await self._reading(lambda c: reads.contains_head(c, head))
        return head == BLANK if not head.position else bool(found)

    async def pruned(self) -> Sequence[Count]:
        found: Sequence[Count] = await self._reading(pruning.counts)
        return found

    async def reclaim(self) -> bool:
        """No work: the server's VACUUM does it."""
        self._check()
        return True

    async def size(self) -> Mapping[str, int]:
        found: Mapping[str, int] = await self._reading(pruning.sizes)
        return found

    async def copy(
        self, target: Path, tell: Callable[[int, int], None], *, text: bool = True
    ) -> None:
        """Refused: the server's own tools copy a database."""
        del tell, text
        problem = (
            "a store in PostgreSQL is backed up by the server's own tools, such as"
            f" pg_dump --format=custom --schema={self._place.schema} --file={target}."
            " Where that dump is put back, turnfold notices it: what was open then waits"
            " for a person. turnfold copy makes a store in a file"
        )
        raise InvalidInputError(field="store", problem=problem)

    async def integrity(self) -> Sequence[str]:
        """Read all tables once. The server checks its pages at each read, if it is
        configured so; a table that cannot be read is a finding."""
        try:
            await self._reading(lambda c: c.execute(_READ_ALL))
        except DiskError as exc:
            return [exc.problem]
        return []


def _fields(lived: Lived) -> dict[str, object]:
    names = ("boot", "log", "wall", "since", "sure", "trusted")
    return {name: getattr(lived, name) for name in names}


async def _note(
    connection: Session, store: str, lived: bytes | None, head: Head
) -> bool:
    """Note the head. False if the log lacks it."""
    found = await history.name(connection.connection) or ""
    place = (head.position, head.hash)
    return bool(await connection.fetchval(_NOTE, store, lived, found, *place))


async def _noted(connection: Session) -> tuple[Any, str | None]:
    return await connection.fetchrow(_MARK), await history.name(connection.connection)


async def _rebuild(connection: Session, summaries: Sequence[Summary]) -> None:
    """Replace all summaries in one transaction. Raises InvalidInputError for a summary
    that does not fit its stream; then nothing has changed."""
    async with connection.transaction():
        rows = await connection.fetch(_PLACES)
        known = {name: (order, version) for name, order, version in rows}
        for summary in summaries:
            check_summary(summary)
            place = known.get(kept(summary.stream))
            if place is None:
                raise no_stream("summary.stream", summary.stream)
            check_projection(summary, place[1], place[0])
            if summary.parent is not None and kept(summary.parent) not in known:
                raise no_stream("summary.parent", summary.parent)
        await connection.execute(_CLEARED)
        rows_ = [summary_row(summary) for summary in summaries]
        await connection.executemany(UPDATE_SUMMARY, rows_)
