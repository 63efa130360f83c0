"""What is measured, one function per row; each gives the figures it came to."""

import asyncio
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import cast

import apsw
from tests.bench import ours
from tests.bench.disks import Disk, SlowStore
from tests.bench.peers import opened

from turnfold import Kernel, Route, Settings
from turnfold.audit import audit_store
from turnfold.ports.store import Store
from turnfold.words import Flush
from turnfold_adapters.stores.sqlite import SqliteStore

Figures = dict[str, float]


class Raw:
    """The limit: one row per commit through apsw, nothing else."""

    name = "raw apsw, one commit"

    def __init__(self, path: Path, level: str) -> None:
        self._conn = apsw.Connection(str(path))
        self._conn.pragma("journal_mode", "WAL")
        self._conn.pragma("synchronous", level)
        self._conn.pragma("wal_autocheckpoint", 0)
        self._conn.execute("CREATE TABLE row (id INTEGER PRIMARY KEY, data BLOB)")

    def once(self) -> None:
        self._conn.execute("BEGIN IMMEDIATE")
        self._conn.execute("INSERT INTO row (data) VALUES (?)", (b"x" * 500,))
        self._conn.execute("COMMIT")

    def close(self) -> None:
        self._conn.close()


def _slice(once: Callable[[], None], seconds: float) -> float:
    """How often a second."""
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        once()
        count += 1
    return count / passed


def side_by_side(
    folder: Path,
    level: str,
    rounds: int,
    seconds: float,
    senders: tuple[int, ...],
    told: Callable[[str], None],
) -> Figures:
    """Everybody in turn, several times; the median of each. Also p99 of many senders
    and processor time per message."""
    peers = opened(folder, level, told)
    raw = Raw(folder / f"raw-{level}.db", level)
    seen: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        seen.setdefault(name, []).append(value)

    async def us(kernel: Kernel) -> None:
        for count in senders:
            run = await ours.closed_loop(kernel, count, seconds * min(count, 4))
            note(f"turnfold, {count}", run.rate)
            note(f"turnfold, {count}, p99 ms", run.at(0.99))
            note(f"turnfold, {count}, cpu us", run.cpu_us)

    store = ours.sqlite(folder / f"ours-{level}.db", level)  # type: ignore[arg-type]
    with asyncio.Runner() as runner:
        gateway = ours.gateway(store)
        kernel = runner.run(gateway.__aenter__())
        runner.run(ours.closed_loop(kernel, 10, 0.2))  # warm
        for _ in range(rounds):
            note(raw.name, _slice(raw.once, seconds))
            for peer in peers:
                note(peer.name, _slice(peer.once, seconds))
            runner.run(us(kernel))
        runner.run(gateway.__aexit__(None, None, None))
    raw.close()
    for peer in peers:
        peer.close()
    return {name: statistics.median(values) for name, values in seen.items()}


def against_raw(folder: Path, rounds: int, seconds: float) -> Figures:
    """Medians of ratios to raw commits in the same round; for the gate."""
    ratios: dict[str, list[float]] = {}

    async def go() -> None:
        async with ours.gateway(ours.sqlite(folder / "gate.db")) as kernel:
            await ours.closed_loop(kernel, 10, 0.2)
            for _ in range(rounds):
                cpu = time.process_time()
                rate = _slice(raw.once, seconds)
                cpu = (time.process_time() - cpu) / (rate * seconds)
                for count in (1, 100):
                    run = await ours.closed_loop(kernel, count, seconds)
                    name = f"{count} sender" + "s" * (count > 1)
                    for row, value in (
                        (f"messages / raw commits, {name}", run.rate / rate),
                        (
                            f"processor time / raw commit's, {name}",
                            run.cpu_us / cpu / 1e6,
                        ),
                    ):
                        ratios.setdefault(row, []).append(value)

    raw = Raw(folder / "gate-raw.db", "FULL")
    asyncio.run(go())
    raw.close()
    return {row: statistics.median(values) for row, values in ratios.items()}


