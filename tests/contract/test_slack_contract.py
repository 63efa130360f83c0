"""The Slack channel through the public checks of a channel, driven by the real slack_sdk
against our FAKE of Slack. tests/real does the same on the server of `emulate`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from tests.fakes.fake_slack import TOKEN, FakeSlack, Message
from tests.fakes.fake_slack import Fault as ApiFault

from turnfold import Route
from turnfold_adapters.channels.slack import SlackChannel
from turnfold_model.checks.channel import CHECKS, Check, Fault, Harness, Seen, run_check

_SCRIPTED = {
    Fault.CUT_AFTER: ApiFault.CUT_AFTER,
    Fault.CUT_BEFORE: ApiFault.CUT_BEFORE,
    Fault.SILENT: ApiFault.SILENT,
    Fault.RATE_LIMITED: ApiFault.RATE_LIMITED,
    Fault.REJECTED: ApiFault.ARCHIVED,
}
PLACEHOLDER = "\u2026"


class Conversation:
    """A conversation with the fake. The words, and the titles of files, tell the
    messages apart."""

    faults = tuple(Fault)

    def __init__(self, slack: FakeSlack, *, lookup: bool, thread: str | None) -> None:
        self.slack, self.lookup = slack, lookup
        self.route = Route(channel="slack", conversation="C42", thread=thread)

    def channel(self) -> SlackChannel:
        return SlackChannel(
            TOKEN,
            base_url=self.slack.base_url,
            lookup=self.lookup,
            settle_ms=50,
            connect_timeout_ms=2_000,
        )

    async def witness(self) -> list[Seen]:
        shown = [m for m in self.slack.own() if m.text != PLACEHOLDER]
        return [seen(message) for message in shown]

    async def calls(self) -> int:
        return self.slack.visible_calls()

    async def fault(self, kind: Fault, *, skip: int = 0, times: int = 1) -> None:
        if kind is Fault.REFUSED:
            self.slack.stop()
        else:
            self.slack.script(*[None] * skip, *[_SCRIPTED[kind]] * times)

    async def heal(self) -> None:
        self.slack.stop()
        self.slack.start()


def seen(message: Message) -> Seen:
    title = " ".join(file["title"] for file in message.files)
    ids = [file["id"] for file in message.files] or [message.ts]
    return Seen(id=ids[0], text=f"{message.text}{title}")


@asynccontextmanager
async def conversation(lookup: bool, in_thread: bool) -> AsyncIterator[Harness]:
    with FakeSlack() as slack:
        thread = slack.says("C42", "hello") if in_thread else None
        yield Conversation(slack, lookup=lookup, thread=thread)


KINDS = {
    "lookup": (True, False),
    "lookup_in_a_thread": (True, True),
    "editable": (False, False),
}
NO_KEYS = {check.__name__ for check in CHECKS if check.__name__.startswith("a_key_")}
NO_LOOKUPS = {
    "what_was_accepted_is_found",
    "what_was_accepted_without_an_answer_is_found",
    "what_never_arrived_is_absent_even_beside_its_twin",
    "a_platform_that_cannot_be_reached_tells_nothing",
}


@pytest.mark.case("B02", "B06", "C14", "D12")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_slack_channel_keeps_its_contract(check: Check, kind: str) -> None:
    lookup, in_thread = KINDS[kind]
    result = await run_check(check, partial(conversation, lookup, in_thread))
    left_out = NO_KEYS if lookup else NO_KEYS | NO_LOOKUPS
    assert bool(result.left_out) == (check.__name__ in left_out), result
