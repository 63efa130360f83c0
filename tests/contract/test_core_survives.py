"""What the kernel needs itself goes on, whatever foreign code does to its loop.

A gateway cancels all tasks of its loop, as `asyncio.run` does at its end. A handler of
`logging` raises. A question about folded state raises what no caller foresees.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from turnfold import Inbound, Settings
from turnfold._decide import accepting, busy
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold.enums import FailureClass, Flush
from turnfold.ports.store import Store
from turnfold_model.testing.faulty_store import FaultyStore
from turnfold_model.testing.gateway import (
    Gateway,
    driver_of,
    in_file,
    inbound,
    until,
)
from turnfold_model.testing.platform import reject


async def _echo(turn: Any) -> str:
    return f"re: {turn.inbound.text}"


def _cancel_others(me: Any = None) -> int:
    """As `asyncio.run` at its end, and as many handlers of SIGTERM do."""
    me = me or asyncio.current_task()
    others = [task for task in asyncio.all_tasks() if task is not me]
    for task in others:
        task.cancel()
    return len(others)


@pytest.fixture(params=[Flush.LOOP, Flush.THREAD])
async def filed(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Gateway]:
    gateway = Gateway(store=in_file(tmp_path / "g.db", request.param), handler=_echo)
    yield gateway
    await gateway.end()


@pytest.mark.case("U06", "U09")
async def test_the_kernel_goes_on_after_all_tasks_were_cancelled(
    filed: Gateway,
) -> None:
    kernel = await filed.start()
    first = await kernel.accept(inbound("1"))
    await first.settled(5_000)
    assert _cancel_others()
    for number in ("2", "3"):
        async with asyncio.timeout(5):
            turn = await kernel.accept(inbound(number))
        assert await turn.settled(5_000) == "replied"
    assert filed.platform.contents == ["re: hello"] * 3
    assert kernel.is_well()


@pytest.mark.case("U06", "U09")
async def test_no_append_is_lost_or_made_twice_when_its_commit_is_cut_off(
    filed: Gateway,
) -> None:
    kernel = await filed.start()
    loop = asyncio.get_running_loop()
    for number in range(20):
        given = driver_of(kernel).submit  # the append of a caller that is not cancelled
        turn = f"turn:{number:026}"
        answer = given(_accepting(turn, inbound(str(number), conversation=str(number))))
        loop.call_soon(_cancel_others, asyncio.current_task())
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            assert (await answer).turn_id == turn
    async with asyncio.timeout(5):
        await kernel.at_rest()
    assert sorted(filed.platform.contents) == ["re: hello"] * 20


def _accepting(turn: str, message: Inbound) -> Any:
    def decide(draft: UnitOfWork) -> Any:
        return accepting.accept(
            draft, turn=turn, inbound=message, cursor=None, plan=busy.QUEUE
        )

    return decide


@pytest.mark.case("U13")
async def test_closing_ends_after_all_tasks_were_cancelled(filed: Gateway) -> None:
    began = asyncio.Event()

    async def waits(turn: Any) -> None:
        began.set()
        await asyncio.Event().wait()

    filed.handler = waits
    kernel = await filed.start()
    await kernel.accept(inbound())
    await began.wait()
    _cancel_others()
    async with asyncio.timeout(5):
        await kernel.close()
    filed.alive.remove(kernel)


@pytest.mark.case("U13", "Q03")
async def test_a_loop_can_end_while_the_disk_is_full(lone: Gateway) -> None:
    """`asyncio.run` cancels each task once and waits for all. A run that was cut off
    cannot be recorded while the disk is full, and a new task goes on with that."""
    began = asyncio.Event()

    async def waits(turn: Any) -> None:
        began.set()
        await asyncio.Event().wait()

    lone.handler = waits
    made: list[FaultyStore] = []

    def faulty(store: Store) -> FaultyStore:
        made.append(FaultyStore(store))
        return made[0]

    kernel = await lone.start(wrap=faulty)
    turn = await kernel.accept(inbound())
    await began.wait()
    made[0].fails(*["full"] * 1_000)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    _cancel_others()
    _, left = await asyncio.wait(others, timeout=3)
    assert not left
    made[0].faults.clear()  # there is room again, and the loop goes on after all
    lone.handler = None
    await until(lambda: kernel.health()["runs"] == 0)
    await kernel.abort(turn.turn_id)


@pytest.mark.case("U11")
async def test_a_source_goes_on_after_all_tasks_were_cancelled(
    lone: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("turnfold._runtime.lasting._AGAIN_S", 0.01)
    starts = []

    async def stream(cursor: str | None) -> AsyncIterator[tuple[Inbound, str]]:
        starts.append(cursor)
        number = int(cursor or 0) + 1
        yield inbound(str(number)), str(number)
        await asyncio.Event().wait()

    lone.handler = _echo
    kernel = await lone.start()
    kernel.source("t", stream)
    await until(lambda: len(lone.platform.contents) == 1)
    _cancel_others()
    await until(lambda: len(lone.platform.contents) == 2)
    assert starts == [None, "1"]
    assert "source t/default ended, and begins again" in caplog.text


class _Raises(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise SystemExit(f"cannot write {record.getMessage()}")


@pytest.mark.case("U06", "Z05")
async def test_a_log_handler_that_raises_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger, handler = logging.getLogger("turnfold"), _Raises()
    gateway = Gateway(store=in_file(tmp_path / "g.db"), settings=Settings(max_runs=1))
    gateway.platform.plays(reject(FailureClass.PERMISSION))
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        kernel = await gateway.start()
        kernel.on_turn(_echo)
        turn = await kernel.accept(inbound("1"))
        assert await turn.settled(5_000) == "failed"
        turn = await kernel.accept(inbound("2"))
        assert await turn.settled(5_000) == "replied"
        assert kernel.health()["foreign_bugs"]["log"] > 0
        await gateway.end()
        other = await gateway.start()
        lost = other.health()["foreign_bugs"]["log"]
        logger.removeHandler(handler)
        later = await gateway.start(work=False)
        assert later.health()["foreign_bugs"]["log"] == 0, "the lines of its own life"
        assert other.health()["foreign_bugs"]["log"] == lost
        await gateway.end()
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
    assert "a line could not be logged" in capsys.readouterr().err


@pytest.mark.case("U06", "U09")
@pytest.mark.parametrize(
    "error", [SystemExit(9), StopIteration(), asyncio.CancelledError()]
)
async def test_a_question_that_raises_anything_fails_alone(
    lone: Gateway, error: BaseException
) -> None:
    lone.handler = _echo
    kernel = await lone.start()
    turn = await kernel.accept(inbound("1"))
    await turn.settled(5_000)

    def question(draft: UnitOfWork) -> None:
        draft.find_turn(f"turn:nobody{type(error)}")  # is not in memory
        raise error

    async with asyncio.timeout(5):
        with pytest.raises(BaseException) as caught:
            await kernel.look(question)
        assert error in (caught.value, caught.value.__cause__) or isinstance(
            caught.value, type(error)
        )
        again = await kernel.accept(inbound("2"))
        assert await again.settled(5_000) == "replied"
