"""Plain handlers, each in a thread of its own (U01, U02)."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from turnfold import Settings
from turnfold_model.testing.gateway import Gateway, inbound, peek, spin, story, until

_COUNT = 20  # more than the default pool of a loop has threads


@pytest.fixture
def gone() -> Iterator[threading.Event]:
    """What all threads of a test wait for."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.case("U02")
async def test_every_run_that_is_called_running_has_a_thread(
    lone: Gateway, gone: threading.Event
) -> None:
    arrived: list[str] = []

    def handler(turn: Any) -> str:
        arrived.append(turn.id)
        gone.wait(20)
        return "done"

    lone.handler = handler
    kernel = await lone.start()
    for number in range(_COUNT):
        await kernel.accept(inbound("1", conversation=str(number)))
    await until(lambda: len(arrived) == _COUNT, 20)
    gone.set()
    await until(lambda: peek(kernel).names().count("turn.completed") == _COUNT, 20)


@pytest.mark.case("U01")
async def test_a_turn_is_not_run_again_while_the_thread_of_its_run_lives(
    lone: Gateway, gone: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnfold._runtime.calls.GRACE_S", 0.01)
    runs: list[int] = []

    def handler(turn: Any) -> str:
        runs.append(turn.run)
        if turn.run == 1:
            gone.wait(20)
        return "the answer"

    lone.handler, lone.settings = handler, Settings(run_deadline_ms=400)
    kernel = await lone.start()
    turn = (await kernel.accept(inbound("1"))).turn_id
    await until(lambda: kernel.health()["hung_runs"])
    await lone.advance(60_000)
    assert runs == [1]
    assert story(kernel, turn) == ["accepted", "started"]
    gone.set()
    await until(lambda: "run_failed" in story(kernel, turn))
    await lone.advance(60_000)
    await until(lambda: "completed" in story(kernel, turn))
    assert runs == [1, 2]


@pytest.mark.case("U01", "U13")
async def test_a_thread_that_never_ends_does_not_keep_a_kernel_from_closing(
    lone: Gateway, gone: threading.Event
) -> None:
    began = threading.Event()

    def handler(_: Any) -> None:
        began.set()
        gone.wait(20)

    lone.handler, lone.settings = handler, Settings(drain_ms=0)
    kernel = await lone.start()
    turn = (await kernel.accept(inbound("1"))).turn_id
    await until(began.is_set)
    lone.alive.remove(kernel)
    async with asyncio.timeout(5):
        await kernel.close()
    again = await lone.start(work=False)
    assert story(again, turn)[-1] == "released"


@pytest.mark.case("U01")
async def test_an_abort_ends_a_turn_whose_thread_lives(
    lone: Gateway, gone: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnfold._runtime.calls.GRACE_S", 0.01)
    lone.handler = lambda _: gone.wait(20)
    kernel = await lone.start()
    turn = (await kernel.accept(inbound("1"))).turn_id
    await spin()
    await kernel.abort(turn)
    await until(lambda: story(kernel, turn)[-1] == "aborted")
    await until(lambda: not kernel._handlers._running)  # its place is free
