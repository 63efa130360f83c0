"""The events of an outbox entry (specs/design.md 4), one class each, past tense.

Every field is text, an integer, a boolean, None, or a tuple of such records: the types
of the canonical log. Fields at their default are left out of the stored bytes. Free
text (error messages, reasons given by people) is never here: `detail` and `why` are
digests of bodies beside the log. Wall times are milliseconds UTC.
"""

from msgspec.structs import force_setattr

from turnfold._log.canonical import Fact, Integer
from turnfold.enums import (
    AbortReason,
    BlindPolicy,
    Decoration,
    DeliveryClass,
    FailureClass,
    Kind,
    PartAct,
    Reason,
    Trial,
    TrialEnd,
)

SETTLE_MS = 120_000


class PlannedPart(Fact, frozen=True, kw_only=True):
    """One visible platform call, frozen: its bytes, its key, its delivery classes."""

    kind: str
    body: str
    key: str
    classes: tuple[DeliveryClass, ...] = ()
    key_window_ms: Integer | None = None
    settle_ms: Integer = SETTLE_MS
    policy: BlindPolicy | None = None  # None: the entry's own
    dropped: tuple[Decoration, ...] = ()  # by `amended_part`

    def __post_init__(self) -> None:
        """A number equal to the default becomes the default object, which is left out
        of the bytes."""
        if self.settle_ms == SETTLE_MS:
            force_setattr(self, "settle_ms", SETTLE_MS)


class Queued(Fact, frozen=True, kw_only=True):
    """`live`: a final that readers see while it grows. It has no body before its seal.
    `waited_ms`: how long it lay in the inbox before. `cause`: of a notice.
    `behind`: a notice follows the entry of this order in its lane; 0: it is the last."""

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
    policy: BlindPolicy | None = None  # None: the plan's policy, else hold
    not_before: Integer | None = None
    live: bool = False
    waited_ms: Integer = 0
    cause: str | None = None
    behind: Integer = 0


class Planned(Fact, frozen=True, kw_only=True):
    """The parts are frozen. For a live reply, which has a placeholder before that, this
    is the seal."""

    parts: tuple[PlannedPart, ...]
    budget: Integer
    thread: str | None = None  # the effective thread
    ids: bool = True  # the platform gives message ids


class Attempted(Fact, frozen=True, kw_only=True):
    """`classes` and `policy`: of a placeholder before the plan; later the plan has
    them."""

    part: Integer
    attempt: Integer
    owner: str
    fence: Integer
    on_wire: bool = False  # no prepare: this commit is also the dispatch
    marked: bool = False  # shown as a possible duplicate
    target: str | None = None  # the new conversation, if it moved
    act: PartAct = PartAct.SEND
    classes: tuple[DeliveryClass, ...] = ()
    policy: BlindPolicy | None = None


class Dispatched(Fact, frozen=True, kw_only=True):
    part: Integer
    attempt: Integer


class Placed(Fact, frozen=True, kw_only=True):
    """The placeholder of a part is visible. Edits name it by `handle`, which is no
    receipt and settles nothing. `stray`: the part does not need it; it is to be
    retracted."""

    part: Integer
    attempt: Integer
    handle: tuple[str, ...]
    stray: bool = False


class Tried(Fact, frozen=True, kw_only=True):
    """A plan or a look-up begins outside of a run. Logged so that a death in it is
    counted. The next event of the entry ends it. `end`: this is that event, and no
    other one tells the end. `beside` and `suspects` as of `failed_retryable`; `due`:
    after a death, when the call is made again."""

    act: Trial
    owner: str
    fence: Integer
    end: TrialEnd | None = None
    due: Integer | None = None
    beside: Integer | None = None
    suspects: Integer = 0


class PartRefused(Fact, frozen=True, kw_only=True):
    """The platform will never accept this part; the parts after it still go. `attempt`
    is 0 for a part that was never attempted."""

    part: Integer
    attempt: Integer
    failure: FailureClass
    detail: str | None = None


class AmendedPart(Fact, frozen=True, kw_only=True):
    """A part goes on without a decoration: its new body under a new key."""

    part: Integer
    body: str
    key: str
    dropped: Decoration


class _Settled(Fact, frozen=True, kw_only=True):
    """How a part was settled."""

    part: Integer
    attempt: Integer
    receipt: tuple[str, ...] = ()
    thread: str | None = None
    deduplicated: bool = False
    looked_up: bool = False
    suppressed: str | None = None
    by: str | None = None
    why: str | None = None


