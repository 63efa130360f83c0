"""The folded state of open streams, kept in memory: the read model of decisions.

Only the owner of a store appends, so this state stays true until the owner's own next
commit. Closed streams are not kept: a question about one raises NotLoaded, the
committer fetches the stream, and the question is asked again. A stream that cannot be
read, or has altered records, is set aside with its error, and the rest of its lane goes
on (Q01).
"""

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter

from turnfold._decide.missing import NotLoaded
from turnfold._log.canonical import BLANK
from turnfold._log.codec import decode
from turnfold._log.events import Event
from turnfold._log.ids import ENTRY, GATE, gates_of
from turnfold._runtime.damage import check_hashes, check_row
from turnfold._state.entry import Entry
from turnfold._state.fold import (
    STORE,
    TRIED,
    Cursor,
    Gate,
    State,
    StoreState,
    family,
    fold,
    restore,
    unseen,
)
from turnfold._state.turn import Turn
from turnfold.enums import ANSWERED, CLOSED, ON_ITS_WAY, PARKED, RUNNING, Kind, Phase
from turnfold.errors import CorruptLogError
from turnfold.logs import lines
from turnfold.ports.store import (
    Body,
    BodyRef,
    Count,
    Found,
    Head,
    Loaded,
    Prune,
    Record,
    Summary,
    Wanted,
)

_LOG = lines()
_AT_ONCE = 20  # entries of one lane in one fetch, at least
_KEPT = 10_000  # answers about closed streams, keys and turns that stay in memory
_CLOSABLE = (Entry, Turn)
_UNDER_WAY = ON_ITS_WAY | {RUNNING}
_SUMMARIZED = ("gate", "cursor", STORE)  # their last event is their state
# A plain dict, which the crash checker can copy.
_NO_DEAD = {"entry": 0, "turn": 0}


