"""When programs that wait are to be started again: one heap, one alarm of the loop."""

import asyncio
import heapq
from collections.abc import Callable, Iterator

from turnfold.clock import Clock
from turnfold.drivers.agenda import Key

_LONGEST_MS = 60_000  # look again at least this often, for clocks that jump


class Timers:
    """`ring` is called in the loop when something may be due; early is harmless."""

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock, self._ring = clock, ring
        self._heap: list[tuple[int, int, Key]] = []
        self._due: dict[Key, int] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0

    def add(self, key: Key, until: int) -> None:
        """Replaces what the key had waited for."""
        self._due[key] = until
        heapq.heappush(self._heap, (until, id(key), key))
        if len(self._heap) > 2 * len(self._due) + 1_000:
            self._heap = [(at, id(k), k) for k, at in self._due.items()]
            heapq.heapify(self._heap)

    def due(self, now: int) -> Iterator[Key]:
        while self._heap and self._heap[0][0] <= now:
            until, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == until:
                del self._due[key]
                yield key

    def set_alarm(self, deadline: int | None) -> None:
        """For the first of what waits here and a deadline from elsewhere."""
        first = self._heap[0][0] if self._heap else deadline
        if first is None:
            return
        if deadline is not None and deadline < first:
            first = deadline
        if self._alarm is not None and self._alarm_at <= first:
            return  # one that rings early looks again; most never ring
        now = self._clock.now()
        at = min(max(first, now), now + _LONGEST_MS)
        if self._alarm is not None:
            if self._alarm_at <= at:
                return
            self._alarm.cancel()
        self._alarm_at = at
        loop = asyncio.get_running_loop()
        self._alarm = loop.call_later((at - now) / 1000, self._rang)

    def _rang(self) -> None:
        self._alarm = None
        self._ring()

    def silence(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
