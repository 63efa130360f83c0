"""Calls of a handler on its turn: none is lost in silence."""

import asyncio
import logging
from typing import Any

import pytest

from turnfold import Never
from turnfold.enums import TurnOutcome, TurnPhase
from turnfold.errors import AlreadyRepliedError, DiskError, StaleRunError
from turnfold.inspect import TurnView
from turnfold.settings import Settings
from turnfold_model.testing.gateway import (
    Gateway,
    commits,
    inbound,
    spin,
    story,
    turn,
    until,
)


@pytest.mark.case("U04")
@pytest.mark.filterwarnings("error")
async def test_a_reply_that_nobody_awaits_is_a_bug_of_the_handler(
    lone: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(handle: Any) -> None:
        handle.reply("lost")

    lone.handler, lone.settings = answer, Settings(max_runs=1)
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    assert await done.settled(2_000) is TurnOutcome.FAILED
    assert "turn.reply() was not awaited" in caplog.text
    assert kernel.health()["foreign_bugs"]["handler"] == 1


@pytest.mark.case("U04", "U05")
async def test_a_live_reply_whose_block_is_still_open_is_a_bug_of_the_handler(
    lone: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(handle: Any) -> None:
        live = await handle.live().__aenter__()
        live.append("lost")

    lone.handler, lone.settings = answer, Settings(max_runs=1)
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    assert await done.settled(2_000) is TurnOutcome.FAILED
    assert "turn.live() was not awaited to its end" in caplog.text
    assert kernel.health()["foreign_bugs"]["handler"] == 1


@pytest.mark.case("U04")
@pytest.mark.parametrize("instead", ["reply", "returned", "later", "silent"])
async def test_another_end_of_the_turn_counts_beside_an_open_live_reply(
    lone: Gateway, instead: str
) -> None:
    async def answer(handle: Any) -> str | None:
        live = await handle.live().__aenter__()
        live.append("a draft")
        if instead == "reply":
            await handle.reply("the answer")
        elif instead == "later":
            await handle.later(60_000)
        elif instead == "silent":
            await handle.silent("not_addressed")
        return "the answer" if instead == "returned" else None

    lone.handler = answer
    kernel = await lone.start()
    await kernel.accept(inbound())
    await spin()
    assert kernel.health()["foreign_bugs"]["handler"] == 0
    answered = instead in ("reply", "returned")
    assert lone.platform.contents == (["the answer"] if answered else [])


@pytest.mark.case("U04")
async def test_a_reply_in_a_task_of_its_own_is_awaited(lone: Gateway) -> None:
    tasks = []

    async def answer(handle: Any) -> None:
        tasks.append(asyncio.create_task(handle.reply("from a task")))

    lone.handler = answer
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    assert await done.settled(2_000) in (TurnOutcome.REPLIED, TurnOutcome.SILENT)
    await asyncio.wait(tasks)
    assert "failed" not in story(kernel, done.turn_id)


@pytest.mark.case("U03", "U04")
async def test_a_returned_text_after_another_reply_is_told(
    lone: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(handle: Any) -> str:
        await handle.reply("one")
        return "two"

    lone.handler = answer
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    assert await done.settled(2_000) is TurnOutcome.REPLIED
    await spin()
    assert lone.platform.contents == ["one"]
    assert AlreadyRepliedError.__name__ in caplog.text


@pytest.mark.case("U05")
async def test_a_late_call_reaches_the_log_though_nobody_sees_its_error(
    lone: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    ended = asyncio.Event()

    async def answer(handle: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            try:
                await handle.reply("too late")
            except StaleRunError:
                ended.set()

    lone.handler = answer
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    await kernel.abort(done.turn_id)
    await asyncio.wait_for(ended.wait(), 5)
    assert f"run 1 of turn {done.turn_id} is over" in caplog.text
    assert not lone.platform.contents


@pytest.mark.case("U16")
async def test_one_step_twice_at_once_is_done_once(lone: Gateway) -> None:
    calls: list[str] = []

    async def effect() -> str:
        calls.append("x")
        await asyncio.sleep(0.01)
        return "done"

    async def fails() -> str:
        await asyncio.sleep(0.01)
        msg = "no"
        raise ValueError(msg)

    async def answer(handle: Any) -> str:
        both = await asyncio.gather(handle.step("a", effect), handle.step("a", effect))
        bad = await asyncio.gather(
            handle.step("b", fails), handle.step("b", fails), return_exceptions=True
        )
        return f"{both} {[type(e).__name__ for e in bad]}"

    lone.handler = answer
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    assert await done.settled(2_000) is TurnOutcome.REPLIED
    said = "['done', 'done'] ['ValueError', 'ValueError']"
    assert lone.platform.contents == [said]
    assert calls == ["x"]
    assert commits(kernel)["turn.step_started"] == 2


async def test_the_text_of_never_is_kept_and_shown(lone: Gateway) -> None:
    async def answer(_: Any) -> None:
        why = "the model refuses this"
        raise Never(why)

    lone.handler = answer
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    assert await done.settled(2_000) is TurnOutcome.FAILED
    view = await kernel.inspect.show(done.turn_id)
    assert isinstance(view, TurnView)
    assert view.runs[0].detail == "Never: the model refuses this"


@pytest.mark.case("W10")
async def test_a_store_that_fails_before_the_handler_was_called_costs_no_run(
    lone: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    async def fails(*_: Any) -> bytes:
        raise DiskError(path="x", problem="EIO")

    async def answer(handle: Any) -> str:
        return handle.inbound.text

    lone.handler = answer
    kernel = await lone.start()
    with monkeypatch.context() as patch:
        patch.setattr("turnfold._runtime.stored_bodies.BodiesAtHand._seen", fails)
        done = await kernel.accept(inbound())
        await until(lambda: turn(kernel, done.turn_id).phase is TurnPhase.ACCEPTED)
        for _ in range(5):
            await lone.advance(1_000)
    assert turn(kernel, done.turn_id).failed_runs == 0
    assert "cannot be read now" in caplog.text
    await lone.advance(2_000)
    assert await done.settled(2_000) is TurnOutcome.REPLIED


@pytest.mark.case("U16", "Y10")
async def test_a_step_may_be_a_plain_function(lone: Gateway) -> None:
    """It was done, and then refused: each later run found the step in doubt."""
    calls: list[str] = []

    def effect() -> str:
        calls.append("x")
        return "done"

    async def answer(handle: Any) -> str:
        said = await handle.step("a", effect)
        if handle.run == 1:
            raise ValueError("a bug behind the step")
        return str(said)

    lone.handler = answer
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    await spin()
    await lone.advance(10_000)
    assert await done.settled(2_000) is TurnOutcome.REPLIED
    assert (lone.platform.contents, calls) == (["done"], ["x"])
