"""Taking messages in: once, durably, with the cursor, whatever happens next."""

import asyncio
from functools import partial
from typing import Any

import pytest

from turnfold import Inbound, Kernel, SourceCursor, TurnfoldError
from turnfold._decide import accepting
from turnfold._log.ids import cursor_of
from turnfold.enums import TurnOutcome, TurnPhase
from turnfold.errors import InvalidInputError, NotFoundError
from turnfold_model.testing.gateway import (
    Gateway,
    commits,
    driver_of,
    inbound,
    peek,
    spin,
    story,
    turn,
    until,
)
from turnfold_model.testing.platform import wait_for


async def echo(handle) -> None:
    await handle.reply(f"re: {handle.inbound.text}")


@pytest.mark.case("H01", "H22")
async def test_a_message_that_comes_again_after_a_restart_is_known(
    gateway: Gateway,
) -> None:
    gateway.handler = echo
    kernel = await gateway.start()
    first = await kernel.accept(inbound())
    assert first.new
    assert await first.settled(1000) is TurnOutcome.REPLIED
    kernel = await gateway.restart(kernel)
    again = await kernel.accept(inbound())
    assert (again.new, again.turn_id) == (False, first.turn_id)
    assert again.status is TurnPhase.COMPLETED
    await spin()
    assert gateway.platform.contents == ["re: hello"]


@pytest.mark.case("H22")
async def test_a_repeated_message_says_where_its_turn_stands(lone: Gateway) -> None:
    kernel = await lone.start()  # no handler: nothing runs
    assert (await kernel.accept(inbound())).status is TurnPhase.ACCEPTED
    assert (await kernel.accept(inbound())).status is TurnPhase.ACCEPTED
    go = asyncio.Event()

    @kernel.on_turn
    async def answer(handle) -> None:
        await go.wait()
        await handle.silent("not_addressed")

    other = await kernel.accept(inbound("2", conversation="43"))
    assert other.status is TurnPhase.RUNNING
    assert (await kernel.accept(inbound("2", conversation="43"))).status is (
        TurnPhase.RUNNING
    )
    go.set()
    assert await other.settled(1000) is TurnOutcome.SILENT
    repeated = await kernel.accept(inbound("2", conversation="43"))
    assert (repeated.new, repeated.status) == (False, TurnPhase.COMPLETED)


@pytest.mark.case("H09")
async def test_of_concurrent_duplicates_exactly_one_is_new(gateway: Gateway) -> None:
    gateway.handler = echo
    kernel = await gateway.start()
    client = await gateway.start(work=False)
    found = await asyncio.gather(*(k.accept(inbound()) for k in (kernel, client) * 10))
    assert [t.new for t in found].count(True) == 1
    assert len({t.turn_id for t in found}) == 1
    for accepted in found:
        assert await accepted.settled(2000) is TurnOutcome.REPLIED
    assert gateway.platform.contents == ["re: hello"]


@pytest.mark.case("H17", "H06")
@pytest.mark.parametrize(
    "other",
    [
        {"conversation": "43"},
        {"account": "sales"},
        {"channel": "u"},
        {"event": "edit"},
        {"message_id": "2"},
    ],
)
async def test_the_same_id_elsewhere_is_another_message(
    lone: Gateway, other: dict[str, str]
) -> None:
    kernel = await lone.start()
    one = {
        "channel": "t",
        "account": "default",
        "conversation": "42",
        "message_id": "1",
    }
    assert (await kernel.accept(Inbound(**one))).new
    assert (await kernel.accept(Inbound(**{**one, **other}))).new


@pytest.mark.case("H17")
async def test_ids_with_slashes_are_not_confused(lone: Gateway) -> None:
    kernel = await lone.start()
    assert (await kernel.accept(inbound("c", conversation="a/b"))).new
    assert (await kernel.accept(inbound("b/c", conversation="a"))).new


async def test_a_cursor_moves_in_the_commit_of_what_it_has_passed(
    gateway: Gateway,
) -> None:
    kernel = await gateway.start()
    place = {"channel": "t", "account": "default"}
    await kernel.accept(inbound(), cursor=SourceCursor(**place, value="7"))
    kernel = await gateway.restart(kernel)
    state = peek(kernel).state(cursor_of("t", "default"))
    assert state.value == "7"
    again = await kernel.accept(inbound(), cursor=SourceCursor(**place, value="8"))
    assert not again.new
    await kernel.advance(SourceCursor(**place, value="9"))
    await kernel.advance(SourceCursor(**place, value="9"))
    assert commits(kernel)["cursor.advanced"] == 3


