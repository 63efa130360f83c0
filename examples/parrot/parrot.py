"""A gateway of somebody else: it repeats what it hears, over a line printer.

Everything turnfold asks of it is here: a channel, a handler, and a place for the log.
"""

from typing import Protocol

from turnfold import (
    Accepted,
    Capabilities,
    DeliveryClass,
    FailureClass,
    Kernel,
    PartClass,
    Receipt,
    Rejected,
)


class Printer(Protocol):
    """A device that knows the sheets it has printed by the number we gave them."""

    async def print(self, number: str, text: str) -> bool: ...


class PrinterChannel:
    """The printer ignores a number that it has printed before: class `keyed`."""

    capabilities = Capabilities(
        parts={"text": PartClass(classes=(DeliveryClass.KEYED,))}, limit=80
    )

    def __init__(self, printer: Printer) -> None:
        self._printer = printer

    async def send(self, part, key, attempt):
        if not await self._printer.print(key, part.payload.text):
            return Rejected(failure=FailureClass.TRANSIENT, detail="out of paper")
        return Accepted(receipt=Receipt(ids=(key,)))


def make_gateway(store, printer: Printer, **options) -> Kernel:
    kernel = Kernel(store, **options)
    kernel.attach("printer", PrinterChannel(printer), on_unknown="hold")

    @kernel.on_turn
    async def repeat(turn):
        await turn.reply(turn.inbound.text)

    return kernel