def open_loop(folder: Path, rates: tuple[int, ...], seconds: float) -> Figures:
    """p99 in milliseconds from when a message was due, at rates nobody waits for."""

    async def go() -> Figures:
        found = {}
        async with ours.gateway(ours.sqlite(folder / "open.db")) as kernel:
            await ours.closed_loop(kernel, 10, 0.2)
            for rate in rates:
                run = await ours.open_loop(kernel, rate, seconds)
                found[f"{rate}/s, p50 ms"] = run.at(0.5)
                found[f"{rate}/s, p99 ms"] = run.at(0.99)
        return found

    return asyncio.run(go())


def syncs(folder: Path) -> Figures:
    """Syncs per message, counted by a VFS: one sender, and one busy lane."""
    disk = Disk()

    async def go() -> Figures:
        store = SqliteStore(folder / "syncs.db", vfs=disk.name, exclusive=True)
        async with ours.gateway(store) as kernel:
            lone = ours.Run()
            await ours.lifecycle(kernel, 0, lone)
            before = disk.syncs
            for _ in range(100):
                await ours.lifecycle(kernel, 0, lone)
            middle = disk.syncs
            await ours.backlog(kernel, 200, 1)
            return {
                "lone message": (middle - before) / 100,
                "busy lane": (disk.syncs - middle) / 200,
            }

    return asyncio.run(go())


def slow_disk(folder: Path, delays_ms: tuple[float, ...]) -> Figures:
    """Lifecycles a second with 1 and 100 senders when every COMMIT takes so long, and
    the longest time that the event loop stood still with 10; with the flush on the loop
    and in a thread."""

    async def go(delay: float, flush: Flush) -> Figures:
        path, name = folder / f"slow-{delay:g}-{flush}.db", f"{delay:g} ms, {flush}"
        store = SlowStore(ours.sqlite(path), delay)
        async with ours.gateway(cast("Store", store), Settings(flush=flush)) as kernel:
            one = await ours.closed_loop(kernel, 1, 0.5)
            many = await ours.closed_loop(kernel, 100, 1)
            stall = asyncio.create_task(_longest_stall(0.4))
            await ours.closed_loop(kernel, 10, 0.5)
            return {
                f"{name}, 1 sender": one.rate,
                f"{name}, 100 senders": many.rate,
                f"{name}, loop blocked ms": await stall,
            }

    found: Figures = {}
    for delay, flush in product(delays_ms, (Flush.LOOP, Flush.THREAD)):
        found |= asyncio.run(go(delay, flush))
    return found


async def _longest_stall(seconds: float) -> float:
    longest, last = 0.0, time.perf_counter()
    until = last + seconds
    while last < until:
        await asyncio.sleep(0)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    return 1000 * longest


def history(folder: Path, sizes: tuple[int, ...]) -> Figures:
    """Time to claim and deliver a message over a growing history."""

    async def go() -> Figures:
        found, written = {}, 0
        async with ours.gateway(ours.sqlite(folder / "history.db", "NORMAL")) as kernel:
            for size in sizes:
                while written < size:
                    written += (await ours.backlog(kernel, 2000, 100)).messages
                found[f"history {size}, us"] = await _claim_us(kernel)
        return found

    return asyncio.run(go())


def waiting(folder: Path, sizes: tuple[int, ...]) -> Figures:
    """The same over a growing backlog, which waits for a channel that is not there."""

    async def go() -> Figures:
        found, waiting = {}, 0
        async with ours.gateway(ours.sqlite(folder / "backlog.db", "NORMAL")) as kernel:
            for size in sizes:
                await _fill(kernel, waiting, size)
                waiting = size
                found[f"backlog {size}, us"] = await _claim_us(kernel)
        return found

    return asyncio.run(go())


async def _fill(kernel: Kernel, first: int, last: int, per_lane: int = 10) -> None:
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


