"""How a kernel lets go of its store, at the end of closing.

A call of a channel that ignores its cancellation counts as alive (specs/design.md 1): it
could still land after the next worker has looked and found nothing. So closing does not
wait for it, and keeps the store until it has ended.
"""

import asyncio

from turnfold._runtime.calls import Calls
from turnfold._runtime.channel import close_channels
from turnfold._runtime.driver import Driver
from turnfold._runtime.lasting import Lasting
from turnfold._runtime.worker import Worker
from turnfold.api.plugins import PluginStates
from turnfold.api.telling import (
    say_closed,
    say_kept,
    say_kept_for_good,
    say_released,
)
from turnfold.api.waiting import Waiting
from turnfold.errors import OwnedError
from turnfold.logs import lines

_LOG = lines()
# The last steps of closing, put off while calls hang; nobody else holds these tasks.
_RESTS: set[asyncio.Task[None]] = set()
# Kernels whose store is released by the end of the process and by nothing else.
_KEPT: list["Releasing"] = []


class Releasing(PluginStates, Waiting):
    """The part of a kernel that releases its store and its channels."""

    _calls: Calls
    _driver: Driver | None
    _watching: list[Lasting]
    _rest: asyncio.Task[None] | None = None  # of closing, while calls hang

    async def _let_go(self, worker: Worker | None) -> None:
        """Each step is done even if an earlier one fails."""
        self._owns = False
        await asyncio.gather(*[task.stop() for task in self._watching])
        try:
            if worker is not None:
                await worker.stop()
                await self._release(worker)
        finally:
            self._state = "closed"
            say_closed(self.store.address)
            try:
                await close_channels(self._calls, self._desks.values())
            finally:
                if self.keeps_store:
                    self._wake_all()
                else:
                    await self._leave()

    async def _release(self, worker: Worker) -> None:
        """Release the store, or keep it while a call of a channel hangs: it could still
        land after the next worker has looked and found nothing."""
        if not self._hanging():
            await worker.release()
            return
        say_kept(self.store.address, self.hung)
        self._rest = asyncio.create_task(self._release_later(worker))
        _RESTS.add(self._rest)
        self._rest.add_done_callback(self._has_released)

    async def _release_later(self, worker: Worker) -> None:
        while hanging := self._hanging():
            await asyncio.wait(hanging)
        try:
            await worker.release()
        finally:
            await self._leave()
        say_released(self.store.address)

    def _has_released(self, rest: asyncio.Task[None]) -> None:
        _RESTS.discard(rest)
        if rest.cancelled():  # with the loop; the call may go on in a thread
            _KEPT.append(self)
            say_kept_for_good(self.store.address)
        elif (error := rest.exception()) is not None:
            _LOG.error("%s was not released in order: %s", self.store.address, error)

    def _check_released(self) -> None:
        """Raises OwnedError if this kernel was closed and still keeps its store."""
        if self.keeps_store:
            calls = f"{self.hung} call(s) of channels have not ended"
            owner = f"this process, in which {calls}"
            raise OwnedError(path=self.store.address, owner=owner)

    @property
    def hung(self) -> int:
        """Calls of channels that were cut off and have not ended, also after it is
        closed."""
        return len(self._hanging())

    def _hanging(self) -> list[asyncio.Task[None]]:
        listening = self._driver.sender.hung.values() if self._driver else ()
        return [task for task in listening if not task.done()]

    @property
    def keeps_store(self) -> bool:
        """Is it closed, and its store not released, since calls of channels hang?"""
        return self._rest is not None and (not self._rest.done() or self in _KEPT)

    async def _leave(self) -> None:
        self._close_plugins()
        try:
            await self.store.close()
        finally:
            self._wake_all()
            self._home.leave()
