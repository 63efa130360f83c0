"""Stores that fail, rows that cannot be read, adapters that lie, several processes."""

import asyncio
import gc
import sys
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from turnfold import Accepted, DeliveryClass, FailureClass, Kernel, Receipt, Rejected
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._log.events import GateClosed
from turnfold._runtime.calls import Calls, contained
from turnfold._runtime.committer import Decided
from turnfold.enums import Phase, TurnOutcome
from turnfold.errors import (
    BusyError,
    ContractError,
    CorruptLogError,
    DiskError,
    InvalidInputError,
    NotFoundError,
    NotOpenError,
    OwnedError,
    StoreError,
)
from turnfold.ports.channel import Unknown
from turnfold_model.testing.faulty_store import FaultyStore
from turnfold_model.testing.gateway import (
    Gateway,
    commits,
    driver_of,
    entry,
    events,
    inbound,
    peek,
    route,
    spin,
    story,
    turn,
    until,
)
from turnfold_model.testing.platform import (
    PlatformChannel,
    answers,
    cancels_itself,
    hang,
    raises,
    unknown,
)

FAULTS = ["full", "busy", "lost", "landed"]


async def faulty(gateway: Gateway):
    made: list[FaultyStore] = []

    def wrap(store):
        made.append(FaultyStore(store))
        return made[0]

    kernel = await gateway.start(wrap=wrap)
    return kernel, made[0]


async def echo(handle) -> None:
    await handle.reply("one", "two")


def _still_open(kernel: Kernel, turn_id: str) -> bool:
    try:
        return turn(kernel, turn_id).open
    except NotOpenError:  # the file is opened anew after a commit of unknown fate
        return True


@pytest.mark.case("A06", "A08", "A09", "Q03", "F08")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("nth", range(6))
async def test_a_fault_at_any_write_loses_and_doubles_nothing(
    gateway: Gateway, impatient: None, fault: str, nth: int, times: int
) -> None:
    gateway.handler = echo
    kernel, store = await faulty(gateway)
    store.fails(*[""] * nth, *[fault] * times)
    for _ in range(5):  # a source that gets no answer brings the message again
        try:
            done = await kernel.accept(inbound())
        except StoreError:
            continue
        break
    else:
        pytest.fail("never accepted")
    async with asyncio.timeout(5):
        while _still_open(kernel, done.turn_id):
            await gateway.advance(1_000)
            await asyncio.sleep(0.002)
    assert turn(kernel, done.turn_id).outcome is TurnOutcome.REPLIED
    assert gateway.platform.contents == ["one", "two"]
    assert commits(kernel)["turn.accepted"] == 1


@pytest.mark.case("A06")
async def test_an_attempt_of_a_commit_of_unknown_fate_is_found_and_sent_once(
    gateway: Gateway, impatient: None
) -> None:
    kernel, store = await faulty(gateway)
    store.fails("landed")
    done = await kernel.enqueue(route(), "hi")
    await kernel.settled(done.entry_id, 2_000)
    await spin()
    assert story(kernel, done.entry_id) == [
        "queued",
        "planned",
        "attempted",
        "delivered",
    ]
    assert len(gateway.platform.calls) == 1


@pytest.mark.case("A06", "A09")
async def test_an_outcome_is_kept_in_hand_until_it_is_stored(
    gateway: Gateway, impatient: None
) -> None:
    kernel, store = await faulty(gateway)
    store.fails("", *["full"] * 5)
    done = await kernel.enqueue(route(), "hi")
    await until(lambda: driver_of(kernel).troubles >= 3)
    assert entry(kernel, done.entry_id).phase is Phase.DISPATCHED
    await kernel.settled(done.entry_id, 1000)
    assert len(gateway.platform.calls) == 1


