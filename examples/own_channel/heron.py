"""A whole gateway for an invented platform, Heron. Its updates are polled, so that there
is a source; its history shows the tag of each message, so that what is in doubt is
looked up. `api` is the client: post, history and updates.
"""

from turnfold import (
    Absent,
    Accepted,
    CannotTell,
    Capabilities,
    DeliveryClass,
    Found,
    Inbound,
    Kernel,
    PartClass,
    Receipt,
)

CLASS = PartClass(classes=(DeliveryClass.LOOKUP,), settle_ms=30_000)


class HeronChannel:
    capabilities = Capabilities(parts={"text": CLASS}, limit=1_000)

    def __init__(self, api):
        self.api = api

    async def send(self, part, key, attempt):
        chat, text = part.route.conversation, part.payload.text
        ident = await self.api.post(chat, text, tag=key)
        return Accepted(receipt=Receipt(ids=(ident,)))

    async def reconcile(self, part, since_ms):
        """Was it accepted? Absent only if the whole history since then was read."""
        try:
            history = await self.api.history(part.route.conversation, since_ms)
        except OSError as exc:
            return CannotTell(detail=str(exc))
        for message in history:
            if message["tag"] == part.key:
                return Found(receipt=Receipt(ids=(message["id"],)))
        return Absent()

    async def source(self, cursor):
        """Yield each update with the cursor that stands behind it. The kernel asks for
        the next one when this one is durable, and begins at the last cursor after a
        restart. What this raises is logged, and it is started again."""
        while True:
            for update in await self.api.updates(after=cursor):  # waits for one
                cursor = str(update["number"])
                yield update, cursor

    def read(self, update):
        """None: no message. What this cannot read becomes a dead turn, which a person
        can have read again, and the source goes on."""
        return Inbound(
            "heron",
            conversation=update["chat"],
            message_id=update["id"],
            sender=update["from"],
            body=update,
        )


def gateway(api, store, handler):
    """`handler` takes a turn and returns the answer; run it with `.run()`."""
    kernel, heron = Kernel(store), HeronChannel(api)
    kernel.attach("heron", heron, on_unknown="hold")
    kernel.source("heron", heron.source, read=heron.read)
    kernel.on_turn(handler)
    return kernel
