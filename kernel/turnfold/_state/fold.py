"""Gates, cursors and the worker's epoch: streams whose last event is the state."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import attrs
from attrs import frozen
from msgspec.structs import replace

from turnfold._log import events as g
from turnfold._log.bodies import digests_of, number_of
from turnfold._log.canonical import Record
from turnfold._log.codec import decode
from turnfold._log.events import Event
from turnfold._state import entry_fold
from turnfold._state import turn as turn_fold
from turnfold._state.entry import Entry
from turnfold._state.transitions import Row, illegal, targets
from turnfold._state.turn import Turn
from turnfold.enums import CLOSED, GIVEN_UP, Phase, TurnPhase
from turnfold.errors import CorruptLogError, UsageError
from turnfold.ports.store import Summary


@frozen(kw_only=True)
class _Ledger:
    """The part of a state that all of these streams have."""

    stream: str
    version: int
    order: int
    created: int
    updated: int


@frozen(kw_only=True)
class Gate(_Ledger):
    """A scope that may be held back. Closed with `until`, it opens by itself at that
    time."""

    closed: bool = False
    reason: str | None = None
    until: int | None = None

    def holds(self, now: int) -> bool:
        return self.closed and (self.until is None or now < self.until)


PERSON = "operator"  # the reason of a gate that a person has closed or opened


@frozen(kw_only=True)
class Cursor(_Ledger):
    value: str | None = None
    rank: int | None = None  # in the order of its source; never falls


@frozen(kw_only=True)
class StoreState(_Ledger):
    """The `store` stream. `epoch` is the fence of the latest worker that wrote;
    `restored` the position at which the store was last found to be an older copy."""

    epoch: int = 0
    owner: str | None = None
    id: str | None = None
    restored: int = 0


_SAME = frozenset({None})  # these streams have no phases
GATE_TABLE: Mapping[bool, Row] = MappingProxyType(
    {False: {g.GateClosed: _SAME}, True: {g.GateClosed: _SAME, g.GateOpened: _SAME}}
)
CURSOR_TABLE: Mapping[None, Row] = MappingProxyType({None: {g.CursorAdvanced: _SAME}})
_STARTED: Row = {
    g.WorkerStarted: _SAME,
    g.Restored: _SAME,
    g.Pruned: _SAME,
    g.PrunedReceipt: _SAME,
    g.WallJumped: _SAME,
}
STORE_TABLE: Mapping[bool, Row] = MappingProxyType(
    {False: {g.StoreCreated: _SAME, **_STARTED}, True: _STARTED}
)


def _new(stream: str, at: int, position: int) -> dict[str, Any]:
    first = {"version": 0, "order": position, "created": at, "updated": at}
    return {"stream": stream, **first}


def evolve_gate(
    gate: Gate | None, event: g.GateEvent, stream: str, at: int, position: int
) -> Gate:
    before = gate or Gate(**_new(stream, at, position))
    targets(GATE_TABLE, before.closed, type(event), stream)
    return attrs.evolve(
        before,
        version=before.version + 1,
        updated=at,
        closed=isinstance(event, g.GateClosed),
        reason=event.reason,
        until=event.until if isinstance(event, g.GateClosed) else None,
    )


def evolve_cursor(
    cursor: Cursor | None, event: g.CursorEvent, stream: str, at: int, position: int
) -> Cursor:
    before = cursor or Cursor(**_new(stream, at, position))
    targets(CURSOR_TABLE, None, type(event), stream)
    if not goes_on(before, event.rank):
        raise illegal(CURSOR_TABLE, None, type(event), stream)
    return attrs.evolve(
        before,
        version=before.version + 1,
        updated=at,
        value=event.cursor,
        rank=event.rank,
    )


def goes_on(cursor: Cursor, rank: int | None) -> bool:
    """May a cursor move to this rank? It never goes back in the order of its source.
    Without ranks the order of acceptance counts."""
    return rank is None or cursor.rank is None or rank >= cursor.rank


def evolve_store(
    store: StoreState | None, event: g.StoreEvent, stream: str, at: int, position: int
) -> StoreState:
    before = store or StoreState(**_new(stream, at, position))
    targets(STORE_TABLE, before.id is not None, type(event), stream)
    after = attrs.evolve(before, version=before.version + 1, updated=at)
    match event:
        case g.StoreCreated():
            return attrs.evolve(after, id=event.store)
        case g.WorkerStarted():
            return attrs.evolve(after, epoch=event.epoch, owner=event.owner)
        case g.Restored():
            return attrs.evolve(after, restored=position)
        case g.Pruned() | g.PrunedReceipt() | g.WallJumped():
            return after


# --- One fold for every kind of stream, and the projection of its state ---


State = Entry | Turn | Gate | Cursor | StoreState
TRIED = "tried"  # the failure in a summary while a plan or a look-up is under way
STORE = "store"  # the one stream without an id

_EVOLVE: dict[str, Any] = {
    "entry": entry_fold.evolve,
    "turn": turn_fold.evolve,
    "gate": evolve_gate,
    "cursor": evolve_cursor,
    "store": evolve_store,
}


# The same by the type of the known state, which saves parsing the stream's name.
_STATES = {
    "entry": Entry,
    "turn": Turn,
    "gate": Gate,
    "cursor": Cursor,
    "store": StoreState,
}
_ONWARD: dict[type, Any] = {cls: _EVOLVE[name] for name, cls in _STATES.items()}

# In place, for a state that no other code holds.
_ADVANCE = _EVOLVE | {"entry": entry_fold.advance, "turn": turn_fold.advance}
_ONWARD_IN_PLACE = {cls: _ADVANCE[name] for name, cls in _STATES.items()}


def family(stream: str) -> str:
    return stream.partition(":")[0]


def evolve(
    state: State | None, event: Event, stream: str, at: int, position: int
) -> State:
    """The state of any stream after one more event. `position`: of its record."""
    machine = _EVOLVE[family(stream)] if state is None else _ONWARD[type(state)]
    after: State = machine(state, event, stream, at, position)
    return after


def advance(
    state: State | None, event: Event, stream: str, at: int, position: int
) -> State:
    """As `evolve`, but it may change and return the given state itself. The rest
    of that state must not be used after an error."""
    if state is None:
        machine = _ADVANCE[family(stream)]
    else:
        machine = _ONWARD_IN_PLACE[type(state)]
    after: State = machine(state, event, stream, at, position)
    return after


def fold(records: Iterable[Record]) -> State | None:
    """The state of a stream after its records; None for no records.

    Raises CorruptLogError where a record is unreadable, missing or illegal.
    """
    state: State | None = None
    for record in records:
        state = _onto(state, record, advance)
    return state


def apply(state: State | None, record: Record) -> State:
    """One stored record on top of a state, which stays as it is.

    Raises CorruptLogError for a record that does not follow the state's version, cannot
    be read, or holds an event that is illegal there.
    """
    return _onto(state, record, evolve)


_Step = Callable[[State | None, Event, str, int, int], State]


def _onto(state: State | None, record: Record, first: _Step) -> State:
    """Apply the first event by `first` and the later ones in place, since no other code
    holds the later states."""
    check_follows(state, record)
    stream, at, position = record.stream, record.at, record.position
    events = decode(record)
    try:
        after = first(state, events[0], stream, at, position)
        for event in events[1:]:
            after = advance(after, event, stream, at, position)
        if isinstance(after, Entry | Turn):
            after = _counted(after, events)
    except UNFOLDABLE as exc:
        problem = str(exc) if isinstance(exc, UsageError) else repr(exc)
        raise CorruptLogError(
            position=position, stream=stream, problem=problem
        ) from exc
    return after


def _counted(state: Entry | Turn, events: Iterable[Event]) -> Entry | Turn:
    """Count the body numbers that these events have used. A file's content is numbered
    before the payload that names it, so the payload's number is enough."""
    used = [number_of(ref) + 1 for event in events for ref in digests_of(event)]
    if not used:
        return state
    counted: Any = state  # made in this fold, not shared yet
    counted.bodies = max(state.bodies, *used)
    return state


