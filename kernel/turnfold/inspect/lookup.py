"""State for questions, read from a store on demand. It writes nothing, and each
question reads anew."""

import json
import re
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from typing import Annotated, Any, TypeVar

from attrs import field, frozen

from turnfold._decide.missing import NotLoaded
from turnfold._decide.unit_of_work import ChannelFacts, Context, UnitOfWork
from turnfold._log import canonical
from turnfold._log.bodies import checked, digests_of, place_of
from turnfold._log.codec import decode
from turnfold._log.events import Event
from turnfold._log.ids import CURSOR, ENTRY, GATE, TURN
from turnfold._state.entry import Entry
from turnfold._state.fold import STORE, TRIED, Gate, State, family, fold, restore
from turnfold.arguments import check_fields
from turnfold.clock import Clock
from turnfold.enums import (
    AbortReason,
    FailureClass,
    Form,
    Kind,
    Phase,
    Reason,
    TurnOutcome,
)
from turnfold.errors import (
    AmbiguousIdError,
    CorruptLogError,
    InvalidInputError,
    NotFoundError,
    StoreError,
)
from turnfold.inbound import Evidence, printable
from turnfold.inspect.places import Place, lanes_kept, route_of_lane
from turnfold.inspect.shards import AllShards
from turnfold.inspect.times import to_come
from turnfold.inspect.views import Row, trial_of
from turnfold.messages import check_id, check_ms, escape
from turnfold.ports.store import (
    Body,
    BodyRef,
    Command,
    Listing,
    Record,
    Store,
    Summary,
    Wanted,
    summary_pages,
)
from turnfold.wrong_calls import explained

_AT_ONCE = 20  # streams of a lane that are read together
_ROUNDS = 1_000  # calls of the store for one question
_PREVIEW = 200  # characters of a body that a view shows
_SUMMARIZED = ("gate", "cursor", STORE)  # their last event is their state
T = TypeVar("T")


