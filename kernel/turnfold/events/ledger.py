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


@frozen(kw_only=True)
class Pruned:
    """Closed streams older than `before` were taken out of the log, so many of them with
    so many events."""

    before: Integer
    streams: Integer
    events: Integer


@frozen(kw_only=True)
class PrunedReceipt:
    """A late receipt for a part of an entry that is pruned. Stored as
    `store.late_receipt`."""

    entry: str
    part: Integer
    attempt: Integer
    receipt: tuple[str, ...] = ()


@frozen(kw_only=True)
class WallJumped:
    """The wall clock was set: by so many ms forward, or backward if negative."""

    by_ms: Integer


GateEvent = GateClosed | GateOpened
CursorEvent = CursorAdvanced
StoreEvent = (
    StoreCreated | WorkerStarted | Restored | Pruned | PrunedReceipt | WallJumped
)
