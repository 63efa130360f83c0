"""The Matrix channel through the public checks of a channel, on a real Synapse behind a
proxy that cuts."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import pytest

from turnfold.messages import Route
from turnfold_adapters.channels.matrix import MatrixChannel
from turnfold_adapters.channels.matrix_content import KEY_FIELD
from turnfold_model.checks.channel import CHECKS, Check, Fault, Harness, Seen, run_check

from .cutting_proxy import CuttingProxy
from .cutting_proxy import Fault as ProxyFault
from .synapse import Synapse, User

_CUTS = {
    Fault.CUT_AFTER: ProxyFault.CUT_AFTER,
    Fault.CUT_BEFORE: ProxyFault.CUT_BEFORE,
    Fault.SILENT: ProxyFault.DELAY,
}
_SILENCE_S = 60.0


@dataclass
class Room:
    """A fresh room. A refusal is a bot that was thrown out of it. Rate limits are left
    to a test of their own: on a real server they need a clock."""

    bot: User
    alice: User
    proxy: CuttingProxy
    route: Route
    window_ms: int
    faults: Sequence[Fault] = (*_CUTS, Fault.REFUSED, Fault.REJECTED)

    def channel(self) -> MatrixChannel:
        return MatrixChannel(
            self.proxy.base_url,
            user_id=self.bot.user_id,
            device_id=self.bot.device_id,
            token=self.bot.token,
            key_window_ms=self.window_ms,
            settle_ms=200,
        )

    async def witness(self) -> list[Seen]:
        events = self.alice.events(self.route.conversation, self.bot.user_id)
        contents = [(e["event_id"], e["content"]) for e in events]
        return [
            Seen(id=event_id, key=content[KEY_FIELD], text=content["body"])
            for event_id, content in contents
        ]

    async def calls(self) -> int:
        return self.proxy.sends

    async def fault(self, kind: Fault, *, skip: int = 0, times: int = 1) -> None:
        room = self.route.conversation
        if kind is Fault.REFUSED:
            await self.proxy.refuse()
        elif kind is Fault.REJECTED:
            self.alice.post(f"/v3/rooms/{room}/kick", {"user_id": self.bot.user_id})
        else:
            self.proxy.plan(ProxyFault.DELAY, path="/send/", times=skip)
            how = {"times": times, "delay_s": _SILENCE_S}
            self.proxy.plan(_CUTS[kind], path="/send/", **how)

    async def heal(self) -> None:
        self.proxy.forget()
        await self.proxy.refuse()
        await self.proxy.accept()


@asynccontextmanager
async def room(
    synapse: Synapse, bot: User, alice: User, window_ms: int
) -> AsyncIterator[Harness]:
    room_id = alice.create_room(bot.user_id)
    bot.join(room_id)
    async with CuttingProxy(synapse.port) as proxy:
        route = Route(channel="matrix", conversation=room_id)
        yield Room(bot, alice, proxy, route, window_ms)
    bot.leave_all()


# With a key that is worth nothing the crash matrix has to rely on look-ups alone.
KEYED, LOOKUP = 3_600_000, 0
RUNS = [(check, KEYED) for check in CHECKS] + [
    (check, LOOKUP) for check in CHECKS if "each_part_is_there_once" in check.__name__
]


LEFT_OUT = (
    "a_rate_limit_is_told_and_not_waited_out",
    "a_part_that_is_sent_again_shows_its_mark",  # a native event cannot
)


@pytest.mark.case("A04", "B02", "B06", "B16", "C14", "D12", "D17")
@pytest.mark.parametrize(("check", "window_ms"), RUNS)
async def test_the_matrix_channel_keeps_its_contract(
    check: Check, window_ms: int, synapse: Synapse, bot: User, alice: User
) -> None:
    factory: Callable[[], AbstractAsyncContextManager[Harness]]
    factory = partial(room, synapse, bot, alice, window_ms)
    result = await run_check(check, factory)
    assert bool(result.left_out) == (check.__name__ in LEFT_OUT), result
