"""The border to foreign code: handlers, sources, hooks and channels are called here only.

`contained` and `answered` make one call and never let an error of foreign code pass, of
any class. `Calls` gives each call a deadline and a task: its own task, or for a send
the task of its program. The rest of the kernel gets a CallResult and nothing else.

A deadline ends the wait, not always the call. A call that ignores its cancellation
still counts as alive, and its silence proves nothing. So its caller gets None, which
means that the call hangs, and goes on. The task is kept, and `Call.last` returns its
end.
"""

import asyncio
import inspect
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar, copy_context
from functools import partial
from types import CoroutineType, MappingProxyType
from typing import Any, Final, TypeVar

from msgspec import Struct

from turnfold.logs import lines

T = TypeVar("T")

GRACE_S = 1.0  # how long a cancelled call may take to end
STALL_S = 0.01  # an alarm that is later than this shows that the loop was blocked
ROUND_S = 0.25  # the extra time of a call after a stall

_LOG = lines()
_LONGEST_TEXT = 1_000


class CallResult(Struct):
    """How a call of foreign code ended."""

    value: Any = None
    error: BaseException | None = None

    @property
    def cancelled(self) -> bool:
        return isinstance(self.error, asyncio.CancelledError)


Calling = Coroutine[Any, Any, CallResult]


async def contained(function: Callable[..., Any], *arguments: Any) -> CallResult:
    """Call foreign code and await its answer. Never raises.

    Run it in a task of its own: else a cancellation from outside looks like one by the
    foreign code."""
    try:
        value = function(*arguments)
        if isinstance(value, CoroutineType) or inspect.isawaitable(value):
            value = await value
        return _result(value)
    except BaseException as exc:  # noqa: BLE001  any end of foreign code
        return _failed(exc)


def answered(function: Callable[..., Any], *arguments: Any) -> CallResult:
    """Call foreign code that answers at once. Never raises."""
    try:
        return _result(function(*arguments))
    except BaseException as exc:  # noqa: BLE001  any end of foreign code
        return _failed(exc)


def _result(value: Any) -> CallResult:
    """Raises the error of a value that hides its class: nobody could ask what it is."""
    if isinstance(value, CoroutineType):
        value = _closed(value)
    return CallResult(value)


async def own_cancels(asked: int) -> bool:
    """Take back what foreign code, called at once in this task, did to it: it asked for
    its cancellation, which would come at the next await and look like one from outside.
    `asked`: `cancelling()` before the call. True if it did so."""
    task = asyncio.current_task()
    if task is None or task.cancelling() <= asked:
        return False
    while task.cancelling() > asked:
        task.uncancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)  # it comes here, up to Python 3.12
    return True


def cancels() -> int:
    """How often this task was asked to end."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _nobody(_: asyncio.Future[Any]) -> None:
    """The default of `tell_of`: the caller does not watch the thread."""


async def apart(
    function: Callable[..., T],
    *arguments: Any,
    tell_of: Callable[[asyncio.Future[T]], None] = _nobody,
) -> T:
    """Call a function that may take long, or never end, in a daemon thread of its own,
    so that the process can still exit. `function` must not raise. A thread cannot be
    cancelled: it lives until the future given to `tell_of` is done."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(value: T) -> None:
        if not done.done():
            done.set_result(value)

    def work() -> None:
        value = function(*arguments)
        with suppress(RuntimeError):  # the loop is closed, so no caller waits
            loop.call_soon_threadsafe(tell, value)

    threading.Thread(target=copy_context().run, args=(work,), daemon=True).start()
    tell_of(done)
    return await asyncio.shield(done)


class UnawaitedCoroutineError(Exception):
    """Foreign code gave a coroutine where a value was expected."""


def _closed(coroutine: Any) -> UnawaitedCoroutineError:
    """Close a coroutine that will not be awaited, and return an error with its name."""
    try:
        coroutine.close()
    except BaseException as exc:  # noqa: BLE001  close() may raise anything
        report("a coroutine that was given as a value", exc)
    return UnawaitedCoroutineError(coroutine.__qualname__)


def _failed(error: BaseException) -> CallResult:
    if isinstance(error, KeyboardInterrupt):
        _pass_on(error)
    return CallResult(error=error)


