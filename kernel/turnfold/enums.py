"""The terms of specs/design.md 3 as closed sets. Every log, query and error uses
these."""

from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """The status of an outbox entry for people and queries: a projection of its
    phase."""

    QUEUED = "queued"
    ATTEMPTED = "attempted"
    DELIVERED = "delivered"
    FAILED_RETRYABLE = "failed_retryable"
    FAILED_TERMINAL = "failed_terminal"
    ABORTED = "aborted"


class Phase(StrEnum):
    """The key of an entry's transition table (specs/design.md 4)."""

    QUEUED = "queued"
    ATTEMPTED = "attempted"  # not dispatched: no request is on the wire
    DISPATCHED = "dispatched"  # a request may be on the wire
    IN_DOUBT = "in_doubt"  # no request is made
    PARKED = "parked"
    RETRYABLE = "retryable"
    DELIVERED = "delivered"
    FAILED = "failed"
    ABORTED = "aborted"

    __hash__ = str.__hash__  # Enum's own is slow, and called often

    status: Status  # the word for people, set below: so each message reads it at once

    @property
    def closed(self) -> bool:
        return self in CLOSED


for _phase, _status in {
    Phase.QUEUED: Status.QUEUED,
    Phase.ATTEMPTED: Status.ATTEMPTED,
    Phase.DISPATCHED: Status.ATTEMPTED,
    Phase.IN_DOUBT: Status.ATTEMPTED,
    Phase.PARKED: Status.ATTEMPTED,
    Phase.RETRYABLE: Status.FAILED_RETRYABLE,
    Phase.DELIVERED: Status.DELIVERED,
    Phase.FAILED: Status.FAILED_TERMINAL,
    Phase.ABORTED: Status.ABORTED,
}.items():
    _phase.status = _status
# Python 3.11 takes long to find a member of an enum. The code on the path of every
# message uses these names.
QUEUED: Final = Phase.QUEUED
ATTEMPTED: Final = Phase.ATTEMPTED
DISPATCHED: Final = Phase.DISPATCHED
IN_DOUBT: Final = Phase.IN_DOUBT
PARKED: Final = Phase.PARKED
DELIVERED: Final = Phase.DELIVERED
FAILED: Final = Phase.FAILED
CLOSED = frozenset({Phase.DELIVERED, Phase.FAILED, Phase.ABORTED})
ON_ITS_WAY = frozenset({Phase.ATTEMPTED, Phase.DISPATCHED})  # an attempt is under way
GIVEN_UP = frozenset({Phase.PARKED, Phase.FAILED})  # nothing is tried any more


class TurnPhase(StrEnum):
    """The phase of a turn (specs/design.md 5)."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    ANSWERED = "answered"
    COMPLETED = "completed"
    FAILED = "failed"
    ABORTED = "aborted"

    @property
    def closed(self) -> bool:
        return self in CLOSED_TURNS


ACCEPTED: Final = TurnPhase.ACCEPTED
RUNNING: Final = TurnPhase.RUNNING
ANSWERED: Final = TurnPhase.ANSWERED
CLOSED_TURNS = frozenset({TurnPhase.COMPLETED, TurnPhase.FAILED, TurnPhase.ABORTED})


class TurnOutcome(StrEnum):
    """The outcome of a turn, derived from its final entries (INV-10)."""

    REPLIED = "replied"
    PARTIALLY_REPLIED = "partially_replied"
    SILENT = "silent"
    FAILED = "failed"
    EXPIRED = "expired"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"


class Kind(StrEnum):
    """The role of an outbox entry in its turn."""

    TOOL = "tool"
    BLOCK = "block"  # a piece of the answer
    FINAL = "final"  # the answer
    NOTICE = "notice"  # of the kernel to the reader, or enqueued without a turn


class DeliveryClass(StrEnum):
    """A platform's guarantee for one kind of part (specs/design.md 2)."""

    KEYED = "keyed"  # honours an idempotency key inside a window
    LOOKUP = "lookup"  # a sent part can be read back
    EDITABLE = "editable"  # a placeholder, then edits of it
    BLIND = "blind"  # neither


class BlindPolicy(StrEnum):
    """The plan for a blind part with an unknown outcome."""

    HOLD = "hold"  # park it and call the hooks
    RESEND_MARKED = "resend_marked"  # send again, visibly marked
    RESEND = "resend"
    DROP = "drop"