# Errors of a fold for an event that is illegal in its place, or belongs to another
# family of streams.
UNFOLDABLE = (UsageError, KeyError, AttributeError, TypeError, IndexError)


def check_follows(state: State | None, record: Record) -> None:
    """Raises CorruptLogError unless the record is the next one of its stream."""
    expected = 0 if state is None else state.version
    if record.before == expected and record.count > 0:
        return
    problem = f"{record.count} events up to version {record.version}"
    raise CorruptLogError(
        position=record.position,
        stream=record.stream,
        problem=f"{problem}, where version {expected + 1} comes next",
    )


def summarize(state: State) -> Summary:
    """The projection of a stream's state: the store keeps it beside the log.

    It is made for every stream of every commit: so it reads an enum's `_value_`, which
    is `value` without a call.
    """
    if isinstance(state, Entry):  # nearly all, at once
        return _entry(state)
    match state:
        case Turn():
            return _turn(state)
        case Gate():
            phase = "closed" if state.closed else "open"
            return _plain(state, phase, due=state.until, reason=state.reason)
        case Cursor():
            return _plain(state, "at", due=state.rank, reason=state.value)
        case StoreState():
            row = _plain(state, "epoch", due=state.epoch, reason=state.owner)
            return replace(row, kind=state.id, expires=state.restored or None)


