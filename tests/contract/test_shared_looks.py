"""Questions of one tick share a draft where many programs are under way."""

import asyncio

import pytest

from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._runtime import driver as of_driver
from turnfold_model.testing.gateway import Gateway, route


@pytest.fixture
async def kernel(lone: Gateway, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(of_driver, "_MANY", 0)
    return await lone.start()


def _draft(draft: UnitOfWork) -> UnitOfWork:
    return draft


async def test_the_questions_of_a_tick_share_a_draft_and_those_of_another_do_not(
    kernel,
):
    first, second = await kernel.look(_draft), await kernel.look(_draft)
    assert first is second
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await kernel.look(_draft) is not first


async def test_a_question_sees_every_commit_before_it(kernel):
    driver = kernel._open_driver()
    done = await kernel.enqueue(route(), "hello")
    driver._asked = old = await kernel.look(_draft)
    await kernel.settled(done.entry_id, 5_000)
    driver._asked = old  # as if the commit came in the same tick
    assert await kernel.look(_draft) is not old


async def test_an_event_of_a_question_is_not_seen_by_the_next_one(kernel):
    def changes(draft: UnitOfWork) -> UnitOfWork:
        draft.take_out("no command", b"{}")
        return draft

    assert await kernel.look(changes) is not await kernel.look(_draft)


async def test_whoever_stands_down_asks_anew(kernel):
    driver = kernel._open_driver()
    old = await kernel.look(_draft)
    driver._start_nothing()
    assert (await kernel.look(_draft)).context.holds_back
    assert not old.context.holds_back
