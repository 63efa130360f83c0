"""What a decision works on: the folded state it may read, the events it makes.

A Draft lies over a View, mostly the book, and keeps what is emitted to itself until the
commit is done. The decisions of one commit share it, so they see each other's results;
one that fails half-way makes the journal decide the others anew (journal.py).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast, overload

from attrs import field

from turnfold.canonical import body_digest
from turnfold.codec import Record, encode
from turnfold.errors import (
    CorruptLogError,
    InvalidInputError,
    MissingBodyError,
    NotFoundError,
    OwnedError,
)
from turnfold.events import NAMES, Event
from turnfold.events.ledger import WorkerStarted
from turnfold.events.outbox import OutboxEvent
from turnfold.fold import STORE, State, advance, evolve, family
from turnfold.frozen import frozen, maker
from turnfold.machines.entry import Entry
from turnfold.machines.ledger import Cursor, Gate, StoreState
from turnfold.machines.turn import Turn
from turnfold.names import ENTRY
from turnfold.ports.store import Body
from turnfold.settings import Settings
from turnfold.words import CLOSED


class View(Protocol):
    """Folded state, ready to be read."""

    @property
    def position(self) -> int: ...

    def state(self, stream: str) -> State | None: ...

    def lookup(self, key: str) -> str | None:
        """The stream that a dedupe key belongs to."""

    @property
    def gated(self) -> bool:
        """Is any gate closed at all? Mostly none is, and this is asked for every
        attempt."""

    def holding(self, gate: str) -> Gate | None:
        """A gate, if it is closed (its time may be over)."""

    def lane(self, lane: str) -> Iterator[Entry]:
        """The open entries of a lane, in the order of their queueing."""

    def turn_lane(self, lane: str) -> Iterator[str]:
        """The accepted and running turns of a lane, in order."""

    def entries_of(self, turn: str) -> Sequence[str]:
        """All entries of a turn, closed ones too, in order."""

    def stored(self, digest: str) -> bytes:
        """A body beside the log. Raises MissingBodyError."""

    def history(self, stream: str) -> Sequence[Event]:
        """All events of a stream."""

    @property
    def open_count(self) -> int: ...


@frozen(kw_only=True)
class Fence:
    """The right of one worker: its epoch and its id."""

    epoch: int
    owner: str


@frozen(kw_only=True)
class Desk:
    """What the kernel knows of one attached channel when it decides."""

    prepares: Callable[[str], bool]  # does a part of this kind need prepare()?


@frozen(kw_only=True)
class Context:
    """What a decision may know besides state. `fence` is None outside the worker."""

    now: int
    settings: Settings
    fence: Fence | None = None
    desks: Mapping[tuple[str, str], Desk] = field(factory=dict)
    jitter: Callable[[], int] = lambda: 1000  # 0 to 1000
    salt: Callable[[], bytes] = lambda: bytes(16)
    runs: bool = True  # a handler is registered and may start now
    resumes: bool = False  # the handler takes up what an earlier run began
    draining: bool = False
    again: bool = False  # decided before, in a commit of unknown fate


@frozen
class AttemptRef:
    """One attempt of one part that may go to the wire when its commit is durable.
    `prepared`: what the channel's prepare() gave for it."""

    entry: str
    part: int
    number: int
    lane: str
    prepared: Any = None


_body = maker(Body)
Emitted = tuple[str, Event]  # stream and event


