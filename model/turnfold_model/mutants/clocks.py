"""The mutants of the two times and their one source, the clock."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one

_SENDER = "turnfold._runtime.sender:Sender"
_TIMES = "test:contract/test_two_times.py"
_CLOCK = "test:fast/test_clock.py"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, "recovery", where, old, new, *killers)


CLOCKS: Final = (
    _broken(
        "the clock follows a backward jump",
        "turnfold.clock:Clock._log_time",
        "lead >= LEAD_MS and trusts",
        "trusts",
        _CLOCK,
    ),
    _broken(
        "log time never follows the wall clock",
        "turnfold.clock:Clock._log_time",
        "lead >= LEAD_MS and trusts",
        "False",
        _CLOCK,
    ),
    _broken(
        "a step that the system has not confirmed is followed",
        "turnfold.clock:Clock._trusts",
        "held >= (CONFIRM_MS if agreement.stepped else 0)",
        "True",
        _CLOCK,
    ),
    _broken(
        "a wall clock that nobody vouches for is trusted at once",
        "turnfold.clock:Clock._trusts",
        "held >= AGREED_MS",
        "True",
        _CLOCK,
    ),
    _broken(
        "a step that is taken back is another step",
        "turnfold.clock:Clock._stepped",
        "abs(distance - known.distance) <= STEP_MS",
        "False",
        _CLOCK,
    ),
    _broken(
        "a boot follows a wrong clock",
        "turnfold.clock:Clock.begin",
        "self._trusts(boot)",
        "True",
        _CLOCK,
    ),
    _broken(
        "what another boot noted of its time counts",
        "turnfold.clock:Clock.begin",
        "lived.boot == self._boot",
        "True",
        _CLOCK,
    ),
    _broken(
        "after a restart the clock may be behind the log",
        "turnfold.clock:Clock.begin",
        "self._last, self._log = (last_at, last_at - boot)",
        "pass",
        _CLOCK,
    ),
    _broken(
        "signatures are dated by log time",
        f"{_SENDER}._envelope",
        "self._clock.wall_now()",
        "self._clock.now()",
        f"{_TIMES}::that_is_ahead_is_told",
    ),
    _broken(
        "a look-up knows no skew",
        f"{_SENDER}._since",
        "date - skew_ms",
        "date",
        f"{_TIMES}::a_clock_that_is_ahead",
    ),
    one(
        "a look-up relies on a wall clock that may be wrong",
        "recovery",
        "turnfold.clock:Clock.wall_of",
        "not self._trusts(boot)",
        "False",
        f"{_TIMES}::cuts_nothing_off",
        world="step",
    ),
    one(
        "time in which the machine sleeps does not count",
        "recovery",
        "turnfold.clock:_boot_ms",
        "time.clock_gettime_ns(_BOOT)",
        "time.monotonic_ns()",
        f"{_CLOCK}::the_machine_sleeps",
        world="suspend",
    ),
    _broken(
        "a look-up takes log time for no older than it is",
        "turnfold.clock:Clock.wall_of",
        "wall - max(0, log - at) - older - LEAD_MS",
        "wall - max(0, log - at) - older",
        f"{_CLOCK}::wall_date_of_an_earlier",
    ),
    _broken(
        "log time follows the correction of a clock that was behind",
        "turnfold.clock:Clock._stepped",
        "self._behind(by, distance)",
        "0",
        f"{_TIMES}::outlives_its_correction",
    ),
    _broken(
        "a step up to log time counts as a correction of log time",
        "turnfold.clock:Clock._behind",
        "min(old.behind + by, distance - self._log)",
        "old.behind + by",
        f"{_CLOCK}::goes_on_from_the_last_record",
    ),
    _broken(
        "log time does not follow a pause of the machine",
        "turnfold.clock:Clock._behind",
        "old.vouched",
        "False",
        f"{_CLOCK}::a_pause_of_the_machine",
    ),
    _broken(
        "a correction is forgotten at the next boot",
        "turnfold.clock:Clock.begin",
        "0 if lived is None else lived.behind",
        "0",
        f"{_CLOCK}::was_behind_and_is_corrected",
    ),
    _broken(
        "a step is not noticed before the system is asked",
        "turnfold.clock:Clock.trusted",
        "self.now()",
        "pass",
        f"{_CLOCK}::asked_about_the_new_time",
    ),
    _broken(
        "a look-up does not look behind a correction that may have been a pause",
        "turnfold.clock:Clock.wall_of",
        "wall - max(0, log - at) - older - LEAD_MS",
        "wall - max(0, log - at) - LEAD_MS",
        f"{_CLOCK}::further_back_than_a_correction",
    ),
    _broken(
        "a key is no older than log time says, though the clock was set forward",
        "turnfold._decide.rules:key_now",
        "unlived is None",
        "True",
        f"{_TIMES}::may_be_as_old_as_the_correction",
    ),
    _broken(
        "a key of this life is taken to be as old as a correction before it",
        "turnfold._decide.rules:key_now",
        "first >= unlived[0]",
        "False",
        f"{_TIMES}::may_be_as_old_as_the_correction",
    ),
    _broken(
        "a key ages by a step that may be taken back",
        "turnfold._decide.rules:key_now",
        "first < sure_from",
        "False",
        f"{_TIMES}::that_is_taken_back_ages_no_key",
    ),
    _broken(
        "an entry lives longer by the correction of the clock",
        "turnfold._decide.outbox:_expiry",
        "draft.wall - now - draft.behind",
        "draft.wall - now",
        f"{_TIMES}::right_after_a_correction",
    ),
    _broken(
        "a command posted with a clock that was behind has waited since then",
        "turnfold._decide.inbox:_waited",
        "waited - draft.behind if waited >= draft.behind else waited",
        "waited",
        f"{_CLOCK}::posted_with_a_wrong_clock",
    ),
    _broken(
        "a wait in the inbox under this boot has no measure but the wall clock",
        "turnfold._decide.inbox:_waited",
        "boot and boot == here",
        "False",
        "test:contract/test_age.py::wait_in_the_inbox_is_known_under_one_boot",
    ),
    _broken(
        "a wait in the inbox is measured by the clock of another boot",
        "turnfold._decide.inbox:_waited",
        "boot and boot == here",
        "True",
        "test:contract/test_age.py::wait_in_the_inbox_is_known_under_one_boot",
    ),
    _broken(
        "a wall date is taken for log time",
        "turnfold._decide.outbox:log_time",
        "date + draft.context.shift()",
        "date",
        f"{_TIMES}::not_before",
    ),
    _broken(
        "a step of the wall clock is not logged",
        "turnfold.api.kernel:Kernel._note_steps",
        "self._clock.take_steps() if self._owns else []",
        "[]",
        f"{_TIMES}::is_an_event",
    ),
)
