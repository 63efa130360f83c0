"""The kernel's one source of time: two times, timers and jitter (specs/design.md 2).

*Log time* orders the log and measures all waits inside the kernel. It advances with the
boot-time clock. It moves forward to the wall clock only while the wall clock is
trusted. *Wall time* is the true time now, for all values that leave the kernel.

The wall clock keeps a fixed distance to the boot-time clock. Setting it changes the
distance: that is a step. Each observed distance is an `_Agreement`. An agreement is
trusted when the operating system confirms the wall clock, or when the distance has held
for 15 minutes.
"""

import asyncio
import ctypes
import random
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from attrs import define, frozen

from turnfold.arguments import checked
from turnfold.messages import check_ms

AGREED_MS = 900_000  # a distance that held for this time is trusted
LEAD_MS = 60_000  # log time follows the wall clock from this lead on
STEP_MS = 1_000  # a larger change of the distance is a step
CONFIRM_MS = 10_000  # how long a step must hold before the system's answer counts again
_ASK_MS = 250  # how long an answer of the operating system is reused
_KNOWN = 8  # remembered distances, for clocks that are set back
_POLL_MS = 10  # how often a test's clock is read

_SPARE = 512  # bytes; `struct timex` is smaller everywhere
_TIME_ERROR = 5  # adjtimex: the clock is not synchronised
_SYNCHRONISED = Path("/run/systemd/timesync/synchronized")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@frozen(kw_only=True)
class Lived:
    """The clock facts for a later life under the same boot. `log` and `wall` are
    distances to the boot-time clock, `since` is boot time, `sure` and `corrected` are
    log times."""

    boot: str
    log: int
    wall: int
    since: int
    sure: int
    trusted: bool
    vouched: bool = False
    behind: int = 0
    corrected: int = 0


@define
class _Agreement:
    """A distance of the wall clock to the boot-time clock. `since`: boot time. `sure`:
    log times from this one on can be compared with now, trusted or not. `vouched`: the
    operating system has confirmed it. `behind`: the part of the distance that is the
    correction of a wrong clock. No time passed for it, so log time does not follow it.
    """

    distance: int
    since: int
    sure: int
    stepped: bool = False
    trusted: bool = False
    vouched: bool = False
    behind: int = 0


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


_BOOT = time.CLOCK_BOOTTIME if sys.platform == "linux" else time.CLOCK_MONOTONIC


def _boot_ms() -> int:
    """Time since boot; it includes sleep of the machine where the system has such a
    clock."""
    return time.clock_gettime_ns(_BOOT) // 1_000_000


