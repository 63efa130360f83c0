"""Running the embedder's handler: one task per run, stopped when its turn is over."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from turnfold import canonical
from turnfold.bodies import read_body
from turnfold.effects import RunEnd
from turnfold.errors import (
    BackPressureError,
    ContractError,
    InvalidInputError,
    StaleRunError,
)
from turnfold.machines.turn import Turn
from turnfold.turns import TurnHandle, inbound_of
from turnfold.words import TurnPhase

if TYPE_CHECKING:
    from turnfold.kernel import Kernel

_LOG = logging.getLogger("turnfold")
Handler = Callable[[TurnHandle], Awaitable[Any]]


class Handlers:
    """The one handler of a kernel and the runs of it that are under way."""

    def __init__(self, kernel: "Kernel") -> None:
        self._kernel = kernel
        self._handler: Handler | None = None
        self.present = self.resumes = False
        self._running: dict[str, asyncio.Task[Any]] = {}
        self._unwanted: set[str] = set()

    def register(self, handler: Handler, *, resume: bool) -> Handler:
        if not inspect.iscoroutinefunction(handler):
            problem = "on_turn needs an `async def` function"
            raise InvalidInputError(field="handler", problem=problem)
        if self._handler is not None:
            raise InvalidInputError(field="handler", problem="there is one already")
        self._handler, self.present, self.resumes = handler, True, resume
        return handler

    async def run(self, stream: str, run: int) -> RunEnd:
        """Call the handler for one run. Never raises."""
        if self._handler is None:
            return RunEnd("stopped", "no handler")
        try:
            if not await self._wanted(stream, run):
                return RunEnd("stopped", "stale")
            handle = await self._handle(stream)
        except Exception as exc:  # noqa: BLE001  it becomes the end of the run
            _LOG.exception("turn %s cannot be read", stream)
            return RunEnd("raised", _told(exc))
        task = asyncio.ensure_future(self._handler(handle))
        self._running[stream] = task
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            await _stop(task)
            return RunEnd("stopped", "shutdown")
        finally:
            self._running.pop(stream, None)
        return await self._end(stream, run, task)

    async def _end(self, stream: str, run: int, task: asyncio.Task[Any]) -> RunEnd:
        if stream in self._unwanted:
            self._unwanted.discard(stream)
            if not task.cancelled():
                task.exception()
            return RunEnd("stopped", "aborted")
        if task.cancelled():
            return RunEnd("raised", "the handler cancelled itself")
        error = task.exception()
        if error is None:
            return RunEnd("returned")
        if isinstance(error, StaleRunError) and not await self._wanted(stream, run):
            return RunEnd("stopped", "stale")
        if isinstance(error, BackPressureError):
            return RunEnd("stopped", error.code)
        _LOG.error("turn %s, run %d: the handler raised", stream, run, exc_info=error)
        return RunEnd("raised", _told(error))

    def stop(self, stream: str) -> None:
        """The turn was aborted or replaced: its run is no longer wanted."""
        task = self._running.get(stream)
        if task is not None and not task.done():
            self._unwanted.add(stream)
            task.cancel()

    async def _wanted(self, stream: str, run: int) -> bool:
        """An abort may have come while the run waited for its place, or the store may
        have been lost."""
        if not self._kernel.working:
            return False
        turn: Turn = await self._kernel.look(lambda draft: draft.turn(stream))
        return turn.phase is TurnPhase.RUNNING and turn.run == run

    async def _handle(self, stream: str) -> TurnHandle:
        turn: Turn = await self._kernel.look(lambda draft: draft.turn(stream))
        store = self._kernel.store
        body = canonical.loads(await read_body(store, stream, turn.body))
        if not isinstance(body, dict):
            raise ContractError(channel=turn.channel, problem="body is no object")
        joined = [
            canonical.loads(await read_body(store, stream, ref)) for ref in turn.joined
        ]
        return TurnHandle(self._kernel, turn, inbound_of(turn, body), joined)


async def _stop(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait({task}, timeout=1)
    if task.done() and not task.cancelled():
        task.exception()


def _told(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}"[:1000]
