"""The traces of a whole log: one for each entry, turn, and lane of entries or of turns.

The streams of one commit have no order among each other, and a moment stands for a
commit (`specs/rules.md`). So a turn that ends may stand before its final in the log: the
final's phase is then the one that it reaches in the same moment.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any, Final

from attrs import define, field

from turnfold_model.edge_walks.edges import Edge, steps
from turnfold_model.reference.kinds import Record
from turnfold_model.tla import (
    trace_busy,
    trace_entry,
    trace_lane,
    trace_live,
    trace_turn,
)
from turnfold_model.tla.trace import OutsideError, Trace

# The fate of an entry by the word of a person, or of a platform that takes its own
# back: the turn's module knows none of it.
_UNKNOWN: Final = frozenset({"resolved", "redriven", "bounced"})
_ENDS: Final = frozenset({"completed", "failed", "aborted"})
_CLOSED: Final = frozenset({"delivered", "failed", "aborted"})


@define
class Traces:
    """`found`: each trace, and in how many streams. `outside`: why some have none."""

    logs: int = 0
    events: int = 0
    found: Counter[Trace] = field(factory=Counter)
    outside: Counter[str] = field(factory=Counter)

    def add(self, log: Iterable[Record]) -> None:
        """The streams of one more log."""
        self.logs += 1
        entries: dict[str, list[Record]] = {}
        turns: dict[str, list[tuple[Record, str]]] = {}
        lanes: dict[str, list[tuple[Edge, Record]]] = {}
        lane_of: dict[str, str] = {}
        phases: dict[str, str] = {}
        finals: dict[str, str] = {}
        judged: dict[str, str] = {}
        known = list(_with_ends(log))
        for edge, event, ends in known:
            self.events += 1
            stream = str(event["stream"])
            if edge.machine == "outbox":
                entries.setdefault(stream, []).append(event)
                phases[stream] = edge.target
                lane = lane_of.setdefault(stream, str(event["data"].get("lane")))
                lanes.setdefault(lane, []).append((edge, event))
                if edge.event in _UNKNOWN:
                    judged[stream] = edge.event
                continue
            if edge.event == "answered":
                named = next(iter(event["data"].get("finals", ())), "")
                finals[stream] = named if named in phases else f"entry:{named}"
            final = phases.get(finals.get(stream, ""), "none")
            if edge.event in _ENDS and final not in (*_CLOSED, "none"):
                final = ends.get(finals[stream], final)
            turns.setdefault(stream, []).append((event, final))
        for events in entries.values():
            kind = trace_live if trace_live.is_of_it(events) else trace_entry
            self._project(kind.project, events)
        of_turns = trace_busy.lanes((edge, event) for edge, event, _ in known)
        self._project_all(trace_lane.project, lanes.values())
        self._project_all(trace_busy.project, of_turns)
        for name, pairs in turns.items():
            why = judged.get(finals.get(name, ""))
            if why is None:
                self._project(trace_turn.project, pairs)
            else:
                self.outside[f"final {why}"] += 1

    def _project_all(
        self, projection: Callable[[Any], Trace], streams: Iterable[Any]
    ) -> None:
        for events in streams:
            self._project(projection, events)

    def _project(self, projection: Callable[[Any], Trace], events: Any) -> None:
        try:
            self.found[projection(events)] += 1
        except OutsideError as exc:
            self.outside[str(exc)] += 1


def _with_ends(log: Iterable[Record]) -> Iterator[tuple[Edge, Record, dict[str, str]]]:
    """Each edge and its event, with the entries that close in the same moment: the
    first closed phase of each."""
    for _, moment in groupby(steps(log), key=lambda step: step[1]["at"]):
        known = list(moment)
        ends: dict[str, str] = {}
        for edge, event in known:
            if edge.machine == "outbox" and edge.target in _CLOSED:
                ends.setdefault(str(event["stream"]), edge.target)
        for edge, event in known:
            yield edge, event, ends
