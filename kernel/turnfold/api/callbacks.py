"""Running the embedder's handler: one task per run, cancelled when its turn is
aborted."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from turnfold._decide.accepting import joined_inbound
from turnfold._decide.turns import STORE_FAILS
from turnfold._runtime.calls import (
    CallResult,
    Calls,
    answered,
    apart,
    chain,
    contained,
    leaves,
    report,
    told,
)
from turnfold._runtime.committer import TAKES_NONE
from turnfold._runtime.programs import RunEnd
from turnfold._state.turn import Turn
from turnfold.api.ends import LONGEST_WAIT_MS, Never, NotNow
from turnfold.api.handle import TurnHandle, inbound_of
from turnfold.api.sent import CURRENT
from turnfold.api.sources import Sources, UnreadError
from turnfold.enums import RUNNING, TurnPhase
from turnfold.errors import (
    AlreadyRepliedError,
    BackPressureError,
    InvalidInputError,
    NotOpenError,
    OwnedError,
    StaleRunError,
)
from turnfold.logs import lines
from turnfold.messages import Payload

if TYPE_CHECKING:
    from turnfold.api.store_kernel import StoreKernel

_LOG = lines()
_KEPT_S = 1.0  # between two tries to store an answer
# A missing or damaged body stays so; these errors may pass.
_STORE_FAILS = (*TAKES_NONE, NotOpenError, OwnedError)
Handler = Callable[[TurnHandle], Any]  # async, or plain: that runs in a thread


_Keep = Callable[[asyncio.Future[Any]], None]  # gets the thread of a plain handler


class Handlers:
    """The one handler of a kernel and the runs of it that are under way."""

    def __init__(self, kernel: "StoreKernel", calls: Calls, sources: Sources) -> None:
        self._kernel, self._calls, self._sources = kernel, calls, sources
        self._handler: Handler | None = None
        self.present = self.resumes = False
        self._running: dict[str, asyncio.Task[Any]] = {}
        self._began: dict[str, float] = {}  # turn -> when its run began, loop time
        self._unwanted: set[str] = set()
        self.received: Callable[[str, str], Awaitable[bytes]]  # the bytes of a message
        self._threads: dict[str, asyncio.Future[Any]] = {}  # done when they have ended
        self.hung = 0  # runs that did not end when they were cancelled
        self.bugs = 0

    def register(self, handler: Handler, *, resume: bool) -> Handler:
        problem = _problem(handler)
        if problem is not None:
            raise InvalidInputError(field="handler", problem=problem)
        if self._handler is not None:
            raise InvalidInputError(
                field="handler", problem="a handler is registered already"
            )
        self._handler, self.present, self.resumes = handler, True, resume
        return handler

    @property
    def handler(self) -> Handler | None:
        """The one that is registered."""
        return self._handler

    async def run(self, stream: str, run: int) -> RunEnd:
        """Call the handler for one run. Never raises."""
        if self._handler is None:
            return RunEnd("stopped", "no handler")
        try:
            turn = await self._wanted(stream, run)
            if turn is None:
                return RunEnd("stopped", "stale")
            handle = await self._handle(turn)
        except UnreadError as exc:
            _LOG.warning("turn %s still cannot be read: %s", stream, exc)
            return RunEnd("unread", told(exc))
        except _STORE_FAILS as exc:
            _LOG.warning("turn %s cannot be read now; trying again: %s", stream, exc)
            return RunEnd("stopped", STORE_FAILS)
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
        work = partial(_answer, handler, partial(self._threads.__setitem__, stream))
        call = self._calls.begin(contained, work, handle, deadline_ms=span)
        self._running[stream] = call.task
        self._began[stream] = asyncio.get_running_loop().time()
        try:
            end = await self._calls.wait_for(call)
            for live in handle.growing:
                await live.end_previews()
            if stream not in self._unwanted:
                await self._thread_end(stream)
            return end
        finally:
            for live in handle.growing:
                live.drop_previews()
            self._running.pop(stream, None)
            self._threads.pop(stream, None)
            self._began.pop(stream, None)

    async def _thread_end(self, stream: str) -> None:
        """Wait for the thread of an earlier run: a thread cannot be ended, and two runs
        of one turn at once would do everything twice."""
        thread = self._threads.get(stream)
        if thread is not None and not thread.done():
            _LOG.warning("turn %s: its handler hangs in a thread, awaited", stream)
            self.hung += 1
            await asyncio.shield(thread)

    async def _end(self, stream: str, run: int, end: CallResult | None) -> RunEnd:
        if stream in self._unwanted:
            self._unwanted.discard(stream)
            return RunEnd("stopped", "aborted")
        if end is None:
            self.hung += 1
            error: BaseException | None = TimeoutError("it hangs beyond its deadline")
        else:
            error = end.error
        if error is None:
            return RunEnd("returned")
        match _said_by(error):
            case StaleRunError() if await self._wanted(stream, run) is None:
                return RunEnd("stopped", "stale")
            case BackPressureError() as full:
                return RunEnd("stopped", full.code)
            case NotNow() as later:
                return RunEnd("not_now", told(later), later.retry_after_ms)
            case Never() as never:
                return RunEnd("never", told(never))
            case _ if any(map(self._is_of_our_store, chain(error))):
                _LOG.warning(
                    "%s, run %s: the store failed it: %s", stream, run, told(error)
                )
                return RunEnd("stopped", STORE_FAILS)
            case _:
                pass
        wait = _asked_wait_ms(error)
        if wait is not None:
            return RunEnd("not_now", told(error), wait)
        self.bugs += 1
        report(f"turn {stream}, run {run}: the handler raised", error)
        return RunEnd("raised", told(error))

    def _is_of_our_store(self, error: BaseException) -> bool:
        """Does it say that this kernel's store could not write? A handler may use
        others."""
        if not isinstance(error, TAKES_NONE):
            return False
        address = self._kernel.store.address
        # SQLite names the file alone. PostgreSQL names the schema, too.
        return error.path in (address, address.partition("?")[0])

    def stop(self, stream: str) -> None:
        """The turn was aborted or superseded: cancel its run."""
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

    async def _wanted(self, stream: str, run: int) -> Turn | None:
        """The turn, if the run is still current. An abort may have come while the run
        waited for its place, or the store may have been lost."""
        if not self._kernel.working:
            return None
        turn: Turn = await self._kernel.look(lambda draft: draft.turn(stream))
        current = turn.phase is RUNNING and turn.run == run
        return turn if current else None

    async def _handle(self, turn: Turn) -> TurnHandle:
        stream = turn.stream
        raw = await self.received(stream, turn.body)
        if turn.dead:
            inbound = self._sources.read_again(turn, raw)
        else:
            inbound = inbound_of(turn, raw)
        joined = [
            joined_inbound(turn, more, await self.received(stream, more.body))
            for more in turn.joined
        ]
        return TurnHandle(self._kernel, turn, inbound, joined)


def unwanted(turn: Turn) -> bool:
    """Should the handler be stopped? Yes if its turn is aborted. A handler is not
    stopped after its reply was delivered: it may have work of its own left."""
    return turn.abort is not None or turn.phase is TurnPhase.ABORTED


_ENDS = (
    StaleRunError,
    Never,
    BackPressureError,
    NotNow,
)  # what counts most comes first


def _said_by(error: BaseException) -> BaseException:
    """Of a group, as a TaskGroup in the handler raises one, the end that it means; of
    several `NotNow` the longest wait. A group with any other error is a bug."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    ends = list(leaves(error))
    if not all(isinstance(one, _ENDS) for one in ends):
        return error
    waits = [one for one in ends if isinstance(one, NotNow)]
    if len(waits) == len(ends):
        return max(waits, key=lambda one: one.retry_after_ms or 0)
    return next(one for kind in _ENDS for one in ends if isinstance(one, kind))


