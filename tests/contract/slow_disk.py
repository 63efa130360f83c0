"""A disk whose syncs take long, below a SQLite store, and a watch on the event loop."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

import apsw

SLOW_S = 0.2


class SlowFile(apsw.VFSFile):
    """A file below the store whose sync takes `SlowDisk.sync_s`."""

    def __init__(self, disk: "SlowDisk", name: Any, flags: list[int]) -> None:
        self._disk = disk
        super().__init__("", name, flags)

    def xSync(self, flags: int) -> None:
        if self._disk.sync_s:
            self._disk.syncs.append(threading.current_thread().name)
            time.sleep(self._disk.sync_s)
        super().xSync(flags)


class SlowDisk(apsw.VFS):
    """The VFS "slow", until `unregister`. `syncs`: the thread of each that was slow."""

    def __init__(self) -> None:
        self.sync_s = 0.0
        self.syncs: list[str] = []
        super().__init__("slow", "", maxpathname=4096)

    def xOpen(self, name: Any, flags: list[int]) -> SlowFile:
        return SlowFile(self, name, flags)


class Lag:
    """How long the loop stands still, at most, while this is entered."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.turns = 0

    async def __aenter__(self) -> Self:
        self._task = asyncio.ensure_future(self._watch())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.sleep(0.002)
            self.longest_s = max(self.longest_s, loop.time() - began - 0.002)
            self.turns += 1


async def lag_of(work: Callable[[], Any]) -> float:
    """How long the loop stands still, at most, while some work is done."""
    async with Lag() as lag:
        await work()
    assert lag.turns > 10
    return lag.longest_s


async def stalls(work: Callable[[], Any], idle_s: float = 1) -> list[float]:
    """How long work holds the loop up, until it is less than 20 ms, four tries at most.

    A busy machine takes the processor away for longer: the same with an idle loop tells
    for how long, and that is taken off.
    """
    over_s: list[float] = []
    for _ in range(4):
        idle = await lag_of(lambda: asyncio.sleep(idle_s))
        over_s.append(await lag_of(work) - idle)
        if over_s[-1] < 0.02:
            break
    return over_s
