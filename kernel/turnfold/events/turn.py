"""The events of a turn (specs/design.md 5). The same rules as for the events of an entry."""

from turnfold.canonical import Integer
from turnfold.frozen import frozen
from turnfold.words import AbortReason, FailureClass, TurnOutcome


@frozen(kw_only=True)
class Accepted:
    """A message came in. `sender` and `revision` are the platform's words, `sent_at` is
    its wall time. `differs`: a message with this key had other bytes."""

    channel: str
    account: str
    conversation: str
    message_id: str
    body: str
    lane: str
    event: str = "message"
    thread: str | None = None
    control: bool = False
    cursor: str | None = None
    sender: str | None = None
    sent_at: Integer | None = None
    revision: str | None = None
    differs: bool = False


@frozen(kw_only=True)
class Dead:
    """An update that nobody can read: its bytes are `body`, the error is `detail`. The
    place and the message id are given as far as they could be read."""

    channel: str
    account: str
    body: str
    lane: str
    conversation: str = ""
    message_id: str = ""
    event: str = "message"
    thread: str | None = None
    cursor: str | None = None
    detail: str | None = None


@frozen(kw_only=True)
class Joined:
    """A further inbound message merged into this turn; its key stays its own."""

    message_id: str
    body: str
    event: str = "message"
    cursor: str | None = None
    sender: str | None = None
    sent_at: Integer | None = None
    revision: str | None = None
    differs: bool = False


@frozen(kw_only=True)
class Started:
    run: Integer
    owner: str
    fence: Integer


@frozen(kw_only=True)
class StepStarted:
    run: Integer
    key: str


@frozen(kw_only=True)
class StepDone:
    run: Integer
    key: str
    result: str


@frozen(kw_only=True)
class LeftOpen:
    """The run ended and its answer is to come from elsewhere, by the turn's id. The turn
    is never run again; at `until` it fails."""

    run: Integer
    until: Integer


@frozen(kw_only=True)
class Released:
    """The run stopped for our own reasons and is not counted."""

    run: Integer
    reason: str
    due: Integer | None = None


@frozen(kw_only=True)
class RunFailed:
    run: Integer
    failure: FailureClass
    due: Integer
    detail: str | None = None


@frozen(kw_only=True)
class Answered:
    """The reply is owned by the outbox: its final entries, or why there are none."""

    run: Integer
    finals: tuple[str, ...] = ()
    silent: str | None = None


@frozen(kw_only=True)
class Completed:
    outcome: TurnOutcome


@frozen(kw_only=True)
class Failed:
    outcome: TurnOutcome
    reason: str
    notice: str | None = None  # the entry that tells the user


@frozen(kw_only=True)
class TurnAbortRequested:
    reason: AbortReason
    by: str | None = None


@frozen(kw_only=True)
class TurnAborted:
    outcome: TurnOutcome
    by: str | None = None


@frozen(kw_only=True)
class Amended:
    """A final entry of a turn that is over has changed. No outcome: the entry was
    redriven, and the turn is answered again."""

    entry: str
    outcome: TurnOutcome | None = None


@frozen(kw_only=True)
class Held:
    reason: str


@frozen(kw_only=True)
class Unheld:
    by: str


@frozen(kw_only=True)
class Resubmitted:
    by: str


@frozen(kw_only=True)
class TurnRedacted:
    by: str


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
