"""`flow`: many lanes against a platform that limits its rate, is offline, or is down.

The bucket is played in real time: it takes a few messages at once and then so many a
second, and says in Retry-After when it has room again. The other two platforms are
played in virtual time (see `outages`). The kernel counts nothing: each platform counts
what it took and what it refused.
"""

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from attrs import define

from turnfold import (
    Accepted,
    FailureClass,
    GateScope,
    Kernel,
    Rate,
    Receipt,
    Rejected,
    Route,
)
from turnfold_model.flow import outages
from turnfold_model.testing.peek import Peek

_USED: Final = 0.8  # of what the bucket lets through, at least
HELP: Final = "many lanes against a rate limit: what is used, what is refused"


@define
class Bucket:
    """A channel whose platform takes `burst` messages at once and `rate` a second."""

    rate: float
    burst: float
    whole_seconds: bool = False  # Retry-After as most platforms give it
    scope: GateScope = GateScope.ACCOUNT  # named with a refusal
    room: float = 0.0
    filled_at: float = 0.0
    taken: int = 0
    refused: int = 0
    late: int = 0  # taken after the first half of the time

    async def send(self, part: Any, key: str, attempt: Any) -> Accepted | Rejected:
        """The contract's `send`."""
        del part, attempt
        now = time.monotonic()
        grown = self.room + (now - self.filled_at) * self.rate
        self.room, self.filled_at = min(self.burst, grown), now
        if self.room >= 1:
            self.room, self.taken = self.room - 1, self.taken + 1
            return Accepted(receipt=Receipt(ids=(key,)))
        self.refused += 1
        wait_s = (1 - self.room) / self.rate
        wait = (
            (int(wait_s) + 1) * 1000 if self.whole_seconds else int(wait_s * 1000) + 1
        )
        failure = FailureClass.RATE_LIMITED
        return Rejected(failure=failure, retry_after_ms=wait, scope=self.scope)


def configure(parser: argparse.ArgumentParser) -> None:
    """The options beside `--json` and `--seconds`."""
    parser.add_argument("--lanes", type=int, default=100, help="default: 100")
    parser.add_argument(
        "--rate", type=float, default=10.0, help="a second; default: 10"
    )
    parser.add_argument("--messages", type=int, default=900, help="default: 900")
    parser.add_argument(
        "--outage-ms", type=int, default=7_200_000, help="default: two hours"
    )
    parser.add_argument(
        "--declared", action="store_true", help="the rate is given to attach()"
    )
    parser.add_argument(
        "--whole-seconds", action="store_true", help="Retry-After in whole seconds"
    )


def run(
    options: argparse.Namespace, say: Callable[[str], None]
) -> tuple[dict[str, Any], bool]:
    """Sends all messages, at most twice as long as the bucket needs."""
    named, unnamed = _bucket(options, GateScope.ACCOUNT), _bucket(options)
    needs = options.messages / options.rate
    say(f"the bucket needs {needs:.0f} s")
    took, events = asyncio.run(_played(named, options, options.declared))
    say("the same where a refusal names the conversation")
    unnamed_took, unnamed_events = asyncio.run(_played(unnamed, options, False))
    report = {
        "messages": options.messages,
        "lanes": options.lanes,
        "rate": options.rate,
        "bucket_s": round(needs, 1),
        **_figures(named, options, took, events),
        **{
            f"unnamed_{name}": value
            for name, value in _figures(
                unnamed, options, unnamed_took, unnamed_events
            ).items()
        },
        **asyncio.run(outages.figures(options.lanes, options.outage_ms)),
    }
    well = _well(named, options, took) and _well(unnamed, options, unnamed_took)
    return report, well and outages.well(report)


def _bucket(
    options: argparse.Namespace, scope: GateScope = GateScope.CONVERSATION
) -> Bucket:
    whole = options.whole_seconds
    return Bucket(options.rate, options.rate, whole_seconds=whole, scope=scope)


def _figures(
    bucket: Bucket, options: argparse.Namespace, took: float, events: int
) -> dict[str, Any]:
    return {
        "accepted": bucket.taken,
        "refused": bucket.refused,
        "took_s": round(took, 1),
        "used": round(options.messages / options.rate / took, 3),
        "events_per_message": round(events / options.messages, 1),
    }


def _well(bucket: Bucket, options: argparse.Namespace, took: float) -> bool:
    few = bucket.refused <= bucket.taken * 0.1 + 10
    needs = options.messages / options.rate
    used = needs / took >= _USED
    return few and used and bucket.taken == options.messages


async def _played(
    bucket: Bucket, options: argparse.Namespace, declared: bool
) -> tuple[float, int]:
    bucket.room, bucket.filled_at = bucket.burst, time.monotonic()
    lanes, messages = options.lanes, options.messages
    needs = messages / options.rate
    with tempfile.TemporaryDirectory() as folder:
        kernel = Kernel(Path(folder) / "flow.db")
        rate = Rate(account=bucket.rate) if declared else None
        kernel.attach("bucket", bucket, on_unknown="hold", rate=rate)
        async with kernel:
            began = time.monotonic()
            names = []
            for n in range(messages):
                lane = Route(channel="bucket", conversation=f"c{n % lanes}")
                names.append((await kernel.enqueue(lane, "news")).entry_id)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2 * needs + 5):
                    for name in names:
                        await kernel.settled(name)
            took = time.monotonic() - began
            events = sum(1 for _ in Peek(kernel.store).happened())
        return took, events
