"""The state of an outbox entry: the fold of its stream's events.

Most entries have one part, and most parts are sent in their order. So an entry keeps
the facts of one part, the part at hand, in fields of its own. For each other part that
was touched, it keeps a `PartState` in `others`. `put_down` and `take_up` move the facts
between the two.

An `Entry` is a plain attrs class: only the fold (`entry_fold`) may set its fields. The
fold copies a state first if other code may hold it.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from attrs import define
from msgspec import Struct
from msgspec.structs import replace

from turnfold._log import outbox_events as o
from turnfold.enums import (
    CLOSED,
    ON_ITS_WAY,
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


class PartState(Struct, frozen=True, kw_only=True, gc=False):
    """One part that is not at hand. `end` is None while the part is open."""

    part: int
    end: PartEnd | None = None
    receipt: tuple[str, ...] = ()
    void: tuple[str, ...] = ()  # a bounced receipt: the same one is no evidence again
    handle: tuple[str, ...] = ()
    remade: bool = False
    attempt: int = 0
    used: int = 0
    doubt: bool = False
    resends: int = 0
    asks: int = 0
    first_at: int | None = None
    last_at: int | None = None


class Blame(Struct, frozen=True, gc=False):
    """How often an entry was under way when a process died, since one of its attempts
    ended in another way or a person let it go on. `suspects`: how many entries may have
    caused the last death. `alone`: deaths with nothing else under way."""

    deaths: int = 0
    suspects: int = 0
    alone: int = 0

    def after_death(self, beside: int | None, suspects: int) -> "Blame":
        """`beside`: how many others were under way; None: not known."""
        return Blame(self.deaths + 1, suspects, self.alone + (beside == 0))

    @property
    def on_trial(self) -> bool:
        """Was the entry the only suspect of its last death, after earlier deaths?"""
        return self.suspects == 1 and self.deaths > 1


NOT_BLAMED = Blame()
SPOILED = (PartEnd.REFUSED, PartEnd.BOUNCED)


class Parts(Struct, frozen=True, gc=False):
    """The parts that are not at hand, in their order, with the counts that every step
    of an entry asks for: an entry may have thousands. All parts before `head` have
    ended."""

    states: tuple[PartState, ...] = ()
    head: int = 0
    doubted: int = 0
    delivered: int = 0
    refused: int = 0
    bounced: int = 0

    def __iter__(self) -> Iterator[PartState]:
        return iter(self.states)

    def __len__(self) -> int:
        return len(self.states)

    @property
    def ended(self) -> int:
        return self.delivered + self.refused + self.bounced

    def changed(self, part: int, new: PartState | None) -> "Parts":
        """With the state of one part; None takes it out."""
        states = self.states
        at = _place(states, part)
        old = states[at] if at < len(states) and states[at].part == part else None
        middle = () if new is None else (new,)
        # `+` copies each side once; a display in brackets makes a list first.
        states = states[:at] + middle + states[at + (old is not None) :]
        end, gone = new and new.end, old and old.end
        head = self.head
        if end is None:
            head = min(head, part)
        while head < len(states) and states[head].part == head and states[head].end:
            head += 1
        return Parts(
            states,
            head,
            self.doubted + bool(new and new.doubt) - bool(old and old.doubt),
            self.delivered + (end is _DELIVERED) - (gone is _DELIVERED),
            self.refused + (end is _REFUSED) - (gone is _REFUSED),
            self.bounced + (end is _BOUNCED) - (gone is _BOUNCED),
        )


def _place(states: tuple[PartState, ...], part: int) -> int:
    """Where a part stands, or belongs. Mostly all parts before it are there."""
    count = len(states)
    if count <= part and (not count or states[-1].part < part):
        return count
    if count > part and states[part].part == part:
        return part
    return bisect_left(states, part, key=_number)


def _number(state: PartState) -> int:
    return state.part


def gathered(states: Iterable[PartState]) -> Parts:
    """Parts of states in any order."""
    parts = NO_PARTS
    for state in states:
        parts = parts.changed(state.part, state)
    return parts


_DELIVERED, _REFUSED = PartEnd.DELIVERED, PartEnd.REFUSED
_BOUNCED = PartEnd.BOUNCED
NO_PARTS = Parts()


@define
class Entry:
    """The fold of an entry's log. `part` is the part at hand: the first in doubt while
    the entry is in doubt or parked, else the first that has not ended. The fields from
    `attempt` to `void` belong to that part, `others` to the rest."""

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
    behind: int = 0  # a notice: the order of the entry that it follows in its lane
    since: int = 0  # log time from which its age counts: due, or put right
    turn: str | None = None
    run: int | None = None
    key: str | None = None
    live: bool = False  # queued without a body; `planned` is its seal
    thread: str | None = None
    reply_to: str | None = None
    policy: BlindPolicy | None = None  # of the caller, if any
    due: int | None = None
    parts: tuple[o.PlannedPart, ...] = ()
    planned: bool = False
    ids: bool = True
    budget: int = 0
    tried: int = 0  # the version in which a plan or a look-up began
    offered: tuple[DeliveryClass, ...] = ()  # of a placeholder before the plan
    offered_policy: BlindPolicy | None = None
    part: int = 0
    attempt: int = 0
    act: PartAct = PartAct.SEND  # of the latest attempt
    used: int = 0  # budget units; a deferral gives one back
    backoffs: int = 0  # deferrals with a wait of their own, since a part was settled
    doubt: bool = False  # an attempt of this part may have been accepted
    resend: bool = False  # a person or a policy has decided to send again
    granted: bool = False  # ... and the latest attempt used that permission
    marked: bool = False  # ... with a visible mark
    resends: int = 0  # times that a policy sent again
    first_at: int | None = None  # first attempt of this part
    last_at: int | None = None  # latest attempt of this part
    asks: int = 0  # look-ups without an answer that counts
    blame: Blame = NOT_BLAMED
    handle: tuple[str, ...] = ()  # of the visible placeholder
    remade: bool = False  # its placeholder was made again after a doubt
    void: tuple[str, ...] = ()  # a receipt that bounced
    others: Parts = NO_PARTS
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
    bodies: int = 0  # body numbers used by its events

    def copied(self) -> "Entry":  # noqa: PLR0915  one for each field
        """A copy for the fold to change. Written out, since every decided event needs
        one: a copy through the constructor takes more than twice as long."""
        new = object.__new__(Entry)
        new.stream = self.stream
        new.version = self.version
        new.phase = self.phase
        new.order = self.order
        new.created = self.created
        new.updated = self.updated
        new.kind = self.kind
        new.channel = self.channel
        new.account = self.account
        new.conversation = self.conversation
        new.lane = self.lane
        new.body = self.body
        new.expires_at = self.expires_at
        new.behind = self.behind
        new.since = self.since
        new.turn = self.turn
        new.run = self.run
        new.key = self.key
        new.live = self.live
        new.thread = self.thread
        new.reply_to = self.reply_to
        new.policy = self.policy
        new.due = self.due
        new.parts = self.parts
        new.planned = self.planned
        new.ids = self.ids
        new.budget = self.budget
        new.tried = self.tried
        new.offered = self.offered
        new.offered_policy = self.offered_policy
        new.part = self.part
        new.attempt = self.attempt
        new.act = self.act
        new.used = self.used
        new.backoffs = self.backoffs
        new.doubt = self.doubt
        new.resend = self.resend
        new.granted = self.granted
        new.marked = self.marked
        new.resends = self.resends
        new.first_at = self.first_at
        new.last_at = self.last_at
        new.asks = self.asks
        new.blame = self.blame
        new.handle = self.handle
        new.remade = self.remade
        new.void = self.void
        new.others = self.others
        new.fence = self.fence
        new.owner = self.owner
        new.target = self.target
        new.abort = self.abort
        new.abort_by = self.abort_by
        new.yielded = self.yielded
        new.reason = self.reason
        new.failure = self.failure
        new.acknowledged = self.acknowledged
        new.redacted = self.redacted
        new.bodies = self.bodies
        return new

    @property
    def status(self) -> Status:
        return self.phase.status

    @property
    def open(self) -> bool:
        return self.phase not in CLOSED

    @property
    def trying(self) -> bool:
        """Is a plan or a look-up under way? The next event ends it."""
        return self.tried == self.version

    @property
    def goes(self) -> bool:
        """Is a call of it under way?"""
        return self.phase in ON_ITS_WAY or self.trying

    @property
    def place(self) -> tuple[int, int]:
        """Its place in the order of its lane (INV-8)."""
        return self.behind or self.order, self.order

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
        return self.others.ended + 1 >= self.count

    @property
    def classes(self) -> tuple[DeliveryClass, ...]:
        return self.current.classes if self.planned else self.offered

    @property
    def on_unknown(self) -> BlindPolicy:
        """The policy for the part at hand."""
        return self.policy_of(self.part)

    def policy_of(self, part: int) -> BlindPolicy:
        """The policy for a part with an unknown outcome."""
        planned = self.parts[part].policy if part < len(self.parts) else None
        frozen = planned if self.planned else self.offered_policy
        return frozen or self.policy or BlindPolicy.HOLD

    @property
    def doubtful(self) -> bool:
        """True if any part is in doubt."""
        return self.doubt or first_doubted(self.others) is not None

    @property
    def receipts(self) -> tuple[tuple[str, ...], ...]:
        """One per delivered part."""
        return tuple(receipts(self.others))

    @property
    def bounced(self) -> bool:
        """True if a part bounced and was not redriven since."""
        return self.others.bounced > 0

    @property
    def spoiled(self) -> bool:
        """True if a part was refused or bounced: the entry cannot become delivered."""
        return self.others.refused + self.others.bounced > 0

    def ended(self, part: int) -> bool:
        """True if the part has ended: it is never sent again."""
        state = known(self.others, part) if self.others else None
        return state is not None and state.end is not None

    def made(self, part: int) -> int:
        """The number of the latest attempt of a part; 0 if there was none."""
        if part == self.part:
            return self.attempt
        state = known(self.others, part)
        return 0 if state is None else state.attempt


def known(others: Parts, part: int) -> PartState | None:
    """The remembered facts of a part; None if it was never touched."""
    states = others.states
    at = _place(states, part)
    found = at < len(states) and states[at].part == part
    return states[at] if found else None


def with_part(others: Parts, state: PartState) -> Parts:
    """The others with this state in the place of its part."""
    if not others.states and state.end is _DELIVERED:  # as in nearly every entry
        return Parts((state,), int(state.part == 0), 0, 1)
    return others.changed(state.part, state)


def first_open(others: Parts, parts: Sequence[o.PlannedPart], count: int) -> int:
    """The first of `count` parts that has not ended; `count` if all have. After a
    refused part, texts go before files."""
    first = min(others.head, count)
    if not (parts and others.refused):
        return first
    for part in range(first, count):
        state = known(others, part)
        if parts[part].kind == "text" and (state is None or state.end is None):
            return part
    return first


def first_doubted(others: Parts) -> int | None:
    if others.doubted:
        return next(state.part for state in others if state.doubt)
    return None


def all_delivered(others: Parts, count: int) -> bool:
    return others.delivered >= count


def receipts(others: Parts) -> Sequence[tuple[str, ...]]:
    """One per delivered part; an empty one if the part was suppressed."""
    return [state.receipt for state in others if state.end is PartEnd.DELIVERED]


def put_down(
    entry: Entry, end: PartEnd | None = None, receipt: tuple[str, ...] = ()
) -> None:
    """Remember the part at hand among the others. `end`: the part ends so, and its
    doubt is over."""
    state = PartState(
        part=entry.part,
        end=end,
        receipt=receipt,
        void=entry.void,
        handle=entry.handle,
        remade=entry.remade,
        attempt=entry.attempt,
        used=entry.used,
        doubt=entry.doubt and end is None,
        resends=entry.resends,
        asks=entry.asks,
        first_at=entry.first_at,
        last_at=entry.last_at,
    )
    entry.others = with_part(entry.others, state)


_UNTOUCHED = PartState(part=0)


def take_up(entry: Entry, part: int) -> None:
    """Make a part the one at hand, with its remembered facts."""
    state = known(entry.others, part)
    if state is not None and state.end is None:
        entry.others = entry.others.changed(part, None)
    else:
        state = _UNTOUCHED
    entry.part = part
    entry.void, entry.handle = state.void, state.handle
    entry.remade = state.remade
    entry.attempt, entry.used = state.attempt, state.used
    entry.doubt, entry.resends = state.doubt, state.resends
    entry.asks = state.asks
    entry.first_at, entry.last_at = state.first_at, state.last_at
    entry.resend = entry.granted = entry.marked = False


def reopened(others: Parts, part: int) -> Parts:
    """The others with this part open again."""
    state = known(others, part)
    return others if state is None else with_part(others, replace(state, end=None))


def is_void(entry: Entry, part: int, receipt: tuple[str, ...]) -> bool:
    """Has this receipt of a part bounced? Then it is no evidence again."""
    if part == entry.part:
        return bool(receipt) and receipt == entry.void
    state = known(entry.others, part)
    return state is not None and bool(receipt) and receipt == state.void


def renewed(state: PartState) -> PartState:
    """A part after a redrive: its attempts stay counted, its doubt stays, and its
    budgets begin anew. It is open, unless it is delivered."""
    if state.end is PartEnd.DELIVERED:
        return state
    return PartState(
        part=state.part, void=state.void, attempt=state.attempt, doubt=state.doubt
    )
