"""Inbound sources: accepted in order, the cursor in the commit of what it has passed."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from turnfold.decide.accepting import SourceCursor
from turnfold.machines.ledger import Cursor
from turnfold.names import cursor_of

if TYPE_CHECKING:
    from turnfold.kernel import Kernel

_LOG = logging.getLogger("turnfold")
_AGAIN_S = 1.0


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
        self._tasks.append(asyncio.create_task(self._pull(name, account, stream)))

    async def _pull(self, name: str, account: str, stream: Callable[..., Any]) -> None:
        while True:
            try:
                await self._drain_once(name, account, stream)
            except Exception:  # noqa: BLE001  a source may raise anything
                _LOG.exception("source %s/%s broke; starting it again", name, account)
            await asyncio.sleep(_AGAIN_S)

    async def _drain_once(
        self, name: str, account: str, stream: Callable[..., Any]
    ) -> None:
        async for inbound, value in stream(self._cursor(name, account)):
            cursor = SourceCursor(channel=name, account=account, value=value)
            if inbound is None:
                await self._kernel.advance(cursor)
            else:
                await self._kernel.accept(inbound, cursor=cursor)

    def _cursor(self, name: str, account: str) -> str | None:
        state = self._kernel.look(lambda draft: draft.cursor(cursor_of(name, account)))
        return state.value if isinstance(state, Cursor) else None

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
