"""A gateway for tests: kernels that follow one another on one disk, and crashes.

`crash()` ends a kernel as SIGKILL would: nothing is drained, nothing more is written,
no call of it reaches the platform. The next one finds exactly the commits.
"""
# ruff: noqa: SLF001  a crash has no public name: it goes behind the kernel's back

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from attrs import define, evolve, field

from turnfold._log.events import NAMES, Event
from turnfold._runtime.driver import Driver
from turnfold._runtime.policies import OnUnknown
from turnfold._state.entry import Entry
from turnfold._state.turn import Turn
from turnfold.api.kernel import Kernel
from turnfold.enums import BlindPolicy, Flush
from turnfold.errors import NotFoundError
from turnfold.inbound import Inbound
from turnfold.messages import Route
from turnfold.ports.store import Store
from turnfold.settings import Settings
from turnfold_adapters.stores.memory import MemoryDisk, MemoryStore
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.testing.clock import FakeClock
from turnfold_model.testing.peek import Peek
from turnfold_model.testing.platform import Platform, PlatformChannel

Handler = Callable[[Any], Any]


class NoJitter(random.Random):
    """Back-off without dice: always the whole of it. The rest is as random as ever."""

    def randint(self, a: int, b: int) -> int:  # noqa: ARG002  the signature of Random
        return b


def in_memory() -> Callable[[], Store]:
    """Handles on one new disk in memory."""
    disk = MemoryDisk()
    return lambda: MemoryStore(disk)


def in_file(path: Path, flush: Flush = Flush.AUTO) -> Callable[[], Store]:
    """Handles on one SQLite file; `flush` says where its commits run."""
    return lambda: SqliteStore(path, flush=flush)


# Each with the loop that it was opened in: a test that failed may have left some open.
_OPEN: "WeakKeyDictionary[Kernel, asyncio.AbstractEventLoop]" = WeakKeyDictionary()


async def spin(turns: int = 60) -> None:
    """Let everything run that can run without time passing, in other threads too."""
    loop = asyncio.get_running_loop()
    for _ in range(turns):
        await asyncio.sleep(0)
        for kernel in [k for k, home in _OPEN.items() if home is loop]:
            if kernel.working:
                await driver_of(kernel).group_commit.rested()


async def until(condition: Callable[[], object], seconds: float = 5) -> None:
    """Wait for a condition; TimeoutError if it never holds."""
    async with asyncio.timeout(seconds):
        for turn in range(1_000_000):
            if condition():
                return
            await asyncio.sleep(0 if turn < 1_000 else 0.001)


@define(eq=False)
class Gateway:
    """Kernels on one disk, one after the other or several at once, with one clock and
    one platform. `channels` are attached as (name, account) to each of them."""

    store: Callable[[], Store] = field(factory=in_memory)
    platform: Platform = field(factory=Platform)
    settings: Settings = field(factory=Settings)
    clock: FakeClock = field(factory=FakeClock)
    channels: dict[tuple[str, str], object] = field(factory=dict)
    on_unknown: OnUnknown = BlindPolicy.HOLD  # of each channel
    handler: Handler | None = None
    resume: bool = False
    entropy: random.Random = field(factory=NoJitter)
    alive: list[Kernel] = field(factory=list)

    async def start(
        self, *, work: bool = True, wrap: Callable[[Store], Store] | None = None
    ) -> Kernel:
        """A new kernel, open. `wrap`: puts a faulty store between it and the disk."""
        store = wrap(self.store()) if wrap else self.store()
        kernel = Kernel(
            store,
            settings=self.settings,
            clock=self.clock,
            work=work,
            entropy=self.entropy,
        )
        channels = self.channels or {("t", "default"): PlatformChannel(self.platform)}
        for (name, account), channel in channels.items():
            kernel.attach(name, channel, account=account, on_unknown=self.on_unknown)
        if self.handler is not None:
            kernel.on_turn(resume=self.resume)(self.handler)
        await kernel.open()
        self.alive.append(kernel)
        _OPEN[kernel] = asyncio.get_running_loop()
        await spin()
        return kernel

    async def crash(self, kernel: Kernel) -> None:
        """SIGKILL. The next kernel has a monotonic clock of its own."""
        self.alive.remove(kernel)
        await crash(kernel)
        self.clock = self.clock.after_boot()

    async def restart(self, kernel: Kernel) -> Kernel:
        await self.crash(kernel)
        return await self.start()

    async def advance(self, ms: int) -> None:
        """Time passes, and every kernel looks at its timers."""
        self.clock.pass_ms(ms)
        await self.look_again()

    async def look_again(self) -> None:
        for kernel in self.alive:
            driver_of(kernel).look_again()
        await spin()

    async def end(self) -> None:
        for kernel in self.alive:
            kernel.settings = evolve(kernel.settings, drain_ms=0)
            await kernel.close()
        self.alive.clear()


def driver_of(kernel: Kernel) -> Driver:
    driver = kernel._driver
    if driver is None:
        message = "the kernel is not open"
        raise AssertionError(message)
    return driver


async def crash(kernel: Kernel) -> None:
    """End a kernel where it stands."""
    driver, worker = driver_of(kernel), kernel._worker
    kernel._state = "closed"
    tasks: list[asyncio.Task[Any]] = driver.abandon()
    lasting = [*kernel._sources._tasks, *kernel._watching]
    kernel._owns = False
    kernel.hooks.cut_off()
    await kernel.store.close()  # no more writes from here on
    tasks += kernel._handlers._running.values()
    if worker is not None:
        lasting += worker._tasks
        if worker._stop_listening is not None:
            worker._stop_listening()
    tasks += [one.end() for one in lasting]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=0.05) if tasks else None
    kernel._wake_all()


def route(conversation: str = "42", channel: str = "t", **more: Any) -> Route:
    return Route(channel=channel, conversation=conversation, **more)


def inbound(
    message_id: str = "1",
    conversation: str = "42",
    text: str = "hello",
    channel: str = "t",
    **more: Any,
) -> Inbound:
    return Inbound(
        channel,
        conversation=conversation,
        message_id=message_id,
        body={"text": text},
        **more,
    )


def peek(kernel: Kernel) -> Peek:
    """The commits in the store of a kernel."""
    return Peek(kernel.store)


def entry(kernel: Kernel, stream: str) -> Entry:
    """The state of an entry, folded from its log. Raises NotFoundError."""
    found = peek(kernel).state(stream)
    if not isinstance(found, Entry):
        raise NotFoundError(what="entry", id=stream)
    return found


def turn(kernel: Kernel, stream: str) -> Turn:
    """The state of a turn, folded from its log. Raises NotFoundError."""
    found = peek(kernel).state(stream)
    if not isinstance(found, Turn):
        raise NotFoundError(what="turn", id=stream)
    return found


def events(kernel: Kernel, stream: str) -> list[Event]:
    """The log of one stream, decoded."""
    return peek(kernel).events(stream)


def story(kernel: Kernel, stream: str) -> list[str]:
    """The log of one stream as names, without their family."""
    return [NAMES[type(e)].partition(".")[2] for e in events(kernel, stream)]


def commits(kernel: Kernel) -> Mapping[str, int]:
    """How often each event stands in the log."""
    return Counter(peek(kernel).names())
