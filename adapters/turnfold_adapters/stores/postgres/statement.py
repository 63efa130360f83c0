"""The statement of a commit: for one shard, and for several shards of one host.

Both store nothing for a shard unless its log ends at the base of the write, and unless
owner and token are those in hand. With several shards each is compared by itself: one
that does not fit is missing from the answer, and nothing of it is stored.

A guard reads only rows that the statement locks. The rows of several shards are locked
in the order of their numbers, so statements of two hosts never wait for each other in a
circle.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any, Final

from attrs import frozen

_LOG = (
    "position bigint, stream bigint, version int, count int, at bigint, wall bigint,"
    " events bytea, hash bytea, head bytea"
)
_STREAM = (
    "id bigint, name text, version int, open bool, phase text, created bigint,"
    " updated bigint, lane text, parent text, kind text, due bigint, expires bigint,"
    " reason text, failure text, person bool"
)
_BODY = "stream bigint, number int, salt bytea, data bytea"
_ERASED = "stream bigint, number int"
_KEY = "key text, name text"
_DONE = "id text"
_ANSWER = "id text, at bigint, data bytea"
_SHARD = (
    "base bigint, base_head bytea, position bigint, head bytea, last_at bigint,"
    " token bigint, owner text"
)
_TABLES = (_LOG, _STREAM, _BODY, _ERASED, _KEY, _DONE, _ANSWER)


def _names(columns: str) -> list[str]:
    return [column.split()[0] for column in columns.split(", ")]


def _arrays(columns: str, first: int) -> str:
    """Parameters from `first` on, one array per column."""
    types = [column.split()[1] for column in columns.split(", ")]
    return ", ".join(f"${first + n}::{kind}[]" for n, kind in enumerate(types))


def _unnest(columns: str, first: int) -> str:
    """Parameters from `first` on, one array per column, as rows `r`."""
    names = ", ".join(_names(columns))
    rows = f"unnest({_arrays(columns, first)}) AS r({names})"
    return f"{rows} WHERE EXISTS (SELECT FROM own)"


def _keeps(column: str) -> str:
    """The assignment of a column. A stream without a new summary keeps its old one."""
    new = f"excluded.{column}"
    return f"{column} = CASE WHEN excluded.phase IS NULL THEN s.{column} ELSE {new} END"


_KEPT = [name for name in _names(_STREAM) if name not in ("id", "name", "version")]
_NEW_SUMMARY = f"""
    ON CONFLICT (shard, id) DO UPDATE SET version = excluded.version,
        {", ".join(_keeps(name) for name in _KEPT)}"""
ONE = f"""
WITH own AS (
    UPDATE shard SET position = $3, head = $4, last_at = coalesce($5, last_at)
    WHERE shard = SHARD AND position = $1 AND head = $2
        AND ($6::bigint IS NULL OR (owner = $7 AND token = $6::bigint))
    RETURNING shard),
l AS (INSERT INTO log SELECT SHARD, r.* FROM {_unnest(_LOG, 8)}),
s AS (
    INSERT INTO stream AS s SELECT SHARD, r.* FROM {_unnest(_STREAM, 17)}{_NEW_SUMMARY}),
b AS (
    INSERT INTO body SELECT SHARD, r.* FROM {_unnest(_BODY, 32)}) /* side */,
e AS (
    UPDATE body SET salt = NULL, data = NULL
    FROM unnest($36::bigint[], $37::int[]) AS r(stream, number)
    WHERE body.shard = SHARD AND body.stream = r.stream AND body.number = r.number
        AND EXISTS (SELECT FROM own)),
k AS (
    INSERT INTO dedupe (key, name, shard)
    SELECT r.*, SHARD FROM {_unnest(_KEY, 38)}
        AND NOT EXISTS (SELECT FROM inbox AS p WHERE p.key = r.key
            AND (p.stream = r.name OR p.id = ANY ($40::text[])))),
g AS (  -- a command that ends now gives its key to the stream that it went into
    UPDATE dedupe SET name = r.name FROM unnest($38::text[], $39::text[]) AS r(key, name)
    WHERE dedupe.key = r.key AND EXISTS (SELECT FROM own)
        AND EXISTS (SELECT FROM inbox AS p
            WHERE p.key = r.key AND p.id = ANY ($40::text[]))),
i AS (
    DELETE FROM inbox WHERE shard = SHARD AND id = ANY ($40::text[]) AND EXISTS (SELECT FROM own)
    RETURNING key, stream),
f AS (  -- keys of commands that ended without their stream
    DELETE FROM dedupe AS d USING i
    WHERE d.key = i.key AND d.name = i.stream AND d.key <> ALL ($38::text[])),
a AS (
    INSERT INTO answer (id, at, data, shard)
    SELECT r.*, SHARD FROM {_unnest(_ANSWER, 41)}
    ON CONFLICT DO NOTHING) /* end */
SELECT count(*) FROM own
"""


def _of_many() -> list[str]:
    """The rows of each table as a relation `r`: the shard of a row comes first."""
    tables = [f"shard int, {columns}" for columns in (_SHARD, *_TABLES)]
    firsts = accumulate([1, *(len(_names(columns)) for columns in tables)])
    return [
        f"unnest({_arrays(columns, first)}) AS r({', '.join(_names(columns))})"
        for first, columns in zip(firsts, tables, strict=False)
    ]


_WANT, _LOGS, _STREAMS, _BODIES, _ERASURES, _KEYS, _ENDED, _ANSWERS = _of_many()
_OWN = "r.shard IN (SELECT shard FROM own)"
# Does a command that ends in the same shard hold the key of `r`?
_ENDS = "p.shard = r.shard AND p.id IN (SELECT id FROM done WHERE done.shard = r.shard)"
MANY = f"""
WITH want AS MATERIALIZED (SELECT * FROM {_WANT}),
/* side */ keys AS MATERIALIZED (SELECT * FROM {_KEYS}),
done AS MATERIALIZED (SELECT * FROM {_ENDED}), /* end */
locked AS MATERIALIZED (
    SELECT s.shard FROM shard AS s JOIN want AS w ON w.shard = s.shard
    WHERE s.position = w.base AND s.head = w.base_head
        AND (w.token IS NULL OR (s.owner = w.owner AND s.token = w.token))
    ORDER BY s.shard FOR NO KEY UPDATE OF s),
