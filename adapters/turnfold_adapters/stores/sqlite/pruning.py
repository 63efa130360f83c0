"""Pruning streams in a SQLite store, and reclaiming their room.

A row of `log` moves to `pruned`, without its events. The counts of `tally` move to
`pruned_tally`. Bodies are emptied in place, as in an erasing: deleting a row may move
its neighbours, and moved bytes could not be erased later.

So the room of bodies is reclaimed block by block. The last bodies of a nearly empty
block move to `late_body`, and are erased in their old place. Then the block holds only
empty rows. When both of its neighbours do, too, its rows are deleted: SQLite moves only
rows of neighbouring pages.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import apsw

from turnfold.ports.store import COUNT_BY, Count, Prune
from turnfold_adapters.stores.checking import no_stream
from turnfold_adapters.stores.sqlite.connection import row_of
from turnfold_adapters.stores.sqlite.digest import BLOCK_BITS, leave, left
from turnfold_adapters.stores.sqlite.keys import forget_places
from turnfold_adapters.stores.sqlite.schema import NUMBER_BITS

_CHAIN = """
    WITH RECURSIVE chain (position) AS (
        SELECT last FROM stream WHERE id = ?1
        UNION ALL
        SELECT log.prev FROM chain JOIN log ON log.position = chain.position
        WHERE log.prev < log.position
    )
    SELECT position, count FROM log WHERE position IN chain
"""
_SCAN = "SELECT position, count FROM log WHERE stream = ?1"
_KEEP = (
    "INSERT INTO pruned SELECT position, hash, head, ?2 FROM log WHERE position = ?1"
)
_COUNT = f"""
    INSERT INTO pruned_tally ({", ".join(COUNT_BY)}, count)
    VALUES ({", ".join("?" * len(COUNT_BY))}, ?)
    ON CONFLICT DO UPDATE SET count = count + excluded.count
"""
_KEPT = """
    SELECT id, data IS NULL FROM body
    WHERE id >= ?1 << 20 AND id < ?1 + 1 << 20 AND salt IS NOT NULL
""".replace("20", str(NUMBER_BITS))
_LATE = _KEPT.replace("id", "place").replace("body", "late_body")
_BLOCK = """
    INSERT INTO body_block (block, gone) VALUES (?, ?)
    ON CONFLICT DO UPDATE SET gone = gone + excluded.gone
"""
_RANGE = "id >= ?1 << {0} AND id < ?1 + 1 << {0}".format(BLOCK_BITS + NUMBER_BITS)
_MOVE = f"""
    INSERT INTO late_body (place, salt, data)
    SELECT id, salt, data FROM body WHERE {_RANGE} AND salt IS NOT NULL
"""
_EMPTY = f"""
    UPDATE body SET salt = NULL, data = NULL WHERE {_RANGE} AND salt IS NOT NULL
"""
# Both neighbours hold only empty rows; the first block has one neighbour.
_BETWEEN = """
    SELECT block FROM body_block AS b WHERE state = 1
    AND EXISTS (SELECT 1 FROM body_block WHERE block = b.block + 1 AND state > 0)
    AND (block = 0
         OR EXISTS (SELECT 1 FROM body_block WHERE block = b.block - 1 AND state > 0))
    LIMIT 1
"""
_FEW = 3  # a block is emptied if this many times more of its bodies are gone than left


def take_out(
    conn: apsw.Connection, prune: Prune, digested: int
) -> tuple[bool, Sequence[int]]:
    """Prune in the open transaction. Returns True if a body was erased, and the places
    of bodies with files to remove after the COMMIT."""
    erased, files = False, list[int]()
    for name in prune.streams:
        row = row_of(conn, "SELECT id, version FROM stream WHERE name = ?", (name,))
        if row is None:
            raise no_stream("prune.streams", name)
        stream, version = row
        _records(conn, stream, version, prune.by)
        leave(conn, stream, digested)
        for place, in_file in _bodies(conn, stream):
            erased = True
            files += [place] if in_file else []
        conn.execute("DELETE FROM stream WHERE id = ?", (stream,))
        left(conn, stream)
    keys = [(key,) for key in prune.keys]
    conn.executemany("DELETE FROM dedupe WHERE key = ?", keys)
    forget_places(conn, prune.keys)
    rows = [(*count.values, count.count) for count in prune.counts]
    conn.executemany(_COUNT, rows)
    return erased, files


def _records(conn: apsw.Connection, stream: int, version: int, by: int) -> None:
    rows: list[Any] = conn.execute(_CHAIN, (stream,)).fetchall()
    if sum(count for _, count in rows) != version:  # a link is damaged
        rows = conn.execute(_SCAN, (stream,)).fetchall()
    positions = sorted(position for position, _ in rows)
    conn.executemany(_KEEP, [(position, by) for position in positions])
    gone = [(position,) for position in positions]
    conn.executemany("DELETE FROM log WHERE position = ?", gone)


def _bodies(conn: apsw.Connection, stream: int) -> Iterator[tuple[int, bool]]:
    """Erase the bodies of a stream. Yields the place of each, and if it has a file."""
    kept: list[Any] = conn.execute(_KEPT, (stream,)).fetchall()
    late: list[Any] = conn.execute(_LATE, (stream,)).fetchall()
    for table, column, rows in (("body", "id", kept), ("late_body", "place", late)):
        sql = f"UPDATE {table} SET salt = NULL, data = NULL WHERE {column} = ?"
        conn.executemany(sql, [(place,) for place, _ in rows])
    if kept:
        conn.execute(_BLOCK, (stream >> BLOCK_BITS, len(kept)))
    for place, in_file in (*kept, *late):
        yield place, bool(in_file)


def counts(conn: apsw.Connection) -> Sequence[Count]:
    sql = f"SELECT {', '.join(COUNT_BY)}, count FROM pruned_tally"
    return [Count(tuple(row[:-1]), row[-1]) for row in conn.execute(sql)]


def reclaim(conn: apsw.Connection) -> bool:
    """Reclaim one block, in the open transaction. True if nothing is left to do."""
    row = row_of(
        conn,
        "SELECT block, gone FROM body_block WHERE state = 0 AND gone > seen LIMIT 1",
    )
    if row is not None:
        _look(conn, *row)
        return False
    row = row_of(conn, _BETWEEN)
    if row is None:
        return True
    conn.execute(f"DELETE FROM body WHERE {_RANGE}", row)
    conn.execute("UPDATE body_block SET state = 2 WHERE block = ?", row)
    return False


def _look(conn: apsw.Connection, block: int, gone: int) -> None:
    sql = f"SELECT count(*) FROM body WHERE {_RANGE} AND salt IS NOT NULL"
    (left,) = row_of(conn, sql, (block,))
    few = left * _FEW <= gone
    if few:
        conn.execute(_MOVE, (block,))
        conn.execute(_EMPTY, (block,))
    sql = "UPDATE body_block SET seen = gone, state = ? WHERE block = ?"
    conn.execute(sql, (int(few), block))