@pytest.mark.case("T08")
async def test_a_cursor_never_goes_back_in_the_order_of_its_source(
    gateway: Gateway,
) -> None:
    """Tasks that accept beside one another end in any order."""
    kernel = await gateway.start()
    place = {"channel": "t", "account": "default"}

    async def accept(kernel: Kernel, rank: int) -> None:
        cursor = SourceCursor(**place, value=f"page {rank}", rank=rank)
        done = await kernel.accept(inbound(f"{rank}"), cursor=cursor)
        assert done.new

    for rank in (2, 5, 3):
        await accept(kernel, rank)
    kernel = await gateway.restart(kernel)
    await accept(kernel, 4)
    state = peek(kernel).state(cursor_of("t", "default"))
    assert (state.value, state.rank) == ("page 5", 5)
    await asyncio.gather(*(accept(kernel, rank) for rank in (9, 7, 8, 6)))
    state = peek(kernel).state(cursor_of("t", "default"))
    assert (state.value, state.rank) == ("page 9", 9)
    await kernel.advance(SourceCursor(**place, value="anew"))  # said without a rank
    await accept(kernel, 1)
    state = peek(kernel).state(cursor_of("t", "default"))
    assert state.value == "page 1"
    with pytest.raises(InvalidInputError, match="rank"):
        SourceCursor(**place, value="x", rank=-1)


async def test_cursors_of_accounts_with_slashes_are_apart(lone: Gateway) -> None:
    kernel = await lone.start()
    await kernel.advance(SourceCursor(channel="a/b", account="c", value="1"))
    await kernel.advance(SourceCursor(channel="a", account="b/c", value="2"))
    state = peek(kernel).state(cursor_of("a/b", "c"))
    assert state.value == "1"


async def test_a_source_goes_on_from_its_cursor_after_a_crash(lone: Gateway) -> None:
    seen: list[str | None] = []

    async def stream(cursor):
        seen.append(cursor)
        for number in range(int(cursor or 0) + 1, 4):
            yield (None if number == 2 else inbound(str(number))), str(number)
        await asyncio.Event().wait()

    kernel = await lone.start()
    kernel.source("t", stream)
    await until(lambda: commits(kernel).get("cursor.advanced") == 3)
    kernel = await lone.restart(kernel)
    kernel.source("t", stream)
    await until(lambda: len(seen) == 2)
    assert seen == [None, "3"]
    assert commits(kernel)["turn.accepted"] == 2


@pytest.mark.case("I01", "I15", "A01")
async def test_what_was_accepted_runs_after_a_crash(gateway: Gateway) -> None:
    kernel = await gateway.start()  # no handler yet: accepted, not run
    waiting = [await kernel.accept(inbound(str(n), text=str(n))) for n in range(10)]
    gateway.handler = echo
    kernel = await gateway.restart(kernel)
    for one in waiting:
        assert await kernel.settled(one.turn_id, 1000) is TurnOutcome.REPLIED
    assert gateway.platform.contents == [f"re: {n}" for n in range(10)]


@pytest.mark.case("I15")
async def test_turns_behind_a_slow_one_survive_a_clean_restart(
    gateway: Gateway,
) -> None:
    ran: list[str] = []

    async def slow(handle) -> None:
        ran.append(handle.inbound.text)
        await asyncio.Event().wait()

    gateway.handler = slow
    gateway.settings = type(gateway.settings)(drain_ms=0)
    kernel = await gateway.start()
    turns = [await kernel.accept(inbound(str(n), text=str(n))) for n in range(4)]
    await until(lambda: ran)
    assert ran == ["0"]  # a lane is held from started to answered
    gateway.alive.remove(kernel)
    await kernel.close()
    gateway.handler = echo
    kernel = await gateway.start()
    for one in turns:
        assert await kernel.settled(one.turn_id, 1000) is TurnOutcome.REPLIED
    assert story(kernel, turns[0].turn_id)[:4] == [
        "accepted",
        "started",
        "released",
        "started",
    ]
    assert turn(kernel, turns[0].turn_id).failed_runs == 0


