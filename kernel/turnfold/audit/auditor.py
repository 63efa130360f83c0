"""The audit itself: one pass over the records of a log, whatever they come from.

A stream that cannot be read on is set aside with its finding; the chain goes on, and so
does everything else.
"""

import gc
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from turnfold.audit.among import Among
from turnfold.audit.beside import Bodies, Keys, Projections
from turnfold.audit.chain import Chain
from turnfold.audit.findings import Findings, Report, Rule
from turnfold.audit.states import States
from turnfold.audit.witness import Acceptance, Witness
from turnfold.codec import Record, decode
from turnfold.errors import CorruptLogError, StoreError, UsageError
from turnfold.events import Event
from turnfold.fold import State
from turnfold.machines.entry import Entry
from turnfold.machines.turn import Turn
from turnfold.ports.store import Head, Store

_UNREADABLE = (UsageError, KeyError, AttributeError, TypeError, IndexError)


class Auditor:
    """Feed it every record in order, then ask for the `report`.

    `store`: also hold the bodies, keys and projections of this store against the log.
    `marks`: heads that the log must contain. `witness`: what the platform accepted, on
    the channels of `channels` (none: on all of them).
    """

    def __init__(
        self,
        *,
        store: Store | None = None,
        bodies: bool = True,
        marks: Iterable[Head] = (),
        witness: Iterable[Acceptance] | None = None,
        channels: Collection[str] | None = None,
        limit: int = 100,
    ) -> None:
        self.findings = Findings(limit)
        self.chain = Chain(self.findings, marks)
        self._store = store
        self._open_beside(store, bodies=bodies)
        self._witness = None
        if witness is not None:
            self._witness = Witness(self.findings, witness, channels)
        self._aside: set[str] = set()
        self._among = Among(self.findings, self._find, self._aside)
        self._position, self._at = 0, -1

    def _open_beside(self, store: Store | None, *, bodies: bool) -> None:
        self._bodies: Bodies | None = None
        self._keys: Keys | None = None
        self._projections: Projections | None = None
        self.states = States()
        if store is not None:
            self._bodies = Bodies(self.findings, store) if bodies else None
            self._keys = Keys(self.findings, store)
            self._projections = Projections(self.findings, store)
            self.states = States(store, self._projections.last)

    def _find(self, stream: str) -> Entry | Turn | None:
        return self.states.at(stream, self._position)

    # --- record by record ---

    def feed(self, record: Record) -> None:
        self.chain.feed(record)
        self._follow((record,))

    def feed_all(self, records: Sequence[Record]) -> None:
        """The same as feeding each of them, but quicker."""
        if self.chain.follows(records):
            self._follow(records)
        else:
            for record in records:
                self.feed(record)

    def _follow(self, records: Sequence[Record]) -> None:
        known, aside, step = self.states.known, self._aside, self._among.step
        beside = self._store is not None or self._witness is not None
        for record in records:
            if record.at != self._at:
                self._at = record.at
                self._among.begin(record.at)
            self._position = record.position
            if record.stream in aside:
                continue
            before = found = known.get(record.stream)
            try:
                if found is None and record.version > 1:
                    before = self.states.before(record)
                event = decode(record)
            except CorruptLogError as exc:
                self._set_aside(record, Rule.DECODE, str(exc.problem))
                continue
            expected = 1 if before is None else before.version + 1
            if record.version != expected:
                text = f"version {record.version} where {expected} belongs"
                self._set_aside(record, Rule.VERSION, text)
                continue
            try:
                after = step(record, before, event)
            except _UNREADABLE as exc:
                text = str(exc) if isinstance(exc, UsageError) else repr(exc)
                self._set_aside(record, Rule.TRANSITION, text)
                continue
            if beside:
                self._beside(event, after, record.position)
            if beside or after is not found:
                self.states.put(after)

    def _set_aside(self, record: Record, rule: Rule, text: str) -> None:
        self.findings.add(rule, text, record.position, record.stream)
        self._aside.add(record.stream)

    def _beside(self, event: Event, after: State, position: int) -> None:
        if self._keys is not None:
            self._keys.feed(after, event, position)
        if self._bodies is not None:
            self._bodies.feed(after.stream, event, position)
        if self._witness is not None and isinstance(after, Entry):
            self._witness.feed(after, event, position)  # type: ignore[arg-type]  # a stream's family has its events, or the fold refuses

    # --- the end ---

    def report(self) -> Report:
        """Call once, after the last record."""
        self.chain.end()
        self._among.end()
        if self._bodies is not None:
            self._bodies.end()
        self._project()
        if self._witness is not None:
            self._witness.end()
        return Report(
            findings=tuple(self.findings.kept),
            found=self.findings.count,
            events=self.chain.events,
            streams=self.states.count,
            witnessed=None if self._witness is None else self._witness.total,
            head=self.chain.head,
        )

    def _project(self) -> None:
        if self._projections is None or self._store is None:
            return
        states = list(self.states)
        for state, last in zip(states, self._projections.last(states), strict=True):
            if not last and state.stream not in self._aside and self._whole():
                text = "its projection is ahead of the log"
                self.findings.add(Rule.PROJECTION, text, None, state.stream)
        if self._whole():
            self._projections.strays(self.states.find, self._aside)

    def _whole(self) -> bool:
        """True if the store holds nothing yet that this audit has not seen."""
        try:
            return self._store is None or not self._store.since(self.chain.position)
        except StoreError:
            return False


_BATCH = 1_000
_BATCHES = 32  # with the collector off; a fifth of a second


@contextmanager
def _no_collection() -> Iterator[None]:
    """Nothing here makes cycles, and looking for them takes up to a sixth of an audit:
    each state is looked at for being new, and again for being kept. It is looked for
    now and then all the same, so that others' cycles do not pile up."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def run(
    auditor: Auditor,
    records: Iterable[Record],
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Feed all records; `progress` is told the position now and then."""
    following = iter(records)
    while True:
        with _no_collection():
            for _ in range(_BATCHES):
                batch = list(islice(following, _BATCH))
                if not batch:
                    return auditor.report()
                auditor.feed_all(batch)
                if progress is not None:
                    progress(batch[-1].position)
