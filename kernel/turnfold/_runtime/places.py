"""Turns that wait for a place to run. No run begins before its turn has a place.

This is memory of one process and may be lost: it delays runs and permits none.
"""

import heapq
from collections.abc import Iterable, Iterator

from turnfold._state.fold import State
from turnfold._state.turn import Turn


class Places:
    """The lanes of turns whose first turn waits for a place, the oldest turn first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._line: list[tuple[int, str]] = []  # also lanes that wait no more
        self.waiting: dict[str, int] = {}  # lane -> order of its first turn

    def wait(self, lane: str, order: int) -> None:
        """`order`: of the turn."""
        if self.waiting.get(lane) != order:
            self.waiting[lane] = order
            heapq.heappush(self._line, (order, lane))

    def moved(self, states: Iterable[State]) -> None:
        """A waiting turn that has moved loses its wait: it may be aborted or held. The
        program of its lane asks again if it still waits."""
        for state in states:
            if isinstance(state, Turn) and self.waiting.get(state.lane) == state.order:
                del self.waiting[state.lane]

    def freed(self, taken: int) -> Iterator[str]:
        """The lanes that may ask again while `taken` places are in use."""
        free = self.most - taken
        while free > 0 and self._line:
            order, lane = heapq.heappop(self._line)
            if self.waiting.get(lane) == order:
                del self.waiting[lane]
                free -= 1
                yield lane
