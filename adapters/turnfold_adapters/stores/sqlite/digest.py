"""Counts and places of older streams, so that a query over a million streams reads only
thousands of rows.

The log is cut into blocks of positions. When a block lies well behind the end of the
log, the next commit counts its closed streams into `tally`, notes the lane of each of
its streams in `lane_stream`, and the ends of their names in `name_end`. All three tables
grow at their end, so a message costs two short rows and no page of its own. When a stream
changes later, the same commit subtracts its old count and adds its new one.

So at any time each stream in a digested block is in `lane_stream`, each closed one is
counted in `tally`, open ones are in the index `stream_open`, and less than two blocks
are not digested yet. `specs/decisions/0020-digest.md` has the figures.
"""

from collections.abc import Sequence
from typing import Any

import apsw

BLOCK_BITS = 12
HOUR_MS = 3_600_000

TABLES = (
    """CREATE TABLE tally (  -- of closed streams that have a lane
        block INTEGER NOT NULL,
        hour INTEGER NOT NULL,  -- created, in hours
        family TEXT NOT NULL,
        place TEXT NOT NULL,  -- the first two parts of the lane
        kind TEXT NOT NULL,  -- here and below '' is null
        phase TEXT NOT NULL,
        reason TEXT NOT NULL,
        failure TEXT NOT NULL,
        count INTEGER NOT NULL,
        PRIMARY KEY (block, hour, family, place, kind, phase, reason, failure)
    ) STRICT, WITHOUT ROWID""",
    "CREATE TABLE lane (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT",
    """CREATE TABLE lane_stream (
        block INTEGER NOT NULL,
        lane INTEGER NOT NULL,
        stream INTEGER NOT NULL,
        PRIMARY KEY (block, lane, stream)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE name_end (
        block INTEGER PRIMARY KEY,
        ends TEXT NOT NULL  -- the last characters of each name, each end once
    ) STRICT""",
    "CREATE TABLE digested (blocks INTEGER NOT NULL) STRICT",
)
_END = 6  # characters

# The fields that a stream is counted by, as SQL over its row `s`.
FIELDS = {
    "hour": f"s.created / {HOUR_MS}",
    "family": "substr(s.name, 1, instr(s.name, ':') - 1)",
    "place": (
        "substr(s.lane || '//', 1, instr(s.lane || '//', '/')"
        " + instr(substr(s.lane || '//', instr(s.lane || '//', '/') + 1), '/') - 1)"
    ),
    "kind": "ifnull(s.kind, '')",
    "phase": "s.phase",
    "reason": "ifnull(s.reason, '')",
    "failure": "ifnull(s.failure, '')",
}
_GROUP = ", ".join(FIELDS.values())
_COUNTED = "s.open = 0 AND s.phase IS NOT NULL AND s.lane IS NOT NULL"
_TALLY = f"""
    INSERT INTO tally SELECT ?1, {_GROUP}, count(*) FROM stream AS s
    WHERE s.id >= ?1 << {BLOCK_BITS} AND s.id < ?1 + 1 << {BLOCK_BITS} AND {_COUNTED}
    GROUP BY {_GROUP}
"""
_LANES = f"""
    INSERT OR IGNORE INTO lane (name) SELECT DISTINCT s.lane FROM stream AS s
    WHERE s.id >= ?1 << {BLOCK_BITS} AND s.id < ?1 + 1 << {BLOCK_BITS}
          AND s.lane IS NOT NULL
"""
_PLACED = f"""
    INSERT INTO lane_stream SELECT ?1, l.id, s.id
    FROM stream AS s CROSS JOIN lane AS l ON l.name = s.lane
    WHERE s.id >= ?1 << {BLOCK_BITS} AND s.id < ?1 + 1 << {BLOCK_BITS} ORDER BY 2, 3
"""
_ENDS = f"""
    INSERT INTO name_end
    SELECT ?1, group_concat(DISTINCT substr(s.name, -{_END})) FROM stream AS s
    WHERE s.id >= ?1 << {BLOCK_BITS} AND s.id < ?1 + 1 << {BLOCK_BITS}
    HAVING count(*) > 0
"""
_ENDED = "SELECT block FROM name_end WHERE instr(ends, ?) > 0 LIMIT ?"
_EMPTY = f"""
    DELETE FROM name_end WHERE block = ?1 AND NOT EXISTS (
        SELECT 1 FROM stream WHERE id >= ?1 << {BLOCK_BITS} AND id < ?1 + 1 << {BLOCK_BITS})
"""
_RECOUNT = " ".join(
    f"""
    INSERT INTO tally SELECT s.id >> {BLOCK_BITS}, {_GROUP}, ?2 FROM stream AS s
    WHERE s.id = ?1 AND {_COUNTED}
    ON CONFLICT DO UPDATE SET count = count + excluded.count
""".split()
)
_UNPLACE = """
    DELETE FROM lane_stream WHERE block = ?1 >> 12 AND stream = ?1
    AND lane = (SELECT l.id FROM lane AS l JOIN stream AS s ON s.lane = l.name
                WHERE s.id = ?1)
""".replace("12", str(BLOCK_BITS))
_LANE = """
    INSERT OR IGNORE INTO lane (name)
    SELECT lane FROM stream WHERE id = ?1 AND lane IS NOT NULL
"""
_PLACE = f"""
    INSERT INTO lane_stream SELECT s.id >> {BLOCK_BITS}, l.id, s.id
    FROM stream AS s JOIN lane AS l ON l.name = s.lane WHERE s.id = ?1
"""


