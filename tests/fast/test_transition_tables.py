"""Two transition tables, written apart: the kernel's and the model's. They are equal.

The kernel's stands in `turnfold._state`, the model's in
`turnfold_model.machines.transition_table`. Nothing else in the tree writes edges by hand.
"""

from pathlib import Path
from typing import Any

import pytest
from transitions import MachineError

from turnfold._log.events import NAMES, TurnEvent
from turnfold._log.outbox_events import OutboxEvent
from turnfold._state import entry_table, turn
from turnfold_model.machines import statechart, transition_table
from turnfold_model.machines.transition_table import NONE

ROOT = Path(__file__).parents[2]
MACHINES = [
    pytest.param(
        statechart.ENTRY,
        transition_table.ENTRY,
        entry_table.TRANSITIONS,
        OutboxEvent,
        id="entry",
    ),
    pytest.param(
        statechart.TURN, transition_table.TURN, turn.TRANSITIONS, TurnEvent, id="turn"
    ),
]
each_machine = pytest.mark.parametrize(("drawn", "model", "kernel", "union"), MACHINES)


@each_machine
def test_kernel_and_model_agree_on_every_pair_of_phase_and_event(
    drawn, model, kernel, union
):
    assert {p and str(p) for p in kernel} == set(model)
    for phase, row in kernel.items():
        for cls in union.__args__:
            targets = {str(target) for target in row.get(cls, ())}
            known = model[phase and str(phase)].get(NAMES[cls], ())
            assert targets == set(known), (phase, NAMES[cls])


@each_machine
def test_the_model_names_no_event_that_the_kernel_does_not_have(
    drawn, model, kernel, union
):
    names = {kind for row in model.values() for kind in row}
    assert names == {NAMES[cls] for cls in union.__args__}


@each_machine
def test_the_closed_phases_are_the_same(drawn, model, kernel, union):
    assert drawn.closed == {str(p) for p in kernel if p is not None and p.closed}


@each_machine
def test_transitions_takes_the_rows_as_they_stand(drawn, model, kernel, union):
    machine = drawn.machine()
    rows = transition_table.edges(drawn.rows)
    assert set(statechart.drawn_edges(machine)) == set(rows)
    assert set(machine.states) == {phase or NONE for phase in model}


def test_an_illegal_event_leaves_the_chart_where_it_is():
    class Thing:
        state = ""

    thing: Any = Thing()
    statechart.ENTRY.machine(model=thing)
    thing.queued()
    with pytest.raises(MachineError):
        thing.dispatched()
    assert thing.state == "queued"


@pytest.mark.parametrize("name", ["entry.md", "turn.md"])
def test_the_diagrams_are_current(name):
    text = (ROOT / "specs" / name).read_text(encoding="utf-8")
    assert text == statechart.pages()[name], (
        "run: python -m turnfold_model.machines.statechart specs"
    )
