"""A store whose writes fail on request: full disk, busy, or a COMMIT of unknown fate."""

from collections import deque
from collections.abc import Sequence
from typing import Any

from attrs import define, field

from turnfold.errors import BusyError, DiskError, FateUnknownError, NoAccessError
from turnfold.ports.store import Refused, Store, Stored, Write


@define(eq=False)
class FaultyStore:
    """`faults`: the faults of the next commits, in order: "full", "busy", "no access",
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

    async def reopen(self) -> None:
        if self.unopenable:
            self.unopenable -= 1
            raise DiskError(path=self.inner.address, problem="cannot be opened")
        await self.inner.reopen()

    async def commit(self, writes: Sequence[Write]) -> Sequence[Stored | Refused]:
        """A commit that meets the next fault."""
        self.writes += 1
        fault = self.faults.popleft() if self.faults else ""
        path = self.inner.address
        match fault:
            case "busy":
                raise BusyError(path=path, waited_ms=1)
            case "full":
                raise DiskError(path=path, problem="disk full")
            case "no access":
                raise NoAccessError(path=path, problem="denied", advice="ask")
            case "lost":
                raise FateUnknownError(path=path, problem="I/O error")
            case _:
                pass
        done = await self.inner.commit(writes)
        if fault == "landed":
            raise FateUnknownError(path=path, problem="I/O error")
        return done
