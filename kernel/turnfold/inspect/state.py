"""State for questions, read from a store as it is asked for: nothing is written, and
nothing outlives the question."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from turnfold import canonical, pages
from turnfold.bodies import checked, digests_of, place_of
from turnfold.codec import decode
from turnfold.decide.draft import Context, Desk, Draft, NotLoaded
from turnfold.errors import CorruptLogError, InvalidInputError, StoreError
from turnfold.events import Event
from turnfold.fold import STORE, State, family, fold, restore
from turnfold.machines.entry import Entry
from turnfold.machines.ledger import Gate
from turnfold.ports.store import Body, BodyRef, Listing, Record, Store, Wanted

_AT_ONCE = 20  # streams of a lane that are read together
_ROUNDS = 1_000  # calls of the store for one question
_PREVIEW = 200  # characters of a body that a view shows
_SUMMARIZED = ("gate", "cursor", STORE)  # their last event is their state
T = TypeVar("T")


class ReadModel:
    """The View of `decide` over a store that nobody has loaded.

    The `read` methods fetch ahead what many questions need; `ask` fetches the rest.
    """

    open_count = 0  # limits are for those who write
    position = 0
    gated = True  # nobody knows before a gate is looked at

    def __init__(self, store: Store) -> None:
        self._store = store
        self._records: dict[str, Sequence[Record]] = {}
        self._states: dict[str, State | CorruptLogError | None] = {}
        self._keys: dict[str, str | None] = {}
        self._children: dict[str, Sequence[str]] = {}
        self._bodies: dict[BodyRef, Body | None] = {}
        self._lanes: dict[tuple[str, str], Sequence[str]] = {}

    # --- reading the store ---

    async def ask(self, context: Context, question: Callable[[Draft], T]) -> T:
        """Ask again and again until all that the question looks at is here."""
        for _ in range(_ROUNDS):
            try:
                return question(Draft(self, context))
            except NotLoaded as miss:
                await self._fetch(miss.wanted)
        msg = f"a question still misses state after {_ROUNDS} calls of the store"
        raise RuntimeError(msg)

    async def read(self, streams: Iterable[str]) -> None:
        """The records of these streams."""
        await self._fetch(Wanted(streams=frozenset(streams)))

    async def read_entries(self, turn: str) -> Sequence[str]:
        """The entries of a turn with their records."""
        await self._fetch(Wanted(children=frozenset((turn,))))
        await self.read(self._children[turn])
        return self._children[turn]

    async def read_lane(self, prefix: str, lane: str) -> None:
        """The open streams of a lane, by name."""
        if (prefix, lane) in self._lanes:
            return
        listing = Listing(prefix=prefix, lane=lane, open=True)
        rows = [r async for page in pages.summaries(self._store, listing) for r in page]
        names = [row.stream for row in reversed(rows) if row.kind != "control"]
        self._lanes[prefix, lane] = names

    async def read_bodies(self, streams: Iterable[str]) -> None:
        """The bodies that the events of these streams name."""
        records = [record for name in streams for record in self._records[name]]
        await self.read_bodies_of(records)

    async def read_bodies_of(self, records: Iterable[Record]) -> None:
        await self._fetch(Wanted(bodies=frozenset(_places(records))))

    async def _fetch(self, wanted: Wanted) -> None:
        found = await self._store.fetch(wanted)
        for stream, records in found.streams.items():
            self._records[stream] = records
            self._states[stream] = _folded(records)
        for stream, summary in found.summaries.items():
            self._states[stream] = None if summary is None else restore(summary)
        self._keys.update(found.keys)
        self._children.update(found.children)
        self._bodies.update(found.bodies)

    # --- the View ---

    def state(self, stream: str) -> State | None:
        if stream not in self._states:
            names = frozenset((stream,))
            if family(stream) in _SUMMARIZED:
                raise NotLoaded(Wanted(summaries=names))
            raise NotLoaded(Wanted(streams=names))
        found = self._states[stream]
        if isinstance(found, CorruptLogError):
            raise found
        return found

    def records(self, stream: str) -> Sequence[Record]:
        if stream not in self._records:
            raise NotLoaded(Wanted(streams=frozenset((stream,))))
        return self._records[stream]

    def lookup(self, key: str) -> str | None:
        if key not in self._keys:
            raise NotLoaded(Wanted(keys=frozenset((key,))))
        return self._keys[key]

    def holding(self, gate: str) -> Gate | None:
        state = self.state(gate)
        return state if isinstance(state, Gate) and state.closed else None

    def lane(self, lane: str) -> Iterator[Entry]:
        """Of a lane that was read."""
        for state in self._open("entry:", lane):
            if isinstance(state, Entry):
                yield state

    def turn_lane(self, lane: str) -> Iterator[str]:
        """Of a lane that was read."""
        return (turn.stream for turn in self._open("turn:", lane))

    def _open(self, prefix: str, lane: str) -> Iterator[State]:
        names = self._lanes.get((prefix, lane), ())
        for place, name in enumerate(names):
            if name not in self._states:
                some = frozenset(names[place : place + _AT_ONCE])
                raise NotLoaded(Wanted(streams=some))
            found = self._states[name]
            # The worker sets an unreadable stream aside, too.
            if found is not None and not isinstance(found, CorruptLogError):
                yield found

    def entries_of(self, turn: str) -> Sequence[str]:
        if turn not in self._children:
            raise NotLoaded(Wanted(children=frozenset((turn,))))
        return self._children[turn]

    def stored(self, place: BodyRef) -> Body | None:
        if place not in self._bodies:
            raise NotLoaded(Wanted(bodies=frozenset((place,))))
        return self._bodies[place]

    def history(self, stream: str) -> Sequence[Event]:
        return [event for r in self.records(stream) for event in decode(r)]

    # --- bodies as people read them ---

    def text(self, stream: str, ref: str | None) -> str | None:
        """The free text that an event of `stream` names, if it is still there."""
        if ref is None:
            return None
        try:
            data = checked(ref, self.stored(place_of(stream, ref)))
        except (StoreError, InvalidInputError):
            return "(text not kept)"
        return data.decode("utf-8", "replace")

    def preview(self, stream: str, ref: str) -> str | None:
        """The beginning of what a body says to a reader; None if it is gone."""
        try:
            data = checked(ref, self.stored(place_of(stream, ref)))
            body = canonical.loads(data)
        except (StoreError, InvalidInputError):
            return None
        match body:
            case {"text": str(text)}:
                return text[:_PREVIEW]
            case {"name": str(name)}:
                return f"file {name}"
            case _:
                return canonical.dumps(body).decode()[:_PREVIEW]


def _folded(records: Sequence[Record]) -> State | CorruptLogError | None:
    try:
        return fold(records)
    except CorruptLogError as exc:
        return exc


def _places(records: Iterable[Record]) -> Iterator[BodyRef]:
    """The bodies that records name; nothing for a record that cannot be read."""
    for record in records:
        try:
            for event in decode(record):
                for ref in digests_of(event):
                    yield place_of(record.stream, ref)
        except (CorruptLogError, InvalidInputError):
            continue


class AnyDesk(Mapping[tuple[str, str], Desk]):
    """A question from outside cannot know which channels are attached, so it takes all
    of them to be."""

    def __getitem__(self, key: tuple[str, str]) -> Desk:
        return Desk(prepares=lambda _: False)

    def __contains__(self, key: object) -> bool:
        return True

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(())

    def __len__(self) -> int:
        return 0
