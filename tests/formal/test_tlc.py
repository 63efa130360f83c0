"""TLC and the Python twins find the same number of distinct states, to the last one."""

import pytest
from tests.least import LEAST

from turnfold_model import tlc, tlc_tasks
from turnfold_model.twin import TWINS, count

if tlc.missing():
    pytest.skip(f"NO TLC HERE: {tlc.missing()}", allow_module_level=True)
pytestmark = pytest.mark.timeout(300)
COUNTED: dict[str, int] = {}
FIRED: dict[str, set[str]] = {name: set() for name in TWINS}


@pytest.mark.parametrize(
    "task", tlc_tasks.SOUND + tlc_tasks.LARGE, ids=lambda task: task.name
)
def test_tlc_and_the_twin_agree(task):
    theirs, ours = tlc.run(task), count(task.module, task.constants)
    assert (theirs.broken, ours.broken) == ("", "")
    assert theirs.distinct == ours.distinct
    taken = {name for name, times in theirs.fired.items() if times}
    assert taken & TWINS[task.module].actions == ours.fired
    FIRED[task.module] |= taken
    COUNTED[task.name] = theirs.distinct


@pytest.mark.parametrize("module", list(TWINS))
def test_tlc_took_every_action(module):
    if not FIRED[module]:
        pytest.skip("needs the runs of this module in this process")
    assert TWINS[module].actions <= FIRED[module]


def test_tlc_reaches_the_least_figures_of_the_page():
    if len(COUNTED) < len(tlc_tasks.SOUND + tlc_tasks.LARGE):
        pytest.skip("needs every run in this process")
    assert sum(COUNTED.values()) >= LEAST["distinct states of TLC and twins"]
    assert len(COUNTED) >= LEAST["configurations of TLC"]
    taken = sum(len(FIRED[name] & TWINS[name].actions) for name in TWINS)
    assert taken >= LEAST["actions taken by TLC"]


@pytest.mark.parametrize("task", tlc_tasks.BROKEN, ids=lambda task: task.name)
def test_tlc_notices_what_is_taken_away(task):
    assert tlc.run(task).broken in (*task.invariants, *task.properties)


@pytest.mark.parametrize("task", tlc_tasks.UNFAIR, ids=lambda task: task.name)
def test_tlc_notices_that_nothing_need_happen(task):
    assert tlc.run(task).broken == "liveness"