class PartDelivered(_Settled, frozen=True, kw_only=True):
    """A part is settled, by a receipt or suppressed, and the entry is not delivered:
    parts are left, or one was refused or bounced."""


class Delivered(_Settled, frozen=True, kw_only=True):
    """The last part is settled, and with it the entry."""


class Deferred(Fact, frozen=True, kw_only=True):
    """Surely not accepted, for a reason outside the message: the budget gets its unit
    back."""

    part: Integer
    attempt: Integer
    failure: FailureClass
    due: Integer | None = None
    detail: str | None = None


class FailedRetryable(Fact, frozen=True, kw_only=True):
    """`beside`: after a death (`owner_died`), how many others were under way, if that
    is known. `suspects`: how many entries, including this one, have been in at least as
    many deaths."""

    part: Integer
    attempt: Integer
    failure: FailureClass
    due: Integer
    target: str | None = None  # where the conversation has moved to
    detail: str | None = None
    beside: Integer | None = None
    suspects: Integer = 0


class OutcomeUnknown(Fact, frozen=True, kw_only=True):
    """Stored as `outbox.unknown`. `beside` and `suspects` as of `failed_retryable`."""

    part: Integer
    attempt: Integer
    cause: str
    due: Integer
    detail: str | None = None
    beside: Integer | None = None
    suspects: Integer = 0


class Reconciled(Fact, frozen=True, kw_only=True):
    """A look-up answered: the part is proven absent, or the look-up could not tell.
    `early`: the part is not there but an old request may still take effect, or the
    platform did not answer for the reason `failure`; such a look-up is not counted."""

    part: Integer
    absent: bool
    due: Integer
    early: bool = False
    failure: FailureClass | None = None
    detail: str | None = None


class Parked(Fact, frozen=True, kw_only=True):
    reason: str


class Resolved(Fact, frozen=True, kw_only=True):
    """A policy or an operator ended the doubt about a part: not sent, or send again.
    `expires_at`: the new expiry, if a person's decision gives more time."""

    part: Integer
    resend: bool
    by: str
    marked: bool = False
    expires_at: Integer | None = None
    why: str | None = None


class FailedTerminal(Fact, frozen=True, kw_only=True):
    reason: Reason
    failure: FailureClass | None = None
    by: str | None = None
    detail: str | None = None
    why: str | None = None


class AbortRequested(Fact, frozen=True, kw_only=True):
    reason: AbortReason
    by: str | None = None
    why: str | None = None


class Aborted(Fact, frozen=True, kw_only=True):
    reason: AbortReason
    by: str | None = None
    why: str | None = None


class LateReceipt(Fact, frozen=True, kw_only=True):
    part: Integer
    attempt: Integer
    receipt: tuple[str, ...] = ()
    thread: str | None = None


class Rescheduled(Fact, frozen=True, kw_only=True):
    due: Integer
    by: str
    why: str | None = None


class Redriven(Fact, frozen=True, kw_only=True):
    """A dead letter is sent again. `keys`: new keys for the refused and bounced parts,
    in their order. Delivered parts never go again."""

    budget: Integer
    expires_at: Integer
    by: str
    accept_duplicate: bool = False
    keys: tuple[str, ...] = ()
    why: str | None = None


class Acknowledged(Fact, frozen=True, kw_only=True):
    by: str
    why: str | None = None


class Bounced(Fact, frozen=True, kw_only=True):
    """The platform refused a part after it had accepted it: the receipt no longer
    counts, nor does the same receipt if it comes again."""

    part: Integer
    detail: str | None = None


class Imported(Fact, frozen=True, kw_only=True):
    """An entry of another system's queue. Nobody knows which parts that system has
    sent, so all parts are in doubt. `enqueued_at`, `tries`, `detail`: from that queue:
    the time of arrival, the number of tries, and the last error."""

    kind: Kind
    channel: str
    account: str
    conversation: str
    lane: str
    body: tuple[str, ...]
    expires_at: Integer
    origin: str
    key: str | None = None
    thread: str | None = None
    reply_to: str | None = None
    enqueued_at: Integer | None = None
    tries: Integer = 0
    detail: str | None = None


class Doubted(Fact, frozen=True, kw_only=True):
    """The store was restored from a backup: each open part may have been sent."""

    reason: str


class LaneYielded(Fact, frozen=True, kw_only=True):
    reason: str


class Redacted(Fact, frozen=True, kw_only=True):
    """`note`: the reason; an erased stream keeps no bodies, so the text stands here."""

    by: str
    note: str | None = None


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