def _pass_on(interrupt: KeyboardInterrupt) -> None:
    """Raise a KeyboardInterrupt again in the loop, after the call has its end, if no
    other code handles Ctrl-C: the user may have pressed it. `asyncio.run` and
    `Kernel.run` handle it."""
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return

    def again() -> None:
        raise interrupt

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # no loop runs, so no message waits
        raise interrupt from None
    loop.call_soon(again)


class HiddenTextError(Exception):
    """Replaces an error in a traceback if its own text cannot be logged."""


def told(error: BaseException) -> str:
    """Name and text of an error, cut off; also of one whose text raises."""
    text = _text_of(error)
    if text is None:
        text = "(its text cannot be shown)"
    whole = f"{type(error).__name__}: {text}"[:_LONGEST_TEXT]
    return whole.encode("utf-8", "replace").decode("utf-8")


def _text_of(error: BaseException) -> str | None:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001  an error that cannot even be shown
        return None


def report(what: str, error: BaseException) -> None:
    """Log a bug of foreign code, with its traceback. Never raises."""
    shown = error
    if not all(map(_can_be_shown, chain(error))):
        shown = HiddenTextError(told(error)).with_traceback(_TRACEBACK(error))
    _LOG.error("%s: %s", what, told(error), exc_info=shown)


# A class of foreign code may hide these attributes behind properties that raise.
_CAUSE, _CONTEXT, _TRACEBACK = (
    BaseException.__dict__[name].__get__
    for name in ("__cause__", "__context__", "__traceback__")
)
_GROUPED = BaseExceptionGroup.__dict__["exceptions"].__get__
_READ = ("__cause__", "__context__", "__traceback__", "__suppress_context__")


def chain(
    error: BaseException | None, *, context: bool = True
) -> Iterator[BaseException]:
    """An error and its causes, and the errors of a group. `context`: also errors that
    were being handled. A chain may be a ring."""
    seen: dict[int, BaseException] = {}
    left = [error]
    while left:
        error = left.pop()
        if error is None or id(error) in seen:
            continue
        yield error
        seen[id(error)] = error
        cause = _CAUSE(error)
        left.append(_CONTEXT(error) if cause is None and context else cause)
        left.extend(_members(error))


