"""The folded streams that an audit has to keep in hand: the open ones."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import cast

from turnfold.codec import Record
from turnfold.errors import StoreError
from turnfold.fold import State, family, fold
from turnfold.machines.entry import Entry
from turnfold.machines.turn import Turn
from turnfold.ports.store import Store

_MANY = 100  # asked of at once
_DROPPED = ("entry", "turn")
_LATE = 2_000  # closed streams kept a while: what closes a final closes its turn, too


class States:
    """With a store, a closed stream is dropped once `settled` says that nothing more
    of it will come, and folded again should that turn out wrong. Without one (a file)
    every stream is kept."""

    def __init__(
        self,
        store: Store | None = None,
        settled: Callable[[Iterable[State]], Iterable[bool]] = lambda _: (),
    ) -> None:
        self._store = store
        self._settled = settled
        self.known: dict[str, State] = {}
        self._closed: deque[str] = deque()
        self.count = 0  # streams there ever were

    def before(self, record: Record) -> State | None:
        """The state that a record comes on top of. Raises CorruptLogError."""
        known = self.known.get(record.stream)
        if known is None and record.version > 1 and self._store is not None:
            return self._fold(record.stream, record.position)
        return known

    def at(self, stream: str, position: int) -> Entry | Turn | None:
        """An entry or a turn as it stands after `position`. None also for one that
        cannot be read: the audit finds that where the stream is read."""
        known = self.known.get(stream)
        if known is None and self._store is not None and family(stream) in _DROPPED:
            with suppress(StoreError):
                known = self._fold(stream, position + 1)
        return known if isinstance(known, Entry | Turn) else None

    def _fold(self, stream: str, position: int) -> State | None:
        store = cast("Store", self._store)
        return fold(r for r in store.read(stream) if r.position < position)

    def put(self, state: State) -> None:
        """Keep a state that is new here, or has moved on."""
        if state.version == 1:
            self.count += 1
        self.known[state.stream] = state
        if self._store is not None and isinstance(state, Entry | Turn):
            self._settle(state)

    def _settle(self, state: Entry | Turn) -> None:
        if state.open:
            return
        self._closed.append(state.stream)
        if len(self._closed) >= _LATE + _MANY:
            self._drop(dict.fromkeys(self._closed.popleft() for _ in range(_MANY)))

    def _drop(self, streams: Iterable[str]) -> None:
        states = [s for name in streams if (s := self._closed_one(name)) is not None]
        for state, settled in zip(states, self._settled(states), strict=True):
            if settled:
                del self.known[state.stream]

    def _closed_one(self, stream: str) -> State | None:
        state = self.known.get(stream)
        return state if isinstance(state, Entry | Turn) and not state.open else None

    def __iter__(self) -> Iterator[State]:
        return iter(self.known.values())

    def find(self, stream: str) -> State | None:
        return self.known.get(stream)
