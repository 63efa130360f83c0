"""Health is progress: ages of what waits, and a judgement with reasons."""

import asyncio
from typing import Any

import pytest

from turnfold._runtime import calls, group_commit
from turnfold.api import health
from turnfold.api.health import judge
from turnfold.api.kernel import Kernel
from turnfold.enums import FailureClass, Phase
from turnfold.errors import DiskError, NoAccessError
from turnfold.settings import Settings
from turnfold_model.testing.faulty_store import FaultyStore
from turnfold_model.testing.gateway import (
    Gateway,
    driver_of,
    entry,
    inbound,
    route,
    spin,
    until,
)
from turnfold_model.testing.platform import reject, unknown


def reasons(kernel: Kernel) -> str:
    return "; ".join(kernel.is_well().reasons)


async def test_a_kernel_that_has_nothing_to_do_is_well(lone: Gateway) -> None:
    kernel = await lone.start()
    assert kernel.is_well()
    assert kernel.is_well().well
    facts = kernel.health()
    assert [facts[f"oldest_{what}_ms"] for what in ("append", "due", "run")] == [
        None
    ] * 3
    assert (facts["parked"], facts["dead_letters"]) == (0, 0)


@pytest.mark.case("S14")
async def test_an_append_that_hangs_is_shown_with_its_age(
    wild: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = await wild.start()
    go, group_commit = asyncio.Event(), driver_of(kernel).group_commit
    commit = group_commit._journal.commit

    async def slow(*arguments: Any) -> Any:
        await go.wait()
        return await commit(*arguments)

    monkeypatch.setattr(group_commit._journal, "commit", slow)
    waiting = asyncio.create_task(kernel.enqueue(route(), "x"))
    await asyncio.sleep(0.05)
    age = kernel.health()["oldest_append_ms"]
    assert age >= 20
    assert "append" in judge({**kernel.health(), "oldest_append_ms": 9_000}).reasons[0]
    go.set()
    await waiting
    await spin()
    assert kernel.health()["oldest_append_ms"] is None


@pytest.mark.case("S14")
async def test_parked_and_dead_entries_are_counted(lone: Gateway) -> None:
    lone.platform.plays(unknown(), reject(FailureClass.PERMISSION))
    kernel = await lone.start()
    parked = await kernel.enqueue(route(), "x")
    await until(lambda: entry(kernel, parked.entry_id).phase is Phase.PARKED)
    await kernel.settled((await kernel.enqueue(route("43"), "y")).entry_id, 1_000)
    await kernel.settled((await kernel.enqueue(route(), "z")).entry_id, 1_000)
    facts = kernel.health()
    assert (facts["parked"], facts["dead_letters"]) == (1, 1)
    assert "1 entries are parked" in reasons(kernel)


@pytest.mark.case("S14")
async def test_what_is_due_and_not_started_has_an_age(lone: Gateway) -> None:
    kernel = await lone.start()
    await kernel.enqueue(route("42", "nobody attached this"), "x")
    later = lone.clock.now() + 3_600_000
    await kernel.enqueue(route("43"), "y", not_before=later)
    await lone.advance(90_000)
    assert 90_000 <= kernel.health()["oldest_due_ms"] < 100_000
    assert "due and not started for 90 s" in reasons(kernel)


@pytest.mark.case("S15")
async def test_a_large_backlog_is_judged_without_looking_at_all_of_it(
    lone: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = await lone.start()
    for number in range(50):
        await kernel.enqueue(route("42", "nobody attached this"), f"{number}")
    await lone.advance(90_000)
    looked: list[int] = []
    since = health.due_since
    monkeypatch.setattr(health, "due_since", lambda e: looked.append(1) or since(e))
    assert kernel.health()["oldest_due_ms"] >= 90_000
    assert len(looked) == 1


@pytest.mark.case("S14")
async def test_parked_entries_are_counted_after_a_restart(lone: Gateway) -> None:
    lone.platform.plays(unknown())
    kernel = await lone.start()
    parked = await kernel.enqueue(route(), "x")
    await until(lambda: entry(kernel, parked.entry_id).phase is Phase.PARKED)
    await lone.end()
    kernel = await lone.start()
    assert kernel.health()["parked"] == 1
    await kernel.resolve(parked.entry_id, "delivered", by="me")
    assert kernel.health()["parked"] == 0


@pytest.mark.case("T05", "S14")
async def test_a_source_that_fails_makes_a_kernel_unwell(lone: Gateway) -> None:
    async def broken(cursor: str | None) -> Any:
        raise ConnectionError("pool is wedged")
        yield

    kernel = await lone.start()
    kernel.source("t", broken)
    await until(lambda: not kernel.is_well())
    assert "source t/default fails: ConnectionError: pool is wedged" in reasons(kernel)
    facts = kernel.health()["sources"]["t/default"]
    assert facts["failing_ms"] >= 0


@pytest.mark.case("U01", "S14")
async def test_a_run_that_does_not_end_makes_a_kernel_unwell(
    wild: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "GRACE_S", 0.02)
    wild.settings = Settings(run_deadline_ms=30, max_runs=1)

    async def answer(turn: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.1)

    wild.handler = answer
    kernel = await wild.start()
    accepted = await kernel.accept(inbound("1"))
    await accepted.settled(2_000)
    assert kernel.health()["hung_runs"] == 1
    assert "did not end at their deadline" in reasons(kernel)
    await asyncio.sleep(0.15)


@pytest.mark.case("S14", "Q03")
@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [("full", DiskError, "disk full"), ("no access", NoAccessError, "denied")],
)
async def test_a_store_that_refuses_appends_is_not_well(
    lone: Gateway, fault: str, error: type[Exception], says: str
) -> None:
    """Each caller gets its error, but an outcome only waits: nobody would hear of it."""
    faulty: list[FaultyStore] = []
    kernel = await lone.start(
        wrap=lambda store: faulty.append(FaultyStore(store)) or faulty[0]
    )
    faulty[0].fails(fault, fault)
    for _ in range(2):
        with pytest.raises(error):
            await kernel.enqueue(route(), "x")
    facts = kernel.health()
    assert facts["append_refused_ms"] >= 0
    assert says in facts["append_error"]
    assert "the store took no append" in reasons(kernel)
    await kernel.enqueue(route(), "x")
    facts = kernel.health()
    assert (facts["append_refused_ms"], facts["append_error"]) == (None, None)
    assert kernel.is_well()


@pytest.mark.case("S14")
async def test_a_commit_that_was_stored_though_it_failed_leaves_a_well_store(
    lone: Gateway,
) -> None:
    faulty: list[FaultyStore] = []
    kernel = await lone.start(
        wrap=lambda store: faulty.append(FaultyStore(store)) or faulty[0]
    )
    faulty[0].fails("landed")
    await kernel.enqueue(route(), "x")
    facts = kernel.health()
    assert (facts["append_refused_ms"], facts["append_error"]) == (None, None)


@pytest.mark.case("S14", "Q03")
async def test_of_many_refused_appends_one_probe_at_a_time_comes(
    lone: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And one line in the log, however often the store refuses."""
    monkeypatch.setattr(group_commit, "PROBE_S", 0.05)
    faulty: list[FaultyStore] = []
    kernel = await lone.start(
        wrap=lambda store: faulty.append(FaultyStore(store)) or faulty[0]
    )
    faulty[0].fails(*["full"] * 10_000)
    probes: list[float] = []
    probe = group_commit.probed
    monkeypatch.setattr(
        group_commit, "probed", lambda draft: probes.append(draft.now) or probe(draft)
    )
    for _ in range(20):
        with pytest.raises(DiskError):
            await kernel.enqueue(route(), "x")
        await asyncio.sleep(0.002)
    probes.clear()
    await asyncio.sleep(0.3)
    assert 2 <= len(probes) <= 7
    told = [r for r in caplog.records if "takes no append" in r.getMessage()]
    assert len(told) == 1


@pytest.mark.case("S14", "Q03")
async def test_an_idle_kernel_finds_out_that_the_disk_takes_appends_again(
    lone: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No message comes, so no append of one would tell."""
    monkeypatch.setattr(group_commit, "PROBE_S", 0.01)
    faulty: list[FaultyStore] = []
    kernel = await lone.start(
        wrap=lambda store: faulty.append(FaultyStore(store)) or faulty[0]
    )
    faulty[0].fails(*["full"] * 4)
    with pytest.raises(DiskError):
        await kernel.enqueue(route(), "x")
    before = driver_of(kernel).book.position
    assert kernel.health()["append_refused_ms"] is not None
    await until(kernel.is_well)
    assert kernel.health()["append_error"] is None
    assert driver_of(kernel).book.position == before
