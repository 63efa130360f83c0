"""A body that is gone before its entry was planned."""

import pytest

from turnfold.payloads import Route
from turnfold.words import Phase, Reason
from turnfold_adapters.stores.memory import MemoryDisk, MemoryStore
from turnfold_model.gateway import Gateway, driver_of, until
from turnfold_model.platform import PlatformChannel


@pytest.mark.case("Q01")
async def test_an_entry_without_its_body_is_refused_and_lets_its_lane_go_on() -> None:
    disk = MemoryDisk()
    gateway = Gateway(store=lambda: MemoryStore(disk))
    client = await gateway.start(work=False)
    gone = await client.enqueue(Route(channel="u", conversation="1"), "gone")
    for digest in list(disk.bodies):
        del disk.bodies[digest]
    await client.close()
    gateway.alive.clear()
    gateway.channels = {("u", "default"): PlatformChannel(gateway.platform)}
    worker = await gateway.start()
    book = driver_of(worker).book
    await until(lambda: book.state(gone.entry_id).phase is Phase.FAILED)
    entry = book.state(gone.entry_id)
    assert entry.reason == Reason.REFUSED
    assert entry.yielded
    await gateway.end()
