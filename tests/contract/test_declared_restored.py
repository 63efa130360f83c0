"""A person says that a store is a restored copy, where nothing else shows it."""

import asyncio
from typing import Any

import pytest

from turnfold import Kernel
from turnfold._log.events import Restored
from turnfold.api import client
from turnfold.audit import audit_store
from turnfold.enums import Phase
from turnfold_model.testing.gateway import (
    Gateway,
    entry,
    events,
    inbound,
    route,
    spin,
    story,
    turn,
)
from turnfold_model.testing.platform import hang


async def _judged(kernel: Kernel) -> None:
    report = await audit_store(kernel.store)
    assert report.passed, report.first


async def _open_work(gateway: Gateway) -> tuple[str, str]:
    """An entry behind a gate and a turn without a handler."""
    kernel = await gateway.start()
    await kernel.disconnected("t")
    queued = (await kernel.enqueue(route(), "x")).entry_id
    accepted = (await kernel.accept(inbound("1"))).turn_id
    return queued, accepted


@pytest.mark.case("W14")
async def test_what_is_open_is_parked_and_held(lone: Gateway) -> None:
    queued, accepted = await _open_work(lone)
    (kernel,) = lone.alive
    assert await kernel.declare_restored(by="ann", why="from the tape of monday")
    assert entry(kernel, queued).phase is Phase.PARKED
    assert turn(kernel, accepted).held
    await kernel.connected("t")
    await spin()
    assert lone.platform.contents == []
    (said,) = [e for e in events(kernel, "store") if isinstance(e, Restored)]
    assert (said.by, said.note, said.hash) == ("ann", "from the tape of monday", "")
    later = await kernel.enqueue(route(), "new work")
    await kernel.settled(later.entry_id, 2_000)
    assert lone.platform.contents == ["new work"]
    told = [e.text async for e in kernel.inspect.events() if "restored copy" in e.text]
    assert len(told) == 1
    await _judged(kernel)


@pytest.mark.case("W14")
async def test_it_is_said_before_the_worker_of_the_copy_starts(
    lone: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a worker it lies in the inbox, and the next worker does it first."""
    monkeypatch.setattr(client, "PATIENCE_S", 0.1)
    queued, accepted = await _open_work(lone)
    await lone.end()
    person = await lone.start(work=False)
    assert not await person.declare_restored(by="ann")
    await lone.end()

    async def answer(handle: Any) -> None:
        await handle.reply("an answer")

    lone.handler = answer
    kernel = await lone.start()
    await kernel.connected("t")
    await spin()
    assert lone.platform.contents == []
    assert entry(kernel, queued).phase is Phase.PARKED
    assert turn(kernel, accepted).held
    await _judged(kernel)


@pytest.mark.case("W14")
async def test_an_attempt_of_this_worker_goes_on(lone: Gateway) -> None:
    lone.platform.plays(hang())
    kernel = await lone.start()
    under_way = (await kernel.enqueue(route(), "x")).entry_id
    await spin()
    before = story(kernel, under_way)
    assert await kernel.declare_restored(by="ann")
    assert story(kernel, under_way) == before
    await asyncio.sleep(0)
    await _judged(kernel)
