"""A kernel whose event loop ended without close() keeps its store until the process
ends: it is told, and nobody waits for it in silence."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from turnfold import Kernel, NotOpenError, OwnedError
from turnfold.ports.store import Store
from turnfold_adapters.stores.memory import MemoryDisk, MemoryStore
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.testing.gateway import route

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def swept() -> Iterator[None]:
    """What a kernel leaves open is found here, and not in the test after it."""
    yield
    gc.collect()


def left_open(store: Store) -> Kernel:
    """A kernel that works, in a loop that is over."""
    kernel = Kernel(store)
    asyncio.run(kernel.open())
    return kernel


@pytest.fixture(params=["memory", "sqlite"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, Store]:
    """Two handles on one store."""
    if request.param == "memory":
        disk = MemoryDisk()
        return MemoryStore(disk), MemoryStore(disk)
    return SqliteStore(tmp_path / "g.db"), SqliteStore(tmp_path / "g.db")


@pytest.mark.case("F01")
def test_a_store_whose_worker_lost_its_loop_is_refused(
    stores: tuple[Store, Store],
) -> None:
    left = left_open(stores[0])

    async def again() -> None:
        with pytest.raises(OwnedError, match="event loop ended without close"):
            await Kernel(stores[1]).open()

    asyncio.run(again())
    del left


@pytest.mark.case("F01")
def test_a_kernel_that_lost_its_loop_says_so(stores: tuple[Store, Store]) -> None:
    left = left_open(stores[0])

    async def call() -> None:
        with pytest.raises(NotOpenError, match="event loop ended before close"):
            await left.enqueue(route(), "x")

    asyncio.run(call())


@pytest.mark.case("F01")
def test_a_standby_says_why_it_waits(stores: tuple[Store, Store]) -> None:
    """Its worker lives at first; then the loop of the worker ends."""
    ready, end = threading.Event(), threading.Event()

    def work() -> None:
        async def life() -> None:
            await Kernel(stores[0]).open()
            ready.set()
            await asyncio.to_thread(end.wait)

        asyncio.run(life())

    async def stand_by() -> None:
        kernel = Kernel(stores[1])
        await kernel.open()
        assert kernel.health()["standing_by"] == "another worker lives"
        assert kernel.is_well()
        end.set()
        await asyncio.to_thread(thread.join)
        assert "without close()" in kernel.health()["standing_by"]
        (reason,) = kernel.is_well().reasons
        assert "the store is held by a kernel of this process" in reason
        await kernel.close()

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait(10)
    asyncio.run(stand_by())


async def test_a_worker_stands_by_for_nobody() -> None:
    async with Kernel("memory:") as kernel:
        assert kernel.health()["standing_by"] is None
