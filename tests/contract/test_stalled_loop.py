"""A blocked loop judges nothing before it has read the answers that came meanwhile, in
whatever call of foreign code it was blocked."""

import asyncio
import threading
import time
from typing import Any

import pytest

from turnfold import Settings
from turnfold.enums import DeliveryClass
from turnfold.ports.channel import Accepted, Capabilities, Found, PartClass, Receipt
from turnfold_model.testing.gateway import Gateway, commits, inbound

ACCEPTED = Accepted(receipt=Receipt(ids=("1",)))
DEADLINE_MS, STALL_S = 100, 0.3
PLACES = ("send", "prepare", "edit", "reconcile", "handler")


def _answered_in_a_thread(value: Any) -> asyncio.Future[Any]:
    """The answer comes in 10 ms, and the loop is blocked from its next turn on."""
    loop = asyncio.get_running_loop()
    answer = loop.create_future()

    def come() -> None:
        time.sleep(0.01)
        loop.call_soon_threadsafe(answer.set_result, value)

    threading.Thread(target=come).start()
    loop.call_soon(time.sleep, STALL_S)
    return answer


class Stalling:
    def __init__(self, place: str) -> None:
        self.place = place
        self.calls: list[str] = []
        kind = DeliveryClass.EDITABLE if place == "edit" else DeliveryClass.LOOKUP
        settles = {} if place == "edit" else {"settle_ms": 0}
        part = PartClass(classes=(kind,), **settles)
        self.capabilities = Capabilities(parts={"text": part})
        if place == "prepare":
            self.prepare = self._prepare

    async def _call(self, name: str, value: Any) -> Any:
        self.calls.append(name)
        if self.place == name and self.calls.count(name) == 1:
            return await _answered_in_a_thread(value)
        return value

    async def _prepare(self, part: Any) -> Any:
        return await self._call("prepare", None)

    async def send(self, part: Any, key: str, attempt: Any) -> Any:
        if self.place == "reconcile":
            raise ConnectionError("lost")
        return await self._call("send", ACCEPTED)

    async def edit(self, handle: Any, part: Any, key: str, attempt: Any) -> Any:
        return await self._call("edit", ACCEPTED)

    async def reconcile(self, part: Any, since_ms: int) -> Any:
        return await self._call("reconcile", Found(receipt=Receipt(ids=("1",))))


@pytest.mark.case("U14", "W11")
@pytest.mark.parametrize("place", PLACES)
async def test_an_answer_that_came_during_a_stall_counts(
    wild: Gateway, place: str
) -> None:
    runs = []

    async def handler(turn: Any) -> str:
        runs.append(turn.run)
        if place == "handler" and len(runs) == 1:
            await _answered_in_a_thread(None)
        return "x"

    wild.settings = Settings(
        attempt_deadline_ms=DEADLINE_MS, run_deadline_ms=DEADLINE_MS, backoff_base_ms=1
    )
    channel = Stalling(place)
    wild.channels, wild.handler = {("t", "default"): channel}, handler
    kernel = await wild.start()
    turn = await kernel.accept(inbound())
    assert await turn.settled(3_000) == "replied"
    assert runs == [1]
    assert channel.calls.count(place) == (place != "handler")
    told = commits(kernel)
    assert told["outbox.unknown"] == (place == "reconcile")
    assert told["turn.run_failed"] == 0
    assert kernel.health()["hung_calls"] == 0
