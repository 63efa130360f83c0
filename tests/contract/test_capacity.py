"""How much may wait, and what a stop, a move or a busy model must not cost."""

from typing import Any

import pytest

from turnfold import (
    Accepted,
    BackPressureError,
    Capabilities,
    DeliveryClass,
    FailureClass,
    InvalidInputError,
    Receipt,
    Rejected,
    Settings,
)
from turnfold.enums import TurnOutcome
from turnfold_model.testing.gateway import (
    Gateway,
    commits,
    entry,
    inbound,
    peek,
    route,
    spin,
)
from turnfold_model.testing.platform import PlatformChannel, hang

MOVED = FailureClass.TARGET_MOVED


@pytest.mark.case("S09")
async def test_what_waits_of_one_account_does_not_stop_another(lone: Gateway) -> None:
    lone.settings = Settings(max_open_entries=2)
    lone.channels = {("t", name): PlatformChannel(lone.platform) for name in "ab"}
    kernel = await lone.start()
    await kernel.disconnected("t", account="a")
    for n in range(2):
        await kernel.enqueue(route(f"c{n}", account="a"), "hi")
    with pytest.raises(BackPressureError, match="t/a"):
        await kernel.enqueue(route(account="a"), "hi")
    for n in range(9):
        done = await kernel.enqueue(route(account="b"), f"{n}")
        await kernel.settled(done.entry_id, 1_000)
    kernel = await lone.restart(kernel)
    await kernel.settled(done.entry_id, 1_000)


@pytest.mark.case("S09")
async def test_a_limit_never_makes_a_handler_run_again(lone: Gateway) -> None:
    lone.settings = Settings(max_open_entries=1)
    runs = []

    async def answer(turn: Any) -> None:
        runs.append(turn.id)
        await turn.reply("the answer")

    lone.handler = answer
    lone.platform.plays(hang())
    kernel = await lone.start()
    await kernel.enqueue(route("other"), "it hangs")
    turn = await kernel.accept(inbound("1"))
    assert await turn.settled(1_000) is TurnOutcome.REPLIED
    assert len(runs) == 1


@pytest.mark.case("S10")
async def test_a_lane_takes_so_many_messages_and_says_so(lone: Gateway) -> None:
    lone.settings = Settings(max_lane_turns=3)
    kernel = await lone.start()  # nobody answers
    for n in range(3):
        await kernel.accept(inbound(f"{n}"))
    with pytest.raises(BackPressureError, match="3 messages of t/default/42"):
        await kernel.accept(inbound("3"))
    assert (await kernel.accept(inbound("2"))).new is False
    await kernel.accept(inbound("4", control=True))
    await kernel.accept(inbound("5", conversation="43"))
    assert commits(kernel)["turn.accepted"] == 5


@pytest.mark.case("S11")
async def test_a_payload_becomes_only_so_many_messages(lone: Gateway) -> None:
    channel = PlatformChannel(lone.platform)
    channel.capabilities = Capabilities(limit=4_000)
    lone.channels = {("t", "default"): channel}
    kernel = await lone.start()
    with pytest.raises(InvalidInputError, match="more than 100 messages"):
        await kernel.enqueue(route(), "word " * 800_000)
    assert "outbox.queued" not in commits(kernel)


class Moving:
    """Its conversations have moved to a new place."""

    def __init__(self) -> None:
        self.refused, self.places = 0, list[str]()

    async def send(self, part: Any, key: str, attempt: Any) -> Accepted | Rejected:
        place = part.route.conversation
        if not place.startswith("new-"):
            self.refused += 1
            return Rejected(failure=MOVED, target=f"new-{place}")
        self.places.append(place)
        return Accepted(receipt=Receipt(ids=(key,)))


@pytest.mark.case("S12")
async def test_a_move_is_learnt_once_for_its_conversation() -> None:
    moving = Moving()
    lone = Gateway(channels={("t", "default"): moving})
    kernel = await lone.start()
    made = [await kernel.enqueue(route("a"), f"{n}") for n in range(4)]
    await spin()
    await lone.advance(2_000)
    other = await kernel.enqueue(route("b"), "hi")
    await spin()
    await lone.advance(2_000)
    for each in (*made, other):
        await kernel.settled(each.entry_id, 1_000)
    assert moving.refused == 2
    assert moving.places == ["new-a"] * 4 + ["new-b"]
    envelopes = [e for _, e in peek(kernel).happened() if hasattr(e, "target")]
    assert [e.target for e in envelopes if hasattr(e, "owner")].count("new-a") == 4
    await lone.end()


@pytest.mark.case("S08")
async def test_a_stop_costs_a_part_in_flight_nothing(lone: Gateway) -> None:
    lone.settings = Settings(max_failures=1, drain_ms=0)
    keyed = PlatformChannel(lone.platform, DeliveryClass.KEYED)
    lone.channels, lone.platform.keyed = {("t", "default"): keyed}, True
    lone.platform.plays(*[hang()] * 5)
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "hi")
    for _ in range(5):
        await spin()
        lone.alive.remove(kernel)
        await kernel.close()
        kernel = await lone.start()
        assert entry(kernel, done.entry_id).used <= 1
        await lone.advance(10_000)
    await kernel.settled(done.entry_id, 1_000)


@pytest.mark.case("S06")
async def test_an_error_that_says_when_to_come_back_is_not_now(lone: Gateway) -> None:
    class OverloadedError(ConnectionError):
        retry_after = 7

    runs = []

    async def answer(turn: Any) -> None:
        runs.append(turn.id)
        if len(runs) < 9:
            raise OverloadedError("529")
        await turn.reply("the answer")

    lone.handler = answer
    kernel = await lone.start()
    turn = await kernel.accept(inbound("1"))
    for _ in range(9):
        await lone.advance(7_000)
    assert await turn.settled(1_000) is TurnOutcome.REPLIED
    assert len(runs) == 9


@pytest.mark.parametrize("odd", [True, "7", -1, float("nan"), float("inf"), None])
async def test_an_odd_wait_is_none(lone: Gateway, odd: object) -> None:
    class OddError(Exception):
        retry_after = odd

    async def answer(turn: Any) -> None:
        raise OddError

    lone.handler = answer
    kernel = await lone.start()
    turn = await kernel.accept(inbound("1"))
    for _ in range(5):
        await lone.advance(10_000)
    assert await turn.settled(1_000) is TurnOutcome.FAILED
