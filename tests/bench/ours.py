"""Loads, and turnfold under them: a whole Kernel and a channel that answers at once."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Literal

from attrs import define, field
from tests.bench.inside import check_durability

from turnfold import Accepted, Inbound, Kernel, Receipt, Route, TurnHandle
from turnfold.ports.store import Store
from turnfold_adapters.stores.sqlite import SqliteStore

PAYLOAD = "x" * 500
QUESTION = b"x" * 200  # of a message that is answered

Level = Literal["FULL", "NORMAL"]
# Takes the number of a lane, sends one message in it and waits for its delivery.
Lifecycle = Callable[[int], Awaitable[None]]


@define
class Run:
    """The outcome of one load. `times`: seconds from call to delivery, per message."""

    messages: int = 0
    wall_s: float = 0
    cpu_s: float = 0
    times: list[float] = field(factory=list)

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.wall_s

    @property
    def cpu_us(self) -> float:
        """Processor time of this process per message, in microseconds."""
        return 1e6 * self.cpu_s / self.messages

    def at(self, share: float) -> float:
        """A percentile of `times`, in milliseconds."""
        ordered = sorted(self.times)
        return 1000 * ordered[min(int(len(ordered) * share), len(ordered) - 1)]

    @contextmanager
    def measured(self) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += time.process_time() - cpu

    async def one(self, lifecycle: Lifecycle, lane: int) -> None:
        began = time.perf_counter()
        await lifecycle(lane)
        self.times.append(time.perf_counter() - began)
        self.messages += 1


class Instant:
    """A platform that accepts everything at once."""

    def __init__(self) -> None:
        self.sent = 0

    async def send(self, part: object, key: str, attempt: object) -> Accepted:
        self.sent += 1
        return Accepted(receipt=Receipt(ids=(f"m{self.sent}",)))


@asynccontextmanager
async def gateway(store: Store | Path) -> AsyncIterator[Kernel]:
    kernel = Kernel(store)
    kernel.attach("t", Instant(), on_unknown="hold")
    async with kernel:
        if isinstance(kernel.store, SqliteStore):
            check_durability(kernel.store)
        yield kernel


@asynccontextmanager
async def turns(store: Store) -> AsyncIterator[Lifecycle]:
    """Takes a message in, runs a handler that replies, and waits for the end."""
    numbers = count()
    async with gateway(store) as kernel:

        @kernel.on_turn
        async def answer(turn: TurnHandle) -> None:
            await turn.reply(PAYLOAD)

        async def lifecycle(lane: int) -> None:
            place, name = f"c{lane}", str(next(numbers))
            message = Inbound("t", conversation=place, message_id=name, body=QUESTION)
            await (await kernel.accept(message)).settled()

        yield lifecycle


def sqlite(path: Path, level: Level = "FULL") -> SqliteStore:
    """A store whose durability is read back when it is open."""
    return SqliteStore(path, synchronous=level)


def lifecycle_of(kernel: Kernel) -> Lifecycle:
    async def lifecycle(lane: int) -> None:
        route = Route(channel="t", conversation=f"c{lane}")
        done = await kernel.enqueue(route, PAYLOAD)
        await kernel.settled(done.entry_id)

    return lifecycle


async def closed_loop(lifecycle: Lifecycle, senders: int, seconds: float) -> Run:
    """Each sender has a lane, and sends the next message after a delivery."""
    run = Run()

    async def sender(lane: int, until: float) -> None:
        while time.perf_counter() < until:
            await run.one(lifecycle, lane)

    with run.measured():
        until = time.perf_counter() + seconds
        await asyncio.gather(*(sender(lane, until) for lane in range(senders)))
    return run


async def exactly(lifecycle: Lifecycle, senders: int, messages: int) -> Run:
    """A closed loop of so many messages, for counting."""
    run, numbers = Run(), iter(range(messages))

    async def sender(lane: int) -> None:
        for _ in numbers:
            await run.one(lifecycle, lane)

    with run.measured():
        await asyncio.gather(*(sender(lane) for lane in range(senders)))
    return run


async def open_loop(
    lifecycle: Lifecycle, rate: int, seconds: float, lanes: int = 100
) -> Run:
    """`rate` messages a second, whether or not earlier ones are delivered. Times count
    from when a message was due, so a late start is waiting."""
    run, began = Run(), time.perf_counter()
    tasks: set[asyncio.Task[None]] = set()

    async def one(number: int, due: float) -> None:
        await lifecycle(number % lanes)
        run.times.append(time.perf_counter() - due)
        run.messages += 1

    with run.measured():
        for number in range(int(rate * seconds)):
            due = began + number / rate
            while (left := due - time.perf_counter()) > 0:
                # a timer of the loop may be 1 ms late: the last 2 ms are spun
                await asyncio.sleep(left - 0.002 if left > 0.002 else 0)
            tasks.add(asyncio.create_task(one(number, due)))
        await asyncio.gather(*tasks)
    return run


async def backlog(lifecycle: Lifecycle, entries: int, lanes: int) -> Run:
    """All messages are enqueued at once."""
    run = Run()
    with run.measured():
        await asyncio.gather(
            *(run.one(lifecycle, number % lanes) for number in range(entries))
        )
    return run
