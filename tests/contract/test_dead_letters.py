"""`health()` counts the dead letters of the store, not those of one life of a kernel."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from turnfold import Kernel, Rejected, Settings, Unreadable
from turnfold.enums import FailureClass
from turnfold.ports.store import Store
from turnfold_model.testing.gateway import (
    Gateway,
    in_file,
    in_memory,
    route,
    spin,
)
from turnfold_model.testing.platform import answers

DAY = 86_400_000


@pytest.fixture(params=["memory", "file"])
async def gateway(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Gateway]:
    made: dict[str, Callable[[], Callable[[], Store]]] = {
        "memory": in_memory,
        "file": lambda: in_file(tmp_path / "g.db"),
    }
    settings = Settings(dedupe_ms=1)
    gateway = Gateway(store=made[request.param](), settings=settings)
    yield gateway
    await gateway.end()


def _dead(kernel: Kernel) -> tuple[int, int]:
    health = kernel.health()
    return health["dead_letters"], health["dead_turns"]


async def _refused(gateway: Gateway, kernel: Kernel, count: int) -> list[str]:
    refused = Rejected(failure=FailureClass.PERMISSION, detail="no")
    gateway.platform.plays(*[answers(refused)] * count)
    sent = [await kernel.enqueue(route(str(n)), "x") for n in range(count)]
    await spin()
    return [one.entry_id for one in sent]


@pytest.mark.case("N02", "H11")
async def test_dead_letters_are_counted_over_restarts_until_somebody_acts(
    gateway: Gateway,
) -> None:
    kernel = await gateway.start()
    first, second, _ = await _refused(gateway, kernel, 3)
    await kernel.accept(Unreadable("t", raw=b"?", error="no update"))
    assert _dead(kernel) == (3, 1)
    kernel = await gateway.restart(kernel)
    assert _dead(kernel) == (3, 1)
    await kernel.acknowledge(first, by="me")
    assert _dead(kernel) == (2, 1)
    await kernel.redrive(second, by="me")
    await spin()
    assert gateway.platform.contents == ["x"]
    assert _dead(kernel) == (1, 1)
    kernel = await gateway.restart(kernel)
    assert _dead(kernel) == (1, 1)
    await gateway.advance(2 * DAY)
    await kernel.prune(older_ms=DAY, by="me", dead=True)
    assert _dead(kernel) == (0, 0)
