"""Both statecharts in `transitions`, made from the model's table.

The charts hold no row of their own: `transition_table` has the rows, written by hand.
A chart has no callbacks and no automatic transitions. An event with several targets
stands once per target; the data of the event decide which target follows.

The diagrams in `specs/entry.md` and `specs/turn.md` are drawn from here:
`python -m turnfold_model.machines.statechart specs`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from transitions import Machine
from transitions.extensions import GraphMachine

from turnfold_model.machines.transition_table import (
    CLOSED,
    ENTRY_PHASES,
    ENTRY_ROWS,
    NONE,
    TURN_CLOSED,
    TURN_PHASES,
    TURN_ROWS,
    Rows,
    edges,
)

if TYPE_CHECKING:  # these two are names of its stubs only
    from transitions.core import StateConfig, TransitionConfigDict


_WIDE: Final = 150  # columns of a line of prose


class Chart(NamedTuple):
    """The rows of one machine, with the phases in the order in which they are drawn."""

    phases: tuple[str, ...]
    closed: frozenset[str]
    rows: Rows

    def states(self) -> list[StateConfig]:
        """The phases in the form that `transitions` takes."""
        names = (NONE, *self.phases)
        return [{"name": name, "final": name in self.closed} for name in names]

    def transitions(self) -> list[TransitionConfigDict]:
        """The edges in the form that `transitions` takes."""
        return [
            {"trigger": event, "source": source, "dest": dest}
            for event, source, dest in edges(self.rows)
        ]

    def machine(self, cls: type[Machine] = Machine, **options: Any) -> Machine:
        """The chart at work. `options` go to `transitions`; `model` is its object."""
        return cls(
            states=self.states(),
            transitions=self.transitions(),
            initial=NONE,
            auto_transitions=False,
            **{"model": _Model(), **options},
        )


class _Model:
    """The object that a chart moves: one entry or one turn."""

    state: str


ENTRY: Final = Chart(ENTRY_PHASES, CLOSED, ENTRY_ROWS)
TURN: Final = Chart(TURN_PHASES, TURN_CLOSED, TURN_ROWS)


def drawn_edges(machine: Machine) -> Iterator[tuple[str, str, str]]:
    """Each edge (event, phase, next phase) that `transitions` has in a chart."""
    for name, event in machine.events.items():
        for source, transitions in event.transitions.items():
            for transition in transitions:
                yield name, source, transition.dest or source


def mermaid(chart: Chart) -> str:
    """The chart as Mermaid text, without the colours that its maker adds."""
    machine = chart.machine(GraphMachine, graph_engine="mermaid")
    image = BytesIO()
    cast("Any", machine).get_graph().draw(image, prog="dot", format="mermaid")
    lines = image.getvalue().decode().splitlines()
    arrows = [line.strip() for line in lines if "-->" in line and "[*]" not in line]
    drawn = [line.replace(f"{NONE} -->", "[*] -->") for line in arrows]
    ends = [f"{name} --> [*]" for name in chart.phases if name in chart.closed]
    return "\n".join(f"  {line}" for line in [*drawn, *ends])


def _page(title: str, text: str, chart: Chart) -> str:
    """One page of `specs/`: a text, the diagram, and the edges as a table."""
    moves: dict[str, list[str]] = {}
    for event, source, target in edges(chart.rows):
        moves.setdefault(event, []).append(f"{source} → {target}")
    table = "\n".join(f"| {name} | {', '.join(to)} |" for name, to in moves.items())
    drawn = (
        "Drawn from `turnfold_model.machines.transition_table`; `python -m "
        "turnfold_model.machines.statechart specs` writes this page again. A test holds "
        "the page, that table and the kernel's own table together."
    )
    return (
        f"# {title}\n\n{fill(text, _WIDE)}\n\n{fill(drawn, _WIDE)}\n\n"
        f"```mermaid\nstateDiagram-v2\n{mermaid(chart)}\n```\n\n"
        f"| event | from → to |\n|---|---|\n{table}\n"
    )


def pages() -> dict[str, str]:
    """The generated pages, by file name."""
    return {
        "entry.md": _page("An outbox entry", _ENTRY_TEXT, ENTRY),
        "turn.md": _page("A turn", _TURN_TEXT, TURN),
    }


_ENTRY_TEXT: Final = (
    "`attempted`: nothing is on the wire yet. `dispatched`: a request may be on the "
    "wire. `in_doubt`: a part may have arrived, and nobody sends. `parked`: the same, "
    "and it waits for a person. `queued`, `retryable` and `aborted` imply that no "
    "attempt is in doubt. `delivered`, `failed` and `aborted` are closed; only the "
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
