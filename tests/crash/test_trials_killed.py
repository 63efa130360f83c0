"""A plan or a look-up that kills its process each time, by a real SIGKILL: it is found,
held for a person, and all else goes out."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.crash.forking import forked

from turnfold import (
    Absent,
    Accepted,
    Capabilities,
    DeliveryClass,
    Kernel,
    PartClass,
    PlannedPart,
    Receipt,
    Route,
    Settings,
    Text,
    Unknown,
)
from turnfold._log.outbox_events import Tried
from turnfold.audit import audit_store
from turnfold.enums import TrialEnd
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.testing.peek import Peek

pytestmark = pytest.mark.timeout(120)
SETTINGS = Settings(backoff_base_ms=50, drain_ms=0)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class LooksUp:
    capabilities = Capabilities(
        parts={"text": PartClass(classes=(DeliveryClass.LOOKUP,), settle_ms=0)}
    )

    async def send(self, part, key, attempt):
        if part.route.conversation == "poison":
            return Unknown(cause="timeout")
        return Accepted(receipt=Receipt(ids=("m",)))

    async def reconcile(self, part, since_ms):
        _die()
        return Absent()


class Plans:
    capabilities = Capabilities()

    def plan(self, payload, route, kind, context):
        if route.conversation == "poison":
            _die()
        return [PlannedPart(payload=payload, kind="text")]

    async def send(self, part, key, attempt):
        return Accepted(receipt=Receipt(ids=("m",)))


def _queue(path: str) -> None:
    """Before the channel is attached, so nothing is planned yet."""

    async def queue() -> None:
        async with Kernel(path, settings=SETTINGS) as kernel:
            for place in ("a", "poison", "b"):
                route = Route(channel="t", conversation=place)
                await kernel.enqueue(route, Text(place), key=place)

    asyncio.run(queue())


def _live(path: str, channel: Callable[[], Any]) -> None:
    """Work until nothing moves by itself any more."""

    async def live() -> None:
        kernel = Kernel(path, settings=SETTINGS)
        kernel.attach("t", channel(), on_unknown="hold")
        async with kernel, asyncio.timeout(30):
            while not await _over(kernel):
                await asyncio.sleep(0.05)

    asyncio.run(live())


async def _over(kernel: Kernel) -> bool:
    rows = await kernel.inspect.list()
    places = {row.conversation: row for row in rows}  # the oldest is the last
    others = all(places[place].status == "delivered" for place in "ab")
    return others and places["poison"].reason == "quarantined"


@pytest.mark.case("U08", "U07")
@pytest.mark.parametrize(("channel", "act"), [(LooksUp, "look_up"), (Plans, "plan")])
def test_what_kills_its_process_three_times_alone_is_held(
    tmp_path: Path, channel: type, act: str
) -> None:
    path = str(tmp_path / "t.db")
    assert forked(_queue, path) == 0
    codes = [forked(_live, path, channel)]
    while codes[-1] == -signal.SIGKILL and len(codes) < 12:
        codes.append(forked(_live, path, channel))
    assert codes == [-signal.SIGKILL] * (len(codes) - 1) + [0]
    deaths, sound = asyncio.run(_read(path))
    assert deaths == [act] * 3
    assert sound


async def _read(path: str) -> tuple[list[str], bool]:
    """The acts in which a process died with nothing beside, and the audit's verdict."""
    store = SqliteStore(Path(path))
    await store.open(read_only=True)
    try:
        happened = [event for _, event in Peek(store).happened()]
        sound = (await audit_store(store)).passed
    finally:
        await store.close()
    tried = [event for event in happened if isinstance(event, Tried)]
    died = [one for one in tried if one.end is TrialEnd.DIED]
    return [str(one.act) for one in died if one.beside == 0], sound
