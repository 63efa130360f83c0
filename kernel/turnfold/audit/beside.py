"""What a store keeps beside its log, held against the log: bodies, keys, projections."""

from collections.abc import Callable, Collection

from turnfold import canonical
from turnfold.audit.findings import Findings, Rule
from turnfold.audit.turns import inbound_key
from turnfold.bodies import content_of, digests_of
from turnfold.errors import CorruptLogError, InvalidInputError, StoreError
from turnfold.events import Event
from turnfold.events import outbox as o
from turnfold.events import turn as t
from turnfold.fold import State, summarize
from turnfold.machines.turn import Turn
from turnfold.names import outbound_key
from turnfold.ports.store import Store, Summary

_SOUND = 10_000
# Most events name no body, and have no field that could.
_BODILESS = (o.Attempted, o.Delivered, t.Started, t.Answered, t.Completed)


class Bodies:
    """Every body that an event names is there and is what its digest says, unless its
    stream was redacted."""

    def __init__(self, findings: Findings, store: Store) -> None:
        self._findings = findings
        self._store = store
        self._missing: dict[str, list[tuple[int, str]]] = {}
        self._sound: set[str] = set()  # payloads, with their content

    def feed(self, stream: str, event: Event, position: int) -> None:
        if isinstance(event, (o.Redacted, t.TurnRedacted)):
            self._missing.pop(stream, None)
        elif isinstance(event, (o.Queued, o.Planned, o.Imported)):
            for digest in digests_of(event):
                if digest not in self._sound:
                    self._payload(stream, event, digest, position)
        elif not isinstance(event, _BODILESS):
            for digest in digests_of(event):
                self._check(stream, digest, position)

    def _payload(self, stream: str, event: Event, digest: str, position: int) -> None:
        """A part is mostly the payload as it was queued: what was just found sound is
        not read again."""
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

    def last(self, state: State) -> bool:
        """Compare a state with its summary. False if the store is further on, so that
        there is nothing to compare yet."""
        found = self._summary(state.stream)
        if found is not None and found.version > state.version:
            return False
        self._compare(state, found)
        return True

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
