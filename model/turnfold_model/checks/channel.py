"""Public checks of a channel, for any adapter.

    @asynccontextmanager
    async def on_my_platform():
        async with MyStandIn() as platform:
            yield MyHarness(platform)

    for result in check_channel(on_my_platform):
        print(result)

The harness (`channel_kit.Harness`) makes channels, reports the accepted messages of the
platform, and makes faults on request. A check is left out if the harness cannot make
its fault, or if the channel does not claim its class; the results say so. No test
library is needed. To have one test per check, loop over `CHECKS` and await `run_check`.

They check the adapter contract (turnfold.ports.channel): plan, receipts, honest
outcomes, one visible call per send, keys and look-ups as claimed, and then the real
kernel with the channel, killed around every effect and cut off at every call.
"""

import asyncio
from collections.abc import Awaitable, Callable

from attrs import frozen

from turnfold_model.checks import channel_crash, channel_plan, channel_wire
from turnfold_model.checks.channel_kit import (
    Bench,
    CheckFailedError,
    Factory,
    Fault,
    Harness,
    NotApplicableError,
    Seen,
)

Check = Callable[[Bench], Awaitable[None]]

CHECKS: tuple[Check, ...] = (
    *channel_plan.CHECKS,
    *channel_wire.CHECKS,
    *channel_crash.CHECKS,
)

__all__ = [
    "CHECKS",
    "Check",
    "CheckFailedError",
    "Fault",
    "Harness",
    "Result",
    "Seen",
    "check_channel",
    "run_check",
]


@frozen
class Result:
    """A check that passed, or was left out, with the reason."""

    check: str
    left_out: str = ""

    def __str__(self) -> str:
        return f"{self.check}: {self.left_out or 'holds'}"


def check_channel(factory: Factory) -> list[Result]:
    """Every check, each on a new harness. Raises at the first failed check, and names
    it. Runs an event loop of its own; inside one, await `run_check` for each check."""
    return [asyncio.run(run_check(check, factory)) for check in CHECKS]


async def run_check(check: Check, factory: Factory) -> Result:
    """One check. Raises CheckFailedError if the channel does not keep the contract; any
    other error is the channel's or the harness's own."""
    name = check.__name__.replace("_", " ")
    async with factory() as harness:
        bench = Bench(harness)
        try:
            await check(bench)
        except NotApplicableError as exc:
            return Result(name, f"left out, {exc}")
        except Exception as exc:
            exc.add_note(f"check of the channel: {name}")
            raise
        finally:
            await bench.end()
    return Result(name)
