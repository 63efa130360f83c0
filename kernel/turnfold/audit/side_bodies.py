"""Every body that an event names is there and is what its digest says, unless its
stream was redacted since; and there is no body that no event names."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from attrs import define, field

from turnfold import pages
from turnfold.audit.facts import Facts
from turnfold.audit.walk import Wrong, streams_at, told
from turnfold.bodies import PAYLOADS, body_ref, content_in, digests_of, place_of
from turnfold.errors import CorruptLogError, InvalidInputError
from turnfold.events import Event
from turnfold.events import outbox as o
from turnfold.events import turn as t
from turnfold.ports.store import Body, BodyRef, Store, Wanted
from turnfold.records import Record

_Bodies = Mapping[BodyRef, Body | None]


class Bodies:
    """See `beside.Side`. The payload of a file names one more body, its content."""

    def __init__(self, store: Store, facts: Facts) -> None:
        self._store, self._facts = store, facts
        self._unnamed: dict[int, BodyRef] = {}  # by hash((stream, ref)), as facts are
        self._kept: dict[str, list[int]] = {}  # the same by stream

    async def read(self) -> Collection[str]:
        payloads, texts = dict(self._facts.payloads), dict(self._facts.texts)
        contents: dict[int, str] = {}  # named by a payload, not seen yet -> its stream
        async for page in pages.bodies(self._store):
            for body in page:
                mark = hash((body.stream, body_ref(body)))
                payload = payloads.pop(mark, None) is not None
                named = contents.pop(mark, None) or texts.pop(mark, None) or payload
                if not named:
                    self._unnamed[mark] = (body.stream, body.number)
                if payload:
                    self._content(body, contents)
        for stream, number in self._unnamed.values():
            self._kept.setdefault(stream, []).append(number)
        missing = await streams_at(self._store, [*payloads.values(), *texts.values()])
        return {*self._kept, *contents.values(), *missing, *self._facts.redacted}

    def _content(self, body: Body, contents: dict[int, str]) -> None:
        ref = content_in(body.data)
        mark = hash((body.stream, ref))
        if ref is not None and self._unnamed.pop(mark, None) is None:
            contents[mark] = body.stream

    async def look(self, streams: frozenset[str]) -> Sequence[Wrong]:
        records = (await self._store.fetch(Wanted(streams=streams))).streams
        named = [n for s in streams if (n := _named(s, records[s])) is not None]
        found = dict(await self._fetch(place for one in named for place in one.all()))
        for one in named:
            one.add_contents(found)
        found |= await self._fetch(place for one in named for place in one.contents)
        return [
            wrong
            for one in named
            for wrong in one.wrong(found, self._kept.get(one.stream, ()))
        ]

    async def _fetch(self, places: Iterable[BodyRef]) -> _Bodies:
        return (await self._store.fetch(Wanted(bodies=frozenset(places)))).bodies


@define
class _Named:
    """The bodies that one stream names: place -> the text in the event and its
    position. `erased`: those that it named before it was redacted."""

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
        """The contents of files, which only the files' payloads name."""
        for place, (_, position) in self.payloads.items():
            body = found[place]
            ref = None if body is None else content_in(body.data)
            if ref is not None:
                self._name(self.contents, ref, position)

    def wrong(self, found: _Bodies, kept: Sequence[int]) -> Iterator[Wrong]:
        """`kept`: numbers of bodies that no event seemed to name."""
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
            # A payload that is lost may have named it as the content of a file.
            if (self.stream, number) not in everything and not lost:
                text = f"no event names the body {number} that is kept for it"
                yield Wrong(0, self.stream, text)


def _problem(ref: str, body: Body | None) -> str | None:
    if body is None:
        return f"the body {ref} is not there"
    if body_ref(body) != ref:
        return f"the body {ref} is not what its digest names"
    return None


def _named(stream: str, records: Sequence[Record]) -> _Named | None:
    """None for a stream that cannot be read, which is another finding."""
    named = _Named(stream)
    try:
        for position, event in told(records):
            named.add(position, event)
    except CorruptLogError:
        return None
    return named
