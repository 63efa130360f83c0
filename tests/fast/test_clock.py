"""Two times: log time counts lived time, and follows the wall clock once it is trusted."""

import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnfold._decide import inbox
from turnfold.clock import AGREED_MS, CONFIRM_MS, LEAD_MS, Clock
from turnfold_model.testing.clock import START_MS, FakeClock

HOUR = 3_600_000
DAY = 24 * HOUR


def lead(clock: FakeClock) -> int:
    """How far log time is ahead of the wall clock."""
    return clock.now() - clock.wall


def booted(clock: FakeClock, off: int, *, synchronised: bool, wrong: int = 0) -> Clock:
    """The clock of the next boot, after so long without power."""
    last = clock.now()
    clock.wall += off + wrong
    after = clock.after_boot(synchronised=synchronised)
    after.begin(last, clock.lived)
    return after


@pytest.mark.case("R05")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts its sleep")
def test_time_in_which_the_machine_sleeps_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, real = Clock(), time.clock_gettime_ns
    before = clock.mono_ms()

    def woken(which: int) -> int:
        slept = HOUR * 1_000_000 if which == time.CLOCK_BOOTTIME else 0
        return real(which) + slept

    monkeypatch.setattr(time, "clock_gettime_ns", woken)
    assert clock.mono_ms() - before >= HOUR


@pytest.mark.case("R04")
def test_a_wall_clock_that_jumps_for_a_moment_moves_nothing() -> None:
    clock = FakeClock()
    clock.jump_ms(2 * DAY)
    assert clock.now() == START_MS
    clock.pass_ms(1_000)
    assert clock.now() == START_MS + 1_000
    assert clock.sure_from == START_MS + 1, (
        "nobody knows whether the machine was paused"
    )
    clock.jump_ms(-2 * DAY)
    assert clock.now() == START_MS + 1_000
    assert clock.sure_from == 0
    assert clock.take_steps() == [2 * DAY, -2 * DAY]
    assert clock.take_steps() == []


def test_a_jump_that_holds_is_followed_when_the_system_vouches_for_it() -> None:
    clock = FakeClock()
    clock.jump_ms(DAY)
    clock.now()
    clock.pass_ms(CONFIRM_MS - 1)
    assert lead(clock) == -DAY
    clock.pass_ms(1)
    assert lead(clock) == 0
    assert clock.sure_from == 0


def test_a_jump_that_nobody_vouches_for_is_followed_after_a_quarter_of_an_hour() -> (
    None
):
    clock = FakeClock()
    clock.synchronised_now = None
    clock.jump_ms(DAY)
    clock.now()
    clock.pass_ms(AGREED_MS - 1)
    assert lead(clock) == -DAY
    clock.pass_ms(1)
    assert lead(clock) == 0


def test_a_backward_jump_is_outlived() -> None:
    clock = FakeClock()
    clock.jump_ms(-DAY)
    clock.pass_ms(7)
    assert clock.now() == START_MS + 7
    clock.pass_ms(2 * AGREED_MS)
    assert clock.now() == START_MS + 7 + 2 * AGREED_MS, "log time never goes back"


def test_a_small_lead_is_not_followed_in_a_life() -> None:
    clock = FakeClock()
    clock.jump_ms(59_000)
    clock.now()
    clock.pass_ms(CONFIRM_MS)
    assert lead(clock) == -59_000


def test_it_never_says_less_than_was_logged() -> None:
    clock = FakeClock()
    clock.begin(START_MS + 10)
    assert clock.now() == START_MS + 10
    clock.pass_ms(1)
    assert clock.now() == START_MS + 11


@pytest.mark.case("R05")
def test_days_without_power_count_once_the_clock_is_synchronised() -> None:
    before = FakeClock()
    after = booted(before, 3 * DAY, synchronised=True)
    assert after.now() == START_MS + 3 * DAY
    assert after.sure_from == 0


