"""The events of a turn (specs/design.md 5). The same rules as for the events of an entry."""

from types import MappingProxyType

from msgspec.structs import force_setattr

from turnfold._log import outbox_events
from turnfold._log.canonical import Fact, Integer
from turnfold.enums import AbortReason, FailureClass, Form, TurnOutcome

MESSAGE = "message"


def _usual_event(self: "Accepted | Dead | Joined") -> None:
    """A text equal to the default becomes the default object, which is left out of the
    bytes."""
    if self.event == MESSAGE:
        force_setattr(self, "event", MESSAGE)


class Accepted(Fact, frozen=True, kw_only=True):
    """A message came in. `sender`, `locale` and `revision` are the platform's words,
    `sent_at` is its wall time. `message_id` is empty where the platform gives none;
    `key` is then a dedupe key of the caller. `form`: the encoding of the body.
    `changes`: the turn of the message that this one edits. `due`: not to be run before;
    others may join. `waited_ms`: how long it lay in the inbox before."""

    channel: str
    account: str
    conversation: str
    body: str
    lane: str
    message_id: str = ""
    event: str = MESSAGE
    key: str | None = None
    form: Form = Form.JSON
    changes: str | None = None
    thread: str | None = None
    control: bool = False
    cursor: str | None = None
    sender: str | None = None
    sent_at: Integer | None = None
    revision: str | None = None
    locale: str | None = None
    due: Integer | None = None
    waited_ms: Integer = 0

    def __post_init__(self) -> None:
        _usual_event(self)


class Dead(Fact, frozen=True, kw_only=True):
    """An update that could not be read: its bytes are `body`, the error is `detail`.
    The place and the message id are given as far as they could be read. Or a readable
    message with the key of an earlier one and other bytes: `differs` is the turn of the
    earlier message, and `copy` numbers such messages."""

    channel: str
    account: str
    body: str
    lane: str
    form: Form = Form.BYTES
    conversation: str = ""
    message_id: str = ""
    event: str = MESSAGE
    key: str | None = None
    thread: str | None = None
    control: bool = False
    cursor: str | None = None
    sender: str | None = None
    sent_at: Integer | None = None
    revision: str | None = None
    locale: str | None = None
    differs: str | None = None
    copy: Integer = 0
    detail: str | None = None

    def __post_init__(self) -> None:
        _usual_event(self)


class Joined(Fact, frozen=True, kw_only=True):
    """A further inbound message merged into this turn; its key stays its own. `due`: not
    to be run before."""

    body: str
    message_id: str = ""
    key: str | None = None
    form: Form = Form.JSON
    event: str = MESSAGE
    cursor: str | None = None
    sender: str | None = None
    sent_at: Integer | None = None
    revision: str | None = None
    due: Integer | None = None

    def __post_init__(self) -> None:
        _usual_event(self)


class Started(Fact, frozen=True, kw_only=True):
    run: Integer
    owner: str
    fence: Integer


class StepStarted(Fact, frozen=True, kw_only=True):
    run: Integer
    key: str


class StepDone(Fact, frozen=True, kw_only=True):
    run: Integer
    key: str
    result: str


class LeftOpen(Fact, frozen=True, kw_only=True):
    """The run ended, and the answer is to come later, by the turn's id. The turn is
    never run again; at `until` it fails."""

    run: Integer
    until: Integer


class Released(Fact, frozen=True, kw_only=True):
    """The kernel stopped the run, which is not counted. After a death (`owner_died`),
    `beside` is how many others were under way, if that is known. `suspects` is how many
    turns, including this one, have been in at least as many deaths."""

    run: Integer
    reason: str
    due: Integer | None = None
    beside: Integer | None = None
    suspects: Integer = 0


class RunFailed(Fact, frozen=True, kw_only=True):
    run: Integer
    failure: FailureClass
    due: Integer
    detail: str | None = None


# Why a turn is silent: its handler gave no answer, and did not say that none is meant.
UNSTATED = "unstated"


class Answered(Fact, frozen=True, kw_only=True):
    """The outbox owns the reply: its final entries, or the reason for none."""

    run: Integer
    finals: tuple[str, ...] = ()
    silent: str | None = None


