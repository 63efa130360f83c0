"""The order of a lane: by the position of the first event (INV-8, specs/rules.md)."""

from collections import deque
from collections.abc import Iterator

from turnfold.audit.entries import Say
from turnfold.audit.findings import Rule
from turnfold.machines.entry import Entry
from turnfold.machines.ledger import Gate
from turnfold.machines.turn import Turn
from turnfold.names import gates_of
from turnfold.words import CLOSED, TurnPhase

_WAITING = (TurnPhase.ACCEPTED, TurnPhase.RUNNING)


class Lanes:
    """The streams of each lane that hold later ones back, in their order. A stream that
    left does not come back: reopened, it holds nobody."""

    def __init__(self) -> None:
        self._holding: dict[str, int] = {}  # their orders
        self._rows: dict[str, deque[str]] = {}  # the first of each row is holding

    def ahead_of(self, stream: str, lane: str, order: int) -> str | None:
        """The stream that should have gone before this one."""
        row = self._rows.get(lane)
        if row is None or row[0] == stream:
            return None
        return row[0] if self._holding[row[0]] < order else None

    def join(self, stream: str, lane: str, order: int) -> None:
        self._holding[stream] = order
        row = self._rows.get(lane)
        if row is None:
            self._rows[lane] = deque((stream,))
        else:
            row.append(stream)

    def leave(self, stream: str, lane: str) -> None:
        """A stream that leaves from the middle of a row stays in the row until it is
        the first: so a long row costs no more than a short one."""
        if self._holding.pop(stream, None) is None:
            return
        row = self._rows[lane]
        while row and row[0] not in self._holding:
            row.popleft()
        if not row:
            del self._rows[lane]


class EntryLanes(Lanes):
    """A lane is sent in order, unless its head yielded, and while its gates are open."""

    def __init__(self) -> None:
        super().__init__()
        self._gates: dict[str, Gate] = {}  # the closed ones
        self._opened: set[str] = set()  # gates that were open in this moment, too

    def gate(self, gate: Gate) -> None:
        before = self._gates.get(gate.stream)
        if gate.closed:
            if before is None or not before.holds(gate.updated):
                self._opened.add(gate.stream)
            self._gates[gate.stream] = gate
        else:
            self._gates.pop(gate.stream, None)

    def free(self, stream: str, lane: str, order: int, at: int) -> bool:
        """True if an entry may be attempted."""
        if self.ahead_of(stream, lane, order) is not None:
            return False
        return not self._gates or self._closed(lane, at) is None

    def _closed(self, lane: str, at: int) -> str | None:
        """A gate of the lane that was closed in all of this moment: the log does not
        tell whether an attempt was decided before or after a gate closed."""
        if lane.count("/") != 3:
            return None
        closed = (self._gates[name] for name in self._gates_of(lane))
        return next((gate.stream for gate in closed if gate.holds(at)), None)

    def _gates_of(self, lane: str) -> Iterator[str]:
        names = gates_of(lane)
        return (n for n in names if n in self._gates and n not in self._opened)

    def end_moment(self) -> None:
        self._opened.clear()

    def say(self, stream: str, lane: str, order: int, at: int, say: Say) -> None:
        """Say what stands in the way of an attempt."""
        head, gate = self.ahead_of(stream, lane, order), self._closed(lane, at)
        if head is not None:
            say(Rule.LANE_ORDER, f"attempted before {head}, which has not yielded")
        if gate is not None:
            say(Rule.GATE, f"attempted while {gate} is closed")

    def begun(self, entry: Entry) -> None:
        if entry.open:
            self.join(entry.stream, entry.lane, entry.order)

    def moved(self, entry: Entry) -> None:
        """Call after each event that may end the wait of others."""
        if entry.yielded or entry.phase in CLOSED:
            self.leave(entry.stream, entry.lane)


class TurnLanes(Lanes):
    """The turns of a lane run one at a time, in order. Control input takes no lane."""

    def __init__(self) -> None:
        super().__init__()
        self._running: dict[str, set[str]] = {}

    def free(self, stream: str, lane: str, order: int) -> bool:
        """True if a turn may be started."""
        others = self._running.get(lane, set()) - {stream}
        return not others and self.ahead_of(stream, lane, order) is None

    def say(self, stream: str, lane: str, order: int, say: Say) -> None:
        """Say what stands in the way of a start."""
        head = self.ahead_of(stream, lane, order)
        if head is not None:
            say(Rule.TURN_LANE, f"started before {head} was answered")
        for other in self._running.get(lane, set()) - {stream}:
            say(Rule.TURN_LANE, f"started while {other} runs in its lane")

    def moved(self, before: TurnPhase | None, after: Turn) -> None:
        """Call after each event of a turn, with its phase before the event."""
        if after.control:
            return
        if before is None:
            self.join(after.stream, after.lane, after.order)
        elif after.phase not in _WAITING or after.held or after.left_open is not None:
            self.leave(after.stream, after.lane)
        if after.phase is TurnPhase.RUNNING and after.left_open is None:
            self._running.setdefault(after.lane, set()).add(after.stream)
        elif before is TurnPhase.RUNNING:
            running = self._running.get(after.lane, set())
            running.discard(after.stream)
            if not running:
                self._running.pop(after.lane, None)
