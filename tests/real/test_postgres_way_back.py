"""A failover to a synchronous standby, under load, and the way back: nothing is lost,
nothing is shown twice, and nothing waits for a person."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from turnfold import Kernel
from turnfold._log.codec import decode
from turnfold._log.events import Restored
from turnfold.audit import audit_store
from turnfold.enums import DeliveryClass, Phase
from turnfold.errors import StoreError
from turnfold.messages import Route
from turnfold.ports.store import Wanted
from turnfold_model.testing.platform import Platform, PlatformChannel

from .failover import Primary, Standby, stop_at_once
from .postgres import Postgres, in_memory

CLASSES = {
    "blind": (),
    "keyed": (DeliveryClass.KEYED,),
    "lookup": (DeliveryClass.LOOKUP,),
}
OF_EACH = 10  # messages of each class while one server is the primary
TOTAL = OF_EACH * len(CLASSES)


@pytest.fixture
def folder() -> Iterator[Path]:
    with in_memory() as made:
        yield made


class Load:
    """Messages of three classes, without a pause; the caller of each asks again, under
    its key, until it is told that the message is durable."""

    def __init__(self, kernels: list[Kernel]) -> None:
        self.kernels = kernels
        self.entries: list[str] = []

    async def send(self, life: str) -> None:
        async with asyncio.timeout(60), asyncio.TaskGroup() as callers:
            for name in CLASSES:
                callers.create_task(self._of_class(name, life))

    async def _of_class(self, name: str, life: str) -> None:
        for number in range(OF_EACH):
            await self._until_taken(name, f"{life} {number}")

    async def _until_taken(self, name: str, text: str) -> None:
        kernel = self.kernels[len(self.entries) % len(self.kernels)]
        to = Route(channel=name, conversation=text[-1])
        while True:
            try:
                sent = await kernel.enqueue(to, f"{name} {text}", key=f"{name} {text}")
            except StoreError:
                await asyncio.sleep(0.05)
            else:
                self.entries.append(sent.entry_id)
                return


class Pair:
    """The server that is the primary now, and the standby that every commit waits for.
    `link`: a name that leads to the primary, as one of the network does."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack, self._folder = stack, folder
        self.link = folder / "now"
        self.primary: Primary = Postgres(folder / "0")
        self._lose = partial(stop_at_once, self.primary.folder)
        self._count = 0

    async def begin(self) -> None:
        self._lead()
        await self._follow()

    def _lead(self) -> None:
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(self.primary.folder)

    async def _follow(self) -> None:
        self._count += 1
        made = Standby(self.primary, self._folder / f"{self._count}")
        self.standby = await asyncio.to_thread(self._stack.enter_context, made)
        await self.standby.is_waited_for()

    async def lose(self) -> None:
        await asyncio.to_thread(self._lose)

    async def fail_over(self) -> None:
        """The primary that was lost comes back later, as a copy of the new one."""
        self.primary, self._lose = self.standby, self.standby.kill
        await self.standby.promote()
        self._lead()
        await self._follow()

    def end(self) -> None:
        self._lose()


def gateway(address: str, platform: Platform) -> Kernel:
    kernel = Kernel(address + "&lease_ms=30000")
    for name, classes in CLASSES.items():
        channel = PlatformChannel(platform, *classes, settle_ms=0)
        kernel.attach(name, channel, on_unknown="hold")
    return kernel


async def test_a_synchronous_standby_takes_over_and_the_way_back(folder: Path) -> None:
    """Twice the primary is lost while messages come in at both of two hosts."""
    platform = Platform(keyed=True)
    with ExitStack() as stack:
        pair = Pair(stack, folder)
        stack.callback(pair.end)
        await pair.begin()
        address = pair.primary.address("w1", pair.link)
        kernels = [gateway(address, platform) for _ in range(2)]
        for kernel in kernels:
            await kernel.open()
        load = Load(kernels)
        for life in ("there", "back"):
            sending = asyncio.create_task(load.send(life))
            enough = len(load.entries) + TOTAL // 4
            await wait_until(lambda: len(load.entries) >= enough)  # noqa: B023
            await pair.lose()
            assert not sending.done()
            await pair.fail_over()
            await sending
        await load.send("at last")
        await all_was_shown_once(load, platform)
        for kernel in reversed(kernels):
            await kernel.close()


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def all_was_shown_once(load: Load, platform: Platform) -> None:
    kernel = load.kernels[0]
    assert len(set(load.entries)) == 3 * TOTAL
    for entry in load.entries:
        await kernel.settled(entry, 60_000)
        assert (await kernel.inspect.show(entry)).phase is Phase.DELIVERED
    assert len(platform.contents) == len(set(platform.contents)) == 3 * TOTAL
    found = await kernel.store.fetch(Wanted(streams=frozenset({"store"})))
    events = [event for record in found.streams["store"] for event in decode(record)]
    assert not any(isinstance(event, Restored) for event in events), "the worker lived"
    report = await audit_store(kernel.store)
    assert report.passed, report.first