@pytest.mark.case("A06", "A09")
async def test_an_outcome_that_was_never_stored_is_in_doubt_after_a_crash(
    gateway: Gateway, impatient: None
) -> None:
    kernel, store = await faulty(gateway)
    store.fails("", *["full"] * 500)
    done = await kernel.enqueue(route(), "hi")
    await until(lambda: driver_of(kernel).troubles >= 3)
    kernel = await gateway.restart(kernel)
    await spin()
    assert entry(kernel, done.entry_id).phase is Phase.PARKED
    assert len(gateway.platform.calls) == 1


@pytest.mark.case("A08")
@pytest.mark.parametrize("fault", ["full", "busy", "lost"])
async def test_an_enqueue_that_raises_sends_nothing(
    gateway: Gateway, fault: str
) -> None:
    kernel, store = await faulty(gateway)
    store.fails(fault, *([fault] if fault == "lost" else []))
    with pytest.raises(StoreError):
        await kernel.enqueue(route(), "hi")
    await spin()
    assert gateway.platform.calls == []
    assert kernel.health()["open_entries"] == 0


@pytest.mark.case("F08")
async def test_a_commit_that_landed_is_still_new_to_its_caller(
    gateway: Gateway,
) -> None:
    gateway.handler = echo
    kernel, store = await faulty(gateway)
    store.fails("landed")
    done = await kernel.accept(inbound())
    assert done.new
    assert await done.settled(1000) is TurnOutcome.REPLIED
    await spin()
    store.fails("landed")
    sent = await kernel.enqueue(route(), "note", key="k")
    assert (sent.new, sent.differs) == (True, False)
    await kernel.settled(sent.entry_id, 1000)
    assert gateway.platform.contents == ["one", "two", "note"]


async def test_who_waits_hears_of_an_end_whose_commit_landed(
    lone: Gateway, impatient: None
) -> None:
    seen: list[str] = []
    lone.platform.plays(answers(Rejected(failure=FailureClass.PERMISSION)))
    kernel, store = await faulty(lone)
    kernel.hooks.on_terminal(lambda found: seen.append(found.stream))
    store.fails("", "landed")
    done = await kernel.enqueue(route(), "hi")
    await kernel.settled(done.entry_id, 1000)
    await spin()
    assert seen == [done.entry_id]


async def test_a_store_that_cannot_be_reopened_is_reopened_later(
    gateway: Gateway, impatient: None
) -> None:
    kernel, store = await faulty(gateway)
    store.fails("landed")
    store.unopenable = 3
    with pytest.raises(DiskError):
        await kernel.enqueue(route(), "hi", key="k")
    for _ in range(2):
        with pytest.raises(DiskError):
            await kernel.enqueue(route(), "hi", key="k")
    again = await kernel.enqueue(route(), "hi", key="k")
    assert not again.new  # the first one had landed
    await kernel.settled(again.entry_id, 1000)
    assert gateway.platform.contents == ["hi"]


async def test_one_busy_store_is_asked_once_for_a_whole_tick(lone: Gateway) -> None:
    kernel, store = await faulty(lone)
    store.fails("busy")
    before = store.writes
    results = await asyncio.gather(
        *(kernel.accept(inbound(str(n))) for n in range(20)), return_exceptions=True
    )
    assert all(isinstance(r, StoreError) for r in results)
    assert store.writes == before + 1


# --- rows that cannot be read ---


def damage(gateway: Gateway, stream: str, *, missing: bool) -> None:
    from msgspec.structs import replace

    disk = gateway.store().disk
    first, *rest = disk.streams[stream]
    broken = replace(first, events=b'[["no",1,{"sense":0}]]')
    disk.streams[stream] = tuple(rest) if missing else (broken, *rest)


