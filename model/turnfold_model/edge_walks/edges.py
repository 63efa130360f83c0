"""Which edges of the two machines have a log's events taken: from, event, to.

A log is evidence of its gateway's real steps, so the edges that no test's log has taken
are untested. The reference steps each stream; an event that it refuses ends its stream
here, since the state after it is not known (`audit` names the broken rule). A stream
without its beginning (pruned) is left alone.

>>> queued = {"kind": "final", "channel": "c", "account": "a", "conversation": "1",
...           "lane": "l", "body": ["b"], "expires_at": 10}
>>> taken([{"stream": "entry:1", "kind": "outbox.queued", "at": 1, "data": queued}])
{Edge(machine='outbox', source='none', event='queued', target='Q'): 1}
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from turnfold_model.machines.transition_table import ENTRY_ROWS, NONE, TURN_ROWS, edges
from turnfold_model.reference.judge import legal
from turnfold_model.reference.kinds import Record, Violation
from turnfold_model.reference.shapes import State


class Edge(NamedTuple):
    """`machine` is the family of the event: outbox or turn."""

    machine: str
    source: str
    event: str
    target: str

    def __str__(self) -> str:
        return f"{self.machine}.{self.event}: {self.source} -> {self.target}"


_ROWS: Final = {"outbox": ENTRY_ROWS, "turn": TURN_ROWS}
ALL: Final = frozenset(
    Edge(machine, source, event, target)
    for machine, rows in _ROWS.items()
    for event, source, target in edges(rows)
)


def steps(events: Iterable[Record]) -> Iterator[tuple[Edge, Record]]:
    """Each edge that a log takes, with its event, in the order of the log."""
    states: dict[str, State | None] = {}
    for event in events:
        stream = str(event.get("stream"))
        machine, _, name = str(event.get("kind")).partition(".")
        if machine not in ("outbox", "turn"):
            continue
        before = states.get(stream)
        if stream in states and before is None:
            continue  # it ended at an unknown event
        after = legal(before, event)
        if isinstance(after, Violation):
            states[stream] = None
            continue
        states[stream] = after
        source = NONE if before is None else before.phase
        yield Edge(machine, source, name, after.phase), event


def taken(events: Iterable[Record]) -> Mapping[Edge, int]:
    """How often a log takes each edge."""
    return dict(Counter(edge for edge, _ in steps(events)))
