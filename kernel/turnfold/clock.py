"""The kernel's time: wall milliseconds that never go back and never stand still.

`now = max(wall clock, anchor + monotonic time since the anchor)`. A forward jump of
the wall clock is followed, so due work runs (P01). After a backward jump time goes on
at its own pace from where it was, so nothing waits for the clock to catch up (P02).
"""

import time
from collections.abc import Callable


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _mono_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class Clock:
    def __init__(
        self,
        wall_ms: Callable[[], int] = _wall_ms,
        mono_ms: Callable[[], int] = _mono_ms,
    ) -> None:
        self._wall_ms = wall_ms
        self.mono_ms = mono_ms
        self._anchor_wall = wall_ms()
        self._anchor_mono = mono_ms()

    def now(self) -> int:
        """Milliseconds UTC for decisions."""
        mono = self.mono_ms()
        value = max(self._wall_ms(), self._anchor_wall + mono - self._anchor_mono)
        self._anchor_wall, self._anchor_mono = value, mono
        return value

    def wall_now(self) -> int:
        """The wall time now, in ms UTC, as the system tells it."""
        return self._wall_ms()

    def at_least(self, wall_ms: int) -> None:
        """Never say less than what was logged before."""
        if wall_ms > self.now():
            self._anchor_wall, self._anchor_mono = wall_ms, self.mono_ms()
