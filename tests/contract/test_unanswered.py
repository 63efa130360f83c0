"""A command that no worker answers: durable, in sight, and never called unstored.

A client posts it, tries to do it alone where no worker lives, and waits. Whatever the
store says meanwhile is a reason to wait, for the caller, the log and `health`.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from turnfold import Kernel
from turnfold.errors import (
    BusyError,
    DamagedError,
    DiskError,
    FateUnknownError,
    LostStoreError,
    NoAccessError,
    ReadOnlyError,
    RequestedError,
    StoreError,
    UnsafeStoreError,
)
from turnfold.ports.store import Store
from turnfold_model.testing.faulty_store import FaultyStore
from turnfold_model.testing.gateway import Gateway, in_file, peek, route, until

HERE = "g.db"
ERRORS: dict[str, Callable[[], StoreError]] = {
    "busy": lambda: BusyError(path=HERE, waited_ms=5),
    "disk": lambda: DiskError(path=HERE, problem="no room"),
    "fate": lambda: FateUnknownError(path=HERE, problem="I/O error"),
    "access": lambda: NoAccessError(path=HERE, problem="denied", advice="ask"),
    "read only": lambda: ReadOnlyError(path=HERE),
    "unsafe": lambda: UnsafeStoreError(path=HERE, problem="on a network disk"),
    "damaged": lambda: DamagedError(path=HERE, problem="a page differs"),
}


class _Ownership:
    """Of a store that this process cannot take: `error` is raised."""

    def __init__(self, inner: Any, now: list[StoreError]) -> None:
        self._inner, self._now = inner, now

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def take(self) -> Any:
        if self._now:
            raise self._now[0]
        return await self._inner.take()


class _Odd(FaultyStore):
    """`taking`, `reading`: the errors of taking the store and of its answers."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.taking: list[StoreError] = []
        self.reading: list[StoreError] = []

    def ownership(self) -> Any:
        return _Ownership(self.inner.ownership(), self.taking)

    async def fetch(self, wanted: Any) -> Any:
        if self.reading and wanted.answers:
            raise self.reading[0]
        return await self.inner.fetch(wanted)


@pytest.fixture
async def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A gateway without a worker, and how to open a client whose store fails."""
    monkeypatch.setattr("turnfold.api.client.PATIENCE_S", 0.1)
    monkeypatch.setattr("turnfold.api.unanswered._FOLLOW_S", 0.02)
    gateway = Gateway(store=in_file(tmp_path / "gateway.db"))
    kernel = await gateway.start()
    await kernel.disconnected("t")
    await gateway.end()
    yield gateway
    await gateway.end()


async def _client(gateway: Gateway) -> tuple[Kernel, _Odd]:
    made: list[_Odd] = []

    def faulty(store: Store) -> _Odd:
        made.append(_Odd(store))
        return made[0]

    return await gateway.start(work=False, wrap=faulty), made[0]


@pytest.mark.case("X20")
@pytest.mark.parametrize("where", ["taking", "reading"])
@pytest.mark.parametrize("kind", ERRORS)
async def test_no_error_after_the_post_says_that_nothing_was_stored(
    odd: Gateway, kind: str, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    client, store = await _client(odd)
    error = ERRORS[kind]()
    getattr(store, where).append(error)
    with pytest.raises(RequestedError) as caught:
        await client.connected("t")
    assert "lies in the inbox" in str(caught.value)
    assert "will do it" in str(caught.value)
    assert "nothing of this call" not in str(caught.value)
    assert "try again" not in str(caught.value)
    if where == "taking":
        assert [c.kind for c in peek(client).inbox()] == ["gate"]
    told = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len([r for r in told if "waits for a worker" in r.message]) == 1
    assert len(told) <= 2, [r.message for r in told]
    getattr(store, where).clear()
    kernel = await odd.start()
    await until(lambda: not peek(kernel).inbox())
    assert not peek(kernel).state("gate:t/default").closed  # type: ignore[union-attr]


@pytest.mark.case("X20", "Z05")
@pytest.mark.parametrize("fault", ["full", "busy", "no access"])
async def test_a_store_that_takes_nothing_is_one_line_and_not_one_a_look(
    odd: Gateway, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The client has the ownership, and its commit fails."""
    client, store = await _client(odd)
    store.fails(*[fault] * 1_000)
    with pytest.raises(RequestedError) as caught:
        await client.connected("t")
    assert "it does not own the store" not in str(caught.value)
    warned = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warned) <= 2, [r.getMessage() for r in warned]
    store.faults.clear()
    await client.connected("t")
    assert not peek(client).inbox()


