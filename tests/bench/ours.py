"""turnfold under load: always a whole Kernel with a channel that answers at once."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from attrs import define, field

from turnfold import Accepted, Kernel, Receipt, Route, Settings
from turnfold.ports.store import Store
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_adapters.stores.sqlite_connection import Synchronous

PAYLOAD = "x" * 500


class Instant:
    """A platform that accepts everything at once."""

    def __init__(self) -> None:
        self.sent = 0

    async def send(self, part: object, key: str, attempt: object) -> Accepted:
        self.sent += 1
        return Accepted(receipt=Receipt(ids=(f"m{self.sent}",)))


@define
class Run:
    """What a load came to; times of single messages in seconds."""

    messages: int = 0
    wall_s: float = 0
    cpu_s: float = 0
    times: list[float] = field(factory=list)

    @property
    def rate(self) -> float:
        return self.messages / self.wall_s

    @property
    def cpu_us(self) -> float:
        return 1e6 * self.cpu_s / self.messages

    def at(self, share: float) -> float:
        """A percentile of the messages' times, in milliseconds."""
        ordered = sorted(self.times)
        return 1000 * ordered[min(int(len(ordered) * share), len(ordered) - 1)]


@contextmanager
def _measured(run: Run) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    run.wall_s += time.perf_counter() - wall
    run.cpu_s += time.process_time() - cpu


@asynccontextmanager
async def gateway(
    store: Store | Path, settings: Settings | None = None
) -> AsyncIterator[Kernel]:
    kernel = Kernel(store, settings=settings)
    kernel.attach("t", Instant())
    async with kernel:
        yield kernel


def sqlite(path: Path, level: Synchronous = "FULL") -> SqliteStore:
    """A store, and its level read back from the connection that writes."""
    store = SqliteStore(path, synchronous=level)
    store.open()
    assert store._writer is not None
    assert store._writer.pragma("journal_mode") == "wal"
    assert store._writer.pragma("synchronous") == {"FULL": 2, "NORMAL": 1}[level]
    return store


async def lifecycle(kernel: Kernel, lane: int, run: Run) -> None:
    began = time.perf_counter()
    done = await kernel.enqueue(Route(channel="t", conversation=f"c{lane}"), PAYLOAD)
    await kernel.settled(done.entry_id)
    run.times.append(time.perf_counter() - began)
    run.messages += 1


async def closed_loop(kernel: Kernel, senders: int, seconds: float) -> Run:
    """Each sender enqueues, waits for the delivery, and begins again."""
    run = Run()

    async def sender(lane: int, until: float) -> None:
        while time.perf_counter() < until:
            await lifecycle(kernel, lane, run)

    with _measured(run):
        until = time.perf_counter() + seconds
        await asyncio.gather(*(sender(lane, until) for lane in range(senders)))
    return run


async def open_loop(kernel: Kernel, rate: int, seconds: float, lanes: int = 100) -> Run:
    """Messages come when they come; a late start counts as waiting."""
    run = Run()
    began = time.perf_counter()
    tasks: set[asyncio.Task[None]] = set()

    async def one(number: int, due: float) -> None:
        route = Route(channel="t", conversation=f"c{number % lanes}")
        done = await kernel.enqueue(route, PAYLOAD)
        await kernel.settled(done.entry_id)
        run.times.append(time.perf_counter() - due)
        run.messages += 1

    with _measured(run):
        for number in range(int(rate * seconds)):
            due = began + number / rate
            while (left := due - time.perf_counter()) > 0:
                await asyncio.sleep(left - 0.002 if left > 0.002 else 0)  # not too long
            tasks.add(asyncio.create_task(one(number, due)))
        await asyncio.gather(*tasks)
    return run


async def backlog(kernel: Kernel, entries: int, lanes: int) -> Run:
    """Everything is there at once: how fast does it go out?"""
    run = Run()
    with _measured(run):
        await asyncio.gather(
            *(lifecycle(kernel, number % lanes, run) for number in range(entries))
        )
    return run
