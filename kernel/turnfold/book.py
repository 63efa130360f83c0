"""The folded state of what is open, kept beside the log.

Terminal history is never loaded: a stream that is closed is folded when somebody asks
and forgotten again. A stream that cannot be read is set aside with its error; the rest
of its lane goes on (Q01).
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence

from turnfold.codec import Record, decode
from turnfold.errors import CorruptLogError
from turnfold.events import Event
from turnfold.fold import STORE, State, apply, family, fold, restore
from turnfold.machines.entry import Entry
from turnfold.machines.ledger import Cursor, Gate, StoreState
from turnfold.machines.turn import Turn
from turnfold.names import ENTRY
from turnfold.ports.store import Listing, Reads, Store, Summary
from turnfold.words import CLOSED, Phase, TurnPhase

_MANY = 1_000_000
_CLOSABLE = (Entry, Turn)


class Book:
    """A View over a store. `reads` is the open transaction while one is open."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.reads: Reads = store
        self.corrupt: dict[str, CorruptLogError] = {}
        self._reset()

    def _reset(self) -> None:
        self.position = 0
        self.last_at = 0
        self._states: dict[str, State] = {}
        self._open: dict[str, str] = {}  # open stream -> its lane
        self._lanes: dict[str, dict[str, None]] = {}
        self._turn_lanes: dict[str, dict[str, None]] = {}
        self._controls: dict[str, None] = {}
        self._closed_gates: dict[str, Gate] = {}
        self._deadlines: list[tuple[int, str]] = []
        self._entries = 0

    def load(self) -> None:
        """Read what is open: one row per open stream, and not a single fold."""
        self._reset()
        head = self.store.head
        for row in self.store.open_streams():
            if row.stream.startswith(ENTRY):  # nearly all, so at once
                self._join(self._lanes, row.stream, row.lane or "")
                self._deadlines.append((row.expires or 0, row.stream))
            else:
                self._list(row)
        self._entries = len(self._deadlines)
        heapq.heapify(self._deadlines)
        for record in self.store.since(max(head.position - 1, 0)):
            self.last_at = max(self.last_at, record.at)
        self.position = head.position

    def _list(self, row: Summary) -> None:
        match family(row.stream):
            case "turn" if row.phase != TurnPhase.ANSWERED:
                self._list_turn(row.stream, row.lane or "", row.kind == "control")
            case "gate":
                self._absorb(restore(row))
            case _:
                pass

    def _list_turn(self, stream: str, lane: str, control: bool) -> None:
        if control:
            self._controls[stream] = None
        else:
            self._join(self._turn_lanes, stream, lane)

    def _join(self, lanes: dict[str, dict[str, None]], stream: str, lane: str) -> None:
        self._open[stream] = lane
        row = lanes.get(lane)
        if row is None:
            row = lanes[lane] = {}
        row[stream] = None

    def _leave(self, lanes: dict[str, dict[str, None]], stream: str) -> None:
        lane = self._open.pop(stream, None)
        if lane is None:
            return
        row = lanes.get(lane, {})
        row.pop(stream, None)
        if not row:
            lanes.pop(lane, None)

    # --- View ---

    @property
    def open_count(self) -> int:
        return self._entries

    def state(self, stream: str) -> State | None:
        known = self._states.get(stream)
        if known is not None:
            return known
        if stream in self.corrupt:
            raise self.corrupt[stream]
        found = self._fetch(stream)
        if found is not None and self._keeps(found):
            self._states[stream] = found
        return found

    def _fetch(self, stream: str) -> State | None:
        if family(stream) in ("gate", "cursor", STORE):
            summary = self.reads.summary(stream)
            return restore(summary) if summary else None
        try:
            return fold(self.reads.read(stream))
        except CorruptLogError as exc:
            self.corrupt[stream] = exc
            raise

    @staticmethod
    def _keeps(state: State) -> bool:
        return not isinstance(state, _CLOSABLE) or state.open

    def lookup(self, key: str) -> str | None:
        return self.reads.lookup(key)

    @property
    def gated(self) -> bool:
        return bool(self._closed_gates)

    def holding(self, gate: str) -> Gate | None:
        return self._closed_gates.get(gate)

    def lane(self, lane: str) -> Iterator[Entry]:
        # Not a copy: a lane may be long, and who asks stops at its first entries.
        for stream in self._lanes.get(lane, ()):
            entry = self._states.get(stream) or self._readable(stream)
            if type(entry) is Entry:
                yield entry

    def turn_lane(self, lane: str) -> Iterator[str]:
        for stream in self._turn_lanes.get(lane, ()):
            if self._readable(stream) is not None:
                yield stream

    def _readable(self, stream: str) -> State | None:
        try:
            return self.state(stream)
        except CorruptLogError:
            return None  # set aside in self.corrupt, shown by health

    def entries_of(self, turn: str) -> Sequence[str]:
        rows = self.reads.list(Listing(parent=turn, limit=_MANY))
        return [row.stream for row in reversed(rows)]

    def stored(self, digest: str) -> bytes:
        return self.store.body(digest)

    def history(self, stream: str) -> Sequence[Event]:
        return [decode(record) for record in self.reads.read(stream)]

    # --- what the scheduler asks ---

    def lanes(self) -> list[str]:
        return list(self._lanes)

    def has_open(self, lane: str) -> bool:
        return lane in self._lanes

    def turn_lanes(self) -> list[str]:
        return list(self._turn_lanes)

    def open_streams(self) -> list[str]:
        """Every entry that is open and every turn that is not answered yet."""
        return [*self._open, *self._controls]

    def controls(self) -> list[str]:
        return list(self._controls)

    def under_way(self, epoch: int) -> list[Entry]:
        """The entries that a worker is attempting."""
        states = self._states.values()
        entries = [state for state in states if isinstance(state, Entry)]
        return [
            e
            for e in entries
            if e.phase in (Phase.ATTEMPTED, Phase.DISPATCHED) and e.fence == epoch
        ]

    def overdue(self, now: int) -> Iterator[str]:
        """Open entries whose time is over, each once."""
        while self._deadlines and self._deadlines[0][0] <= now:
            _, stream = heapq.heappop(self._deadlines)
            if stream in self._open and stream not in self.corrupt:
                yield stream

    def next_deadline(self) -> int | None:
        while self._deadlines and self._deadlines[0][1] not in self._open:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def _deadline(self, expires: int, stream: str) -> None:
        heapq.heappush(self._deadlines, (expires, stream))
        if len(self._deadlines) > 2 * self._entries + 1_000:
            alive = [d for d in self._deadlines if d[1] in self._open]
            heapq.heapify(alive)
            self._deadlines = alive

    # --- moving on ---

    def absorb(self, states: Mapping[str, State], position: int) -> None:
        """Take over what a commit made of its streams."""
        for state in states.values():
            self.last_at = max(self.last_at, state.updated)
            if isinstance(state, Entry):
                self._absorb_entry(state)
            else:
                self._absorb(state)
        self.position = position

    def _absorb(self, state: Turn | Gate | Cursor | StoreState) -> None:
        if self._keeps(state):
            self._states[state.stream] = state
        else:
            self._states.pop(state.stream, None)
        match state:
            case Turn():
                self._absorb_turn(state)
            case Gate():
                self._absorb_gate(state)
            case Cursor() | StoreState():
                pass

    def _absorb_gate(self, gate: Gate) -> None:
        if gate.closed:
            self._closed_gates[gate.stream] = gate
        else:
            self._closed_gates.pop(gate.stream, None)

    def _absorb_entry(self, entry: Entry) -> None:
        stream = entry.stream
        if entry.phase in CLOSED:
            self._states.pop(stream, None)
            if stream in self._open:
                self._leave(self._lanes, stream)
                self._entries -= 1
            return
        before = self._states.get(stream)
        self._states[stream] = entry
        if stream not in self._open:
            self._join(self._lanes, stream, entry.lane)
            self._entries += 1
            self._deadline(entry.expires_at, stream)
        elif type(before) is Entry and before.expires_at != entry.expires_at:
            self._deadline(entry.expires_at, stream)

    def _absorb_turn(self, turn: Turn) -> None:
        waits = turn.open and turn.phase is not TurnPhase.ANSWERED
        if waits and turn.stream not in self._open:
            self._list_turn(turn.stream, turn.lane, turn.control)
        elif not waits:
            self._controls.pop(turn.stream, None)
            self._leave(self._turn_lanes, turn.stream)

    def catch_up(self, reads: Reads) -> dict[str, State]:
        """Fold what others appended; returns the streams that moved."""
        moved: dict[str, State] = {}
        records = reads.since(self.position)
        if not records:
            return moved
        for record in records:
            state = self._next(record, moved)
            if state is not None:
                moved[record.stream] = state
            self.position = record.position
        self.absorb(moved, self.position)
        return moved

    def _next(self, record: Record, moved: Mapping[str, State]) -> State | None:
        if record.stream in self.corrupt:
            return None
        try:
            if record.version == 1:
                return apply(None, record)
            before = moved.get(record.stream) or self._states.get(record.stream)
            if before is None:
                return self._fetch(record.stream)
            if before.version >= record.version:
                return before  # fetched after that record was written
            return apply(before, record)
        except CorruptLogError as exc:
            self.corrupt[record.stream] = exc
            return None
