"""The folded streams that an audit keeps in memory: the open ones.

With a store a closed stream is dropped after a while, so that the open ones bound the
memory. Of a dropped stream only sums stay (`Facts`). If more records of the stream come,
the stream is read again.
"""

import gc
from collections import deque
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

from turnfold._log.canonical import BLANK, Head, Record, hash_of, hashes_of, head_after
from turnfold._log.codec import decode
from turnfold._log.events import Event, Pruned
from turnfold._log.ids import TURN, gates_of
from turnfold._state.entry import Entry
from turnfold._state.fold import STORE, UNFOLDABLE, Gate, State, StoreState, fold
from turnfold._state.turn import Turn
from turnfold.audit.facts import Facts
from turnfold.audit.findings import Findings, Report, Rule
from turnfold.audit.pruned import PrunedRecords
from turnfold.audit.stream_rules import StreamRules
from turnfold.audit.witness import Acceptance, Witness
from turnfold.enums import CLOSED, Phase, TurnPhase
from turnfold.errors import CorruptLogError, UsageError
from turnfold.ports.store import RECORDS, Store, Wanted

_LATE = 2_000  # closed streams kept: closing a final also closes its turn


class States:
    """`put` each new or changed state."""

    def __init__(self) -> None:
        self.known: dict[str, State] = {}
        self._closed: deque[str] = deque()
        self.count = 0  # all streams so far

    def put(self, state: State, *, new: bool) -> None:
        self.count += new
        self.known[state.stream] = state
        if type(state) is Entry:  # nearly all are
            if state.phase in CLOSED:
                self._closed.append(state.stream)
        elif type(state) is Turn and not state.open:
            self._closed.append(state.stream)

    def find(self, stream: str) -> Entry | Turn | None:
        """The present state of an entry or a turn. If a turn is in memory, its entries
        are, too."""
        known = self.known.get(stream)
        return known if isinstance(known, Entry | Turn) else None

    def __iter__(self) -> Iterator[State]:
        return iter(self.known.values())

    # --- for a caller that can read a stream again ---

    def trim(self, before: int) -> Iterator[State]:
        """Drop streams that closed long ago, and yield them. Streams that moved at
        `before` or later stay: the moment of that time is not judged yet."""
        kept = []
        while len(self._closed) > _LATE:
            state = self.known.get(self._closed.popleft())
            if not isinstance(state, Entry | Turn) or state.open:
                continue
            if state.updated >= before or self._needed(state):
                kept.append(state.stream)
            else:
                del self.known[state.stream]
                yield state
        self._closed.extend(kept)

    def _needed(self, state: Entry | Turn) -> bool:
        """Is the state still needed? The end of a turn is compared with its entries,
        even old ones."""
        turn = self.known.get(state.turn or "") if isinstance(state, Entry) else None
        return isinstance(turn, Turn) and turn.open


# --- The chain: hashes, positions, versions and heads. Events are not read here ---


