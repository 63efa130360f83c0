"""Calls of adapters under one deadline: a task for each, and one alarm for all.

A call that does not end when it is cancelled still counts as alive, so nothing may be
concluded from its silence: it is told apart as hung, and what it brings later is late.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from turnfold.settings import Settings

GRACE_S = 1.0  # how long a cancelled call may take to end

Task = asyncio.Task[Any]


class Call:
    """One call. `ended` is told once: the finished task, or none if it hangs; `late`
    is told of a hung one's end."""

    __slots__ = ("_calls", "_ended", "_grace", "_late", "task", "timed_out")

    def __init__(
        self,
        calls: "Calls",
        coroutine: Coroutine[Any, Any, Any],
        ended: Callable[["Call", Task | None], None],
        late: Callable[[Task], None],
    ) -> None:
        self._calls, self._late = calls, late
        self._ended: Callable[[Call, Task | None], None] | None = ended
        self._grace: asyncio.TimerHandle | None = None
        self.timed_out = False
        self.task = asyncio.get_running_loop().create_task(coroutine)
        self.task.add_done_callback(self._done)

    def cancel(self) -> None:
        """Ask it to end, and wait no longer than the grace."""
        if self._grace is None and self._ended is not None:
            self.task.cancel()
            loop = asyncio.get_running_loop()
            self._grace = loop.call_later(GRACE_S, self._hangs)

    def _done(self, task: Task) -> None:
        ended, self._ended = self._ended, None
        if ended is None:
            self._late(task)
            return
        self._calls.forget(self)
        if self._grace is not None:
            self._grace.cancel()
        ended(self, task)

    def _hangs(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            self._calls.forget(self)
            ended(self, None)


class Calls:
    """What is under way. Calls time out in the order they began."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._due: dict[Call, float] = {}  # in order
        self._alarm: asyncio.TimerHandle | None = None

    def begin(
        self,
        coroutine: Coroutine[Any, Any, Any],
        ended: Callable[[Call, Task | None], None],
        late: Callable[[Task], None],
    ) -> Call:
        call = Call(self, coroutine, ended, late)
        loop = asyncio.get_running_loop()
        due = loop.time() + self.settings.attempt_deadline_ms / 1000
        self._due[call] = due
        if self._alarm is None:
            self._alarm = loop.call_at(due, self._ring)
        return call

    def forget(self, call: Call) -> None:
        self._due.pop(call, None)

    def tasks(self) -> list[Task]:
        """All that are under way, but those that hang."""
        return [call.task for call in self._due]

    def _ring(self) -> None:
        self._alarm = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for call, due in list(self._due.items()):
            if due > now:
                self._alarm = loop.call_at(due, self._ring)
                return
            self.forget(call)
            call.timed_out = True
            call.cancel()
