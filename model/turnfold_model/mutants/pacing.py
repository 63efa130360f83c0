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
        "self.interval * (_MUCH_SLOWER if far else _SLOWER)",
        "self.interval",
        f"{_TEST}::refused_again_at_once",
    ),
    _broken(
        "a pace that was refused too early is hardly slower",
        f"{_PACE}._slower",
        "_MUCH_SLOWER if far else _SLOWER",
        "_SLOWER",
        f"{_TEST}::refused_again_at_once",
    ),
    _broken(
        "a refusal that was to be expected makes the pace much slower",
        f"{_PACE}._slower",
        "_MUCH_SLOWER if far else _SLOWER",
        "_MUCH_SLOWER",
        f"{_TEST}::has_paid_for_the_last_refusal",
    ),
    _broken(
        "a pace falls below what the platform takes",
        f"{_PACE}._slower",
        "took >= _ENOUGH",
        "False",
        f"{_TEST}::no_slower_than_what_was_taken",
    ),
    _broken(
        "the first pace is the whole wait that the platform asked for",
        f"{_PACE}._slower",
        "min(float(wait), _FIRST_MS)",
        "float(wait)",
        f"{_TEST}::first_pace_is_a_guess",
    ),
    _broken(
        "a known pace grows at once",
        f"{_PACE}._faster",
        "self._kept_ms() if self.known else 0.0",
        "0.0",
        f"{_TEST}::refusal_costs_seconds",
    ),
    _broken(
        "a refusal that costs seconds is risked as often as one that costs nothing",
        f"{_PACE}._kept_ms",
        "_PAID * self.cost",
        "0.0",
        f"{_TEST}::refusal_costs_seconds",
    ),
    _broken(
        "a refusal that costs no time is risked with every call",
        f"{_PACE}._kept_ms",
        "_PAID_CALLS * self.interval",
        "0.0",
        f"{_TEST}::costs_hardly_any_time",
    ),
    _broken(
        "a pace never grows again",
        f"{_PACE}._faster",
        "0.5 ** min(self.interval / double, 1.0)",
        "1.0",
        f"{_TEST}::limit_that_rises",
    ),
    _broken(
        "a pace is forgotten while lanes wait for it",
        f"{_PACE}._answered",
        "_FAST_MS if self.waiting else 0.0",
        "0.0",
        f"{_TEST}::while_lanes_wait",
    ),
    _broken(
        "the pace of an account that is idle for a moment is forgotten",
        f"{_PACE}.over",
        "self._kept_ms()",
        "0.0",
        f"{_TEST}::idle_for_long",
    ),
    _broken(
        "what a refusal has cost counts from the last refused probe",
        f"{_PACE}.closed",
        "now if self.shut is None else self.shut",
        "now",
        f"{_TEST}::knows_what_its_refusal",
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
