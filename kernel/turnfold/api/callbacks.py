"""Running the embedder's handler: one task per run, stopped when its turn is over."""

import asyncio
import inspect
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define

from turnfold._decide.turns import SourceCursor
from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._log.bodies import read_body
from turnfold._log.events import Restored
from turnfold._log.ids import cursor_of
from turnfold._runtime.calls import CallResult, Calls, answered, contained, report, told
from turnfold._runtime.committer import Commit
from turnfold._runtime.programs import RunEnd
from turnfold._state.entry import Entry
from turnfold._state.fold import Cursor, State
from turnfold._state.turn import Turn
from turnfold.api.ends import Never, NotNow
from turnfold.api.handle import TurnHandle, inbound_of
from turnfold.api.telling import AGAIN, say_again
from turnfold.enums import TurnPhase
from turnfold.errors import (
    BackPressureError,
    InvalidInputError,
    StaleRunError,
)
from turnfold.inbound import Inbound
from turnfold.messages import Payload

if TYPE_CHECKING:
    from turnfold.api.kernel import Kernel

_LOG = logging.getLogger("turnfold")
Handler = Callable[[TurnHandle], Awaitable[Any]]


class Handlers:
    """The one handler of a kernel and the runs of it that are under way."""

    def __init__(self, kernel: "Kernel", calls: Calls) -> None:
        self._kernel, self._calls = kernel, calls
        self._handler: Handler | None = None
        self.present = self.resumes = False
        self._running: dict[str, asyncio.Task[Any]] = {}
        self._began: dict[str, float] = {}  # turn -> when its run began, loop time
        self._unwanted: set[str] = set()
        self.hung = 0  # runs that did not end when they were cancelled
        self.bugs = 0

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
            return RunEnd("raised", told(exc))
        try:
            end = await self._call(self._handler, stream, handle)
        except asyncio.CancelledError:
            return RunEnd("stopped", "shutdown")
        return await self._end(stream, run, end)

    async def _call(
        self, handler: Handler, stream: str, handle: TurnHandle
    ) -> CallResult | None:
        span = self._kernel.settings.run_deadline_ms
        work = partial(_answer, handler)
        call = self._calls.begin(contained, work, handle, deadline_ms=span)
        self._running[stream] = call.task
        self._began[stream] = asyncio.get_running_loop().time()
        try:
            return await self._calls.wait_for(call)
        finally:
            self._running.pop(stream, None)
            self._began.pop(stream, None)

    async def _end(self, stream: str, run: int, end: CallResult | None) -> RunEnd:
        if stream in self._unwanted:
            self._unwanted.discard(stream)
            return RunEnd("stopped", "aborted")
        if end is None:
            self.hung += 1
            error: BaseException | None = TimeoutError("it hangs beyond its deadline")
        else:
            error = end.error
        match error:
            case None:
                return RunEnd("returned")
            case StaleRunError() if not await self._wanted(stream, run):
                return RunEnd("stopped", "stale")
            case BackPressureError():
                return RunEnd("stopped", error.code)
            case NotNow():
                return RunEnd("not_now", told(error), error.retry_after_ms)
            case Never():
                return RunEnd("never", told(error))
            case _:
                pass
        self.bugs += 1
        report(f"turn {stream}, run {run}: the handler raised", error)
        return RunEnd("raised", told(error))

    def stop(self, stream: str) -> None:
        """The turn was aborted or replaced: its run is no longer wanted."""
        task = self._running.get(stream)
        if task is not None and not task.done():
            self._unwanted.add(stream)
            task.cancel()

    def ages_ms(self) -> Mapping[str, int]:
        """How long each run has been under way, the oldest first."""
        if not self._began:
            return {}
        now = asyncio.get_running_loop().time()
        return {turn: int((now - at) * 1_000) for turn, at in self._began.items()}

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
        raw = await read_body(store, stream, turn.body)
        joined = [
            json.loads(await read_body(store, stream, ref)) for ref in turn.joined
        ]
        return TurnHandle(self._kernel, turn, inbound_of(turn, raw), joined)


