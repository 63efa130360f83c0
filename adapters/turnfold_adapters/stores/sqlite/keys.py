"""The dedupe keys of a message id, in any conversation.

A key of an inbound message has the place before the id:
`in:channel/account/conversation/ id/...`. There is no index of ids, since each message
would pay for it. But table `key_place` has each place once, and only the first message
of a conversation adds to it. So a query looks for the id in each place, with one access
to the keys. If there are too many places, all keys are read.
"""

from collections.abc import Sequence
from typing import Any

import apsw

PLACES = 100_000  # about 0.8 us for each, and 0.2 us for each key that is read
_SLASH = "instr({0}, '/')"
_SECOND = f"({_SLASH} + instr(substr({{0}}, {_SLASH} + 1), '/'))"
_THIRD = f"({_SECOND} + instr(substr({{0}}, {_SECOND} + 1), '/'))"
_ROW = "SELECT d.key, coalesce(s.name, '?')"
_STREAM = "LEFT JOIN stream AS s ON s.id = d.stream"
_MANY = "SELECT count(*) > ?1 FROM (SELECT 1 FROM key_place LIMIT ?1 + 1)"
# '0' follows '/', so a key of the same id sorts before the place and the id with '0'.
_LOOK = f"""
    {_ROW} FROM key_place AS p CROSS JOIN dedupe AS d {_STREAM}
    WHERE d.key >= p.name || ?3 AND d.key < p.name || ?3 || '0' AND +d.key > ?1
          AND substr(d.key || '/', length(p.name || ?3) + 1, 1) = '/'
    ORDER BY d.key LIMIT ?2
"""
_SCAN = f"""
    {_ROW} FROM dedupe AS d {_STREAM}
    WHERE d.key > ?1 AND d.key >= 'in:' AND d.key < 'in;'
          AND instr(d.key || '/', '/' || ?3 || '/') > 0
          AND substr(d.key || '/', {_THIRD.format("d.key")} + 1, length(?3) + 1)
              = ?3 || '/'
    ORDER BY d.key LIMIT ?2
"""
_PLACES = f"""
    SELECT DISTINCT substr(key, 1, {_THIRD.format("key")}) FROM dedupe
    WHERE key >= 'in:' AND key < 'in;' AND length(key) - length(replace(key, '/', '')) > 2
"""
_FORGET = """
    DELETE FROM key_place WHERE name = ?1 AND NOT EXISTS (
        SELECT 1 FROM dedupe WHERE key >= ?1 AND key < substr(?1, 1, length(?1) - 1) || '0')
"""


def place_of_key(key: str) -> str:
    """The place in the key of a message, with its last slash; else an empty text."""
    parts = key.split("/", 3)
    if len(parts) < 4 or not key.startswith("in:"):
        return ""
    return f"{parts[0]}/{parts[1]}/{parts[2]}/"


def of_message(
    conn: apsw.Connection, after: str, limit: int, part: str
) -> list[tuple[str, str]]:
    """Keys with this part behind the place, with their streams, by key."""
    many: bool = conn.execute(_MANY, (PLACES,)).get
    rows: list[Any] = conn.execute(
        _SCAN if many else _LOOK, (after, limit, part)
    ).fetchall()
    return rows


def renew(conn: apsw.Connection) -> None:
    """Write all places anew, in the open transaction."""
    conn.execute("DELETE FROM key_place")
    conn.execute(f"INSERT INTO key_place {_PLACES}")


def problems(conn: apsw.Connection) -> Sequence[str]:
    """A line if a place is missing: its messages would not be found by their ids."""
    sql = f"SELECT count(*) FROM ({_PLACES} EXCEPT SELECT name FROM key_place)"
    lost: int = conn.execute(sql).get
    return [f"{lost} places of dedupe keys are not in key_place"] if lost else []


def forget_places(conn: apsw.Connection, keys: Sequence[str]) -> None:
    """Forget the places of pruned keys that have no key left."""
    places = {place_of_key(key) for key in keys} - {""}
    conn.executemany(_FORGET, [(place,) for place in places])
