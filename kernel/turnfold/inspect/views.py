"""What the queries of `Inspect` give back: plain typed facts, for people and programs.

Times are wall milliseconds UTC, ids are whole stream names, and nothing in here is free
text of a handler or platform but `text`, `detail` and `why`, which can be erased.
"""

from attrs import field, frozen

from turnfold.enums import (
    BlindPolicy,
    DeliveryClass,
    Kind,
    Phase,
    TurnOutcome,
    TurnPhase,
)

NOBODY = "; no worker is running now"


@frozen(kw_only=True)
class EventView:
    """One event in plain words. `position`: of its record, which may hold several."""

    position: int
    at: int
    stream: str
    kind: str
    text: str


@frozen(kw_only=True)
class Next:
    """What will happen next, and when (`at`; none: nobody knows, or at once).
    `person`: it will not go on before somebody does something. `commands`: what somebody
    can do, each with the command to type."""

    text: str
    at: int | None = None
    person: bool = False
    commands: tuple[tuple[str, str], ...] = ()


@frozen(kw_only=True)
class CommandView:
    """A command that lies in the inbox: posted by a process that does not own the
    store, durable, and not yet taken up by the worker. `stream`: the turn or entry that
    it makes or speaks of."""

    id: str
    kind: str  # "accept", "enqueue", "abort" or an operator's act
    stream: str
    at: int
    key: str | None
    new: bool  # it makes its stream; the log has no trace of that yet
    next: Next


@frozen(kw_only=True)
class AttemptView:
    number: int
    at: int
    owner: str
    fence: int
    dispatched_at: int | None = None
    outcome: str | None = None  # none: not known yet
    outcome_at: int | None = None
    detail: str | None = None
    marked: bool = False
    target: str | None = None


@frozen(kw_only=True)
class PartView:
    """`settled`: delivered, looked up, said to be delivered, suppressed; or not yet."""

    index: int
    kind: str
    key: str
    classes: tuple[DeliveryClass, ...]
    text: str | None
    settled: str | None = None
    settled_at: int | None = None
    receipt: tuple[str, ...] = ()
    attempts: tuple[AttemptView, ...] = ()


@frozen(kw_only=True)
class EntryView:
    """`short`: an id to type. `verdict`: how it stands, in one sentence."""

    id: str
    short: str
    version: int
    turn: str | None
    run: int | None
    key: str | None
    kind: Kind
    status: str  # the word of a Row
    phase: Phase
    channel: str
    account: str
    conversation: str
    thread: str | None
    lane: str
    policy: BlindPolicy
    created: int
    updated: int
    expires_at: int
    due: int | None
    reason: str | None
    doubt: bool
    delivered: int  # parts
    parts: tuple[PartView, ...]
    verdict: str
    next: Next
    happened: tuple[EventView, ...] = field(repr=False)
    waiting: tuple[CommandView, ...] = ()  # commands about it


@frozen(kw_only=True)
class InboundView:
    channel: str
    account: str
    conversation: str
    thread: str | None
    message_id: str
    event: str
    at: int  # when it was accepted
    text: str | None
    sender: str | None = None
    sent_at: int | None = None  # wall ms, as the platform says
    revision: str | None = None
    changes: str | None = None  # the turn whose message this one edits
    problem: str | None = None  # why it was not taken


@frozen(kw_only=True)
class RunView:
    number: int
    at: int
    owner: str
    fence: int
    ended: str | None = None
    ended_at: int | None = None
    detail: str | None = None
    entries: tuple[str, ...] = ()


@frozen(kw_only=True)
class TurnView:
    """`verdict`: what to tell somebody who wrote and waits for an answer."""

    id: str
    short: str
    version: int
    phase: TurnPhase
    outcome: TurnOutcome | None
    reason: str | None
    lane: str
    control: bool
    created: int
    updated: int
    inbound: tuple[InboundView, ...]
    runs: tuple[RunView, ...]
    finals: tuple[str, ...]
    notice: str | None
    entries: tuple[EntryView, ...]
    verdict: str
    next: Next
    happened: tuple[EventView, ...] = field(repr=False)
    waiting: tuple[CommandView, ...] = ()  # commands about it


@frozen(kw_only=True)
class LedgerView:
    """A gate, a cursor or the store's own stream."""

    id: str
    state: str
    reason: str | None
    until: int | None
    created: int
    updated: int
    next: Next
    happened: tuple[EventView, ...] = field(repr=False)


@frozen(kw_only=True)
class Row:
    """One turn or entry in a list. `status` of a turn is its phase; of an entry its
    status, or "parked". `short`: an id to type; every command knows it. `words`: what
    the user wrote, or why an entry is not delivered, where a query reads that."""

    id: str
    short: str
    order: int
    what: str  # "turn" or "entry"
    kind: str | None
    status: str
    open: bool
    person: bool
    channel: str
    account: str
    conversation: str
    thread: str | None
    reason: str | None
    failure: str | None
    created: int
    updated: int
    due: int | None
    expires: int | None
    turn: str | None
    version: int  # of its stream: an act may name it as the version that was seen
    words: str | None = None


@frozen(kw_only=True)
class Answer:
    """Why somebody who wrote has no answer, or has one. `turn` is None if the message
    never arrived here, or if it only lies in the inbox so far, as `waiting` says."""

    text: str
    turn: TurnView | None = None
    waiting: CommandView | None = None