def _members(error: BaseException) -> Sequence[BaseException]:
    """Of a group, as a TaskGroup raises one."""
    return _GROUPED(error) if issubclass(type(error), BaseExceptionGroup) else ()


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors of a group and of the groups in it; else the error itself."""
    left = [error]
    while left:
        one = left.pop()
        left.extend(_members(one))
        if not _members(one):
            yield one


def _can_be_shown(error: BaseException) -> bool:
    """Can `logging` read all of it? It lets errors of that pass."""
    if any(answered(getattr, error, name).error is not None for name in _READ):
        return False
    text = _text_of(error)
    short = text is not None and len(text) <= _LONGEST_TEXT
    return short and not any("\ud800" <= c <= "\udfff" for c in text or "")


def end_of(task: asyncio.Task[CallResult]) -> CallResult:
    """The end of a task that may have been cut off before it began."""
    if task.cancelled():
        return CallResult(error=asyncio.CancelledError("cancelled"))
    error = task.exception()
    return task.result() if error is None else CallResult(error=error)


_INSIDE: ContextVar["asyncio.Task[Any] | None"] = ContextVar("inside", default=None)


def step_outside() -> None:
    """Detach this task from the call that began it: the task waits for calls, and that
    call may be one of them."""
    _INSIDE.set(None)


class LeftError(Exception):
    """A call has ended in a task that its program has left."""

    def __init__(self, end: CallResult) -> None:
        super().__init__()
        self.end = end


class Call:
    """One call. `tell` gets its end once, or None if the call hangs. With `listens`,
    `tell` gets None at the deadline and the call runs on, so that a late success is
    recorded; the call is cancelled after the same time once more."""

    __slots__ = (
        *("begun", "cut", "ended", "listens", "over", "reprieved"),
        *("span", "task", "tell", "timed_out"),
    )

    def __init__(
        self,
        tell: Callable[[CallResult | None], None],
        deadline_ms: int | None,
        *,
        listens: bool,
    ) -> None:
        self.tell, self.listens = tell, listens
        self.span = None if deadline_ms is None else deadline_ms / 1000  # seconds
        self.ended: asyncio.Future[CallResult | None]  # of a call with its own task
        self.task: asyncio.Task[CallResult]
        self.begun = self.timed_out = self.over = False
        self.reprieved = False  # had its extra round after a stall

    def settle(self, end: CallResult | None) -> None:
        if not self.over:
            tell = self.tell
            self.be_over()
            tell(end)

    def be_over(self) -> None:
        """Drop `tell`: a call and its caller must not refer to each other, else each
        message leaves a cycle for the garbage collector."""
        self.over = True
        del self.tell

    def in_time(self, end: CallResult | None) -> CallResult | None:
        """The end of the call; a cancellation by the deadline becomes a
        TimeoutError."""
        if end is None or not (self.timed_out and end.cancelled):
            return end
        return CallResult(error=TimeoutError(f"it had not ended after {self.span} s"))

    async def last(self) -> CallResult:
        """The end of a call that hangs."""
        try:
            return await self.task
        except asyncio.CancelledError:
            if not self.task.done():
                raise  # the waiting caller was cancelled
            return end_of(self.task)


def _answer(ended: asyncio.Future[CallResult | None], end: CallResult | None) -> None:
    if not ended.done():  # else the waiting caller was cancelled
        ended.set_result(end)


class Calls:
    """The calls that are under way, each with its deadline."""

    def __init__(self) -> None:
        # By the length of the deadline: calls of one length time out in their order.
        self._due: dict[float | None, dict[Call, float]] = {}
        self._live: set[asyncio.Task[Any] | None] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0

    def begin(
        self,
        method: Callable[..., Calling],
        *arguments: Any,
        deadline_ms: int | None = None,
    ) -> Call:
        """Make a call in a task of its own, and await `ended`; `method` gives a coroutine
        that raises nothing. At its deadline the call is cancelled."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[CallResult | None] = loop.create_future()
        call = Call(partial(_answer, ended), deadline_ms, listens=False)
        call.ended = ended
        self._watch(call, call.span)
        call.task = loop.create_task(self._make(call, method, arguments))
        return call

    async def here(
        self, call: Call, method: Callable[..., Calling], *arguments: Any
    ) -> CallResult:
        """Make a call in the caller's own task, which saves a task. If `call.tell` is
        called before the call ends, the caller's work goes on in another task, and this
        task only waits for the end: LeftError carries it. Other code may have cancelled
        this task; so its caller must not wait for anything after the call."""
        task: Any = asyncio.current_task()
        call.task, call.begun = task, True
        self._watch(call, call.span)
        _INSIDE.set(task)
        self._live.add(task)
        try:
            end = await method(*arguments)
        finally:
            self._live.discard(task)
            _INSIDE.set(None)  # else the task and its context refer to each other
        self._forget(call)
        if call.over:
            raise LeftError(end)
        call.be_over()
        return end

    async def ask(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        deadline_ms: int | None = None,
    ) -> CallResult | None:
        """Call foreign code and wait for its end; None if it hangs. A cancellation from
        outside also cancels the call, and is raised."""
        call = self.begin(contained, function, *arguments, deadline_ms=deadline_ms)
        return await self.wait_for(call)

    async def wait_for(self, call: Call) -> CallResult | None:
        try:
            end = await call.ended
        except asyncio.CancelledError:
            await self._end_now(call)
            raise
        return call.in_time(end)

    async def _end_now(self, call: Call) -> None:
        """The waiting caller is cancelled: cancel the call and wait at most the
        grace."""
        self._forget(call)
        call.task.cancel()
        await asyncio.wait({call.task}, timeout=GRACE_S)

    def inside(self) -> bool:
        """Does the caller run within one of these calls?"""
        return _INSIDE.get() in self._live

    async def _make(
        self, call: Call, method: Callable[..., Calling], arguments: tuple[Any, ...]
    ) -> CallResult:
        # The coroutine is made in here: a task that is cancelled before it begins
        # leaves no coroutine behind.
        call.begun = True
        task = asyncio.current_task()
        _INSIDE.set(task)
        self._live.add(task)
        try:
            end = await method(*arguments)
        finally:
            self._live.discard(task)
            _INSIDE.set(None)  # else the task and its context refer to each other
        self._forget(call)
        call.settle(end)
        return end

    def tasks(self) -> list[asyncio.Task[CallResult]]:
        """The tasks of all calls under way, except hanging ones."""
        return [call.task for calls in self._due.values() for call in calls]

    async def end_all(self) -> None:
        """Cancel all calls under way, and wait at most the grace."""
        tasks = self.tasks()
        self.cancel_all()
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE_S)

    def cancel_all(self) -> None:
        for calls in list(self._due.values()):
            for call in list(calls):
                self._cancel(call)

    def _cancel(self, call: Call) -> None:
        """Cancel a call, and wait at most the grace."""
        self._forget(call)
        call.task.cancel()
        if call.begun:
            asyncio.get_running_loop().call_later(GRACE_S, call.settle, None)
        else:
            call.settle(CallResult(error=asyncio.CancelledError("cancelled")))

    # --- deadlines ---

    def _watch(self, call: Call, span: float | None) -> None:
        loop = asyncio.get_running_loop()
        due = float("inf") if span is None else loop.time() + span
        self._due.setdefault(span, {})[call] = due
        if span is not None and (self._alarm is None or due < self._alarm_at):
            self._set_alarm(due)

    def _set_alarm(self, due: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = due
        self._alarm = asyncio.get_running_loop().call_at(due, self._ring)

    def _forget(self, call: Call) -> None:
        for span in (call.span, ROUND_S):
            calls = self._due.get(span)
            if calls is None:
                continue
            calls.pop(call, None)
            if not calls:
                del self._due[span]

    def _ring(self) -> None:
        self._alarm = None
        now = asyncio.get_running_loop().time()
        for call in self._over(now):
            self._judge(call, stalled=now - self._alarm_at > STALL_S)
        first = [next(iter(calls.values())) for calls in self._due.values()]
        if first and min(first) < float("inf"):
            self._set_alarm(min(first))

    def _over(self, now: float) -> list[Call]:
        found = []
        for calls in self._due.values():
            for call, due in calls.items():
                if due > now:
                    break
                found.append(call)
        return found

    def _judge(self, call: Call, *, stalled: bool) -> None:
        """The deadline of a call has passed. After a stall its answer may wait in the
        loop, unread."""
        self._forget(call)
        if stalled and not call.reprieved:
            call.reprieved = True
            self._watch(call, ROUND_S)
        elif call.listens and not call.timed_out:
            call.timed_out = True
            call.settle(None)
            self._watch(call, call.span)
        else:
            call.timed_out = True
            self._cancel(call)


# --- Which errors of foreign code come from the network ---


_HTTPX: Final = frozenset(
    {"NetworkError", "TimeoutException", "RemoteProtocolError", "ProxyError"}
)
_NAMES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "httpx": _HTTPX,
        "httpcore": _HTTPX,
        "aiohttp": frozenset({"ClientConnectionError", "ClientPayloadError"}),
        "websockets": frozenset({"ConnectionClosed"}),
    }
)
# Errors that hold an answer, of `raise_for_status`.
_ANSWERS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "httpx": frozenset({"HTTPStatusError"}),
        "aiohttp": frozenset({"ClientResponseError"}),
    }
)


def is_of_network(error: BaseException) -> bool:
    """Also an error that was raised from one of the network. The context of an error
    does not count: a bug may come up while such an error is handled."""
    causes = chain(error, context=False)
    return any(answered(_tells, found).value is True for found in causes)


def _tells(found: BaseException) -> bool:
    """Reads attributes of foreign code, which may raise."""
    return isinstance(found, OSError) or _is_named(found, _NAMES) or _is_5xx(found)


def _is_named(error: BaseException, names: Mapping[str, frozenset[str]]) -> bool:
    return any(
        one.__name__ in names.get(str(one.__module__).partition(".")[0], ())
        for one in type(error).__mro__
    )


def _is_5xx(error: BaseException) -> bool:
    if not _is_named(error, _ANSWERS):
        return False
    status = getattr(error, "status", None)  # of aiohttp
    status = status or getattr(getattr(error, "response", None), "status_code", None)
    return type(status) is int and status >= 500
