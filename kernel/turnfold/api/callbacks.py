"""Running the embedder's handler: one task per run, stopped when its turn is over."""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from turnfold._decide.turns import SourceCursor
from turnfold._log import canonical
from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._log.bodies import read_body
from turnfold._log.events import Restored
from turnfold._log.ids import cursor_of
from turnfold._runtime.committer import Commit
from turnfold._runtime.programs import RunEnd
from turnfold._state.entry import Entry
from turnfold._state.fold import Cursor, State
from turnfold._state.turn import Turn
from turnfold.api.handle import TurnHandle, inbound_of
from turnfold.enums import TurnPhase
from turnfold.errors import (
    BackPressureError,
    ContractError,
    InvalidInputError,
    StaleRunError,
)
from turnfold.messages import Inbound

if TYPE_CHECKING:
    from turnfold.api.kernel import Kernel

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


# --- Telling the embedder what must not pass in silence: dead letters, parks, bounces ---


Told = TypeVar("Told")
Hook = Callable[[Entry], None]
HeldHook = Callable[[Turn], None]
RestoredHook = Callable[[Restored], None]


_NEWS = {o.FailedTerminal, o.Parked, o.Doubted, o.Bounced, t.Held, Restored}


class Hooks:
    """Lists of plain functions that get the folded Entry, the Turn or the event."""

    def __init__(self) -> None:
        self.terminal: list[Hook] = []
        self.parked: list[Hook] = []
        self.bounced: list[Hook] = []
        self.held: list[HeldHook] = []
        self.restored: list[RestoredHook] = []

    def on_terminal(self, hook: Hook) -> Hook:
        """An entry ended undelivered."""
        self.terminal.append(hook)
        return hook

    def on_parked(self, hook: Hook) -> Hook:
        """An entry waits for a person: nobody knows if it was sent."""
        self.parked.append(hook)
        return hook

    def on_bounced(self, hook: Hook) -> Hook:
        """A delivered entry was refused afterwards."""
        self.bounced.append(hook)
        return hook

    def on_held(self, hook: HeldHook) -> HeldHook:
        """A turn waits for a person: nobody knows if it was answered."""
        self.held.append(hook)
        return hook

    def on_restored(self, hook: RestoredHook) -> RestoredHook:
        """The store was found to be an older copy of itself."""
        self.restored.append(hook)
        return hook

    def tell(self, commit: Commit) -> None:
        for stream, event in commit.emitted:
            if type(event) not in _NEWS:
                continue
            state = commit.moved.get(stream)
            match event:
                case o.FailedTerminal(reason=reason):
                    self._call(self.terminal, state, f"ended undelivered: {reason}")
                case o.Parked(reason=reason):
                    self._call(self.parked, state, f"is parked, in doubt: {reason}")
                case o.Doubted(reason=reason):
                    self._call(self.parked, state, f"is parked, in doubt: {reason}")
                case t.Held(reason=reason):
                    self._call_held(state, reason)
                case Restored():
                    self._call_restored(event)
                case o.Bounced():
                    self._call(self.bounced, state, "bounced")
                case _:
                    pass

    @staticmethod
    def _call(hooks: list[Hook], state: State | None, news: str) -> None:
        if not isinstance(state, Entry):
            return
        _LOG.warning("%s to %s %s", state.stream, state.lane, news)
        _tell(hooks, state)

    def _call_held(self, state: State | None, reason: str) -> None:
        if isinstance(state, Turn):
            _LOG.warning("%s of %s is held: %s", state.stream, state.lane, reason)
            _tell(self.held, state)

    def _call_restored(self, event: Restored) -> None:
        _LOG.error(
            "the store is an older copy of itself: it ends at position %s and had got "
            "to %s; what is open in it waits for a person",
            event.position_found,
            event.position_seen,
        )
        _tell(self.restored, event)


def _tell(hooks: Sequence[Callable[[Told], None]], what: Told) -> None:
    for hook in hooks:
        try:
            hook(what)
        except Exception:  # noqa: BLE001  a hook may raise anything
            _LOG.exception("a hook failed; what it was told of is not affected")


# --- Inbound sources: accepted in order, the cursor in the commit of what it has passed ---


if TYPE_CHECKING:
    from turnfold.api.kernel import Kernel

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
