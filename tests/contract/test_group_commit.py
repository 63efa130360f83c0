"""Everything that is appended while a commit waits for the disk makes the next one, and
nobody learns of anything before its COMMIT."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from turnfold.errors import DiskError, FateUnknownError
from turnfold.ports.store import Refused, Store, Stored, Write
from turnfold.words import Flush
from turnfold_model.gateway import (
    Gateway,
    driver_of,
    in_file,
    in_memory,
    inbound,
    route,
    until,
)


class Watched:
    """A store that awaits `at_commit` after each COMMIT, before it answers."""

    def __init__(self, store: Store, at_commit: Callable[[], Awaitable[None]]) -> None:
        self._store, self._at_commit = store, at_commit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, writes: Sequence[Write]) -> Sequence[Stored | Refused]:
        answers = await self._store.commit(writes)
        await self._at_commit()
        return answers


def watching(at_commit: Callable[[], Awaitable[None]]) -> Callable[[Store], Store]:
    return lambda store: cast("Store", Watched(store, at_commit))


@pytest.fixture(params=["memory", Flush.AUTO, Flush.THREAD])
async def gateway(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    path = tmp_path / "g.db"
    in_db = request.param != "memory"
    made = Gateway(store=in_file(path, request.param) if in_db else in_memory())
    yield made
    await made.end()


class Gate:
    """Commits wait here while it is closed; `count` is how many have come by."""

    def __init__(self) -> None:
        self.count = 0
        self._open = asyncio.Event()
        self._open.set()

    async def __call__(self) -> None:
        self.count += 1
        await self._open.wait()

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()


async def test_appends_that_come_during_a_commit_make_the_next_one(
    gateway: Gateway,
) -> None:
    gate = Gate()
    kernel = await gateway.start(wrap=watching(gate))
    gate.close()
    before = gate.count
    first = asyncio.ensure_future(kernel.accept(inbound("1")))
    await until(lambda: gate.count == before + 1)
    others = [
        asyncio.ensure_future(kernel.accept(inbound(str(n), str(n))))
        for n in range(2, 30)
    ]
    await asyncio.sleep(0.01)
    assert gate.count == before + 1, "one commit at a time"
    gate.open()
    await asyncio.gather(first, *others)
    assert gate.count == before + 2


async def test_nothing_moves_before_the_commit_is_made(gateway: Gateway) -> None:
    gate = Gate()
    kernel = await gateway.start(wrap=watching(gate))
    gate.close()
    before = gate.count
    pending = asyncio.ensure_future(kernel.enqueue(route(), "x"))
    await until(lambda: gate.count == before + 1)
    await asyncio.sleep(0.02)
    assert not pending.done()
    assert not gateway.platform.calls
    assert driver_of(kernel).book.open_count == 0
    gate.open()
    name = (await pending).entry_id
    await kernel.settled(name, 5_000)


@pytest.mark.case("Q02")
@pytest.mark.parametrize("error", [DiskError, FateUnknownError])
async def test_a_commit_that_fails_is_its_callers_error_or_none(
    gateway: Gateway, error: type[Exception]
) -> None:
    """If surely nothing was stored the caller is told; a commit of unknown fate is read
    and decided again."""
    fail: list[Exception] = []

    class Failing(Watched):
        async def commit(self, writes: Sequence[Write]) -> Sequence[Stored | Refused]:
            if fail:
                raise fail.pop()
            return await self._store.commit(writes)

    kernel = await gateway.start(
        wrap=lambda store: cast("Store", Failing(store, Gate()))
    )
    fail.append(error(path="g.db", problem="injected"))
    if error is DiskError:
        with pytest.raises(DiskError):
            await kernel.accept(inbound("1"))
    turn = await kernel.accept(inbound("1"))
    again = await kernel.accept(inbound("1"))
    assert turn.turn_id == again.turn_id


@pytest.mark.case("Q02")
async def test_a_commit_of_unknown_fate_that_was_stored_is_sent_once(
    gateway: Gateway,
) -> None:
    """Its entry and attempt are found in the log, though nobody was told of them."""
    lost: list[int] = []

    async def lose() -> None:
        if lost:
            lost.pop()
            raise FateUnknownError(path="g.db", problem="the answer was lost")

    kernel = await gateway.start(wrap=watching(lose))
    lost.append(1)
    name = (await kernel.enqueue(route(), "x")).entry_id
    await kernel.settled(name, 5_000)
    assert len(gateway.platform.calls) == 1


async def test_closing_waits_for_a_commit_under_way(gateway: Gateway) -> None:
    gate = Gate()
    kernel = await gateway.start(wrap=watching(gate))
    gate.close()
    before = gate.count
    pending = asyncio.ensure_future(kernel.accept(inbound("1")))
    await until(lambda: gate.count == before + 1)
    ending = asyncio.ensure_future(gateway.end())
    await asyncio.sleep(0.02)
    assert not ending.done()
    gate.open()
    await ending
    turn = (await pending).turn_id
    other = await gateway.start(work=False)
    assert (await other.accept(inbound("1"))).turn_id == turn


async def test_health_tells_where_commits_run(tmp_path: Path) -> None:
    gateway = Gateway(store=in_file(tmp_path / "g.db", Flush.THREAD))
    kernel = await gateway.start()
    await kernel.accept(inbound("1"))
    assert "thread" in str(kernel.health())
    await gateway.end()