own AS (
    UPDATE shard AS s SET position = w.position, head = w.head,
        last_at = coalesce(w.last_at, s.last_at)
    FROM want AS w JOIN locked ON locked.shard = w.shard WHERE s.shard = w.shard
    RETURNING s.shard),
l AS (INSERT INTO log SELECT r.* FROM {_LOGS} WHERE {_OWN}),
s AS (
    INSERT INTO stream AS s SELECT r.* FROM {_STREAMS} WHERE {_OWN}{_NEW_SUMMARY}),
b AS (INSERT INTO body SELECT r.* FROM {_BODIES} WHERE {_OWN}) /* side */,
e AS (
    UPDATE body SET salt = NULL, data = NULL FROM {_ERASURES}
    WHERE body.shard = r.shard AND body.stream = r.stream AND body.number = r.number
        AND {_OWN}),
k AS (
    INSERT INTO dedupe (key, name, shard)
    SELECT r.key, r.name, r.shard FROM keys AS r WHERE {_OWN}
        AND NOT EXISTS (SELECT FROM inbox AS p WHERE p.key = r.key
            AND (p.stream = r.name OR {_ENDS}))
    ORDER BY r.key),
g AS (  -- a command that ends now gives its key to the stream that it went into
    UPDATE dedupe SET name = r.name FROM keys AS r
    WHERE dedupe.key = r.key AND {_OWN}
        AND EXISTS (SELECT FROM inbox AS p WHERE p.key = r.key AND {_ENDS})),
i AS (
    DELETE FROM inbox AS p USING done AS r
    WHERE p.shard = r.shard AND p.id = r.id AND {_OWN}
    RETURNING p.shard, p.key, p.stream),
f AS (  -- keys of commands that ended without their stream
    DELETE FROM dedupe AS d USING i
    WHERE d.key = i.key AND d.name = i.stream AND NOT EXISTS (
        SELECT FROM keys AS r WHERE r.key = d.key AND r.shard = i.shard)),
a AS (
    INSERT INTO answer (id, at, data, shard)
    SELECT r.id, r.at, r.data, r.shard FROM {_ANSWERS} WHERE {_OWN}
    ON CONFLICT DO NOTHING) /* end */
SELECT shard FROM own
"""
UPDATE_SUMMARY = f"""
UPDATE stream SET {
    ", ".join(
        f"{name} = ${n}" for n, name in enumerate(_names(_STREAM), 1) if name != "id"
    )
} WHERE shard = SHARD AND id = $1
"""
_WIDTHS: Final = [len(_names(columns)) for columns in _TABLES]
_MAIN = 3  # tables that nearly every commit writes to; the others are aside
_ASIDE = re.compile(r"/\* side \*/.*?/\* end \*/", re.DOTALL)
_Row = tuple[Any, ...]


@frozen
class Values:
    """The rows of one write. `head`: of `_SHARD`; `tables`: of each of `_TABLES`. They
    stay rows until their statement is sent: columns of each write alone would be seven
    times as many lists."""

    head: _Row
    tables: Sequence[Sequence[_Row]]

    @property
    def plain(self) -> bool:
        """Has it no rows for the tables aside?"""
        return not any(self.tables[_MAIN:])


@cache
def without_sides(sql: str) -> str:
    """`ONE` or `MANY` for plain values. The parts for the tables aside take time, even
    without rows: at the server, and to encode their empty columns."""
    return _ASIDE.sub("", sql)


def of_one(sql: str, values: Values) -> list[Any]:
    """`ONE` as `sql`, with its arguments."""
    tables = [*zip(values.tables, _WIDTHS, strict=True)]
    if values.plain:
        sql, tables = without_sides(sql), tables[:_MAIN]
    return [sql, *values.head, *(c for table in tables for c in _columns(*table))]


def of_many(sql: str, shards: Sequence[int], values: Sequence[Values]) -> list[Any]:
    """`MANY` as `sql`, with its arguments. `values`: of each of the shards."""
    widths = _WIDTHS
    if all(of.plain for of in values):
        sql, widths = without_sides(sql), widths[:_MAIN]
    merged: list[Any] = [sql, shards, *zip(*(of.head for of in values), strict=True)]
    for n, width in enumerate(widths):
        pairs = [*zip(shards, (of.tables[n] for of in values), strict=True)]
        merged.append([shard for shard, rows in pairs for _ in rows])
        merged += _columns([row for _, rows in pairs for row in rows], width)
    return merged


def _columns(rows: Sequence[_Row], width: int) -> Sequence[Sequence[Any] | None]:
    """A column without values is sent as NULL: `unnest` fills it up with NULL, and
    asyncpg takes 0.2 us for each NULL in an array."""
    if not rows:
        return [()] * width
    columns = zip(*rows, strict=True)
    return [None if _is_empty(column) else column for column in columns]


def _is_empty(column: Sequence[Any]) -> bool:
    return column[0] is None and column.count(None) == len(column)
