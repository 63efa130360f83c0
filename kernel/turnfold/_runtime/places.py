"""Turns that wait for a place to run in. Nothing of a turn is begun before it has one.

This is memory of one process and may be lost: it delays runs and permits none.
"""

import heapq
from collections.abc import Iterator


class Places:
    """The lanes of turns whose first turn waits for a place, the oldest turn first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._line: list[tuple[int, str]] = []
        self.waiting: set[str] = set()

    def wait(self, lane: str, order: int) -> None:
        """`order`: of the turn."""
        if lane not in self.waiting:
            self.waiting.add(lane)
            heapq.heappush(self._line, (order, lane))

    def freed(self, taken: int) -> Iterator[str]:
        """The lanes that may ask again while so many places are taken."""
        for _ in range(min(self.most - taken, len(self._line))):
            _, lane = heapq.heappop(self._line)
            self.waiting.discard(lane)
            yield lane
