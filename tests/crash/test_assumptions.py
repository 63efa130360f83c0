"""Each assumption of specs/design.md 2 is needed: where it does not hold, the kernel's
own programs send something twice; where all hold, they do not."""

import pytest
from attrs import evolve

from turnfold_model.crash.explore import explore
from turnfold_model.crash.matrix import ASSUMPTIONS
from turnfold_model.crash.scenario import Assumption, Scenario
from turnfold_model.crash.verdict import broken
from turnfold_model.crash.world import World


def doubles(world: World) -> list[str]:
    return [rule for rule in broken(world) if rule.startswith("INV-2 ")]


def kept(row: Scenario) -> Scenario:
    """The same scenario in a world where every assumption holds."""
    replaced = row.zombies if row.dropped is not Assumption.LOCK else 0
    return evolve(row, dropped=None, zombies=replaced)


def test_there_is_a_scenario_for_each_assumption() -> None:
    assert [row.dropped for row in ASSUMPTIONS] == list(Assumption)


@pytest.mark.parametrize("row", ASSUMPTIONS, ids=lambda row: row.name)
def test_without_the_assumption_something_is_sent_twice(row: Scenario) -> None:
    assert explore(row, most=1, check=doubles).violations


@pytest.mark.parametrize("row", ASSUMPTIONS, ids=lambda row: row.name)
def test_with_the_assumption_nothing_breaks(row: Scenario) -> None:
    done = explore(kept(row))
    assert done.complete
    assert not done.violations
