"""A program that is under way, and places for a bounded number of things at once."""

import asyncio
from collections.abc import Callable
from typing import Any

from turnfold.drivers.agenda import Key
from turnfold.drivers.calls import Call
from turnfold.effects import Program


class Running:
    """`waits` is what it waits for, if that can be cut short: a call, a handler's task,
    an alarm. None while its append is being stored: that is never taken back."""

    __slots__ = ("key", "program", "waits")

    def __init__(self, key: Key, program: Program) -> None:
        self.key, self.program = key, program
        self.waits: Call | asyncio.Task[Any] | asyncio.TimerHandle | None = None


class Places:
    """So many may be in; the others stand in line, in order."""

    def __init__(self, many: int) -> None:
        self._free = many
        self._line: dict[Running, Callable[[], None]] = {}

    def enter(self, run: Running, go: Callable[[], None]) -> None:
        """Calls `go` at once or when a place is free."""
        if self._free > 0:
            self._free -= 1
            go()
        else:
            self._line[run] = go

    def leave(self) -> None:
        if self._line:
            go = self._line.pop(next(iter(self._line)))
            go()
        else:
            self._free += 1

    def give_up(self, run: Running) -> bool:
        """Out of the line, if it stood there."""
        return self._line.pop(run, None) is not None
