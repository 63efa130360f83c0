"""The handle of a payload that was sent: its entry, and its end."""

from contextvars import ContextVar
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen
from msgspec import Struct

from turnfold._decide.outbox import Enqueued
from turnfold._state.entry import Entry
from turnfold.enums import Kind, Phase, Status
from turnfold.errors import InvalidInputError, NotDeliveredError, NoTurnError
from turnfold.inspect.views import EntryView
from turnfold.messages import Route
from turnfold.ports.channel import Receipt

if TYPE_CHECKING:
    from turnfold.api.handle import TurnHandle
    from turnfold.api.kernel import Kernel

Given = str | int | None | EllipsisType


class Sent(Struct, frozen=True, kw_only=True, eq=False):
    """A durable payload: its entry in the outbox, and the status of the entry at that
    time.

    `new` is false when the key (or the entry) was there before, also after a replay of
    a run. `differs`: this call brought other bytes than the first one; the first bytes
    stand. `new` is None where only the owner of the store can know."""

    entry_id: str
    status: Status
    new: bool | None
    differs: bool = False
    _kernel: "Kernel"
    _key: str | None = None  # of a payload that went into the inbox

    def __repr__(self) -> str:
        facts = f"{self.entry_id!r}, {self.status.value}, new={self.new}"
        return f"Sent({facts}{', differs' if self.differs else ''})"

    async def receipt(self, timeout_ms: int | None = None) -> Receipt:
        """Wait for the platform's proof. `ids`: those of all parts, in their order.
        `timeout_ms`: how long, None for ever. Raises NotDeliveredError if it ended
        undelivered or is parked, and NotYetError, which is a TimeoutError."""
        return await self._kernel.receipt(self.entry_id, timeout_ms, key=self._key)

    async def settled(self, timeout_ms: int | None = None) -> Status:
        """Wait for the end: `delivered`, `failed_terminal` or `aborted`. `timeout_ms`: how long,
        None for ever. Raises NotYetError, which is a TimeoutError."""
        end = await self._kernel.settled(self.entry_id, timeout_ms, key=self._key)
        return Status(end)


def sent(kernel: "Kernel", done: Enqueued, key: str | None = None) -> Sent:
    """The handle of an entry for its caller. `key`: of a payload in the inbox."""
    return Sent(
        entry_id=done.entry_id,
        status=done.status,
        new=done.new,
        differs=done.differs,
        _kernel=kernel,
        _key=key,
    )


@frozen(kw_only=True)
class Said:
    """A message of a turn, sent or tried. `key`: the given key, else its number in its
    run. `receipt`: the ids of all its parts, empty until it is delivered."""

    entry_id: str
    kind: Kind
    status: Status
    delivered_parts: int
    key: str | None = None
    receipt: tuple[str, ...] = ()


def said(entry: Entry) -> Said:
    """An entry as `TurnHandle.previous` returns it."""
    whole = entry.phase is Phase.DELIVERED
    return Said(
        entry_id=entry.stream,
        kind=entry.kind,
        status=entry.status,
        delivered_parts=len(entry.receipts),
        key=entry.key,
        receipt=_ids(entry) if whole else (),
    )


def _ids(entry: Entry) -> tuple[str, ...]:
    return tuple(name for ids in entry.receipts for name in ids)


def receipt_of(entry: Entry | EntryView) -> Receipt:
    """The receipts of all parts as one. Raises NotDeliveredError."""
    if isinstance(entry, Entry):
        name, ids = entry.stream, _ids(entry)
    else:
        name = entry.id
        ids = tuple(i for part in entry.parts for i in part.receipt)
    if entry.phase is Phase.DELIVERED:
        return Receipt(ids=ids)
    status = str(entry.phase)
    raise NotDeliveredError(entry=name, status=status, reason=entry.reason)


def destination(
    home: Route, reply_to: Given, thread: Given, route: Route | None
) -> Route:
    """The route of a payload of a turn; `home` is the route of its answer. An argument
    `...` keeps the value of the route; None removes it. Raises InvalidInputError."""
    if route is not None and not isinstance(route, Route):
        problem = f"expected Route, got {type(route).__name__}"
        raise InvalidInputError(field="route", problem=problem)
    changes: dict[str, Any] = {"reply_to": reply_to, "thread": thread}
    given = {name: value for name, value in changes.items() if value is not ...}
    return evolve(route or home, **given)


# --- The current turn, for tools that do not get one ---

CURRENT: ContextVar["TurnHandle"] = ContextVar("turnfold_turn")


def current_turn() -> "TurnHandle":
    """The turn of the handler that runs here: in its task, in tasks that it has made,
    and in the thread of a plain function. Raises NoTurnError outside of a handler."""
    try:
        return CURRENT.get()
    except LookupError:
        raise NoTurnError from None
