"""A gateway of a common build, which knows nothing of turnfold: channels put messages on
a bus, an agent takes them off and puts its answers back, a manager hands them out. Queues
and tasks in memory: what is on its way when the process dies is lost.
"""

import asyncio
from dataclasses import dataclass


@dataclass
class Incoming:
    channel: str
    chat: str
    id: str
    sender: str
    text: str


@dataclass
class Outgoing:
    channel: str
    chat: str
    text: str


class Offline(Exception):  # noqa: N818  its authors call it so
    """A channel has no connection: nothing was sent."""


class Bus:
    def __init__(self):
        self.inbound = asyncio.Queue()
        self.outbound = asyncio.Queue()

    async def publish_inbound(self, message):
        await self.inbound.put(message)

    async def publish_outbound(self, message):
        await self.outbound.put(message)


class ChannelManager:
    """`channels`: name -> an object with `send(message)`, which returns nothing, and
    raises Offline if it did not get through to its platform."""

    def __init__(self, bus, channels):
        self.bus, self.channels = bus, channels

    async def run(self):
        while True:
            message = await self.bus.outbound.get()
            await self.channels[message.channel].send(message)


class Agent:
    def __init__(self, bus, think):
        self.bus, self.think = bus, think

    async def process(self, message):
        words = await self.think(message.text)
        return Outgoing(message.channel, message.chat, words)

    async def run(self):
        while True:
            answer = await self.process(await self.bus.inbound.get())
            await self.bus.publish_outbound(answer)