class Completed(Fact, frozen=True, kw_only=True):
    outcome: TurnOutcome
    notice: str | None = None  # the entry that names the missing parts to the user


class Failed(Fact, frozen=True, kw_only=True):
    outcome: TurnOutcome
    reason: str
    notice: str | None = None  # the entry that tells the user
    detail: str | None = None


class TurnAbortRequested(Fact, frozen=True, kw_only=True):
    reason: AbortReason
    by: str | None = None
    why: str | None = None


class TurnAborted(Fact, frozen=True, kw_only=True):
    outcome: TurnOutcome
    by: str | None = None
    why: str | None = None


class Amended(Fact, frozen=True, kw_only=True):
    """A final entry of a closed turn has changed. Without an outcome: the entry was
    redriven, and the turn is answered again."""

    entry: str
    outcome: TurnOutcome | None = None


class Held(Fact, frozen=True, kw_only=True):
    reason: str


class Unheld(Fact, frozen=True, kw_only=True):
    by: str
    why: str | None = None


class Resubmitted(Fact, frozen=True, kw_only=True):
    by: str
    why: str | None = None


class TurnRedacted(Fact, frozen=True, kw_only=True):
    """`note`: the reason; an erased stream keeps no bodies, so the text stands here."""

    by: str
    note: str | None = None


TurnEvent = (
    Accepted
    | Dead
    | Joined
    | Started
    | StepStarted
    | StepDone
    | LeftOpen
    | Released
    | RunFailed
    | Answered
    | Completed
    | Failed
    | TurnAbortRequested
    | TurnAborted
    | Amended
    | Held
    | Unheld
    | Resubmitted
    | TurnRedacted
)


# --- The events of gates, cursors and the store itself (specs/design.md 7) ---


class GateClosed(Fact, frozen=True, kw_only=True):
    """No entry in this scope is attempted before `until`, or before the gate is opened.
    `by` and `note`: the person who closed it, and that person's reason; `reason` is
    then `operator`."""

    reason: str
    until: Integer | None = None
    by: str | None = None
    note: str | None = None


class GateOpened(Fact, frozen=True, kw_only=True):
    """The embedder or a person opened the gate. `note` is the person's reason: a gate
    keeps no bodies, so the text stands here."""

    reason: str
    by: str | None = None
    note: str | None = None


class CursorAdvanced(Fact, frozen=True, kw_only=True):
    """A source got on without bringing a message. `rank`: the cursor's place in the
    order of its source, if the source gives one."""

    cursor: str
    rank: Integer | None = None


class StoreCreated(Fact, frozen=True, kw_only=True):
    store: str  # a random id, so that two stores are never confused


class WorkerStarted(Fact, frozen=True, kw_only=True):
    """Written with the first event that a worker decides, not when it starts."""

    epoch: Integer
    owner: str


class Restored(Fact, frozen=True, kw_only=True):
    """The log was found to be an older copy of itself. `position_seen` and `hash` are
    the head by the mark beside the store, `position_found` is the head of the copy.
    `by`: the person who declared it, with a reason in `note`; then both positions are
    equal and `hash` is empty. `failover`: the history of the database server, which
    differs from the mark's: commits after the mark may be lost."""

    position_seen: Integer
    position_found: Integer
    hash: str
    by: str | None = None
    note: str | None = None
    failover: str | None = None


class PrunedCount(Fact, frozen=True, kw_only=True):
    """A number of pruned streams with equal values. `hour`: of their first events, in
    hours since 1970. `place`: channel and account of their lanes. The other fields come
    from their summaries; empty for none."""

    hour: Integer
    family: str
    place: str
    phase: str
    count: Integer
    kind: str = ""
    reason: str = ""
    failure: str = ""


class Pruned(Fact, frozen=True, kw_only=True):
    """Closed streams that had not moved since `before` were taken out of the log,
    whole, with their bodies and dedupe keys. `streams`, `records` and `events` are
    their numbers. `digest`: SHA-256 over the positions (8 bytes) and hashes of these
    records. `counts`: for statistics. `by`: the person, with a reason in `note`.
    `archive`: the SHA-256 of the file that holds them."""

    before: Integer
    streams: Integer
    events: Integer
    records: Integer
    digest: str
    counts: tuple[PrunedCount, ...] = ()
    by: str | None = None
    note: str | None = None
    archive: str | None = None


