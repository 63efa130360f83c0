"""Every state of the TLA+ modules holds, and what is taken away is noticed."""

import pytest
from tests.least import LEAST

from turnfold_model.tla import tlc, tlc_tasks
from turnfold_model.tla.tlc_traces import ACTIONS

if tlc.missing():
    pytest.skip(f"NO TLC HERE: {tlc.missing()}", allow_module_level=True)
pytestmark = pytest.mark.timeout(300)
COUNTED: dict[str, int] = {}
FIRED: dict[str, set[str]] = {name: set() for name in ACTIONS}


@pytest.mark.parametrize(
    "task", tlc_tasks.SOUND + tlc_tasks.LARGE, ids=lambda task: task.name
)
def test_every_state_holds(task):
    found = tlc.run(task)
    assert not found.broken
    FIRED[task.module] |= {name for name, times in found.fired.items() if times}
    COUNTED[task.name] = found.distinct


@pytest.mark.parametrize("module", list(ACTIONS))
def test_tlc_took_every_action(module):
    if not FIRED[module]:
        pytest.skip("needs the runs of this module in this process")
    assert ACTIONS[module] <= FIRED[module]


def test_tlc_reaches_the_least_figures_of_the_page():
    if len(COUNTED) < len(tlc_tasks.SOUND + tlc_tasks.LARGE):
        pytest.skip("needs every run in this process")
    assert sum(COUNTED.values()) >= LEAST["distinct states of TLC"]
    assert len(COUNTED) >= LEAST["configurations of TLC"]
    taken = sum(len(FIRED[name] & ACTIONS[name]) for name in ACTIONS)
    assert taken >= LEAST["actions taken by TLC"]


@pytest.mark.parametrize("task", tlc_tasks.BROKEN, ids=lambda task: task.name)
def test_tlc_notices_what_is_taken_away(task):
    said = tlc.run(task).broken
    assert said in (*task.invariants, *task.properties, "liveness")
    if task.module == "Lease":
        assert said == tlc_tasks.LEASE_BREAKS.get(dropped(task), "O5")


def dropped(task: tlc.Task) -> str:
    (name,) = (n for n in tlc_tasks.LEASE_GUARDS if not task.constants[n])
    return name


def test_each_guard_of_ownership_is_taken_away_once() -> None:
    tasks = [task for task in tlc_tasks.BROKEN if task.module == "Lease"]
    assert sorted(map(dropped, tasks)) == sorted(tlc_tasks.LEASE_GUARDS)


@pytest.mark.parametrize("task", tlc_tasks.UNFAIR, ids=lambda task: task.name)
def test_tlc_notices_that_nothing_need_happen(task):
    assert tlc.run(task).broken == "liveness"
