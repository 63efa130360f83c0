"""A disk under SQLite that counts its syncs, and can make each of them slow.

Python's VFS layer has no shared memory, so a store on it is opened exclusively. It is
used where syncs are counted or slowed down, never where speed is compared.
"""

import itertools
import time
from typing import Any

import apsw

_numbers = itertools.count()


class Disk(apsw.VFS):
    """Pass `vfs=disk.name, exclusive=True` to a SqliteStore. `syncs` counts xSync."""

    def __init__(self, delay_ms: float = 0) -> None:
        self.name = f"bench-{next(_numbers)}"
        self.delay_ms, self.syncs = delay_ms, 0
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        super().__init__("", name, flags)

    def xSync(self, flags: int) -> None:
        self._disk.syncs += 1
        if self._disk.delay_ms:
            time.sleep(self._disk.delay_ms / 1000)
        super().xSync(flags)
