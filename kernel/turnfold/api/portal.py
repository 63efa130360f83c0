"""The loop and thread of a kernel, and calls into it from other threads."""

import asyncio
import inspect
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any
from weakref import WeakSet

from turnfold._runtime.calls import CallResult, contained
from turnfold.errors import InvalidInputError, NotOpenError, WrongThreadError


def forked_from(pid: int) -> NotOpenError:
    """The error of each call that a forked child makes to the kernel of its parent."""
    state = (
        f"open in process {pid}, of which this one is a fork; make a new Kernel here"
    )
    return NotOpenError(state=state)


class Home:
    """The loop and thread of an open kernel; none before it is opened and after it is
    closed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._pid = 0
        self._forked = False
        self._under_way: set[Future[CallResult]] = set()

    def enter(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._pid = os.getpid()
        _ENTERED.add(self)

    def leave(self) -> None:
        """Cancel the calls of portals that have not ended."""
        _ENTERED.discard(self)
        self._loop = None
        for call in list(self._under_way):
            call.cancel()

    def fork(self) -> None:
        """This is a forked child: the loop and its thread are those of the parent."""
        self._forked, self._loop, self._thread = True, None, 0

    def check_process(self) -> None:
        """Raises NotOpenError in a process that was forked from that of the kernel."""
        if self._forked:
            raise forked_from(self._pid)

    def check(self) -> None:
        """Raises WrongThreadError for a call from another thread or loop, NotOpenError
        if that loop is over, or in a forked child."""
        if self._loop is None:
            self.check_process()
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
        self.check_process()
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


_ENTERED: WeakSet[Home] = WeakSet()


def _in_child() -> None:
    for home in list(_ENTERED):
        home.fork()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    # No call pays for it: asking for the process id in each one would.
    os.register_at_fork(after_in_child=_in_child)


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
