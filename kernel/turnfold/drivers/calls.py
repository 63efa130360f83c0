"""Calls of adapters under one deadline: a task for each, and one alarm for all.

A call that does not end when it is cancelled still counts as alive, so nothing may be
concluded from its silence: it is told apart as hung, and what it brings later is late.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from turnfold.settings import Settings

GRACE_S = 1.0  # how long a cancelled call may take to end

Task = asyncio.Task[Any]


class Call:
    """One call, begun by Calls. What its end means is told to its own class: `ended`
    once, with the finished task, or none if it hangs; `late` of a hung one's end."""

    __slots__ = ("_calls", "_grace", "_over", "task", "timed_out")
    task: Task

    def __init__(self, calls: "Calls") -> None:
        self._calls = calls
        self._grace: asyncio.TimerHandle | None = None
        self._over = self.timed_out = False

    def ended(self, task: Task | None) -> None:
        raise NotImplementedError

    def late(self, task: Task) -> None:
        raise NotImplementedError

    def cancel(self) -> None:
        """Ask it to end, and wait no longer than the grace."""
        if self._grace is None and not self._over:
            self.task.cancel()
            loop = asyncio.get_running_loop()
            self._grace = loop.call_later(GRACE_S, self._hangs)

    def done(self, task: Task) -> None:
        """The callback of its task."""
        if self._over:
            self.late(task)
            return
        self._over = True
        self._calls.forget(self)
        if self._grace is not None:
            self._grace.cancel()
        self.ended(task)

    def _hangs(self) -> None:
        if not self._over:
            self._over = True
            self._calls.forget(self)
            self.ended(None)


class Calls:
    """What is under way. Calls time out in the order they began."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._due: dict[Call, float] = {}  # in order
        self._alarm: asyncio.TimerHandle | None = None

    def begin(self, call: Call, coroutine: Coroutine[Any, Any, Any]) -> None:
        loop = asyncio.get_running_loop()
        call.task = task = loop.create_task(coroutine)
        task.add_done_callback(call.done)
        due = loop.time() + self.settings.attempt_deadline_ms / 1000
        self._due[call] = due
        if self._alarm is None:
            self._alarm = loop.call_at(due, self._ring)

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