class ReadModel:
    """The View of `decide` over a store that is not loaded. The `read` methods fetch the
    state of many questions ahead; `ask` fetches the rest."""

    open_count = 0  # limits apply only to writers
    position = 0
    gated = True  # not known before a gate is read

    def __init__(self, store: Store) -> None:
        self._store = store
        self._records: dict[str, Sequence[Record]] = {}
        self._states: dict[str, State | CorruptLogError | None] = {}
        self._keys: dict[str, str | None] = {}
        self._children: dict[str, Sequence[str]] = {}
        self._bodies: dict[BodyRef, Body | None] = {}
        self._lanes: dict[tuple[str, str], Sequence[str]] = {}

    # --- reading the store ---

    async def ask(self, context: Context, question: Callable[[UnitOfWork], T]) -> T:
        """Ask again until all state of the question is in memory."""
        for _ in range(_ROUNDS):
            try:
                return question(UnitOfWork(self, context))
            except NotLoaded as miss:
                await self._fetch(miss.wanted)
        msg = f"a question still misses state after {_ROUNDS} calls of the store"
        raise RuntimeError(msg)

    async def read(self, streams: Iterable[str]) -> None:
        """Read the records of these streams."""
        await self._fetch(Wanted(streams=frozenset(streams)))

    async def read_entries(self, turn: str) -> Sequence[str]:
        """Read the entries of a turn with their records."""
        await self._fetch(Wanted(children=frozenset((turn,))))
        await self.read(self._children[turn])
        return self._children[turn]

    async def read_lane(self, prefix: str, lane: str) -> None:
        """Read the open streams of a lane, by name."""
        if (prefix, lane) in self._lanes:
            return
        listing = Listing(prefix=prefix, lane=lane, open=True)
        rows = [r async for page in summary_pages(self._store, listing) for r in page]
        rows = [row for row in reversed(rows) if row.kind != "control"]
        notices = [row.stream for row in rows if row.kind == Kind.NOTICE]
        if notices:
            await self.read(notices)
        places = {row.stream: row.order for row in rows}
        for name in notices:
            entry = self._states[name]
            if isinstance(entry, Entry) and entry.behind:
                places[name] = entry.behind
        self._lanes[prefix, lane] = sorted(places, key=places.__getitem__)

    async def read_bodies(self, streams: Iterable[str]) -> None:
        """Read the bodies that the events of these streams name."""
        await self.read_bodies_of(r for name in streams for r in self._records[name])

    async def read_bodies_of(self, records: Iterable[Record]) -> None:
        await self._fetch(Wanted(bodies=frozenset(_places(records))))

    async def read_texts(self, texts: Mapping[str, str]) -> None:
        """Read one body of each of these streams: `stream -> its name in an event`."""
        found: set[BodyRef] = set()
        for stream, ref in texts.items():
            with suppress(InvalidInputError):  # it names no body: no text, as if erased
                found.add(place_of(stream, ref))
        await self._fetch(Wanted(bodies=frozenset(found)))

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

    def closed_gates(self) -> Sequence[Gate]:
        raise NotImplementedError  # only the worker asks

    def open_streams(self) -> Sequence[str]:
        raise NotImplementedError  # only the worker asks

    @property
    def left_under_way(self) -> Sequence[str]:
        return ()

    @property
    def suspected(self) -> bool:
        return False  # a question starts nothing

    def running(self) -> Collection[str]:
        return ()

    def flying(self) -> Collection[str]:
        return ()

    def holding(self, gate: str) -> Gate | None:
        state = self.state(gate)
        return state if isinstance(state, Gate) and state.closed else None

    def lane(self, lane: str) -> Iterator[Entry]:
        """Of a lane that was read."""
        for state in self._open("entry:", lane):
            if isinstance(state, Entry):
                yield state

    def open_of(self, account: str) -> int:  # noqa: ARG002  as `open_count`
        return 0

    def turns_waiting(self, lane: str) -> int:  # noqa: ARG002  as `open_count`
        return 0

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

    def lacks(self, turn: str, entry: str) -> bool:
        return turn in self._children and entry not in self._children[turn]

    def stored(self, place: BodyRef) -> Body | None:
        if place not in self._bodies:
            raise NotLoaded(Wanted(bodies=frozenset((place,))))
        return self._bodies[place]

    def history(self, stream: str) -> Sequence[Event]:
        return [event for r in self.records(stream) for event in decode(r)]

    # --- bodies as text for people ---

    def text(self, stream: str, ref: str | None) -> str | None:
        """The free text that an event of `stream` names; None if it is gone."""
        if ref is None:
            return None
        try:
            data = checked(ref, self.stored(place_of(stream, ref)))
        except (StoreError, InvalidInputError):
            return "(text not kept)"
        return data.decode("utf-8", "replace")

    def said(self, stream: str, ref: str, form: Form) -> str | None:
        """The beginning of an inbound message's text; None if it is gone."""
        try:
            data = checked(ref, self.stored(place_of(stream, ref)))
        except (StoreError, InvalidInputError):
            return None
        return _said(Evidence(form, data).value)

    def preview(self, stream: str, ref: str) -> str | None:
        """The beginning of a payload's text, as a reader sees it; None if it is
        gone."""
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


def _said(body: Any) -> str:
    match body:
        case {"text": str(text)} | str(text):
            return printable(text[:_PREVIEW])
        case bytes():
            return body[:_PREVIEW].decode("utf-8", "replace")
        case _:
            return printable(json.dumps(body, ensure_ascii=False)[:_PREVIEW])


def _folded(records: Sequence[Record]) -> State | CorruptLogError | None:
    try:
        return fold(records)
    except CorruptLogError as exc:
        return exc


def _places(records: Iterable[Record]) -> Iterator[BodyRef]:
    """The bodies that records name; none for a record that cannot be read."""
    for record in records:
        try:
            for event in decode(record):
                for ref in digests_of(event):
                    yield place_of(record.stream, ref)
        except (CorruptLogError, InvalidInputError):
            continue


class AnyDesk(Mapping[tuple[str, str], ChannelFacts]):
    """All channels count as attached: a question from outside cannot know which ones
    are."""

    def __getitem__(self, key: tuple[str, str]) -> ChannelFacts:
        return ChannelFacts(prepares=lambda _: False)

    def __contains__(self, key: object) -> bool:
        return True

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(())

    def __len__(self) -> int:
        return 0


# --- From a person's input - an id, a piece of one, a message id - to a stream, ---


_PREFIXES = (TURN, ENTRY, GATE, CURSOR)
_PAGE = 500
_SHORT = re.compile("[te]([0-9]{1,15})")  # the position of its first record
_LEAST_END = 6  # characters of the end of an id
_REASONS = {*Reason, *FailureClass, *AbortReason, *TurnOutcome}
INBOX = 10_000  # the most commands that a question reads


