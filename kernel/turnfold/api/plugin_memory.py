"""The rows of one namespace in this process. Reads ask them first, and they go on
serving when the store of plugins fails."""

from collections.abc import Sequence
from typing import Protocol

from turnfold.ports.plugins import Row, Wrote
from turnfold.ports.plugins import Write as _Write


class Counter(Protocol):
    """Returns versions, each larger than all before it."""

    def __call__(self) -> int: ...


class Memory:
    """A PluginStore for one namespace, in memory. `next_version`: gives versions while
    the store of plugins is not used."""

    def __init__(self, next_version: Counter) -> None:
        self._rows: dict[str, Row] = {}
        self._next = next_version

    def keep(self, row: Row, most: int) -> None:
        """Remember a row of the store; only the `most` recent rows are kept."""
        self._rows.pop(row.key, None)
        self._rows[row.key] = row
        if len(self._rows) > most:
            del self._rows[next(iter(self._rows))]

    def forget(self, key: str | None = None) -> None:
        if key is None:
            self._rows.clear()
        else:
            self._rows.pop(key, None)

    def get(self, keys: Sequence[str], now: int) -> list[Row | None]:
        return [self._live(key, now) for key in keys]

    def _live(self, key: str, now: int) -> Row | None:
        row = self._rows.get(key)
        return row if row is not None and row.lives(now) else None

    def write(self, w: _Write) -> Wrote:
        there = self._live(w.key, w.now)
        version = 0 if there is None else there.version
        if w.expect is not None and w.expect != version:
            return Wrote(there, stored=False, count=len(self._rows))
        if there is None and not self._room(w):
            return Wrote(None, stored=False, count=len(self._rows), full=True)
        row = Row(w.key, w.data, self._next(), w.schema, w.expires)
        self.keep(row, w.most)
        return Wrote(row, stored=True, count=len(self._rows))

    def _room(self, w: _Write) -> bool:
        if len(self._rows) < w.most:
            return True
        for row in self.rows(0):
            if not row.lives(w.now):
                self.forget(row.key)
        while w.evict and len(self._rows) >= w.most:
            self.forget(self.rows(w.now)[0].key)
        return len(self._rows) < w.most

    def take(self, key: str, now: int, schema: int) -> Row | None:
        row = self._live(key, now)
        if row is None or row.schema > schema:
            return None
        self.forget(key)
        return row

    def drop(self, key: str | None, now: int) -> int:
        names = list(self._rows) if key is None else [key]
        live = [name for name in names if self._live(name, now)]
        self.forget(key)
        return len(live)

    def rows(self, now: int) -> list[Row]:
        found = [row for row in self._rows.values() if row.lives(now)]
        return sorted(found, key=lambda row: row.version)