def blocks_of(conn: apsw.Connection) -> int:
    """How many blocks are digested."""
    found: int = conn.execute("SELECT blocks FROM digested").get
    return found


def due(digested: int, position: int) -> bool:
    """True if a block lies at least one whole block behind the end of the log."""
    return position >> BLOCK_BITS > digested + 1


def digest(conn: apsw.Connection, block: int) -> None:
    """Digest the next block, in the open transaction."""
    for sql in (_TALLY, _LANES, _PLACED, _ENDS):
        conn.execute(sql, (block,))
    conn.execute("UPDATE digested SET blocks = ?", (block + 1,))


def renew(conn: apsw.Connection, position: int) -> int:
    """Digest all blocks anew; returns their number."""
    for table in ("tally", "lane_stream", "lane", "name_end"):
        conn.execute(f"DELETE FROM {table}")
    conn.execute("UPDATE digested SET blocks = 0")
    blocks = 0
    while due(blocks, position):
        digest(conn, blocks)
        blocks += 1
    return blocks


def leave(conn: apsw.Connection, stream: int, digested: int) -> None:
    """Take a stream out of the digest before it is pruned. `digested`: the number of
    blocks."""
    block = stream >> BLOCK_BITS
    if block < digested:
        conn.execute(_RECOUNT, (stream, -1))
        conn.execute(_UNPLACE, (stream,))
        conn.execute("DELETE FROM tally WHERE block = ? AND count = 0", (block,))


def left(conn: apsw.Connection, stream: int) -> None:
    """Forget the ends of a block whose last stream was pruned."""
    conn.execute(_EMPTY, (stream >> BLOCK_BITS,))


def ended(conn: apsw.Connection, ending: str, limit: int) -> Sequence[int]:
    """Digested blocks that may hold a name with this end, at most `limit`."""
    rows = conn.execute(_ENDED, (ending[-_END:], limit))
    return [row[0] for row in rows]


class Recount:
    """Recounts the streams of digested blocks that a transaction changes: call `before`
    and `after` around the change."""

    def __init__(
        self, conn: apsw.Connection, streams: Sequence[tuple[int, Any]]
    ) -> None:
        """`streams`: ids, each with its new lane."""
        self._conn, self._streams = conn, streams

    def before(self) -> None:
        for stream, lane in self._streams:
            self._conn.execute(_RECOUNT, (stream, -1))
            old = self._conn.execute("SELECT lane FROM stream WHERE id = ?", (stream,))
            if old.get != lane:
                self._conn.execute(_UNPLACE, (stream,))

    def after(self) -> None:
        for stream, _ in self._streams:
            self._conn.execute(_RECOUNT, (stream, 1))
            self._conn.execute(_LANE, (stream,))
            self._conn.execute(_PLACE + " ON CONFLICT DO NOTHING", (stream,))
