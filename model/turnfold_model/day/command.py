"""`day`: a day of a gateway in fast motion, on the real kernel and a real file.

Time is virtual: it passes only while nothing can run. Everything else is real.
"""

import argparse
import asyncio
import contextlib
import logging
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from turnfold._runtime import worker
from turnfold_model.command_kit import ROOM
from turnfold_model.day.clocks import scenes, wrong_in
from turnfold_model.day.life import Inboxes
from turnfold_model.day.plan import HOUR, draw
from turnfold_model.day.platform import Platform
from turnfold_model.day.play import Day
from turnfold_model.day.verdict import figures, judged
from turnfold_model.testing.virtual_time import Machine, VirtualLoop

HELP: Final = "a day in fast motion: outages, clocks, bugs, deaths, a restored copy"

_POLL_S: Final = 5.0


def configure(parser: argparse.ArgumentParser) -> None:
    """The options beside `--json` and `--seconds`."""
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--turns", type=int, default=5_000, help="default: 5000")
    parser.add_argument(
        "--conversations", type=int, default=50, help="at least 8; default: 50"
    )
    parser.add_argument("--hours", type=float, default=24, help="default: 24")
    parser.add_argument("--log", action="store_true", help="show the kernel's own log")
    parser.add_argument("--keep", type=Path, help="an empty folder for the store")


def run(
    options: argparse.Namespace, say: Callable[[str], None]
) -> tuple[dict[str, Any], bool]:
    """`--seconds` has no meaning here: a day is played to its end."""
    logger = logging.getLogger("turnfold")
    disabled, logger.disabled = logger.disabled, not options.log
    try:
        with (
            _seldom(),
            tempfile.TemporaryDirectory(dir=ROOM) as folder,
            asyncio.Runner(loop_factory=VirtualLoop) as runner,
        ):
            result = runner.run(_played(options, options.keep or Path(folder)))
    finally:
        logger.disabled = disabled
    for breach in result["breaches"]:
        say(f"  {breach}")
    return result, not result["breaches"]


@contextlib.contextmanager
def _seldom() -> Iterator[None]:
    """A worker checks its lock and its inbox four times a second. On a simulated day
    without another process, that would be most of the work."""
    before, worker.POLL_S = worker.POLL_S, _POLL_S
    try:
        yield
    finally:
        worker.POLL_S = before


async def _played(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    length_ms = int(options.hours * HOUR)
    plan = draw(options.seed, options.turns, options.conversations, length_ms)
    rng = random.Random(options.seed)  # noqa: S311  repeatable on purpose
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)  # noqa: S101  `run` made it
    machine = Machine(loop, plan.start_ms, tells=plan.tells)
    day = Day(
        plan=plan,
        folder=folder,
        machine=machine,
        platform=Platform(machine, rng, plan.skew_ms),
        inboxes=Inboxes(plan, machine),
        rng=rng,
    )
    await day.play()
    told = figures(day, await judged(day))
    told["clocks"] = await scenes(Machine(loop, plan.start_ms), folder)
    told["breaches"] += wrong_in(told["clocks"])
    return told
