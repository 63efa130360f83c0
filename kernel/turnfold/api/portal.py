"""The loop and thread of a kernel, and calls into it from other threads."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from turnfold._runtime.calls import CallResult, contained
from turnfold.errors import InvalidInputError, NotOpenError, WrongThreadError


class Home:
    """The loop and thread of an open kernel; none before it is opened and after it is
    closed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._under_way: set[Future[CallResult]] = set()

    def enter(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def leave(self) -> None:
        """Cancel the calls of portals that have not ended."""
        self._loop = None
        for call in list(self._under_way):
            call.cancel()

    def check(self) -> None:
        """Raises WrongThreadError for a call from another thread or loop, NotOpenError
        if that loop is over."""
        if self._loop is None:
            return
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:  # a plain call between two runs of the loop
            here = self.is_here()
        if not here and self._loop.is_closed():
            raise NotOpenError(state="cut off: its event loop ended before close()")
        if not here:
            name = threading.current_thread().name
            raise WrongThreadError(thread=name)

    def is_here(self) -> bool:
        """Is this the thread of the kernel?"""
        return self._loop is not None and threading.get_ident() == self._thread

    def begin(self, work: Callable[[], Any]) -> Future[CallResult]:
        """Run some work on the loop, from any thread. Raises NotOpenError."""
        loop = self._loop
        if loop is None:
            raise NotOpenError(state="not open")
        call = contained(work)
        try:
            begun = asyncio.run_coroutine_threadsafe(call, loop)
        except RuntimeError:  # the loop was closed before the kernel
            call.close()
            raise NotOpenError(state="closed") from None
        self._under_way.add(begun)
        begun.add_done_callback(self._under_way.discard)
        return begun


class Portal:
    """Calls into a kernel from any other thread: `kernel.portal()` makes one anywhere.

        portal = kernel.portal()
        done = portal.call(kernel.enqueue, route, "text")

    `work` is a method of the kernel, of a turn's handle, or any function; it runs on
    the kernel's loop, in the context (`contextvars`) of the caller. A handle stays
    bound to its run, and raises StaleRunError once that run is over."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def call(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Wait for the result. Raises the errors of the work, NotOpenError if the
        kernel is closed before the work ends, and InvalidInputError in the kernel's own
        thread."""
        if self._home.is_here():
            problem = "call() would wait for its own thread; await the method instead"
            raise InvalidInputError(field="portal", problem=problem)
        return self.submit(work, *arguments, **named).result()

    def submit(
        self, work: Callable[..., Any], *arguments: Any, **named: Any
    ) -> Future[Any]:
        """As `call`, without waiting. Cancelling the future cancels the work."""
        if inspect.iscoroutine(work):
            work.close()
        if not callable(work):
            problem = "expected a function and its arguments, as in call(f, x)"
            raise InvalidInputError(field="work", problem=problem)
        begun = self._home.begin(partial(work, *arguments, **named))
        result: Future[Any] = Future()
        begun.add_done_callback(partial(_pass_on, result))
        result.add_done_callback(lambda given: given.cancelled() and begun.cancel())
        return result


def _pass_on(result: Future[Any], begun: Future[CallResult]) -> None:
    """Copy the end of `begun` to `result`. `begun` is cancelled only by the closing
    kernel or by the holder of `result`."""
    if not result.set_running_or_notify_cancel():
        return
    end = CallResult() if begun.cancelled() else begun.result()
    if begun.cancelled():
        result.set_exception(NotOpenError(state="closed"))
    elif end.error is not None:
        result.set_exception(end.error)
    else:
        result.set_result(end.value)