class Draft:
    """See the module. All decisions of one commit share one."""

    def __init__(self, below: View, context: Context) -> None:
        self.below, self.context = below, context
        self.now = context.now
        self.settings = context.settings
        self.emitted: list[Emitted] = []
        self.records: list[Record] = []  # the same, as they are stored
        self.bodies: list[Body] = []
        self.erased: list[str] = []
        self.keys: dict[str, str] = {}
        self.touched: dict[str, State] = {}
        self.attempts: list[AttemptRef] = []  # handed out when the commit is durable
        self._base = below.position
        self._born: list[str] = []
        self._lanes: dict[str, list[str]] = {}
        self._turn_lanes: dict[str, list[str]] = {}
        self._absent: set[str] = set()
        self._gated = False  # a gate was moved in here
        store = below.state(STORE)
        self._store = store if type(store) is StoreState else None

    # --- reading ---

    @property
    def position(self) -> int:
        return self._base + len(self.emitted)

    @property
    def made(self) -> int:
        """Grows with everything that a decision makes."""
        return len(self.records) + len(self.bodies) + len(self.keys) + len(self.erased)

    @property
    def open_count(self) -> int:
        return self.below.open_count + len(self._born)

    def state(self, stream: str) -> State | None:
        mine = self.touched.get(stream)
        if mine is not None:
            return mine
        return None if stream in self._absent else self.below.state(stream)

    def fresh(self, stream: str) -> None:
        """The caller has just made this name: nothing needs to be looked up for it.
        Were that wrong, the append would be refused as a conflict."""
        if not self.context.again:
            self._absent.add(stream)

    @property
    def gated(self) -> bool:
        return self._gated or self.below.gated

    def holding(self, gate: str) -> Gate | None:
        mine = self.touched.get(gate)
        if isinstance(mine, Gate):
            return mine if mine.closed else None
        return self.below.holding(gate)

    def find_entry(self, stream: str) -> Entry | None:
        found = self.state(stream)
        return found if type(found) is Entry else None

    def entry(self, stream: str) -> Entry:
        found = self.touched.get(stream)
        if found is None and stream.startswith(ENTRY) and stream not in self._absent:
            found = self.below.state(stream)
        if type(found) is not Entry:
            raise NotFoundError(what="entry", id=stream)
        return found

    def latest(self, entry: Entry) -> Entry:
        """An entry as it is by now."""
        found = self.touched.get(entry.stream)
        return found if type(found) is Entry else entry

    def find_turn(self, stream: str) -> Turn | None:
        return cast("Turn | None", self.state(stream))

    def turn(self, stream: str) -> Turn:
        found = self.state(stream) if family(stream) == "turn" else None
        if found is None:
            raise NotFoundError(what="turn", id=stream)
        return cast("Turn", found)

    def gate(self, stream: str) -> Gate | None:
        return cast("Gate | None", self.state(stream))

    def cursor(self, stream: str) -> Cursor | None:
        return cast("Cursor | None", self.state(stream))

    def lookup(self, key: str) -> str | None:
        return self.keys.get(key) or self.below.lookup(key)

    def lane(self, lane: str) -> Iterator[Entry]:
        """The open entries of a lane, in the order of their queueing."""
        touched = self.touched
        for entry in self.below.lane(lane):
            now = touched.get(entry.stream, entry)
            if type(now) is Entry and now.phase not in CLOSED:
                yield now
        for stream in self._lanes.get(lane, ()):
            now = touched[stream]
            if type(now) is Entry and now.phase not in CLOSED:
                yield now

    def front(self, lane: str) -> list[Entry]:
        """Those that a lane may be busy with: all that have yielded, and the head."""
        front = []
        for entry in self.lane(lane):
            front.append(entry)
            if not entry.yielded:
                break
        return front

    def turn_lane(self, lane: str) -> Iterator[str]:
        for stream in self.below.turn_lane(lane):
            if self.turn(stream).open:
                yield stream
        for stream in self._turn_lanes.get(lane, ()):
            if self.turn(stream).open:
                yield stream

    def entries_of(self, turn: str) -> Sequence[str]:
        born = [
            s for s in self._born if family(s) == "entry" and self.entry(s).turn == turn
        ]
        return [*self.below.entries_of(turn), *born]

    def entries(self, turn: str) -> Iterator[Entry]:
        """The entries of a turn that can be read; the others are set aside."""
        for stream in self.entries_of(turn):
            try:
                yield self.entry(stream)
            except CorruptLogError:
                continue  # shown by health

    def stored(self, digest: str) -> bytes:
        if digest in self.erased:
            raise MissingBodyError(digest=digest)
        for body in self.bodies:
            if body.digest == digest:
                return body.data
        return self.below.stored(digest)

    def history(self, stream: str) -> Sequence[Event]:
        mine = [event for name, event in self.emitted if name == stream]
        return [*self.below.history(stream), *mine]

    # --- writing ---

    @overload
    def emit(self, stream: str, *events: OutboxEvent) -> Entry: ...

    @overload
    def emit(self, stream: str, *events: Event) -> State: ...

    def emit(self, stream: str, *events: Event) -> State:
        """Apply and write events; raises if one is illegal here or cannot be stored,
        and then nothing changed. The state after the last of them."""
        before = self.touched.get(stream)
        if before is None and stream not in self._absent:
            before = self.below.state(stream)
        now, position = self.now, self._base + len(self.emitted) + 1
        after = evolve(before, events[0], stream, now, position)
        records = [_written(events[0], stream, after.version, now, position)]
        for event in events[1:]:  # in place: nobody has seen that state
            position += 1
            after = advance(after, event, stream, now, position)
            records.append(_written(event, stream, after.version, now, position))
        self.records += records
        self.emitted += [(stream, event) for event in events]
        self._touch(stream, before, after)
        return after

    def _touch(self, stream: str, before: State | None, after: State) -> None:
        self.touched[stream] = after
        if before is None:
            self._bear(stream, after)
        if type(after) is StoreState:
            self._store = after
        elif type(after) is Gate:
            self._gated = True

    def _bear(self, stream: str, state: State) -> None:
        self._born.append(stream)
        if isinstance(state, Entry):
            self._lanes.setdefault(state.lane, []).append(stream)
        elif isinstance(state, Turn) and not state.control:
            self._turn_lanes.setdefault(state.lane, []).append(stream)

    def hand_out(self, entry: Entry, prepared: Any = None) -> None:
        """The current attempt of an entry is to be sent after the COMMIT."""
        self.attempts.append(
            AttemptRef(entry.stream, entry.part, entry.attempt, entry.lane, prepared)
        )

    def body(self, data: bytes, origin: object = None) -> str:
        """Store bytes beside the log; returns their digest. `origin`: what they were
        made of, if it cannot change."""
        salt = self.context.salt()
        digest = body_digest(salt, data)
        self.bodies.append(_body(digest=digest, salt=salt, data=data, origin=origin))
        return digest

    def text(self, value: str) -> str | None:
        """Free text as a body, cut at 4 KiB; nothing for no text."""
        return self.body(value.encode("utf-8", "replace")[:4096]) if value else None

    def erase(self, digests: Sequence[str]) -> None:
        """Bodies to be gone for good after the COMMIT."""
        self.erased += digests

    def key(self, name: str, stream: str) -> None:
        self.keys[name] = stream

    def fence(self) -> Fence:
        """The worker's right. The first use by an epoch is written to the log: a
        worker that never decides anything leaves the store as it was."""
        fence, worker = self.context.fence, self._store
        if fence is None:
            raise NotFoundError(what="worker", id="here")
        if worker is not None and worker.epoch == fence.epoch:
            return fence
        if self.fence_lost:
            owner = worker.owner if worker else None
            raise OwnedError(path="the store", owner=f"{owner}; ours is over")
        self.emit(STORE, WorkerStarted(epoch=fence.epoch, owner=fence.owner))
        return fence

    @property
    def fence_lost(self) -> bool:
        """A later worker has written: we are not the one any more (INV-5)."""
        fence, worker = self.context.fence, self._store
        return fence is not None and worker is not None and worker.epoch > fence.epoch

    @property
    def authority(self) -> int:
        """Our epoch; -1 for who is not the worker, or not any more: it may bring
        evidence, and speaks for no attempt and no run (INV-5)."""
        fence = self.context.fence
        return -1 if fence is None or self.fence_lost else fence.epoch

    @property
    def restored_at(self) -> int:
        """Where the log was last found to be an older copy of itself; 0: nowhere."""
        return self._store.restored if self._store else 0


def _written(event: Event, stream: str, version: int, at: int, position: int) -> Record:
    """What got past every check with a wrong type must fail its own call, never the
    stream that it would make unreadable for ever."""
    try:
        return encode(event, stream, version, at, position)
    except (ValueError, TypeError) as exc:
        raise InvalidInputError(field=NAMES[type(event)], problem=str(exc)) from exc