@pytest.mark.case("Q01")
@pytest.mark.parametrize("missing", [True, False])
async def test_an_unreadable_entry_is_set_aside_and_its_lane_goes_on(
    wild: Gateway, missing: bool, impatient: None
) -> None:
    wild.channels = {("elsewhere", "default"): PlatformChannel(wild.platform)}
    kernel = await wild.start()
    bad = await kernel.enqueue(route(), "bad", ttl_ms=60_000)
    good = await kernel.enqueue(route(), "good")
    await wild.crash(kernel)
    wild.channels = {}
    damage(wild, bad.entry_id, missing=missing)
    kernel = await wild.start()
    await kernel.settled(good.entry_id, 1000)
    assert kernel.health()["corrupt_streams"] == [bad.entry_id]
    with pytest.raises(CorruptLogError):
        await kernel.settled(bad.entry_id, 100)
    with pytest.raises(CorruptLogError):
        await kernel.abort(bad.entry_id)
    await wild.advance(60_000)  # its time rings for nobody
    await asyncio.sleep(0.02)
    assert driver_of(kernel).troubles == 0
    assert wild.platform.contents == ["good"]


@pytest.mark.case("Q01")
async def test_a_turn_with_an_unreadable_block_still_ends(
    wild: Gateway, impatient: None
) -> None:
    names: list[str] = []

    async def answer(handle) -> None:
        names.append((await handle.block("beginning")).entry_id)
        await asyncio.Event().wait()

    wild.handler = answer
    kernel = await wild.start()
    done = await kernel.accept(inbound())
    await until(lambda: wild.platform.messages)
    await spin()
    await wild.crash(kernel)
    damage(wild, names[0], missing=False)
    kernel = await wild.start()
    outcome = await kernel.settled(done.turn_id, 1000)
    assert outcome is TurnOutcome.PARTIALLY_REPLIED
    assert len(names) == 1


@pytest.mark.case("Q01")
async def test_an_unreadable_turn_does_not_stop_the_next(wild: Gateway) -> None:
    kernel = await wild.start()
    bad = await kernel.accept(inbound("1"))
    good = await kernel.accept(inbound("2"))
    await wild.crash(kernel)
    damage(wild, bad.turn_id, missing=False)
    wild.handler = echo
    kernel = await wild.start()
    assert await kernel.settled(good.turn_id, 1000) is TurnOutcome.REPLIED


# --- adapters that lie ---


@pytest.mark.case("L05", "L08")
@pytest.mark.parametrize(
    "answer",
    [
        None,
        True,
        {"ok": True},
        "m1",
        Accepted(receipt=Receipt()),
        Accepted(receipt=Receipt(ids=("",))),
        Accepted(receipt=None),
        Accepted(receipt=Receipt(ids=(None,))),
        Accepted(receipt=Receipt(ids=("a\0",))),
        Accepted(receipt=Receipt(ids=("\ud800",))),
        Accepted(receipt=Receipt(ids=7)),
        Unknown(cause="Some Free Text!", detail=None),
        Unknown(cause=None),
        Rejected(failure="no_such_class"),
    ],
)
async def test_what_proves_nothing_is_unknown(lone: Gateway, answer: object) -> None:
    lone.platform.plays(answers(answer))
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "hi")
    await spin()
    assert entry(kernel, done.entry_id).doubt
    kernel = await lone.restart(kernel)
    await lone.advance(60_000)
    assert entry(kernel, done.entry_id).phase is Phase.PARKED


@pytest.mark.case("L08", "L04")
@pytest.mark.parametrize(
    ("ids", "thread", "kept"),
    [((7,), 42, "42"), (["a", 5], b"x", None), (("a",), "\ud800", None)],
)
async def test_ids_are_texts_in_the_log_whatever_the_adapter_gives(
    wild: Gateway, ids, thread, kept
) -> None:
    gateway = wild  # the platform knows nothing of these ids
    receipt = Receipt(ids=ids, thread=thread)
    gateway.platform.plays(answers(Accepted(receipt=receipt)))
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), "hi", "more")
    await kernel.settled(done.entry_id, 1000)
    kernel = await gateway.restart(kernel)
    found = entry(kernel, done.entry_id)
    assert found.receipts[0] == tuple(str(i) for i in ids)
    assert found.thread == kept