def _problem(handler: object) -> str | None:
    """Why the handler cannot be called with a turn; None if it can."""
    if not callable(handler) or inspect.isclass(handler):
        return f"expected a function of one turn, got {handler!r:.80}"
    try:
        inspect.signature(handler).bind(None)
    except TypeError as exc:
        return f"it is called with one argument, the turn: {exc}"
    except ValueError:  # a builtin without a signature
        return None
    return None


def _is_async(handler: object) -> bool:
    call = getattr(handler, "__call__", None)  # noqa: B004  of an object
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)


async def _given(handler: Handler, keep: _Keep, handle: TurnHandle) -> Any:
    """Call a handler and return its result. A plain function runs in a thread, where it
    may block; a coroutine that it returns is awaited on the loop."""
    if _is_async(handler):
        return await handler(handle)
    end = await apart(answered, _plainly, handler, handle, tell_of=keep)
    if end.error is not None:
        raise end.error
    (given,) = end.value
    return await given if inspect.isawaitable(given) else given


def _plainly(handler: Handler, handle: TurnHandle) -> tuple[Any]:
    """In a tuple, so that a coroutine is left as it is."""
    return (handler(handle),)


def _asked_wait_ms(error: BaseException) -> int | None:
    """The wait that an error of a client library asks for: many name it `retry_after`
    and give seconds. Such an error counts as "not now", not as a failed run."""
    asked = answered(getattr, error, "retry_after", None).value
    if isinstance(asked, timedelta):
        asked = answered(asked.total_seconds).value
    if isinstance(asked, bool) or not isinstance(asked, int | float):
        return None
    seconds = answered(float, asked).value  # of no class of its own
    if seconds is None or not 0 <= seconds < float("inf"):
        return None
    return min(int(seconds * 1_000), LONGEST_WAIT_MS)


def _payloads(given: Any) -> Sequence[str | Payload]:
    """What a handler returned, as the payloads of its reply; none if it is no reply."""
    some = given if type(given) in (list, tuple) else (given,)
    return some if all(isinstance(one, str | Payload) for one in some) else ()


async def _reply(handle: TurnHandle, given: Sequence[str | Payload]) -> Any:
    """Say the answer that a handler returned. It is computed: while the store cannot
    take it, it is kept here, and the handler is not run again."""
    failed: Exception | None = None
    while True:
        try:
            if failed is not None:
                await asyncio.sleep(_KEPT_S)
            return await handle.reply(*given)
        except TAKES_NONE as exc:
            if failed is None:
                _LOG.warning("%s: its answer waits for the store: %s", handle.id, exc)
            failed = exc
        except AlreadyRepliedError:
            if failed is None:
                raise
            return None  # the commit of unknown fate had stored it
        except asyncio.CancelledError as exc:  # at the deadline of the run
            if failed is None:
                raise
            raise failed from exc


async def _answer(handler: Handler, keep: _Keep, handle: TurnHandle) -> Any:
    """Call a handler. If it returns texts or payloads, send them as its reply."""
    CURRENT.set(handle)  # for this task and the tasks that it begins
    given = await _given(handler, keep, handle)
    await handle.check_awaited()
    payloads = _payloads(given)
    if payloads:
        return await _reply(handle, payloads)
    await handle.check_left()
    if given is not None:
        kind = type(given).__name__
        _LOG.warning(
            "%s: the handler returned a %s, which is no reply", handle.id, kind
        )
    return given
