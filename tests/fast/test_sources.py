"""Sources of a kernel: order, cursor, and what happens when one breaks."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from turnfold.api import sources
from turnfold.api.kernel import Kernel
from turnfold.api.sources import UNREAD_MOST, pause_s
from turnfold.inbound import Inbound
from turnfold_model.testing.gateway import Gateway, inbound, peek, until

Pair = tuple[Inbound | None, str]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_PAUSE_S", 0.001)


@pytest.fixture
async def kernel() -> AsyncIterator[Kernel]:
    gateway = Gateway()
    yield await gateway.start()
    await gateway.end()


class Feed:
    """A source that plays one script per start; an exception in it is raised."""

    def __init__(self, *scripts: list[Any]) -> None:
        self.scripts = list(scripts)
        self.cursors: list[str | None] = []
        self.closed = 0

    async def __call__(self, cursor: str | None) -> AsyncIterator[Pair]:
        self.cursors.append(cursor)
        script = self.scripts.pop(0) if self.scripts else []
        try:
            for step in script:
                if isinstance(step, Exception):
                    raise step
                yield step
            if not self.scripts:
                await asyncio.Event().wait()
        finally:
            self.closed += 1


@pytest.mark.case("H05")
async def test_a_source_that_breaks_goes_on_from_its_durable_cursor(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    feed = Feed(
        [(inbound("1"), "c1"), (None, "c2"), OSError("reset")],
        [(inbound("2"), "c3")],
    )
    kernel.source("t", feed)
    await until(lambda: len(feed.cursors) == 2)
    assert feed.cursors == [None, "c2"]
    assert "source t/default broke" in caplog.text


async def test_the_pause_grows_while_a_source_brings_nothing_and_not_after(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []

    def noted(broken: int) -> float:
        asked.append(broken)
        return 0.0

    monkeypatch.setattr(sources, "pause_s", noted)
    lost = OSError("reset")
    feed = Feed([lost], [lost], [lost], [(None, "c1"), lost], [lost], [])
    kernel.source("t", feed)
    await until(lambda: len(feed.cursors) == 6)
    assert asked == [1, 2, 3, 1, 2]


def test_the_pause_doubles_up_to_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_PAUSE_S", 1.0)
    assert [pause_s(n) for n in range(1, 8)] == [1, 2, 4, 8, 16, 32, 60]
    assert pause_s(10**9) == 60


async def test_a_source_is_closed_when_it_breaks_and_when_the_kernel_stops(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    gateway = Gateway()
    kernel = await gateway.start()
    feed = Feed([(None, "c1")], [])
    refused: list[str] = []

    async def advance(cursor: Any) -> None:
        refused.append(cursor.value)
        raise OSError("the store is full")

    kernel.advance = advance  # type: ignore[method-assign]  # a store that cannot write
    kernel.source("t", feed)
    await until(lambda: len(feed.cursors) == 2)
    assert refused == ["c1"]
    assert feed.closed == 1  # at once, not when the collector comes by
    await gateway.end()
    assert feed.closed == 2


async def test_an_iterator_without_aclose_will_do(kernel: Kernel) -> None:
    class Bare:
        def __init__(self) -> None:
            self.steps = [(inbound("1"), "c1")]

        def __aiter__(self) -> "Bare":
            return self

        async def __anext__(self) -> Pair:
            if not self.steps:
                await asyncio.Event().wait()
            return self.steps.pop()

    kernel.source("t", lambda cursor: Bare())
    await until(lambda: peek(kernel).head.position > 2)


def dead(kernel: Kernel) -> int:
    return peek(kernel).names().count("turn.dead")


@pytest.mark.case("T01")
@pytest.mark.parametrize("item", [None, object(), "text"])
async def test_a_source_that_brings_only_what_cannot_be_read_gets_a_pause(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, item: Any
) -> None:
    asked: list[int] = []

    def noted(broken: int) -> float:
        asked.append(broken)
        return 0.0 if broken < 3 else 3_600.0

    async def loop_for_ever(_: str | None) -> AsyncIterator[Any]:
        while True:
            yield item

    monkeypatch.setattr(sources, "pause_s", noted)
    kernel.source("t", loop_for_ever)
    await until(lambda: len(asked) == 3)
    assert (asked, dead(kernel)) == ([1, 2, 3], 1)
    facts = kernel.health()["sources"]["t/default"]
    assert (facts["state"], facts["restarts"]) == ("pausing", 2)
    assert "20 updates in a row cannot be read" in facts["error"]
    assert any("source t/default fails" in r for r in kernel.is_well().reasons)


@pytest.mark.case("T01")
async def test_what_can_be_read_behind_many_unreadable_updates_is_taken(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    count = 2 * UNREAD_MOST + 1
    script = [(object(), f"c{n}") for n in range(count)]
    good = [(inbound("1"), "d1"), (object(), "d2"), (inbound("2"), "d3")]
    feed = Feed([*script, *good], [*script[UNREAD_MOST:], *good], [*script[-1:], *good])
    kernel.source("t", feed)
    await until(lambda: peek(kernel).names().count("turn.accepted") == 2)
    assert feed.cursors == [None, f"c{UNREAD_MOST - 1}", f"c{count - 2}"]
    assert dead(kernel) == count + 1
    facts = kernel.health()["sources"]["t/default"]
    assert (facts["error"], facts["failing_ms"]) == (None, None)
    assert "updates in a row cannot be read" in caplog.text


@pytest.mark.case("T01")
async def test_a_few_unreadable_updates_among_others_give_no_pause(
    kernel: Kernel,
) -> None:
    script: list[Any] = []
    for n in range(4):
        script += [(object(), f"c{n}-{m}") for m in range(UNREAD_MOST - 1)]
        script.append((inbound(str(n)), f"d{n}"))
    feed = Feed(script)
    kernel.source("t", feed)
    await until(lambda: peek(kernel).names().count("turn.accepted") == 4)
    assert len(feed.cursors) == 1


# --- a source that is quiet after it broke ---


class _Time:
    """The loop's time, as sources read it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr(sources, "_now", lambda: self.now)


