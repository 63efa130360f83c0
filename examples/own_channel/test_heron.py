"""Holds the channel to the checks of the shipped ones. A harness is the platform behind
it, with faults: here a fake that accepts a message, and breaks the connection before or
after that. In a clone, with the extra `dev`:

    python -m pytest examples/own_channel/test_heron.py
"""

import asyncio
from contextlib import asynccontextmanager

import pytest

from examples.own_channel.heron import HeronChannel, gateway
from turnfold import Capabilities, DeliveryClass, PartClass, Route
from turnfold_model import check_channel
from turnfold_model.checks.channel import Fault, Seen


class Heron:
    """The fake."""

    def __init__(self):
        self.messages, self.said, self.posts, self.faults = [], [], 0, []

    async def post(self, chat, text, tag):
        self.posts += 1
        fault = self.faults.pop(0) if self.faults else None
        if fault is Fault.CUT_BEFORE:
            raise ConnectionResetError
        message = {"id": f"h{self.posts}", "chat": chat, "text": text, "tag": tag}
        self.messages.append(message)
        if fault is Fault.CUT_AFTER:
            raise ConnectionResetError
        return message["id"]

    async def history(self, chat, since_ms):
        return [m for m in self.messages if m["chat"] == chat]

    async def updates(self, after):
        new = self.said[int(after or 0) :]
        await asyncio.sleep(0 if new else 0.02)
        return new

    def says(self, text):
        number = len(self.said) + 1
        update = {"number": number, "id": f"u{number}", "chat": "7", "from": "ann"}
        self.said.append({**update, "text": text})


class Quick(HeronChannel):
    """The checks wait for the settle time."""

    capabilities = Capabilities(
        parts={"text": PartClass(classes=(DeliveryClass.LOOKUP,), settle_ms=50)},
        limit=1_000,
    )


class Harness:
    faults = (Fault.CUT_AFTER, Fault.CUT_BEFORE)
    route = Route(channel="heron", conversation="7")

    def __init__(self):
        self.api = Heron()

    def channel(self):
        return Quick(self.api)

    async def witness(self):
        shown = self.api.messages
        return [Seen(id=m["id"], key=m["tag"], text=m["text"]) for m in shown]

    async def calls(self):
        return self.api.posts

    async def fault(self, kind, *, skip=0, times=1):
        self.api.faults += [None] * skip + [kind] * times

    async def heal(self):
        self.api.faults.clear()


@asynccontextmanager
async def harness():
    yield Harness()


def test_the_channel_keeps_the_contract():
    results = check_channel(harness)  # raises at the first that fails, by name
    assert [one for one in results if not one.left_out]


@pytest.mark.parametrize("lives", [1, 2])
def test_each_message_is_answered_once(tmp_path, lives):
    api = Heron()

    async def answer(turn):
        return f"You said: {turn.inbound.text}"

    async def life(number):
        api.said.append({"number": len(api.said) + 1})  # no message: a dead turn
        api.says(f"hello {number}")
        async with gateway(api, tmp_path / "heron.db", answer), asyncio.timeout(20):
            while len(api.messages) < number:  # noqa: ASYNC110  a fake has no event
                await asyncio.sleep(0.01)

    for number in range(1, lives + 1):
        asyncio.run(life(number))
    shown = [m["text"] for m in api.messages]
    assert shown == [f"You said: hello {n}" for n in range(1, lives + 1)]
