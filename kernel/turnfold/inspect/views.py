"""The results of `Inspect`: plain typed facts, for people and programs.

Times are wall milliseconds UTC, and ids are whole stream names. Only `text`, `detail`
and `why` are free text of a handler or platform, which can be erased.
"""

from collections.abc import Mapping

from attrs import field, frozen

from turnfold.enums import (
    BlindPolicy,
    DeliveryClass,
    Kind,
    Phase,
    Trial,
    TurnOutcome,
    TurnPhase,
)

NOBODY = "; no worker is running now"


def trial_of(phase: str) -> Trial:
    """The call that is under way: only what is in doubt is looked up."""
    return Trial.LOOK_UP if phase == Phase.IN_DOUBT else Trial.PLAN


@frozen(kw_only=True)
class EventView:
    """One event in plain words. `position`: of its record, which may hold several. `by`:
    the person or the policy that decided it."""

    position: int
    at: int
    stream: str
    kind: str
    text: str
    by: str | None = None


@frozen(kw_only=True)
class Next:
    """The next step and its time (`at`; None: not known, or at once). `person`: the
    step waits for a person. `commands`: the person's options, each with the command to
    type."""

    text: str
    at: int | None = None
    person: bool = False
    commands: tuple[tuple[str, str], ...] = ()


@frozen(kw_only=True)
class CommandView:
    """A command in the inbox: posted by a process that does not own the store, durable,
    and not yet taken up by the worker. `stream`: the turn or entry that it makes or
    changes."""

    id: str
    kind: str  # "accept", "enqueue", "abort" or an operator's act
    stream: str
    at: int
    key: str | None
    new: bool  # it makes its stream, which is not in the log yet
    next: Next


@frozen(kw_only=True)
class AttemptView:
    number: int
    at: int
    owner: str
    fence: int
    dispatched_at: int | None = None
    outcome: str | None = None  # None: not known yet
    outcome_at: int | None = None
    detail: str | None = None
    marked: bool = False
    target: str | None = None


@frozen(kw_only=True)
class PartView:
    """`settled`: delivered, looked up, declared delivered by a person, suppressed;
    None: not yet."""

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
    """`short`: an id to type. `verdict`: its state in one sentence."""

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
    under_way: Trial | None = None  # it is planned or looked up now
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
    changes: str | None = None  # the turn of the edited message
    problem: str | None = None  # why it became a dead turn


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
    """`verdict`: one sentence for a sender who waits for an answer."""

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
    status, or "parked". `short`: an id to type; every command knows it. `words`: the
    user's message, or why an entry is not delivered, if the query reads it."""

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
    version: int  # of its stream; an act may pass it as `seen`
    under_way: Trial | None = None  # it is planned or looked up now
    words: str | None = None


@frozen(kw_only=True)
class Answer:
    """The answer to a message, or why there is none. `turn` is None if the message
    never arrived here, or is only in the inbox so far; then `waiting` has its
    command."""

    text: str
    turn: TurnView | None = None
    waiting: CommandView | None = None


# --- The results of queries about many messages ---


@frozen(kw_only=True)
class Tally:
    """Turns and entries of one group. `turns`: accepted. `out`: entries of any kind;
    each is delivered, waiting, parked, dead (ended without delivery) or aborted. `why`:
    dead and parked entries by failure class, else by reason."""

    group: Mapping[str, str]
    turns: int = 0
    out: int = 0
    delivered: int = 0
    waiting: int = 0
    parked: int = 0
    dead: int = 0
    aborted: int = 0
    why: Mapping[str, int] = {}


@frozen(kw_only=True)
class Page:
    """Rows, and the beginning of the next page (`Filter.before`); None: there is
    none."""

    rows: tuple[Row, ...]
    before: int | None = None


@frozen(kw_only=True)
class GateView:
    """A closed gate. `waiting`: open entries behind it. `until`: it opens by itself."""

    id: str
    place: str
    reason: str | None
    since: int
    until: int | None
    waiting: int
    oldest: Row | None
    person: bool
    next: str


@frozen(kw_only=True)
class WorkerView:
    """The last worker. `alive` is None where this host cannot know. `stopped`: its
    process stands still, by SIGSTOP or a debugger. `since`: when it began. `heard`: when
    the last record was written. `sending`: calls on the wire."""

    alive: bool | None
    stopped: bool
    id: str | None
    pid: int | None
    host: str | None
    epoch: int
    since: int | None
    heard: int | None
    sending: int
    sending_since: int | None


@frozen(kw_only=True)
class ChannelView:
    """An account with its counts since `Filter.since`. `classes`: the delivery classes
    of the latest planned part; none counts as blind. `ids`: its adapter gives message
    ids; without one an acceptance is only the adapter's claim."""

    channel: str
    account: str
    tally: Tally
    classes: tuple[str, ...] | None
    ids: bool | None
    last: int | None  # the time of the latest queued entry
    gate: GateView | None


@frozen(kw_only=True)
class Found:
    """One turn that `find` found."""

    at: int
    text: str | None
    turn: TurnView


@frozen(kw_only=True)
class Overview:
    """Is a person needed? `needed` lists the reasons, each with the command to type.
    `as_of`: on a standby the time of the last commit that it has."""

    address: str
    as_of: int | None = None
    position: int
    since: int | None
    worker: WorkerView
    turns: int  # open
    runs: int  # open turns without an answer
    waiting: int
    oldest: Row | None
    parked: int
    oldest_parked: Row | None
    dead: int  # of the last 7 days
    unseen: int  # dead letters and bounces that no person has seen yet
    held: int  # turns
    failed: int  # turns of the last 7 days; also those with a dead answer
    gates: tuple[GateView, ...]
    inbox: int
    inbox_since: int | None
    hour: Tally
    needed: tuple[tuple[str, str], ...]
