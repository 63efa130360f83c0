"""A check of the links between rows of the log, which SQLite's own check does not
cover.

Two columns link the records of a stream, one holds the running hash. A flipped bit in
one of them hides no record: a reader then searches without the link. It costs time, and
shows that the disk is not reliable.
"""

from collections.abc import Iterator
from hashlib import sha256

import apsw

_PREV = """
    SELECT position FROM (
        SELECT position, prev, lag(position) OVER (
            PARTITION BY stream ORDER BY position) AS before FROM log)
    WHERE prev IS NOT before ORDER BY position LIMIT 20
"""
_LAST = """
    SELECT CAST(s.name AS BLOB) FROM stream AS s
    JOIN (SELECT stream, max(position) AS last FROM log GROUP BY stream) AS l
      ON l.stream = s.id
    WHERE s.last <> l.last ORDER BY s.id LIMIT 20
"""
_WORDS = """
    SELECT CAST(name AS BLOB) FROM stream
    WHERE open NOT IN (0, 1) OR person NOT IN (0, 1) ORDER BY id LIMIT 20
"""
_HEADS = """
    SELECT position, hash, head FROM log UNION ALL
    SELECT position, hash, head FROM pruned ORDER BY 1
"""


def problems(conn: apsw.Connection) -> Iterator[str]:
    """A line for each row that does not fit the others."""
    for (position,) in conn.execute(_PREV):
        yield f"log {position}: `prev` is not the record before it in its stream"
    for (name,) in conn.execute(_LAST):
        yield f"stream {_shown(name)}: `last` is not its last record"
    for (name,) in conn.execute(_WORDS):
        yield f"stream {_shown(name)}: `open` or `person` is neither 0 nor 1"
    for position in _wrong_heads(conn):
        yield f"log {position}: `head` is not the running hash"


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "replace")[:80]


def _wrong_heads(conn: apsw.Connection) -> Iterator[int]:
    """The first row with a wrong running hash: after it all of them are wrong."""
    digest = bytes(32)
    for position, record, head in conn.execute(_HEADS):
        if not isinstance(record, bytes):
            return
        digest = sha256(digest + record).digest()
        if head is not None and head != digest:
            yield position
            return
