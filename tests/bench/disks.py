"""Disks for measuring: one that counts its syncs, one whose commits are slow.

Python's VFS layer has no shared memory, so a store on the counting one is opened
exclusively, and it is never used where speed is compared.
"""

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw

from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_adapters.stores.sqlite_tx import SqliteTx

_numbers = itertools.count()


class Disk(apsw.VFS):
    """Pass `vfs=disk.name, exclusive=True` to a SqliteStore. `syncs` counts xSync."""

    def __init__(self) -> None:
        self.name = f"bench-{next(_numbers)}"
        self.syncs = 0
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        super().__init__("", name, flags)

    def xSync(self, flags: int) -> None:
        self._disk.syncs += 1
        super().xSync(flags)


class SlowStore:
    """A store whose COMMIT waits so much longer, with nothing held but its thread."""

    def __init__(self, store: SqliteStore, delay_ms: float) -> None:
        self._store, self._delay_s = store, delay_ms / 1000

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @contextmanager
    def write(self) -> Iterator[SqliteTx]:
        with self._store.write() as tx:
            yield tx
            time.sleep(self._delay_s)
