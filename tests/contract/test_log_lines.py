"""A life leaves lines in the log of Python: each step once, each missing thing once."""

import logging
from pathlib import Path
from typing import Any

import pytest

from turnfold import Kernel
from turnfold.enums import FailureClass
from turnfold_model.testing.gateway import Gateway, inbound, route, spin
from turnfold_model.testing.platform import PlatformChannel, reject, unknown


def _lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    ours = [r for r in caplog.records if r.name == "turnfold"]
    return [r.getMessage() for r in ours if r.levelno == level]


@pytest.mark.case("Z05")
async def test_a_life_has_a_line_for_each_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "turnfold")
    db = tmp_path / "g.db"
    async with Kernel(db) as kernel:
        async with Kernel(db):
            pass
        async with Kernel(db, work=False):
            pass
        await kernel.connected("t")
    said = "\n".join(_lines(caplog, logging.INFO)).replace(str(db), "DB")
    for line in (
        "the worker of DB: epoch 1, position 1, 0 open entries",
        "DB is open as worker",
        "DB has a worker: pid ",
        "DB is open as standby",
        "DB is open as client",
        "closing DB, 0 under way",
        "DB is closed",
    ):
        assert line in said
    ours = (r for r in caplog.records if r.name == "turnfold")
    assert next(ours).__dict__["epoch"] == 1


@pytest.mark.case("Z05")
async def test_each_retry_has_a_line(
    lone: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "turnfold")
    lone.channels = {("t", "default"): PlatformChannel(lone.platform)}
    lone.platform.plays(reject(FailureClass.INVALID_PAYLOAD), unknown())
    kernel = await lone.start()
    await kernel.enqueue(route("43"), "in doubt")
    await spin()
    await kernel.enqueue(route(), "in doubt")
    await lone.advance(1_000)
    assert any(
        "OutcomeUnknown part 0 attempt 1, again at" in m for m in caplog.messages
    )


async def test_an_end_is_told_with_the_class_of_its_refusal(
    lone: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    lone.platform.plays(reject(FailureClass.PERMISSION))
    kernel = await lone.start()
    await (await kernel.enqueue(route(), "x")).settled(5_000)
    await spin()
    ends = [m for m in caplog.messages if "ended undelivered" in m]
    assert [m.partition(": ")[2] for m in ends] == ["permanent (permission)"]


@pytest.mark.case("Z04")
async def test_a_missing_channel_is_told_once_and_again_when_a_store_is_opened(
    lone: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "turnfold")
    kernel = await lone.start()
    for number in range(3):
        await kernel.enqueue(route("42", "telegarm"), f"{number}")
    line = "no channel is attached as telegarm with account default: an entry waits"
    assert [m for m in caplog.messages if "telegarm" in m] == [f"{line} for it"]
    named = "channel telegarm with account default"
    assert kernel.health()["missing"] == [named]
    assert named in "; ".join(kernel.is_well().reasons)
    await lone.end()
    caplog.clear()
    kernel = await lone.start()
    assert [m for m in caplog.messages if "telegarm" in m] == [
        line.replace("an entry waits", "entries wait") + " for it"
    ]
    kernel.attach("telegarm", PlatformChannel(lone.platform), on_unknown="hold")
    assert kernel.health()["missing"] == []


@pytest.mark.case("Z04")
async def test_a_missing_handler_is_told_once_and_again_when_a_store_is_opened(
    lone: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "turnfold")
    kernel = await lone.start()
    await kernel.accept(inbound("1"))
    await kernel.accept(inbound("2"))
    assert len([m for m in caplog.messages if "no handler is registered" in m]) == 1
    assert kernel.health()["missing"] == ["handler"]
    await lone.end()
    caplog.clear()
    kernel = await lone.start()
    assert [m for m in caplog.messages if "no handler is registered" in m] == [
        "no handler is registered (kernel.on_turn): turns of 1 conversations wait for it"
    ]

    @kernel.on_turn
    async def answer(turn: Any) -> None:
        await turn.reply("hi")

    assert kernel.health()["missing"] == []


@pytest.mark.case("Z04", "U05")
async def test_silence_that_nobody_stated_is_told(
    lone: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    async def silent(turn: Any) -> None:
        del turn

    lone.handler = silent
    kernel = await lone.start()
    await (await kernel.accept(inbound("1"))).settled(2_000)
    assert "the handler returned and said nothing" in caplog.text
