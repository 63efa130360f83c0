"""Two platforms in virtual time: one that is not connected, and one that is down.

Each has the default settings. The caller moves the kernel's clock, one interval of
probes at a time.
"""

from collections.abc import Mapping
from typing import Any, Final

from attrs import define, field

from turnfold import Accepted, FailureClass, Receipt, Rejected, Route, Settings
from turnfold_model.testing.gateway import Gateway, spin

_STEP_MS: Final = Settings().probe_ms
_INTERVALS: Final = 60  # of the account that is not connected
_AFTER: Final = 12  # intervals: after two hours the probes are 70 s apart


@define
class _Platform:
    """Refuses everything for one reason, until it is up."""

    failure: FailureClass
    up: bool = False
    refused: int = 0
    texts: list[str] = field(factory=list)

    async def send(self, part: Any, key: str, attempt: Any) -> Accepted | Rejected:
        """The contract's `send`."""
        del attempt
        if not self.up:
            self.refused += 1
            return Rejected(failure=self.failure)
        self.texts.append(part.payload.text)
        return Accepted(receipt=Receipt(ids=(key,)))


async def figures(lanes: int, outage_ms: int) -> Mapping[str, Any]:
    """Both plays, one after the other."""
    return {**await _offline(lanes), **await _outage(lanes, outage_ms)}


def well(report: Mapping[str, Any]) -> bool:
    """At most one probe in each interval, and nothing lost."""
    few = report["offline_probes"] <= report["offline_intervals"]
    return few and not (report["offline_lost"] or report["outage_lost"])


async def _offline(lanes: int) -> Mapping[str, Any]:
    platform = _Platform(FailureClass.NOT_CONNECTED)
    first, lost = await _played(platform, lanes, _INTERVALS * _STEP_MS)
    return {
        "offline_intervals": _INTERVALS,
        "offline_probes": platform.refused - first,
        "offline_lost": lost,
    }


async def _outage(lanes: int, outage_ms: int) -> Mapping[str, Any]:
    platform = _Platform(FailureClass.TRANSIENT)
    first, lost = await _played(platform, lanes, outage_ms)
    return {
        "outage_ms": outage_ms,
        "outage_messages": lanes,
        "outage_probes": platform.refused - first,
        "outage_lost": lost,
    }


async def _played(platform: _Platform, lanes: int, down_ms: int) -> tuple[int, int]:
    """How many calls were refused at once, before any had an answer, and how many
    messages were not there two minutes after the platform was up."""
    gateway = Gateway(channels={("t", "default"): platform})
    kernel = await gateway.start()
    for n in range(lanes):
        await kernel.enqueue(Route(channel="t", conversation=f"c{n}"), str(n))
    await spin()
    first = platform.refused
    for _ in range(down_ms // _STEP_MS):
        await gateway.advance(_STEP_MS)
    platform.up = True
    for _ in range(_AFTER):
        await gateway.advance(_STEP_MS)
    await gateway.end()
    return first, lanes - len(set(platform.texts))