class PrunedReceipt(Fact, frozen=True, kw_only=True):
    """A late receipt for a part of an entry that is pruned. Stored as
    `store.late_receipt`."""

    entry: str
    part: Integer
    attempt: Integer
    receipt: tuple[str, ...] = ()


class WallJumped(Fact, frozen=True, kw_only=True):
    """The wall clock was set by `by_ms`: forward, or backward if negative."""

    by_ms: Integer


GateEvent = GateClosed | GateOpened
CursorEvent = CursorAdvanced
StoreEvent = (
    StoreCreated | WorkerStarted | Restored | Pruned | PrunedReceipt | WallJumped
)


# --- All events, each with its stored name and schema version ---


Event = outbox_events.OutboxEvent | TurnEvent | GateEvent | CursorEvent | StoreEvent

NAMES: MappingProxyType[type[Event], str] = MappingProxyType(
    {
        outbox_events.Queued: "outbox.queued",
        outbox_events.Planned: "outbox.planned",
        outbox_events.Attempted: "outbox.attempted",
        outbox_events.Dispatched: "outbox.dispatched",
        outbox_events.Placed: "outbox.placed",
        outbox_events.Tried: "outbox.tried",
        outbox_events.PartRefused: "outbox.part_refused",
        outbox_events.AmendedPart: "outbox.amended_part",
        outbox_events.PartDelivered: "outbox.part_delivered",
        outbox_events.Delivered: "outbox.delivered",
        outbox_events.Deferred: "outbox.deferred",
        outbox_events.FailedRetryable: "outbox.failed_retryable",
        outbox_events.OutcomeUnknown: "outbox.unknown",
        outbox_events.Reconciled: "outbox.reconciled",
        outbox_events.Parked: "outbox.parked",
        outbox_events.Resolved: "outbox.resolved",
        outbox_events.FailedTerminal: "outbox.failed_terminal",
        outbox_events.AbortRequested: "outbox.abort_requested",
        outbox_events.Aborted: "outbox.aborted",
        outbox_events.LateReceipt: "outbox.late_receipt",
        outbox_events.Rescheduled: "outbox.rescheduled",
        outbox_events.Redriven: "outbox.redriven",
        outbox_events.Acknowledged: "outbox.acknowledged",
        outbox_events.Bounced: "outbox.bounced",
        outbox_events.Imported: "outbox.imported",
        outbox_events.Doubted: "outbox.doubted",
        outbox_events.LaneYielded: "outbox.lane_yielded",
        outbox_events.Redacted: "outbox.redacted",
        Accepted: "turn.accepted",
        Dead: "turn.dead",
        Joined: "turn.joined",
        Started: "turn.started",
        StepStarted: "turn.step_started",
        StepDone: "turn.step_done",
        LeftOpen: "turn.left_open",
        Released: "turn.released",
        RunFailed: "turn.run_failed",
        Answered: "turn.answered",
        Completed: "turn.completed",
        Failed: "turn.failed",
        TurnAbortRequested: "turn.abort_requested",
        TurnAborted: "turn.aborted",
        Amended: "turn.amended",
        Held: "turn.held",
        Unheld: "turn.unheld",
        Resubmitted: "turn.resubmitted",
        TurnRedacted: "turn.redacted",
        GateClosed: "gate.closed",
        GateOpened: "gate.opened",
        CursorAdvanced: "cursor.advanced",
        StoreCreated: "store.created",
        WorkerStarted: "store.worker_started",
        Restored: "store.restored",
        Pruned: "store.pruned",
        PrunedReceipt: "store.late_receipt",
        WallJumped: "store.wall_jumped",
    }
)
CLASSES: MappingProxyType[str, type[Event]] = MappingProxyType(
    {name: cls for cls, name in NAMES.items()}
)
# The newest schema of each event; `codec.upcast` raises older ones step by step.
SCHEMAS: MappingProxyType[str, int] = MappingProxyType(dict.fromkeys(CLASSES, 1))
