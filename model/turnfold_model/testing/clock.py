"""A clock that tests set: wall and monotonic apart, with jumps both ways."""

from turnfold.clock import Clock

START_MS = 1_800_000_000_000  # a wall time that no real clock says


class FakeClock(Clock):
    """Stands still until it is moved. `wall` and `mono` are plain milliseconds."""

    def __init__(self, wall: int = START_MS, mono: int = 1_000_000) -> None:
        self.wall, self.mono = wall, mono
        super().__init__(lambda: self.wall, lambda: self.mono)

    def pass_ms(self, ms: int) -> None:
        """Time passes, on both clocks alike."""
        self.wall += ms
        self.mono += ms

    def jump_ms(self, ms: int) -> None:
        """Somebody sets the wall clock; the monotonic one does not notice."""
        self.wall += ms

    def after_boot(self) -> "FakeClock":
        """The clock of the next process: same wall, monotonic from zero again."""
        return FakeClock(self.wall, 0)
