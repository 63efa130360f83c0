"""A disk in memory under SQLite: it notes every operation and fails on demand.

SQLite gets no shared memory here, so WAL needs `locking_mode=EXCLUSIVE` and one
connection; the store asserts the journal mode that comes back.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import apsw

from turnfold_model.powerloss.disk import SECTOR, Op

# As SQLite's own for unix: bytes beside a write are not disturbed by it.
_TRAITS = apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE


class SimulatedDisk(apsw.VFS):
    """Registered under its name as long as it lives. `trace` is none while nothing is
    noted. `failing`: which operation fails next (counted down), how, how many in a row.
    """

    def __init__(self, name: str) -> None:
        self.files: dict[str, bytearray] = {}
        self.trace: list[Op] | None = None
        self.operations = 0
        self._fail_at: int | None = None
        self._fail_count = 0
        self._error: type[apsw.Error] = apsw.IOError
        self.failed = 0
        self._gone = False
        super().__init__(name, base="", maxpathname=1024)

    def load(self, image: Mapping[str, bytes]) -> None:
        """Become this image, with nobody looking at it."""
        self.files = {name: bytearray(data) for name, data in image.items()}
        self.operations = self.failed = 0
        self._fail_at = None

    def image(self) -> dict[str, bytes]:
        return {name: bytes(data) for name, data in self.files.items()}

    def fail(self, at: int, count: int, error: type[apsw.Error]) -> None:
        """The operations from number `at` on fail, `count` of them."""
        self._fail_at, self._fail_count, self._error = at, count, error

    @contextmanager
    def gone(self) -> Iterator[None]:
        """For a process that is dead: its handles have no effect any more."""
        self._gone = True
        try:
            yield
        finally:
            self._gone = False

    def touch(self) -> bool:
        """Before every operation: it may fail. False: it has no effect."""
        if self._gone:
            return False
        number, self.operations = self.operations, self.operations + 1
        if self._fail_at is not None and number >= self._fail_at and self._fail_count:
            self._fail_count -= 1
            self.failed += 1
            raise self._error("injected")
        return True

    def note(self, op: Op) -> None:
        if self.trace is not None:
            self.trace.append(op)

    # --- the methods that SQLite calls; names and signatures are its own ---

    def xOpen(  # type: ignore[override]  # noqa: N802  any object with these methods will do; SQLite's name
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> "SimulatedFile":
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        flags[1] = flags[0]
        if path is None:
            return SimulatedFile(self, "")
        if path not in self.files:
            if not flags[0] & apsw.SQLITE_OPEN_CREATE:
                raise apsw.CantOpenError(path)
            self.touch()
            self.files[path] = bytearray()
            self.note(Op("create", path))
        return SimulatedFile(self, path)

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: N802  as above
        del flags
        return pathname in self.files

    def xFullPathname(self, name: str) -> str:  # noqa: N802  as above
        return os.path.abspath(name)  # noqa: PTH100  a name, nothing that exists

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802  as above
        if filename not in self.files or not self.touch():
            return
        del self.files[filename]
        self.note(Op("delete", filename, int(syncdir)))


class SimulatedFile:
    """One open file; without a name it is scratch that nobody notes."""

    def __init__(self, disk: SimulatedDisk, name: str) -> None:
        self._disk, self._name = disk, name
        self._content = disk.files[name] if name else bytearray()
        self._locked = apsw.SQLITE_LOCK_NONE

    def _do(self, op: Op) -> None:
        if self._name:
            self._disk.note(op)

    def _touch(self) -> bool:
        return not self._name or self._disk.touch()

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802  as above
        self._touch()
        return bytes(self._content[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802  as above
        if not self._touch():
            return
        gap = offset - len(self._content)
        if gap > 0:
            self._content.extend(bytes(gap))
        self._content[offset : offset + len(data)] = data
        self._do(Op("write", self._name, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802  as above
        if not self._touch():
            return
        del self._content[newsize:]
        self._do(Op("truncate", self._name, newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802  as above
        del flags
        if not self._touch():
            return
        self._do(Op("sync", self._name))

    def xFileSize(self) -> int:  # noqa: N802  as above
        return len(self._content)

    def xLock(self, level: int) -> None:  # noqa: N802  as above
        self._locked = level

    def xUnlock(self, level: int) -> None:  # noqa: N802  as above
        self._locked = level

    def xCheckReservedLock(self) -> bool:  # noqa: N802  as above
        return self._locked >= apsw.SQLITE_LOCK_RESERVED

    def xFileControl(self, op: int, ptr: int) -> bool:  # noqa: N802  as above
        del op, ptr
        return False

    def xSectorSize(self) -> int:  # noqa: N802  as above
        return SECTOR

    def xDeviceCharacteristics(self) -> int:  # noqa: N802  as above
        return _TRAITS

    def xClose(self) -> None:  # noqa: N802  as above
        self._locked = apsw.SQLITE_LOCK_NONE
