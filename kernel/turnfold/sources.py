"""Inbound sources: accepted in order, the cursor in the commit of what it has passed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from turnfold.decide.accepting import SourceCursor
from turnfold.machines.ledger import Cursor
from turnfold.names import cursor_of
from turnfold.payloads import Inbound

if TYPE_CHECKING:
    from turnfold.kernel import Kernel

_LOG = logging.getLogger("turnfold")
_PAUSE_S = 1.0
_PAUSE_MAX_S = 60.0


def pause_s(broken: int) -> float:
    """How long to leave a source alone that broke so often without bringing anything.

    >>> [pause_s(times) for times in (0, 1, 2, 3, 7, 2_000)]
    [1.0, 1.0, 2.0, 4.0, 60.0, 60.0]
    """
    return min(_PAUSE_S * 2.0 ** min(max(broken, 1) - 1, 30), _PAUSE_MAX_S)


class Sources:
    """The sources of a kernel; they run only while it is the worker."""

    def __init__(self, kernel: "Kernel") -> None:
        self._kernel = kernel
        self._sources: list[tuple[str, str, Callable[..., Any]]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, name: str, account: str, stream: Callable[..., Any]) -> None:
        self._sources.append((name, account, stream))
        if self._kernel.working:
            self._run(name, account, stream)

    def start(self) -> None:
        for name, account, stream in self._sources:
            self._run(name, account, stream)

    def _run(self, name: str, account: str, stream: Callable[..., Any]) -> None:
        pull = _Pull(self._kernel, name, account, stream)
        self._tasks.append(asyncio.create_task(pull.forever()))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()


class _Pull:
    """One source, started again whenever it ends or breaks."""

    def __init__(
        self, kernel: "Kernel", name: str, account: str, stream: Callable[..., Any]
    ) -> None:
        self._kernel, self._stream = kernel, stream
        self._name, self._account = name, account
        self._broken = 0  # times in a row, without having brought anything

    async def forever(self) -> None:
        while True:
            try:
                await self._once()
            except Exception:  # noqa: BLE001  a source may raise anything
                self._broken += 1
                pause = pause_s(self._broken)
                where = (self._name, self._account, pause)
                _LOG.exception("source %s/%s broke; again in %d s", *where)
            await asyncio.sleep(pause_s(self._broken))

    async def _once(self) -> None:
        async with _closing(self._stream(await self._cursor())) as pairs:
            async for inbound, value in pairs:
                await self._take(inbound, value)
                self._broken = 0

    async def _take(self, inbound: Inbound | None, value: str) -> None:
        cursor = SourceCursor(channel=self._name, account=self._account, value=value)
        if inbound is None:
            await self._kernel.advance(cursor)
        else:
            await self._kernel.accept(inbound, cursor=cursor)

    async def _cursor(self) -> str | None:
        name = cursor_of(self._name, self._account)
        state = await self._kernel.look(lambda draft: draft.cursor(name))
        return state.value if isinstance(state, Cursor) else None


@asynccontextmanager
async def _closing(pairs: AsyncIterator[Any]) -> AsyncIterator[AsyncIterator[Any]]:
    """Ends a generator here and now, connections and all, and not when it is
    collected. An iterator of another kind need not have aclose()."""
    try:
        yield pairs
    finally:
        close = getattr(pairs, "aclose", None)
        if close is not None:
            await close()
