"""A disk for measuring, as a SQLite VFS below the real store.

The VFS counts the syncs and the pages that reach the write-ahead log, and makes each
sync of that log take longer on request. Its calls go through Python, so it is never
used where speed is compared.
"""

import itertools
import time
from typing import Any

import apsw

_PAGE = 4096
_numbers = itertools.count()


class Disk(apsw.VFS):
    """Pass `vfs=disk.name` to a SqliteStore.

    `syncs` counts all syncs, `wal_pages` the pages written to the log. `delay_s` is how
    much longer a sync of the log takes; no lock of the interpreter is held meanwhile.
    """

    def __init__(self, delay_s: float = 0) -> None:
        self.name = f"bench-{next(_numbers)}"
        self.delay_s = delay_s
        self.syncs = self.wal_pages = 0
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._is_wal = bool(flags[0] & apsw.SQLITE_OPEN_WAL)
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._is_wal and len(data) == _PAGE:
            self._disk.wal_pages += 1
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._disk.syncs += 1
        if self._is_wal and self._disk.delay_s:
            time.sleep(self._disk.delay_s)
        super().xSync(flags)