class Chain:
    """Fed with every record in order. `marks`: heads that the log must contain."""

    def __init__(self, findings: Findings, marks: Iterable[Head] = ()) -> None:
        self._findings = findings
        self._marks: dict[int, list[bytes]] = {}
        for mark in marks:
            self._marks.setdefault(mark.position, []).append(mark.hash)
        self.head, self.events, self.at = BLANK, 0, 0
        self._check_marks()

    @property
    def position(self) -> int:
        return self.head.position

    def feed(self, record: Record) -> None:
        if record.position != self.position + 1:
            self._gap(record)
        if record.pruned:
            self.head = head_after(self.head, (record,))
            self._check_marks()
            return
        if hash_of(record) != record.hash:
            text = "its hash does not fit its stored bytes"
            self._findings.add(Rule.HASH, text, record.position, record.stream)
        if record.at < self.at:
            text = f"time goes back from {self.at} to {record.at}"
            self._findings.add(Rule.TIME, text, record.position, record.stream)
        self.at = max(self.at, record.at)
        self.events += record.count
        self.head = head_after(self.head, (record,))
        if self.position in self._marks:
            self._check_marks()

    def follows(self, records: Sequence[Record]) -> bool:
        """Check many records at once. True if all are sound; the chain then goes on to
        their end. False: nothing is done, and each record has to be fed. Each check
        runs over all records, since calls would be most of the cost of a sound log."""
        before = self.position
        last = before + len(records)
        times = [self.at, *[r.at for r in records]]
        if (
            hashes_of(records) != [r.hash for r in records]
            or [r.position for r in records] != [*range(before + 1, last + 1)]
            or times != sorted(times)
        ):
            return False
        ends = sorted(mark - before for mark in self._marks if before < mark < last)
        for start, end in pairwise([0, *ends, len(records)]):
            self.head = head_after(self.head, records[start:end])
            self._check_marks()
        self.at = times[-1]
        self.events += sum([r.count for r in records])
        return True

    def _gap(self, record: Record) -> None:
        expected, found = self.position + 1, record.position
        if found <= self.position:
            text = f"position {found} comes after {self.position}"
        elif found == expected + 1:
            text = f"the record at {expected} is missing"
        else:
            text = f"the records from {expected} to {found - 1} are missing"
        self._findings.add(Rule.POSITION, text, found, record.stream)

    def _check_marks(self) -> None:
        mine = self.head.hash
        for digest in self._marks.pop(self.position, ()):
            if digest != mine:
                text = (
                    f"the head noted for position {self.position} is "
                    f"{digest.hex()[:12]}.., the log gives {mine.hex()[:12]}..: "
                    "a record up to here was changed, lost or moved"
                )
                self._findings.add(Rule.HEAD, text, self.position)

    def end(self) -> None:
        """End of the log: a noted head beyond it means lost records."""
        for position in sorted(self._marks):
            text = f"a head was noted for position {position}, "
            if position > self.position:
                text += f"but the log ends at {self.position}: its tail is gone"
            else:
                text += "but there is no record at it"
            self._findings.add(Rule.HEAD, text, self.position)
        self._marks.clear()


# --- The audit itself: one pass over the records of a log, from any source ---


