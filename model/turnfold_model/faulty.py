"""A store whose writes fail on request: full disk, busy, or a COMMIT of unknown fate."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from attrs import define, field

from turnfold.errors import BusyError, DiskError, FateUnknownError
from turnfold.ports.store import Store, Tx


@define(eq=False)
class FaultyStore:
    """`faults`: what the next write transactions meet, in order: "full", "busy",
    "lost" (the COMMIT failed and did nothing), "landed" (it failed and was done
    nevertheless), "" (nothing). `unopenable`: how many reopenings fail."""

    inner: Store
    faults: deque[str] = field(factory=deque)
    writes: int = 0
    unopenable: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def fails(self, *faults: str) -> None:
        self.faults.extend(faults)

    def reopen(self) -> None:
        if self.unopenable:
            self.unopenable -= 1
            raise DiskError(path=self.inner.address, problem="cannot be opened")
        self.inner.reopen()

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """A transaction that meets the next fault."""
        self.writes += 1
        fault = self.faults.popleft() if self.faults else ""
        path = self.inner.address
        if fault == "busy":
            raise BusyError(path=path, waited_ms=1)
        with self.inner.write() as tx:
            yield tx
            if fault == "full":
                raise DiskError(path=path, problem="disk full")
            if fault == "lost":
                raise FateUnknownError(path=path, problem="I/O error")
        if fault == "landed":
            raise FateUnknownError(path=path, problem="I/O error")
