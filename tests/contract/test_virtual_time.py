"""A test that moves everything at once: the loop, both times, and every timer."""

import asyncio
import time
from typing import Any

import pytest

from turnfold import Accepted, Kernel, Receipt, Rejected
from turnfold.enums import FailureClass, Phase
from turnfold_adapters.stores.memory import MemoryStore
from turnfold_model.testing.clock import START_MS
from turnfold_model.testing.gateway import entry, inbound, route, story
from turnfold_model.testing.virtual_time import Machine, VirtualLoop

HOUR_S = 3_600


def run(play: Any) -> None:
    async def on_machine() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        await play(Machine(loop, START_MS))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(on_machine())


class Channel:
    """Refuses twice, then hangs, then is not asked again."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.at: list[int] = []

    async def send(self, part: Any, key: str, attempt: Any) -> Accepted | Rejected:
        self.at.append(self.machine.true_ms() - START_MS)
        if len(self.at) < 3:
            limited = FailureClass.RATE_LIMITED
            return Rejected(failure=limited, retry_after_ms=5_000)
        await asyncio.sleep(HOUR_S)
        return Accepted(receipt=Receipt(ids=(key,)))


@pytest.mark.case("R07")
def test_gates_and_deadlines_pass_without_waiting() -> None:
    async def play(machine: Machine) -> None:
        channel = Channel(machine)
        kernel = Kernel(MemoryStore(), clock=machine.clock(lambda: 1_000))
        kernel.attach("t", channel, on_unknown="hold")
        async with kernel:
            made = await kernel.enqueue(route(), "x")
            await asyncio.sleep(10 + 59)
            assert channel.at == [0, 5_000, 10_000]
            assert entry(kernel, made.entry_id).phase is Phase.DISPATCHED
            await asyncio.sleep(2)  # its deadline is a minute
            assert entry(kernel, made.entry_id).phase is Phase.PARKED
            assert story(kernel, made.entry_id)[-1] == "lane_yielded"

    began = time.monotonic()
    run(play)
    assert time.monotonic() - began < 30  # of 71 s


def test_a_thread_is_waited_for_and_takes_no_time() -> None:
    async def play(machine: Machine) -> None:
        before = machine.true_ms()
        await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.05)
        assert machine.true_ms() == before

    run(play)


def test_a_loop_that_nothing_can_wake_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turnfold_model.testing.virtual_time._STUCK_S", 0.01)

    async def play(_: Machine) -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="nothing can happen"):
        run(play)


DAY_MS = 24 * HOUR_S * 1_000


@pytest.mark.case("R04", "R05")
@pytest.mark.parametrize("jump_ms", [-30 * DAY_MS, DAY_MS])
def test_a_jump_opens_no_gate_and_keeps_none_shut(jump_ms: int) -> None:
    async def play(machine: Machine) -> None:
        channel = Channel(machine)
        kernel = Kernel(MemoryStore(), clock=machine.clock(lambda: 1_000))
        kernel.attach("t", channel, on_unknown="hold")
        async with kernel:
            await kernel.enqueue(route(), "x")
            await asyncio.sleep(1)
            machine.wrong_ms = jump_ms
            await asyncio.sleep(2)
            assert channel.at == [0]
            machine.wrong_ms = 0
            await asyncio.sleep(3)
            assert channel.at == [0, 5_000]

    run(play)


@pytest.mark.case("R04", "R05")
@pytest.mark.parametrize("jump_ms", [-DAY_MS, DAY_MS])
def test_a_jump_neither_cuts_nor_stretches_the_wait_for_fragments(jump_ms: int) -> None:
    async def play(machine: Machine) -> None:
        ran: list[tuple[int, int]] = []

        async def answer(turn: Any) -> None:
            ran.append((machine.true_ms() - START_MS, len(turn.joined)))
            await turn.silent("seen")

        kernel = Kernel(MemoryStore(), clock=machine.clock(lambda: 1_000))
        kernel.on_turn(answer)
        async with kernel:
            await kernel.accept(inbound("1"), busy="join", debounce_ms=5_000)
            await asyncio.sleep(2)
            machine.wrong_ms = jump_ms
            await kernel.accept(inbound("2"), busy="join", debounce_ms=5_000)
            await asyncio.sleep(10)
            assert ran == [(7_000, 1)]

    run(play)