def _boot_id() -> str:
    """The name of this boot, or an empty text where the system has none."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


@cache
def _libc() -> ctypes.CDLL:
    """Loaded once: each load makes classes, and the clock asks four times a second."""
    return ctypes.CDLL(None)


def _synchronised() -> bool | None:
    """Is the wall clock synchronised, by the operating system? None: it does not
    say."""
    if sys.platform != "linux":
        return None
    if _SYNCHRONISED.exists():
        return True
    try:
        answer: int = _libc().adjtimex(ctypes.create_string_buffer(_SPARE))
    except (OSError, AttributeError):
        return None
    return None if answer < 0 else answer != _TIME_ERROR


def _jitter() -> int:
    return random.SystemRandom().randint(0, 1000)


class Clock:
    """Every argument replaces one reading of the system, so that a test moves all of
    them together. With its own `wall_ms`, the operating system's answer does not apply:
    then `synchronised` is None unless it is given."""

    @checked
    def __init__(
        self,
        wall_ms: Callable[[], int] | None = None,
        mono_ms: Callable[[], int] | None = None,
        *,
        boot_id: Callable[[], str] = _boot_id,
        synchronised: Callable[[], bool | None] | None = None,
        jitter: Callable[[], int] = _jitter,
    ) -> None:
        own = wall_ms is None
        self._wall_ms = wall_ms or _wall_ms
        self.mono_ms = mono_ms or _boot_ms
        self._real = mono_ms is None
        self._synchronised = synchronised or (_synchronised if own else _unsaid)
        self.jitter = jitter
        self._boot = boot_id()
        self._asked: tuple[int, bool | None] | None = None
        self._steps: list[int] = []
        self.steps = 0  # seen in this life
        self.last_step_ms = 0
        self._last = 0
        self._corrected = 0  # the log time of the last correction
        wall, boot = self._read()
        check_ms("wall_ms", wall)
        check_ms("mono_ms", boot)
        self._log = wall - boot  # the distance of log time to the boot-time clock
        self._known = [_Agreement(wall - boot, boot, wall)]
        self._trusts(boot)

    # --- the two times ---

    def now(self) -> int:
        """Log time, in ms."""
        return self._log_time(self._wall_ms(), self.mono_ms())

    def reading(self) -> tuple[int, int, int]:
        """Log time, wall time and `sure_from` of the same moment."""
        wall, boot = self._wall_ms(), self.mono_ms()
        log = self._log_time(wall, boot)
        agreement = self._known[-1]  # log time has just asked if it is trusted
        return log, wall, 0 if agreement.trusted else agreement.sure

    def _log_time(self, wall: int, boot: int) -> int:
        agreement = self._known[-1]
        if abs(wall - boot - agreement.distance) > STEP_MS:
            wall, boot = self._read()  # this thread may have slept between two readings
            if abs(wall - boot - agreement.distance) > STEP_MS:
                self._stepped(wall - boot, boot)
                agreement = self._known[-1]
        lead = wall - boot - agreement.behind - self._log
        trusts = self._trusts(boot)  # asked now: after a step it is too late to ask
        if lead >= LEAD_MS and trusts:
            self._log += lead
        at = boot + self._log
        if at > self._last:  # noqa: PLR1730  `max` takes eight times as long
            self._last = at
        return self._last

    def booted(self) -> tuple[str, int]:
        """The name of this boot, empty where the system has none, and the time since
        then in ms: the time that passed between two processes of one boot."""
        return self._boot, self.mono_ms()

    def wall_now(self) -> int:
        """Wall time of the system, in ms UTC."""
        return self._wall_ms()

    @property
    def trusted(self) -> bool:
        """May log time follow the wall clock?"""
        self.now()  # a step is noticed first: what the system says is about the new time
        return self._trusts(self.mono_ms())

    @property
    def sure_from(self) -> int:
        """Log times before this one cannot be compared with now, since the time in
        between is not known. 0 while the wall clock is trusted."""
        return 0 if self.trusted else self._known[-1].sure

    @property
    def unlived(self) -> tuple[int, int] | None:
        """What began before the first number, a log time, may be older than log time
        says, by the second one in ms: the wall clock was set forward, and nobody knows
        if it was wrong before or if the machine was paused. None if it is not so."""
        behind = self._known[-1].behind
        return (self._corrected, behind) if behind else None

    def wall_of(self, at: int) -> int | None:
        """A wall date that is not later than the log time `at`. None while the wall
        clock is not trusted: it may be wrong by any time."""
        log = self.now()
        wall, boot = self._read()
        if abs(wall - boot - self._known[-1].distance) > STEP_MS:
            return None  # set just now
        if not self._trusts(boot):
            return None
        older = self._known[-1].behind if at < self._corrected else 0
        return wall - max(0, log - at) - older - LEAD_MS  # log time may lag by LEAD_MS

    def shift(self) -> int:
        """The difference to add to a wall date for its log time. A step that is not
        trusted yet does not count. Without any trusted time, a late date is better than
        an early one."""
        log = self.now()
        wall, boot = self._read()
        if not self._trusts(boot):
            trusted = [known.distance for known in self._known if known.trusted]
            wall = boot + trusted[-1] if trusted else min(wall, log)
        return log - wall if abs(log - wall) > STEP_MS else 0

    @property
    def synchronised(self) -> bool | None:
        """Does the system report the wall clock as synchronised? None: it does not
        say."""
        return self._vouched(self.mono_ms())

    def _read(self) -> tuple[int, int]:
        return self._wall_ms(), self.mono_ms()

    # --- trust ---

    def _trusts(self, boot: int) -> bool:
        agreement = self._known[-1]
        if not agreement.trusted:
            held = boot - agreement.since
            confirmed = held >= (CONFIRM_MS if agreement.stepped else 0)
            vouched = confirmed and self._vouched(boot)
            agreement.vouched = bool(vouched)
            agreement.trusted = agreement.vouched or held >= AGREED_MS
        return agreement.trusted

    def _vouched(self, boot: int) -> bool | None:
        if self._asked is None or not 0 <= boot - self._asked[0] < _ASK_MS:
            self._asked = boot, self._synchronised()
        return self._asked[1]

    def _stepped(self, distance: int, boot: int) -> None:
        """Record a step of the wall clock. A step back to a known distance restores its
        agreement."""
        by = distance - self._known[-1].distance
        self._steps.append(by)
        self.steps, self.last_step_ms = self.steps + 1, by
        self._asked = None
        for known in reversed(self._known):
            if abs(distance - known.distance) <= STEP_MS:
                self._known.remove(known)
                self._known.append(known)
                return
        sure = max(self._last, boot + self._log) + 1
        behind = self._behind(by, distance)
        if behind > self._known[-1].behind:
            self._corrected = sure
        new = _Agreement(distance, boot, sure, stepped=True, behind=behind)
        self._known.append(new)
        del self._known[:-_KNOWN]

    def _behind(self, by: int, distance: int) -> int:
        """A step from a clock that the system called right is time that has passed
        while the machine was paused. A step from any other clock may correct it. Then
        log time does not follow, or else all that was taken meanwhile would expire. A
        step up to log time, after one back, corrects nothing that log time missed."""
        old = self._known[-1]
        if old.vouched:
            return old.behind
        return max(0, min(old.behind + by, distance - self._log))

    def take_steps(self) -> list[int]:
        """The steps since the last call, in ms, forward or back."""
        self.now()
        steps, self._steps = self._steps, []
        return steps

    # --- a life begins ---

    def begin(self, last_at: int, lived: Lived | None = None) -> None:
        """Continue log time from the last record. `lived`: of the life that wrote it,
        if known."""
        wall, boot = self._read()
        self._steps, distance = [], wall - boot
        self._corrected = 0 if lived is None else lived.corrected
        if lived is not None and self._boot and lived.boot == self._boot:
            self._resume(last_at, lived, distance, boot)
            return
        behind = 0 if lived is None else lived.behind
        self._known = [_Agreement(distance, boot, last_at + 1, behind=behind)]
        self._last, self._log = last_at, last_at - boot
        if self._trusts(boot):  # the gap has no other measure
            self._log = max(self._log, distance - behind)
        else:
            self._log += 1  # later records differ from earlier ones

    def _resume(self, last_at: int, lived: Lived, distance: int, boot: int) -> None:
        self._last, self._log = last_at, max(lived.log, last_at - boot)
        agreement = _Agreement(lived.wall, lived.since, lived.sure)
        agreement.trusted, agreement.vouched = lived.trusted, lived.vouched
        agreement.behind = lived.behind
        self._known = [agreement]
        if abs(distance - lived.wall) > STEP_MS:
            self._stepped(distance, boot)

    @property
    def lived(self) -> Lived:
        """The facts for the next life. They change only by a step, by trust, or when
        log time follows the wall clock."""
        now = self._known[-1]
        return Lived(
            boot=self._boot,
            log=self._log,
            wall=now.distance,
            since=now.since,
            sure=now.sure,
            trusted=now.trusted,
            vouched=now.vouched,
            behind=now.behind,
            corrected=self._corrected,
        )

    # --- timers ---

    def call_later(self, ms: int, ring: Callable[[], None]) -> asyncio.TimerHandle:
        """Call `ring` in the running loop after `ms`, or earlier: the caller checks the
        time again."""
        wait = ms if self._real else min(ms, _POLL_MS)
        return asyncio.get_running_loop().call_later(wait / 1000, ring)


def _unsaid() -> bool | None:
    return None