async def _answer(handler: Handler, handle: TurnHandle) -> Any:
    """Call a handler. A text or payload that it returns is its reply."""
    given = await handler(handle)
    if isinstance(given, str | Payload):
        return await handle.reply(given)
    if given is not None:
        kind = type(given).__name__
        _LOG.warning(
            "%s: the handler returned a %s, which is no reply", handle.id, kind
        )
    return given


# --- Telling the embedder what must not pass in silence: dead letters, parks, bounces ---


Hook = Callable[[Entry], Any]
HeldHook = Callable[[Turn], Any]
RestoredHook = Callable[[Restored], Any]


_NEWS = {
    *(o.FailedTerminal, o.Parked, o.Doubted, o.Bounced),
    *(t.Held, t.Answered, Restored, *AGAIN),
}


class Hooks:
    """Lists of functions, plain or async, that get the folded Entry, the Turn or the
    event. They are called one after the other, in the order of the log, in a task of
    their own: no commit waits for them."""

    def __init__(self, calls: Calls, deadline_ms: int | None) -> None:
        self._calls, self._deadline_ms = calls, deadline_ms
        self.terminal: list[Hook] = []
        self.parked: list[Hook] = []
        self.bounced: list[Hook] = []
        self.held: list[HeldHook] = []
        self.restored: list[RestoredHook] = []
        self._news: deque[tuple[Callable[[Any], Any], Any]] = deque()
        self._teller: asyncio.Task[None] | None = None
        self.bugs = 0
        self.dead = 0  # entries that ended undelivered since the kernel was made

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
                    self.dead += 1
                    self._call(self.terminal, state, f"ended undelivered: {reason}")
                case o.Parked(reason=reason) | o.Doubted(reason=reason):
                    self._call(self.parked, state, f"is parked, in doubt: {reason}")
                case t.Held(reason=reason):
                    self._call_held(state, reason)
                case Restored():
                    self._call_restored(event)
                case o.Bounced():
                    self._call(self.bounced, state, "bounced")
                case t.Answered(silent="unstated"):
                    text = "%s: the handler returned and said nothing"
                    _LOG.warning(text, stream, extra={"stream": stream})
                case _ if type(event) in AGAIN:
                    say_again(stream, event)
                case _:
                    pass

    def _call(self, hooks: list[Hook], state: State | None, news: str) -> None:
        if not isinstance(state, Entry):
            return
        facts = {"stream": state.stream, "lane": state.lane}
        _LOG.warning("%s to %s %s", *facts.values(), news, extra=facts)
        self._line_up(hooks, state)

    def _call_held(self, state: State | None, reason: str) -> None:
        if isinstance(state, Turn):
            _LOG.warning("%s of %s is held: %s", state.stream, state.lane, reason)
            self._line_up(self.held, state)

    def _call_restored(self, event: Restored) -> None:
        _LOG.error(
            "the store is an older copy of itself: it ends at position %s and had got "
            "to %s; what is open in it waits for a person",
            event.position_found,
            event.position_seen,
        )
        self._line_up(self.restored, event)

    def _line_up(self, hooks: Sequence[Callable[[Any], Any]], what: Any) -> None:
        self._news.extend((hook, what) for hook in hooks)
        if self._news and self._teller is None:
            self._teller = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        try:
            while self._news:
                hook, what = self._news.popleft()
                end = await self._calls.ask(hook, what, deadline_ms=self._deadline_ms)
                error = TimeoutError("it hangs") if end is None else end.error
                if error is not None:
                    self.bugs += 1
                    report("a hook failed; what it was told of is not affected", error)
        finally:
            self._teller = None

    async def end(self, timeout_s: float) -> None:
        """Tell what is still to be told, but wait no longer than this."""
        teller = self._teller
        if teller is None:
            return
        await asyncio.wait({teller}, timeout=timeout_s)
        if self._news or not teller.done():
            _LOG.error("closing: %d news were not told to hooks", len(self._news) + 1)
            self.cut_off()

    def cut_off(self) -> None:
        """Tell nothing more."""
        self._news.clear()
        if self._teller is not None:
            self._teller.cancel()


# --- Inbound sources: accepted in order, the cursor in the commit of what it has passed ---


_PAUSE_S = 1.0
_PAUSE_MAX_S = 60.0


