"""The bodies and dedupe keys that the side tables of a log must hold.

There may be millions of them, so only numbers are kept: the hash of each with the
position of the first record that names it.
"""

from collections.abc import Iterator, Sequence

from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._log.bodies import PAYLOADS, digests_of
from turnfold._log.events import Event
from turnfold._log.ids import outbound_key
from turnfold._state.fold import State
from turnfold._state.turn import Turn
from turnfold.audit.stream_rules import inbound_key

# Most events name no body and make no key.
_SILENT = (o.Attempted, o.Delivered, t.Started, t.Answered, t.Completed)


class Facts:
    """`feed` it each event with the state after it."""

    def __init__(self, *, bodies: bool) -> None:
        self.wants_bodies = bodies
        self.payloads: dict[int, int] = {}  # hash((stream, ref)) -> position
        self.texts: dict[int, int] = {}  # for all other bodies
        self.keys: dict[int, int] = {}  # hash((key, stream)) -> position
        self.redacted: list[str] = []  # streams with erased bodies

    def feed(self, state: State, event: Event, position: int) -> None:
        if isinstance(event, _SILENT):
            return
        stream = state.stream
        if self.wants_bodies:
            named = self.payloads if isinstance(event, PAYLOADS) else self.texts
            for ref in digests_of(event):
                named.setdefault(hash((stream, ref)), position)
        if isinstance(event, o.Redacted | t.TurnRedacted):
            self.redacted.append(stream)
        key = _key_of(event, state)
        if key is not None:
            self.keys[hash((key, stream))] = position


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
