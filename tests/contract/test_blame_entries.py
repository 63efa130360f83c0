"""A death of a process ends no entry that merely was on its way."""

import pytest

from turnfold import Kernel, Settings
from turnfold._state.entry import Entry
from turnfold.enums import DeliveryClass, Phase
from turnfold_model.testing.gateway import Gateway, entry, route, spin, story
from turnfold_model.testing.platform import PlatformChannel, hang

_MINUTE_MS = 60_000
_LONGEST_MS = 900_000  # the longest back-off
_LANES = 8


async def _queued(
    gateway: Gateway, lanes: int = _LANES, *, prepares: bool = False
) -> tuple[Kernel, list[str]]:
    """Entries of so many conversations, all on their way; no send of them ends."""
    gateway.platform.keyed = True
    channel = PlatformChannel(gateway.platform, DeliveryClass.KEYED, prepares=prepares)
    gateway.channels = {("t", "default"): channel}
    gateway.platform.plays(*(hang() for _ in range(500)))
    if prepares:
        gateway.platform.preparing.extend(hang() for _ in range(500))
    kernel = await gateway.start()
    made = [await kernel.enqueue(route(f"{n}"), f"text {n}") for n in range(lanes)]
    await spin()
    return kernel, [done.entry_id for done in made]


def _flying(kernel: Kernel, names: list[str]) -> list[Entry]:
    found = [entry(kernel, name) for name in names]
    return [e for e in found if e.phase is Phase.DISPATCHED]


async def _die(gateway: Gateway, kernel: Kernel, ms: int = _LONGEST_MS) -> Kernel:
    kernel = await gateway.restart(kernel)
    await gateway.advance(ms)
    return kernel


@pytest.mark.case("U07")
@pytest.mark.parametrize("prepares", [True, False])
async def test_a_crash_loop_with_another_cause_ends_no_entry(
    lone: Gateway, prepares: bool
) -> None:
    gateway = lone
    gateway.settings = Settings(max_failures=2)  # fewer than the deaths
    kernel, names = await _queued(gateway, 5, prepares=prepares)
    for _ in range(2):
        kernel = await _die(gateway, kernel)
        assert [entry(kernel, name).blame.alone for name in names] == [0] * 5
    for _ in range(3):
        kernel = await _die(gateway, kernel)
    gateway.platform._script.clear()
    gateway.platform.preparing.clear()
    kernel = await gateway.restart(kernel)
    for _ in range(8):
        await gateway.advance(_LONGEST_MS)
    for name in names:
        assert entry(kernel, name).phase is Phase.DELIVERED, story(kernel, name)


@pytest.mark.case("U07")
async def test_half_of_the_suspect_entries_go_at_a_time_and_the_last_one_alone(
    gateway: Gateway,
) -> None:
    kernel, names = await _queued(gateway)
    beside: list[int] = []
    while len(beside) < 40:
        flying = _flying(kernel, names)
        beside.append(len(flying))
        if flying and flying[0].blame.on_trial:
            break
        kernel = await gateway.restart(kernel)
        for _ in range(100):
            await gateway.advance(20_000)
            if _flying(kernel, names):
                break
    assert beside[:4] == [8, 4, 4, 2]
    assert beside[-1] == 1
    kernel.attach("u", PlatformChannel(gateway.platform), on_unknown="hold")
    fresh = await kernel.enqueue(route("new", channel="u"), "new")
    await spin()
    assert entry(kernel, fresh.entry_id).phase is Phase.QUEUED


@pytest.mark.case("U07", "A13")
async def test_the_entry_that_kills_is_found_and_the_others_are_delivered(
    gateway: Gateway,
) -> None:
    gateway.platform.keyed = True
    gateway.channels = {
        ("t", "default"): PlatformChannel(gateway.platform, DeliveryClass.KEYED)
    }
    gateway.on_unknown = "drop"
    gateway.platform.plays(*(hang() for _ in range(99)), conversation="poison")
    kernel = await gateway.start()
    places = ["a", "b", "poison", "c", "d"]
    made = {p: (await kernel.enqueue(route(p), p)).entry_id for p in places}
    poison = made["poison"]
    for _ in range(12):
        await gateway.advance(_LONGEST_MS)
        if entry(kernel, poison).phase is Phase.PARKED:
            break
        if entry(kernel, poison).phase is Phase.DISPATCHED:
            kernel = await gateway.restart(kernel)
    found = entry(kernel, poison)
    assert (found.phase, found.reason, found.blame.alone) == (
        Phase.PARKED,
        "quarantined",
        3,
    )
    for place in set(places) - {"poison"}:
        assert entry(kernel, made[place]).phase is Phase.DELIVERED
    gateway.platform._scripts.clear()
    await kernel.resolve(poison, "resend", by="me")
    await spin()
    assert entry(kernel, poison).phase is Phase.DELIVERED


@pytest.mark.case("U07")
async def test_a_last_suspect_that_is_never_alone_goes_beside_the_others(
    lone: Gateway,
) -> None:
    """It must not wait until it expires, and no death is blamed on it then."""
    kernel, [suspect] = await _queued(lone, 1)
    for _ in range(2):
        kernel = await lone.restart(kernel)
    assert entry(kernel, suspect).blame.on_trial
    assert entry(kernel, suspect).phase is Phase.IN_DOUBT
    busy = await kernel.enqueue(route("busy"), "busy")
    await spin()
    assert entry(kernel, busy.entry_id).phase is Phase.DISPATCHED
    await lone.advance(2_000)
    assert entry(kernel, suspect).phase is Phase.IN_DOUBT
    await lone.advance(_MINUTE_MS)
    assert entry(kernel, suspect).phase is Phase.DISPATCHED