@pytest.mark.case("S14", "Z04")
async def test_health_names_what_no_worker_has_answered_until_it_is_done(
    odd: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "turnfold")
    client, store = await _client(odd)
    none = {"count": 0, "oldest_ms": None, "problem": None}
    assert client.health()["unanswered"] == none
    store.taking.append(ERRORS["access"]())
    asked = asyncio.ensure_future(client.connected("t"))
    await until(lambda: client.health()["unanswered"]["problem"])
    assert client.health()["unanswered"]["count"] == 1
    with pytest.raises(RequestedError):
        await asked
    facts = client.health()["unanswered"]
    assert facts["count"] == 1
    assert facts["oldest_ms"] >= 100
    assert "denied" in facts["problem"]
    store.taking.clear()
    await odd.start()  # a worker: it does what was asked for
    await until(lambda: client.health()["unanswered"] == none)
    assert "gate was done after" in caplog.text


@pytest.mark.case("S14", "Z04")
async def test_a_command_that_waits_long_is_no_good_health(
    odd: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnfold.api.health.COMMAND_MS", 1)
    client, store = await _client(odd)
    assert client.is_well()
    store.taking.append(ERRORS["busy"]())
    with pytest.raises(RequestedError):
        await client.connected("t")
    (reason,) = client.is_well().reasons
    assert "1 command(s) have waited for a worker" in reason
    assert "turnfold inbox" in reason
    assert "locked" in reason


@pytest.mark.case("U17")
async def test_a_caller_that_gives_up_leaves_its_command_in_sight(odd: Gateway) -> None:
    client, store = await _client(odd)
    store.taking.append(ERRORS["busy"]())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.03):
            await client.connected("t")
    assert client.health()["unanswered"]["count"] == 1
    await odd.start()
    await until(lambda: client.health()["unanswered"]["count"] == 0)


@pytest.mark.case("U13", "X20")
async def test_closing_tells_a_caller_that_its_command_is_in_the_inbox(
    odd: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnfold.api.client.PATIENCE_S", 5)
    client, store = await _client(odd)
    store.taking.append(ERRORS["busy"]())
    asked = asyncio.ensure_future(client.connected("t"))
    await until(lambda: client.health()["unanswered"]["count"])
    await client.close()
    odd.alive.remove(client)
    with pytest.raises(RequestedError, match="closed") as caught:
        await asked
    assert caught.value.command == "gate"


async def test_a_store_that_is_lost_does_not_hold_the_command(odd: Gateway) -> None:
    """Its files were replaced: the inbox that it was posted to is gone, too."""
    client, store = await _client(odd)
    store.taking.append(LostStoreError(path=HERE, problem="the file was replaced"))
    with pytest.raises(LostStoreError):
        await client.connected("t")
    assert client.health()["unanswered"]["count"] == 0


@pytest.mark.case("Y14")
async def test_many_acts_are_counted_one_by_one(odd: Gateway) -> None:
    client, store = await _client(odd)
    entries = [(await client.enqueue(route(str(n)), "x")).entry_id for n in range(3)]
    store.taking.append(ERRORS["busy"]())
    asked = [client.discard(entry, by="ann") for entry in entries]
    ends = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(end) for end in ends] == [RequestedError] * 3
    assert client.health()["unanswered"]["count"] == 3
