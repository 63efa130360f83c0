"""The events of a turn (specs/design.md 5). The same rules as for the events of an entry."""

from turnfold.canonical import Integer
from turnfold.frozen import frozen
from turnfold.words import AbortReason, FailureClass, TurnOutcome


@frozen(kw_only=True)
class Accepted:
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


@frozen(kw_only=True)
class Joined:
    """A further inbound message merged into this turn; its key stays its own."""

    message_id: str
    body: str
    event: str = "message"
    cursor: str | None = None


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
    """What happened to a final entry after the turn was over."""

    outcome: TurnOutcome
    entry: str


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
    | Joined
    | Started
    | StepStarted
    | StepDone
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
