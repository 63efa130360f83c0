"""Three small scenes with clocks, as figures: a wall clock that is set wrong for a second,
a platform whose clock differs, and a loop that stands still beyond a deadline."""

import asyncio
from pathlib import Path

from attrs import define, field

from turnfold import (
    Absent,
    Accepted,
    Capabilities,
    DeliveryClass,
    Found,
    Kernel,
    PartClass,
    Receipt,
    Rejected,
    Route,
    Unknown,
)
from turnfold.enums import FailureClass, Phase
from turnfold.ports.channel import Attempt, Outcome, Part, Verdict
from turnfold.ports.store import Listing
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.day.plan import HOUR, MINUTE
from turnfold_model.testing.gateway import crash
from turnfold_model.testing.peek import Peek
from turnfold_model.testing.virtual_time import Machine, VirtualLoop

_MESSAGES = 20
_TOLERANCE_MS = 1_000
_BLOCKED_S = 90.0  # longer than the deadline of an attempt
_ANSWER_S = 1.0


@define(eq=False)
class _Place:
    """A platform and its adapter. `skew_ms`: by how much its clock is ahead."""

    machine: Machine
    capabilities: Capabilities
    skew_ms: int = 0
    down: bool = False
    loses: bool = False  # the first answer about each part
    answers_s: float = 0
    signed_wrong: int = 0
    shown: dict[str, list[int]] = field(factory=dict)  # key -> when, by its clock

    async def send(self, part: Part, key: str, attempt: Attempt) -> Outcome:  # noqa: ARG002  the contract's signature
        """The contract's `send`."""
        if self.down:
            return Rejected(failure=FailureClass.NOT_CONNECTED)
        wrong = abs(attempt.at_ms - self.machine.true_ms()) > _TOLERANCE_MS
        self.signed_wrong += wrong
        times = self.shown.setdefault(key, [])
        times.append(self.machine.true_ms() + self.skew_ms)
        await asyncio.sleep(self.answers_s)
        if self.loses and len(times) == 1:
            return Unknown(cause="reset")
        return Accepted(receipt=Receipt(ids=(key,)))

    async def reconcile(self, part: Part, since_ms: int) -> Verdict:
        """Found only if it is young enough, by the platform's clock."""
        if any(at >= since_ms for at in self.shown.get(part.key, [])):
            return Found(receipt=Receipt(ids=(part.key,)))
        return Absent()


def _offers(*classes: DeliveryClass, skew_ms: int | None = None) -> Capabilities:
    parts = {"text": PartClass(classes=classes, settle_ms=0)}
    return Capabilities(parts=parts, skew_ms=skew_ms)


async def _opened(machine: Machine, path: Path, place: _Place) -> Kernel:
    store = SqliteStore(path, flush="loop")
    kernel = Kernel(store, clock=machine.clock(lambda: 1_000))
    kernel.attach("c", place, on_unknown="hold")
    await kernel.open()
    return kernel


async def _queue(kernel: Kernel, count: int = _MESSAGES) -> None:
    for number in range(count):
        await kernel.enqueue(Route(channel="c", conversation=f"c{number}"), "x")


def _count(kernel: Kernel, phase: Phase) -> int:
    listing = Listing(phases=(phase,), limit=1_000)
    return len(Peek(kernel.store).list(listing))


async def jumped(machine: Machine, folder: Path) -> dict[str, int]:
    """The wall clock is 48 h ahead for a second, while messages wait that may live for
    24 h; then the process dies and another one sends."""
    place = _Place(machine, _offers(), down=True)
    kernel = await _opened(machine, folder / "jumped.db", place)
    await _queue(kernel)
    await asyncio.sleep(60)
    machine.wrong_ms = 48 * HOUR
    await _queue(kernel, 1)
    await asyncio.sleep(1)
    machine.wrong_ms, place.down = 0, False
    await asyncio.sleep(60)
    expired, wrong = _count(kernel, Phase.FAILED), place.signed_wrong
    await crash(kernel)
    kernel = await _opened(machine, folder / "jumped.db", place)
    await _queue(kernel)
    await asyncio.sleep(60)
    told = {
        "delivered": _count(kernel, Phase.DELIVERED),
        "expired": expired,
        "signed_wrong": wrong,
        "signed_wrong_after_restart": place.signed_wrong - wrong,
    }
    await kernel.close()
    return told


async def skewed(
    machine: Machine, folder: Path, by_ms: int, wrong_ms: int = 0
) -> dict[str, int]:
    """Class `lookup`: the answer to each first send is lost. `wrong_ms`: of our own
    clock, while all this happens."""
    offers = _offers(DeliveryClass.LOOKUP, skew_ms=10 * MINUTE)
    place = _Place(machine, offers, skew_ms=by_ms, loses=True)
    kernel = await _opened(machine, folder / f"skew{by_ms}.{wrong_ms}.db", place)
    machine.wrong_ms = wrong_ms
    await _queue(kernel)
    await asyncio.sleep(10 * 60)
    machine.wrong_ms = 0
    told = {
        "delivered": _count(kernel, Phase.DELIVERED),
        "doubled": sum(len(times) > 1 for times in place.shown.values()),
    }
    await kernel.close()
    return told


async def blocked(machine: Machine, folder: Path) -> dict[str, int]:
    """Class `blind`: answers come while the loop stands still beyond the deadline."""
    place = _Place(machine, _offers(), answers_s=_ANSWER_S)
    kernel = await _opened(machine, folder / "blocked.db", place)
    await _queue(kernel)
    await asyncio.sleep(_ANSWER_S / 2)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)  # noqa: S101  the command made it
    loop.now_s += _BLOCKED_S
    await asyncio.sleep(60)
    told = {
        "delivered": _count(kernel, Phase.DELIVERED),
        "parked": Peek(kernel.store)
        .names()
        .count("outbox.parked"),  # for a moment, too
    }
    await kernel.close()
    return told


async def scenes(machine: Machine, folder: Path) -> dict[str, dict[str, int]]:
    """All of them. In each figure but `delivered`, 0 is right."""
    return {
        "ahead by 48 h for a second": await jumped(machine, folder),
        "platform ahead by 10 min": await skewed(machine, folder, 10 * MINUTE),
        "platform behind by 10 min": await skewed(machine, folder, -10 * MINUTE),
        "we are ahead by 1 h": await skewed(machine, folder, 0, HOUR),
        "loop blocked for 90 s": await blocked(machine, folder),
    }


def wrong_in(figures: dict[str, dict[str, int]]) -> list[str]:
    """The scenes with a figure that must be 0 and is not."""
    return [
        f"{scene}: {name} {count}"
        for scene, told in figures.items()
        for name, count in told.items()
        if (count < _MESSAGES if name == "delivered" else count)
    ]
