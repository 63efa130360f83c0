"""A store whose commits have an unknown fate, several times in a row."""

from types import SimpleNamespace

import pytest

from turnfold.errors import FateUnknownError
from turnfold.messages import Route
from turnfold_adapters.stores.memory import MemoryDisk
from turnfold_model.crash.life import ShakyStore
from turnfold_model.testing.gateway import Gateway, driver_of, until
from turnfold_model.testing.platform import Platform

ROUTE = Route(channel="t", conversation="1")
LOST, STORED = 2, 3  # what became of a commit of unknown fate


@pytest.mark.case("A06")
@pytest.mark.parametrize("fates", [[LOST, LOST], [LOST, STORED]])
async def test_a_store_in_doubt_is_read_again_though_nobody_appends(
    fates: list[int], impatient: None
) -> None:
    """Programs begin by looking; when that fails, somebody else must open the store
    again, or a quiet gateway would stand still."""
    world = SimpleNamespace(disk=MemoryDisk(), store_faults=0)
    drawn: list[int] = []
    gateway = Gateway(
        store=lambda: ShakyStore(world, lambda _: drawn.pop(0) if drawn else 0),
        platform=Platform(),
    )
    kernel = await gateway.start()
    first = await kernel.enqueue(ROUTE, "first")
    await kernel.settled(first.entry_id)  # nothing is left that would append
    world.store_faults, drawn[:] = len(fates), fates
    with pytest.raises(FateUnknownError):
        await kernel.disconnected("t")
    journal = driver_of(kernel).journal
    await until(lambda: not journal.lost)
    await kernel.enqueue(ROUTE, "second")
    await kernel.connected("t")
    await until(lambda: len(gateway.platform.messages) == 2)
    await gateway.end()
