"""Folded state straight from a store, for questions: nothing is kept, nothing written."""

from collections.abc import Iterator, Mapping, Sequence

from turnfold.codec import decode
from turnfold.decide.draft import Desk
from turnfold.errors import CorruptLogError
from turnfold.events import Event
from turnfold.fold import STORE, State, family, fold, restore
from turnfold.machines.entry import Entry
from turnfold.machines.ledger import Gate
from turnfold.ports.store import Listing, Store

_MANY = 1_000_000


class StoreView:
    """The View of `decide` over a store that nobody has loaded."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def position(self) -> int:
        return self._store.head.position

    @property
    def open_count(self) -> int:
        return 0  # limits are for those who write

    def state(self, stream: str) -> State | None:
        if family(stream) in ("gate", "cursor", STORE):
            summary = self._store.summary(stream)
            return restore(summary) if summary is not None else None
        return fold(self._store.read(stream))

    def lookup(self, key: str) -> str | None:
        return self._store.lookup(key)

    @property
    def gated(self) -> bool:
        return True  # who knows

    def holding(self, gate: str) -> Gate | None:
        state = self.state(gate)
        return state if isinstance(state, Gate) and state.closed else None

    def lane(self, lane: str) -> Iterator[Entry]:
        return (s for s in self._open("entry:", lane) if isinstance(s, Entry))

    def turn_lane(self, lane: str) -> Iterator[str]:
        return (turn.stream for turn in self._open("turn:", lane))

    def _open(self, prefix: str, lane: str) -> Iterator[State]:
        listing = Listing(prefix=prefix, lane=lane, open=True, limit=_MANY)
        for row in reversed(self._store.list(listing)):
            if row.kind == "control":
                continue  # takes no lane
            try:
                state = self.state(row.stream)
            except CorruptLogError:
                continue  # set aside by the worker, too
            if state is not None:
                yield state

    def entries_of(self, turn: str) -> Sequence[str]:
        rows = self._store.list(Listing(prefix="entry:", parent=turn, limit=_MANY))
        return [row.stream for row in reversed(rows)]

    def stored(self, digest: str) -> bytes:
        return self._store.body(digest)

    def history(self, stream: str) -> Sequence[Event]:
        return [decode(record) for record in self._store.read(stream)]


class AnyDesk(Mapping[tuple[str, str], Desk]):
    """Who asks from outside cannot know what is attached, and assumes that all is."""

    def __getitem__(self, key: tuple[str, str]) -> Desk:
        return Desk(prepares=lambda _: False)

    def __contains__(self, key: object) -> bool:
        return True

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(())

    def __len__(self) -> int:
        return 0
