"""A store at its limit refuses what is new, loudly; what was accepted goes on."""

import asyncio
from typing import Any

import pytest
from attrs import evolve

from turnfold import Kernel, Settings, StoreFullError
from turnfold.api import keeping
from turnfold_model.testing.gateway import Gateway, inbound, route, spin, until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_LOOK_S", 0.01)


async def _refuses(kernel: Kernel, limit: str) -> None:
    for call in (kernel.accept(inbound("new")), kernel.enqueue(route(), "x")):
        with pytest.raises(StoreFullError) as caught:
            await call
        assert caught.value.limit == limit
        assert caught.value.bytes > 0


@pytest.mark.case("N05")
async def test_an_accepted_turn_is_answered_while_nothing_new_is_taken(
    filed: Gateway,
) -> None:
    go = asyncio.Event()

    async def answer(handle: Any) -> None:
        await go.wait()
        await handle.reply("the answer")

    filed.handler, filed.settings = answer, Settings(max_store_bytes=1 << 40)
    kernel = await filed.start()
    turn = await kernel.accept(inbound("1"))
    kernel.settings = evolve(kernel.settings, max_store_bytes=1)
    await until(lambda: kernel._full)
    await _refuses(kernel, "max_store_bytes")
    go.set()
    await until(lambda: filed.platform.contents == ["the answer"])
    assert turn.new
    kernel.settings = evolve(kernel.settings, max_store_bytes=1 << 40)
    await until(lambda: not kernel._full)
    assert (await kernel.accept(inbound("2"))).new
    await spin()


async def test_a_disk_that_is_nearly_full_is_a_limit_too(filed: Gateway) -> None:
    filed.settings = Settings(min_free_bytes=1 << 51)
    kernel = await filed.start()
    await until(lambda: kernel._full)
    await _refuses(kernel, "min_free_bytes")


async def test_without_a_limit_nothing_is_measured(filed: Gateway) -> None:
    kernel = await filed.start()
    await asyncio.sleep(0.05)
    assert kernel._full is None
    assert (await kernel.accept(inbound("1"))).new
