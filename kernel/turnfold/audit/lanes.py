"""Who may go first in a lane: the order of queueing, unless the head has yielded."""

from collections import deque
from collections.abc import Sequence

from turnfold.audit.findings import Rule
from turnfold.machines.entry import Entry
from turnfold.machines.turn import Turn
from turnfold.words import CLOSED, Phase, TurnPhase

_WAITING = (TurnPhase.ACCEPTED, TurnPhase.RUNNING)


class Lanes:
    """Per lane, in order, the streams that hold later ones back.

    What was reopened or let go by hand (redriven, resubmitted, unheld) neither holds
    nor is held: its old place in the lane is long gone.
    """

    def __init__(self) -> None:
        self._holding: dict[str, int] = {}  # their orders
        self._rows: dict[str, deque[str]] = {}  # the first of each row is holding
        self._free: set[str] = set()

    def ahead_of(self, stream: str, lane: str, order: int) -> str | None:
        """The stream that should have gone before this one."""
        row = self._rows.get(lane)
        if row is None or row[0] == stream or stream in self._free:
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
        """Whoever leaves from amidst a row stays in it until he is its first: so this
        takes no longer in a long row."""
        if self._holding.pop(stream, None) is None:
            return
        row = self._rows[lane]
        while row and row[0] not in self._holding:
            row.popleft()
        if not row:
            del self._rows[lane]

    def free(self, stream: str) -> None:
        self._free.add(stream)

    def close(self, stream: str, lane: str) -> None:
        self._free.discard(stream)
        self.leave(stream, lane)


class EntryLanes(Lanes):
    def overtakes(
        self, stream: str, lane: str, order: int
    ) -> Sequence[tuple[Rule, str]]:
        """An entry is attempted: the one that should have gone first."""
        head = self.ahead_of(stream, lane, order)
        if head is None:
            return ()
        return [(Rule.LANE_ORDER, f"attempted before {head}, which has not yielded")]

    def moved(self, was: Phase | None, after: Entry) -> None:
        """`was`: its phase before; none for a new one."""
        if after.phase in CLOSED:
            self.close(after.stream, after.lane)
        elif was is not None and was in CLOSED:
            self.free(after.stream)
        elif after.yielded:
            self.leave(after.stream, after.lane)
        elif was is None:
            self.join(after.stream, after.lane, after.order)


class TurnLanes(Lanes):
    def overtakes(
        self, stream: str, lane: str, order: int
    ) -> Sequence[tuple[Rule, str]]:
        """A turn is started: the one that should have gone first."""
        head = self.ahead_of(stream, lane, order)
        if head is None:
            return ()
        return [(Rule.TURN_LANE, f"started before {head} was answered")]

    def moved(self, was: TurnPhase | None, after: Turn, *, held: bool) -> None:
        """`was`: its phase before, none for a new one; `held`: was it held?"""
        if after.control:
            return
        if was is None:
            self.join(after.stream, after.lane, after.order)
        elif after.phase not in _WAITING:
            self.close(after.stream, after.lane)
        elif after.held:
            self.leave(after.stream, after.lane)
        elif held or was.closed:
            self.free(after.stream)