class Flush(StrEnum):
    """Where a SQLite store commits (its argument `flush`)."""

    AUTO = "auto"  # on the loop while the disk is quick, else in a thread
    LOOP = "loop"
    THREAD = "thread"


class FailureClass(StrEnum):
    """Why the platform did not take a part; typed by the adapter, never guessed."""

    TRANSIENT = "transient"
    RATE_LIMITED = "rate_limited"
    NOT_CONNECTED = "not_connected"
    AUTH = "auth"
    PERMISSION = "permission"
    TARGET_GONE = "target_gone"
    TARGET_MOVED = "target_moved"
    HANDLE_GONE = "handle_gone"  # the placeholder was deleted
    DECORATION = "decoration"  # reply, thread or format was refused, not the text
    TOO_LONG = "too_long"
    INVALID_PAYLOAD = "invalid_payload"
    CANCELLED = "cancelled"
    OWNER_DIED = "owner_died"  # the process died before the wire was touched
    DRAIN = "drain"  # shutdown before the wire was touched
    STOPPED = "stopped"  # before the wire: an abort, the expiry, an old key
    ABSENT = "absent"  # a look-up proved that nothing arrived
    NOT_SENT = "not_sent"  # an operator or policy says so


class PartAct(StrEnum):
    """The platform call that an attempt makes."""

    PLACEHOLDER = "placeholder"  # an empty message, for edits to come
    SEND = "send"
    EDIT = "edit"  # of the visible placeholder


PLACEHOLDER: Final = PartAct.PLACEHOLDER
SEND: Final = PartAct.SEND
EDIT: Final = PartAct.EDIT


class PartEnd(StrEnum):
    """How a part came to its end."""

    DELIVERED = "delivered"
    REFUSED = "refused"  # the platform will never accept it
    BOUNCED = "bounced"  # refused after it had been accepted


class Trial(StrEnum):
    """A call to an adapter outside of attempts and runs."""

    PLAN = "plan"
    LOOK_UP = "look_up"


class TrialEnd(StrEnum):
    """The end of such a call, where no other event tells it."""

    DIED = "owner_died"  # its process is dead
    STOPPED = "stopped"  # it was given up, or its answer came too late to matter


class Decoration(StrEnum):
    """An addition to a part's text that the part can go without."""

    REPLY_TO = "reply_to"
    THREAD = "thread"
    FORMAT = "format"


class GateScope(StrEnum):
    """The scope of a closed gate."""

    ACCOUNT = "account"
    CONVERSATION = "conversation"
    ROUTE = "route"


class Reason(StrEnum):
    """Why an entry ended without delivery."""

    PERMANENT = "permanent"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    EXPIRED = "expired"
    TOO_OLD = "too_old"  # it waited longer than its account allows
    REFUSED = "refused"
    QUARANTINED = "quarantined"
    PARTIAL = "partial"  # some parts were delivered, others refused or bounced
    OUTCOME_UNKNOWN = "outcome_unknown"


class AbortReason(StrEnum):
    """Why an entry was aborted."""

    USER = "user"
    SUPERSEDED = "superseded"
    RERUN = "rerun"
    SUPPRESSED = "suppressed"


class Busy(StrEnum):
    """The plan for a message if its lane is busy: one of its turns waits or runs."""

    QUEUE = "queue"  # it waits for its turn
    SUPERSEDE = "supersede"  # turns that wait or run are stopped for it
    JOIN = "join"  # a turn that has not begun answers it, too; else it waits
    DROP = "drop"  # it is kept and known by its key, and never answered


class OldTurns(StrEnum):
    """The plan for a turn that is older than `max_turn_age_ms` before its first run."""

    EXPIRE = "expire"  # it ends, and its sender gets a notice
    ASK = "ask"  # it is held, and a person lets it run or aborts it


class Waits(StrEnum):
    """The state of a turn when its lane is stopped."""

    RUNNING = "running"
    QUEUED = "queued"
    DEBOUNCED = "debounced"  # it waits for more of the same message
    ANSWERED = "answered"  # the outbox owns its answer


class Form(StrEnum):
    """The encoding of an inbound body."""

    JSON = "json"
    TEXT = "text"
    BYTES = "bytes"


class Overflow(StrEnum):
    """The plan for one more value in a full namespace of a plugin."""

    EVICT_OLDEST = "evict_oldest"
    REJECT = "reject"


class Format(StrEnum):
    """How the text of a payload is to be read."""

    PLAIN = "plain"
    MARKDOWN = "markdown"
    HTML = "html"
