"""Waiting for the end of a turn or an entry, in the process of its owner or in another."""

import asyncio
from collections.abc import Iterable

from turnfold._log.ids import ENTRY, TURN
from turnfold._runtime.driver import Driver
from turnfold._state.entry import Entry
from turnfold._state.fold import State
from turnfold._state.turn import Turn
from turnfold.api.portal import Home
from turnfold.enums import TurnOutcome
from turnfold.errors import NotFoundError, NotOpenError, OwnedError
from turnfold.messages import check_id, check_timeout
from turnfold.ports.store import Found, Store, Summary, Wanted

CLOSABLE = (Entry, Turn)  # a tuple: a union would be put together each time
_REST_POLL_S = 0.01
_CLIENT_POLL_S = 0.05  # a process that does not own the store hears of no commit


class Waiting:
    """The part of a Kernel that waits; the Kernel brings the means."""

    _home: Home
    _owns: bool
    _state: str
    _waiters: dict[str, list[asyncio.Future[State | None]]]

    @property
    def store(self) -> Store:
        """The open store. Raises NotOpenError."""
        raise NotImplementedError

    def _open_driver(self) -> Driver:
        raise NotImplementedError

    async def settled(
        self, stream: str, timeout_ms: int | None = None, *, key: str | None = None
    ) -> TurnOutcome | None:
        """Wait until a turn or an entry is closed. Returns the outcome of a turn, None
        for an entry. `timeout_ms`: how long, None for ever. `key`: the dedupe key of a
        message that another process posted as `stream`; the worker may have known it
        as another turn. Raises TimeoutError, NotFoundError and NotOpenError."""
        check_id("stream", stream)
        wait = check_timeout(timeout_ms)
        if wait is None:
            return await self._closed(stream, key)
        async with asyncio.timeout(wait / 1000):
            return await self._closed(stream, key)

    async def at_rest(self, timeout_ms: int | None = None) -> None:
        """Wait until nothing is open but what waits for a person: parked entries and
        held turns. What waits for a time, a gate, a channel or a handler is waited for.
        For tests, and for programs that end when their work is done. `timeout_ms`: how
        long, None for ever. Raises TimeoutError, NotOpenError, and OwnedError in a
        process that is not the worker."""
        wait = check_timeout(timeout_ms)
        self._home.check()
        async with asyncio.timeout(None if wait is None else wait / 1000):
            while not await self._rests():  # noqa: ASYNC110  no commit pays for it
                await asyncio.sleep(_REST_POLL_S)

    async def _rests(self) -> bool:
        driver = self._open_driver()
        if not self._owns:
            raise OwnedError(path=self.store.address, owner="another process")
        await driver.flusher.rested()
        if not driver.book.at_rest() or await self.store.inbox(1):
            return False
        await driver.flusher.rested()
        return driver.book.at_rest()

    async def _closed(self, stream: str, key: str | None) -> TurnOutcome | None:
        self._home.check()
        if not stream.startswith((ENTRY, TURN)):
            raise NotFoundError(what="turn or entry", id=stream)
        while self._state in ("open", "draining"):
            if self._owns:
                try:
                    state = await self._awaited(stream)
                except (NotFoundError, OwnedError):
                    pass  # it may lie in the inbox
                else:
                    if isinstance(state, CLOSABLE):
                        return state.outcome if isinstance(state, Turn) else None
                    continue
            row = await self._seen_closed(stream, key)
            if row is not None:
                return _outcome_in(row)
        raise NotOpenError(state=self._state)

    async def _awaited(self, stream: str) -> State | None:
        """The state of a stream once it is closed; None if the waiting was cut short.
        The waiter is there before the question, so no end can pass between them."""
        closed: asyncio.Future[State | None]
        closed = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(stream, [])
        waiters.append(closed)
        try:
            state = await self._open_driver().state(stream)
            if not isinstance(state, CLOSABLE):
                raise NotFoundError(what="turn or entry", id=stream)
            return await closed if state.open else state
        finally:
            _drop(waiters, closed)
            if not waiters and self._waiters.get(stream) is waiters:
                del self._waiters[stream]

    async def _seen_closed(self, stream: str, key: str | None) -> Summary | None:
        """For a stream that memory does not have, because another process owns the
        store or because the command that makes it lies in the inbox: its row when it is
        closed, or None after a short wait. Raises NotFoundError."""
        found = await self._look_from_outside(stream)
        row = found.summaries[stream]
        if row is None and stream not in found.waiting:
            # It left the inbox between two reads, or as a message that was known.
            row = await self._logged(stream, key)
        if row is not None and not row.open:
            return row
        await asyncio.sleep(_CLIENT_POLL_S)
        return None

    async def _look_from_outside(self, stream: str) -> Found:
        names = frozenset((stream,))
        return await self.store.fetch(Wanted(summaries=names, answers=names))

    async def _logged(self, stream: str, key: str | None) -> Summary | None:
        if key is not None:
            found = await self.store.fetch(Wanted(keys=frozenset((key,))))
            stream = found.keys[key] or stream
        row = (await self._look_from_outside(stream)).summaries[stream]
        if row is None:
            raise NotFoundError(what="turn or entry", id=stream)
        return row

    def _wake_all(self) -> None:
        for waiters in self._waiters.values():
            tell(waiters, None)
        self._waiters.clear()


def _outcome_in(row: Summary) -> TurnOutcome | None:
    """The outcome of a closed turn, as its summary says it."""
    if not row.stream.startswith(TURN) or row.reason is None:
        return None
    return TurnOutcome(row.reason)


def _drop(
    waiters: list[asyncio.Future[State | None]], waiter: asyncio.Future[State | None]
) -> None:
    if waiter in waiters:
        waiters.remove(waiter)


def tell(waiters: Iterable[asyncio.Future[State | None]], state: State | None) -> None:
    for waiter in waiters:
        if not waiter.done():  # else who waited was cancelled
            waiter.set_result(state)
