"""Gates, cursors and the worker's epoch: streams where the last event is the state."""

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from turnfold.events import ledger as g
from turnfold.frozen import frozen
from turnfold.machines.table import Row, targets


@frozen(kw_only=True)
class Gate:
    """A scope that is held. Closed with `until`, it opens by itself at that time."""

    stream: str
    version: int
    order: int
    created: int
    updated: int
    closed: bool = False
    reason: str | None = None
    until: int | None = None

    def holds(self, now: int) -> bool:
        return self.closed and (self.until is None or now < self.until)


@frozen(kw_only=True)
class Cursor:
    stream: str
    version: int
    order: int
    created: int
    updated: int
    value: str | None = None


@frozen(kw_only=True)
class StoreState:
    """The `store` stream. `epoch` is the fence of the latest worker that wrote;
    `restored` the position at which the store was last found to be an older copy."""

    stream: str
    version: int
    order: int
    created: int
    updated: int
    epoch: int = 0
    owner: str | None = None
    id: str | None = None
    restored: int = 0


_SAME = frozenset({None})  # these streams have no phases but those of the gate
GATE: Mapping[bool, Row] = MappingProxyType(
    {
        False: {g.GateClosed: _SAME},
        True: {g.GateClosed: _SAME, g.GateOpened: _SAME},
    }
)
CURSOR: Mapping[None, Row] = MappingProxyType({None: {g.CursorAdvanced: _SAME}})
_STARTED: Row = {
    g.WorkerStarted: _SAME,
    g.Restored: _SAME,
    g.Pruned: _SAME,
    g.PrunedReceipt: _SAME,
    g.WallJumped: _SAME,
}
STORE: Mapping[bool, Row] = MappingProxyType(
    {False: {g.StoreCreated: _SAME, **_STARTED}, True: _STARTED}
)


def evolve_gate(
    gate: Gate | None, event: g.GateEvent, stream: str, at: int, position: int
) -> Gate:
    before = gate or Gate(
        stream=stream, version=0, order=position, created=at, updated=at
    )
    targets(GATE, before.closed, type(event), stream)
    return attrs.evolve(
        before,
        version=before.version + 1,
        updated=at,
        closed=isinstance(event, g.GateClosed),
        reason=event.reason,
        until=event.until if isinstance(event, g.GateClosed) else None,
    )


def evolve_cursor(
    cursor: Cursor | None, event: g.CursorEvent, stream: str, at: int, position: int
) -> Cursor:
    before = cursor or Cursor(
        stream=stream, version=0, order=position, created=at, updated=at
    )
    targets(CURSOR, None, type(event), stream)
    return attrs.evolve(
        before, version=before.version + 1, updated=at, value=event.cursor
    )


def evolve_store(
    store: StoreState | None, event: g.StoreEvent, stream: str, at: int, position: int
) -> StoreState:
    before = store or StoreState(
        stream=stream, version=0, order=position, created=at, updated=at
    )
    targets(STORE, before.id is not None, type(event), stream)
    after = attrs.evolve(before, version=before.version + 1, updated=at)
    match event:
        case g.StoreCreated():
            return attrs.evolve(after, id=event.store)
        case g.WorkerStarted():
            return attrs.evolve(after, epoch=event.epoch, owner=event.owner)
        case g.Restored():
            return attrs.evolve(after, restored=position)
        case g.Pruned() | g.PrunedReceipt() | g.WallJumped():
            return after
