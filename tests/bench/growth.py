"""What grows with a store, and what must not: claims, log pages, reopening, lanes."""

import asyncio
import statistics
import time
from pathlib import Path

from tests.bench import floor, ours
from tests.bench.disks import Disk

from turnfold import Kernel, Route
from turnfold_adapters.stores.sqlite import SqliteStore

Figures = dict[str, float]


def history(folder: Path, sizes: tuple[int, ...]) -> Figures:
    """Processor time of one message over a growing history."""

    async def go() -> Figures:
        found, written = {}, 0
        async with ours.gateway(ours.sqlite(folder / "history.db", "NORMAL")) as kernel:
            lifecycle = ours.lifecycle_of(kernel)
            for size in sizes:
                await _deliver(lifecycle, size - written)
                written = size
                found[f"history {size}, us"] = await _claim_us(lifecycle)
        return found

    return asyncio.run(go())


def waiting(folder: Path, sizes: tuple[int, ...]) -> Figures:
    """The same over a growing backlog of entries whose channel is not attached."""

    async def go() -> Figures:
        found, waiting = {}, 0
        async with ours.gateway(ours.sqlite(folder / "backlog.db", "NORMAL")) as kernel:
            for size in sizes:
                await leave_open(kernel, waiting, size)
                waiting = size
                lifecycle = ours.lifecycle_of(kernel)
                found[f"backlog {size}, us"] = await _claim_us(lifecycle)
        return found

    return asyncio.run(go())


async def _deliver(lifecycle: ours.Lifecycle, messages: int) -> None:
    for start in range(0, messages, 2000):
        await ours.backlog(lifecycle, min(2000, messages - start), 100)


async def leave_open(kernel: Kernel, first: int, last: int, per_lane: int = 10) -> None:
    """Enqueue entries that nobody can send."""
    for start in range(first, last, 500):
        await asyncio.gather(
            *(
                kernel.enqueue(
                    Route(channel="away", conversation=f"w{number // per_lane}"),
                    ours.PAYLOAD,
                )
                for number in range(start, min(start + 500, last))
            )
        )


async def _claim_us(lifecycle: ours.Lifecycle, messages: int = 600) -> float:
    """The least of ten pieces, since other processes can only add to it."""
    pieces = []
    for _ in range(10):
        run = ours.Run()
        began = time.process_time()
        for number in range(messages // 10):
            await run.one(lifecycle, number % 10)
        pieces.append((time.process_time() - began) / run.messages)
    return 1e6 * min(pieces)


def wal_pages(folder: Path, size: int, messages: int = 4000) -> Figures:
    """Pages that a message of 100 senders writes to SQLite's log, over so much history;
    a VFS counts them. Bodies under random digests dirty more pages as history grows."""

    async def fill(lifecycle: ours.Lifecycle) -> None:
        await _deliver(lifecycle, size)

    async def kernel_pages() -> float:
        path, disk = folder / "pages.db", Disk()
        async with ours.gateway(ours.sqlite(path, "NORMAL")) as kernel:
            await fill(ours.lifecycle_of(kernel))
        async with ours.gateway(SqliteStore(path, vfs=disk.name)) as kernel:
            lifecycle = ours.lifecycle_of(kernel)
            await ours.exactly(lifecycle, 100, 200)
            before = disk.wal_pages
            await ours.exactly(lifecycle, 100, messages)
            return (disk.wal_pages - before) / messages

    async def floor_pages(layout: type[floor.Floor]) -> float:
        disk = Disk()
        subject = layout(folder / f"{layout.__name__}-pages.db", "NORMAL", disk.name)
        await fill(subject.lifecycle)
        before = disk.wal_pages
        await ours.exactly(subject.lifecycle, 100, messages)
        found = (disk.wal_pages - before) / messages
        subject.close()
        return found

    found = {f"history {size}": asyncio.run(kernel_pages())}
    for layout in floor.LAYOUTS:
        found[f"{layout.name}, history {size}"] = asyncio.run(floor_pages(layout))
    return found


def lanes(folder: Path, counts: tuple[int, ...]) -> Figures:
    """Messages a second over so many lanes, two for each."""

    async def go(count: int) -> float:
        store = ours.sqlite(folder / f"lanes-{count}.db", "NORMAL")
        async with ours.gateway(store) as kernel:
            lifecycle = ours.lifecycle_of(kernel)
            return (await ours.backlog(lifecycle, max(2 * count, 500), count)).rate

    return {f"{count} lanes": asyncio.run(go(count)) for count in counts}


def reopening(folder: Path, finished: int, still_open: int) -> Figures:
    """Milliseconds from open to the first send, over a history and over none."""
    full = _Reopened(folder / "re-full.db", finished, still_open)
    empty = _Reopened(folder / "re-empty.db", 0, still_open)
    pairs = [(full.ms(), empty.ms()) for _ in range(5)]
    return {
        "with history, ms": statistics.median(one for one, _ in pairs),
        "empty history, ms": statistics.median(other for _, other in pairs),
        "with / empty history": statistics.median(one / other for one, other in pairs),
    }


class _Reopened:
    def __init__(self, path: Path, finished: int, still_open: int) -> None:
        self._path = path
        asyncio.run(self._fill(finished, still_open))

    async def _fill(self, finished: int, still_open: int) -> None:
        async with ours.gateway(ours.sqlite(self._path, "NORMAL")) as kernel:
            await _deliver(ours.lifecycle_of(kernel), finished)
            await leave_open(kernel, 0, still_open)

    def ms(self) -> float:
        return asyncio.run(self._open())

    async def _open(self) -> float:
        kernel, channel = Kernel(self._path), _FirstSend()
        kernel.attach("away", channel, on_unknown="hold")
        began = time.perf_counter()
        async with kernel:
            await channel.first.wait()
            return 1000 * (channel.at - began)


class _FirstSend(ours.Instant):
    """Notes when the first send came."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.at = asyncio.Event(), 0.0

    async def send(self, part: object, key: str, attempt: object) -> ours.Accepted:
        if not self.first.is_set():
            self.at = time.perf_counter()
            self.first.set()
        return await super().send(part, key, attempt)
