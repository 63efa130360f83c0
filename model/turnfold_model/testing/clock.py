"""A clock that tests set: wall and boot time apart, with jumps both ways."""

from turnfold.clock import Clock

START_MS = 1_800_000_000_000  # a wall time that no real clock says


class FakeClock(Clock):
    """Stands still until it is moved. `wall` and `mono` are plain milliseconds, and
    `synchronised_now` is the answer of the operating system. Back-off has no dice: it is
    always the whole of it."""

    def __init__(
        self,
        wall: int = START_MS,
        mono: int = 1_000_000,
        *,
        boot: str = "boot-1",
        synchronised: bool | None = True,
    ) -> None:
        self.wall, self.mono, self.boot = wall, mono, boot
        self.synchronised_now = synchronised
        super().__init__(
            lambda: self.wall,
            lambda: self.mono,
            boot_id=lambda: self.boot,
            synchronised=lambda: self.synchronised_now,
            jitter=lambda: 1000,
        )

    def pass_ms(self, ms: int) -> None:
        """Time passes, on both clocks alike."""
        self.wall += ms
        self.mono += ms

    def jump_ms(self, ms: int) -> None:
        """Somebody sets the wall clock; the other one does not notice."""
        self.wall += ms

    def after_boot(self, *, synchronised: bool | None = None) -> "FakeClock":
        """The clock after the next boot: same wall, boot time from zero again."""
        says = self.synchronised_now if synchronised is None else synchronised
        return FakeClock(self.wall, 0, boot=f"{self.boot}+", synchronised=says)

    def of_next_life(self) -> "FakeClock":
        """The clock of the next process under the same boot."""
        return FakeClock(
            self.wall, self.mono, boot=self.boot, synchronised=self.synchronised_now
        )