@pytest.mark.parametrize(
    ("lie", "phase"),
    [
        (Rejected(failure="transient", detail=5), Phase.QUEUED),
        (Rejected(failure=FailureClass.DRAIN), Phase.QUEUED),
        (Rejected(failure=FailureClass.OWNER_DIED), Phase.QUEUED),
        (Rejected(failure=FailureClass.TARGET_MOVED, target=5), Phase.RETRYABLE),
        (Rejected(failure=FailureClass.TARGET_MOVED, target="a\n"), Phase.RETRYABLE),
        (Rejected(failure="rate_limited", retry_after_ms="x", scope=5), Phase.QUEUED),
    ],
)
async def test_a_refusal_of_odd_types_is_a_refusal_and_readable(
    gateway: Gateway, lie: Rejected, phase: Phase
) -> None:
    gateway.platform.plays(answers(lie))
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), "hi")
    await spin()
    kernel = await gateway.restart(kernel)
    assert entry(kernel, done.entry_id).phase is phase
    await gateway.advance(10_000)
    await kernel.settled(done.entry_id, 1000)
    assert gateway.platform.messages[0].conversation == "42"


async def test_a_moved_target_is_followed(lone: Gateway) -> None:
    moved = Rejected(failure=FailureClass.TARGET_MOVED, target="99")
    lone.platform.plays(answers(moved))
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "hi")
    await spin()
    await lone.advance(1_000)
    await kernel.settled(done.entry_id, 1000)
    assert lone.platform.messages[0].conversation == "99"


@pytest.mark.case("L07", "B08")
@pytest.mark.parametrize(
    "act",
    [
        cancels_itself(),
        raises(SystemExit(3)),
        raises(RuntimeError("x")),
        raises(GeneratorExit()),
        raises(StopIteration()),
        raises(TimeoutError()),
    ],
)
async def test_whatever_an_adapter_raises_is_unknown_and_no_more(
    lone: Gateway, act
) -> None:
    lone.platform.plays(act)
    kernel = await lone.start()
    done = await kernel.enqueue(route(), "hi")
    other = await kernel.enqueue(route("43"), "other")
    await kernel.settled(other.entry_id, 1000)
    assert entry(kernel, done.entry_id).doubt
    assert driver_of(kernel).troubles == 0


@pytest.mark.case("L02", "L01")
@pytest.mark.parametrize(
    "declared",
    [
        {"unit": "miles"},
        {"limit": 0},
        {"limit": "10"},
        {"key_alphabet": "a"},
        {"key_alphabet": "aab"},
        {"key_length": 3},
        {"settle_ms": 1.5},
        {"key_window_ms": "1h"},
    ],
)
async def test_capabilities_that_nobody_could_live_with_are_refused(
    lone: Gateway, declared
) -> None:
    kernel = await lone.start()
    with pytest.raises((ContractError, InvalidInputError)):
        kernel.attach(
            "u", PlatformChannel(lone.platform, **declared), on_unknown="hold"
        )


async def test_a_key_that_is_forgotten_before_a_request_lands_is_refused(
    lone: Gateway,
) -> None:
    kernel = await lone.start()
    short = PlatformChannel(
        lone.platform, DeliveryClass.KEYED, key_window_ms=1_999, settle_ms=1_000
    )
    with pytest.raises(ContractError, match="shorter than twice settle_ms"):
        kernel.attach("u", short, on_unknown="hold")
    long = PlatformChannel(
        lone.platform, DeliveryClass.KEYED, key_window_ms=2_000, settle_ms=1_000
    )
    kernel.attach("u", long, on_unknown="hold")
    none = PlatformChannel(
        lone.platform, DeliveryClass.KEYED, key_window_ms=0, settle_ms=1_000
    )
    kernel.attach("v", none, on_unknown="hold")  # its key is never used again


