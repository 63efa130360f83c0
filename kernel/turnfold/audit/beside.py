"""What a store keeps beside its log, held against the log: bodies, keys, projections."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice

from turnfold import canonical
from turnfold.audit.findings import Findings, Rule
from turnfold.audit.turns import inbound_key
from turnfold.bodies import FILE, content_of, digests_of
from turnfold.errors import CorruptLogError, InvalidInputError, StoreError
from turnfold.events import Event
from turnfold.events import outbox as o
from turnfold.events import turn as t
from turnfold.fold import State, summarize
from turnfold.machines.turn import Turn
from turnfold.names import outbound_key
from turnfold.ports.store import Store, Summary

_SOUND = 10_000
_MANY = 100  # bodies or summaries asked for at once
# Most events name no body, and have no field that could.
_BODILESS = (o.Attempted, o.Delivered, t.Started, t.Answered, t.Completed)
_PAYLOADS = (o.Queued, o.Planned, o.Imported, o.AmendedPart)


class Bodies:
    """Every body that an event names is there and is what its digest says, unless its
    stream was redacted. They are asked for many at once."""

    def __init__(self, findings: Findings, store: Store) -> None:
        self._findings = findings
        self._store = store
        self._named: list[tuple[str, Event, str, int]] = []  # not looked at yet
        self._missing: dict[str, list[tuple[int, str]]] = {}
        self._sound: set[str] = set()  # payloads, with their content

    def feed(self, stream: str, event: Event, position: int) -> None:
        if isinstance(event, _BODILESS):
            return
        if isinstance(event, (o.Redacted, t.TurnRedacted)):
            self._look()
            self._missing.pop(stream, None)
        for digest in digests_of(event):
            self._named.append((stream, event, digest, position))
        if len(self._named) >= _MANY:
            self._look()

    def _look(self) -> None:
        named, self._named = self._named, []
        wanted = dict.fromkeys(digest for _, _, digest, _ in named)
        found = self._found([digest for digest in wanted if digest not in self._sound])
        for stream, event, digest, position in named:
            if not isinstance(event, _PAYLOADS):
                if digest not in found:
                    self._check(stream, digest, position)
            elif digest not in self._sound:
                self._payload(stream, event, digest, position, found.get(digest))

    def _found(self, digests: Sequence[str]) -> dict[str, bytes]:
        """Those that are what their digests say; of most, the beginning will do."""
        found = {}
        with suppress(StoreError):  # of the others it is told one by one
            for body in self._store.bodies(digests):
                if canonical.body_digest(body.salt, body.data) == body.digest:
                    plain = not body.data.startswith(FILE)
                    found[body.digest] = b"" if plain else body.data
        return found

    def _payload(
        self, stream: str, event: Event, digest: str, position: int, data: bytes | None
    ) -> None:
        """A part is mostly the payload as it was queued: what was just found sound is
        not read again."""
        if data is None:
            data = self._check(stream, digest, position)
        content = None if data is None else content_of(event, data)
        if content is not None:
            self._check(stream, content, position)
        if stream not in self._missing:
            if len(self._sound) >= _SOUND:
                self._sound.clear()
            self._sound.add(digest)

    def _check(self, stream: str, digest: str, position: int) -> bytes | None:
        try:
            data = self._store.body(digest)
            salt = self._store.salt(digest)
        except (StoreError, InvalidInputError) as exc:
            self._missing.setdefault(stream, []).append((position, str(exc)))
            return None
        if canonical.body_digest(salt, data) != digest:
            text = f"the body {digest} is not what its digest names"
            self._missing.setdefault(stream, []).append((position, text))
        return data

    def end(self) -> None:
        self._look()
        gone = [(p, s, text) for s, rows in self._missing.items() for p, text in rows]
        for position, stream, text in sorted(gone):
            self._findings.add(Rule.BODY, text, position, stream)


class Keys:
    """Every dedupe key that the log gave out is in the store, at its stream."""

    def __init__(self, findings: Findings, store: Store) -> None:
        self._findings = findings
        self._store = store

    def feed(self, state: State, event: Event, position: int) -> None:
        """`state`: after the event; what a key is made of never changes."""
        if not isinstance(event, (o.Queued, t.Accepted, t.Joined)):
            return
        key, stream = _key_of(state, event), state.stream
        if key is None:
            return
        holder = self._store.lookup(key)
        if holder != stream:
            where = "is not there" if holder is None else f"belongs to {holder}"
            self._findings.add(Rule.KEY, f"the key {key} {where}", position, stream)


def _key_of(state: State, event: Event) -> str | None:
    match event:
        case t.Accepted():
            return f"in:{inbound_key(event, event)}"
        case t.Joined() if isinstance(state, Turn):
            return f"in:{inbound_key(state, event)}"
        case o.Queued() if event.key is not None and event.turn is None:
            return outbound_key(event.key)
        case _:
            return None


class Projections:
    """Every summary is the projection of its folded stream (INV-13)."""

    def __init__(self, findings: Findings, store: Store) -> None:
        self._findings = findings
        self._store = store

    def last(self, states: Iterable[State]) -> Iterator[bool]:
        """Compare states with their summaries. False for one of which the store is
        further on, so that there is nothing to compare yet."""
        following = iter(states)
        while some := list(islice(following, _MANY)):
            found = self._summaries([state.stream for state in some])
            for state in some:
                yield self._last(state, found.get(state.stream))

    def _last(self, state: State, found: Summary | None) -> bool:
        if found is not None and found.version > state.version:
            return False
        self._compare(state, found)
        return True

    def _summaries(self, streams: Sequence[str]) -> dict[str, Summary]:
        try:
            rows = list(self._store.summaries(streams))
        except CorruptLogError:  # find out whose
            rows = [s for name in streams if (s := self._summary(name)) is not None]
        return {summary.stream: summary for summary in rows}

    def _summary(self, stream: str) -> Summary | None:
        try:
            return self._store.summary(stream)
        except CorruptLogError as exc:
            self._findings.add(Rule.PROJECTION, str(exc), None, stream)
            return None

    def _compare(self, state: State, found: Summary | None) -> None:
        wanted = summarize(state)
        if found == wanted:
            return
        if found is None:
            text = "there is no projection of it"
        else:
            names = [a.name for a in Summary.__attrs_attrs__]
            wrong = (n for n in names if getattr(found, n) != getattr(wanted, n))
            name = next(wrong)
            is_, should = getattr(found, name), getattr(wanted, name)
            text = f"its projection says {name}={is_!r}, the log says {should!r}"
        self._findings.add(Rule.PROJECTION, text, None, state.stream)

    def strays(
        self, find: Callable[[str], State | None], aside: Collection[str]
    ) -> None:
        """Open in the projection, but not by the log."""
        for summary in self._store.open_streams():
            state = find(summary.stream)
            if state is None and summary.stream not in aside:
                text = "open in the projection, but not by the log"
                self._findings.add(Rule.PROJECTION, text, None, summary.stream)
