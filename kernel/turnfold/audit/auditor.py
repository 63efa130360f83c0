"""The audit itself: one pass over the records of a log, whatever they come from.

A stream that cannot be read on is set aside with its finding; the chain goes on, and so
does everything else. Nothing here does I/O: `audit.beside` reads a store for it.
"""

import gc
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from turnfold.audit.among import Among
from turnfold.audit.chain import Chain
from turnfold.audit.facts import Facts
from turnfold.audit.findings import Findings, Report, Rule
from turnfold.audit.settled import note_unsettled
from turnfold.audit.states import States
from turnfold.audit.witness import Acceptance, Witness
from turnfold.codec import decode
from turnfold.errors import CorruptLogError, UsageError
from turnfold.events import Event
from turnfold.fold import STORE, UNFOLDABLE, State
from turnfold.machines.entry import Entry
from turnfold.machines.ledger import StoreState
from turnfold.records import Head, Record


@contextmanager
def _no_collection() -> Iterator[None]:
    """For one page: nothing here makes cycles, and a collector that looks at each new
    state several times costs a twentieth of an audit."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Auditor:
    """Feed it every record in order, then ask for the `report`.

    `facts`: collects what must lie beside the log; None if nobody compares it. `marks`:
    heads that the log must contain. `witness`: the list of what the platform accepted,
    on the channels of `channels` (None: on all of them).
    """

    def __init__(
        self,
        *,
        facts: Facts | None = None,
        marks: Iterable[Head] = (),
        witness: Iterable[Acceptance] | None = None,
        channels: Collection[str] | None = None,
        limit: int = 100,
    ) -> None:
        self.findings = Findings(limit)
        self.chain = Chain(self.findings, marks)
        self.states = States(projected=facts is not None)
        self.aside: set[str] = set()
        self._facts = facts
        self._witness = None
        if witness is not None:
            self._witness = Witness(self.findings, witness, channels)
        self._among = Among(self.findings, self.states.find, self.aside)
        self._at = -1

    @property
    def store_id(self) -> str | None:
        """The id in the first event of the log; None if that is not there."""
        state = self.states.known.get(STORE)
        return state.id if isinstance(state, StoreState) else None

    @property
    def restored(self) -> Collection[tuple[int, str]]:
        """Position and hash of each mark that the log itself was found to be older
        than."""
        return self._among.restored

    # --- record by record ---

    def feed(self, records: Sequence[Record]) -> None:
        """The next records of the log, a thousand at a time for speed."""
        if not self.chain.follows(records):
            for record in records:
                self.chain.feed(record)
        with _no_collection():
            self._follow(records)

    def trim(self) -> None:
        """Forget closed streams, so that memory is bounded by what is open."""
        self.states.trim(self._at)

    def missing(self, records: Sequence[Record]) -> set[str]:
        """The streams that have to be brought back before these records are fed."""
        return self.states.missing([r.stream for r in records if r.version > r.count])

    def bring_back(self, stream: str, records: Sequence[Record]) -> None:
        """A stream that was dropped, from its records before the next one."""
        try:
            self.states.bring_back(stream, records)
        except CorruptLogError as exc:
            self._set_aside(records[-1], Rule.DECODE, exc.problem)

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
            if beside:
                self._note(event, after, record.position)
        assert after is not None  # noqa: S101  a record has at least one event
        return after

    def _note(self, event: Event, after: State, position: int) -> None:
        if self._facts is not None:
            self._facts.feed(after, event, position)
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
        if settled_at is not None:
            note_unsettled(self.findings, self.states, settled_at)
        if self._witness is not None:
            self._witness.end()

    def report(self) -> Report:
        """Everything found so far."""
        return Report(
            findings=self.findings.in_order(),
            found=self.findings.count,
            events=self.chain.events,
            streams=self.states.count,
            witnessed=None if self._witness is None else self._witness.total,
            head=self.chain.head,
        )
