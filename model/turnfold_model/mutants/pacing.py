"""The mutants of the pace of the lanes behind one gate."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one

_PACE = "turnfold._runtime.flow:Pace"
_TEST = "test:fast/test_pace.py"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, "program", where, old, new, *killers)


PACING: Final = (
    _broken(
        "behind a gate lanes go in the order of asking",
        f"{_PACE}._wait",
        "(order, lane)",
        "(len(self.line), lane)",
        f"{_TEST}::by_the_age_of_their_entries",
    ),
    _broken(
        "a probe that ended unsent blocks the lanes behind it",
        f"{_PACE}.ask",
        "self.probe is not None and now < self.probe_until",
        "self.probe is not None",
        f"{_TEST}::does_not_block_for_ever",
    ),
    _broken(
        "refusals do not make the pace slower",
        f"{_PACE}._slower",
        "self.interval * _SLOWER",
        "self.interval",
        f"{_TEST}::refusals_double",
    ),
    _broken(
        "a burst before the first refusal is taken for the rate",
        f"{_PACE}._slower",
        "if not self.interval:",
        "if not self.interval and not self.accepted:",
        f"{_TEST}::burst_before_the_first",
    ),
    _broken(
        "a rate is measured from the first success, not from the last refusal",
        f"{_PACE}._slower",
        "(now - since)",
        "(now - self.accepted[0])",
        f"{_TEST}::from_one_refusal_to_the_next",
    ),
    _broken(
        "success near a measured rate counts as far from it",
        f"{_PACE}._answered",
        "_MEASURED if self.measured else _FASTER",
        "_FASTER",
        f"{_TEST}::makes_little_faster",
    ),
    _broken(
        "a pace is forgotten while lanes wait for it",
        f"{_PACE}._answered",
        "_FAST_MS if self.waiting else 0.0",
        "0.0",
        f"{_TEST}::while_lanes_wait",
    ),
    _broken(
        "each refused probe makes the pace slower",
        f"{_PACE}.closed",
        "at_pace = not self.half_open or not self.interval",
        "at_pace = True",
        f"{_TEST}::says_nothing_of_the_pace",
    ),
    _broken(
        "the next lane follows the probe at once",
        f"{_PACE}.open",
        "self.next_at = max(self.next_at, now + self.interval)",
        "pass",
        f"{_TEST}::keeps_its_distance",
    ),
    _broken(
        "a look-up that was refused as the probe goes again at once",
        f"{_PACE}.closed",
        "self.granted.difference_update(self.asking)",
        "pass",
        f"{_TEST}::may_be_the_probe",
    ),
)
