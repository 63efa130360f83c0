"""A broken kernel is noticed: a fast selection of mutants, each by a named checker.

All of them, with the store's, are killed by `python -m turnfold_model mutants`;
TURNFOLD_LONG=1 does that here.
"""

import json
import os

import pytest

from turnfold_model.__main__ import main
from turnfold_model.crash.explore import explore
from turnfold_model.crash.matrix import named
from turnfold_model.mutants_checks import check
from turnfold_model.mutants_code import Edit, Mutant, StaleMutantError, applied
from turnfold_model.mutants_table import MUTANTS

LONG = bool(os.environ.get("TURNFOLD_LONG"))
pytestmark = pytest.mark.timeout(7_200 if LONG else 110)
FAST = [m for m in MUTANTS if m.killers[0].startswith(("crash:", "answers", "refused"))]


@pytest.mark.parametrize("mutant", FAST, ids=lambda mutant: mutant.name)
def test_its_first_checker_kills_the_mutant(mutant: Mutant) -> None:
    with applied(mutant):
        assert check(mutant.killers[0])


@pytest.mark.parametrize("checker", sorted({m.killers[0] for m in FAST}))
def test_a_checker_that_kills_has_nothing_to_say_of_the_product(checker: str) -> None:
    assert check(checker) is None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_source_and_leaves_no_trace(mutant: Mutant) -> None:
    with applied(mutant):
        pass
    assert not explore(named("one")).violations


def test_there_is_a_mutant_for_each_guard() -> None:
    told = {edit.where for mutant in MUTANTS for edit in mutant.edits}
    from turnfold import guards

    names = [
        n
        for n, f in vars(guards).items()
        if getattr(f, "__module__", "") == guards.__name__
    ]
    missing = {n for n in names if f"turnfold.guards:{n}" not in told}
    # Killed by tests of their own, for they need a restored store or erased bodies.
    assert missing <= {"head_of_lane", "history_is_whole", "bodies_kept"}


def test_names_are_unique_and_areas_are_all_there() -> None:
    assert len({m.name for m in MUTANTS}) == len(MUTANTS) >= 25
    areas = {"guard", "program", "decision", "recovery", "store"}
    assert {m.area for m in MUTANTS} == areas


def test_a_mutant_whose_source_has_moved_on_is_an_error() -> None:
    gone = Mutant("gone", "guard", (Edit("turnfold.guards:no_doubt", "x", "y"),), ())
    with pytest.raises(StaleMutantError, match="0 times"), applied(gone):
        pass


@pytest.mark.skipif(not LONG, reason="a minute or more")
def test_the_command_kills_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mutants", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["killed"] == report["total"] == len(MUTANTS)
    assert report["false_alarms"] == []
