"""Calls of adapters: a task for each, and one deadline for all.

A call that does not end when it is cancelled still counts as alive, and nothing may be
concluded from its silence. So whoever made it is told that it hangs, and may go on; its
task stays to be listened to.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from turnfold._runtime.channel import Calling, CallResult, end_of
from turnfold.settings import Settings

GRACE_S = 1.0  # how long a cancelled call may take to end


class Call:
    """One call, begun by Calls. Await `ended`: its end, or None if it hangs."""

    __slots__ = ("begun", "ended", "task", "timed_out")

    def __init__(self, ended: asyncio.Future[CallResult | None]) -> None:
        self.ended = ended
        self.task: asyncio.Task[CallResult]
        self.begun = self.timed_out = False

    def settle(self, end: CallResult | None) -> None:
        if not self.ended.done():
            self.ended.set_result(end)

    async def last(self) -> CallResult:
        """The end of a call that hangs."""
        try:
            return await self.task
        except asyncio.CancelledError:
            if not self.task.done():
                raise  # whoever waits was cancelled
            return end_of(self.task)


class Calls:
    """The calls that are under way, in the order in which they time out."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._due: dict[Call, float] = {}
        self._alarm: asyncio.TimerHandle | None = None

    def begin(self, method: Callable[..., Calling], *arguments: Any) -> Call:
        """Make a call; `method` gives a coroutine that raises nothing."""
        loop = asyncio.get_running_loop()
        call = Call(loop.create_future())
        self._due[call] = due = loop.time() + self.settings.attempt_deadline_ms / 1000
        call.task = loop.create_task(self._make(call, method, arguments))
        if self._alarm is None:
            self._alarm = loop.call_at(due, self._ring)
        return call

    async def _make(
        self, call: Call, method: Callable[..., Calling], arguments: tuple[Any, ...]
    ) -> CallResult:
        # The coroutine is made in here: a task that is cancelled before it begins
        # leaves none behind.
        call.begun = True
        end = await method(*arguments)
        self._due.pop(call, None)
        call.settle(end)
        return end

    def tasks(self) -> list[asyncio.Task[CallResult]]:
        """All that are under way, but those that hang."""
        return [call.task for call in self._due]

    def cancel_all(self) -> None:
        for call in list(self._due):
            self._cancel(call)

    def _cancel(self, call: Call) -> None:
        """Ask it to end, and wait no longer than the grace."""
        self._due.pop(call, None)
        call.task.cancel()
        if call.begun:
            asyncio.get_running_loop().call_later(GRACE_S, call.settle, None)
        else:
            call.settle(CallResult(error=asyncio.CancelledError("cancelled")))

    def _ring(self) -> None:
        self._alarm = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for call, due in list(self._due.items()):
            if due > now:
                self._alarm = loop.call_at(due, self._ring)
                return
            call.timed_out = True
            self._cancel(call)
