"""The maintenance of a store by its worker, and its times.

No message waits for maintenance. While appends come, only the watermark is moved on
from time to time; the rest waits for a second without appends. A failure is logged once
and tried again; the work goes on.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from turnfold._runtime.lasting import Lasting
from turnfold.clock import Clock, Lived
from turnfold.errors import NotOpenError, OwnedError, StoreError
from turnfold.logs import lines
from turnfold.ports.store import (
    Doorbell,
    Maintenance,
    Owner,
    Ownership,
    Store,
    Watermark,
)

IDLE_S = 1.0
MARK_S = 5.0  # while busy: each write and sync of the file delays some message

ENDED = "a kernel of this process, whose event loop ended without close(); restart it"
STOPPED = "another worker lives, and its process is stopped; wake it with kill -CONT"

_LOG = lines()
_ANOTHER_STORE = (
    "%s: this is another store than the last one here, whose %s records are gone; if "
    "nobody removed it on purpose, stop and put a backup in its place"
)


class Upkeep:
    """`maintenance` is None for a store that needs none. `store_id` names the store in
    its watermark; while it cannot be read, no watermark is written."""

    def __init__(
        self,
        maintenance: Maintenance | None,
        address: str,
        store_id: Callable[[], str | None],
        clock: Clock,
    ) -> None:
        self._does, self._address, self._store_id = maintenance, address, store_id
        self._clock = clock
        self._noted: Lived | None = None
        self._seen = -1
        self._since = 0.0
        self._marked = float("-inf")
        self._swept = False
        self._trusted = False
        self._rested = False
        self.owing = False
        self._troubles: dict[str, Exception] = {}  # by kind of work

    async def look(self, now: float, position: int) -> None:
        """Do the maintenance that is due. Call this a few times a second, with a
        monotonic time."""
        if self.has_news or (position != self._seen and now - self._marked >= MARK_S):
            self._marked = now
            await self.note_watermark()
        if position != self._seen:
            self._seen, self._since, self._rested = position, now, False
        elif not self._rested and now - self._since >= IDLE_S:
            self._since = now  # the rest waits that long again
            self._rested = await self._rest()

    @property
    def trouble(self) -> Exception | None:
        """Why some of the maintenance fails; None if it does not."""
        return next(iter(self._troubles.values()), None)

    @property
    def has_news(self) -> bool:
        """Must the watermark tell a later life under this boot how this one counts
        time?"""
        return self._trusted and self._noted != self._clock.lived

    async def _rest(self) -> bool:
        """True if everything is done until the next append."""
        # The checkpoint first: at a weaker `synchronous` only a checkpoint makes
        # commits durable.
        done = [
            await self._checkpoint(),
            await self.note_watermark(),
            await self._sweep(),
        ]
        return all(done)

    async def erase(self) -> bool:
        """Finish an erasing now if no reader uses an older state; else when idle."""
        if await self._checkpoint():
            return True
        self.owing, self._rested = True, False
        return False

    async def note_watermark(self) -> bool:
        """Note the head of the log outside the log; a worker also does this at its
        end."""
        store_id, does = self._store_id(), self._does
        if does is None or store_id is None or not self._trusted:
            return True
        self._noted = lived = self._clock.lived
        return await self._try("mark", lambda: does.note_watermark(store_id, lived))

    async def lived(self, store_id: str | None) -> Lived | None:
        """The time that an older life of this boot has noted. Raises StoreError."""
        mark = None if self._does is None else await self._does.watermark()
        if mark is None or mark.store != store_id:
            return None
        self._noted = mark.lived
        return mark.lived

    async def lost_history(self, store_id: str | None) -> Watermark | None:
        """The watermark, if it does not fit this log: then an older copy was put in the
        place of the store, or the database server went on from a copy that may lack
        commits. Raises StoreError. `store_id`: of the log.

        A watermark of another store is a leftover, which only the log tells of. A copy
        that was made together with its watermark cannot be recognised.
        """
        if self._does is None:
            return None
        mark = await self._does.watermark()
        if mark is not None and mark.failover is not None:
            return mark
        if mark is None:
            return None
        if mark.store != store_id:
            _LOG.warning(_ANOTHER_STORE, self._address, mark.head.position)
            return None
        return None if await self._does.contains_head(mark.head) else mark

    def trust(self) -> None:
        """The watermark fits the log, or the consequences of the difference are stored:
        only now may the watermark be replaced."""
        self._trusted = True

    async def _checkpoint(self) -> bool:
        does, left = self._does, [False]
        if does is None:
            return True

        async def checkpoint() -> None:
            left[0] = not await does.checkpoint()

        if not await self._try("checkpoint", checkpoint):
            return False
        self.owing = self.owing and left[0]
        return not left[0]

    async def _sweep(self) -> bool:
        """Remove leftovers of dead processes, once per worker."""
        if not self._swept and self._does is not None:
            self._swept = await self._try("sweep", self._does.sweep)
        return self._swept or self._does is None

    async def _try(self, what: str, work: Callable[[], Awaitable[Any]]) -> bool:
        try:
            await work()
        except (StoreError, NotOpenError) as exc:
            if str(exc) not in map(str, self._troubles.values()):
                text = "maintenance of %s failed; trying again: %s"
                _LOG.warning(text, self._address, exc)
            self._troubles[what] = exc
            return False
        self._troubles.pop(what, None)
        return True


# --- Becoming the owner of a store, standing by, and reading commands of others ---


POLL_S = 0.25  # besides the doorbell, for lost rings


class Worker:
    """`promote(owner)` is called once, when this kernel becomes the worker; `depose()`
    when it has lost that right. `rung(True)` is called at every ring, `rung(False)` at
    every poll. `replaced()` returns why another owner has replaced this one, or None.
    `position()` shows if appends came. `advice`: what to do after a loss, for the log."""

    def __init__(
        self,
        store: Store,
        upkeep: Upkeep,
        promote: Callable[[Owner], Awaitable[None]],
        depose: Callable[[], None],
        rung: Callable[[bool], Awaitable[None]],
        replaced: Callable[[], str | None],
        position: Callable[[], int],
        advice: str,
    ) -> None:
        self._store, self.upkeep, self._advice = store, upkeep, advice
        self._promote, self._depose, self._rung = promote, depose, rung
        self._replaced, self._position = replaced, position
        self.ownership: Ownership = store.ownership()
        self._doorbell: Doorbell = store.doorbell()
        self._tasks: list[Lasting] = []
        self._stop_listening: Callable[[], None] | None = None
        self._rings = asyncio.Event()
        self.working = False
        self.fences_lost = 0
        self._stands_by = False
        self._told = ""  # the last error of the store in the log

    async def start(self) -> None:
        """Take the lock now if it is free, else stand by. Raises OwnedError if nobody
        can ever let go of it."""
        if await self._try():
            return
        if self.ownership.ended:
            raise OwnedError(path=self._store.address, owner=ENDED)
        self._stands_by = True
        self._tasks.append(Lasting("standing by", self._stand_by))

    @property
    def standing_by(self) -> str | None:
        """Why this kernel does not work; None if it does, or gave the work up."""
        if not self._stands_by or self.working:
            return None
        if self.ownership.ended:
            return ENDED
        return STOPPED if self.ownership.stopped else "another worker lives"

    async def _try(self) -> bool:
        owner = await self.ownership.take()
        if owner is None:
            return False
        try:
            self._stop_listening = self._doorbell.listen(self._rings.set)
            await self._promote(owner)
        except BaseException:
            self._quiet()
            self.ownership.release()  # else no process could ever own this store
            raise
        self.working = True
        self._rings.set()  # the inbox may have commands already
        self._tasks += [
            Lasting("the look into the inbox", self._watch),
            Lasting("the upkeep of the store", self._tend),
        ]
        return True

    async def _stand_by(self) -> None:
        while True:
            await self.ownership.wait()
            try:
                if await self._try():
                    return
                self._told = ""
            except StoreError as exc:
                self._tell("cannot take over %s; trying again: %s", exc)
                await asyncio.sleep(POLL_S)

    async def _watch(self) -> None:
        """Read the inbox at every ring, and a few times a second."""
        while True:
            with suppress(TimeoutError):  # the poll besides the doorbell
                async with asyncio.timeout(POLL_S):
                    await self._rings.wait()
            ring = self._rings.is_set()
            self._rings.clear()
            if self.check_ownership():
                await self._hear(ring)

    async def _hear(self, ring: bool) -> None:
        try:
            await self._rung(ring)
            self._told = ""
        except (StoreError, NotOpenError) as exc:
            self._tell("cannot read %s; trying again: %s", exc)

    def _tell(self, text: str, error: Exception) -> None:
        """Once, though it is found again at each poll."""
        if str(error) != self._told:
            self._told = str(error)
            _LOG.warning(text, self._store.address, error)

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            if self.working:
                now = asyncio.get_running_loop().time()
                await self.upkeep.look(now, self._position())

    def check_ownership(self) -> bool:
        """Stop working if another process works on the store, or may do so. This kernel
        takes no ownership again. `health()["working"]` becomes False."""
        if not self.working:
            return False
        why = self._replaced()
        if why is None and not self.ownership.held:
            why = "this process has lost its lock, lease or files"
        if why is None:
            return True
        self.working = False
        self.fences_lost += 1
        self._quiet()
        address = self._store.address
        _LOG.error("no longer the worker of %s: %s; %s", address, why, self._advice)
        self._depose()
        return False

    def wake(self) -> None:
        """As a ring of the doorbell."""
        self._rings.set()

    def ring(self) -> None:
        """Wake the owner in another process."""
        self._doorbell.ring()

    async def stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        await asyncio.gather(*[task.stop() for task in tasks])
        self._quiet()

    def _quiet(self) -> None:
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None

    async def release(self) -> None:
        """Release the store after the last append: the next worker may begin."""
        try:
            if self.working:
                await self.upkeep.note_watermark()
        finally:
            self.working = False
            self.ownership.release()
