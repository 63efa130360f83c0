"""A person sends an answer again: its turn owes a reply until it is through."""

import asyncio

import pytest

from turnfold import FailureClass, Settings
from turnfold._decide.outcomes import settle
from turnfold._log.outbox_events import Bounced, Redriven
from turnfold.api.kernel import Kernel
from turnfold.enums import Phase, TurnOutcome, TurnPhase
from turnfold.errors import (
    NotYetError,
    RuleBrokenError,
    StaleRunError,
    StillOpenError,
)
from turnfold.notices import DEFAULTS
from turnfold.ports.channel import Accepted, Receipt
from turnfold_model.testing.gateway import (
    Gateway,
    entry,
    events,
    inbound,
    peek,
    spin,
    story,
    turn,
)
from turnfold_model.testing.platform import reject, unknown, wait_for

GONE, PERMISSION = FailureClass.TARGET_GONE, FailureClass.PERMISSION
BAD = FailureClass.INVALID_PAYLOAD
TOLD = DEFAULTS["undeliverable"]
HELD = DEFAULTS["interrupted"]


async def one(handle) -> None:
    await handle.reply("a")


async def two(handle) -> None:
    await handle.reply("a", "b")


async def dead(gateway: Gateway, *acts, handler=one) -> tuple[Kernel, str, str]:
    """A turn whose answer the platform refused."""
    gateway.handler = handler
    gateway.platform.plays(*(acts or [reject(GONE)]))
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    await spin()
    return kernel, done.turn_id, turn(kernel, done.turn_id).finals[0]


async def wanted(kernel: Kernel, final: str, *, risk: bool = False) -> None:
    """Redriven behind a closed gate, so that it stays open."""
    await kernel.hold_back("t/default", by="op")
    await kernel.redrive(final, by="op", accept_duplicate=risk)


def phase(kernel: Kernel, name: str) -> tuple[TurnPhase, TurnOutcome | None]:
    found = turn(kernel, name)
    return found.phase, found.outcome


ANSWERED = (TurnPhase.ANSWERED, None)
REPLIED = (TurnPhase.COMPLETED, TurnOutcome.REPLIED)


@pytest.mark.case("N02")
async def test_a_turn_is_answered_again_until_its_redriven_final_is_closed(
    gateway: Gateway,
) -> None:
    kernel, name, final = await dead(gateway)
    await wanted(kernel, final)
    assert phase(kernel, name) == ANSWERED
    row = peek(kernel).summary(name)
    assert row is not None
    assert (row.open, row.phase, row.reason) == (True, "answered", None)
    shown = await kernel.inspect.show(name)
    assert shown.verdict.startswith("there is an answer, but it is not through")
    assert f"answered again, because {final} was redriven" in [
        step.text for step in shown.happened
    ]
    with pytest.raises(NotYetError):
        await kernel.settled(name, 10)
    await kernel.let_go("t/default", by="op")
    assert await kernel.settled(name, 1000) is TurnOutcome.REPLIED
    assert phase(kernel, name) == REPLIED
    assert story(kernel, name)[-3:] == [
        "failed",
        "amended",
        "completed",
    ]


async def test_the_redrive_and_the_new_debt_are_one_commit(gateway: Gateway) -> None:
    kernel, name, final = await dead(gateway)
    await kernel.hold_back("t/default", by="op")
    commits: list[set[str]] = []
    commit = kernel.store.commit

    async def spied(writes):
        commits.extend({r.stream for r in write.records} for write in writes)
        return await commit(writes)

    kernel.store.commit = spied
    await kernel.redrive(final, by="op")
    assert {name, final} in commits


async def test_a_death_after_the_redrive_leaves_the_turn_open(gateway: Gateway) -> None:
    kernel, name, final = await dead(gateway)
    await wanted(kernel, final)
    kernel = await gateway.restart(kernel)
    assert phase(kernel, name) == ANSWERED
    await kernel.let_go("t/default", by="op")
    assert await kernel.settled(name, 1000) is TurnOutcome.REPLIED
    assert gateway.platform.contents == ["a"]


async def test_a_second_failure_ends_the_turn_again_and_tells_nobody_twice(
    gateway: Gateway,
) -> None:
    kernel, name, final = await dead(gateway, reject(BAD))
    assert gateway.platform.contents == [TOLD]
    told = turn(kernel, name).notice
    shown = await kernel.inspect.show(name)
    said = "over: failed (refused), and the user is told"
    assert said in [step.text for step in shown.happened]
    for _ in range(2):
        gateway.platform.plays(reject(BAD))
        await kernel.redrive(final, by="op")
        await spin()
        assert phase(kernel, name) == (TurnPhase.FAILED, TurnOutcome.FAILED)
        assert turn(kernel, name).reason == "refused"
    assert gateway.platform.contents == [TOLD]
    assert turn(kernel, name).notice == told
    assert await kernel.retry(name, by="op") == "redriven"
    await spin()
    assert phase(kernel, name) == REPLIED
    assert gateway.platform.contents == [TOLD, "a"]
    assert story(kernel, name).count("amended") == 3


