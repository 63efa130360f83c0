"""The unit of work of a decision: the folded state it may read, the events it makes.

It lies over a View and keeps its events to itself until the commit is done. The
decisions of one commit share it. If one of them fails half-way, the committer decides
the others anew. State that is not in memory raises NotLoaded: the committer fetches it,
and decides all of them anew.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from heapq import merge
from itertools import chain
from operator import attrgetter
from typing import Any, TypeVar, cast, overload

from attrs import frozen
from msgspec import Struct, field

from turnfold._decide.missing import all_of
from turnfold._decide.pacing import Flow
from turnfold._decide.view import View
from turnfold._log.bodies import body_ref, checked, place_of
from turnfold._log.codec import encode, record_of
from turnfold._log.events import Event, WorkerStarted
from turnfold._log.ids import ENTRY, TURN, gates_of
from turnfold._log.large import Seal
from turnfold._log.outbox_events import OutboxEvent
from turnfold._state.entry import Entry
from turnfold._state.fold import (
    STORE,
    Cursor,
    Gate,
    State,
    StoreState,
    advance,
    evolve,
    family,
)
from turnfold._state.turn import Turn
from turnfold.enums import (
    ATTEMPTED,
    CLOSED,
    DISPATCHED,
    RUNNING,
    BlindPolicy,
    PartAct,
    TurnPhase,
)
from turnfold.errors import CorruptLogError, MissingBodyError, NotFoundError, OwnedError
from turnfold.notices import AskWords, default_words
from turnfold.ports.channel import PartClass
from turnfold.ports.store import Answer, Body, BodyRef, Prune, Record
from turnfold.settings import Settings

T = TypeVar("T")
_PLACE = attrgetter("place")


@frozen(kw_only=True)
class Fence:
    """The right of one worker: its epoch and its id."""

    epoch: int
    owner: str


@frozen(kw_only=True)
class ChannelFacts:
    """The facts about one attached channel that decisions use."""

    prepares: Callable[[str], bool]  # does a part of this kind need prepare()?
    offer: Callable[[str], PartClass] | None = None  # its claim; None: not known here
    marks: bool = True  # it shows that an attempt is marked
    # The policy that `attach` got for a kind of part, for an unknown outcome.
    policy: Callable[[str], BlindPolicy | None] | None = None
    max_age_ms: int | None = None  # of an entry that waits; None: no limit


class Context(Struct, frozen=True, kw_only=True):
    """The facts that a decision may use besides state. `fence` is None outside the
    worker."""

    now: int
    settings: Settings
    wall: int | None = None  # wall ms; None: the same as `now`
    shift: Callable[[], int] = lambda: 0  # log time minus wall time
    sure_from: int = 0  # log times before it cannot be compared with `now`
    # What began before this log time may be older, by so many ms (`Clock.unlived`).
    unlived: tuple[int, int] | None = None
    booted: Callable[[], tuple[str, int]] = lambda: ("", 0)  # `Clock.booted`
    fence: Fence | None = None
    desks: Mapping[tuple[str, str], ChannelFacts] = field(default_factory=dict)
    jitter: Callable[[], int] = lambda: 1000  # 0 to 1000
    salt: Callable[[], bytes] = lambda: bytes(16)
    runs: bool = True  # a handler is registered and may start now
    resumes: bool = False  # the handler takes up what an earlier run began
    holds_back: bool = False  # nothing new is attempted and no turn starts
    again: bool = False  # decided before, in a commit of unknown fate
    # Asks a function of the embedder for the words of a notice; never raises.
    ask_words: AskWords = default_words
    flow: Flow | None = None  # which lanes may go now, behind gates that have closed


# A tuple: `Entry | Turn` would be put together anew each time.
_WITH_BODIES = (Entry, Turn)
_WALL_MS = 1_000  # a record holds the wall time if it differs by more than this


class AttemptRef(Struct, frozen=True):
    """One attempt of one part that may go to the wire when its commit is durable.
    `prepared`: the answer of the channel's prepare() for it."""

    entry: str
    part: int
    number: int
    lane: str
    prepared: Any = None
    act: PartAct = PartAct.SEND


Emitted = tuple[str, Event]  # stream and event


