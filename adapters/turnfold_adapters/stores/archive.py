"""An archive as a read-only store for queries and audits (specs/keep.md).

Opening reads the whole archive into memory: an archive holds a bounded number of turns.
"""

from __future__ import annotations  # `list` is a method of the port, too

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

from turnfold.audit.auditor import told
from turnfold.audit.facts import keys_of
from turnfold.errors import NotAStoreError, ReadOnlyError
from turnfold.inspect.archive import Content, Manifest, read
from turnfold.ports.store import Head, Record
from turnfold_adapters.stores.memory import MemoryStore
from turnfold_adapters.stores.memory_disk import MemoryDisk

__all__ = ["ArchiveStore"]


class ArchiveStore(MemoryStore):
    """The store port over one archive. It keeps the positions of its original store, so
    there are gaps between them."""

    manifest: Manifest

    def __init__(self, path: str | Path) -> None:
        super().__init__(address=str(path))
        self._positions: list[int] = []

    async def open(self, *, read_only: bool = False) -> None:
        """Raises ReadOnlyError unless it is opened for reading only, NotAStoreError,
        DamagedError, DiskError."""
        if not read_only:
            raise ReadOnlyError(path=self.address)
        path = Path(self.address)
        if not await asyncio.to_thread(path.is_file):
            raise NotAStoreError(path=self.address, problem="it does not exist")
        content = await asyncio.to_thread(read, path)
        self.manifest, self.disk = content.manifest, _disk_of(content)
        self._positions = [record.position for record in content.records]
        await super().open(read_only=True)

    @property
    def maintenance(self) -> None:  # type: ignore[override]  # the port allows none
        return None

    async def log(self, after: int = 0, limit: int = 1000) -> Sequence[Record]:
        start = bisect_right(self._positions, after)
        return self._disk().log[start : start + limit]


def _disk_of(content: Content) -> MemoryDisk:
    disk, records = MemoryDisk(), content.records
    disk.created = True
    disk.log = [*records]
    disk.streams = {name: tuple(rows) for name, rows in content.streams.items()}
    disk.summaries = {summary.stream: summary for summary in content.summaries}
    disk.bodies = {(body.stream, body.number): body for body in content.bodies}
    disk.keys = {
        key: name
        for name, rows in content.streams.items()
        for key, _ in keys_of(told(rows))
    }
    last = records[-1]
    disk.head = Head(last.position, last.hash)
    return disk
