"""Chart, reference and kernel: three hand-written sources of one transition table."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from transitions import MachineError

from turnfold.events import NAMES
from turnfold.events.outbox import OutboxEvent
from turnfold.events.turn import TurnEvent
from turnfold.machines import entry, turn
from turnfold_model import chart, reference

ROOT = Path(__file__).parents[2]
Edge = tuple[str, str, str]

CASES = [
    pytest.param(
        chart.entry_chart, reference.ENTRY, entry.TRANSITIONS, OutboxEvent, id="entry"
    ),
    pytest.param(
        chart.turn_chart, reference.TURN, turn.TRANSITIONS, TurnEvent, id="turn"
    ),
]


def of_table(table: Mapping[Any, Mapping[str, Any]]) -> Iterator[Edge]:
    for phase, row in table.items():
        for kind, targets in row.items():
            for target in targets:
                yield phase or chart.NONE, kind.partition(".")[2], str(target)


def of_kernel(table: Mapping[Any, Mapping[type, Any]]) -> Iterator[Edge]:
    for phase, row in table.items():
        for cls, targets in row.items():
            for target in targets:
                name = NAMES[cls].partition(".")[2]
                yield str(phase or chart.NONE), name, str(target)


@pytest.mark.parametrize(("make", "mine", "kernel", "union"), CASES)
def test_all_three_have_the_same_edges(make, mine, kernel, union):
    drawn = set(chart.edges(make()))
    assert drawn == set(of_table(mine))
    assert drawn == set(of_kernel(kernel))


@pytest.mark.parametrize(("make", "mine", "kernel", "union"), CASES)
def test_every_pair_of_phase_and_event_is_judged_alike(make, mine, kernel, union):
    machine = make()
    drawn = {(source, event) for source, event, _ in chart.edges(machine)}
    for phase in [None, *[p for p in kernel if p is not None]]:
        name = str(phase or chart.NONE)
        for cls in union.__args__:
            kind = NAMES[cls]
            pair = (name, kind.partition(".")[2])
            known = None if phase is None else str(phase)
            assert (pair in drawn) == (kind in mine[known]) == (cls in kernel[phase])


@pytest.mark.parametrize(("make", "mine", "kernel", "union"), CASES)
def test_the_chart_knows_every_event_and_phase(make, mine, kernel, union):
    machine = make()
    assert set(machine.events) == {NAMES[c].partition(".")[2] for c in union.__args__}
    assert set(machine.states) == {str(p or chart.NONE) for p in kernel}


def test_an_illegal_event_leaves_the_chart_where_it_is():
    class Thing:
        state = ""

    thing: Any = Thing()
    chart.entry_chart(thing)
    thing.queued()
    with pytest.raises(MachineError):
        thing.dispatched()
    assert thing.state == "Q"


def test_final_states_are_the_closed_phases():
    closed = {str(p) for p in entry.TRANSITIONS if p is not None and p.closed}
    machine = chart.entry_chart()
    assert {n for n, s in machine.states.items() if s.final} == closed


@pytest.mark.parametrize("name", ["entry.md", "turn.md"])
def test_the_diagrams_are_current(name):
    text = (ROOT / "specs" / name).read_text(encoding="utf-8")
    assert text == chart.pages()[name], "run: python -m turnfold_model.chart specs"
