"""Late messages and a loop that stands still."""

import asyncio
import time
from pathlib import Path

from tests.bench import floor, ours
from tests.bench.disks import Disk

from turnfold_adapters.stores.sqlite import SqliteStore

Figures = dict[str, float]


def open_loop(folder: Path, rates: tuple[int, ...], seconds: float) -> Figures:
    """Percentiles in milliseconds, counted from when a message was due."""

    async def go() -> Figures:
        subject = floor.EventRows(folder / "open-floor.db", "FULL")
        async with ours.gateway(ours.sqlite(folder / "open.db")) as kernel:
            lifecycles = {
                "": ours.lifecycle_of(kernel),
                f"{subject.name}, ": subject.lifecycle,
            }
            found = {}
            for name, lifecycle in lifecycles.items():
                await ours.closed_loop(lifecycle, 10, 0.2)
                for rate in rates:
                    run = await ours.open_loop(lifecycle, rate, seconds)
                    found[f"{name}{rate}/s, p50 ms"] = run.at(0.5)
                    found[f"{name}{rate}/s, p99 ms"] = run.at(0.99)
        subject.close()
        return found

    return asyncio.run(go())


def slow_disk(folder: Path, delays_ms: tuple[float, ...], seconds: float) -> Figures:
    """Messages a second with 1 and 100 senders on a disk whose syncs take so long, and
    the longest stall of the loop with 10.

    The delay is in the sync of a VFS below the store. The kernel finds out by itself
    that the disk is slow, during a warm-up that is not measured.
    """
    found: Figures = {}
    for delay in delays_ms:
        found |= asyncio.run(_slow_disk(folder / f"slow-{delay:g}.db", delay, seconds))
    return found


async def _slow_disk(path: Path, delay_ms: float, seconds: float) -> Figures:
    disk, name = Disk(), f"{delay_ms:g} ms"
    async with ours.gateway(SqliteStore(path, vfs=disk.name)) as kernel:
        lifecycle = ours.lifecycle_of(kernel)
        disk.delay_s = delay_ms / 1000
        await ours.closed_loop(lifecycle, 10, 10 * disk.delay_s)  # warm
        one = await ours.closed_loop(lifecycle, 1, seconds)
        many = await ours.closed_loop(lifecycle, 100, seconds)
        watch = asyncio.create_task(_longest_stall(seconds))
        await ours.closed_loop(lifecycle, 10, seconds)
        stall = await watch
        disk.delay_s = 0  # closing is not measured
    return {
        f"{name}, 1 sender": one.rate,
        f"{name}, 100 senders": many.rate,
        f"{name}, longest stall ms": stall,
    }


async def _longest_stall(seconds: float) -> float:
    """The longest time between two turns of the loop, less the millisecond asked for."""
    longest, last = 0.0, time.perf_counter()
    until = last + seconds
    while last < until:
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    return 1000 * longest - 1