@pytest.mark.case("I06")
async def test_a_turn_is_over_only_when_its_reply_is(lone: Gateway) -> None:
    lone.handler = echo
    go = asyncio.Event()
    lone.platform.plays(wait_for(go))
    kernel = await lone.start()
    accepted = await kernel.accept(inbound())
    await until(lambda: lone.platform.calls)
    assert turn(kernel, accepted.turn_id).phase is TurnPhase.ANSWERED
    go.set()
    assert await accepted.settled(1000) is TurnOutcome.REPLIED
    log = peek(kernel).names()
    # the end of the turn rides in the commit of the delivery
    assert log[-2:] == ["outbox.delivered", "turn.completed"]


async def test_accepting_and_starting_are_one_commit(lone: Gateway) -> None:
    lone.handler = echo
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    assert done.status is TurnPhase.RUNNING
    await done.settled(1000)


async def test_a_cancelled_caller_does_not_take_its_message_back(
    lone: Gateway,
) -> None:
    kernel = await lone.start()
    task = asyncio.ensure_future(kernel.accept(inbound()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await spin()
    assert commits(kernel)["turn.accepted"] == 1
    assert not (await kernel.accept(inbound())).new


async def test_one_bad_append_does_not_fail_its_neighbours_of_one_tick(
    gateway: Gateway,
) -> None:
    kernel = await gateway.start()
    bad = SourceCursor(channel="t", account="default", value="7")
    object.__setattr__(bad, "value", "\ud800")  # past the check at the door
    results = await asyncio.gather(
        kernel.accept(inbound("1")),
        kernel.accept(inbound("2"), cursor=bad),
        kernel.abort("entry:nobody"),
        kernel.accept(inbound("3")),
        return_exceptions=True,
    )
    assert [type(r).__name__ for r in results] == [
        "AcceptedTurn",
        "InvalidInputError",
        "NotFoundError",
        "AcceptedTurn",
    ]
    assert commits(kernel)["turn.accepted"] == 2
    assert driver_of(kernel).troubles == 0


async def test_what_the_store_refuses_does_not_fail_its_neighbours_of_one_tick(
    gateway: Gateway,
) -> None:
    kernel = await gateway.start()
    submit = driver_of(kernel).submit  # all three before the tick ends

    def accepted(name: str) -> asyncio.Future[Any]:
        return submit(
            partial(accepting.accept, turn=f"turn:{name}", inbound=inbound(name))
        )

    first, refused, second = await asyncio.gather(
        accepted("1"),
        submit(lambda draft: draft.key("in:x", "turn:nobody")),
        accepted("2"),
        return_exceptions=True,
    )
    assert isinstance(refused, InvalidInputError)
    assert first.new
    assert second.new
    assert commits(kernel)["turn.accepted"] == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"channel": ""},
        {"channel": True},
        {"conversation": "a\nb"},
        {"conversation": "x" * 513},
        {"message_id": "\ud800"},
        {"account": b"x"},
        {"thread": ""},
        {"event": "a\0"},
        {"body": {"text": object()}},
        {"body": {"a": [b"x"]}},
        {"control": "yes"},
    ],
)
def test_a_message_that_is_none_is_refused_with_its_field(
    fields: dict[str, object],
) -> None:
    good = {"channel": "t", "conversation": "42", "message_id": "1"}
    with pytest.raises(InvalidInputError) as caught:
        Inbound(**{**good, **fields})
    assert caught.value.field.startswith(next(iter(fields)))


def test_a_body_nested_beyond_reason_is_refused() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidInputError):
        Inbound("t", conversation="42", message_id="1", body={"a": deep})


async def test_ten_megabytes_of_text_come_in_and_go_out(lone: Gateway) -> None:
    lone.handler = echo
    kernel = await lone.start()
    done = await kernel.accept(inbound(text="x" * 10_000_000))
    assert await done.settled(5000) is TurnOutcome.REPLIED
    assert len(lone.platform.contents[0]) == 10_000_004


@pytest.mark.parametrize("stream", ["", "entry:", "turn:x", "gate:t/d", "store", 5])
async def test_waiting_for_what_is_not_there_says_so(
    lone: Gateway, stream: object
) -> None:
    kernel = await lone.start()
    with pytest.raises((NotFoundError, InvalidInputError)):
        await kernel.settled(stream, 100)
    with pytest.raises(TurnfoldError):
        await kernel.abort(stream)
