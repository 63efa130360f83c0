"""A part with several classes: the first inside of its key's window, the second after."""

import pytest

from turnfold import DeliveryClass, FailureClass, Kernel
from turnfold._log import outbox_events as o
from turnfold.audit import audit_store
from turnfold.enums import Phase
from turnfold_model.testing.gateway import Gateway, entry, events, route, spin
from turnfold_model.testing.platform import (
    Act,
    PlatformChannel,
    accept,
    hang,
    reject,
    unknown,
)

pytestmark = pytest.mark.case("V14")
KEYED, EDITABLE = DeliveryClass.KEYED, DeliveryClass.EDITABLE
PASSES = reject(FailureClass.TRANSIENT)


async def sent(gateway: Gateway, *fates: Act) -> tuple[Kernel, str]:
    gateway.platform.plays(*fates)
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), "hi")
    await spin()
    return kernel, done.entry_id


async def settled(gateway: Gateway, kernel: Kernel, stream: str) -> Phase:
    for _ in range(12):
        if not entry(kernel, stream).open:
            break
        await gateway.advance(120_000)
    report = await audit_store(kernel.store)
    assert not report.findings
    return entry(kernel, stream).phase


def keyed_first(gateway: Gateway, window_ms: int) -> None:
    gateway.platform.keyed = True
    channel = PlatformChannel(
        gateway.platform, KEYED, EDITABLE, key_window_ms=window_ms, settle_ms=0
    )
    gateway.channels = {("t", "default"): channel}


def acts(kernel: Kernel, stream: str) -> list[str]:
    found = events(kernel, stream)
    return [str(event.act) for event in found if isinstance(event, o.Attempted)]


@pytest.mark.parametrize(
    ("window_ms", "wanted"),
    [
        (1_000_000, ["send", "send"]),
        (1_000, ["send", "placeholder", "edit"]),
        (0, ["placeholder", "edit"]),
    ],
)
async def test_the_second_class_counts_once_the_window_of_the_key_is_over(
    lone: Gateway, window_ms: int, wanted: list[str]
) -> None:
    keyed_first(lone, window_ms)
    first = [PASSES] if window_ms else []
    kernel, stream = await sent(lone, *first)
    assert await settled(lone, kernel, stream) is Phase.DELIVERED
    assert acts(kernel, stream) == wanted
    assert lone.platform.contents == ["hi"]
    assert not lone.platform.strays


async def test_after_the_window_a_lost_edit_is_made_again_and_nobody_is_asked(
    lone: Gateway,
) -> None:
    keyed_first(lone, 1_000)
    fates = (PASSES, accept(), unknown(lands=True))
    kernel, stream = await sent(lone, *fates)
    assert await settled(lone, kernel, stream) is Phase.DELIVERED
    assert acts(kernel, stream) == ["send", "placeholder", "edit", "edit"]
    assert lone.platform.contents == ["hi"]


async def test_no_placeholder_stands_beside_a_part_that_may_be_there_whole(
    lone: Gateway,
) -> None:
    keyed_first(lone, 1_000)
    kernel, stream = await sent(lone, unknown(lands=True))
    assert await settled(lone, kernel, stream) is Phase.PARKED
    assert acts(kernel, stream) == ["send"]
    assert lone.platform.contents == ["hi"]


async def test_what_a_policy_has_allowed_again_goes_whole_and_with_its_mark(
    lone: Gateway,
) -> None:
    lone.on_unknown = "resend_marked"
    keyed_first(lone, 1_000)
    kernel, stream = await sent(lone, unknown())
    assert await settled(lone, kernel, stream) is Phase.DELIVERED
    assert acts(kernel, stream) == ["send", "send"]
    assert [message.marked for message in lone.platform.messages] == [True]


async def test_a_channel_that_learns_to_edit_makes_no_placeholder_beside_a_doubt(
    lone: Gateway,
) -> None:
    """The part goes out whole, because the channel that is there then cannot edit."""
    editing = {("t", "default"): PlatformChannel(lone.platform, EDITABLE)}
    lone.channels = editing
    kernel, stream = await sent(lone, PASSES, hang(lands=True))
    lone.channels = {("t", "default"): PlatformChannel(lone.platform)}
    kernel = await lone.restart(kernel)
    await lone.advance(60_000)
    lone.channels = editing
    kernel = await lone.restart(kernel)
    assert await settled(lone, kernel, stream) is Phase.PARKED
    assert acts(kernel, stream) == ["placeholder", "send"]
    assert lone.platform.contents == ["hi"]
