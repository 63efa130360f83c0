"""The side tables of a store - summaries, dedupe keys, bodies - compared with the log
in both directions: no row is missing, and none is left over.

Each side table is read from end to end and compared with sums that the audit kept. If a
bucket of the sums differs, the streams in it are read again, with all their rows in one
answer of the store. That names the fault, and ignores records that were written during
the audit.
"""

from collections.abc import (
    AsyncIterator,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from typing import Any, Protocol

from attrs import define, field

from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._log.bodies import PAYLOADS, body_ref, contents_in, digests_of, place_of
from turnfold._log.canonical import Record
from turnfold._log.events import Event
from turnfold._state.fold import State, fold, summarize
from turnfold.audit.auditor import Auditor, States, Wrong, told
from turnfold.audit.facts import Facts, Odd, Sums, keys_of
from turnfold.audit.findings import Rule
from turnfold.errors import CorruptLogError, InvalidInputError, StoreError
from turnfold.ports.plugins import PluginStore
from turnfold.ports.store import (
    RECORDS,
    Body,
    BodyRef,
    Keeping,
    Listing,
    Maintenance,
    Store,
    Summary,
    Wanted,
    Watermark,
    body_pages,
    key_pages,
    record_pages,
    summary_pages,
)

_ALL = Listing(prefix="")
_AT_ONCE = 100  # streams that are read again in one call


class Side(Protocol):
    """A side table of a log."""

    def suspects(self) -> AsyncIterator[str]:
        """Read the whole table. Yields the streams that may have a mismatch."""

    async def look(self, streams: frozenset[str]) -> Sequence[Wrong]:
        """The faults of these streams in the present store."""


async def compare(auditor: Auditor, store: Store, facts: Facts) -> None:
    """Note each mismatch in the auditor's findings. Call it after the last record."""
    sides: dict[Rule, Side] = {
        Rule.PROJECTION: Summaries(store, auditor.states, facts.summaries),
        Rule.KEY: Keys(store, facts),
    }
    if facts.wants_bodies:
        sides[Rule.BODY] = Bodies(store, facts)
    for rule, side in sides.items():
        try:
            wrong = await _wrong(side, auditor.aside)
        except CorruptLogError as exc:
            auditor.findings.add(rule, f"cannot be compared with the log: {exc}")
            continue
        for one in sorted(wrong):
            auditor.findings.add(rule, one.text, one.position or None, one.stream)


async def _wrong(side: Side, aside: Collection[str]) -> Sequence[Wrong]:
    """The faults of a side table. Unreadable streams are left out: the audit has
    reported them."""
    wrong, names = set[Wrong](), set[str]()
    async for name in side.suspects():
        if name not in aside:
            names.add(name)
        if len(names) == _AT_ONCE:
            wrong |= {*await side.look(frozenset(names))}
            names = set()
    if names:
        wrong |= {*await side.look(frozenset(names))}
    return [*wrong]


async def _logged(store: Store, odd: Odd) -> AsyncIterator[str]:
    """The streams of the log in these buckets, each once for each page with it."""
    async for page in record_pages(store) if odd else _none():
        for name in {r.stream for r in page if not r.pruned}:
            if name in odd:
                yield name


async def _none() -> AsyncIterator[Sequence[Any]]:
    return
    yield ()


# --- Outside of the tables of a store: the mark beside it, and the report that ---


async def note_mark(auditor: Auditor, mark: Watermark, does: Maintenance) -> None:
    """Compare the mark with the log. Call after the last record."""
    text = None
    store, log, seen = auditor.store_id, auditor.chain.position, mark.head.position
    if not seen or (seen, mark.head.hash.hex()) in auditor.restored:
        return  # the log itself records that the store was restored
    if store is None:
        text = f"the mark knows position {seen}, but the log has no beginning: wiped?"
    elif store != mark.store:
        text = f"the mark is of the store {mark.store}, the log of the store {store}"
    elif seen > log:
        text = (
            f"the mark knows position {seen}, and the log ends at {log}: its tail is "
            "gone, or an older copy was put in its place"
        )
    elif not await does.contains_head(mark.head):
        text = f"the log has another history before position {seen} of the mark"
    if text is not None:
        auditor.findings.add(Rule.MARK, text)


async def note_taken(auditor: Auditor, archive: Store, store: Store) -> None:
    """Compare each record of an archive with the log of its store: the log has the same
    hash at that position, even if the record is pruned."""
    async for page in record_pages(archive):
        hashes = {record.position: record for record in page}
        at = page[0].position - 1
        while hashes and (there := await store.log(at, RECORDS)):
            at = there[-1].position
            for record in there:
                mine = hashes.pop(record.position, None)
                if mine is not None and mine.hash != record.hash:
                    _not_of_it(auditor, mine)
            at = max(at, min(hashes, default=at + 1) - 1)
        for record in hashes.values():
            _not_of_it(auditor, record)


def _not_of_it(auditor: Auditor, record: Record) -> None:
    text = "the log of the store has another record here, or none"
    auditor.findings.add(Rule.PRUNED, text, record.position, record.stream)


async def note_text(auditor: Auditor, store: Store) -> None:
    """A copy without text has no bodies, and no commands."""
    for body in await store.bodies(None, 1):
        text = f"a copy without text holds the body {body.number}"
        auditor.findings.add(Rule.BODY, text, None, body.stream)
    if await store.inbox(1):
        auditor.findings.add(Rule.BODY, "a copy without text holds commands")


def note_plugins(auditor: Auditor, plugins: PluginStore) -> None:
    """Ask the file with the state of plugins for its faults."""
    try:
        for line in plugins.faults():
            auditor.findings.add(Rule.PLUGINS, line)
    except StoreError as exc:
        auditor.findings.add(Rule.PLUGINS, f"its own check ended with: {exc}")


async def note_database(auditor: Auditor, does: Maintenance, *, whole: bool) -> None:
    """Compare the counts of pruned streams with the events that pruned them. `whole`:
    also ask the database for the faults of its files."""
    if isinstance(does, Keeping):
        auditor.pruned.compare(await does.pruned())
    if whole:
        await note_integrity(auditor, does)


async def note_integrity(auditor: Auditor, does: Maintenance) -> None:
    """Ask the database for the faults of its files."""
    try:
        for line in await does.integrity():
            auditor.findings.add(Rule.FILE, line)
    except StoreError as exc:
        auditor.findings.add(Rule.FILE, f"its own check ended with: {exc}")


# --- Every dedupe key of the log is stored with its stream, and there is no other key
# ---


class Keys:
    """See `Side`."""

    def __init__(self, store: Store, facts: Facts) -> None:
        self._store, self._sums = store, facts.keys
        self._kept: dict[str, list[str]] = {}  # the stored keys of suspects

    async def suspects(self) -> AsyncIterator[str]:
        async for page in key_pages(self._store):
            for key, stream in page:
                self._sums.take(stream, (hash((key, stream)),))
        odd = self._sums.odd()
        async for page in key_pages(self._store) if odd else _none():
            for key, stream in page:
                if stream in odd:
                    self._kept.setdefault(stream, []).append(key)
        for stream in self._kept:
            yield stream
        async for stream in _logged(self._store, odd):
            if stream not in self._kept:
                yield stream

    async def look(self, streams: frozenset[str]) -> Sequence[Wrong]:
        records = (await self._store.fetch(Wanted(streams=streams))).streams
        given = {name: _given(records[name]) for name in streams}
        kept = {name: self._kept.get(name, ()) for name in streams}
        keys = frozenset(key for row in given.values() if row for key in row)
        keys |= frozenset(key for row in kept.values() for key in row)
        holders = (await self._store.fetch(Wanted(keys=keys))).keys
        wrong: list[Wrong] = []
        for name, row in given.items():
            if row is None:
                continue  # its records are damaged, which is another finding
            for key, position in row.items():
                if holders[key] != name:
                    where = f"belongs to {holders[key]}" if holders[key] else "is gone"
                    wrong.append(Wrong(position, name, f"the key {key} {where}"))
            for key in kept[name]:
                if key not in row and holders[key] is not None:
                    text = f"the key {key} is stored, but no event has this key"
                    wrong.append(Wrong(0, name, text))
        return wrong


def _given(records: Sequence[Record]) -> dict[str, int] | None:
    """The keys of a stream's events, with positions; None if it cannot be read."""
    try:
        return dict(keys_of(told(records)))
    except CorruptLogError:
        return None


# --- Every summary is the projection of its folded stream, and every stream has one ---


class Summaries:
    """See `Side`. `sums`: of the streams that the audit dropped."""

    def __init__(self, store: Store, states: States, sums: Sums) -> None:
        self._store, self._known, self._sums = store, states.known, sums

    async def suspects(self) -> AsyncIterator[str]:
        known, unseen = self._known, set(self._known)
        async for page in summary_pages(self._store, _ALL):
            for summary in page:
                name = summary.stream
                state = known.get(name)
                if state is None:
                    self._sums.take(name, (hash(summary),))
                    continue
                unseen.discard(name)
                if summarize(state) != summary:
                    yield name
        for name in unseen:
            yield name
        odd = self._sums.odd()
        async for page in summary_pages(self._store, _ALL) if odd else _none():
            for summary in page:
                if summary.stream in odd:
                    yield summary.stream
        async for name in _logged(self._store, odd):
            yield name

    async def look(self, streams: frozenset[str]) -> Sequence[Wrong]:
        wanted = Wanted(streams=streams, summaries=streams)
        found = await self._store.fetch(wanted)
        wrong = []
        for name in streams:
            text = _difference(found.streams[name], found.summaries[name])
            if text is not None:
                wrong.append(Wrong(0, name, text))
        return wrong


def _difference(records: Sequence[Record], found: Summary | None) -> str | None:
    try:
        state = fold(records)
    except CorruptLogError:
        return None  # its records are damaged, which is another finding
    if found is None:
        return None if state is None else "there is no projection of it"
    if state is None:
        return "there is a projection, but no record of it in the log"
    return _unlike(state, found)


def _unlike(state: State, found: Summary) -> str | None:
    wanted = summarize(state)
    for name in Summary.__struct_fields__:
        is_, should = getattr(found, name), getattr(wanted, name)
        if is_ != should:
            return f"its projection says {name}={is_!r}, the log says {should!r}"
    return None


# --- Every body that an event names is there and fits its digest, unless its ---


_Bodies = Mapping[BodyRef, Body | None]


class Bodies:
    """See `Side`. The payload of a file names one more body, its content."""

    def __init__(self, store: Store, facts: Facts) -> None:
        self._store, self._sums = store, facts.bodies
        self._redacted = frozenset(facts.redacted)
        self._kept: dict[str, set[int]] = {}  # stored numbers of suspects

    async def suspects(self) -> AsyncIterator[str]:
        async for page in body_pages(self._store):
            for body in page:
                self._sums.take(body.stream, (hash((body.stream, body_ref(body))),))
                if self._names_more(body):
                    yield body.stream
        odd = self._sums.odd()
        async for page in body_pages(self._store) if odd else _none():
            for body in page:
                if body.stream in odd:
                    self._kept.setdefault(body.stream, set()).add(body.number)
        for stream in {*self._kept, *self._redacted}:
            yield stream
        async for stream in _logged(self._store, odd):
            if stream not in self._kept:
                yield stream

    def _names_more(self, body: Body) -> bool:
        """True for a payload with files. A text can look like one, so its stream is read
        again: no such text may hide a body that no event names."""
        refs = contents_in(body.data)
        self._sums.add(body.stream, [hash((body.stream, ref)) for ref in refs])
        for ref in refs:
            with suppress(InvalidInputError):  # `look` reports it
                number = place_of(body.stream, ref)[1]
                self._kept.setdefault(body.stream, set()).add(number)
        return bool(refs)

    async def look(self, streams: frozenset[str]) -> Sequence[Wrong]:
        records = (await self._store.fetch(Wanted(streams=streams))).streams
        named = [n for s in streams if (n := _named(s, records[s])) is not None]
        found = dict(await self._fetch(place for one in named for place in one.all()))
        for one in named:
            one.add_contents(found)
        found |= await self._fetch(place for one in named for place in one.contents)
        kept = {one: sorted(self._kept.pop(one.stream, ())) for one in named}
        found |= await self._fetch((s.stream, n) for s in named for n in kept[s])
        return [wrong for one in named for wrong in one.wrong(found, kept[one])]

    async def _fetch(self, places: Iterable[BodyRef]) -> _Bodies:
        return (await self._store.fetch(Wanted(bodies=frozenset(places)))).bodies


@define(eq=False)
class _Named:
    """The bodies that one stream names: place -> the text in the event and its
    position. `erased`: bodies that it named before it was redacted."""

    stream: str
    payloads: dict[BodyRef, tuple[str, int]] = field(factory=dict)
    texts: dict[BodyRef, tuple[str, int]] = field(factory=dict)
    contents: dict[BodyRef, tuple[str, int]] = field(factory=dict)
    erased: dict[BodyRef, tuple[str, int]] = field(factory=dict)
    odd: list[Wrong] = field(factory=list)  # texts that name no body

    def add(self, position: int, event: Event) -> None:
        if isinstance(event, o.Redacted | t.TurnRedacted):
            self.erased |= self.payloads | self.texts
            self.payloads, self.texts = {}, {}
        named = self.payloads if isinstance(event, PAYLOADS) else self.texts
        for ref in digests_of(event):
            self._name(named, ref, position)

    def _name(
        self, named: dict[BodyRef, tuple[str, int]], ref: str, position: int
    ) -> None:
        try:
            named.setdefault(place_of(self.stream, ref), (ref, position))
        except InvalidInputError as exc:
            self.odd.append(Wrong(position, self.stream, str(exc)))

    def all(self) -> Sequence[BodyRef]:
        return [*self.payloads, *self.texts, *self.contents, *self.erased]

    def add_contents(self, found: _Bodies) -> None:
        """Add the contents of files, which only the files' payloads name."""
        for place, (_, position) in self.payloads.items():
            body = found[place]
            for ref in () if body is None else contents_in(body.data):
                self._name(self.contents, ref, position)

    def wrong(self, found: _Bodies, kept: Sequence[int]) -> Iterator[Wrong]:
        """`kept`: numbers of stored bodies without an event that names them."""
        yield from self.odd
        lost = False
        for place, (ref, position) in (self.payloads | self.texts).items():
            text = _problem(ref, found[place])
            if text is not None:
                lost = lost or place in self.payloads
                yield Wrong(position, self.stream, text)
        for place, (ref, position) in self.contents.items():
            text = _problem(ref, found[place])
            if text is not None:
                yield Wrong(position, self.stream, f"of the content of a file: {text}")
        for place, (ref, position) in self.erased.items():
            if found[place] is not None:
                text = f"the body {ref} was to be erased, and is still there"
                yield Wrong(position, self.stream, text)
        everything = set(self.all())
        for number in kept:
            place = self.stream, number
            # It may be pruned meanwhile. A body without a stream cannot be fetched.
            there = found[place] is not None or self.stream.startswith("?")
            # A lost payload may have named this body as the content of a file.
            if place not in everything and there and not lost:
                text = f"the body {number} is stored for it, but no event names it"
                yield Wrong(0, self.stream, text)


def _problem(ref: str, body: Body | None) -> str | None:
    if body is None:
        return f"the body {ref} is not there"
    if body_ref(body) != ref:
        return f"the body {ref} is not what its digest names"
    return None


def _named(stream: str, records: Sequence[Record]) -> _Named | None:
    """The bodies that a stream names. None for an unreadable stream, which is another
    finding."""
    named = _Named(stream)
    try:
        for position, event in told(records):
            named.add(position, event)
    except CorruptLogError:
        return None
    return named
