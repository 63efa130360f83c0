"""Acts on what a person saw, on many at once, and gates that a person closes."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from attrs import evolve

from turnfold import FailureClass, Kernel
from turnfold.api.acts import Act, Acted
from turnfold.audit import audit_store
from turnfold.enums import GateScope, Phase
from turnfold.errors import InvalidInputError, RuleBrokenError
from turnfold.inspect import Filter, Row
from turnfold_model.testing.gateway import (
    Gateway,
    entry,
    events,
    in_file,
    route,
    spin,
    story,
    until,
)
from turnfold_model.testing.platform import PlatformChannel, reject, unknown

GATE = "gate:t/default"


async def dead(gateway: Gateway, kernel: Kernel, count: int = 1) -> list[str]:
    gateway.platform.plays(*[reject(FailureClass.TARGET_GONE)] * count)
    names = [(await kernel.enqueue(route(str(n)), "x")).entry_id for n in range(count)]
    await until(lambda: all(entry(kernel, n).phase is Phase.FAILED for n in names))
    return names


async def parked(gateway: Gateway, kernel: Kernel, count: int) -> list[str]:
    gateway.platform.plays(*[unknown()] * count)
    names = [(await kernel.enqueue(route(str(n)), "x")).entry_id for n in range(count)]
    await until(lambda: all(entry(kernel, n).phase is Phase.PARKED for n in names))
    return names


async def rows(kernel: Kernel, **want: object) -> Sequence[Row]:
    return await kernel.inspect.list(Filter(what="entry", limit=10_000, **want))


async def acted(kernel: Kernel, act: str, targets: Sequence[Row], **how) -> list[Acted]:
    return [one async for one in kernel.act_on(act, targets, by="ops", **how)]


# --- what was seen ---


@pytest.mark.case("N06")
async def test_an_act_on_what_has_changed_is_refused_and_changes_nothing(
    gateway: Gateway,
) -> None:
    kernel = await gateway.start()
    (name,) = await dead(gateway, kernel)
    (row,) = await rows(kernel, status=("failed_terminal",))
    await kernel.retry(name, by="ann", seen=row.version)
    await kernel.settled(name, 1000)
    before = story(kernel, name)
    for act in (kernel.discard, kernel.retry, kernel.acknowledge, kernel.redact):
        with pytest.raises(RuleBrokenError, match="it is delivered now") as refused:
            await act(name, by="bob", seen=row.version)
        assert refused.value.rule == "as_seen"
    assert story(kernel, name) == before


@pytest.mark.case("N06")
@pytest.mark.parametrize("alive", [True, False])
async def test_an_act_of_another_process_carries_what_was_seen(
    tmp_path: Path, alive: bool
) -> None:
    gateway = Gateway(store=in_file(tmp_path / "g.db"))
    kernel = await gateway.start()
    (name,) = await dead(gateway, kernel)
    (row,) = await rows(kernel)
    await kernel.acknowledge(name, by="ann")
    if not alive:
        await gateway.end()
    async with Kernel(tmp_path / "g.db", work=False) as client:
        with pytest.raises(RuleBrokenError, match="has changed"):
            await client.retry(name, by="bob", seen=row.version)
        with pytest.raises(RuleBrokenError, match="has changed"):
            await client.abort(name, by="bob", seen=row.version)
        await client.retry(name, by="bob", seen=row.version + 1)
    if alive:
        await gateway.end()


# --- many ---


@pytest.mark.case("X01")
@pytest.mark.parametrize("alive", [True, False])
async def test_one_call_ends_what_an_incident_has_parked(
    tmp_path: Path, alive: bool
) -> None:
    gateway = Gateway(store=in_file(tmp_path / "g.db"))
    kernel = await gateway.start()
    names = await parked(gateway, kernel, 450)
    if not alive:
        await gateway.end()
    async with Kernel(tmp_path / "g.db", work=False) as client:
        targets = await rows(client, status=("parked",))
        assert len(targets) == len(names)
        done = await acted(client, "resolve", targets, verdict="delivered", why="seen")
        assert [one.id for one in done] == [row.id for row in targets]
        assert {one.done for one in done} == {"done"}
        assert await rows(client, status=("parked",)) == ()
        again = await acted(client, "resolve", targets, verdict="delivered")
        assert {one.error.rule for one in again if one.error} == {"as_seen"}
        report = await audit_store(client.store)
        assert report.passed, report.findings[:5]
    if alive:
        await gateway.end()


async def test_a_worker_acts_on_many_itself_and_tells_what_was_refused(
    gateway: Gateway,
) -> None:
    kernel = await gateway.start()
    first, second = await dead(gateway, kernel, 2)
    targets = await rows(kernel)
    await kernel.acknowledge(first, by="ann")
    done = {one.id: one for one in await acted(kernel, Act.RETRY, targets)}
    assert done[second].done == "redriven"
    assert "has changed" in str(done[first].error)
    await spin()
    assert entry(kernel, second).phase is Phase.DELIVERED
    assert entry(kernel, first).phase is Phase.FAILED


@pytest.mark.parametrize(
    ("act", "end"),
    [("abort", "aborted"), ("discard", "aborted"), ("retry", "rescheduled")],
)
async def test_what_waits_is_acted_on_in_one_call(
    gateway: Gateway, act: str, end: str
) -> None:
    kernel = await gateway.start()
    await kernel.disconnected("t")
    for n in range(5):
        await kernel.enqueue(route(str(n)), "x")
    done = await acted(kernel, act, await rows(kernel))
    assert [one.done for one in done] == [end] * 5


@pytest.mark.parametrize(
    "how",
    [
        {"act": "nonsense", "targets": []},
        {"act": "resolve", "targets": [], "verdict": "resned"},
        {"act": "retry", "targets": ["entry:x"]},
        {"act": "retry", "targets": "entry:x"},
    ],
)
async def test_a_wrong_argument_of_an_act_on_many_is_one_typed_error(
    gateway: Gateway, how
) -> None:
    kernel = await gateway.start()
    with pytest.raises(InvalidInputError):
        await anext(kernel.act_on(by="ops", **how))


# --- a gate that a person closes ---


async def held(gateway: Gateway) -> tuple[Kernel, str]:
    kernel = await gateway.start()
    assert await kernel.hold_back("t/default", by="ops", why="new texts") == GATE
    done = await kernel.enqueue(route(), "x")
    await spin()
    return kernel, done.entry_id


@pytest.mark.case("X01")
async def test_what_a_person_holds_back_goes_when_a_person_lets_it_go(
    gateway: Gateway,
) -> None:
    kernel, name = await held(gateway)
    closing = events(kernel, GATE)[-1]
    assert (closing.reason, closing.by, closing.note) == (
        "operator",
        "ops",
        "new texts",
    )
    assert entry(kernel, name).phase is Phase.QUEUED
    assert await kernel.let_go("t/default", by="ann") == [GATE]
    await kernel.settled(name, 1000)


async def test_no_reconnection_opens_what_a_person_holds_back(gateway: Gateway) -> None:
    kernel, name = await held(gateway)
    await kernel.connected("t")
    await kernel.disconnected("t")
    await kernel.connected("t")
    await spin()
    assert entry(kernel, name).phase is Phase.QUEUED
    await kernel.connected("t", by="ann")
    await kernel.settled(name, 1000)


async def test_no_new_worker_and_no_attach_tries_what_a_person_holds_back(
    lone: Gateway,
) -> None:
    kernel, name = await held(lone)
    kernel = await lone.restart(kernel)
    kernel.attach("t", PlatformChannel(lone.platform), account="b", on_unknown="hold")
    await lone.advance(60_000)
    assert entry(kernel, name).phase is Phase.QUEUED
    assert lone.platform.calls == []
    assert (await audit_store(kernel.store)).passed


async def test_a_failure_does_not_move_what_a_person_holds_back(lone: Gateway) -> None:
    kernel = await lone.start()
    limit = reject(
        FailureClass.RATE_LIMITED, retry_after_ms=60_000, scope=GateScope.ACCOUNT
    )
    answer = asyncio.Event()
    lone.platform.plays(evolve(limit, hold=answer))
    done = await kernel.enqueue(route(), "x")
    await until(lambda: lone.platform.calls)
    await kernel.hold_back("t/default", by="ops", for_ms=30_000)
    answer.set()
    await spin()
    await lone.advance(29_000)
    assert entry(kernel, done.entry_id).phase is not Phase.DELIVERED
    assert [event.reason for event in events(kernel, GATE)] == ["operator"]
    await lone.advance(2_000)
    await kernel.settled(done.entry_id, 1000)


async def test_a_disconnection_does_not_move_what_a_person_holds_back(
    lone: Gateway,
) -> None:
    kernel = await lone.start()
    await kernel.hold_back("t/default", by="ops", for_ms=30_000)
    await kernel.disconnected("t")
    await kernel.connected("t")
    assert [event.reason for event in events(kernel, GATE)] == ["operator"]


async def test_a_person_holds_one_conversation_back_for_a_while(lone: Gateway) -> None:
    kernel = await lone.start()
    await kernel.hold_back("t/default/1", by="ops", for_ms=30_000)
    one = (await kernel.enqueue(route("1"), "x")).entry_id
    two = (await kernel.enqueue(route("2"), "x")).entry_id
    await kernel.settled(two, 1000)
    await lone.advance(29_000)
    assert entry(kernel, one).phase is Phase.QUEUED
    await lone.advance(2_000)
    await kernel.settled(one, 1000)


@pytest.mark.parametrize("place", ["t", "", "entry:x", "t/", "gate:t"])
async def test_only_a_place_can_be_held_back(gateway: Gateway, place: str) -> None:
    kernel = await gateway.start()
    with pytest.raises(InvalidInputError):
        await kernel.hold_back(place, by="ops")
    assert "gate:" not in str(await kernel.inspect.gates())


async def test_a_redaction_says_why(gateway: Gateway) -> None:
    kernel = await gateway.start()
    (name,) = await dead(gateway, kernel)
    await kernel.redact(name, by="ops", why="asked for")
    assert events(kernel, name)[-1].note == "asked for"
    await asyncio.sleep(0)
