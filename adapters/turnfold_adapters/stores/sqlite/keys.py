"""The dedupe keys of a message id, in any conversation.

A key of an inbound message has the place before the id:
`in:channel/account/conversation/ id/...`. There is no index of ids, since each message
would pay for it. But the lane of its turn begins with the same place, and the digest
has each lane once. So a query takes the conversations from there and looks for the id
in each. If there are too many conversations, all keys are read.
"""

from typing import Any

import apsw

from turnfold_adapters.stores.sqlite.digest import BLOCK_BITS

CONVERSATIONS = 60_000  # about 2 us for each, and 0.2 us for each key that is read
_SLASH = "instr({0}, '/')"
_SECOND = f"({_SLASH} + instr(substr({{0}}, {_SLASH} + 1), '/'))"
_THIRD = f"({_SECOND} + instr(substr({{0}}, {_SECOND} + 1), '/'))"
_ROW = "SELECT d.key, coalesce(s.name, '?')"
_STREAM = "LEFT JOIN stream AS s ON s.id = d.stream"
_LANES = f"""
    SELECT name FROM lane
    UNION ALL SELECT lane FROM stream
    WHERE id >= (SELECT blocks << {BLOCK_BITS} FROM digested) AND lane IS NOT NULL
"""
# '0' follows '/', so a prefix with '0' behind it sorts after all keys of that id.
_LOOK = f"""
    WITH place (name) AS MATERIALIZED (
        SELECT DISTINCT 'in:' || substr(l.name, 1, {_THIRD.format("l.name")})
        FROM ({_LANES}) AS l
        WHERE length(l.name) - length(replace(l.name, '/', '')) >= 3
        ORDER BY 1 LIMIT ?4
    )
    SELECT NULL, '' FROM (SELECT count(*) AS n FROM place) WHERE n >= ?4
    UNION ALL
    {_ROW} FROM place AS p CROSS JOIN dedupe AS d {_STREAM}
    WHERE d.key >= p.name || ?3 AND d.key < p.name || ?3 || '0' AND +d.key > ?1
          AND substr(d.key || '/', length(p.name || ?3) + 1, 1) = '/'
    LIMIT ?2 + 1
"""
_SCAN = f"""
    {_ROW} FROM dedupe AS d {_STREAM}
    WHERE d.key > ?1 AND d.key >= 'in:' AND d.key < 'in;'
          AND instr(d.key || '/', '/' || ?3 || '/') > 0
          AND substr(d.key || '/', {_THIRD.format("d.key")} + 1, length(?3) + 1)
              = ?3 || '/'
    ORDER BY d.key LIMIT ?2
"""


def of_message(
    conn: apsw.Connection, after: str, limit: int, part: str
) -> list[tuple[str, str]]:
    """Keys with this part behind the place, with their streams, by key."""
    given = (after, limit, part, CONVERSATIONS)
    rows: list[Any] = conn.execute(_LOOK, given).fetchall()
    if any(key is None for key, _ in rows):
        rows = conn.execute(_SCAN, (after, limit, part)).fetchall()
    return sorted(rows)[:limit]
