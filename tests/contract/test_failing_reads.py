"""A store that cannot be read for a while, and one with flipped bits."""

import asyncio
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from turnfold import File, TurnfoldError
from turnfold._runtime import stored_bodies
from turnfold.enums import TurnOutcome
from turnfold.errors import DiskError
from turnfold_adapters.stores.sqlite.files import BodyFolder
from turnfold_model.testing.gateway import Gateway, in_file, inbound, route, story
from turnfold_model.testing.platform import Platform


@pytest.mark.case("W10")
async def test_a_disk_that_fails_for_seconds_releases_a_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No run is counted, and the reader hears nothing of it."""
    gateway = Gateway(store=in_file(tmp_path / "g.db"))

    async def answer(turn: Any) -> None:
        await turn.reply(f"{len(turn.inbound.text)} characters")

    gateway.handler = answer
    read, fails = BodyFolder.read, [True] * 5

    def failing(folder: BodyFolder, place: int) -> bytes | None:
        if fails and fails.pop():
            raise DiskError(path="/x", problem="EIO")
        return read(folder, place)

    monkeypatch.setattr(BodyFolder, "read", failing)
    monkeypatch.setattr(stored_bodies, "_ROOM", 0)  # nothing stays in memory
    kernel = await gateway.start()
    accepted = await kernel.accept(inbound("1", text="x" * 100_000))
    await _until_sent(gateway, 1)
    assert await accepted.settled(5_000) is TurnOutcome.REPLIED
    assert gateway.platform.contents == ["100000 characters"]
    told = story(kernel, accepted.turn_id)
    assert (told.count("released"), told.count("run_failed")) == (5, 0)
    await gateway.end()


async def _until_sent(gateway: Gateway, count: int) -> None:
    """A file is read in a thread, so real time has to pass, too; 2 s at most."""
    for _ in range(200):
        await gateway.advance(1_000)
        if len(gateway.platform.contents) >= count:
            return
        await asyncio.sleep(0.01)


async def _filled(path: Path) -> None:
    gateway = Gateway(store=in_file(path))
    kernel = await gateway.start()
    for number in range(10):
        sent = await kernel.enqueue(route(f"d{number % 3}"), f"done {number}")
        await kernel.settled(sent.entry_id, 5_000)
    await kernel.disconnected("t")
    for number in range(10):
        file = [File(data=b"f" * 70_000, name="f")] if number == 5 else []
        await kernel.enqueue(route(f"q{number % 3}"), f"queued {number}", *file)
        await kernel.accept(inbound(str(number), conversation=f"t{number}"))
    await gateway.end()


async def _worked(path: Path, platform: Platform) -> bool:
    """Open, send what is open, query and close. False if it was refused at open."""
    gateway = Gateway(store=in_file(path), platform=platform)
    try:
        kernel = await gateway.start()
    except TurnfoldError:
        return False
    try:
        await kernel.connected("t")
        await _until_sent(gateway, 11)
        await kernel.inspect.list()
        async for _ in kernel.inspect.events():
            pass
    except TurnfoldError:
        pass  # typed: the damage lies where the question looked
    await gateway.end()
    return True


_TRIALS = 15


@pytest.mark.case("W05", "X20")
async def test_flipped_bits_give_no_untyped_error_and_no_wrong_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is sent, is what was queued, once; what is missing is told."""
    base, copy, dice = tmp_path / "base.db", tmp_path / "copy", random.Random(7)
    await _filled(base)
    wanted = {"[f]", *(f"queued {number}" for number in range(10))}
    for trial in range(_TRIALS):
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        _copied(base, copy)
        _flip(copy / "base.db", dice, 1 + trial % 5)
        caplog.clear()
        platform = Platform()
        worked = await _worked(copy / "base.db", platform)
        sent = [c for c in platform.contents if isinstance(c, str)]
        assert len(sent) == len(set(sent))
        assert set(sent) <= wanted
        told = [m for m in caplog.messages if "no handler is" not in m]
        assert not worked or wanted <= set(sent) or told, f"trial {trial}"


def _copied(base: Path, folder: Path) -> None:
    for file in base.parent.glob("base.db*"):
        copy = shutil.copytree if file.is_dir() else shutil.copy
        copy(file, folder / file.name)


def _flip(file: Path, dice: random.Random, bits: int) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(bits):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    file.write_bytes(data)
