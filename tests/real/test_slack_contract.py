"""The Slack channel through the public checks of a channel, on the server of `emulate`
behind a proxy that cuts. What that server lacks (rate limits, ambiguous errors, Socket
Mode) is covered on our fake: tests/contract/test_slack_*.py."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from turnfold.messages import Route
from turnfold_adapters.channels.slack import SlackChannel
from turnfold_adapters.channels.slack_content import KEY_FIELD
from turnfold_model.checks.channel import CHECKS, Check, Fault, Harness, Seen, run_check

from .cutting_proxy import CuttingProxy
from .cutting_proxy import Fault as ProxyFault
from .emulate import ALICE, BOT, Emulate

_CUTS = {
    Fault.CUT_AFTER: ProxyFault.CUT_AFTER,
    Fault.CUT_BEFORE: ProxyFault.CUT_BEFORE,
    Fault.SILENT: ProxyFault.DELAY,
}
_SILENCE_S = 60.0
VISIBLE = ("/chat.postMessage", "/chat.update", "/files.completeUploadExternal")
PLACEHOLDER = "\u2026"


@dataclass
class Conversation:
    """A fresh channel. A refusal is a channel that was archived."""

    slack: Emulate
    proxy: CuttingProxy
    route: Route
    lookup: bool
    faults: Sequence[Fault] = (*_CUTS, Fault.REFUSED, Fault.REJECTED)

    def channel(self) -> SlackChannel:
        return SlackChannel(
            BOT,
            base_url=f"{self.proxy.base_url}/api/",
            lookup=self.lookup,
            settle_ms=50,
        )

    async def witness(self) -> list[Seen]:
        shown = self.slack.shown(self.route.conversation, self.route.thread)
        return [seen(m) for m in shown if m["text"] != PLACEHOLDER]

    async def calls(self) -> int:
        return sum(one.path.endswith(VISIBLE) for one in self.proxy.seen)

    async def fault(self, kind: Fault, *, skip: int = 0, times: int = 1) -> None:
        if kind is Fault.REFUSED:
            await self.proxy.refuse()
        elif kind is Fault.REJECTED:
            room = self.route.conversation
            assert self.slack.ask(ALICE, "conversations.archive", channel=room)["ok"]
        else:
            where: dict[str, Any] = {"method": "POST", "path": VISIBLE}
            self.proxy.plan(ProxyFault.DELAY, times=skip, **where)
            self.proxy.plan(_CUTS[kind], times=times, delay_s=_SILENCE_S, **where)

    async def heal(self) -> None:
        self.proxy.forget()
        await self.proxy.refuse()
        await self.proxy.accept()


def seen(message: dict[str, Any]) -> Seen:
    files = message.get("files") or []
    title = " ".join(file["title"] for file in files)
    ids = [file["id"] for file in files] or [message["ts"]]
    said = message.get("metadata", {}).get("event_payload", {})
    return Seen(id=ids[0], key=said.get(KEY_FIELD), text=f"{message['text']}{title}")


@asynccontextmanager
async def conversation(
    slack: Emulate, lookup: bool, in_thread: bool
) -> AsyncIterator[Harness]:
    room = slack.room()
    thread = slack.says(room, "the root") if in_thread else None
    route = Route(channel="slack", conversation=room, thread=thread)
    async with CuttingProxy(slack.port) as proxy:
        yield Conversation(slack, proxy, route, lookup)


NAMES = {check.__name__ for check in CHECKS}
LEFT_OUT = {name for name in NAMES if name.startswith("a_key_")} | {
    "a_rate_limit_is_told_and_not_waited_out"
}
CRASHES = {name for name in NAMES if "each_part_is_there_once" in name}
KINDS = {"lookup": (True, False), "thread": (True, True), "editable": (False, False)}
RUNS = [
    (check, kind)
    for kind in KINDS
    for check in CHECKS
    if kind == "lookup" or check.__name__ in CRASHES
]


@pytest.mark.case("B02", "B06", "C14", "D12", "D17")
@pytest.mark.parametrize(("check", "kind"), RUNS)
async def test_the_slack_channel_keeps_its_contract(
    check: Check, kind: str, emulate: Emulate
) -> None:
    lookup, in_thread = KINDS[kind]
    result = await run_check(check, partial(conversation, emulate, lookup, in_thread))
    assert bool(result.left_out) == (check.__name__ in LEFT_OUT), result