@pytest.mark.case("R05")
@pytest.mark.parametrize("wrong", [365 * DAY, -3 * DAY, -START_MS])
def test_a_boot_with_a_wrong_clock_goes_on_from_the_last_record(wrong: int) -> None:
    before = FakeClock()
    after = booted(before, DAY, synchronised=False, wrong=wrong)
    assert isinstance(after, FakeClock)
    after.pass_ms(300_000)
    assert after.now() == START_MS + 300_001
    assert after.sure_from == START_MS + 1
    after.jump_ms(-wrong)
    after.synchronised_now = True
    after.now()
    after.pass_ms(CONFIRM_MS)
    assert after.sure_from == 0
    if wrong > 0:
        assert (lead(after), after.unlived) == (0, None)
    else:
        assert after.now() == START_MS + 300_001 + CONFIRM_MS, "a correction"
        assert after.unlived == (START_MS + 300_002, DAY - 1), "the day without power"


@pytest.mark.case("R05")
@pytest.mark.parametrize("held", [1_000, 2 * AGREED_MS])
def test_a_clock_that_was_behind_and_is_corrected_moves_nothing(held: int) -> None:
    """Nor does it in the next life, or after the next boot."""
    clock = FakeClock(START_MS - 730 * DAY, synchronised=False)
    begun = clock.now()
    clock.pass_ms(held)
    clock.jump_ms(730 * DAY)
    clock.synchronised_now = True
    clock.now()
    clock.pass_ms(CONFIRM_MS)
    assert clock.now() == begun + held + CONFIRM_MS
    assert (clock.sure_from, clock.wall_now()) == (0, START_MS + held + CONFIRM_MS)
    last, lived = clock.now(), clock.lived
    clock.pass_ms(HOUR)
    clock = clock.of_next_life()
    clock.begin(last, lived)
    assert clock.now() == last + HOUR
    after = booted(clock, DAY, synchronised=True)
    assert after.now() == last + HOUR + DAY
    assert after.unlived == (begun + held + 1, 730 * DAY)


@pytest.mark.case("R05")
def test_a_pause_of_the_machine_is_followed_after_a_correction() -> None:
    clock = FakeClock(START_MS - 730 * DAY, synchronised=False)
    begun = clock.now()
    for step in (730 * DAY, 2 * DAY):
        clock.jump_ms(step)
        clock.synchronised_now = True
        clock.now()
        clock.pass_ms(CONFIRM_MS)
        clock.now()
    assert clock.now() == begun + 2 * DAY + 2 * CONFIRM_MS


@pytest.mark.case("R05")
def test_the_system_is_asked_about_the_new_time_and_not_about_the_old_one() -> None:
    clock = FakeClock(START_MS - DAY, synchronised=False)
    clock.pass_ms(1_000)
    clock.jump_ms(DAY)
    clock.synchronised_now = True
    assert not clock.trusted
    clock.now()
    assert clock.unlived == (START_MS - DAY + 1_001, DAY)


@pytest.mark.case("R05")
@pytest.mark.parametrize(
    ("posted", "waited"), [(HOUR, HOUR), (DAY + HOUR, HOUR), (3 * DAY, 2 * DAY)]
)
def test_a_command_posted_with_a_wrong_clock_has_not_waited_since_then(
    posted: int, waited: int
) -> None:
    boot: Any = SimpleNamespace(booted=lambda: ("here", 10 * DAY))
    draft: Any = SimpleNamespace(sure_from=0, wall=START_MS, behind=DAY, context=boot)
    command: Any = SimpleNamespace(at=START_MS - posted)
    assert inbox._waited(draft, command, ("elsewhere", 0)) == waited
    assert inbox._waited(draft, command, ("here", 10 * DAY - 1)) == waited
    assert inbox._waited(draft, command, ("here", 0)) == 10 * DAY


@pytest.mark.case("R05")
def test_a_correction_that_is_taken_back_leaves_no_trace() -> None:
    clock = FakeClock(synchronised=None)
    clock.jump_ms(2 * DAY)
    clock.now()
    assert clock.unlived == (START_MS + 1, 2 * DAY)
    clock.jump_ms(-2 * DAY)
    clock.now()
    assert clock.unlived is None
    clock.jump_ms(2 * DAY)
    clock.now()
    clock.jump_ms(-3 * DAY)  # another clock, which is behind
    clock.now()
    assert clock.unlived is None