async def _claim_us(kernel: Kernel, messages: int = 600) -> float:
    """Processor time of one lifecycle: the least of ten pieces, since others run too."""
    pieces = []
    for _ in range(10):
        run = ours.Run()
        began = time.process_time()
        for number in range(messages // 10):
            await ours.lifecycle(kernel, number % 10, run)
        pieces.append((time.process_time() - began) / run.messages)
    return 1e6 * min(pieces)


def lanes(folder: Path, counts: tuple[int, ...]) -> Figures:
    """Messages a second over so many lanes, two for each."""

    async def go(count: int) -> float:
        store = ours.sqlite(folder / f"lanes-{count}.db", "NORMAL")
        async with ours.gateway(store) as kernel:
            return (await ours.backlog(kernel, max(2 * count, 500), count)).rate

    return {f"{count} lanes": asyncio.run(go(count)) for count in counts}


def reopening(folder: Path, finished: int, still_open: int) -> Figures:
    """From open() to the first send, over a history and over none."""
    return {
        "with history, ms": _reopened(folder / "re-full.db", finished, still_open),
        "empty history, ms": _reopened(folder / "re-empty.db", 0, still_open),
    }


def _reopened(path: Path, finished: int, still_open: int) -> float:
    async def fill() -> None:
        async with ours.gateway(ours.sqlite(path, "NORMAL")) as kernel:
            done = 0
            while done < finished:
                done += (await ours.backlog(kernel, 2000, 100)).messages
            await _fill(kernel, 0, still_open)

    async def reopen() -> float:
        kernel, channel = Kernel(path), _Noting()
        kernel.attach("away", channel)
        began = time.perf_counter()
        async with kernel:
            await channel.first.wait()
            return 1000 * (channel.at - began)

    asyncio.run(fill())
    return statistics.median(asyncio.run(reopen()) for _ in range(3))


class _Noting(ours.Instant):
    """Tells when the first send came, and lets the others hang until the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.at = asyncio.Event(), 0.0

    async def send(self, part: object, key: str, attempt: object) -> ours.Accepted:
        if not self.first.is_set():
            self.at = time.perf_counter()
            self.first.set()
        return await super().send(part, key, attempt)


def audit(folder: Path, messages: int) -> Figures:
    """Events a second, typed, with hashes, chain, projections and bodies."""
    path = folder / "audit.db"

    async def fill() -> None:
        async with ours.gateway(ours.sqlite(path, "NORMAL")) as kernel:
            await ours.backlog(kernel, messages, 100)

    asyncio.run(fill())
    return {
        "log, events/s": _audits(path, beside=False),
        "log and all beside it, events/s": _audits(path, beside=True),
        "kB per message": path.stat().st_size / messages / 1000,
    }


def _audits(path: Path, *, beside: bool) -> float:
    """The best of five: it is processor time alone, and others can only add to it."""
    return max(_audited(path, beside=beside) for _ in range(5))


def _audited(path: Path, *, beside: bool) -> float:
    from turnfold.audit import audit_log

    store = SqliteStore(path)
    store.open(read_only=True)
    began = time.process_time()
    report = audit_store(store) if beside else audit_log(store.log())
    passed = time.process_time() - began
    store.close()
    assert report.passed, report.first
    return report.events / passed


def memory(folder: Path, entries: int) -> Figures:
    """Bytes that Python holds per open entry, right after it was enqueued."""

    async def go() -> float:
        async with ours.gateway(ours.sqlite(folder / "memory.db", "NORMAL")) as kernel:
            await _fill(kernel, 0, 500)
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            await _fill(kernel, 500, 500 + entries)
            grown = tracemalloc.get_traced_memory()[0] - before
            tracemalloc.stop()
            return grown / entries / 1000

    return {"kB per open entry": asyncio.run(go())}


def importing() -> Figures:
    """Milliseconds of `import turnfold`, in processes of their own."""
    script = (
        "import time; began = time.perf_counter(); import {}; "
        "print(1000 * (time.perf_counter() - began))"
    )
    return {name: min(_timed(script.format(name))) for name in ("turnfold", "asyncio")}


def _timed(script: str) -> Iterator[float]:
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        yield float(done.stdout)
