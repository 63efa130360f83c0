"""The Telegram channel through the public checks of a channel, driven by the real
python-telegram-bot against our FAKE of the Bot API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from tests.fakes.fake_bot_api import TOKEN, FakeBotApi
from tests.fakes.fake_bot_api import Fault as ApiFault

from turnfold import Route
from turnfold_adapters.channels.telegram import TelegramChannel
from turnfold_model.checks.channel import CHECKS, Check, Fault, Harness, Seen, run_check

_SCRIPTED = {
    Fault.CUT_AFTER: ApiFault.CUT_AFTER,
    Fault.CUT_BEFORE: ApiFault.CUT_BEFORE,
    Fault.SILENT: ApiFault.SILENT,
    Fault.RATE_LIMITED: ApiFault.RATE_LIMITED,
    Fault.REJECTED: ApiFault.BLOCKED,
}
PLACEHOLDER = "\u2026"


class Chat:
    """A chat with the fake. Telegram sees no keys: the words tell the messages apart."""

    faults = tuple(Fault)
    route = Route(channel="telegram", conversation="42")

    def __init__(self, api: FakeBotApi, *, editable: bool) -> None:
        self.api, self.editable = api, editable

    def channel(self) -> TelegramChannel:
        return TelegramChannel(
            TOKEN,
            base_url=self.api.base_url,
            editable=self.editable,
            settle_ms=50,
            connect_timeout_ms=2_000,
        )

    async def witness(self) -> list[Seen]:
        shown = [m for m in self.api.messages if m.text != PLACEHOLDER]
        return [Seen(id=str(m.id), text=m.text) for m in shown]

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
async def chat(editable: bool) -> AsyncIterator[Harness]:
    with FakeBotApi() as api:
        yield Chat(api, editable=editable)


# The library warns whenever it makes a RetryAfter, whatever is done with it.
@pytest.mark.filterwarnings("ignore:Deprecated since version v22.2")
@pytest.mark.parametrize("editable", [True, False], ids=["editable", "blind"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_telegram_channel_keeps_its_contract(
    check: Check, editable: bool
) -> None:
    result = await run_check(check, partial(chat, editable))
    assert bool(result.left_out) == (check.__name__ in left_out()), result


def left_out() -> set[str]:
    """What Telegram has not: keys and look-ups. Nothing needs to be prepared."""
    names = {check.__name__ for check in CHECKS}
    keyed = {name for name in names if name.startswith("a_key_")}
    return keyed | {
        "what_was_accepted_is_found",
        "what_was_accepted_without_an_answer_is_found",
        "what_never_arrived_is_absent_even_beside_its_twin",
        "a_platform_that_cannot_be_reached_tells_nothing",
        "what_is_prepared_is_seen_by_nobody_and_may_be_repeated",
    }