@pytest.mark.case("R01")
def test_a_look_up_looks_further_back_than_a_correction() -> None:
    """It may have been a pause of the machine: then the part is as old as the step."""
    clock = FakeClock(synchronised=None)
    at, wall = clock.now(), clock.wall_now()
    clock.jump_ms(2 * DAY)
    clock.now()
    clock.pass_ms(AGREED_MS)
    assert clock.wall_of(at) == wall - LEAD_MS
    later = clock.now()
    assert clock.wall_of(later) == clock.wall_now() - LEAD_MS


@pytest.mark.case("R05")
def test_time_between_two_lives_of_one_boot_is_lived_time() -> None:
    clock = FakeClock(synchronised=None)
    for _ in range(3):
        last, lived = clock.now(), clock.lived
        clock.pass_ms(HOUR)
        clock = clock.of_next_life()
        clock.begin(last, lived)
        assert clock.now() == last + HOUR
        assert clock.sure_from == 0, "the wall clock has agreed for an hour"


def test_a_step_between_two_lives_of_one_boot_is_noticed() -> None:
    clock = FakeClock(synchronised=None)
    last, lived = clock.now(), clock.lived
    clock.pass_ms(HOUR)
    clock.jump_ms(2 * DAY)
    clock = clock.of_next_life()
    clock.begin(last, lived)
    assert clock.now() == last + HOUR
    assert clock.take_steps() == [2 * DAY]


def test_what_another_boot_noted_does_not_count() -> None:
    clock = FakeClock(synchronised=False)
    last, lived = clock.now(), clock.lived
    clock.pass_ms(HOUR)
    after = clock.after_boot()
    after.begin(last, lived)
    assert after.now() == last + 1


@pytest.mark.case("R02")
def test_the_log_of_a_life_with_a_wrong_clock_stays_ahead_and_the_wall_is_true() -> (
    None
):
    before = FakeClock()
    before.jump_ms(DAY)
    before.now()
    before.pass_ms(AGREED_MS)
    last = before.now()
    before.jump_ms(-DAY)
    after = before.after_boot()
    after.begin(last)
    assert after.now() == last
    assert after.wall_now() == START_MS + AGREED_MS


def test_a_wall_date_is_judged_by_the_clock_that_is_trusted() -> None:
    clock = FakeClock()
    assert clock.shift() == 0
    clock.jump_ms(2 * DAY)
    assert clock.shift() == 0, "the step does not count yet"
    clock.jump_ms(-4 * DAY)
    assert clock.shift() == 0
    clock.now()
    clock.pass_ms(CONFIRM_MS)
    assert clock.shift() == 2 * DAY


@pytest.mark.case("R06")
def test_a_clock_of_a_test_is_not_vouched_for_by_the_system() -> None:
    assert Clock(lambda: START_MS).synchronised is None


_MOVES = st.tuples(st.booleans(), st.integers(-(10**9), 10**9))


@given(st.lists(_MOVES, max_size=30), st.sampled_from([True, False, None]))
def test_it_is_monotonic_through_any_jumps(
    moves: list[tuple[bool, int]], synchronised: bool | None
) -> None:
    clock = FakeClock(synchronised=synchronised)
    before = clock.now()
    for jump, ms in moves:
        passed = 0 if jump else abs(ms)
        clock.jump_ms(ms) if jump else clock.pass_ms(passed)
        now = clock.now()
        assert now >= before + passed
        before = now


@pytest.mark.case("R01", "R04")
def test_the_wall_date_of_an_earlier_log_time_is_never_too_late() -> None:
    """After a boot log time may lag: the gap counts only from a minute on."""
    before = FakeClock()
    at, wall = before.now(), before.wall_now()
    before.pass_ms(LEAD_MS - 1_000)
    clock = before.after_boot(synchronised=False)
    clock.begin(at)
    assert clock.wall_of(at) is None  # nobody vouches for the wall clock
    clock.synchronised_now = True
    clock.pass_ms(1_000)
    date = clock.wall_of(at)
    assert date is not None
    assert wall - LEAD_MS <= date <= wall
    clock.jump_ms(-HOUR)
    assert clock.wall_of(at) is None