class UnitOfWork(Struct, eq=False):
    """See the module. All decisions of one commit share one."""

    below: View
    context: Context
    emitted: list[Emitted] = []
    bodies: list[Body] = []
    erased: list[BodyRef] = []
    keys: dict[str, str] = {}
    touched: dict[str, State] = {}
    done: list[str] = []  # commands that leave the inbox
    answers: list[Answer] = []
    prune: Prune | None = None
    attempts: list[AttemptRef] = []  # handed out when the commit is durable
    made: int = 0  # grows with everything that a decision makes
    hears: bool = False  # a command of the inbox is decided: nothing is attempted
    fence_lost: bool = False  # a later worker has written: we are none now (INV-5)
    now: int = 0  # this and the next four are those of the context
    wall: int = 0
    sure_from: int = 0
    behind: int = 0
    settings: Settings = Settings()
    _items: dict[str, list[bytes]] = {}  # events as stored, by stream
    _places: dict[str, int] = {}  # the position of the record of a stream
    _numbers: dict[str, int] = {}  # the next body of a stream
    _base: int = 0
    _born: list[str] = []
    _lanes: dict[str, list[str]] = {}
    _turn_lanes: dict[str, list[str]] = {}
    _absent: set[str] = set()
    _placed: set[str] = set()  # lanes in which a notice is not the last entry
    _running: set[str] = set()  # turns that ran in here
    _flying: set[str] = set()  # entries that were on their way in here
    _gated: bool = False  # a gate was moved in here
    _suspected: bool = False  # a death was counted in here
    _store: StoreState | None = None

    def __post_init__(self) -> None:
        context, below = self.context, self.below
        self.now, self.settings = context.now, context.settings
        self.wall = context.now if context.wall is None else context.wall
        self.sure_from = context.sure_from
        self.behind = 0 if context.unlived is None else context.unlived[1]
        self._base = below.position
        self._learn_worker(below.state(STORE))

    # --- reading ---

    @property
    def position(self) -> int:
        """The position of the last record that this commit would write."""
        return self._base + len(self._items)

    def records(self) -> list[Record]:
        """One record for each stream that this commit moves, in order of position."""
        wall = self.context.wall
        if wall is not None and abs(wall - self.now) <= _WALL_MS:
            wall = None
        return [
            record_of(items, stream, self.touched[stream].version, self.now, at, wall)
            for at, (stream, items) in enumerate(self._items.items(), self._base + 1)
        ]

    @property
    def open_count(self) -> int:
        return self.below.open_count + len(self._born)

    def open_of(self, account: str) -> int:
        born = [lane for lane in self._lanes if gates_of(lane)[0] == account]
        return self.below.open_of(account) + sum(len(self._lanes[b]) for b in born)

    def turns_waiting(self, lane: str) -> int:
        return self.below.turns_waiting(lane) + len(self._turn_lanes.get(lane, ()))

    def state(self, stream: str) -> State | None:
        mine = self.touched.get(stream)
        if mine is not None:
            return mine
        return None if stream in self._absent else self.below.state(stream)

    def fresh(self, stream: str) -> None:
        """The caller has just made this name, so the stream needs no read. If the
        stream did exist, the append would be refused as a conflict."""
        if not self.context.again:
            self._absent.add(stream)

    def may_be_new(self, stream: str, turn: str | None) -> None:
        """A new name needs no read if all entries of its turn are in memory."""
        if turn is not None and self.below.lacks(turn, stream):
            self.fresh(stream)

    @property
    def gated(self) -> bool:
        return self._gated or self.below.gated

    @property
    def suspected(self) -> bool:
        return self._suspected or self.below.suspected

    def running(self) -> list[Turn]:
        """The turns that run. Not in proportion to what this commit has touched: a
        commit of many messages asks for each."""
        found = map(self.state, {*self.below.running(), *self._running})
        turns = [state for state in found if isinstance(state, Turn)]
        return [t for t in turns if t.phase is TurnPhase.RUNNING and not t.left_open]

    def flying(self) -> list[Entry]:
        """The entries that are on their way, if any is suspect. As for `running`, not in
        proportion to what this commit has touched."""
        found = map(self.state, {*self.below.flying(), *self._flying})
        return [e for e in found if isinstance(e, Entry) and e.goes]

    def closed_gates(self) -> Sequence[Gate]:
        """The closed gates before this unit of work."""
        return self.below.closed_gates()

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
        """The present state of an entry."""
        found = self.touched.get(entry.stream)
        return found if type(found) is Entry else entry

    def find_turn(self, stream: str) -> Turn | None:
        return cast("Turn | None", self.state(stream))

    def turn(self, stream: str) -> Turn:
        found = self.touched.get(stream)
        if found is None and stream.startswith(TURN) and stream not in self._absent:
            found = self.below.state(stream)
        if type(found) is not Turn:
            raise NotFoundError(what="turn", id=stream)
        return found

    def gate(self, stream: str) -> Gate | None:
        return cast("Gate | None", self.state(stream))

    def cursor(self, stream: str) -> Cursor | None:
        return cast("Cursor | None", self.state(stream))

    def lookup(self, key: str) -> str | None:
        return self.keys.get(key) or self.below.lookup(key)

    def lane(self, lane: str) -> Iterator[Entry]:
        """The open entries of a lane, in the order of their queueing."""
        for entry in self._queued(lane):
            now = self.touched.get(entry.stream, entry)
            if type(now) is Entry and now.phase not in CLOSED:
                yield now

    def open_streams(self) -> Sequence[str]:
        """The open streams of earlier commits."""
        return self.below.open_streams()

    def _queued(self, lane: str) -> Iterator[State]:
        older, names = self.below.lane(lane), self._lanes.get(lane)
        if names is None:
            return older
        born = map(self.touched.__getitem__, names)
        if lane in self._placed:
            mine = sorted(cast("Iterator[Entry]", born), key=_PLACE)
            return merge(older, mine, key=_PLACE)
        return chain(older, born)

    def front(self, lane: str) -> list[Entry]:
        """The entries that a lane may be busy with: all that have yielded, and the
        head. It does not use `lane`, which would cost one generator more for every
        message."""
        front = []
        for entry in self._queued(lane):
            now = self.touched.get(entry.stream, entry)
            if type(now) is Entry and now.phase not in CLOSED:
                front.append(now)
                if not now.yielded:
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

    def entries(self, turn: str) -> list[Entry]:
        """The entries of a turn that can be read; the others are set aside."""
        found = all_of(partial(self._readable, name) for name in self.entries_of(turn))
        return [entry for entry in found if entry is not None]

    def _readable(self, stream: str) -> Entry | None:
        try:
            return self.entry(stream)
        except CorruptLogError:
            return None  # shown by health

    def stored(self, stream: str, ref: str) -> bytes:
        """The bytes of a body that an event of `stream` names.

        Raises MissingBodyError if they are gone, DamagedError if they are not those
        that the digest proves.
        """
        place = place_of(stream, ref)
        if place in self.erased:
            raise MissingBodyError(digest=ref)
        for body in self.bodies:
            if (body.stream, body.number) == place:
                return body.data
        return checked(ref, self.below.stored(place))

    def history(self, stream: str) -> Sequence[Event]:
        mine = [event for name, event in self.emitted if name == stream]
        return [*self.below.history(stream), *mine]

    # --- writing ---

    @overload
    def emit(self, stream: str, *events: OutboxEvent) -> Entry: ...

    @overload
    def emit(self, stream: str, *events: Event) -> State: ...

    def emit(self, stream: str, *events: Event) -> State:
        """Apply and write events, and return the state after the last one. Raises if
        one is illegal here or cannot be stored; then nothing changed."""
        before = self.touched.get(stream)
        if before is None and stream not in self._absent:
            before = self.below.state(stream)
        now, items = self.now, self._items.get(stream)
        if items is None:
            self._places[stream] = self._base + len(self._items) + 1
        position = self._places[stream]
        after = evolve(before, events[0], stream, now, position)
        made = [encode(events[0])]
        for event in events[1:]:  # in place: no other code holds that state
            after = advance(after, event, stream, now, position)
            made.append(encode(event))
        if items is None:
            self._items[stream] = made
        else:
            items += made
        for event in events:
            self.emitted.append((stream, event))
        self.made += 1
        self._touch(stream, before, after)
        return after

    def emit_in_place(self, stream: str, event: OutboxEvent) -> None:
        """As `emit`, for a caller that holds no state of this stream: a state that this
        commit has made is changed in place, not copied."""
        mine = self.touched.get(stream)
        if mine is None:
            self.emit(stream, event)
            return
        item = encode(event)
        self.made += 1  # should the next line raise, this commit is decided anew
        after = advance(mine, event, stream, self.now, self._places[stream])
        self._items[stream].append(item)
        self.emitted.append((stream, event))
        self._touch(stream, mine, after)

    def _touch(self, stream: str, before: State | None, after: State) -> None:
        self.touched[stream] = after
        number = self._numbers.get(stream, 0)
        if number and isinstance(after, _WITH_BODIES) and after.bodies < number:
            counted: Any = after  # made in this commit, not shared yet
            counted.bodies = number
        if before is None:
            self._bear(stream, after)
        if type(after) is Entry:
            phase = after.phase
            if (
                phase is DISPATCHED
                or phase is ATTEMPTED
                or after.tried == after.version
            ):
                self._flying.add(stream)
        elif type(after) is StoreState:
            self._learn_worker(after)
        elif type(after) is Gate:
            self._gated = True
        elif type(after) is Turn:
            self._note_turn(after)

    def _note_turn(self, turn: Turn) -> None:
        if turn.suspects:
            self._suspected = True
        if turn.phase is RUNNING:
            self._running.add(turn.stream)

    def _bear(self, stream: str, state: State) -> None:
        self._born.append(stream)
        if isinstance(state, Entry):
            self._lanes.setdefault(state.lane, []).append(stream)
            if state.behind:
                self._placed.add(state.lane)
        elif isinstance(state, Turn) and not state.control:
            self._turn_lanes.setdefault(state.lane, []).append(stream)

    def hand_out(self, entry: Entry, prepared: Any = None) -> None:
        """The current attempt of an entry is to be sent after the COMMIT."""
        e = entry
        ref = AttemptRef(e.stream, e.part, e.attempt, e.lane, prepared, e.act)
        self.attempts.append(ref)

    def body(
        self, stream: str, data: bytes, origin: object = None, seal: Seal | None = None
    ) -> str:
        """Store bytes beside the log. Returns the text by which an event of `stream`
        names them. `origin`: the value that the bytes were made of, if it cannot
        change. `seal`: of a large body."""
        number = self._numbers.get(stream)
        if number is None:
            state = self.state(stream)
            number = state.bodies if isinstance(state, _WITH_BODIES) else 0
        self._numbers[stream] = number + 1
        salt, digest = (self.context.salt(), "") if seal is None else seal
        body = Body(
            stream=stream,
            number=number,
            salt=salt,
            data=data,
            origin=origin,
            digest=digest,
        )
        self.bodies.append(body)
        self.made += 1
        return body_ref(body)

    def text(self, stream: str, value: str) -> str | None:
        """Free text as a body, cut at 4 KiB; None for an empty text."""
        if not value:
            return None
        return self.body(stream, value.encode("utf-8", "replace")[:4096])

    def erase(self, stream: str, refs: Sequence[str]) -> None:
        """Erase these bodies for good with the COMMIT."""
        self.erased += [place_of(stream, ref) for ref in refs]
        self.made += len(refs)

    def key(self, name: str, stream: str) -> None:
        self.keys[name] = stream
        self.made += 1

    def take_out(self, command: str, answer: bytes | None = None) -> None:
        """A command leaves the inbox with this commit. `answer`: for its caller."""
        self.done.append(command)
        self.made += 1
        if answer is not None:
            self.answers.append(Answer(id=command, at=self.now, data=answer))

    def fence(self) -> Fence:
        """The worker's right. The first use by an epoch is written to the log."""
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

    def _learn_worker(self, state: State | None) -> None:
        if type(state) is StoreState:
            fence, self._store = self.context.fence, state
            self.fence_lost = fence is not None and state.epoch > fence.epoch

    @property
    def authority(self) -> int:
        """Our epoch; -1 for a process that is not the worker, or not any more. Such a
        process may bring evidence, but may not end an attempt or a run (INV-5)."""
        fence = self.context.fence
        return -1 if fence is None or self.fence_lost else fence.epoch

    @property
    def restored_at(self) -> int:
        """Where the log was last found to be an older copy of itself; 0: nowhere."""
        return self._store.restored if self._store else 0
