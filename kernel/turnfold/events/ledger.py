"""The events of gates, cursors and the store itself (specs/design.md 7)."""

from turnfold.canonical import Integer
from turnfold.frozen import frozen


@frozen(kw_only=True)
class GateClosed:
    """Nothing in this scope is attempted until then, or until it is opened."""

    reason: str
    until: Integer | None = None


@frozen(kw_only=True)
class GateOpened:
    reason: str


@frozen(kw_only=True)
class CursorAdvanced:
    """A source got on without bringing a message."""

    cursor: str


@frozen(kw_only=True)
class StoreCreated:
    store: str  # a random id, so that two stores are never mistaken


@frozen(kw_only=True)
class WorkerStarted:
    """Written with the first event that a worker decides, not when it starts."""

    epoch: Integer
    owner: str


@frozen(kw_only=True)
class Restored:
    """The log was found to be older than it had been: a copy was put in its place.
    `position_seen` and `hash` are where it had got to by the mark beside it,
    `position_found` is where it ended when that was noticed."""

    position_seen: Integer
    position_found: Integer
    hash: str


GateEvent = GateClosed | GateOpened
CursorEvent = CursorAdvanced
StoreEvent = StoreCreated | WorkerStarted | Restored
