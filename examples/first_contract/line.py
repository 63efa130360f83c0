"""An adapter that was written for another gateway: it sends, and returns nothing."""

import asyncio
import sys

from turnfold import FailureClass, Kernel, Native, Rejected, Route
from turnfold_adapters.bridges.first_contract import FirstContract, SaidNoError


class LineAdapter:
    """Three methods of the first contract. Nothing in here knows turnfold."""

    def __init__(self, out) -> None:
        self.out = out

    async def send_text(self, to, text, *, reply_to=None):
        print(f"to {to}: {text}", file=self.out)

    async def send_media(self, to, path):
        print(f"to {to}: a picture", file=self.out)

    async def send_payload(self, to, payload, *, thread=None):
        if len(payload["buttons"]) > 13:
            return {"ok": False, "error": "too many buttons"}
        print(f"to {to}: {payload['text']} {payload['buttons']}", file=self.out)
        return None


def classify(exception):
    """Only what surely was not sent may be Rejected."""
    if isinstance(exception, SaidNoError):
        return Rejected(failure=FailureClass.INVALID_PAYLOAD, detail=str(exception))
    return None  # nobody knows: the policy speaks


async def main(store, out=sys.stdout):
    kernel = Kernel(store)
    channel = FirstContract(LineAdapter(out), classify=classify, limit=500)
    kernel.attach("line", channel, on_unknown="hold")
    to = Route(channel="line", conversation="U42")
    async with kernel:
        words = await kernel.enqueue(to, "your table is ready")
        rich = await kernel.enqueue(
            to, Native({"text": "when?", "buttons": ["7", "8"]})
        )
        for one in (words, rich):
            await kernel.settled(one.entry_id, 5_000)


if __name__ == "__main__":
    asyncio.run(main("line.db"))
