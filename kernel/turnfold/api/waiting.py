"""Waiting for the end of a turn or an entry, in the process of its owner or in another."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial

from turnfold._log.ids import ENTRY, TURN
from turnfold._state.entry import Entry
from turnfold._state.fold import State
from turnfold._state.turn import Turn
from turnfold.api.sent import receipt_of
from turnfold.api.spread import Spread
from turnfold.enums import CLOSED, Phase, Status, TurnOutcome
from turnfold.errors import (
    NotFoundError,
    NotOpenError,
    NotYetError,
    OwnedError,
    TurnfoldError,
)
from turnfold.inspect.views import EntryView
from turnfold.messages import check_id, check_text, check_timeout
from turnfold.ports.channel import Receipt
from turnfold.ports.store import Found, Store, Summary, Wanted

CLOSABLE = (Entry, Turn)  # a tuple: a union would be put together each time
_REST_POLL_S = 0.01
_STATE_S = 1.0  # a store that fails must not make a wait longer than that


class Waiting(Spread):
    """The part of a Kernel that waits for ends."""

    _waiters: dict[str, list[asyncio.Future[State | None]]]

    async def settled(
        self, stream: str, timeout_ms: int | None = None, *, key: str | None = None
    ) -> TurnOutcome | Status:
        """Wait until a turn or an entry is closed. Returns the outcome of a turn, and
        the status of an entry: `delivered`, `failed_terminal` or `aborted`.
        `timeout_ms`: how long, None for ever. `key`: the dedupe key of a message that another process
        posted as `stream`; the worker may have known it as another turn. Raises
        NotYetError, which is a TimeoutError, NotFoundError and NotOpenError."""
        stream = check_id("stream", stream)
        if key is not None:
            key = check_text("key", key)
        wait = check_timeout(timeout_ms)
        if wait is None:
            return _end_in(await self._closed(stream, key))
        async with within(wait, stream, partial(self._stands, stream)):
            return _end_in(await self._closed(stream, key))

    async def receipt(
        self, entry: str, timeout_ms: int | None = None, *, key: str | None = None
    ) -> Receipt:
        """Wait for the platform's proof of an entry. Its `ids` are those of all parts.
        `timeout_ms`: how long, None for ever. `key`: the caller's key of a payload that
        another process posted as `entry`. Raises NotDeliveredError for an entry that
        ended undelivered or is parked, and the errors of `settled`."""
        entry = check_id("entry", entry)
        if key is not None:
            key = check_text("key", key)
        wait = check_timeout(timeout_ms)
        if not entry.startswith(ENTRY):
            raise NotFoundError(what="entry", id=entry)
        async with within(wait, entry, partial(self._stands, entry)):
            end = await self._closed(entry, key, parked=True)
            if isinstance(end, Summary):
                seen = await self.inspect.show(end.stream)
                assert isinstance(seen, EntryView)  # noqa: S101  by its name
                return receipt_of(seen)
        assert isinstance(end, Entry)  # noqa: S101  by its name
        return receipt_of(end)

    async def at_rest(self, timeout_ms: int | None = None) -> None:
        """Wait until every open entry and turn waits for a person: parked entries and
        held turns. An entry or a turn that waits for a time, a gate, a channel or a
        handler is not at rest. For tests, and for programs that end when their work is
        done. `timeout_ms`: how long, None for ever. Raises NotYetError, NotOpenError,
        and OwnedError in a process that is not the worker."""
        wait = check_timeout(timeout_ms)
        self._home.check()
        async with within(wait, "the work of this store", self._busy_with):
            while not await self._rests():  # noqa: ASYNC110  no commit pays for it
                await asyncio.sleep(_REST_POLL_S)

    async def _stands(self, stream: str) -> str:
        return await stands_at(self.store, stream)

    async def _busy_with(self) -> str:
        """The work that is left, for the error of a wait."""
        if self._shards is not None:
            return "some shard is at work"
        left = self._open_driver().book.open_streams()
        return f"{len(left)} are open, such as {', '.join(left[:3]) or 'none'}"

    async def _rests(self) -> bool:
        if self._shards is not None:
            return await self._shards.rests()
        driver = self._open_driver()
        if not self._owns:
            raise OwnedError(path=self.store.address, owner="another process")
        await driver.group_commit.rested()
        if not driver.book.at_rest() or await self.store.inbox(1):
            return False
        await driver.group_commit.rested()
        return driver.book.at_rest()

    async def _closed(
        self, stream: str, key: str | None, *, parked: bool = False
    ) -> Entry | Turn | Summary:
        """Wait until a stream is closed. `parked`: a parked entry counts, too."""
        self._home.check()
        if not stream.startswith((ENTRY, TURN)):
            raise NotFoundError(what="turn or entry", id=stream)
        if self._shards is not None:
            return await self._shards.closed(stream, key, parked=parked)
        found: Found | None = None
        while self._state in ("open", "draining"):
            if self._owns:
                try:
                    state = await self._awaited(stream, parked=parked)
                except (NotFoundError, OwnedError):
                    pass  # it may be in the inbox
                else:
                    if isinstance(state, CLOSABLE) and _over(state, parked=parked):
                        return state
                    continue
            new = found is None
            found = found or await self._mailbox.look(stream)
            row = await self._seen_closed(found, stream, key, parked=parked)
            if row is not None:
                return row
            found = await self._mailbox.news(stream, parked=parked, new=new)
        raise NotOpenError(state=self._state)

    async def _awaited(self, stream: str, *, parked: bool) -> State | None:
        """The state of a stream once it is closed, or parked if `parked`; None if the
        wait was cut short. The waiter is registered before the question, so no end is
        missed."""
        closed: asyncio.Future[State | None]
        closed = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(stream, [])
        waiters.append(closed)
        try:
            state = await self._open_driver().state(stream)
            if not isinstance(state, CLOSABLE):
                raise NotFoundError(what="turn or entry", id=stream)
            return state if _over(state, parked=parked) else await closed
        finally:
            _drop(waiters, closed)
            if not waiters and self._waiters.get(stream) is waiters:
                del self._waiters[stream]

    async def _seen_closed(
        self, found: Found, stream: str, key: str | None, *, parked: bool
    ) -> Summary | None:
        """The row of a closed stream that is not in memory: another process owns the
        store, or the command that makes the stream is in the inbox. None if it is not
        closed. Raises NotFoundError."""
        row = found.summaries[stream]
        if row is None and stream not in found.waiting:
            # The command left the inbox between two reads, or its message was known
            # before.
            row = await self._logged(stream, key)
        waits = parked and row is not None and row.phase == Phase.PARKED
        if row is not None and (waits or not row.open):
            return row
        return None

    async def _logged(self, stream: str, key: str | None) -> Summary | None:
        if key is not None:
            found = await self.store.fetch(Wanted(keys=frozenset((key,))))
            stream = found.keys[key] or stream
        row = (await self._mailbox.look(stream)).summaries[stream]
        if row is None:
            raise NotFoundError(what="turn or entry", id=stream)
        return row

    def _wake_all(self) -> None:
        for waiters in self._waiters.values():
            tell(waiters, None)
        self._waiters.clear()


@asynccontextmanager
async def within(
    wait_ms: int | None, what: str, state: Callable[[], Awaitable[str]]
) -> AsyncIterator[None]:
    """A block that may take so long; None for ever. Raises NotYetError. `state`: asked
    for where the work stands, once the time is over."""
    limit = asyncio.timeout(None if wait_ms is None else wait_ms / 1000)
    try:
        async with limit:
            yield
    except TimeoutError as exc:
        if wait_ms is None or not limit.expired():
            raise
        named = what.startswith((ENTRY, TURN))
        see = f"turnfold show {what}" if named else "turnfold status"
        told = await state()
        raise NotYetError(what=what, waited_ms=wait_ms, state=told, see=see) from exc


def check_rested(cut: int, waited_ms: int) -> None:
    """Raises NotYetError if so many lanes and turns did not come to rest."""
    if cut:
        state = f"{cut} lanes and turns under way were cut off"
        raise NotYetError(
            what="drain", waited_ms=waited_ms, state=state, see="turnfold status"
        )


async def stands_at(store: Store, stream: str) -> str:
    """Where a turn or an entry stands, for the error of a wait. Never raises."""
    names = frozenset((stream,))
    try:
        async with asyncio.timeout(_STATE_S):
            row = (await store.fetch(Wanted(summaries=names))).summaries[stream]
    except (TimeoutError, TurnfoldError) as exc:
        return f"the store did not say where it stands ({type(exc).__name__})"
    if row is None:
        return "it lies in the inbox, and no worker has taken it up"
    reason = f", {row.reason}" if row.reason else ""
    return f"it is {row.phase}{reason}"


def stands(state: Entry | Turn) -> bool:
    """Is it closed or parked, so that a waiter may be woken?"""
    return not state.open or state.phase is Phase.PARKED


def _over(state: Entry | Turn, *, parked: bool) -> bool:
    if parked:
        return stands(state)
    return state.phase in CLOSED if type(state) is Entry else not state.open


def _end_in(end: Entry | Turn | Summary) -> TurnOutcome | Status:
    """The outcome of a turn or the status of an entry, from its state or its row."""
    if isinstance(end, Entry):
        return end.phase.status
    if isinstance(end, Turn):
        return TurnOutcome(str(end.outcome))
    if end.stream.startswith(TURN):
        return TurnOutcome(str(end.reason))
    return Phase(end.phase).status


def _drop(
    waiters: list[asyncio.Future[State | None]], waiter: asyncio.Future[State | None]
) -> None:
    if waiter in waiters:
        waiters.remove(waiter)


def tell(waiters: Iterable[asyncio.Future[State | None]], state: State | None) -> None:
    for waiter in waiters:
        if not waiter.done():  # else the waiting caller was cancelled
            waiter.set_result(state)
