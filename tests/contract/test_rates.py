"""A declared rate is kept: per account and per conversation, with no call too many."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from turnfold import Accepted, InvalidInputError, Kernel, Rate, Receipt
from turnfold._runtime.flow import Pace
from turnfold_adapters.stores.memory import MemoryDisk, MemoryStore
from turnfold_model.testing.clock import FakeClock
from turnfold_model.testing.gateway import driver_of, route, spin


class Watch:
    """Notes when each message came, by the kernel's clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.came = clock, list[tuple[int, str]]()

    async def send(self, part: Any, key: str, attempt: Any) -> Accepted:
        self.came.append((self.clock.now(), part.route.conversation))
        return Accepted(receipt=Receipt(ids=(key,)))

    def gaps(self, conversation: str | None = None) -> list[int]:
        times = [at for at, name in self.came if conversation in (None, name)]
        return [b - a for a, b in pairwise(times)]


async def _sent(rate: Rate, lanes: Sequence[str], ms: int) -> Watch:
    """What came in so many ms, of two messages for each lane."""
    clock = FakeClock()
    watch = Watch(clock)
    kernel = Kernel(MemoryStore(), clock=clock)
    kernel.attach("t", watch, on_unknown="hold", rate=rate)
    async with kernel:
        for n in range(2):
            for lane in lanes:
                await kernel.enqueue(route(lane), f"{n}")
        await spin()
        for _ in range(ms // 10):
            clock.pass_ms(10)
            driver_of(kernel).look_again()
            await spin()
        await kernel.at_rest(1)
    return watch


async def test_an_account_sends_no_faster_than_was_declared() -> None:
    watch = await _sent(Rate(account=10), [f"c{n}" for n in range(10)], 2_100)
    assert len(watch.came) == 20
    assert min(watch.gaps()) >= 100
    assert max(watch.gaps()) <= 110


async def test_a_backlog_goes_no_faster_than_was_declared() -> None:
    clock, disk = FakeClock(), MemoryDisk()
    watch = Watch(clock)
    async with Kernel(MemoryStore(disk), clock=clock) as kernel:
        for n in range(20):
            await kernel.enqueue(route(f"c{n}"), "hi")
    kernel = Kernel(MemoryStore(disk), clock=clock)
    kernel.attach("t", watch, on_unknown="hold", rate=Rate(account=10))
    async with kernel:
        for _ in range(210):
            clock.pass_ms(10)
            driver_of(kernel).look_again()
            await spin()
        await kernel.at_rest(1)
    assert len(watch.came) == 20
    assert min(watch.gaps()) >= 100


async def test_a_conversation_has_a_rate_of_its_own() -> None:
    watch = await _sent(Rate(conversation=2), ["a", "b", "c"], 700)
    assert len(watch.came) == 6
    assert min(watch.gaps("a")) >= 500
    assert watch.gaps()[0] < 100  # the conversations do not wait for each other


@pytest.mark.parametrize("odd", [0, -1, True, "1", float("inf"), float("nan")])
def test_an_odd_rate_is_refused(odd: Any) -> None:
    with pytest.raises(InvalidInputError):
        Rate(account=odd)


def test_success_makes_nothing_faster_than_was_declared() -> None:
    pace = Pace("gate:t/a", half_open=False, interval=100, least=100)
    for n in range(100):
        pace.flying.add("one")
        pace._answered("one", n * 100)
    assert pace.interval == 100
