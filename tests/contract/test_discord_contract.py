"""The Discord channel through the public checks of a channel, driven by the real
discord.py against our FAKE of Discord."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from tests.fakes.fake_discord import TOKEN, FakeDiscord
from tests.fakes.fake_discord import Fault as ApiFault

from turnfold import Route
from turnfold_adapters.channels.discord import DiscordChannel
from turnfold_model.checks.channel import CHECKS, Check, Fault, Harness, Seen, run_check

_SCRIPTED = {
    Fault.CUT_AFTER: ApiFault.CUT_AFTER,
    Fault.CUT_BEFORE: ApiFault.CUT_BEFORE,
    Fault.SILENT: ApiFault.SILENT,
    Fault.RATE_LIMITED: ApiFault.RATE_LIMITED,
    Fault.REJECTED: ApiFault.FORBIDDEN,
}
PLACEHOLDER = "\u2026"


class Room:
    """A channel of the fake. Its nonces are hashes: the words tell messages apart."""

    faults = tuple(Fault)
    route = Route(channel="discord", conversation="42")

    def __init__(self, api: FakeDiscord, *, editable: bool) -> None:
        self.api, self.editable = api, editable

    def channel(self) -> DiscordChannel:
        return DiscordChannel(
            TOKEN,
            base_url=self.api.base_url,
            editable=self.editable,
            settle_ms=50,
            connect_timeout_ms=2_000,
        )

    async def witness(self) -> list[Seen]:
        shown = [m for m in self.api.messages if m.text != PLACEHOLDER]
        return [Seen(id=m.id, text=m.text) for m in shown]

    async def calls(self) -> int:
        return self.api.visible_calls()

    async def fault(self, kind: Fault, *, skip: int = 0, times: int = 1) -> None:
        if kind is Fault.REFUSED:
            self.api.stop()
        else:
            self.api.script(*[None] * skip, *[_SCRIPTED[kind]] * times)

    async def heal(self) -> None:
        self.api.stop()
        self.api.start()


@asynccontextmanager
async def room(editable: bool) -> AsyncIterator[Harness]:
    with FakeDiscord() as api:
        yield Room(api, editable=editable)


@pytest.mark.case("A04", "B02", "C14")
@pytest.mark.parametrize("editable", [False, True], ids=["keyed", "editable"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_discord_channel_keeps_its_contract(
    check: Check, editable: bool
) -> None:
    result = await run_check(check, partial(room, editable))
    keyed = not editable and check.__name__.startswith("a_key_")
    left_out = check.__name__ in LEFT_OUT and not keyed
    assert bool(result.left_out) == left_out, result


# What Discord has not: look-ups, and something to prepare. As editable it has no keys.
LEFT_OUT = {
    *(check.__name__ for check in CHECKS if check.__name__.startswith("a_key_")),
    "what_was_accepted_is_found",
    "what_was_accepted_without_an_answer_is_found",
    "what_never_arrived_is_absent_even_beside_its_twin",
    "a_platform_that_cannot_be_reached_tells_nothing",
    "what_is_prepared_is_seen_by_nobody_and_may_be_repeated",
}
