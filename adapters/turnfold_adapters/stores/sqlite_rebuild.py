"""Replacing all summaries of a SQLite store: they are projections of its log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from turnfold.ports.store import Summary
from turnfold_adapters.stores.checking import (
    check_projection,
    check_summary,
    no_stream,
)
from turnfold_adapters.stores.sqlite_tx import CHANGED, SqliteTx, summary_row

# Versions come from the log, too: after this nothing rests on the old rows but names.
_CLEAR = """
    UPDATE stream SET open = 0, phase = NULL, created = NULL, updated = NULL,
           lane = NULL, parent = NULL, kind = NULL, due = NULL, expires = NULL,
           reason = NULL, version = whole.version, last = whole.last
    FROM (SELECT stream, max(version) AS version, max(position) AS last
          FROM log GROUP BY stream) AS whole
    WHERE whole.stream = stream.id
"""


def replace_summaries(tx: SqliteTx, summaries: Iterable[Summary]) -> None:
    """Inside a write transaction, before it did anything else."""
    tx.forget_streams()
    tx.conn.execute(_CLEAR)
    tx.conn.executemany(CHANGED, _rows(tx, summaries))


def _rows(tx: SqliteTx, summaries: Iterable[Summary]) -> Iterator[tuple[Any, ...]]:
    for summary in summaries:
        check_summary(summary)
        known = tx.known(summary.stream)
        if not known.version:
            raise no_stream("summary.stream", summary.stream)
        check_projection(summary, known.version, known.id)
        parent = None if summary.parent is None else tx.known(summary.parent)
        if parent is not None and not parent.version:
            raise no_stream("summary.parent", str(summary.parent))
        yield summary_row(summary, known.last, None if parent is None else parent.id)