async def resolve(store: Store, wanted: str) -> str:
    """The stream for `wanted`: a whole name, an id without its prefix, a short id, the
    beginning or end of exactly one id, or the id of an inbound message. It may be a
    stream that a command in the inbox will make.

    Raises NotFoundError, or InvalidInputError if several fit.
    """
    wanted = check_id("wanted", wanted)
    names = (wanted, *(prefix + wanted for prefix in _PREFIXES))
    known = (await store.fetch(Wanted(summaries=frozenset(names)))).summaries
    for name in names:
        if known[name] is not None:
            return name
    found = await _by_piece(store, wanted)
    if len(found) != 1:
        found = await by_message(store, wanted) or found
    if not found and len(wanted) >= _LEAST_END and ":" not in wanted:
        found = await _by_end(store, wanted)
    if not found:
        found = [c.stream for c in await store.inbox(INBOX) if _means(c, wanted)]
    if not found:
        raise NotFoundError(what="turn, entry or message", id=wanted)
    if len(found) > 1:
        raise AmbiguousIdError(wanted=wanted, streams=tuple(found))
    return found[0]


async def _by_piece(store: Store, wanted: str) -> list[str]:
    """Streams by a short id like `t120`, else by the beginning of their id."""
    short = _SHORT.fullmatch(wanted)
    if short:
        before = int(short[1]) + 1
        last = await store.list(Listing(prefix="", before=before, limit=1))
        if last and last[0].order == before - 1 and last[0].stream[0] == wanted[0]:
            return [last[0].stream]
    return await _beginning(store, wanted)


async def _by_end(store: Store, wanted: str) -> list[str]:
    """Streams by the end of their id. This reads all names, so it comes last."""
    rows = await store.list(Listing(prefix="", ending=wanted, limit=_PAGE))
    return [row.stream for row in rows if family(row.stream) in ("turn", "entry")]


async def _beginning(store: Store, wanted: str) -> list[str]:
    """Streams by the beginning of their id. The ids of a turn's entries begin with the
    turn's id: if only a turn and its entries fit, the turn is meant."""
    prefixes = (wanted,) if ":" in wanted else tuple(p + wanted for p in _PREFIXES)
    found: list[str] = []
    for prefix in prefixes:
        rows = await store.list(Listing(prefix=prefix, limit=_PAGE))
        found += [row.stream for row in rows]
    turns = [name for name in found if family(name) == "turn"]
    if len(turns) == 1:
        base = turns[0].removeprefix(TURN)
        others = (n.partition(":")[2] for n in found if n != turns[0])
        if all(name.startswith(f"{base}.") for name in others):
            return turns
    return found


async def by_message(store: Store, message_id: str) -> list[str]:
    """The turns with a message id, in any conversation, by their keys."""
    found: list[str] = []
    after = ""
    size = _PAGE
    while size == _PAGE:  # a question more would search all conversations again
        page = await store.keys(after, _PAGE, part=escape(message_id))
        found += [stream for key, stream in page if _is_of(key, escape(message_id))]
        size = len(page)
        after = page[-1][0] if page else after
    return list(dict.fromkeys(found))


def _is_of(key: str, message_id: str) -> bool:
    """Is this the key of that message? Its fourth part is the message id, or the key
    that the channel gave."""
    parts = key.split("/")
    return key.startswith("in:") and len(parts) > 3 and parts[3] == message_id


def makes(command: Command) -> bool:
    """Does the command make its stream? Until it is logged, only the command names the
    stream."""
    return command.kind in ("accept", "enqueue", "import")


def _means(command: Command, wanted: str) -> bool:
    if not makes(command):
        return False
    name = command.stream
    whole = wanted if ":" in wanted else f"{name.partition(':')[0]}:{wanted}"
    return name.startswith(whole) or message_of(command) == wanted


def message_of(command: Command) -> str | None:
    """The message id in an accept command."""
    if command.kind != "accept":
        return None
    try:
        value = canonical.loads(command.data)
    except InvalidInputError:
        return None  # the owner will report it
    found = value.get("message_id") if isinstance(value, dict) else None
    return found if isinstance(found, str) else None


def _order(field: str, value: Any) -> int | None:
    """The order of a row. Over several shards it has more digits than a time."""
    if value is not None and (type(value) is not int or not 0 <= value < _ORDERS):
        problem = f"expected the `before` of a Page, got {value!r:.80}"
        raise InvalidInputError(field=field, problem=problem)
    return value


_ORDERS = 2**144  # a time, a shard and a position: `inspect/shards.py`