# By position, since thirteen keyword arguments cost more.
def _entry(e: Entry) -> Summary:
    return Summary(
        e.stream,
        e.version,
        e.phase not in CLOSED,
        e.phase._value_,
        e.order,
        e.created,
        e.updated,
        e.lane,
        e.turn,
        e.kind._value_,
        e.due,
        e.expires_at,
        None if e.reason is None else str(e.reason),
        TRIED
        if e.tried == e.version
        else None
        if e.failure is None
        else e.failure._value_,
        e.phase in GIVEN_UP and (e.phase is Phase.PARKED or not e.acknowledged),
    )


def _turn(t: Turn) -> Summary:
    return Summary(
        stream=t.stream,
        version=t.version,
        open=t.open,
        phase=t.phase._value_,
        order=t.order,
        created=t.created,
        updated=t.updated,
        lane=t.lane,
        kind="control" if t.control else "turn",
        due=t.due,
        reason=_text(t.outcome or t.reason),
        failure=_text(t.reason) if t.outcome else None,
        person=(t.held and t.open) or unseen(t),
    )


def unseen(turn: Turn) -> bool:
    """A dead turn that no person has run or erased."""
    left = turn.dead and not (turn.resubmitted or turn.redacted)
    return left and turn.phase is TurnPhase.FAILED


def _text(word: str | None) -> str | None:
    """An enumerated word as the plain text that a store keeps."""
    return None if word is None else str(word)


def _plain(
    state: Gate | Cursor | StoreState, phase: str, due: int | None, reason: str | None
) -> Summary:
    return Summary(
        stream=state.stream,
        version=state.version,
        open=isinstance(state, Gate) and state.closed,
        phase=phase,
        order=state.order,
        created=state.created,
        updated=state.updated,
        due=due,
        reason=_text(reason),
    )


def restore(summary: Summary) -> Gate | Cursor | StoreState:
    """The state of a gate, cursor or store stream. Its last event is the state, so its
    summary is enough, and a gate with a million events loads as fast as a new one."""
    s = summary
    names = [field.name for field in attrs.fields(_Ledger)]
    known: dict[str, Any] = {name: getattr(s, name) for name in names}
    match family(s.stream):
        case "gate":
            closed = s.phase == "closed"
            return Gate(**known, closed=closed, reason=s.reason, until=s.due)
        case "cursor":
            return Cursor(**known, value=s.reason, rank=s.due)
        case _:
            epoch, restored = s.due or 0, s.expires or 0
            return StoreState(
                **known, epoch=epoch, owner=s.reason, id=s.kind, restored=restored
            )