@pytest.mark.case("T05", "S14")
async def test_a_quiet_source_that_has_run_for_a_minute_is_well_again(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = _Time(monkeypatch)
    feed = Feed([OSError("reset")], [])
    kernel.source("t", feed)
    await until(lambda: len(feed.cursors) == 2)
    time.now += 59
    assert "fails: OSError: reset" in str(kernel.is_well().reasons)
    time.now += 1
    assert kernel.is_well()
    facts = kernel.health()["sources"]["t/default"]
    assert (facts["error"], facts["failing_ms"], facts["restarts"]) == (None, None, 1)


async def test_a_look_at_a_source_changes_nothing(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = _Time(monkeypatch)
    feed = Feed([OSError("reset")], [])
    kernel.source("t", feed)
    await until(lambda: len(feed.cursors) == 2)
    (pull,) = kernel._sources._sources.values()
    time.now += 3_600
    before = dict(vars(pull))
    assert (pull.facts().error, pull.facts().failing_ms) == (None, None)
    assert vars(pull) == before
    time.now -= 3_600
    assert pull.facts().error == "OSError: reset"


async def test_a_source_that_breaks_by_a_timeout_is_not_well_in_between(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = _Time(monkeypatch)
    cuts = [asyncio.Event() for _ in range(3)]
    starts = []

    async def slow(cursor: str | None) -> AsyncIterator[Pair]:
        starts.append(cursor)
        await cuts[len(starts) - 1].wait()
        raise OSError("timed out")
        yield

    kernel.source("t", slow)
    await until(lambda: len(starts) == 1)
    for n in (1, 2):
        time.now += 90
        cuts[n - 1].set()
        await until(lambda n=n: len(starts) == n + 1)  # type: ignore[misc]
    time.now += 179
    assert not kernel.is_well()
    time.now += 1
    assert kernel.is_well()


async def test_the_pause_is_short_after_a_long_time_without_a_break(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def noted(broken: int) -> float:
        asked.append(broken)
        return 0.0

    monkeypatch.setattr(sources, "pause_s", noted)
    time, cut = _Time(monkeypatch), asyncio.Event()
    starts = []

    async def breaks(cursor: str | None) -> AsyncIterator[Pair]:
        starts.append(cursor)
        if len(starts) == 3:
            await cut.wait()
        if len(starts) > 3:
            await asyncio.Event().wait()
        raise OSError("reset")
        yield

    kernel.source("t", breaks)
    await until(lambda: len(starts) == 3)
    time.now += 3_600
    cut.set()
    await until(lambda: len(starts) == 4)
    assert asked == [1, 2, 1]
