"""Sources of a kernel: order, cursor, and what happens when one breaks."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from turnfold.api import sources
from turnfold.api.kernel import Kernel
from turnfold.api.sources import pause_s
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
