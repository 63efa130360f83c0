"""What the log checker remembers of one moment, and how a turn's outcome follows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from turnfold_model.reference_kinds import Breach, Record, need
from turnfold_model.reference_shapes import Entry

_CLOSING = ("outbox.delivered", "outbox.failed_terminal", "outbox.aborted")
_LATER = (
    "outbox.attempted",
    "outbox.queued",
    "turn.started",
    "turn.answered",
    "turn.completed",
    "turn.failed",
    "turn.aborted",
    "turn.amended",
)


@dataclass(slots=True)
class Moment:
    """The events of one time, as far as rules between streams need them."""

    at: Any
    epoch: int
    events: list[Record] = field(default_factory=list)
    queued: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)
    answered: set[str] = field(default_factory=set)
    opened: set[str] = field(default_factory=set)  # gates that were open at its start

    def saw(self, event: Record, stream: str) -> None:
        kind, name = event["kind"], stream.partition(":")[2] or stream
        if kind in _LATER:
            self.events.append(event)
        if kind == "outbox.queued":
            self.queued.add(name)
        elif kind in _CLOSING or kind == "outbox.late_receipt":
            self.closed.add(name)
        elif kind == "turn.answered":
            self.answered.add(name)


def outcome_follows(
    outcome: str, finals: Sequence[Entry | None], *, seen: bool
) -> None:
    """INV-10: the outcome of a turn is what its final entries say.

    `seen`: the user saw, or may have seen, something of the turn.
    """
    phases = [entry.phase if entry is not None else None for entry in finals]
    reasons = {entry.reason for entry in finals if entry is not None}
    bounced = any(entry.bounced for entry in finals if entry is not None)
    match outcome:
        case "replied":
            arrived = all(phase == "delivered" for phase in phases)
            follows = bool(phases) and arrived and not bounced
        case "silent":
            unseen = {e.reason if e is not None else None for e in finals}
            follows = set(phases) <= {"aborted"} and unseen <= {"suppressed"}
        case "partially_replied":
            follows = seen
        case "failed":
            follows = "failed" in phases or bounced
        case "expired":
            follows = "expired" in reasons
        case "aborted" | "superseded":
            follows = "aborted" in phases
        case _:
            raise Breach("field", f"outcome is {outcome!r}")
    need(follows, "INV-10", f"{outcome} does not follow from {phases}")
