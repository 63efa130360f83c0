"""Many messages that come at once share a commit."""

import asyncio

import pytest

from turnfold import Settings
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._state.entry import (
    PartState,
    first_open,
    gathered,
    known,
    reopened,
    with_part,
)
from turnfold.enums import PartEnd
from turnfold_model.testing.gateway import Gateway, inbound, route, spin


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


@pytest.mark.case("S15", "U07")
async def test_what_is_on_its_way_is_found_without_a_look_at_the_rest(
    lone: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lane with a suspect asks this for each of its attempts."""
    kernel = await lone.start()
    found, looks, look = [], 0, UnitOfWork.state

    def counted(self: UnitOfWork, stream: str) -> object:
        nonlocal looks
        looks += 1
        return look(self, stream)

    def ask(draft: UnitOfWork) -> None:
        nonlocal looks
        looks = 0
        flying = [entry.conversation for entry in draft.flying()]
        found.append((len(draft.touched), flying, looks))

    async def asks() -> None:
        await kernel.append(ask)

    monkeypatch.setattr(UnitOfWork, "state", counted)
    sends = [
        kernel.enqueue(route(str(i), "nobody attached this"), "x") for i in range(50)
    ]
    await asyncio.gather(*sends, kernel.enqueue(route("on its way"), "x"), asks())
    assert found == [(52, ["on its way"], 1)]  # and the worker


@pytest.mark.case("V15")
def test_a_long_answer_keeps_the_counts_that_each_step_asks_for() -> None:
    """A step that counted all parts would make ten thousand of them take minutes."""
    parts = gathered(
        PartState(part=n, end=PartEnd.DELIVERED, receipt=(str(n),)) for n in range(999)
    )
    assert (parts.head, parts.delivered, len(parts)) == (999, 999, 999)
    assert first_open(parts, (), 1_000) == 999
    again = reopened(parts, 7)
    assert (first_open(again, (), 1_000), again.delivered) == (7, 998)
    state = known(parts, 7)
    assert state is not None
    assert with_part(again, state) == parts
