"""Matrix as a platform to be killed on: a real Synapse, behind a proxy that cuts. The
rate limits are the proxy's: on a real server they need a clock."""

import asyncio
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from .cutting_proxy import CuttingProxy, Fault
from .synapse import Synapse, synapse_python

CHATS = 4
_FRESH_S = 0.3  # how often the rooms are read


class Matrix:
    """`synapse`: one that runs, with the users bot and alice; else one of its own."""

    def __init__(self, synapse: Synapse | None = None) -> None:
        self._given = synapse
        self._stack = ExitStack()
        self._shown: list[str] = []
        self._read_at = 0.0

    def __enter__(self) -> Self:
        synapse = self._given or self._stack.enter_context(_Own())
        self.bot, self.alice = (synapse.login(n, "KILLED") for n in ("bot", "alice"))
        self.proxy = self._stack.enter_context(_Proxy(synapse.port)).proxy
        self.rooms = [self._room() for _ in range(CHATS)]
        return self

    def __exit__(self, *_: object) -> None:
        for user in (self.bot, self.alice):
            user.leave_all()
        self._stack.close()

    def _room(self) -> str:
        room = self.alice.create_room(self.bot.user_id)
        self.bot.join(room)
        return room

    def facts(self) -> dict[str, str]:
        return {
            "HOMESERVER": self.proxy.base_url,
            "BOT_ID": self.bot.user_id,
            "BOT_DEVICE": self.bot.device_id,
            "BOT_TOKEN": self.bot.token,
        }

    def listened(self) -> bool:
        return any("since=" in one.path for one in self.proxy.seen)

    def says(self, chat: int, text: str) -> None:
        self.alice.say(self.rooms[chat - 1], text)

    def calls(self) -> int:
        return len(self.proxy.seen)

    def texts(self) -> list[str]:
        if time.monotonic() - self._read_at > _FRESH_S:
            events = (self.bot.events(r, self.bot.user_id) for r in self.rooms)
            self._shown = [one["content"]["body"] for room in events for one in room]
            self._read_at = time.monotonic()
        return self._shown

    def cut(self) -> None:
        self.proxy.plan(Fault.CUT_AFTER, path="/send/")

    def limit(self) -> None:
        self.proxy.plan(Fault.LIMITED, path="/send/")


class _Own:
    """A Synapse in a temporary folder."""

    def __enter__(self) -> Synapse:
        self.folder = tempfile.TemporaryDirectory()
        self.synapse = Synapse(Path(self.folder.name), synapse_python())
        self.synapse.start()
        for name in ("bot", "alice"):
            self.synapse.register(name)
        return self.synapse

    def __exit__(self, *_: object) -> None:
        self.synapse.stop()
        self.folder.cleanup()


class _Proxy:
    """The proxy on a loop of its own, in a thread."""

    def __init__(self, port: int) -> None:
        self.proxy = CuttingProxy(port)
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with self.proxy:
            self._up.set()
            await self._over.wait()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(20)