def test_claims_without_a_method_are_refused(tmp_path) -> None:
    from turnfold import Capabilities, PartClass

    offer = PartClass(classes=(DeliveryClass.LOOKUP,))

    class Liar:
        capabilities = Capabilities(parts={"text": offer})

        async def send(self, part, key, attempt):
            return None

    class Sync:
        def send(self, part, key, attempt):
            return None

    kernel = Kernel(tmp_path / "x.db")
    for channel in (Liar(), Sync(), object(), None):
        with pytest.raises(ContractError):
            kernel.attach("t", channel, on_unknown="hold")


# --- poison, and several processes ---


@pytest.mark.case("A13")
@pytest.mark.parametrize("prepares", [True, False])
async def test_an_entry_that_kills_its_process_is_quarantined(
    gateway: Gateway, prepares: bool
) -> None:
    gateway.platform.keyed = True
    gateway.channels = {
        ("t", "default"): PlatformChannel(
            gateway.platform, DeliveryClass.KEYED, prepares=prepares
        )
    }
    if prepares:
        gateway.platform.preparing.extend(hang() for _ in range(9))
    else:
        gateway.platform.plays(*(hang() for _ in range(9)))
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), "poison")
    for _ in range(5):
        await gateway.advance(60_000)
        kernel = await gateway.restart(kernel)
    await gateway.advance(60_000)
    found = entry(kernel, done.entry_id)
    phase = Phase.FAILED if prepares else Phase.PARKED
    assert (found.phase, found.reason, found.attempt) == (phase, "quarantined", 3)
    gateway.platform.preparing.clear()
    gateway.platform._script.clear()
    healthy = await kernel.enqueue(route(), "healthy")
    await kernel.settled(healthy.entry_id, 1000)


@pytest.mark.case("F01", "E03")
async def test_a_client_enqueues_and_the_worker_sends(gateway: Gateway) -> None:
    worker = await gateway.start()
    client = await gateway.start(work=False)
    done = await client.enqueue(route(), "hi")
    await client.settled(done.entry_id, 2000)
    assert (worker.working, client.working) == (True, False)
    assert len(gateway.platform.calls) == 1


@pytest.mark.case("F02", "F09")
async def test_a_standby_takes_over_and_knows_its_predecessor_dead(
    gateway: Gateway,
) -> None:
    first = await gateway.start()
    second = await gateway.start()
    gateway.platform.plays(hang())
    done = await second.enqueue(route(), "hi")
    await until(lambda: gateway.platform.calls)
    assert not second.working
    await gateway.crash(first)
    await until(lambda: second.working)
    await until(lambda: entry(second, done.entry_id).phase is Phase.PARKED)
    assert len(gateway.platform.calls) == 1


async def test_a_standby_that_waits_for_an_end_hears_of_it_at_its_takeover(
    lone: Gateway,
) -> None:
    first = await lone.start()
    second = await lone.start()
    done = await first.enqueue(route(), "hi")
    waiting = asyncio.ensure_future(second.settled(done.entry_id, 2000))
    await spin()
    await lone.crash(first)
    await waiting


async def _not_needed(opened: list[str]) -> None:
    opened.append("again")


