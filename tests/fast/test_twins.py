"""The Python twins of the TLA+ modules, without TLC."""

import re
from pathlib import Path

import pytest

from turnfold_model import tlc_tasks
from turnfold_model.twin import TWINS, count

SPECS = Path(__file__).parents[2] / "specs"


@pytest.mark.parametrize("task", tlc_tasks.SOUND, ids=lambda task: task.name)
def test_a_twin_holds(task):
    found = count(task.module, task.constants)
    assert not found.broken
    assert found.distinct > 100


@pytest.mark.parametrize("module", list(TWINS))
def test_every_action_of_a_twin_is_taken(module):
    tasks = [task for task in tlc_tasks.SOUND if task.module == module]
    taken = set().union(*(count(module, task.constants).fired for task in tasks))
    assert taken == TWINS[module].actions


@pytest.mark.parametrize("task", tlc_tasks.BROKEN, ids=lambda task: task.name)
def test_a_twin_notices_what_is_taken_away(task):
    assert count(task.module, task.constants).broken


@pytest.mark.parametrize("module", list(TWINS))
def test_a_module_is_short_and_names_the_actions_of_its_twin(module):
    text = (SPECS / f"{module}.tla").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 250
    defined = set(re.findall(r"^(\w+)(?:\([^)]*\))? ==", text, re.MULTILINE))
    assert TWINS[module].actions <= defined
