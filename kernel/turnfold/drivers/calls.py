"""Calls of adapters under one deadline: a task for each, and one alarm for all.

A call that does not end when it is cancelled still counts as alive, so nothing may be
concluded from its silence: it is told apart as hung, and what it brings later is late.
"""

import asyncio

from turnfold.attached import Calling, End, end_of
from turnfold.settings import Settings

GRACE_S = 1.0  # how long a cancelled call may take to end

Task = asyncio.Task[End]


class Call:
    """One call, begun by Calls. What its end means is told to its own class: `ended`
    once, with the end, or none if it hangs; `late` of a hung one's end."""

    __slots__ = ("_calls", "_grace", "over", "task", "timed_out")

    def __init__(self, calls: "Calls") -> None:
        self._calls = calls
        self._grace: asyncio.TimerHandle | None = None
        self.task: Task | None = None
        self.over = self.timed_out = False

    def ended(self, end: End | None) -> None:
        raise NotImplementedError

    def late(self, end: End) -> None:
        raise NotImplementedError

    def cancel(self) -> None:
        """Ask it to end, and wait no longer than the grace."""
        if self._grace is None and not self.over and self.task is not None:
            self.task.cancel()
            loop = asyncio.get_running_loop()
            self._grace = loop.call_later(GRACE_S, self._hangs)

    def done(self, end: End) -> None:
        """Told by the call itself, as the last thing it does."""
        if self.task is not None:
            self.task.remove_done_callback(self.cut)
        if self.over:
            self.late(end)
            return
        self.over = True
        self._calls.forget(self)
        if self._grace is not None:
            self._grace.cancel()
        self.ended(end)

    def cut(self, task: Task) -> None:
        """The callback of a task that could not tell: cancelled before it began."""
        self.done(end_of(task))

    def _hangs(self) -> None:
        if not self.over:
            self.over = True
            self._calls.forget(self)
            self.ended(None)


class Calls:
    """What is under way. Calls time out in the order they began."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._due: dict[Call, float] = {}  # in order
        self._alarm: asyncio.TimerHandle | None = None

    def begin(self, call: Call, calling: Calling) -> Call | None:
        """The call, or none if it is over already: a loop's task factory may run tasks
        as far as they go at once. `calling` tells `call.done`."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self.settings.attempt_deadline_ms / 1000
        self._due[call] = due
        task = loop.create_task(calling)
        if call.over:
            return None
        call.task = task
        task.add_done_callback(call.cut)
        if self._alarm is None:
            self._alarm = loop.call_at(due, self._ring)
        return call

    def forget(self, call: Call) -> None:
        self._due.pop(call, None)

    def tasks(self) -> list[Task]:
        """All that are under way, but those that hang."""
        return [call.task for call in self._due if call.task is not None]

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