@contextmanager
def _no_collection() -> Iterator[None]:
    """Switch the garbage collector off for one page: no cycles are made here, and the
    collector costs a twentieth of an audit."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Auditor:
    """Feed it every record in order, then ask for the `report`.

    `facts`: collects the bodies and keys that the side tables must hold; None if they
    are not compared. `marks`: heads that the log must contain. `witness`: the messages
    that the platform accepted, on the channels of `channels` (None: on all of them), or
    the one Witness of several logs. `without`: rules that are left out.
    """

    def __init__(
        self,
        *,
        facts: Facts | None = None,
        marks: Iterable[Head] = (),
        witness: Iterable[Acceptance] | Witness | None = None,
        channels: Collection[str] | None = None,
        limit: int = 100,
        without: frozenset[Rule] = frozenset(),
    ) -> None:
        self.findings = Findings(limit, without)
        self.chain = Chain(self.findings, marks)
        self.states = States()
        self.aside: set[str] = set()
        self._facts = facts
        if witness is not None and not isinstance(witness, Witness):
            witness = Witness(witness, channels)
        self._witness = witness
        if witness is not None:
            witness.begin(self.findings)
        self._among = StreamRules(self.findings, self.states.find, self.aside)
        self.pruned = PrunedRecords(self.findings)
        self._at = -1

    @property
    def store_id(self) -> str | None:
        """The id in the first event of the log; None without that event."""
        state = self.states.known.get(STORE)
        return state.id if isinstance(state, StoreState) else None

    @property
    def restored(self) -> Collection[tuple[int, str]]:
        """Position and hash of each mark that was ahead of a restored log."""
        return self._among.restored

    # --- record by record ---

    def feed(self, records: Sequence[Record]) -> None:
        """The next records of the log, a thousand at a time for speed."""
        if not self.chain.follows(records):
            for record in records:
                self.chain.feed(record)
        with _no_collection():
            self._follow(self._there(records))

    def _there(self, records: Sequence[Record]) -> Sequence[Record]:
        """The records that are not pruned."""
        gone = [record for record in records if record.pruned]
        for record in gone:
            self.pruned.gone(record)
        return [r for r in records if not r.pruned] if gone else records

    def trim(self) -> None:
        """Forget closed streams, so that the open ones bound the memory."""
        for state in self.states.trim(self._at):
            if self._facts is not None:
                self._facts.drop(state)

    def missing(self, records: Sequence[Record]) -> set[str]:
        """The streams that go on in these records and are not known: they were
        dropped, unless the log is damaged."""
        first: dict[str, Record] = {}
        for record in records:
            first.setdefault(record.stream, record)
        return self.unknown([s for s, r in first.items() if r.version > r.count])

    def unknown(self, streams: Iterable[str]) -> set[str]:
        known, aside = self.states.known, self.aside
        return {name for name in streams if name not in known and name not in aside}

    def bring_back(self, records: Sequence[Record]) -> None:
        """Bring a dropped stream back from its earlier records."""
        try:
            state = fold(records)
        except CorruptLogError as exc:
            self._set_aside(records[-1], Rule.DECODE, exc.problem)
            return
        if state is not None:
            self.states.put(state, new=False)
            if self._facts is not None:
                events = [event for record in records for event in decode(record)]
                self._facts.bring_back(state, events)

    def _follow(self, records: Sequence[Record]) -> None:
        known, aside, among = self.states.known, self.aside, self._among
        for record in records:
            stream = record.stream
            if record.at != self._at:
                self._at = record.at
                among.begin(record.at)
            if stream in aside:
                continue
            before = known.get(stream)
            version = 0 if before is None else before.version
            if record.version - record.count != version or record.count < 1:
                text = f"version {record.before + 1} where {version + 1} belongs"
                self._set_aside(record, Rule.VERSION, text)
                continue
            try:
                events = decode(record)
            except CorruptLogError as exc:
                self._set_aside(record, Rule.DECODE, exc.problem)
                continue
            try:
                after = self._taken(record, before, events)
            except UNFOLDABLE as exc:
                text = str(exc) if isinstance(exc, UsageError) else repr(exc)
                self._set_aside(record, Rule.TRANSITION, text)
                continue
            self.states.put(after, new=before is None)

    def _taken(
        self, record: Record, before: State | None, events: Sequence[Event]
    ) -> State:
        """The state after the events of a record. `before` moves on in place."""
        step, after = self._among.step, before
        beside = self._facts is not None or self._witness is not None
        for event in events:
            after = step(record, after, event)
            if type(event) is Pruned:
                self.pruned.said(record.position, event)
            if beside:
                self._note(event, after, record.position)
        assert after is not None  # noqa: S101  a record has at least one event
        return after

    def _note(self, event: Event, after: State, position: int) -> None:
        if self._facts is not None:
            self._facts.feed(after, event)
        if self._witness is not None and isinstance(after, Entry):
            self._witness.feed(after, event, position)  # type: ignore[arg-type]  # a stream's family has its events, or the fold refuses

    def _set_aside(self, record: Record, rule: Rule, text: str) -> None:
        self.findings.add(rule, text, record.position, record.stream)
        self.aside.add(record.stream)
        self.states.known.pop(record.stream, None)

    # --- the end ---

    def end(self, settled_at: int | None = None) -> None:
        """Call once, after the last record. `settled_at`: see `settled`."""
        self.chain.end()
        self._among.end()
        self.pruned.end()
        if self._facts is not None:
            self._facts.end()
        if settled_at is not None:
            note_unsettled(self.findings, self.states, settled_at)
        if self._witness is not None:
            self._witness.end(pruned=self.pruned.any)

    def report(self) -> Report:
        """The findings so far."""
        return Report(
            findings=self.findings.in_order(),
            found=self.findings.count,
            events=self.chain.events,
            streams=self.states.count,
            witnessed=None if self._witness is None else self._witness.total,
            head=self.chain.head,
            redacted=None if self._facts is None else len({*self._facts.redacted}),
        )


# --- INV-14, as far as one log shows it: at rest, everything is closed or waits for a ---


_SENDING = (Phase.ATTEMPTED, Phase.DISPATCHED)


def note_unsettled(findings: Findings, states: States, now: int) -> None:
    """Note each stream that should have moved by `now` (log ms) and did not."""
    opened = [s for s in states if isinstance(s, Entry | Turn) and s.open]
    opened.sort(key=lambda state: state.order)
    gates = {s.stream for s in states if isinstance(s, Gate) and s.holds(now)}
    for text, state in _unsettled(opened, gates, now):
        findings.add(Rule.SETTLED, text, None, state.stream)


def _unsettled(
    opened: list[Entry | Turn], gates: set[str], now: int
) -> Iterator[tuple[str, Entry | Turn]]:
    held: set[tuple[type, str]] = set()  # lanes that an earlier stream holds
    for state in opened:
        lane = type(state), state.lane
        text: str | None
        if isinstance(state, Entry):
            gated = bool(gates.intersection(_gates(state.lane)))
            text = _entry(state, now, waits=lane in held or gated)
            holds = not state.yielded
        else:
            text = _turn(state, now, waits=lane in held)
            holds = state.phase is not TurnPhase.ANSWERED and not state.held
        if holds:
            held.add(lane)
        if text is not None:
            yield text, state


def _gates(lane: str) -> tuple[str, ...]:
    return gates_of(lane) if lane.count("/") == 3 else ()


def _entry(entry: Entry, now: int, *, waits: bool) -> str | None:
    if entry.phase in _SENDING:
        return f"attempt {entry.attempt} of part {entry.part} has no outcome"
    if now >= entry.expires_at:
        return f"it expired {now - entry.expires_at} ms ago and is still {entry.phase}"
    if entry.phase is Phase.PARKED or waits:
        return None
    return _overdue(entry.due, entry.updated, now)


def _turn(turn: Turn, now: int, *, waits: bool) -> str | None:
    match turn.phase:
        case TurnPhase.RUNNING:
            return f"run {turn.run} has not ended"
        case TurnPhase.ACCEPTED if not (turn.held or waits):
            return _overdue(turn.due, turn.updated, now)
        case _:
            return None  # its entries are judged instead


def _overdue(due: int | None, updated: int, now: int) -> str | None:
    since = updated if due is None else due
    if now < since:
        return None
    return f"it has been due for {now - since} ms, and nothing holds it back"


# --- The records of a store, page by page, into an auditor. A page costs one call, two ---


_GIVE_UP = 100  # unreadable positions in a row


async def walk(
    auditor: Auditor, store: Store, progress: Callable[[int], None] | None = None
) -> None:
    """Feed the whole log. `progress` gets the position after each page."""
    async for page in _readable(auditor, store):
        auditor.trim()
        await _bring_back(auditor, store, page)
        auditor.feed(page)
        if progress is not None:
            progress(page[-1].position)


async def _readable(auditor: Auditor, store: Store) -> AsyncIterator[Sequence[Record]]:
    """All pages that the store can read. Around damage they are smaller, and a position
    that cannot be read alone is skipped."""
    after, size, failed = 0, RECORDS, 0
    while failed < _GIVE_UP:
        try:
            page = await store.log(after, size)
        except CorruptLogError as exc:
            if size > 1:
                size = max(1, size // 10)
                continue
            if not failed:
                auditor.findings.add(Rule.DECODE, str(exc), after + 1)
            after, failed = after + 1, failed + 1
            continue
        if not page:
            return
        yield page
        after, size, failed = page[-1].position, min(size * 10, RECORDS), 0
    text = f"{failed} positions in a row cannot be read; the audit of the log ends here"
    auditor.findings.add(Rule.DECODE, text, after)


async def _bring_back(auditor: Auditor, store: Store, page: Sequence[Record]) -> None:
    """Bring back the dropped streams that move in this page, turns with their
    entries."""
    streams = auditor.missing(page)
    if not streams:
        return
    turns = frozenset(name for name in streams if name.startswith(TURN))
    if turns:
        found = await store.fetch(Wanted(children=turns))
        children = [name for names in found.children.values() for name in names]
        streams |= auditor.unknown(children)
    end = page[0].position
    async for records in _records_of(store, streams):
        earlier = [r for r in records if r.position < end]
        if earlier:
            auditor.bring_back(earlier)


async def _records_of(
    store: Store, streams: Iterable[str]
) -> AsyncIterator[Sequence[Record]]:
    """The records of each stream that can be read; the walk reports the damage of the
    others."""
    wanted = [*streams]
    try:
        found = (await store.fetch(Wanted(streams=frozenset(wanted)))).streams
    except CorruptLogError:
        if len(wanted) > 1:
            for stream in wanted:
                async for one in _records_of(store, [stream]):
                    yield one
        return
    for records in found.values():
        yield records


class Wrong(NamedTuple):
    """A side row that does not fit the log. `position`: of the record that names it; 0
    for none."""

    position: int
    stream: str
    text: str


Told = tuple[int, Event]  # the position of an event's record, and the event


def told(records: Iterable[Record]) -> Sequence[Told]:
    """The events of a stream. Raises CorruptLogError."""
    return [(r.position, event) for r in records for event in decode(r)]
