"""A part of which an older attempt is in doubt goes on without a refused decoration."""

import pytest

from turnfold import DeliveryClass, FailureClass, Settings, Text
from turnfold.audit import audit_store
from turnfold.enums import Decoration, Phase
from turnfold.ports.channel import Attempt, Part
from turnfold_model.testing.gateway import Gateway, entry, route, spin, story
from turnfold_model.testing.platform import (
    Act,
    Platform,
    PlatformChannel,
    hang,
    reject,
    unknown,
)

pytestmark = pytest.mark.case("V04")
KEYED = DeliveryClass.KEYED
NO_THREAD = reject(FailureClass.DECORATION, decoration=Decoration.THREAD)


class Shown(PlatformChannel):
    """Keeps the key and the thread of each call."""

    def __init__(self, platform: Platform, *classes: DeliveryClass) -> None:
        super().__init__(platform, *classes)
        self.sent: list[tuple[str, str | None]] = []

    async def send(self, part: Part, key: str, attempt: Attempt) -> object:
        self.sent.append((key, part.route.thread))
        return await super().send(part, key, attempt)


async def sent(lone: Gateway, *acts: Act, keyed: bool = True) -> tuple[Shown, str]:
    """A text with a thread, and the answers that it meets, each in its time."""
    lone.platform.keyed = keyed
    channel = Shown(lone.platform, *([KEYED] if keyed else []))
    lone.channels = {("t", "default"): channel}
    lone.platform.plays(*acts)
    kernel = await lone.start()
    done = await kernel.enqueue(route(thread="7"), Text("<b>hi</b>", format="html"))
    for _ in acts:
        await lone.advance(60_000)
    return channel, done.entry_id


async def test_it_keeps_its_key_so_that_the_platform_tells_what_it_has(
    lone: Gateway,
) -> None:
    channel, stream = await sent(lone, unknown(lands=True), NO_THREAD)
    assert len(lone.platform.messages) == 1
    found = entry(lone.alive[0], stream)
    assert found.phase is Phase.DELIVERED
    assert found.parts[0].dropped == (Decoration.THREAD,)
    assert [thread for _, thread in channel.sent] == ["7", "7", None]
    assert len({key for key, _ in channel.sent}) == 1
    report = await audit_store(lone.alive[0].store)
    assert report.passed, report.findings[:3]


async def test_the_word_that_allowed_the_refused_attempt_allows_the_next_one(
    lone: Gateway,
) -> None:
    lone.on_unknown = "resend"
    channel, stream = await sent(lone, unknown(), NO_THREAD, keyed=False)
    assert entry(lone.alive[0], stream).phase is Phase.DELIVERED
    assert [thread for _, thread in channel.sent] == ["7", "7", None]
    assert story(lone.alive[0], stream).count("resolved") == 1


async def test_it_costs_nothing_while_there_is_something_to_leave_out(
    lone: Gateway,
) -> None:
    lone.settings = Settings(max_failures=2)
    any_of_them = reject(FailureClass.DECORATION)
    channel, stream = await sent(lone, unknown(), *[any_of_them] * 2)
    assert entry(lone.alive[0], stream).phase is Phase.DELIVERED
    assert len(channel.sent) == 4


async def test_with_nothing_left_to_leave_out_it_counts(lone: Gateway) -> None:
    lone.settings = Settings(max_failures=2)
    any_of_them = reject(FailureClass.DECORATION)
    channel, stream = await sent(lone, unknown(), *[any_of_them] * 4)
    assert entry(lone.alive[0], stream).phase is Phase.PARKED
    assert len(channel.sent) == 4


async def test_the_window_of_its_key_goes_on(lone: Gateway) -> None:
    channel, stream = await sent(lone, unknown(), NO_THREAD, hang())
    await spin()
    found = entry(lone.alive[0], stream)
    assert len(channel.sent) == 3
    assert found.first_at is not None
    assert found.first_at - found.created < 1_000
