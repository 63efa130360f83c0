"""Becoming the owner of a store, standing by, and noticing commands of others.

The lock decides who works. A kernel that does not get it still accepts, enqueues and
aborts through the inbox, and takes over the moment the owner is dead.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from turnfold.errors import NotOpenError, StoreError
from turnfold.ports.store import Doorbell, Owner, Ownership, Store
from turnfold.upkeep import Upkeep

_LOG = logging.getLogger("turnfold")
_POLL_S = 0.25  # behind the doorbell, for rings that were lost


class Worker:
    """`promote(owner)` is called once, when this kernel becomes the worker; `depose()`
    when it has lost that right. `rung()` is called at every ring and poll; `replaced()`
    says that another owner has written. `position()` tells appends from idleness."""

    def __init__(
        self,
        store: Store,
        upkeep: Upkeep,
        promote: Callable[[Owner], Awaitable[None]],
        depose: Callable[[], None],
        rung: Callable[[], Awaitable[None]],
        replaced: Callable[[], str | None],
        position: Callable[[], int],
    ) -> None:
        self._store, self.upkeep = store, upkeep
        self._promote, self._depose, self._rung = promote, depose, rung
        self._replaced, self._position = replaced, position
        self.ownership: Ownership = store.ownership()
        self._doorbell: Doorbell = store.doorbell()
        self._tasks: list[asyncio.Task[None]] = []
        self._stop_listening: Callable[[], None] | None = None
        self._rings = asyncio.Event()
        self.working = False
        self.fences_lost = 0

    async def start(self) -> None:
        """Take the lock now if it is free, else stand by."""
        if not await self._try():
            self._tasks.append(asyncio.create_task(self._stand_by()))

    async def _try(self) -> bool:
        owner = await self.ownership.take()
        if owner is None:
            return False
        try:
            self._stop_listening = self._doorbell.listen(self._rings.set)
            await self._promote(owner)
        except BaseException:
            self._quiet()
            self.ownership.release()  # or nobody could ever work on this store again
            raise
        self.working = True
        self._rings.set()  # commands may lie in the inbox already
        self._tasks += [
            asyncio.create_task(self._watch()),
            asyncio.create_task(self._tend()),
        ]
        return True

    async def _stand_by(self) -> None:
        while True:
            await self.ownership.wait()
            try:
                if await self._try():
                    return
            except StoreError as exc:
                _LOG.warning("cannot take over %s: %s", self._store.address, exc)
                await asyncio.sleep(_POLL_S)

    async def _watch(self) -> None:
        """Look at the inbox at every ring, and a few times a second."""
        while True:
            try:
                async with asyncio.timeout(_POLL_S):
                    await self._rings.wait()
            except TimeoutError:
                pass  # the poll behind the doorbell
            self._rings.clear()
            if self.check_ownership():
                await self._hear()

    async def _hear(self) -> None:
        try:
            await self._rung()
        except (StoreError, NotOpenError) as exc:
            _LOG.warning("cannot read %s: %s", self._store.address, exc)

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(_POLL_S)
            if self.working:
                now = asyncio.get_running_loop().time()
                await self.upkeep.look(now, self._position())

    def check_ownership(self) -> bool:
        """Stop working if somebody else might, or does. Ownership is not taken again:
        restart the process. `health()["working"]` becomes False."""
        if not self.working:
            return False
        why = self._replaced()
        if why is None and not self.ownership.held:
            why = "the lock is not ours any more (was its file removed?)"
        if why is None:
            return True
        self.working = False
        self.fences_lost += 1
        self._quiet()
        address = self._store.address
        _LOG.error("no longer the worker of %s: %s; restart it", address, why)
        self._depose()
        return False

    def ring(self) -> None:
        """Wake the owner in another process."""
        self._doorbell.ring()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._quiet()

    def _quiet(self) -> None:
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None

    async def release(self) -> None:
        """After the last append: the next worker may begin."""
        try:
            if self.working:
                await self.upkeep.note_watermark()
        finally:
            self.working = False
            self.ownership.release()
