"""A database server that went on from a copy: the log looks whole, and is not trusted."""

from typing import Any

import pytest
from attrs import evolve

from turnfold import Kernel
from turnfold._decide import operator
from turnfold._log.events import GateClosed, Restored
from turnfold.audit import audit_store
from turnfold.enums import Phase, TurnPhase
from turnfold_adapters.stores.memory import MemoryDisk, MemoryStore
from turnfold_model.testing.gateway import (
    Gateway,
    entry,
    events,
    inbound,
    peek,
    route,
    spin,
    turn,
)


def promoted(disk: MemoryDisk, name: str = "7/2") -> None:
    """The mark says that it was made in another history than the one of now."""
    assert disk.mark is not None
    disk.mark = evolve(disk.mark, failover=name)


def noticed(kernel: Kernel) -> list[str | None]:
    return [e.failover for e in events(kernel, "store") if isinstance(e, Restored)]


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk()


@pytest.fixture
async def play(disk: MemoryDisk) -> Any:
    gateway = Gateway(store=lambda: MemoryStore(disk))
    yield gateway
    await gateway.end()
    store = MemoryStore(disk)
    await store.open()
    report = await audit_store(store)
    await store.close()
    assert report.passed, report.first


async def open_work(play: Gateway, disk: MemoryDisk) -> tuple[str, str]:
    """An entry and a turn that wait when the worker dies; the mark knows all."""
    kernel = await play.start()
    limit = GateClosed(reason="rate_limited", until=None)
    await kernel.append(lambda draft: draft.emit("gate:t/default", limit))
    sent = (await kernel.enqueue(route("1"), "x")).entry_id
    taken = (await kernel.accept(inbound(conversation="2"))).turn_id
    assert kernel._worker is not None
    assert await kernel._worker.upkeep.note_watermark()
    assert disk.mark is not None
    await play.crash(kernel)
    return sent, taken


async def test_a_new_worker_doubts_what_was_open_before_a_failover(
    play: Gateway, disk: MemoryDisk
) -> None:
    sent, taken = await open_work(play, disk)
    promoted(disk)
    kernel = await play.start()
    await kernel.connected("t")
    await spin()
    assert noticed(kernel) == ["7/2"]
    assert entry(kernel, sent).phase is Phase.PARKED
    assert turn(kernel, taken).phase is TurnPhase.ACCEPTED
    assert turn(kernel, taken).held
    assert play.platform.contents == []
    told = [e.text async for e in kernel.inspect.events() if "7/2" in e.text]
    assert told == ["the server went on as 7/2, which may lack the last commits"]


async def test_one_failover_is_noticed_once_and_the_next_one_again(
    play: Gateway, disk: MemoryDisk
) -> None:
    await open_work(play, disk)
    promoted(disk)
    before = disk.mark
    for _ in range(2):
        await play.crash(await play.start())
    assert disk.mark is not None
    assert disk.mark.failover is None
    disk.mark = before  # as if the worker had died before it made the note
    again = await play.start()
    assert noticed(again) == ["7/2"]
    assert before is not None
    disk.mark = evolve(before, failover="7/3")
    await play.crash(again)
    assert noticed(await play.start()) == ["7/2", "7/3"]


async def test_a_failover_before_the_first_note_is_noticed(
    play: Gateway, disk: MemoryDisk
) -> None:
    """The database knows its history from its first day, before it knows the store."""
    sent, _ = await open_work(play, disk)
    assert disk.mark is not None
    disk.mark = evolve(disk.mark, store="", failover="7/2")
    kernel = await play.start()
    assert noticed(kernel) == ["7/2"]
    assert entry(kernel, sent).phase is Phase.PARKED


async def test_a_death_before_the_commit_repeats_it(
    play: Gateway, disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, _ = await open_work(play, disk)
    promoted(disk)
    real = operator.restored

    def dies(*_: object, **__: object) -> bool:
        raise RuntimeError

    monkeypatch.setattr(operator, "restored", dies)
    with pytest.raises(RuntimeError):
        await play.start()
    monkeypatch.setattr(operator, "restored", real)
    kernel = await play.start()
    assert noticed(kernel) == ["7/2"]
    assert entry(kernel, sent).phase is Phase.PARKED
    assert peek(kernel).watermark() is not None