async def test_while_it_is_open_it_is_not_redriven_again(gateway: Gateway) -> None:
    kernel, name, final = await dead(gateway)
    await wanted(kernel, final)
    with pytest.raises(RuleBrokenError, match="its answer is queued"):
        await kernel.retry(name, by="op")
    assert await kernel.retry(final, by="op") == "rescheduled"
    assert phase(kernel, name) == ANSWERED
    await kernel.abort(name, by="op")


async def test_an_abort_of_a_reopened_turn_ends_it_as_aborted(gateway: Gateway) -> None:
    kernel, name, final = await dead(gateway)
    await wanted(kernel, final)
    assert (await kernel.abort(name, by="op")).answer == "stopped"
    assert entry(kernel, final).phase is Phase.ABORTED
    assert phase(kernel, name) == (TurnPhase.ABORTED, TurnOutcome.ABORTED)


async def test_an_abort_of_the_final_alone_ends_its_turn_too(gateway: Gateway) -> None:
    kernel, name, final = await dead(gateway)
    await wanted(kernel, final)
    await kernel.abort(final, by="op")
    assert phase(kernel, name) == (TurnPhase.ABORTED, TurnOutcome.ABORTED)


async def test_the_stop_of_a_lane_stops_an_answer_that_is_sent_again(
    gateway: Gateway,
) -> None:
    kernel, name, final = await dead(gateway)
    await wanted(kernel, final)
    done = await kernel.abort_lane(turn(kernel, name).lane, by="op")
    assert done.stopped == (name,)
    assert entry(kernel, final).phase is Phase.ABORTED


async def test_an_abort_of_before_the_redrive_is_taken_back(gateway: Gateway) -> None:
    """The answer was in doubt when the user stopped it: it ended as unknown."""
    kernel, name, final = await dead(gateway, unknown())
    assert entry(kernel, final).phase is Phase.PARKED
    await kernel.abort(name, by="user")
    assert phase(kernel, name) == (TurnPhase.FAILED, TurnOutcome.FAILED)
    await wanted(kernel, final, risk=True)
    assert (phase(kernel, name), turn(kernel, name).abort) == (ANSWERED, None)
    assert (await kernel.abort(name, by="user")).answer == "unknown"
    await kernel.let_go("t/default", by="op")
    await spin()
    assert not turn(kernel, name).open
    assert [c for c in gateway.platform.calls if c[0] == final] == [(final, 0, 1)]


async def test_a_reopened_turn_is_neither_pruned_nor_erased(gateway: Gateway) -> None:
    gateway.settings = Settings(dedupe_ms=1)
    kernel, name, final = await dead(gateway)
    await wanted(kernel, final)
    await gateway.advance(10_000)
    done = await kernel.prune(older_ms=0, by="op", dead=True)
    assert done.streams == 0
    with pytest.raises(StillOpenError):
        await kernel.redact(name, by="op")
    assert phase(kernel, name) == ANSWERED


async def test_a_late_receipt_ends_the_debt(gateway: Gateway) -> None:
    """Parked and given up, redriven with the risk; then the first answer comes."""
    kernel, name, final = await dead(gateway, unknown(lands=True))
    await kernel.resolve(final, "give_up", by="op")
    assert phase(kernel, name) == (TurnPhase.FAILED, TurnOutcome.FAILED)
    await wanted(kernel, final, risk=True)
    assert entry(kernel, final).phase is Phase.IN_DOUBT
    late = Accepted(receipt=Receipt(ids=("m1",)))
    await kernel.append(lambda draft: settle(draft, final, 0, 1, late))
    assert phase(kernel, name) == REPLIED
    assert entry(kernel, final).phase is Phase.DELIVERED


async def test_a_reopened_answer_in_doubt_is_held_and_its_reader_told(
    gateway: Gateway,
) -> None:
    kernel, name, final = await dead(gateway)
    gateway.platform.plays(unknown())
    await kernel.redrive(final, by="op")
    await spin()
    assert entry(kernel, final).phase is Phase.PARKED
    assert phase(kernel, name) == ANSWERED
    assert gateway.platform.contents == [HELD]
    await kernel.resolve(final, "delivered", by="op")
    assert phase(kernel, name) == REPLIED


