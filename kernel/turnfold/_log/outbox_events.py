"""The events of an outbox entry (specs/design.md 4), one class each, past tense.

Every field is text, an integer, a boolean, none, or a tuple of such records: what the
canonical log can carry. Fields at their default are left out of the stored bytes.
Free text (error messages, reasons given by people) is never here: `detail` and `why`
are digests of bodies beside the log. Wall times are milliseconds UTC.
"""

from attrs import define

from turnfold._log.canonical import Integer
from turnfold.enums import (
    AbortReason,
    BlindPolicy,
    Decoration,
    DeliveryClass,
    FailureClass,
    Kind,
    PartAct,
    Phase,
    Reason,
    Trial,
)


@define(kw_only=True, unsafe_hash=True)
class PlannedPart:
    """One visible platform call, frozen: its bytes, its key, its delivery classes."""

    kind: str
    body: str
    key: str
    classes: tuple[DeliveryClass, ...] = ()
    key_window_ms: Integer | None = None
    settle_ms: Integer = 120_000
    policy: BlindPolicy | None = None  # none: the entry's own


@define(kw_only=True, unsafe_hash=True)
class Queued:
    kind: Kind
    channel: str
    account: str
    conversation: str
    lane: str
    body: tuple[str, ...]
    expires_at: Integer
    turn: str | None = None
    run: Integer | None = None
    key: str | None = None
    thread: str | None = None
    reply_to: str | None = None
    policy: BlindPolicy | None = None  # none: as the plan says, else hold
    not_before: Integer | None = None


@define(kw_only=True, unsafe_hash=True)
class Planned:
    """The parts are frozen. For a live reply, which has a placeholder before that, this
    is the seal."""

    parts: tuple[PlannedPart, ...]
    budget: Integer
    thread: str | None = None  # the effective thread
    ids: bool = True  # the platform gives message ids


@define(kw_only=True, unsafe_hash=True)
class Attempted:
    """`classes` and `policy` are those of a placeholder that goes out before the plan;
    later the plan has them."""

    part: Integer
    attempt: Integer
    owner: str
    fence: Integer
    on_wire: bool = False  # no prepare: this commit is also the dispatch
    marked: bool = False  # shown as a possible duplicate
    target: str | None = None  # effective conversation, where it moved
    signed_at: Integer | None = None  # wall time of the signature
    act: PartAct = PartAct.SEND
    classes: tuple[DeliveryClass, ...] = ()
    policy: BlindPolicy | None = None


@define(kw_only=True, unsafe_hash=True)
class Dispatched:
    part: Integer
    attempt: Integer


@define(kw_only=True, unsafe_hash=True)
class Placed:
    """The placeholder of a part is visible. Edits name it by `handle`; that is no
    receipt and settles nothing. `stray`: the part has no use for it, it is to be
    retracted."""

    part: Integer
    attempt: Integer
    handle: tuple[str, ...]
    stray: bool = False


@define(kw_only=True, unsafe_hash=True)
class Tried:
    """A plan or a look-up begins outside of a run, so that a death in it is seen."""

    act: Trial
    owner: str
    fence: Integer


@define(kw_only=True, unsafe_hash=True)
class PartRefused:
    """The platform will never accept this part; the parts after it still go. `attempt`
    is 0 for a part that was never attempted."""

    part: Integer
    attempt: Integer
    failure: FailureClass
    detail: str | None = None


@define(kw_only=True, unsafe_hash=True)
class AmendedPart:
    """A part goes on without a decoration: its new body under a new key."""

    part: Integer
    body: str
    key: str
    dropped: Decoration


@define(kw_only=True, unsafe_hash=True)
class PartDelivered:
    """A part is settled, by a receipt or suppressed, and the entry is not delivered by
    it: parts are left, or one was refused or bounced."""

    part: Integer
    attempt: Integer
    receipt: tuple[str, ...] = ()
    thread: str | None = None
    deduplicated: bool = False
    looked_up: bool = False
    suppressed: str | None = None
    by: str | None = None
    why: str | None = None


@define(kw_only=True, unsafe_hash=True)
class Delivered:
    """The last part is settled, and with it the entry."""

    part: Integer
    attempt: Integer
    receipt: tuple[str, ...] = ()
    thread: str | None = None
    deduplicated: bool = False
    looked_up: bool = False
    suppressed: str | None = None
    by: str | None = None
    why: str | None = None


