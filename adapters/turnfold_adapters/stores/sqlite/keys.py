"""The dedupe keys of a message id, in any conversation.

A key of an inbound message has the place before the id:
`in:channel/account/conversation/ id/...`. There is no index of ids, since each message
would pay for it. But keys are sorted, so a query can jump from conversation to
conversation and look for the id in each. If there are too many conversations, all keys
are read.
"""

from typing import Any

import apsw

JUMPS = 30_000  # conversations; about 3 us for each, and 0.2 us for each skipped key
_SLASH = "instr({0}, '/')"
_SECOND = f"({_SLASH} + instr(substr({{0}}, {_SLASH} + 1), '/'))"
_THIRD = f"({_SECOND} + instr(substr({{0}}, {_SECOND} + 1), '/'))"
_PLACE = f"substr({{0}}, 1, {_THIRD})".format("f.key")
_BEHIND = f"substr({{0}}, 1, {_THIRD} - 1) || '0'".format("f.key")
_NEXT = "SELECT key FROM dedupe WHERE key {0} AND key < 'in;' ORDER BY key LIMIT 1"
_ROW = "SELECT d.key, coalesce(s.name, '?')"
_STREAM = "LEFT JOIN stream AS s ON s.id = d.stream"
# '0' follows '/', so a place with '0' in the place of its last slash sorts after all
# its keys.
_JUMP = f"""
    WITH RECURSIVE first (key) AS (
        SELECT * FROM ({_NEXT.format(">= 'in:'")})
        UNION ALL
        SELECT ({_NEXT.format(f">= {_BEHIND}")})
        FROM first AS f WHERE f.key IS NOT NULL LIMIT ?4
    ), place (name) AS MATERIALIZED (
        SELECT {_PLACE} FROM first AS f WHERE f.key IS NOT NULL
    )
    {_ROW} FROM place AS p CROSS JOIN dedupe AS d {_STREAM}
    WHERE d.key >= p.name || ?3 AND d.key < p.name || ?3 || '0' AND +d.key > ?1
          AND substr(d.key || '/', length(p.name || ?3) + 1, 1) = '/'
    UNION ALL SELECT NULL, '' FROM (SELECT count(*) AS n FROM place) WHERE n >= ?4
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
    rows: list[Any] = conn.execute(_JUMP, (after, limit, part, JUMPS)).fetchall()
    if any(key is None for key, _ in rows):
        rows = conn.execute(_SCAN, (after, limit, part)).fetchall()
    return sorted(rows)[:limit]
