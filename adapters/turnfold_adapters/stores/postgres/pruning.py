"""Pruning streams in PostgreSQL, and the sizes of its tables.

Position, hash and head of a record in `log` move to `pruned`. Summaries, bodies and
keys are deleted; VACUUM gives their room to new rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from turnfold.ports.store import COUNT_BY, Count, Prune
from turnfold_adapters.stores.checking import no_stream
from turnfold_adapters.stores.postgres.connection import Session
from turnfold_adapters.stores.postgres.rows import kept, shown

_IDS = "SELECT name, id FROM stream WHERE shard = SHARD AND name = ANY ($1::text[])"
_KEEP = """
INSERT INTO pruned SELECT shard, position, hash, head, $2 FROM log
WHERE shard = SHARD AND stream = ANY ($1::bigint[])
"""
_GONE = (
    "DELETE FROM log WHERE shard = SHARD AND stream = ANY ($1::bigint[])",
    "DELETE FROM body WHERE shard = SHARD AND stream = ANY ($1::bigint[])",
    "DELETE FROM stream WHERE shard = SHARD AND id = ANY ($1::bigint[])",
)
_KEYS = "DELETE FROM dedupe WHERE key = ANY ($1::text[])"
_BY = ", ".join(COUNT_BY)
_COUNT = f"""
INSERT INTO pruned_tally AS t (shard, {_BY}, count)
VALUES (SHARD, {", ".join(f"${n + 1}" for n in range(len(COUNT_BY) + 1))})
ON CONFLICT (shard, {_BY}) DO UPDATE SET count = t.count + excluded.count
"""
_COUNTS = f"SELECT {_BY}, count FROM pruned_tally WHERE shard = SHARD"
_SIZES = """
SELECT c.relname, pg_table_size(c.oid), pg_indexes_size(c.oid)
FROM pg_class AS c WHERE c.relnamespace = current_schema()::regnamespace
    AND c.relkind = 'r'
"""


async def take_out(connection: Session, prune: Prune) -> None:
    """Prune in the open transaction. Raises InvalidInputError for an unknown stream."""
    names = [kept(name) for name in prune.streams]
    found = {shown(name): id_ for name, id_ in await connection.fetch(_IDS, names)}
    for name in prune.streams:
        if name not in found:
            raise no_stream("prune.streams", name)
    ids = list(found.values())
    await connection.execute(_KEEP, ids, prune.by)
    for sql in _GONE:
        await connection.execute(sql, ids)
    await connection.execute(_KEYS, [kept(key) for key in prune.keys])
    for count in prune.counts:
        await connection.execute(_COUNT, *map(_kept, count.values), count.count)


def _kept(value: int | str) -> int | str:
    return kept(value) if isinstance(value, str) else value


async def counts(connection: Session) -> Sequence[Count]:
    found = []
    for *values, number in await connection.fetch(_COUNTS):
        texts = (shown(v) if isinstance(v, str) else v for v in values)
        found.append(Count(tuple(texts), number))
    return found


async def sizes(connection: Session) -> Mapping[str, int]:
    """Bytes of each table with its long values, and of its indexes."""
    found: dict[str, int] = {}
    for name, table, indexes in await connection.fetch(_SIZES):
        found[name if name in ("log", "body", "dedupe") else f"table {name}"] = table
        found["table indexes"] = found.get("table indexes", 0) + indexes
    return found
