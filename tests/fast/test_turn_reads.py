"""How often one turn asks the store (decision 0064)."""

from typing import Any

from turnfold import Accepted, Inbound, Kernel, Receipt, TurnHandle
from turnfold._runtime.open_streams import OpenStreams
from turnfold.ports.store import Found, Wanted
from turnfold_adapters.stores.memory import MemoryStore


class Console:
    async def send(self, part: Any, key: str, attempt: object) -> Accepted:
        return Accepted(receipt=Receipt(ids=(key,)))


class Counting(MemoryStore):
    """A store that remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Wanted] = []

    async def fetch(self, wanted: Wanted) -> Found:
        self.asked.append(wanted)
        return await super().fetch(wanted)


def gateway(store: MemoryStore) -> Kernel:
    kernel = Kernel(store)
    kernel.attach("console", Console(), on_unknown="hold")

    @kernel.on_turn
    async def answer(turn: TurnHandle) -> None:
        await turn.reply(f"You said: {turn.inbound.text}")

    return kernel


async def settled(kernel: Kernel, number: int) -> None:
    message = Inbound(
        "console", conversation="42", message_id=str(number), body={"text": "hello"}
    )
    assert await (await kernel.accept(message)).settled() == "replied"


async def test_a_turn_asks_the_store_for_its_dedupe_key_alone() -> None:
    store = Counting()
    async with gateway(store) as kernel:
        await settled(kernel, 1)
        store.asked.clear()
        await settled(kernel, 2)
    keys = {key for wanted in store.asked for key in wanted.keys}
    assert keys == {"in:console/default/42/2/message"}
    assert len(store.asked) == 1


def test_what_is_not_known_of_a_turn_is_not_lacking() -> None:
    """A turn of an earlier process, or after a commit of unknown fate."""
    assert not OpenStreams().lacks("turn:1", "entry:1.final")
