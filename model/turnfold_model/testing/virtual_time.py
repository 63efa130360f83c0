"""A loop whose time is not real: it jumps to the next timer as soon as nothing can run.

A day of a gateway then takes as long as its work. `Machine` has the clocks of a computer
on such a loop: both can be read by a kernel, and the wall clock can be set wrong.
"""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

from turnfold.clock import Clock

_THREADS_S = 0.01  # real time: how often a loop with busy threads looks at its sockets

_STUCK_S = 10.0
_TURNS = 2_000_000  # of the loop, far more than a day needs in one moment


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` is 0 at first. While a thread works for the loop, time stands still."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.busy_threads = 0
        super().__init__(_Skipping(self))

    def time(self) -> float:
        return self.now_s

    def run_in_executor(  # type: ignore[override]  # typeshed: its arguments are typed
        self, executor: Any, func: Any, *args: Any
    ) -> Any:
        """Time must not pass before the thread has answered."""
        future = super().run_in_executor(executor, func, *args)
        self.busy_threads += 1
        future.add_done_callback(self._thread_is_done)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109  asyncio.run gives it
        """Join the threads, however long that takes: this time is not real."""
        self.busy_threads += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self.busy_threads -= 1

    def _thread_is_done(self, _: object) -> None:
        self.busy_threads -= 1


class _Skipping(selectors.DefaultSelector):
    """Where a loop would sleep, its time goes on instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop
        self._turns, self._moment = 0, 0.0

    def select(self, timeout: float | None = None) -> Any:
        self._check_standing()
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self._loop.busy_threads:
            return super().select(_THREADS_S)
        if timeout is None:  # a thread that the loop does not know of may still call
            ready = super().select(_STUCK_S)
            if not ready:
                raise RuntimeError("no timer is set, and nothing can happen any more")
            return ready
        self._loop.now_s += timeout
        return ready

    def _check_standing(self) -> None:
        """Work that makes new work at once would never end."""
        if self._moment != self._loop.now_s:
            self._turns, self._moment = 0, self._loop.now_s
        self._turns += 1
        if self._turns > _TURNS:
            raise RuntimeError("the loop works, and its time stands still")


class Machine:
    """The clocks of a computer. `wrong_ms`: by how much its wall clock is wrong.
    `tells`: does its system say whether the wall clock is synchronised?"""

    def __init__(self, loop: VirtualLoop, start_ms: int, *, tells: bool = True) -> None:
        self._loop, self._start_ms, self._tells = loop, start_ms, tells
        self._booted_ms = start_ms - 1_000_000
        self._boots = 1
        self.wrong_ms = 0

    def true_ms(self) -> int:
        """The time that nobody can read, in ms UTC."""
        return self._start_ms + round(self._loop.time() * 1000)

    def reboot(self) -> None:
        self._boots += 1
        self._booted_ms = self.true_ms()

    def clock(self, jitter: Callable[[], int]) -> Clock:
        """The clock of one process on this machine."""
        return _VirtualClock(
            lambda: self.true_ms() + self.wrong_ms,
            lambda: self.true_ms() - self._booted_ms,
            boot_id=lambda: f"boot-{self._boots}",
            synchronised=lambda: self.wrong_ms == 0 if self._tells else None,
            jitter=jitter,
        )


class _VirtualClock(Clock):
    """Its timers need not look again and again: loop and clock go together."""

    def call_later(self, ms: int, ring: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(ms / 1000, ring)
