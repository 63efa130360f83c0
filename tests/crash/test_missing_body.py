"""A body that is gone before its entry was planned."""

import pytest

from turnfold.enums import Phase, Reason
from turnfold.messages import Route
from turnfold_adapters.stores.memory import MemoryDisk, MemoryStore
from turnfold_model.testing.gateway import Gateway, peek, until
from turnfold_model.testing.platform import PlatformChannel


@pytest.mark.case("Q01")
async def test_an_entry_without_its_body_is_refused_and_lets_its_lane_go_on() -> None:
    disk = MemoryDisk()
    gateway = Gateway(store=lambda: MemoryStore(disk))
    first = await gateway.start()
    gone = await first.enqueue(Route(channel="u", conversation="1"), "gone")
    await gateway.crash(first)
    disk.bodies.clear()
    gateway.channels = {("u", "default"): PlatformChannel(gateway.platform)}
    worker = await gateway.start()
    state = peek(worker).state
    await until(lambda: state(gone.entry_id).phase is Phase.FAILED)
    entry = state(gone.entry_id)
    assert entry.reason == Reason.REFUSED
    assert entry.yielded
    await gateway.end()