async def test_a_redrive_takes_a_notice_back_that_has_not_gone_out(
    gateway: Gateway,
) -> None:
    """If the answer fails again, its reader is told then."""
    acts = reject(BAD), reject(FailureClass.AUTH)
    kernel, name, final = await dead(gateway, *acts)
    told = turn(kernel, name).notice
    assert told is not None
    assert entry(kernel, told).phase is Phase.QUEUED
    gateway.platform.plays(reject(BAD))
    await kernel.redrive(final, by="op")
    assert entry(kernel, told).phase is Phase.ABORTED
    await kernel.connected("t")
    await spin()
    assert phase(kernel, name) == (TurnPhase.FAILED, TurnOutcome.FAILED)
    assert gateway.platform.contents == [TOLD]
    await kernel.redrive(final, by="op")
    await spin()
    assert phase(kernel, name) == REPLIED
    assert gateway.platform.contents == [TOLD, "a"]


async def test_a_late_receipt_withdraws_the_notice_too(gateway: Gateway) -> None:
    """The rest of an answer counts as unknown; its notice waits, and then it is there."""
    gateway.on_unknown = "drop"
    acts = wait_for(_set()), unknown(lands=True), reject(FailureClass.AUTH)
    kernel, name, final = await dead(gateway, *acts, handler=two)
    await gateway.advance(1_000)
    told = turn(kernel, name).notice
    assert told is not None
    assert entry(kernel, told).phase is Phase.QUEUED
    late = Accepted(receipt=Receipt(ids=("m2",)))
    await kernel.append(lambda draft: settle(draft, final, 1, 1, late))
    assert phase(kernel, name) == REPLIED
    assert entry(kernel, told).phase is Phase.ABORTED


async def test_a_part_that_arrived_stays_and_the_rest_is_sent(gateway: Gateway) -> None:
    kernel, name, final = await dead(
        gateway, *(wait_for(_set()), reject(PERMISSION)), handler=two
    )
    await spin()
    assert phase(kernel, name) == (
        TurnPhase.COMPLETED,
        TurnOutcome.PARTIALLY_REPLIED,
    )
    await wanted(kernel, final)
    assert phase(kernel, name) == ANSWERED
    await kernel.let_go("t/default", by="op")
    await spin()
    assert phase(kernel, name) == REPLIED
    assert gateway.platform.contents == ["a", "b"]


async def test_the_rest_is_stopped_after_a_redrive(gateway: Gateway) -> None:
    kernel, name, final = await dead(
        gateway, *(wait_for(_set()), reject(PERMISSION)), handler=two
    )
    await spin()
    await wanted(kernel, final)
    await kernel.abort(name, by="op")
    assert entry(kernel, final).phase is Phase.ABORTED
    assert phase(kernel, name) == (
        TurnPhase.COMPLETED,
        TurnOutcome.PARTIALLY_REPLIED,
    )
    await kernel.bounced(final, detail="blocked")
    assert not turn(kernel, name).open


async def test_a_bounce_while_it_is_sent_again_leaves_the_debt(
    gateway: Gateway,
) -> None:
    """The first of two parts bounces while the second waits to be sent again."""
    kernel, name, final = await dead(
        gateway, *(wait_for(_set()), reject(PERMISSION)), handler=two
    )
    await spin()
    await wanted(kernel, final)
    await kernel.bounced(final, part=0, detail="blocked")
    assert phase(kernel, name) == ANSWERED
    await kernel.let_go("t/default", by="op")
    await spin()
    assert phase(kernel, name)[0] is not TurnPhase.ANSWERED
    await kernel.redrive(final, by="op")
    await spin()
    assert phase(kernel, name) == REPLIED
    found = [type(e) for e in events(kernel, final)]
    assert (found.count(Redriven), found.count(Bounced)) == (2, 1)


async def test_a_receipt_that_bounced_is_no_evidence_after_a_redrive(
    gateway: Gateway,
) -> None:
    kernel, name, final = await dead(gateway, wait_for(_set()))
    await kernel.bounced(final, detail="blocked")
    await wanted(kernel, final)
    late = Accepted(receipt=Receipt(ids=("m1",)))
    told = await kernel.append(lambda draft: settle(draft, final, 0, 1, late))
    assert (told, phase(kernel, name)) == (False, ANSWERED)
    await kernel.let_go("t/default", by="op")
    await spin()
    assert phase(kernel, name) == REPLIED
    assert gateway.platform.contents.count("a") == 2


async def test_no_run_speaks_for_a_turn_that_is_open_again(gateway: Gateway) -> None:
    go_on, said = asyncio.Event(), []

    async def talks(handle) -> None:
        await handle.reply("a")
        await go_on.wait()
        try:
            await handle.send("more")
        except StaleRunError as exc:
            said.append(exc)

    kernel, name, final = await dead(gateway, handler=talks)
    await wanted(kernel, final)
    go_on.set()
    await spin()
    assert len(said) == 1
    await kernel.let_go("t/default", by="op")
    await kernel.settled(name, 1000)
    assert gateway.platform.contents == ["a"]


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event
