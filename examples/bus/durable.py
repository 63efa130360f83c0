"""The gateway of `gateway.py`, made durable behind its bus. Its channels, its manager and
its agent stay as they are; their `run` loops are not needed any more.
"""

from dataclasses import asdict

from examples.bus.gateway import Incoming, Offline, Outgoing
from turnfold import Accepted, Capabilities, Inbound, Receipt, Rejected


class Outlet:
    capabilities = Capabilities(gives_ids=False)

    def __init__(self, channel):
        self.channel = channel

    async def send(self, part, key, attempt):
        out = Outgoing(part.route.channel, part.route.conversation, part.payload.text)
        await self.channel.send(out)
        return Accepted(receipt=Receipt())

    def classify(self, exc):
        return Rejected(failure="not_connected") if isinstance(exc, Offline) else None


def durable(bus, manager, agent, kernel):
    for name, channel in manager.channels.items():
        kernel.attach(name, Outlet(channel), on_unknown="hold")

    async def publish_inbound(m):
        at = {"conversation": m.chat, "message_id": m.id}
        await kernel.accept(Inbound(m.channel, **at, body=asdict(m)))

    @kernel.on_turn
    async def answer(turn):
        return (await agent.process(Incoming(**turn.inbound.body))).text

    bus.publish_inbound = publish_inbound
