"""All queries of the port, as statements over one connection."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from turnfold.ports.store import (
    Answer,
    Body,
    BodyRef,
    Command,
    Count,
    Found,
    Head,
    Listing,
    Loaded,
    Posted,
    Record,
    Summary,
    Wanted,
)
from turnfold_adapters.stores.packing import packed
from turnfold_adapters.stores.postgres import pruning
from turnfold_adapters.stores.postgres.connection import Session
from turnfold_adapters.stores.postgres.rows import (
    COMMAND,
    RECORD,
    SUMMARY,
    Row,
    body_of,
    command_of,
    end_of_log,
    kept,
    record_of,
    shown,
    summary_of,
)
from turnfold_adapters.stores.pruned_counts import of_pruned

_HOUR_MS = 3_600_000
_SUMMARIES = (
    f"SELECT {SUMMARY} FROM stream AS s WHERE s.shard = SHARD AND s.phase IS NOT NULL"
)
_RECORDS = f"""
    SELECT {RECORD} FROM log AS l
    LEFT JOIN stream AS s ON s.shard = l.shard AND s.id = l.stream
"""
_NO_SUMMARY = ", ".join(["NULL"] * SUMMARY.count(","))
_LOOK = f"""
    SELECT {SUMMARY}, 'summary' AS what, NULL::bigint AS answered, NULL::bytea AS said
    FROM stream AS s WHERE s.shard = SHARD AND s.name = ANY ($1::text[])
        AND s.phase IS NOT NULL
    UNION ALL SELECT id, {_NO_SUMMARY}, 'answer', at, data
    FROM answer WHERE id = ANY ($1::text[])
    UNION ALL SELECT id, {_NO_SUMMARY}, 'waits', NULL, NULL
    FROM inbox WHERE id = ANY ($1::text[])
"""
_HELD = "SELECT key, name FROM dedupe"
_KEYS = """
    SELECT d.key, d.name FROM dedupe AS d
    WHERE d.shard = SHARD
        AND NOT EXISTS (SELECT FROM inbox AS p WHERE p.key = d.key AND p.stream = d.name)
"""
_BODIES = """
    SELECT b.number, coalesce(s.name, '?' || b.stream) AS name, b.salt, b.data
    FROM body AS b LEFT JOIN stream AS s ON s.shard = b.shard AND s.id = b.stream
"""
_CHILDREN = (
    "SELECT parent, name FROM stream WHERE shard = SHARD AND parent = ANY ($1::text[])"
    " ORDER BY id"
)
_POST = """
WITH w AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[],
                         $5::bytea[], $6::text[], $7::bytea[], $8::bool[])
    WITH ORDINALITY AS w(id, kind, stream, at, data, key, bodies, answer, n)),
fresh AS (
    SELECT * FROM w
    WHERE NOT EXISTS (SELECT FROM answer AS a WHERE a.id = w.id)
        AND NOT EXISTS (SELECT FROM inbox AS i WHERE i.id = w.id)),
held AS (
    INSERT INTO dedupe (shard, key, name)
    SELECT SHARD, key, stream FROM fresh WHERE key IS NOT NULL
    ORDER BY key ON CONFLICT DO NOTHING
    RETURNING key),
new AS (
    INSERT INTO inbox (shard, id, kind, stream, at, data, key, bodies, answer)
    SELECT SHARD, id, kind, stream, at, data, key, bodies, answer FROM fresh
    WHERE key IS NULL OR key IN (SELECT key FROM held)
    ORDER BY n ON CONFLICT DO NOTHING
    RETURNING id)
SELECT w.id, new.id IS NOT NULL AS new,
    coalesce(i.stream, CASE WHEN a.id IS NOT NULL THEN w.stream END, d.name) AS holder
FROM w LEFT JOIN new ON new.id = w.id LEFT JOIN inbox AS i ON i.id = w.id
    LEFT JOIN answer AS a ON a.id = w.id LEFT JOIN dedupe AS d ON d.key = w.key
