"""Commits, bytes, memory, the speed of an audit and of an import."""

import asyncio
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

from tests.bench import ours
from tests.bench.disks import Disk
from tests.bench.growth import leave_open

from turnfold.audit import audit_store
from turnfold_adapters.stores.sqlite import SqliteStore

Figures = dict[str, float]


def commits(folder: Path) -> Figures:
    """Commits per message of one sender, and in one busy lane: a VFS counts the syncs,
    and a commit syncs once."""
    disk = Disk()

    async def go() -> Figures:
        store = SqliteStore(folder / "commits.db", vfs=disk.name)
        async with ours.gateway(store) as kernel:
            lifecycle = ours.lifecycle_of(kernel)
            await lifecycle(0)
            before = disk.syncs
            await ours.exactly(lifecycle, 1, 100)
            middle = disk.syncs
            await ours.backlog(lifecycle, 200, 1)
            return {
                "lone message": (middle - before) / 100,
                "busy lane": (disk.syncs - middle) / 200,
            }

    return asyncio.run(go())


def audit(folder: Path, messages: int) -> Figures:
    """Events a second, typed and with hashes, and bytes on disk."""
    path = folder / "audit.db"

    async def fill() -> None:
        async with ours.gateway(ours.sqlite(path, "NORMAL")) as kernel:
            await ours.backlog(ours.lifecycle_of(kernel), messages, 100)

    asyncio.run(fill())
    return {
        "log, events/s": max(_audited(path, beside=False) for _ in range(5)),
        "log and all beside it, events/s": max(
            _audited(path, beside=True) for _ in range(5)
        ),
        "kB per message": path.stat().st_size / messages / 1000,
    }


def _audited(path: Path, *, beside: bool) -> float:
    """Of processor time; the caller takes the best of five, for others only add."""
    return asyncio.run(_audit(SqliteStore(path), beside=beside))


async def _audit(store: SqliteStore, *, beside: bool) -> float:
    await store.open(read_only=True)
    began = time.process_time()
    report = await audit_store(store, beside=beside)
    passed = time.process_time() - began
    await store.close()
    assert report.passed, report.first
    return report.events / passed


def memory(folder: Path, entries: int) -> Figures:
    """Bytes that Python holds per open entry, right after it was enqueued."""

    async def go() -> float:
        async with ours.gateway(ours.sqlite(folder / "memory.db", "NORMAL")) as kernel:
            await leave_open(kernel, 0, 500)
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            await leave_open(kernel, 500, 500 + entries)
            grown = tracemalloc.get_traced_memory()[0] - before
            tracemalloc.stop()
            return grown / entries / 1000

    return {"kB per open entry": asyncio.run(go())}


def importing() -> Figures:
    """Milliseconds of an import, each in a process of its own; the least of five."""
    script = (
        "import time; began = time.perf_counter(); import {}; "
        "print(1000 * (time.perf_counter() - began))"
    )
    return {
        f"{name}, ms": min(_timed(script.format(name)))
        for name in ("turnfold", "asyncio")
    }


def _timed(script: str) -> Iterator[float]:
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        yield float(done.stdout)
