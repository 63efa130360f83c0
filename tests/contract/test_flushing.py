"""Where transactions are written: on the loop or in a thread, and nobody can tell."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from turnfold import Settings
from turnfold.drivers import flushing
from turnfold.errors import DiskError, FateUnknownError, InvalidInputError
from turnfold.ports.store import Store, Tx
from turnfold.words import Flush
from turnfold_model.gateway import (
    Gateway,
    driver_of,
    entry,
    in_file,
    in_memory,
    inbound,
    route,
    until,
)


class Watched:
    """A store that calls `at_commit` where the COMMIT is made, in that thread."""

    def __init__(self, store: Store, at_commit: Callable[[], None]) -> None:
        self._store, self._at_commit = store, at_commit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @contextmanager
    def write(self) -> Iterator[Tx]:
        with self._store.write() as tx:
            yield tx
            self._at_commit()


def watching(at_commit: Callable[[], None]) -> Callable[[Store], Store]:
    return lambda store: cast("Store", Watched(store, at_commit))


@pytest.fixture
async def threaded(tmp_path: Path) -> Any:
    made = Gateway(store=in_file(tmp_path / "g.db"), flush=Flush.THREAD)
    yield made
    await made.end()


async def test_the_loop_goes_on_while_a_commit_waits_for_the_disk(
    threaded: Gateway,
) -> None:
    threads: list[str] = []

    def slow() -> None:
        threads.append(threading.current_thread().name)
        time.sleep(0.02)

    kernel = await threaded.start(wrap=watching(slow))
    pending = asyncio.ensure_future(kernel.enqueue(route(), "x"))
    turns = 0
    while not pending.done():
        turns += 1
        await asyncio.sleep(0.001)
    assert turns > 5
    assert threads[-1].startswith("turnfold-flush")


async def test_what_comes_meanwhile_makes_the_next_commit(threaded: Gateway) -> None:
    commits: list[int] = []

    def slow() -> None:
        commits.append(1)
        time.sleep(0.02)

    kernel = await threaded.start(wrap=watching(slow))
    first = asyncio.ensure_future(kernel.accept(inbound("1")))
    await until(lambda: driver_of(kernel).flusher.busy)
    before = len(commits)
    others = [kernel.accept(inbound(str(n), str(n))) for n in range(2, 30)]
    await asyncio.gather(first, *others)
    assert len(commits) - before <= 2


async def test_nothing_moves_before_the_commit_is_made(threaded: Gateway) -> None:
    go = threading.Event()
    kernel = await threaded.start(wrap=watching(lambda: cast("None", go.wait(5))))
    pending = asyncio.ensure_future(kernel.enqueue(route(), "x"))
    await until(lambda: driver_of(kernel).flusher.busy)
    await asyncio.sleep(0.02)
    assert not pending.done()
    assert not threaded.platform.calls
    assert driver_of(kernel).book.open_count == 0
    go.set()
    name = (await pending).entry_id
    await kernel.settled(name, 5_000)


@pytest.mark.case("Q02")
@pytest.mark.parametrize("error", [DiskError, FateUnknownError])
async def test_a_commit_that_fails_in_the_thread_is_its_callers_error_or_none(
    threaded: Gateway, error: type[Exception]
) -> None:
    """Alone it is refused; of unknown fate it is read and decided again."""
    fail: list[Exception] = []

    def once() -> None:
        if fail:
            raise fail.pop()

    kernel = await threaded.start(wrap=watching(once))
    fail.append(error(path="g.db", problem="injected"))
    if error is DiskError:
        with pytest.raises(DiskError):
            await kernel.accept(inbound("1"))
    turn = await kernel.accept(inbound("1"))
    again = await kernel.accept(inbound("1"))
    assert turn.turn_id == again.turn_id


async def test_who_needs_the_writing_side_waits_for_what_is_in_the_air(
    threaded: Gateway,
) -> None:
    kernel = await threaded.start(wrap=watching(lambda: time.sleep(0.02)))
    pending = asyncio.ensure_future(kernel.enqueue(route(), "x"))
    flusher = driver_of(kernel).flusher
    await until(lambda: flusher.busy)
    flusher.land()
    assert not flusher.busy
    assert driver_of(kernel).book.open_count == 1
    assert entry(kernel, (await pending).entry_id).planned


async def test_closing_waits_for_what_is_in_the_air(threaded: Gateway) -> None:
    kernel = await threaded.start(wrap=watching(lambda: time.sleep(0.02)))
    pending = asyncio.ensure_future(kernel.accept(inbound("1")))
    await until(lambda: driver_of(kernel).flusher.busy)
    await threaded.end()
    turn = (await pending).turn_id
    other = await threaded.start(work=False)
    assert driver_of(other).book.state(turn) is not None


async def test_a_slow_disk_is_noticed_and_a_quick_one_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flushing, "_SELDOM", 0)
    wait = [0.01]
    gateway = Gateway(store=in_file(tmp_path / "g.db"))
    kernel = await gateway.start(wrap=watching(lambda: time.sleep(wait[0])))
    flusher, number = driver_of(kernel).flusher, 0

    async def accepted_until(threaded: bool) -> None:
        nonlocal number
        while flusher.threaded is not threaded:
            number += 1
            await kernel.accept(inbound(str(number), str(number)))
            assert number < 300

    await accepted_until(threaded=True)
    assert kernel.health()["flush"] == "thread"
    wait[0] = 0
    await accepted_until(threaded=False)
    assert kernel.health()["flush"] == "loop"
    await gateway.end()


async def test_a_store_that_cannot_be_read_meanwhile_is_written_on_the_loop() -> None:
    gateway = Gateway(store=in_memory(), flush=Flush.THREAD)
    kernel = await gateway.start()
    await kernel.accept(inbound("1"))
    assert kernel.health()["flush"] == "loop"
    await gateway.end()


def test_an_unknown_mode_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match="auto, loop, thread"):
        Settings(flush="sometimes")  # type: ignore[arg-type]  # as a caller may
    assert Settings(flush="thread").flush is Flush.THREAD  # type: ignore[arg-type]
