"""Becoming the worker of a store, standing by, and noticing what others append.

The lock decides who works. A kernel that does not get it still accepts, enqueues and
aborts, and takes over the moment the owner is dead.
"""

import asyncio
import logging
from collections.abc import Callable

from turnfold.book import Book
from turnfold.decide.draft import Fence
from turnfold.errors import StoreError
from turnfold.fold import STORE
from turnfold.machines.ledger import StoreState
from turnfold.ports.store import Doorbell, Owner, Ownership, Store

_LOG = logging.getLogger("turnfold")
_POLL_S = 0.25  # behind the doorbell, for rings that were lost
_CLIENT_POLL_S = 0.05  # a client that waits for an end has no doorbell


class Worker:
    """`promote(fence)` is called once, when this kernel becomes the worker;
    `refresh()` whenever others may have appended."""

    def __init__(
        self,
        store: Store,
        book: Book,
        promote: Callable[[Fence], None],
        refresh: Callable[[], None],
    ) -> None:
        self._store, self._book = store, book
        self._promote, self._refresh = promote, refresh
        self._ownership: Ownership = store.ownership()
        self._doorbell: Doorbell = store.doorbell()
        self._tasks: list[asyncio.Task[None]] = []
        self._silence: Callable[[], None] | None = None
        self.fence: Fence | None = None

    def start(self, *, work: bool) -> None:
        """Take the lock now if it is free, else stand by (`work`), or only watch."""
        if work and not self._try():
            self._tasks.append(asyncio.create_task(self._stand_by()))
        self._tasks.append(asyncio.create_task(self._watch()))

    def _try(self) -> bool:
        owner = self._ownership.take()
        if owner is None:
            return False
        try:
            self._begin(owner)
        except BaseException:
            self._quieten()
            self.release()  # or nobody could ever work on this store again
            raise
        return True

    def _begin(self, owner: Owner) -> None:
        self._silence = self._doorbell.listen(self._rung)
        self._refresh()  # who waits here for an end learns of it
        state = self._book.state(STORE)
        epoch = state.epoch if isinstance(state, StoreState) else 0
        self.fence = Fence(epoch=epoch + 1, owner=owner.id)
        self._promote(self.fence)

    async def _stand_by(self) -> None:
        while True:
            await self._ownership.wait()
            try:
                if self._try():
                    return
            except StoreError as exc:
                _LOG.warning("cannot take over %s: %s", self._store.address, exc)
                await asyncio.sleep(_POLL_S)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_POLL_S if self.fence else _CLIENT_POLL_S)
            self._rung(always=False)

    def _rung(self, *, always: bool = True) -> None:
        try:
            if always or self._store.changed():
                self._refresh()
        except StoreError as exc:
            _LOG.warning("cannot read %s: %s", self._store.address, exc)

    def ring(self) -> None:
        """Wake the worker, if it is somebody else."""
        if self.fence is None:
            self._doorbell.ring()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._quieten()

    def _quieten(self) -> None:
        if self._silence is not None:
            self._silence()
            self._silence = None

    def release(self) -> None:
        """After the last append: the next worker may begin."""
        self.fence = None
        self._ownership.release()
