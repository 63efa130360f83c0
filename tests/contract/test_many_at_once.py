"""Many messages that come at once share a commit."""

import asyncio

import pytest

from turnfold import Settings
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold_model.testing.gateway import Gateway, inbound, spin


@pytest.mark.case("S15")
async def test_a_message_costs_the_same_however_many_come_at_once(
    lone: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    look = UnitOfWork.state

    def counted(self: UnitOfWork, stream: str) -> object:
        nonlocal looks
        looks += 1
        return look(self, stream)

    async def answer(_handle: object) -> None:
        await asyncio.Event().wait()

    lone.handler, lone.settings = answer, Settings(concurrent_runs=1)
    kernel = await lone.start()
    monkeypatch.setattr(UnitOfWork, "state", counted)
    many = [inbound(str(i), conversation=str(i)) for i in range(200)]
    await asyncio.gather(*map(kernel.accept, many))
    assert looks < 20 * len(many)  # 100 for each where all are looked at


@pytest.mark.case("S09", "S15")
async def test_messages_of_one_commit_get_no_more_runs_than_places(
    lone: Gateway,
) -> None:
    async def answer(_handle: object) -> None:
        await asyncio.Event().wait()

    lone.handler, lone.settings = answer, Settings(concurrent_runs=2)
    kernel = await lone.start()
    many = [inbound(str(i), conversation=str(i)) for i in range(9)]
    await asyncio.gather(*map(kernel.accept, many))
    await spin()
    assert (kernel.health()["runs"], kernel.health()["runs_waiting"]) == (2, 7)
