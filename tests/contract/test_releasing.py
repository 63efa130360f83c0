"""A kernel that is closed keeps its store while a call of a channel hangs."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from turnfold import Kernel, Settings
from turnfold.api import releasing
from turnfold.enums import DeliveryClass, Status
from turnfold.errors import OwnedError
from turnfold.ports.channel import Accepted
from turnfold_model.testing.gateway import route, until
from turnfold_model.testing.platform import Platform, PlatformChannel


class Deaf(PlatformChannel):
    """Its first call ends when it may, and not when it is cancelled."""

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform, DeliveryClass.LOOKUP, settle_ms=0)
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()

    async def send(self, *how: Any) -> Accepted:
        first = not self.begun.is_set()
        self.begun.set()
        while first and not self.may_end.is_set():
            with suppress(asyncio.CancelledError):
                await self.may_end.wait()
        return await super().send(*how)


def made(path: Path, channel: Deaf) -> Kernel:
    kernel = Kernel(path, settings=Settings(drain_ms=50))
    kernel.attach("t", channel)
    return kernel


async def closed_in_a_send(path: Path, channel: Deaf) -> Kernel:
    async with made(path, channel) as kernel:
        await kernel.enqueue(route(), "x", key="x")
        await channel.begun.wait()
    return kernel


@pytest.mark.case("U06")
async def test_the_next_worker_waits_for_a_call_that_hangs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It would look, find nothing and send again, and then the call lands."""
    channel = Deaf(Platform())
    await closed_in_a_send(tmp_path / "k.db", channel)
    assert "is kept until 1 call(s) of channels have ended" in caplog.text
    async with made(tmp_path / "k.db", channel) as second:
        again = await second.enqueue(route(), "x", key="x")
        await asyncio.sleep(0.5)
        assert not second.working
        channel.may_end.set()
        await until(lambda: second.working)
        assert await again.settled(5_000) is Status.DELIVERED
    assert [message.content for message in channel.platform.messages] == ["x"]


async def test_a_closed_kernel_opens_again_when_its_calls_have_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    channel = Deaf(Platform())
    kernel = await closed_in_a_send(tmp_path / "k.db", channel)
    assert kernel.keeps_store
    with pytest.raises(OwnedError, match=r"1 call\(s\) of channels have not ended"):
        await kernel.open()
    channel.may_end.set()
    await until(lambda: not kernel.keeps_store)
    async with kernel:
        assert kernel.working
    assert not kernel.keeps_store
    assert "is released: the calls of channels have ended" in caplog.text


def test_a_loop_that_ends_releases_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The task that would release the store is cancelled with the loop. The call may
    still land: another thread may have it."""
    channel = Deaf(Platform())
    loop = asyncio.new_event_loop()
    try:
        kernel = loop.run_until_complete(closed_in_a_send(tmp_path / "k.db", channel))
        channel.may_end.set()
        rest = kernel._rest
        assert rest is not None
        rest.cancel()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.05))
        assert kernel.keeps_store
        assert "is kept until this process ends" in caplog.text
        assert not loop.run_until_complete(_is_free(tmp_path / "k.db"))
        releasing._KEPT.remove(kernel)  # this process goes on with other tests
        assert kernel._worker is not None
        loop.run_until_complete(kernel._release_later(kernel._worker))
        assert loop.run_until_complete(_is_free(tmp_path / "k.db"))
    finally:
        loop.close()


async def _is_free(path: Path) -> bool:
    async with Kernel(path) as kernel:
        await asyncio.sleep(0.3)
        return kernel.working