class OpenStreams:
    """A View over a store that this process owns. Call `load` first, then `take` after
    each fetch and `absorb` after each commit. It does no I/O."""

    def __init__(self) -> None:
        self.corrupt: dict[str, CorruptLogError] = {}
        self.parked: set[str] = set()
        self.dead = dict(_NO_DEAD)  # by family; see `count_dead`
        self._reset()

    def _reset(self) -> None:
        self.head = BLANK
        self.last_at = 0
        self._states: dict[str, State] = {}
        self._elsewhere: dict[str, State | None] = {}  # closed, or missing
        self._keys: dict[str, str | None] = {}
        self._children: dict[str, list[str]] = {}
        self._records: dict[str, Sequence[Record]] = {}
        self._bodies: dict[BodyRef, Body | None] = {}
        self._open: dict[str, str] = {}  # open stream -> its lane
        self._lanes: dict[str, dict[str, int]] = {}  # its streams with their places
        self._turn_lanes: dict[str, dict[str, int]] = {}
        self._unplaced: dict[str, set[str]] = {}  # notices of a lane, not folded yet
        self._controls: dict[str, None] = {}
        self._closed_gates: dict[str, Gate] = {}
        self._deadlines: list[tuple[int, str]] = []
        self._entries = 0
        self._of: dict[str, int] = {}  # account's gate -> open entries
        self._left: list[str] = []
        self._running: set[str] = set()
        self._suspects: set[str] = set()
        self._blamed: set[str] = set()  # suspect entries
        self._flying: set[str] = set()  # entries on their way, while any is suspect
        self.parked.clear()

    def load(self, loaded: Loaded) -> None:
        """Begin anew with the store's own rows, without a fold. Raises CorruptLogError
        for an impossible row: rows have no hash."""
        try:
            self._load(loaded)
        except (ValueError, TypeError, LookupError) as exc:
            problem = f"a row of the open streams cannot be read: {exc!r:.100}"
            raise CorruptLogError(
                position=loaded.head.position, stream="store", problem=problem
            ) from exc

    def _load(self, loaded: Loaded) -> None:
        self._reset()
        for row in loaded.open:
            if row.phase in _UNDER_WAY or row.failure == TRIED:
                self._left.append(row.stream)
            if row.stream.startswith(ENTRY):  # nearly all, so first
                self._join(self._lanes, row.stream, row.lane or "", row.order)
                if row.kind == Kind.NOTICE:
                    self._unplaced.setdefault(row.lane or "", set()).add(row.stream)
                self._count(row.lane or "", 1)
                self._deadlines.append((row.expires or 0, row.stream))
                if row.phase == Phase.PARKED:
                    self.parked.add(row.stream)
            else:
                self._list(row)
        self._entries = len(self._deadlines)
        heapq.heapify(self._deadlines)
        if loaded.store is None:
            self._elsewhere[STORE] = None
        else:
            self._states[STORE] = restore(loaded.store)
        self.head = loaded.head
        self.last_at = loaded.last_at

    def _list(self, row: Summary) -> None:
        match family(row.stream):
            case "turn" if row.phase != ANSWERED:
                control = row.kind == "control"
                self._list_turn(row.stream, row.lane or "", row.order, control)
            case "gate":
                self._absorb(restore(row))
            case _:
                pass

    def _list_turn(self, stream: str, lane: str, order: int, control: bool) -> None:
        if control:
            self._controls[stream] = None
        else:
            self._join(self._turn_lanes, stream, lane, order)

    def _join(
        self, lanes: dict[str, dict[str, int]], stream: str, lane: str, order: int
    ) -> None:
        self._open[stream] = lane
        row = lanes.get(lane)
        if row is None:
            row = lanes[lane] = {}
        row[stream] = order

    def _place(self, entry: Entry) -> None:
        """Put a notice behind its entry and the earlier notices of that entry."""
        row = self._lanes[entry.lane]
        del row[entry.stream]
        waits = next(reversed(row.values()), 0) > entry.behind
        row[entry.stream] = entry.behind
        if waits:
            self._lanes[entry.lane] = dict(sorted(row.items(), key=itemgetter(1)))

    def _place_notices(self, lane: str) -> None:
        """Place the notices that were known only by their rows until now."""
        names = self._unplaced[lane] & self._lanes.get(lane, {}).keys()
        unread = [s for s in names if s not in self._states and self._unknown(s)]
        if unread:
            raise NotLoaded(Wanted(streams=frozenset(unread)))
        for stream in names:
            entry = self._states.get(stream)
            if type(entry) is Entry and entry.behind:
                self._place(entry)
        del self._unplaced[lane]

    def _leave(self, lanes: dict[str, dict[str, int]], stream: str) -> None:
        lane = self._open.pop(stream, None)
        if lane is None:
            return
        row = lanes.get(lane, {})
        row.pop(stream, None)
        if not row:
            lanes.pop(lane, None)

    # --- View ---

    @property
    def position(self) -> int:
        """The end of the log, as far as this process has read it."""
        return self.head.position

    @property
    def open_count(self) -> int:
        return self._entries

    def open_of(self, account: str) -> int:
        return self._of.get(account, 0)

    def open_by_account(self) -> Mapping[str, int]:
        """How many open entries each account has, by the name of its gate."""
        return {gate: count for gate, count in self._of.items() if count}

    def behind(self, gate: str) -> int:
        """How many open entries a gate's scope has. Takes time in proportion to the
        lanes, except for an account and for a single lane."""
        if gate in self._of:
            return self._of[gate]
        scope = gate.removeprefix(GATE)
        if scope in self._lanes:
            return len(self._lanes[scope])
        lanes = self._lanes.items()
        return sum(len(row) for lane, row in lanes if lane.startswith(f"{scope}/"))

    def _count(self, lane: str, by: int) -> None:
        account = gates_of(lane)[0]
        self._of[account] = self._of.get(account, 0) + by

    def turns_waiting(self, lane: str) -> int:
        return len(self._turn_lanes.get(lane, ()))

    def state(self, stream: str) -> State | None:
        known = self._states.get(stream)
        if known is not None:
            return known
        if stream in self.corrupt:
            raise self.corrupt[stream]
        if stream in self._elsewhere:
            return self._elsewhere[stream]
        names = frozenset((stream,))
        if family(stream) in _SUMMARIZED:
            raise NotLoaded(Wanted(summaries=names))
        raise NotLoaded(Wanted(streams=names))

    @staticmethod
    def _keeps(state: State) -> bool:
        return not isinstance(state, _CLOSABLE) or state.open

    def lookup(self, key: str) -> str | None:
        if key not in self._keys:
            raise NotLoaded(Wanted(keys=frozenset((key,))))
        return self._keys[key]

    def holder(self, key: str) -> str | None:
        """As `lookup`, from memory alone."""
        return self._keys.get(key)

    @property
    def gated(self) -> bool:
        return bool(self._closed_gates)

    def holding(self, gate: str) -> Gate | None:
        return self._closed_gates.get(gate)

    def closed_gates(self) -> Sequence[Gate]:
        return list(self._closed_gates.values())

    @property
    def left_under_way(self) -> Sequence[str]:
        return self._left

    @property
    def suspected(self) -> bool:
        return bool(self._suspects or self._blamed)

    def running(self) -> Collection[str]:
        return self._running

    def flying(self) -> Collection[str]:
        return self._flying

    def lane(self, lane: str) -> Iterator[Entry]:
        # Not a copy: callers usually stop at the first entries of a long lane.
        if self._unplaced and lane in self._unplaced:
            self._place_notices(lane)
        return self._states_of(self._lanes.get(lane, {}))

    def _states_of(self, row: Mapping[str, int]) -> Iterator[Entry]:
        for stream in row:
            entry = self._states.get(stream)
            if entry is None and self._unknown(stream):
                raise NotLoaded(Wanted(streams=self._unread(row)))
            if type(entry) is Entry:
                yield entry

    def turn_lane(self, lane: str) -> Iterator[str]:
        row = self._turn_lanes.get(lane, {})
        for stream in row:
            if stream in self._states:
                yield stream
            elif self._unknown(stream):
                raise NotLoaded(Wanted(streams=self._unread(row)))

    def _unknown(self, stream: str) -> bool:
        """True if an open stream was not fetched yet. If it was fetched and is closed,
        another owner moved it, and the next commit will be refused."""
        return stream not in self.corrupt and stream not in self._elsewhere

    def _there(self, stream: str) -> bool:
        return stream in self._states or not self._unknown(stream)

    def _unread(self, row: Mapping[str, int]) -> frozenset[str]:
        """The first streams of a lane that are not folded yet. Their number doubles
        with each fetch, so that reading a long lane to its end takes few fetches."""
        unread: list[str] = []
        folded = 0
        for stream in row:
            if stream not in self._states and self._unknown(stream):
                unread.append(stream)
            else:
                folded += 1
            if len(unread) >= max(_AT_ONCE, folded):
                break
        return frozenset(unread)

    def entries_of(self, turn: str) -> Sequence[str]:
        known = self._children.get(turn)
        if known is None:
            raise NotLoaded(Wanted(children=frozenset((turn,))))
        return known

    def lacks(self, turn: str, entry: str) -> bool:
        return entry not in self._children.get(turn, (entry,))

    def stored(self, place: BodyRef) -> Body | None:
        if place not in self._bodies:
            raise NotLoaded(Wanted(bodies=frozenset((place,))))
        return self._bodies[place]

    def records(self, stream: str) -> Sequence[Record]:
        records = self._records.get(stream)
        if records is None:
            raise NotLoaded(Wanted(streams=frozenset((stream,))))
        return records

    def history(self, stream: str) -> Sequence[Event]:
        return [event for record in self.records(stream) for event in decode(record)]

    # --- dead letters ---

    def count_dead(self, counts: Iterable[Count]) -> None:
        """Take over the store's counts of the streams that wait for a person, by family
        and phase. Those that are not open are dead letters: entries that ended
        undelivered and updates that could not be read, which nobody has seen yet."""
        self.dead = dict(_NO_DEAD)
        for count in counts:
            family_name, phase = map(str, count.values)
            if phase == Phase.FAILED:
                self.dead[family_name] += count.count

    def _count_if_dead(self, state: State | None, by: int) -> None:
        if isinstance(state, Entry):
            if state.phase is Phase.FAILED and not state.acknowledged:
                self.dead["entry"] += by
        elif isinstance(state, Turn) and unseen(state):
            self.dead["turn"] += by

    # --- fetched state ---

    def missing(self, wanted: Iterable[Wanted]) -> Wanted | None:
        """The keys and streams that are not in memory; None if there are none."""
        keys, streams = set[str](), set[str]()
        for one in wanted:
            keys.update(key for key in one.keys if key not in self._keys)
            streams.update(name for name in one.streams if not self._there(name))
        if not keys and not streams:
            return None
        return Wanted(keys=frozenset(keys), streams=frozenset(streams))

    def take(self, found: Found) -> None:
        """Keep the result of a fetch. State in memory is never older than it."""
        for stream, records in found.streams.items():
            self._records[stream] = records
            if stream not in self._states:
                self._take_stream(stream, records)
        for stream, summary in found.summaries.items():
            if stream not in self._states:
                self._keep(stream, restore(summary) if summary else None)
        self._keys.update(found.keys)
        self._bodies.update(found.bodies)
        for turn, entries in found.children.items():
            self._children[turn] = list(entries)

    def _take_stream(self, stream: str, records: Sequence[Record]) -> None:
        try:
            check_hashes(records)
            state = fold(records)
            check_row(stream, state, self._open.get(stream))
            self._keep(stream, state)
        except CorruptLogError as exc:
            self.set_aside(stream, exc)

    def set_aside(self, stream: str, damage: CorruptLogError) -> None:
        """No decision uses a damaged stream until a person has mended it."""
        if stream not in self.corrupt:
            _LOG.error("%s is set aside: %s", stream, damage)
        self.corrupt[stream] = damage
        self._states.pop(stream, None)

    def _keep(self, stream: str, state: State | None) -> None:
        if state is not None and self._keeps(state):
            self._states[stream] = state
            if isinstance(state, Turn):
                self._note_suspicion(state)
            elif isinstance(state, Entry):
                self._note_blame(state)
        else:
            self._elsewhere[stream] = state

    def forget_fetched(self) -> None:
        """Forget fetched state after a commit or a question: records and bodies may be
        large, and the rest must not grow for ever."""
        self._records.clear()
        self._bodies.clear()
        for kept in (self._elsewhere, self._keys, self._children):
            if len(kept) > _KEPT:
                kept.clear()

    def drop(self, prune: Prune) -> None:
        """Forget the streams that a commit has taken out of the log. Its decision has
        read each of them."""
        for stream in prune.streams:
            self._count_if_dead(self._elsewhere.pop(stream, None), -1)
            self._children.pop(stream, None)
        for key in prune.keys:
            self._keys.pop(key, None)

    # --- questions of the scheduler ---

    def lanes(self) -> list[str]:
        return list(self._lanes)

    def length(self, lane: str) -> int:
        """How many entries of a lane are open."""
        return len(self._lanes.get(lane, ()))

    def has_open(self, lane: str) -> bool:
        return lane in self._lanes

    def turn_lanes(self) -> list[str]:
        return list(self._turn_lanes)

    def at_rest(self) -> bool:
        """Is nothing open but entries and turns that wait for a person?"""
        if self._controls:
            return False
        return all(s in self.parked or self._is_held(s) for s in self._open)

    def _is_held(self, stream: str) -> bool:
        turn = self._states.get(stream)
        return isinstance(turn, Turn) and turn.held

    def open_streams(self) -> list[str]:
        """Every entry that is open and every turn that is not answered yet."""
        return [*self._open, *self._controls]

    def controls(self) -> list[str]:
        return list(self._controls)

    def under_way(self, epoch: int) -> list[Entry]:
        """The entries with an attempt, a plan or a look-up of this worker under way."""
        states = self._states.values()
        entries = [state for state in states if isinstance(state, Entry)]
        return [e for e in entries if e.goes and e.fence == epoch]

    def folded(self) -> Iterator[Entry]:
        """The open entries in memory, in the order of their queueing: a worker has read
        each lane."""
        found = (self._states.get(stream) for stream in self._open)
        return (state for state in found if type(state) is Entry)

    def overdue(self, now: int) -> Iterator[str]:
        """Open entries that have expired, each once."""
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

    def absorb(
        self, states: Mapping[str, State], head: Head, keys: Mapping[str, str]
    ) -> None:
        """Apply the new states and keys of a commit."""
        for state in states.values():
            if state.updated > self.last_at:  # noqa: PLR1730  `max` is slow
                self.last_at = state.updated
            before = self._elsewhere.pop(state.stream, None)
            if before is not None:  # a closed stream has moved
                self._count_if_dead(before, -1)
            if isinstance(state, Entry):
                self._absorb_entry(state)
            else:
                self._absorb(state)
        self._keys.update(keys)
        self.head = head

    def _absorb(self, state: Turn | Gate | Cursor | StoreState) -> None:
        if self._keeps(state):
            self._states[state.stream] = state
        else:
            self._states.pop(state.stream, None)
            self._elsewhere[state.stream] = state  # its handler may still be at work
        if isinstance(state, Turn):
            self._absorb_turn(state)
        elif isinstance(state, Gate):
            self._absorb_gate(state)

    def _absorb_gate(self, gate: Gate) -> None:
        if gate.closed:
            self._closed_gates[gate.stream] = gate
        else:
            self._closed_gates.pop(gate.stream, None)

    def _absorb_entry(self, entry: Entry) -> None:
        stream = entry.stream
        if self._blamed or entry.blame.suspects:
            self._note_blame(entry)
        if entry.phase is PARKED:
            self.parked.add(stream)
        elif self.parked:
            self.parked.discard(stream)
        if entry.turn is not None and entry.order > self.head.position:
            siblings = self._children.get(entry.turn)
            if siblings is not None:
                siblings.append(stream)
        if entry.phase in CLOSED:
            self._count_if_dead(entry, 1)
            self._states.pop(stream, None)
            if stream in self._open:
                self._leave(self._lanes, stream)
                self._entries -= 1
                self._count(entry.lane, -1)
            return
        before = self._states.get(stream)
        self._states[stream] = entry
        if stream not in self._open:
            self._enter(entry)
        elif type(before) is Entry and before.expires_at != entry.expires_at:
            self._deadline(entry.expires_at, stream)

    def _enter(self, entry: Entry) -> None:
        self._join(self._lanes, entry.stream, entry.lane, entry.order)
        if entry.behind:
            self._place(entry)
        self._entries += 1
        self._count(entry.lane, 1)
        self._deadline(entry.expires_at, entry.stream)

    def _note_suspicion(self, turn: Turn) -> None:
        if turn.phase is RUNNING and turn.left_open is None:
            self._running.add(turn.stream)
        else:
            self._running.discard(turn.stream)
        if turn.suspects and turn.open and not turn.held:
            self._suspects.add(turn.stream)
        elif self._suspects:
            self._suspects.discard(turn.stream)

    def _note_blame(self, entry: Entry) -> None:
        suspect = entry.blame.suspects and entry.open and entry.phase != Phase.PARKED
        if suspect and not self._blamed:
            found = (s for s in self._states.values() if isinstance(s, Entry))
            self._flying = {e.stream for e in found if e.goes}
        (self._blamed.add if suspect else self._blamed.discard)(entry.stream)
        (self._flying.add if entry.goes else self._flying.discard)(entry.stream)

    def _absorb_turn(self, turn: Turn) -> None:
        if turn.order > self.head.position:  # accepted in this commit
            self._children.setdefault(turn.stream, [])
        opened = turn.open
        waits = opened and turn.phase is not ANSWERED
        self._note_suspicion(turn)
        if waits and turn.stream not in self._open:
            self._list_turn(turn.stream, turn.lane, turn.order, turn.control)
        elif not waits:
            self._controls.pop(turn.stream, None)
            self._leave(self._turn_lanes, turn.stream)
            self._count_if_dead(turn, 1)
            if not opened:
                self._children.pop(turn.stream, None)