@define(kw_only=True, unsafe_hash=True)
class Deferred:
    """Proven not accepted and nobody's fault: the budget gets its unit back."""

    part: Integer
    attempt: Integer
    failure: FailureClass
    due: Integer | None = None
    detail: str | None = None


@define(kw_only=True, unsafe_hash=True)
class FailedRetryable:
    part: Integer
    attempt: Integer
    failure: FailureClass
    due: Integer
    target: str | None = None  # where the conversation has moved to
    detail: str | None = None


@define(kw_only=True, unsafe_hash=True)
class OutcomeUnknown:
    """Stored as `outbox.unknown`."""

    part: Integer
    attempt: Integer
    cause: str
    due: Integer
    detail: str | None = None


@define(kw_only=True, unsafe_hash=True)
class Reconciled:
    """A look-up answered: proven absent, or it could not tell. `early`: it is not
    there, but an old request may still land."""

    part: Integer
    absent: bool
    due: Integer
    early: bool = False
    detail: str | None = None


@define(kw_only=True, unsafe_hash=True)
class Parked:
    reason: str


@define(kw_only=True, unsafe_hash=True)
class Resolved:
    """Doubt about a part ended by policy or an operator: not sent, or send again all the
    same. `expires_at`: the new expiry that an operator's word sets."""

    part: Integer
    resend: bool
    by: str
    marked: bool = False
    expires_at: Integer | None = None
    why: str | None = None


@define(kw_only=True, unsafe_hash=True)
class FailedTerminal:
    reason: Reason
    failure: FailureClass | None = None
    by: str | None = None
    detail: str | None = None
    why: str | None = None


@define(kw_only=True, unsafe_hash=True)
class AbortRequested:
    reason: AbortReason
    by: str | None = None
    why: str | None = None


@define(kw_only=True, unsafe_hash=True)
class Aborted:
    reason: AbortReason
    by: str | None = None
    why: str | None = None


@define(kw_only=True, unsafe_hash=True)
class LateReceipt:
    part: Integer
    attempt: Integer
    receipt: tuple[str, ...] = ()
    thread: str | None = None


@define(kw_only=True, unsafe_hash=True)
class Rescheduled:
    due: Integer
    by: str
    why: str | None = None


@define(kw_only=True, unsafe_hash=True)
class Redriven:
    """A dead letter is sent again. `keys` are new ones for the parts that were refused
    or bounced, in their order; delivered parts never go again."""

    budget: Integer
    expires_at: Integer
    by: str
    accept_duplicate: bool = False
    keys: tuple[str, ...] = ()
    why: str | None = None


@define(kw_only=True, unsafe_hash=True)
class Acknowledged:
    by: str
    why: str | None = None


@define(kw_only=True, unsafe_hash=True)
class Bounced:
    """The platform refused a part after it had accepted it: the receipt no longer
    counts, nor does the same receipt if it comes again."""

    part: Integer
    detail: str | None = None


@define(kw_only=True, unsafe_hash=True)
class Imported:
    """An entry of another system's queue. `phase` is queued, parked or
    failed; an entry that came over in doubt is never queued."""

    kind: Kind
    channel: str
    account: str
    conversation: str
    lane: str
    body: tuple[str, ...]
    expires_at: Integer
    phase: Phase
    origin: str
    key: str | None = None
    thread: str | None = None
    reply_to: str | None = None
    policy: BlindPolicy | None = None


@define(kw_only=True, unsafe_hash=True)
class Doubted:
    """The store was restored from a backup: each part that is not settled may have been
    sent."""

    reason: str


@define(kw_only=True, unsafe_hash=True)
class LaneYielded:
    reason: str


@define(kw_only=True, unsafe_hash=True)
class Redacted:
    by: str


OutboxEvent = (
    Queued
    | Planned
    | Attempted
    | Dispatched
    | Placed
    | Tried
    | PartRefused
    | AmendedPart
    | PartDelivered
    | Delivered
    | Deferred
    | FailedRetryable
    | OutcomeUnknown
    | Reconciled
    | Parked
    | Resolved
    | FailedTerminal
    | AbortRequested
    | Aborted
    | LateReceipt
    | Rescheduled
    | Redriven
    | Acknowledged
    | Bounced
    | Imported
    | Doubted
    | LaneYielded
    | Redacted
)
