"""Both statecharts in `transitions`, written by hand from design 4 and 5.

A second source beside the reference and the kernel's own table: a test compares all
three over the whole space of phases and events, so a wrong row in one of them shows.
Never derive it from another table, or it checks nothing. No callbacks, no automatic
transitions; an event with several targets stands once per target, and which one is
taken follows from the event's data (`edges` gives all of them).

The diagrams in `specs/entry.md` and `specs/turn.md` are drawn from here:
`python -m turnfold_model.chart specs`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from transitions import Machine
from transitions.extensions import GraphMachine

if TYPE_CHECKING:  # these two are names of its stubs only
    from transitions.core import StateConfig, TransitionConfigDict

NONE: Final = "none"  # no stream yet

ENTRY_STATES: Final[list[StateConfig]] = [
    {"name": NONE},
    {"name": "Q"},
    {"name": "A"},
    {"name": "D"},
    {"name": "U"},
    {"name": "P"},
    {"name": "R"},
    {"name": "OK", "final": True},
    {"name": "F", "final": True},
    {"name": "X", "final": True},
]
TURN_STATES: Final[list[StateConfig]] = [
    {"name": NONE},
    {"name": "accepted"},
    {"name": "running"},
    {"name": "answered"},
    {"name": "completed", "final": True},
    {"name": "failed", "final": True},
    {"name": "aborted", "final": True},
]
_OPEN: Final = ["Q", "R", "A", "D", "U", "P"]
_OVER: Final = ["completed", "failed", "aborted"]
STAY: Final = "="  # transitions' word for "same"


def _go(trigger: str, source: list[str], dest: str) -> TransitionConfigDict:
    return {"trigger": trigger, "source": source, "dest": dest}


ENTRY_EDGES: Final[list[TransitionConfigDict]] = [
    # beginnings
    _go("queued", [NONE], "Q"),
    _go("imported", [NONE], "Q"),
    _go("imported", [NONE], "P"),
    _go("imported", [NONE], "F"),
    # towards the wire
    _go("planned", ["Q"], STAY),
    _go("attempted", ["Q", "R", "U"], "A"),
    _go("attempted", ["Q", "R", "U"], "D"),
    _go("dispatched", ["A"], "D"),
    # accepted
    _go("part_delivered", ["A", "D", "U", "P"], "Q"),
    _go("delivered", ["A", "D", "U", "P"], "OK"),
    # proven not accepted
    _go("deferred", ["A", "D"], "Q"),
    _go("failed_retryable", ["A", "D"], "R"),
    # doubt
    _go("unknown", ["A", "D"], "U"),
    _go("unknown", ["U"], STAY),
    _go("reconciled", ["U", "P"], "R"),
    _go("reconciled", ["U", "P"], STAY),
    _go("parked", ["U"], "P"),
    _go("resolved", ["U", "P"], "R"),
    _go("resolved", ["U", "P"], "U"),
    _go("doubted", ["Q", "R"], "P"),
    # ends
    _go("failed_terminal", _OPEN, "F"),
    _go("abort_requested", _OPEN, STAY),
    _go("aborted", ["Q", "R"], "X"),
    # evidence that comes late
    _go("late_receipt", ["Q", *_OPEN[1:], "OK", "F", "X"], STAY),
    _go("late_receipt", ["R", "A", "D", "U", "P"], "Q"),
    _go("late_receipt", [*_OPEN, "F", "X"], "OK"),
    # operators
    _go("rescheduled", ["Q", "R", "U"], STAY),
    _go("redriven", ["F"], "Q"),
    _go("acknowledged", ["F"], STAY),
    _go("bounced", ["OK"], STAY),
    _go("lane_yielded", ["Q", "P", "R", "F"], STAY),
    _go("redacted", ["OK", "F", "X"], STAY),
]

TURN_EDGES: Final[list[TransitionConfigDict]] = [
    _go("accepted", [NONE], "accepted"),
    _go("joined", ["accepted"], STAY),
    _go("held", ["accepted"], STAY),
    _go("held", ["running"], "accepted"),
    _go("unheld", ["accepted"], STAY),
    _go("started", ["accepted"], "running"),
    _go("step_started", ["running"], STAY),
    _go("step_done", ["running"], STAY),
    _go("released", ["running"], "accepted"),
    _go("run_failed", ["running"], "accepted"),
    _go("answered", ["running"], "answered"),
    _go("completed", ["answered"], "completed"),
    _go("failed", ["accepted", "running", "answered"], "failed"),
    _go("abort_requested", ["accepted", "running", "answered"], STAY),
    _go("aborted", ["accepted", "running", "answered"], "aborted"),
    _go("amended", _OVER, "completed"),
    _go("amended", _OVER, "failed"),
    _go("resubmitted", ["failed"], "accepted"),
    _go("redacted", _OVER, STAY),
]


class _Model:
    """What a chart drives: one entry or turn."""

    state: str


def entry_chart(model: Any = None) -> Machine:
    """The chart of an outbox entry, driving `model` or an object of its own."""
    return _chart(Machine, ENTRY_STATES, ENTRY_EDGES, model)


def turn_chart(model: Any = None) -> Machine:
    """The chart of a turn."""
    return _chart(Machine, TURN_STATES, TURN_EDGES, model)


def _chart(
    cls: type[Machine],
    states: list[StateConfig],
    edges: list[TransitionConfigDict],
    model: Any,
    **options: Any,
) -> Machine:
    return cls(
        model=_Model() if model is None else model,
        states=states,
        transitions=edges,
        initial=NONE,
        auto_transitions=False,
        **options,
    )


def edges(machine: Machine) -> Iterator[tuple[str, str, str]]:
    """Every (phase, event, next phase) of a chart."""
    for name, event in machine.events.items():
        for source, transitions in event.transitions.items():
            for transition in transitions:
                yield source, name, transition.dest or source


def mermaid(states: list[StateConfig], rows: list[TransitionConfigDict]) -> str:
    """The chart as Mermaid text, without the colours that its maker adds."""
    machine = _chart(GraphMachine, states, rows, None, graph_engine="mermaid")
    image = BytesIO()
    cast("Any", machine).get_graph().draw(image, prog="dot", format="mermaid")
    lines = image.getvalue().decode().splitlines()
    arrows = [line.strip() for line in lines if "-->" in line and "[*]" not in line]
    drawn = [line.replace(f"{NONE} -->", "[*] -->") for line in arrows]
    closed = [name for name, state in machine.states.items() if state.final]
    ends = [f"{name} --> [*]" for name in closed]
    return "\n".join(f"  {line}" for line in [*drawn, *ends])


def _page(
    title: str, text: str, states: list[StateConfig], rows: list[TransitionConfigDict]
) -> str:
    """One page of `specs/`: what it is, the diagram, the same as a table."""
    moves: dict[str, list[str]] = {}
    machine = _chart(Machine, states, rows, None)
    for source, event, target in edges(machine):
        moves.setdefault(event, []).append(f"{source} → {target}")
    table = "\n".join(f"| {name} | {', '.join(to)} |" for name, to in moves.items())
    return (
        f"# {title}\n\n{text}\n\n"
        "Drawn from `turnfold_model.chart`; `python -m turnfold_model.chart specs` "
        "writes this page again, and a test holds it, the reference and the kernel "
        "together.\n\n"
        f"```mermaid\nstateDiagram-v2\n{mermaid(states, rows)}\n```\n\n"
        f"| event | from → to |\n|---|---|\n{table}\n"
    )


def pages() -> dict[str, str]:
    """The generated pages, by file name."""
    return {
        "entry.md": _page("An outbox entry", _ENTRY_TEXT, ENTRY_STATES, ENTRY_EDGES),
        "turn.md": _page("A turn", _TURN_TEXT, TURN_STATES, TURN_EDGES),
    }


_ENTRY_TEXT: Final = (
    "**Q** queued · **A** attempted, not dispatched · **D** attempted, dispatched · "
    "**U** attempted, in doubt, nobody sending · **P** attempted, parked · "
    "**R** failed_retryable · **OK** delivered · **F** failed_terminal · **X** aborted. "
    "Q, R and X imply that no attempt is in doubt. OK, F and X are closed; only the "
    "arrows below leave them."
)
_TURN_TEXT: Final = (
    "A turn is one inbound message on its way to an answer. It is over when no reply is "
    "owed; `amended` corrects an outcome that later evidence changed."
)


def main(folder: str) -> None:
    """Writes both pages."""
    for name, text in pages().items():
        (Path(folder) / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "specs")
