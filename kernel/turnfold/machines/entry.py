"""The state of an outbox entry (specs/design.md 4), moved on by one event at a time.

The table is in `entry_table`, what each event means in `entry_fold`.

QUEUED, RETRYABLE and ABORTED imply that no part is in doubt. Doubt is sticky: it ends
by evidence (a receipt, a proven absence) or by a person's or policy's word, never by
time.
"""

from typing import Any

from turnfold.events import outbox as o
from turnfold.frozen import frozen
from turnfold.machines import parts
from turnfold.machines.entry_fold import moved
from turnfold.machines.entry_table import TRANSITIONS
from turnfold.machines.parts import Parts
from turnfold.machines.table import beginner, copier, illegal, targets
from turnfold.words import (
    CLOSED,
    AbortReason,
    BlindPolicy,
    DeliveryClass,
    FailureClass,
    Kind,
    PartAct,
    PartEnd,
    Phase,
    Status,
)


@frozen(kw_only=True)
class Entry:
    """The fold of an entry's log. `part` is the part at hand: the first in doubt while
    the entry is in doubt or parked, else the first that has not ended. The fields from
    `attempt` to `void` speak of that part, `others` of the rest."""

    stream: str
    version: int
    phase: Phase
    order: int  # position of its first event
    created: int
    updated: int
    kind: Kind
    channel: str
    account: str
    conversation: str
    lane: str
    body: tuple[str, ...]
    expires_at: int
    turn: str | None = None
    run: int | None = None
    key: str | None = None
    thread: str | None = None
    reply_to: str | None = None
    policy: BlindPolicy = BlindPolicy.HOLD
    due: int | None = None
    parts: tuple[o.PlannedPart, ...] = ()
    planned: bool = False
    ids: bool = True
    budget: int = 0
    tries: int = 0  # plans and look-ups begun since one came to an end
    offered: tuple[DeliveryClass, ...] = ()  # of a placeholder before the plan
    offered_policy: BlindPolicy | None = None
    part: int = 0
    attempt: int = 0
    act: PartAct = PartAct.SEND  # of the latest attempt
    used: int = 0  # budget units; a deferral gives one back
    doubt: bool = False  # an attempt of this part may have been accepted
    resend: bool = False  # a person or policy said: send again all the same
    granted: bool = False  # ... and the latest attempt is the one that this allowed
    marked: bool = False  # ... and show it
    resends: int = 0  # times that a policy said so
    first_at: int | None = None  # first attempt of this part
    last_at: int | None = None  # latest attempt of this part
    asks: int = 0  # look-ups that could not tell
    deaths: int = 0  # processes that died while attempting
    handle: tuple[str, ...] = ()  # of the placeholder that stands
    remade: bool = False  # its placeholder, out of doubt
    void: tuple[str, ...] = ()  # a receipt that bounced
    others: Parts = ()
    fence: int = 0
    owner: str | None = None
    target: str | None = None
    abort: AbortReason | None = None
    abort_by: str | None = None
    yielded: bool = False
    reason: str | None = None
    failure: FailureClass | None = None
    acknowledged: bool = False
    redacted: bool = False  # its bodies are erased
    bodies: int = 0  # numbers of bodies that its events have used up

    @property
    def status(self) -> Status:
        return self.phase.status

    @property
    def open(self) -> bool:
        return self.phase not in CLOSED

    @property
    def count(self) -> int:
        """The number of parts; before the plan there is one."""
        return len(self.parts) or 1

    @property
    def current(self) -> o.PlannedPart:
        return self.parts[self.part]

    @property
    def last(self) -> bool:
        """True if all other parts have ended."""
        if not self.others:
            return self.count == 1
        ended = [state for state in self.others if state.end is not None]
        return len(ended) + 1 >= self.count

    @property
    def classes(self) -> tuple[DeliveryClass, ...]:
        return self.current.classes if self.planned else self.offered

    @property
    def on_unknown(self) -> BlindPolicy:
        """The policy for the part at hand."""
        if self.planned:
            return self.current.policy or self.policy
        return self.offered_policy or self.policy

    @property
    def doubtful(self) -> bool:
        """True if any part is in doubt."""
        return self.doubt or any(state.doubt for state in self.others)

    @property
    def receipts(self) -> tuple[tuple[str, ...], ...]:
        """One per delivered part."""
        return tuple(parts.receipts(self.others))

    @property
    def bounced(self) -> bool:
        """True if a part bounced and was not redriven since."""
        return any(state.end is PartEnd.BOUNCED for state in self.others)

    @property
    def spoiled(self) -> bool:
        """True if a part was refused or bounced: the entry cannot become delivered."""
        return any(state.end in parts.SPOILED for state in self.others)

    def ended(self, part: int) -> bool:
        """True if nothing more is to be sent of this part."""
        state = parts.known(self.others, part) if self.others else None
        return state is not None and state.end is not None

    def made(self, part: int) -> int:
        """The number of the latest attempt of a part; 0 if there was none."""
        if part == self.part:
            return self.attempt
        state = parts.known(self.others, part)
        return 0 if state is None else state.attempt


def evolve(
    entry: Entry | None, event: o.OutboxEvent, stream: str, at: int, position: int
) -> Entry:
    """The state after one more event. Raises off the table and changes nothing."""
    return advance(entry and copier(Entry)(entry), event, stream, at, position)


def advance(
    entry: Entry | None, event: o.OutboxEvent, stream: str, at: int, position: int
) -> Entry:
    """As `evolve`, in place: for a state that nobody else holds. What is left of it
    when this raises must not be used."""
    phase = None if entry is None else entry.phase
    allowed = targets(TRANSITIONS, phase, type(event), stream)
    after: Any = entry  # frozen for everybody else
    if entry is None:
        after = _born(event, stream, at, position)
    else:
        moved(entry, after, event, at)
        after.updated = at
    if after.phase not in allowed:
        raise illegal(TRANSITIONS, phase, type(event), stream)
    after.version += 1
    done: Entry = after
    return done


def _born(event: o.OutboxEvent, stream: str, at: int, position: int) -> Entry:
    first: Any = type(event)
    born: Any = beginner(Entry, first)(event)
    born.stream = stream
    born.version = 0
    born.order = position
    born.created = born.updated = at
    if isinstance(event, o.Queued):
        born.phase = Phase.QUEUED
        born.due = event.not_before
    else:
        assert isinstance(event, o.Imported)  # noqa: S101  by the table
        born.phase = Phase(event.phase)
        born.doubt = event.phase != Phase.QUEUED
    made: Entry = born
    return made