@explained
@frozen(kw_only=True)
class Filter:
    """The turns and entries to list, newest first. `status`: of entries a Status, a
    phase or "parked", of turns a phase. `reason`: a reason, or a failure class.
    `person`: a person is needed. Times are wall milliseconds. `before`: the page after
    an earlier one (`Page.before`)."""

    what: str | None = None  # "turn" or "entry"; None: both
    status: tuple[str, ...] = ()
    channel: str | None = None
    account: str | None = None
    conversation: str | None = None
    lane: str | None = None
    kind: tuple[str, ...] = ()
    reason: tuple[str, ...] = ()
    open: bool | None = None
    person: bool | None = None
    since: int | None = None
    until: int | None = None
    turn: str | None = None
    before: Annotated[Any, _order] = None
    limit: int = field(default=50)

    def __attrs_post_init__(self) -> None:
        check_fields(self)


async def rows(store: Store, want: Filter, clock: Clock) -> list[Row]:
    """At most `limit` rows that pass the filter. Raises InvalidInputError for a channel,
    an account or a conversation that does not exist. A row has no record: its times are
    converted with the present distance of log time and wall time."""
    shift = clock.shift()
    listing = await listing_of(store, want, shift)
    found: list[Row] = []
    size = min(max(want.limit, 0), _PAGE)
    async for page in summary_pages(store, listing, size) if size else _nothing():
        found += [
            row_of(s, shift) for s in page if family(s.stream) in ("turn", "entry")
        ]
        if len(found) >= want.limit:
            break
    return found[: max(0, want.limit)]


async def _nothing() -> AsyncIterator[Sequence[Summary]]:
    return
    yield ()


async def listing_of(store: Store, want: Filter, shift: int) -> Listing:
    """The filter as a Listing of the store."""
    await _check_reasons(store, want.reason)
    place = Place(
        channel=want.channel, account=want.account, conversation=want.conversation
    )
    lanes = await lanes_kept(store, place)
    return Listing(
        prefix={"turn": TURN, "entry": ENTRY}.get(want.what or "", ""),
        phases=tuple({p for status in want.status for p in _phases(status)}),
        open=want.open,
        person=want.person,
        lane=want.lane,
        lanes=lanes,
        kinds=want.kind,
        reasons=want.reason,
        parent=want.turn,
        since=to_come(want.since, -shift),
        until=to_come(want.until, -shift),
        before=_order_in(store, want.before),
    )


def _order_in(store: Store, before: int | None) -> int | None:
    """Raises InvalidInputError for an order of several shards in a store of one."""
    if before is None or isinstance(store, AllShards):
        return before
    return check_ms("before", before)


async def _check_reasons(store: Store, reasons: Sequence[str]) -> None:
    """Raises InvalidInputError for a reason without any turn or entry."""
    odd = [reason for reason in reasons if reason not in _REASONS]
    if not odd:
        return
    counts = await store.count(Listing(prefix=""), ["reason", "failure"])
    there = {str(value) for count in counts for value in count.values if value}
    for reason in odd:
        if reason not in there:
            shown = ", ".join(sorted(there)) or "none yet"
            problem = f"no reason {reason!r}; there are: {shown}"
            raise InvalidInputError(field="reason", problem=problem)


def _phases(status: str) -> Iterator[str]:
    """The phases of a status word."""
    if status == "parked":
        yield Phase.PARKED
        return
    known: list[str] = [
        phase for phase in Phase if phase.status == status and phase != Phase.PARKED
    ]
    yield from known or [status]


def row_of(s: Summary, shift: int) -> Row:
    entry = family(s.stream) == "entry"
    channel, account, conversation, thread = route_of_lane(s.lane or "///")
    return Row(
        id=s.stream,
        short=f"{s.stream[0]}{s.order}",
        order=s.order,
        what="entry" if entry else "turn",
        kind=s.kind,
        status=word_of(Phase(s.phase)) if entry else s.phase,
        open=s.open,
        person=s.person,
        channel=channel,
        account=account,
        conversation=conversation,
        thread=thread or None,
        reason=s.reason,
        failure=None if s.failure == TRIED else s.failure,
        created=s.created - shift,
        updated=s.updated - shift,
        due=to_come(s.due, shift),
        expires=to_come(s.expires, shift),
        turn=s.parent,
        version=s.version,
        under_way=trial_of(s.phase) if s.failure == TRIED else None,
    )


def word_of(phase: Phase) -> str:
    """The status word of an entry: its status, or "parked"."""
    return str(Phase.PARKED if phase is Phase.PARKED else phase.status)