@pytest.mark.case("F05", "F10")
async def test_a_worker_that_is_not_the_one_any_more_sends_nothing(
    lone: Gateway, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lock lets it come to this on one host; the fence holds all the same."""
    old = await lone.start()
    done = await old.enqueue(route("41"), "before")
    await old.settled(done.entry_id, 1000)
    opened: list[str] = []
    monkeypatch.setattr(driver_of(old).journal, "reopen", partial(_not_needed, opened))
    lone.store().disk.room.holder = None  # the lock is gone
    new = await lone.start()
    assert new.working
    sent = await new.enqueue(route(), "new")
    await new.settled(sent.entry_id, 1000)
    calls = len(lone.platform.calls)
    late = await old.enqueue(route("43"), "old")
    await until(lambda: peek(new).state(late.entry_id) is not None)
    await new.settled(late.entry_id, 1000)
    assert len(lone.platform.calls) == calls + 1
    assert peek(new).names().count("store.worker_started") == 2
    await until(lambda: not old.working)  # its watch has seen it
    assert old.health()["fences_lost"] == 1
    with pytest.raises((OwnedError, NotFoundError)):
        await old.append(lambda draft: draft.fence())
    assert opened == []  # to read the news of the log is enough


@pytest.mark.case("F01")
async def test_an_abort_from_another_process_reaches_the_run(lone: Gateway) -> None:
    stopped: list[bool] = []

    async def slow(handle) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(True)

    lone.handler = slow
    await lone.start()
    client = await lone.start(work=False)
    done = await client.accept(inbound())
    await spin()
    assert (await client.abort(done.turn_id)).aborted
    await until(lambda: stopped)


async def test_doubt_survives_a_second_death_before_the_wire(gateway: Gateway) -> None:
    """INV-2: an attempt that died in prepare says nothing about the one before it."""
    channel = PlatformChannel(gateway.platform, DeliveryClass.KEYED, prepares=True)
    gateway.channels = {("t", "default"): channel}
    gateway.platform.keyed = True

    async def answer(handle) -> None:
        if handle.run == 1:
            await handle.block("draft")
            await asyncio.Event().wait()

    gateway.handler = answer
    gateway.platform.plays(unknown(lands=True))
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    await spin()
    gateway.platform.preparing.append(hang())
    await gateway.advance(1_000)
    name = gateway.platform.calls[0][0]
    assert (entry(kernel, name).phase, entry(kernel, name).doubt) == (
        Phase.ATTEMPTED,
        True,
    )
    kernel = await gateway.restart(kernel)
    outcome = await kernel.settled(done.turn_id, 1000)
    assert outcome is TurnOutcome.PARTIALLY_REPLIED  # never run again
    assert "aborted" not in story(kernel, name)


@pytest.mark.case("Q04")
async def test_a_failure_that_could_not_be_stored_at_first_keeps_its_own_reason(
    gateway: Gateway, impatient: None
) -> None:
    kernel, store = await faulty(gateway)
    gateway.platform.plays(
        answers(Rejected(failure=FailureClass.PERMISSION, detail="kicked out"))
    )
    store.fails("", "full", "busy", "lost", "lost", "full")
    done = await kernel.enqueue(route(), "hi")
    await kernel.settled(done.entry_id, 2000)
    failed_stream = done.entry_id
    failed = events(kernel, failed_stream)[-2]
    assert failed.failure is FailureClass.PERMISSION
    assert peek(kernel).body(failed_stream, failed.detail) == b"kicked out"


@pytest.mark.case("Q04")
async def test_a_run_that_fails_while_the_store_does_keeps_its_own_error(
    lone: Gateway, impatient: None
) -> None:
    stores: list[FaultyStore] = []

    async def broken(handle) -> None:
        stores[0].fails("full", "full", "lost", "lost")
        raise RuntimeError("original")

    lone.handler = broken
    kernel, store = await faulty(lone)
    stores.append(store)
    done = await kernel.accept(inbound())
    await until(lambda: turn(kernel, done.turn_id).failed_runs == 1)
    failed_stream = done.turn_id
    failed = events(kernel, failed_stream)[-1]
    assert peek(kernel).body(failed_stream, failed.detail) == b"RuntimeError: original"


class UnspeakableError(Exception):
    """Neither this error nor this answer can be shown."""

    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


@pytest.mark.case("L07")
@pytest.mark.parametrize(
    "play", [answers(UnspeakableError()), raises(UnspeakableError())]
)
async def test_what_cannot_even_be_shown_is_unknown_and_holds_up_nothing(
    lone: Gateway, play
) -> None:
    lone.platform.plays(play)
    kernel = await lone.start()
    first = await kernel.enqueue(route(), "x")
    await until(lambda: entry(kernel, first.entry_id).phase is Phase.PARKED)
    second = await kernel.enqueue(route(), "y")
    await kernel.settled(second.entry_id, 1_000)


async def test_a_decision_that_fails_half_way_leaves_nothing_behind(
    gateway: Gateway,
) -> None:
    """In one commit with others: they stand, on top of one another."""
    kernel = await gateway.start()
    driver = driver_of(kernel)

    def half(draft: UnitOfWork) -> None:
        draft.emit("gate:t/default", GateClosed(reason="disconnected"))
        draft.key("out:half", "gate:t/default")
        raise NotFoundError(what="the other half", id="x")

    first = kernel.accept(inbound("1"))
    broken = driver.submit(half)
    second = kernel.accept(inbound("2"))
    answers = await asyncio.gather(first, broken, second, return_exceptions=True)
    assert isinstance(answers[1], NotFoundError)
    assert driver.book.holding("gate:t/default") is None
    assert "gate.closed" not in commits(kernel)
    assert commits(kernel)["turn.accepted"] == 2
    assert peek(kernel).lookup("out:half") is None


async def test_a_call_that_is_cut_off_before_it_began_leaves_no_coroutine(
    recwarn: pytest.WarningsRecorder,
) -> None:
    """Python warns of one that was never awaited, in whatever runs when it notices."""
    calls = Calls()
    call = calls.begin(contained, asyncio.sleep, 1)
    calls.cancel_all()
    end = await call.ended
    gc.collect()
    assert not call.begun
    assert end is not None
    assert end.cancelled
    assert not [str(warning.message) for warning in recwarn]


async def test_an_adapter_that_cancels_its_own_task_ends_no_program(
    wild: Gateway,
) -> None:
    """The cancellation would come at the task's next wait. The record of the outcome, for
    which the store is busy at first, is none."""
    sent: list[str] = []
    refused: list[BusyError] = []

    class Cancelling:
        async def send(self, part: object, key: str, attempt: object) -> Accepted:
            sent.append(key)
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            driver.group_commit.hand_in = busy  # type: ignore[method-assign]
            return Accepted(receipt=Receipt(ids=(key,)))

    def busy(_decision: Any, tell: Any) -> None:
        driver.group_commit.hand_in = hand_in  # type: ignore[method-assign]
        refused.append(BusyError(path="the store", waited_ms=1))
        tell(Decided(error=refused[0]))

    wild.channels = {("t", "default"): Cancelling()}
    kernel = await wild.start()
    driver = driver_of(kernel)
    hand_in, torn = driver.group_commit.hand_in, []
    driver._torn = torn.append  # type: ignore[method-assign]  # begins a program anew
    done = await kernel.enqueue(route(), "x")
    await kernel.settled(done.entry_id, 2_000)
    assert entry(kernel, done.entry_id).phase is Phase.DELIVERED
    assert len(sent) == len(refused) == 1
    assert torn == []


async def test_what_is_set_in_a_context_stays_there(wild: Gateway) -> None:
    """Calls and handlers run in the context that the kernel was opened in: neither a
    caller's variables nor those of an adapter reach another message."""
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
    seen: list[str] = []

    class Marking:
        async def send(self, part: object, key: str, attempt: object) -> Accepted:
            seen.append(tenant.get())
            tenant.set("the adapter")
            return Accepted(receipt=Receipt(ids=(key,)))

    async def answer(handle) -> None:
        seen.append(tenant.get())
        tenant.set("the handler")
        await handle.reply("hi")

    wild.channels, wild.handler = {("t", "default"): Marking()}, answer
    kernel = await wild.start()
    tenant.set("a caller")
    for number in ("1", "2"):
        accepted = await kernel.accept(inbound(number))
        await accepted.settled(1_000)
    assert seen == ["nobody"] * 4


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
async def test_calls_may_end_before_their_task_is_there(gateway: Gateway) -> None:
    """An embedder's loop may run tasks as far as they go when they are made."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    kernel = await gateway.start()
    for text in ("a", "b"):
        done = await kernel.enqueue(route(), text)
        await kernel.settled(done.entry_id, 1_000)
    assert gateway.platform.contents == ["a", "b"]
    assert not driver_of(kernel).sender.calls.tasks()
