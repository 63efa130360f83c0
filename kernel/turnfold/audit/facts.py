"""The summaries, bodies and dedupe keys that the side tables of a log must hold.

There may be millions of them, so only sums of hashes are kept, in a fixed number of
buckets by stream. A side table adds up to the same sums, or a bucket differs; then the
streams of this bucket are read again. So the memory does not grow with the log.
"""

from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence

from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._log.bodies import digests_of
from turnfold._log.events import Event
from turnfold._log.ids import outbound_key
from turnfold._state.fold import State, summarize
from turnfold._state.turn import Turn
from turnfold.audit.stream_rules import inbound_key

# Most events name no body and make no key.
_SILENT = (o.Attempted, o.Delivered, t.Started, t.Answered, t.Completed)
_BUCKETS = 1 << 18  # 2 MB
_PAGE = 1 << 9  # buckets that are made together: a short log needs few of them
_WORD = (1 << 64) - 1


class Sums:
    """The sum of the hashes of many rows, in buckets by stream, in any order."""

    def __init__(self) -> None:
        self._pages: dict[int, array[int]] = {}

    def add(self, stream: str, hashes: Iterable[int]) -> None:
        self._change(stream, sum(hashes))

    def take(self, stream: str, hashes: Iterable[int]) -> None:
        """The opposite of `add`."""
        self._change(stream, -sum(hashes))

    def _change(self, stream: str, by: int) -> None:
        number, at = divmod(hash(stream) % _BUCKETS, _PAGE)
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = array("Q", bytes(8 * _PAGE))
        page[at] = (page[at] + by) & _WORD

    def odd(self) -> "Odd":
        """The buckets that do not come to zero."""
        return Odd(
            {
                number * _PAGE + at
                for number, page in self._pages.items()
                for at, left in enumerate(page)
                if left
            }
        )


class Odd:
    """`stream in odd`: a row of the stream, or of another one in its bucket, differs."""

    def __init__(self, buckets: Collection[int]) -> None:
        self._buckets = buckets

    def __bool__(self) -> bool:
        return bool(self._buckets)

    def __contains__(self, stream: str) -> bool:
        return hash(stream) % _BUCKETS in self._buckets


class Facts:
    """`feed` it each event with the state after it. The rows of a stream are added to
    the sums when it is dropped, or at the end: events can name a row more than once."""

    def __init__(self, *, bodies: bool) -> None:
        self.wants_bodies = bodies
        self.bodies, self.keys, self.summaries = Sums(), Sums(), Sums()
        self.redacted: list[str] = []  # streams with erased bodies
        self._bodies: dict[str, set[int]] = {}  # hash((stream, ref)), by stream
        self._keys: dict[str, set[int]] = {}  # hash((key, stream)), by stream

    def feed(self, state: State, event: Event) -> None:
        if isinstance(event, _SILENT):
            return
        stream = state.stream
        if isinstance(event, o.Redacted | t.TurnRedacted):
            self._bodies.pop(stream, None)  # they must be gone: see `redacted`
            self.redacted.append(stream)
        refs = digests_of(event) if self.wants_bodies else ()
        if refs:
            named = self._bodies.setdefault(stream, set())
            named.update([hash((stream, ref)) for ref in refs])
        key = _key_of(event, state)
        if key is not None:
            self._keys.setdefault(stream, set()).add(hash((key, stream)))

    def drop(self, state: State) -> None:
        """The state of a stream is forgotten now."""
        self.summaries.add(state.stream, [hash(summarize(state))])
        self._settle(state.stream)

    def bring_back(self, state: State, events: Iterable[Event]) -> None:
        """A dropped stream is known again. `events`: all of its events so far."""
        stream, redacted = state.stream, len(self.redacted)
        self.summaries.take(stream, [hash(summarize(state))])
        for event in events:
            self.feed(state, event)
        del self.redacted[redacted:]
        self.bodies.take(stream, self._bodies.get(stream, ()))
        self.keys.take(stream, self._keys.get(stream, ()))

    def end(self) -> None:
        """Call after the last event."""
        for stream in {*self._bodies, *self._keys}:
            self._settle(stream)

    def _settle(self, stream: str) -> None:
        self.bodies.add(stream, self._bodies.pop(stream, ()))
        self.keys.add(stream, self._keys.pop(stream, ()))


def _key_of(event: Event, state: State | t.Accepted | t.Dead | None) -> str | None:
    """`state`: of the event's stream; the fields of a key never change."""
    match event:
        case t.Accepted() | t.Dead():
            return _named(inbound_key(event, event))
        case t.Joined() if isinstance(state, Turn | t.Accepted | t.Dead):
            return _named(inbound_key(state, event))
        case o.Queued() if event.key is not None and event.turn is None:
            return outbound_key(event.key)
        case o.Imported() if event.key is not None:
            return outbound_key(event.key)
        case _:
            return None


def _named(key: str | None) -> str | None:
    return None if key is None else f"in:{key}"


def keys_of(told: Sequence[tuple[int, Event]]) -> Iterator[tuple[str, int]]:
    """The dedupe keys in the events of one stream, with the positions of these
    events."""
    first = told[0][1] if told else None
    accepted = first if isinstance(first, t.Accepted | t.Dead) else None
    for position, event in told:
        key = _key_of(event, accepted)
        if key is not None:
            yield key, position