def pause_s(broken: int) -> float:
    """How long to leave a source alone that broke so often without bringing anything.

    >>> [pause_s(times) for times in (0, 1, 2, 3, 7, 2_000)]
    [1.0, 1.0, 2.0, 4.0, 60.0, 60.0]
    """
    return min(_PAUSE_S * 2.0 ** min(max(broken, 1) - 1, 30), _PAUSE_MAX_S)


@define
class SourceFacts:
    """`state`: "waiting" (for the worker), "reading" or "pausing" (until its next
    start). `quiet_ms`: since its last sign of life, an item or a cursor that was
    accepted; since its first start if there was none. `failing_ms`: since it last
    worked, if it has ended since then without bringing anything."""

    state: str
    restarts: int
    items: int
    quiet_ms: int | None
    failing_ms: int | None
    error: str | None


class Sources:
    """The sources of a kernel; they run only while it is the worker."""

    def __init__(self, kernel: "Kernel", calls: Calls) -> None:
        self._kernel, self._calls = kernel, calls
        self._sources: dict[tuple[str, str], _Pull] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, name: str, account: str, stream: Callable[..., Any]) -> None:
        """Raises InvalidInputError if there is a source of this name and account."""
        if (name, account) in self._sources:
            problem = f"there is a source {name}/{account} already"
            raise InvalidInputError(field="name", problem=problem)
        if not callable(stream):
            problem = "a source is a function that takes a cursor"
            raise InvalidInputError(field="stream", problem=problem)
        pull = _Pull(self._kernel, self._calls, name, account, stream)
        self._sources[name, account] = pull
        if self._kernel.working:
            self._run(pull)

    def start(self) -> None:
        for pull in self._sources.values():
            self._run(pull)

    def _run(self, pull: "_Pull") -> None:
        self._tasks.append(asyncio.create_task(pull.forever()))

    def facts(self) -> Mapping[str, SourceFacts]:
        """What became of each source so far, for `health`."""
        return {f"{n}/{a}": pull.facts() for (n, a), pull in self._sources.items()}

    async def stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Pull:
    """One source, started again whenever and however it ends."""

    def __init__(
        self,
        kernel: "Kernel",
        calls: Calls,
        name: str,
        account: str,
        stream: Callable[..., Any],
    ) -> None:
        self._kernel, self._calls, self._stream = kernel, calls, stream
        self._name, self._account = name, account
        self._broken = 0  # times in a row, without having brought anything
        self._state = "waiting"
        self._starts = self._items = 0
        self._alive_at: float | None = None  # loop time of the last sign of life
        self._error: str | None = None

    def facts(self) -> SourceFacts:
        quiet = None
        if self._alive_at is not None:
            now = asyncio.get_running_loop().time()
            quiet = int((now - self._alive_at) * 1_000)
        return SourceFacts(
            state=self._state,
            restarts=max(0, self._starts - 1),
            items=self._items,
            quiet_ms=quiet,
            failing_ms=quiet if self._broken else None,
            error=self._error,
        )

    async def forever(self) -> None:
        """Until its task is cancelled. A source that cancels itself ends like any
        other: only the call ends, not this loop."""
        try:
            while True:
                self._state = "reading"
                self._starts += 1
                self._note_life(only_first=True)
                end = await self._calls.ask(self._once)
                self._broken += 1
                self._state, pause = "pausing", pause_s(self._broken)
                self._say(end, pause)
                await asyncio.sleep(pause)
        finally:
            self._state = "waiting"

    def _say(self, end: CallResult | None, pause: float) -> None:
        error = None if end is None else end.error
        where = f"source {self._name}/{self._account}"
        if error is None:
            self._error = "it ended"
            _LOG.warning("%s ended; again in %.0f s", where, pause)
        else:
            self._error = told(error)
            report(f"{where} broke; again in {pause:.0f} s", error)

    async def _once(self) -> None:
        start = answered(self._stream, await self._cursor())
        if start.error is not None:
            raise start.error
        async with _closing(start.value) as pairs:
            async for inbound, value in pairs:
                await self._take(inbound, value)
                self._broken = 0
                self._items += 1
                self._note_life()

    def _note_life(self, *, only_first: bool = False) -> None:
        if self._alive_at is None or not only_first:
            self._alive_at = asyncio.get_running_loop().time()
            self._error = None

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