"""
_COUNTED = {
    "hour": f"s.created / {_HOUR_MS}",
    "family": "split_part(s.name, ':', 1)",
    "place": "split_part(s.lane, '/', 1) || '/' || split_part(s.lane, '/', 2)",
    "kind": "coalesce(s.kind, '')",
    "phase": "s.phase",
    "reason": "coalesce(s.reason, '')",
    "failure": "coalesce(s.failure, '')",
}

_Connection = Session


async def load(connection: _Connection) -> Loaded:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        head, _ = await end_of_log(connection)
        last_at = await connection.fetchval(
            "SELECT last_at FROM shard WHERE shard = SHARD"
        )
        rows = await connection.fetch(f"{_SUMMARIES} AND s.open ORDER BY s.id")
        store = await connection.fetchrow(f"{_SUMMARIES} AND s.name = 'store'")
    return Loaded(
        head=head,
        last_at=last_at,
        open=[summary_of(row) for row in rows],
        store=None if store is None else summary_of(store),
    )


async def fetch(connection: _Connection, wanted: Wanted) -> Found:
    """One statement for each kind of name; several run in one snapshot. Summaries and
    answers share one: clients ask for both at each look."""
    looks = wanted.summaries | wanted.answers
    kinds = (wanted.streams, wanted.keys, wanted.bodies, wanted.children, looks)
    if sum(map(bool, kinds)) <= 1:
        return await _found(connection, wanted, looks)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return await _found(connection, wanted, looks)


async def _found(connection: _Connection, w: Wanted, looks: frozenset[str]) -> Found:
    seen: dict[str, list[Row]] = {"summary": [], "answer": [], "waits": []}
    for row in await connection.fetch(_LOOK, _kept(looks)) if looks else ():
        seen[row["what"]].append(row)
    waiting = {shown(row["name"]) for row in seen["waits"]}
    return Found(
        streams=await _streams(connection, w.streams),
        summaries=_summaries(seen["summary"], w.summaries),
        keys=await _holders(connection, w.keys),
        bodies=await _bodies(connection, w.bodies),
        children=await _children(connection, w.children),
        answers=_answers(seen["answer"], w.answers),
        waiting=w.answers.intersection(waiting),
    )


async def _streams(
    connection: _Connection, names: frozenset[str]
) -> dict[str, Sequence[Record]]:
    found: dict[str, list[Record]] = {name: [] for name in names}
    if names:
        sql = f"{_RECORDS} WHERE s.shard = SHARD AND s.name = ANY ($1::text[]) ORDER BY l.position"
        for row in await connection.fetch(sql, _kept(names)):
            record = record_of(row)
            found[record.stream].append(record)
    return {**found}


def _summaries(rows: Iterable[Row], names: frozenset[str]) -> dict[str, Summary | None]:
    found = {summary.stream: summary for summary in map(summary_of, rows)}
    return {name: found.get(name) for name in names}


async def _holders(
    connection: _Connection, names: frozenset[str]
) -> dict[str, str | None]:
    found: dict[str, str | None] = dict.fromkeys(names)
    if names:
        sql = f"{_HELD} WHERE key = ANY ($1::text[])"
        for key, stream in await connection.fetch(sql, _kept(names)):
            found[shown(key)] = shown(stream)
    return found


async def _bodies(
    connection: _Connection, refs: frozenset[BodyRef]
) -> dict[BodyRef, Body | None]:
    found: dict[BodyRef, Body | None] = dict.fromkeys(refs)
    if refs:
        sql = f"""{_BODIES} JOIN unnest($1::text[], $2::int[]) AS r(name, number)
            ON s.name = r.name AND b.number = r.number WHERE b.shard = SHARD AND b.salt IS NOT NULL"""
        names = [kept(name) for name, _ in refs]
        rows = await connection.fetch(sql, names, [number for _, number in refs])
        found |= {(body.stream, body.number): body for body in map(body_of, rows)}
    return found


async def _children(
    connection: _Connection, turns: frozenset[str]
) -> dict[str, Sequence[str]]:
    found: dict[str, list[str]] = {turn: [] for turn in turns}
    if turns:
        for turn, name in await connection.fetch(_CHILDREN, _kept(turns)):
            found[shown(turn)].append(shown(name))
    return {**found}


def _answers(rows: Iterable[Row], names: frozenset[str]) -> dict[str, Answer | None]:
    told = [(shown(row["name"]), row["answered"], row["said"]) for row in rows]
    found = {id_: Answer(id=id_, at=at, data=data) for id_, at, data in told}
    return {name: found.get(name) for name in names}


def _kept(names: Iterable[str]) -> list[str]:
    return [kept(name) for name in names]


# --- the log and its side tables ------------------------------------------------------


async def log(connection: _Connection, after: int, limit: int) -> Sequence[Record]:
    sql = f"""({_RECORDS} WHERE l.shard = SHARD AND l.position > $1
            ORDER BY l.position LIMIT $2)
        UNION ALL
        (SELECT position, '', "by", 0, 0, '', hash, NULL, 0 FROM pruned
            WHERE shard = SHARD AND position > $1 ORDER BY position LIMIT $2)
        ORDER BY position LIMIT $2"""
    return [record_of(row) for row in await connection.fetch(sql, after, limit)]


async def last(connection: _Connection) -> Record | None:
    row = await connection.fetchrow(
        f"{_RECORDS} WHERE l.shard = SHARD ORDER BY l.position DESC LIMIT 1"
    )
    return None if row is None else record_of(row)


async def every_body(
    connection: _Connection, after: BodyRef | None, limit: int
) -> Sequence[Body]:
    sql = f"""{_BODIES} WHERE b.shard = SHARD AND b.salt IS NOT NULL AND (b.stream, b.number) > ($1, $2)
        ORDER BY b.stream, b.number LIMIT $3"""
    place = (-1, -1) if after is None else (await _id(connection, after[0]), after[1])
    return [body_of(row) for row in await connection.fetch(sql, *place, limit)]


async def _id(connection: _Connection, stream: str) -> int:
    """The id of a stream. `?17`, as `every_body` returns it, is the stream 17 without
    its row."""
    if stream.startswith("?"):
        return int(stream[1:])
    found = await connection.fetchval(
        "SELECT id FROM stream WHERE shard = SHARD AND name = $1", kept(stream)
    )
    return 0 if found is None else int(found)


async def keys(
    connection: _Connection, after: str, limit: int, part: str
) -> Sequence[tuple[str, str]]:
    sql = f"""{_KEYS} AND d.key > $1
        AND ($3 = '' OR d.key LIKE 'in:%' AND split_part(d.key, '/', 4) = $3)
        ORDER BY d.key LIMIT $2"""
    rows = await connection.fetch(sql, kept(after), limit, kept(part))
    return [(shown(key), shown(stream)) for key, stream in rows]


async def contains_head(connection: _Connection, wanted: Head) -> bool:
    here = "shard = SHARD AND position = $1 AND head = $2"
    sql = f"""SELECT true FROM log WHERE {here}
        UNION ALL SELECT true FROM pruned WHERE {here}"""
    return bool(await connection.fetchval(sql, wanted.position, wanted.hash))


# --- the inbox ------------------------------------------------------------------------


async def inbox(connection: _Connection, limit: int) -> Sequence[Command]:
    sql = f"SELECT {COMMAND} FROM inbox WHERE shard = SHARD ORDER BY number LIMIT $1"
    return [command_of(row) for row in await connection.fetch(sql, limit)]


async def post(
    connection: _Connection, commands: Sequence[Command]
) -> dict[str, Posted]:
    """Post commands that differ in id and key. Returns the results by id.

    The table of keys decides between two that come at once, in a commit or in a post. A
    command that lost to a simultaneous one cannot see it yet: a second query finds the
    stream.
    """
    columns = [*map(list, zip(*[_columns(c) for c in commands], strict=True))]
    rows: Sequence[Any] = await connection.fetch(_POST, *columns)
    if any(stream is None and not new for _, new, stream in rows):
        first = {name: new for name, new, _ in rows}
        again = await connection.fetch(_POST, *columns)
        rows = [(name, first[name] or new, stream) for name, new, stream in again]
    streams = {command.id: command.stream for command in commands}
    posted: dict[str, Posted] = {}
    for name, new, stream in rows:
        held = streams[shown(name)] if new or stream is None else shown(stream)
        posted[shown(name)] = Posted(stream=held, new=new)
    return posted


def _columns(c: Command) -> tuple[Any, ...]:
    row = (kept(c.id), kept(c.kind), kept(c.stream), c.at, c.data)
    return (*row, kept(c.key), packed(c.bodies), c.answer)


# --- lists and counts -----------------------------------------------------------------


async def find(connection: _Connection, want: Listing) -> Sequence[Summary]:
    where = _Where(want)
    if want.before is not None:
        where.add("s.id < {}", want.before)
    way = "ASC" if want.oldest else "DESC"
    sql = f"{_SUMMARIES} AND {where} ORDER BY s.id {way} LIMIT {max(want.limit, 0)}"
    return [summary_of(row) for row in await connection.fetch(sql, *where.values)]


async def count(
    connection: _Connection, want: Listing, by: Sequence[str]
) -> Sequence[Count]:
    where = _Where(want)
    fields = [_COUNTED[name] for name in by]
    group = f"GROUP BY {', '.join(fields)}" if fields else ""
    sql = f"""SELECT {", ".join([*fields, "count(*)"])} FROM stream AS s
        WHERE s.shard = SHARD AND s.phase IS NOT NULL AND s.lane IS NOT NULL
            AND {where} {group}"""
    found = of_pruned(want, by, await pruning.counts(connection))
    for *values, number in await connection.fetch(sql, *where.values):
        texts = (shown(v) if isinstance(v, str) else v for v in values)
        found[tuple(texts)] += number
    return [Count(values, number) for values, number in found.items() if number]


async def places(connection: _Connection) -> Sequence[str]:
    """The places, by one access to the index of lanes for each."""
    sql = f"""
    WITH RECURSIVE one(place) AS (
        (SELECT {_COUNTED["place"]} FROM stream AS s
         WHERE s.shard = SHARD AND s.lane IS NOT NULL
         ORDER BY s.lane LIMIT 1)
        UNION ALL
        SELECT (SELECT {_COUNTED["place"]} FROM stream AS s
                WHERE s.shard = SHARD AND s.lane > one.place || '/' || chr(1114111) ORDER BY s.lane LIMIT 1)
        FROM one WHERE one.place IS NOT NULL)
    SELECT DISTINCT place FROM one WHERE place IS NOT NULL"""
    return sorted(shown(row[0]) for row in await connection.fetch(sql))


class _Where:
    """The tests of a `Listing` as SQL over the row `s` of a stream."""

    def __init__(self, want: Listing) -> None:
        self.values: list[Any] = []
        self._tests = ["true"]
        texts = {
            "starts_with(s.name, {})": want.prefix,
            "right(s.name, length({0})) = {0}": want.ending,
        }
        for test, text in texts.items():
            if text:
                self.add(test, kept(text))
        self._equal(want)
        self._any(want)
        if want.since is not None:
            self.add("s.created >= {}", want.since)
        if want.until is not None:
            self.add("s.created < {}", want.until)

    def add(self, test: str, value: object) -> None:
        self.values.append(value)
        self._tests.append(test.format(f"${len(self.values)}"))

    def _equal(self, want: Listing) -> None:
        for column in ("open", "person", "lane", "parent"):
            value = getattr(want, column)
            if value is not None:
                text = kept(value) if isinstance(value, str) else value
                self.add(f"s.{column} = {{}}", text)

    def _any(self, want: Listing) -> None:
        lists = {
            "s.phase = ANY ({}::text[])": want.phases,
            "s.kind = ANY ({}::text[])": want.kinds,
            "(s.reason = ANY ({0}::text[]) OR s.failure = ANY ({0}::text[]))": (
                want.reasons
            ),
            "s.lane ^@ ANY ({}::text[])": want.lanes,
        }
        for test, texts in lists.items():
            if texts:
                self.add(test, [kept(text) for text in texts])

    def __str__(self) -> str:
        return " AND ".join(self._tests)
