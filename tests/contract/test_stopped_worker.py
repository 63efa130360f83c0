"""A worker that is stopped between the record of a send and its wire (SIGSTOP, or the
sleep of the machine), for longer than the platform may remember a key."""

from typing import Any

import pytest

from turnfold import DeliveryClass, Kernel
from turnfold._runtime.sender import Sender
from turnfold.audit import audit_store
from turnfold.enums import FailureClass, Phase
from turnfold_model.testing.gateway import Gateway, entry, events, route, spin
from turnfold_model.testing.platform import PlatformChannel, accept, reject, unknown

pytestmark = pytest.mark.case("R05")
WINDOW = 86_400_000


class Stops:
    """Time that passes at the next send of a number, between its record and its wire."""

    def __init__(self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ms: dict[int, int] = {}
        self.set_ms: dict[int, int] = {}  # only the wall clock tells of these
        plain = Sender.send

        async def send(sender: Any, channel: Any, attempt: Any, *rest: Any) -> Any:
            gateway.clock.pass_ms(self.ms.pop(attempt.number, 0))
            gateway.clock.jump_ms(self.set_ms.pop(attempt.number, 0))
            return await plain(sender, channel, attempt, *rest)

        monkeypatch.setattr(Sender, "send", send)


def keyed(gateway: Gateway, window_ms: int) -> PlatformChannel:
    return PlatformChannel(
        gateway.platform, DeliveryClass.KEYED, key_window_ms=window_ms, settle_ms=0
    )


@pytest.fixture
def stops(lone: Gateway, monkeypatch: pytest.MonkeyPatch) -> Stops:
    lone.platform.keyed = True
    lone.channels = {("t", "default"): keyed(lone, WINDOW)}
    return Stops(lone, monkeypatch)


async def sent(gateway: Gateway, *fates: Any) -> tuple[Kernel, str]:
    gateway.platform.plays(*fates)
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), "hi", ttl_ms=30 * WINDOW)
    await spin()
    return kernel, done.entry_id


async def test_a_worker_that_was_stopped_does_not_send_an_old_key(
    lone: Gateway, stops: Stops
) -> None:
    kernel, name = await sent(lone, unknown(lands=True))
    stops.ms = {2: WINDOW}
    for _ in range(3):
        await lone.advance(60_000)
    found = [e for e in events(kernel, name) if hasattr(e, "failure")]
    assert [e.failure for e in found] == [FailureClass.STOPPED]
    assert (entry(kernel, name).phase, len(lone.platform.calls)) == (Phase.PARKED, 1)
    report = await audit_store(kernel.store)
    assert not report.findings


async def test_a_pause_that_nobody_counted_is_seen_once_the_wall_clock_is_set(
    lone: Gateway, stops: Stops
) -> None:
    """As a machine in a cloud that was paused: no clock of its own has counted it."""
    kernel, name = await sent(lone, unknown(lands=True), accept())
    stops.set_ms = {2: WINDOW}
    for _ in range(3):
        await lone.advance(60_000)
    assert (entry(kernel, name).phase, len(lone.platform.calls)) == (Phase.PARKED, 1)


async def test_the_shorter_window_that_the_channel_claims_counts(
    lone: Gateway, stops: Stops
) -> None:
    kernel, name = await sent(lone, unknown(lands=True), accept())
    lone.channels = {("t", "default"): keyed(lone, WINDOW // 4)}
    kernel = await lone.restart(kernel)
    stops.ms = {2: WINDOW // 4}
    for _ in range(3):
        await lone.advance(60_000)
    assert (entry(kernel, name).phase, len(lone.platform.calls)) == (Phase.PARKED, 1)


@pytest.mark.parametrize("stopped", [0, WINDOW // 2 - 120_000])
async def test_a_short_stop_changes_nothing(
    lone: Gateway, stops: Stops, stopped: int
) -> None:
    kernel, name = await sent(lone, unknown(lands=True), accept())
    stops.ms = {2: stopped}
    await lone.advance(60_000)
    assert entry(kernel, name).phase is Phase.DELIVERED
    assert len(lone.platform.calls) == 2


async def test_a_first_send_is_safe_however_long_the_stop(
    lone: Gateway, stops: Stops
) -> None:
    stops.ms = {1: 2 * WINDOW, 2: 2 * WINDOW}
    kernel, name = await sent(lone, reject(FailureClass.TRANSIENT), accept())
    await lone.advance(60_000)
    assert entry(kernel, name).phase is Phase.DELIVERED


async def test_a_send_that_a_person_allowed_goes_out_after_a_stop(
    lone: Gateway, stops: Stops
) -> None:
    kernel, name = await sent(lone, unknown(lands=True), accept())
    stops.ms = {2: WINDOW, 3: WINDOW}
    for _ in range(3):
        await lone.advance(60_000)
    assert entry(kernel, name).phase is Phase.PARKED
    await kernel.resolve(name, "resend", by="me")
    await spin()
    assert entry(kernel, name).phase is Phase.DELIVERED


async def test_a_wire_that_never_agrees_with_the_decision_is_asked_with_a_pause(
    lone: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two follow one rule, so this takes a bug. Without a pause they would fill the
    log as fast as the disk allows."""
    lone.platform.keyed = True
    lone.channels = {("t", "default"): keyed(lone, WINDOW)}
    monkeypatch.setattr(Sender, "_is_stale", lambda *_: True)
    kernel, name = await sent(lone, unknown(lands=True))
    await lone.advance(60_000)
    before = len(events(kernel, name))
    await spin(200)
    assert len(events(kernel, name)) == before
    for _ in range(3):
        await lone.advance(1_000)
    assert len(events(kernel, name)) <= before + 3 * 2
    assert len(lone.platform.calls) == 1
