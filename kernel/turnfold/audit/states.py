"""The folded streams that an audit keeps in hand: the open ones.

With a store a closed stream is dropped after a while, so that memory is bounded by what
is open. Of a dropped stream two numbers stay: the hash of its name, and the hash of the
projection that it must have. If records of it come all the same, it is read again.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from turnfold.fold import State, fold, summarize
from turnfold.machines.entry import Entry
from turnfold.machines.turn import Turn
from turnfold.records import Record
from turnfold.words import CLOSED

_LATE = 2_000  # closed streams kept a while: what closes a final closes its turn, too


class States:
    """`put` each state that is new or has moved on. `projected`: False if nobody asks
    for the projections of dropped streams."""

    def __init__(self, *, projected: bool = True) -> None:
        self._projected = projected
        self.known: dict[str, State] = {}
        self.dropped: dict[int, int] = {}  # hash of the name -> of the projection
        self._closed: deque[str] = deque()
        self.count = 0  # streams there ever were

    def put(self, state: State, *, new: bool) -> None:
        self.count += new
        self.known[state.stream] = state
        if type(state) is Entry:  # nearly all are
            if state.phase in CLOSED:
                self._closed.append(state.stream)
        elif type(state) is Turn and not state.open:
            self._closed.append(state.stream)

    def find(self, stream: str) -> Entry | Turn | None:
        """An entry or a turn as it stands now. The entries of a turn that is in hand
        are in hand, too."""
        known = self.known.get(stream)
        return known if isinstance(known, Entry | Turn) else None

    def __iter__(self) -> Iterator[State]:
        return iter(self.known.values())

    # --- for whoever can read a stream again ---

    def trim(self, before: int) -> None:
        """Drop streams that closed long ago, none that moved at `before` or later: the
        moment of that time is not judged yet."""
        kept = []
        while len(self._closed) > _LATE:
            state = self.known.get(self._closed.popleft())
            if not isinstance(state, Entry | Turn) or state.open:
                continue
            if state.updated >= before or self._needed(state):
                kept.append(state.stream)
            else:
                del self.known[state.stream]
                wanted = hash(summarize(state)) if self._projected else 0
                self.dropped[hash(state.stream)] = wanted
        self._closed.extend(kept)

    def _needed(self, state: Entry | Turn) -> bool:
        """The end of a turn is held against its entries, however old they are."""
        turn = self.known.get(state.turn or "") if isinstance(state, Entry) else None
        return isinstance(turn, Turn) and turn.open

    def missing(self, streams: Iterable[str]) -> set[str]:
        """Those of these streams that were dropped."""
        known, dropped = self.known, self.dropped
        return {n for n in streams if n not in known and hash(n) in dropped}

    def bring_back(self, stream: str, records: Sequence[Record]) -> None:
        """A dropped stream from its records. Raises CorruptLogError."""
        del self.dropped[hash(stream)]
        state = fold(records)
        if state is not None:
            self.put(state, new=False)
