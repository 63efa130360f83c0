"""Becoming the worker of a store, standing by, and noticing what others append.

The lock decides who works. A kernel that does not get it still accepts, enqueues and
aborts, and takes over the moment the owner is dead.
"""

import asyncio
import logging
from collections.abc import Callable

from turnfold.book import Book
from turnfold.decide.draft import Fence
from turnfold.errors import NotOpenError, StoreError
from turnfold.fold import STORE
from turnfold.machines.ledger import StoreState
from turnfold.ports.store import Doorbell, Owner, Ownership, Store
from turnfold.upkeep import Upkeep

_LOG = logging.getLogger("turnfold")
_POLL_S = 0.25  # behind the doorbell, for rings that were lost
_CLIENT_POLL_S = 0.05  # a client that waits for an end has no doorbell


class Worker:
    """`promote(fence)` is called once, when this kernel becomes the worker; `depose()`
    when it has lost that right; `refresh()` whenever others may have appended; `land()`
    before the writing side of the store is used: a transaction may be on its way."""

    def __init__(
        self,
        store: Store,
        book: Book,
        promote: Callable[[Fence], None],
        depose: Callable[[], None],
        refresh: Callable[[], None],
        land: Callable[[], None],
    ) -> None:
        self._store, self._book, self._land = store, book, land
        self._promote, self._depose, self._refresh = promote, depose, refresh
        self.upkeep = Upkeep(store, self._store_id, land)
        self._ownership: Ownership = store.ownership()
        self._doorbell: Doorbell = store.doorbell()
        self._tasks: list[asyncio.Task[None]] = []
        self._silence: Callable[[], None] | None = None
        self.fence: Fence | None = None
        self.fences_lost = 0

    def start(self, *, work: bool) -> None:
        """Take the lock now if it is free, else stand by (`work`), or only watch."""
        if work and not self._try():
            self._tasks.append(asyncio.create_task(self._stand_by()))
        self._tasks.append(asyncio.create_task(self._watch()))

    def _try(self) -> bool:
        self._land()
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
        self.fence = Fence(epoch=self._epoch() + 1, owner=owner.id)
        self._promote(self.fence)

    def _epoch(self) -> int:
        state = self._book.state(STORE)
        return state.epoch if isinstance(state, StoreState) else 0

    def _store_id(self) -> str | None:
        state = self._book.state(STORE)
        return state.id if isinstance(state, StoreState) else None

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
            self.check_seat()
            now, position = asyncio.get_running_loop().time(), self._book.position
            self.upkeep.look(now, position, worker=self.fence is not None)

    def check_seat(self) -> None:
        """Stop working if somebody else might, or does. It is not taken up again: what
        took it away needs a person, and `health` says so."""
        fence = self.fence
        if fence is None:
            return
        if not self._ownership.held:
            why = "the lock is not ours any more (was its file removed?)"
        elif self._epoch() > fence.epoch:
            why = f"a worker of epoch {self._epoch()} has written"
        else:
            return
        self.fence = None
        self.fences_lost += 1
        self._quieten()
        address = self._store.address
        _LOG.error("no longer the worker of %s: %s; restart it", address, why)
        self._depose()

    def _changed(self) -> bool:
        self._land()
        try:
            return self._store.changed()
        except NotOpenError:  # in doubt after a failed commit: a refresh opens it again
            return True

    def _rung(self, *, always: bool = True) -> None:
        try:
            if always or self._changed():
                self._refresh()
        except (StoreError, NotOpenError) as exc:
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
        try:
            if self.fence is not None:
                self.upkeep.mark()
        finally:
            self.fence = None
            self._ownership.release()
