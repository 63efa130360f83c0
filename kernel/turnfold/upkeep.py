"""The maintenance that a worker gives its store beside the work, and when.

Nothing of it is on the path of a message. While appends come, only the watermark is
moved on now and then; the rest waits until none has come for a second. A failure is
logged once and tried again; it stops no work.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from turnfold.errors import NotOpenError, StoreError
from turnfold.ports.store import Maintenance, Watermark

IDLE_S = 1.0
MARK_S = 5.0  # while busy: writing and syncing a file delays some message

_LOG = logging.getLogger("turnfold")


class Upkeep:
    """`maintenance` is None for a store that needs none. `store_id` names the store in
    its watermark; while it cannot be read, no watermark is written."""

    def __init__(
        self,
        maintenance: Maintenance | None,
        address: str,
        store_id: Callable[[], str | None],
    ) -> None:
        self._does, self._address, self._store_id = maintenance, address, store_id
        self._seen = -1
        self._since = 0.0
        self._marked = float("-inf")
        self._swept = False
        self._trusted = False
        self._rested = False
        self.owing = False
        self.trouble: Exception | None = None

    async def look(self, now: float, position: int) -> None:
        """Call it a few times a second, with a time that only goes forward."""
        if position != self._seen:
            self._seen, self._since, self._rested = position, now, False
            if now - self._marked >= MARK_S:
                self._marked = now
                await self.note_watermark()
        elif not self._rested and now - self._since >= IDLE_S:
            self._since = now  # the rest waits for another such time
            self._rested = await self._rest()

    async def _rest(self) -> bool:
        """True if everything is done until the next append."""
        # The checkpoint first: at a weaker `synchronous` only that makes it durable.
        done = [
            await self._checkpoint(),
            await self.note_watermark(),
            await self._sweep(),
        ]
        return all(done)

    async def erase(self) -> bool:
        """Finish an erasing now if nobody reads an older state; else when idle."""
        if await self._checkpoint():
            return True
        self.owing, self._rested = True, False
        return False

    async def note_watermark(self) -> bool:
        """Note outside the log how far it has got; also the last thing of a worker."""
        store_id, does = self._store_id(), self._does
        if does is None or store_id is None or not self._trusted:
            return True
        return await self._try(lambda: does.note_watermark(store_id))

    async def lost_history(self, store_id: str | None) -> Watermark | None:
        """The watermark, if the log that it speaks of is not the one that is here: then
        an older copy was put in its place. Raises StoreError. `store_id`: of the log.

        A watermark of another store is a leftover. A copy that was made together with
        its watermark cannot be told from the original.
        """
        if self._does is None:
            return None
        mark = await self._does.watermark()
        if mark is None or mark.store != store_id:
            return None
        return None if await self._does.contains_head(mark.head) else mark

    def trust(self) -> None:
        """The log is the one that the watermark speaks of, or the consequences of the
        difference are stored: only now may the watermark be replaced."""
        self._trusted = True

    async def _checkpoint(self) -> bool:
        does, left = self._does, [False]
        if does is None:
            return True

        async def checkpoint() -> None:
            left[0] = not await does.checkpoint()

        if not await self._try(checkpoint):
            return False
        self.owing = self.owing and left[0]
        return not left[0]

    async def _sweep(self) -> bool:
        """Once per worker: only a process that died leaves something behind."""
        if not self._swept and self._does is not None:
            self._swept = await self._try(self._does.sweep)
        return self._swept or self._does is None

    async def _try(self, work: Callable[[], Awaitable[Any]]) -> bool:
        try:
            await work()
        except (StoreError, NotOpenError) as exc:
            if str(exc) != str(self.trouble):
                _LOG.warning("upkeep of %s: %s", self._address, exc)
            self.trouble = exc
            return False
        self.trouble = None
        return True
