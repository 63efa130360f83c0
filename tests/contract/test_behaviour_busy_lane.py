"""One send at a time in a lane, also when an entry that had yielded comes back."""

import asyncio

import pytest

from turnfold import Accepted, Kernel, Receipt, Route
from turnfold.ports.channel import Unknown
from turnfold_adapters.stores.memory import MemoryStore
from turnfold_model.testing.peek import Peek


class Slow:
    """The first send is lost; the second waits to be let go."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.gate = asyncio.Event()

    async def send(self, part, key, attempt):
        self.calls.append(part.payload.text)
        if len(self.calls) == 1:
            return Unknown(cause="timeout")
        await self.gate.wait()
        return Accepted(receipt=Receipt(ids=(str(len(self.calls)),)))


@pytest.mark.case("G02")
async def test_a_resolved_entry_waits_for_what_is_on_the_wire() -> None:
    channel, store = Slow(), MemoryStore()
    kernel = Kernel(store)
    kernel.attach("c", channel, on_unknown="hold")
    route = Route(channel="c", conversation="1")
    async with kernel:
        first = await kernel.enqueue(route, "first")
        while Peek(store).summary(first.entry_id).phase != "parked":
            await asyncio.sleep(0)
        second = await kernel.enqueue(route, "second")
        while len(channel.calls) < 2:
            await asyncio.sleep(0)
        await kernel.resolve(first.entry_id, "resend", by="ann")
        assert Peek(store).summary(first.entry_id).phase == "in_doubt"
        channel.gate.set()
        await kernel.settled(second.entry_id, 1000)
        await kernel.settled(first.entry_id, 1000)
    assert channel.calls == ["first", "second", "first"]
