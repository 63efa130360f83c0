"""A channel stays attached, and the client inside of it is swapped (decision 0043)."""

import asyncio

import pytest

from turnfold import Accepted, InvalidInputError, Kernel, Receipt, Route
from turnfold.enums import Status
from turnfold.ports.channel import Attempt, Outcome, Part
from turnfold_adapters.stores.memory import MemoryStore
from turnfold_model.testing.gateway import until


class Client:
    """A connection that answers when it is let."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.answers = asyncio.Event()

    async def post(self, part: Part) -> str:
        self.got.append(part.payload.text)  # type: ignore[union-attr]  the test sends texts
        await self.answers.wait()
        return f"m{len(self.got)}"


class Chat:
    def __init__(self, client: Client) -> None:
        self.client = client

    async def send(self, part: Part, key: str, attempt: Attempt) -> Outcome:
        return Accepted(receipt=Receipt(ids=(await self.client.post(part),)))


async def test_what_waits_goes_by_the_new_client_and_what_is_under_way_by_the_old() -> (
    None
):
    old, new = Client(), Client()
    new.answers.set()
    chat, route = Chat(old), Route(channel="chat", conversation="1")
    kernel = Kernel(MemoryStore())
    kernel.attach("chat", chat, on_unknown="hold")
    async with kernel:
        first = await kernel.enqueue(route, "first")
        await until(lambda: old.got == ["first"])
        await kernel.disconnected("chat")
        second = await kernel.enqueue(Route(channel="chat", conversation="2"), "second")
        (gate,) = kernel.health()["gates"]
        assert "connected" in str(gate)
        chat.client = new
        old.answers.set()
        assert await first.settled(2_000) is Status.DELIVERED
        await kernel.connected("chat")
        assert await second.settled(2_000) is Status.DELIVERED
    assert (old.got, new.got) == (["first"], ["second"])


def test_a_second_attach_says_what_to_do() -> None:
    kernel = Kernel(MemoryStore())
    kernel.attach("chat", Chat(Client()), on_unknown="hold")
    with pytest.raises(InvalidInputError, match=r"swap the client .* disconnected\(\)"):
        kernel.attach("chat", Chat(Client()), on_unknown="hold")
