"""Closing a kernel closes its channels, and the store whatever they do."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from turnfold._runtime import channel
from turnfold.api.kernel import Kernel
from turnfold.errors import NotOpenError


class Quiet:
    def __init__(self, trouble: BaseException | None = None) -> None:
        self.trouble = trouble
        self.closed = 0

    async def send(self, part: Any, key: str, attempt: Any) -> Any:
        """Never called here."""

    async def aclose(self) -> None:
        self.closed += 1
        if self.trouble is not None:
            raise self.trouble


class Hangs(Quiet):
    async def aclose(self) -> None:
        await super().aclose()
        await asyncio.Event().wait()


class Exits(Quiet):
    def aclose(self) -> None:  # type: ignore[override]  # a plain method will do
        self.closed += 1
        raise SystemExit(3)


async def test_a_channel_under_two_accounts_is_closed_once(tmp_path: Path) -> None:
    kernel, channel = Kernel(tmp_path / "g.db"), Quiet()
    kernel.attach("t", channel, account="one", on_unknown="hold")
    kernel.attach("t", channel, account="two", on_unknown="hold")
    async with kernel:
        assert channel.closed == 0
    assert channel.closed == 1


@pytest.mark.case("L07")
@pytest.mark.parametrize(
    "bad",
    [Quiet(OSError("reset")), Quiet(asyncio.CancelledError()), Hangs(), Exits()],
    ids=["raises", "cancels itself", "hangs", "exits"],
)
async def test_a_channel_that_cannot_be_closed_keeps_neither_others_nor_the_store(
    bad: Quiet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(channel, "_CLOSING_S", 0.02)
    kernel, good = Kernel(tmp_path / "g.db"), Quiet()
    kernel.attach("bad", bad, on_unknown="hold")
    kernel.attach("good", good, on_unknown="hold")
    async with kernel:
        pass
    assert (bad.closed, good.closed) == (1, 1)
    assert "channel bad/default could not be closed" in caplog.text
    with pytest.raises(NotOpenError):
        await kernel.abort("entry:x")
    async with Kernel(tmp_path / "g.db") as again:  # nobody holds the store any more
        assert again.working
