"""What the reference remembers of a stream, and the closed sets of words in it."""

from dataclasses import dataclass
from typing import Final, TypeAlias

from turnfold_model.reference_kinds import Breach
from turnfold_model.transition_table import CLOSED, TURN_CLOSED

KINDS: Final = frozenset({"tool", "block", "final", "notice"})
POLICIES: Final = frozenset({"hold", "resend_marked", "resend", "drop"})
DEFERS: Final = frozenset({"not_connected", "rate_limited", "auth", "drain"})
ENDS: Final = frozenset({"permission", "target_gone", "too_long", "invalid_payload"})
FAILURES: Final = (
    DEFERS | ENDS | {"transient", "target_moved", "cancelled", "owner_died"}
)
REASONS: Final = frozenset(
    {
        "permanent",
        "attempts_exhausted",
        "expired",
        "refused",
        "quarantined",
        "outcome_unknown",
    }
)
ABORTS: Final = frozenset({"user", "superseded", "rerun", "suppressed"})
# What can be said of an attempt whose request may still be on the wire: the platform
# refused it. That time ran out, or that its owner died, proves nothing.
PROVEN_BY_REFUSAL: Final = frozenset(
    {"permanent", "refused", "attempts_exhausted", "outcome_unknown"}
)
OUTCOMES: Final = frozenset(
    [
        "replied",
        "partially_replied",
        "silent",
        "failed",
        "expired",
        "aborted",
        "superseded",
    ]
)


@dataclass(frozen=True, slots=True)
class Part:
    """What is known of one frozen part."""

    classes: frozenset[str] = frozenset()
    window: int | None = None
    attempts: int = 0
    first_at: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """The fold of an entry's stream, with no more than the rules need."""

    phase: str
    kind: str
    lane: str
    expires_at: int
    policy: str = "hold"
    turn: str | None = None
    place: tuple[str, str, str] = ("", "", "")  # channel, account, conversation
    parts: tuple[Part, ...] | None = None
    ids: bool = True
    budget: int = 0
    used: int = 0
    settled: int = 0
    fence: int = 0
    doubt: bool = False
    abort: bool = False
    grant: bool = False  # resolved(resend), not yet used
    marked: bool = False
    yielded: bool = False
    reason: str | None = None
    redacted: bool = False
    bounced: bool = False

    @property
    def open(self) -> bool:
        return self.phase not in CLOSED

    @property
    def count(self) -> int:
        """How many parts must be settled. Without a plan a person's word is one."""
        return max(1, len(self.parts or ()))

    @property
    def attempts(self) -> int:
        """The number of the last attempt of the current part."""
        parts = self.parts or ()
        return parts[self.settled].attempts if self.settled < len(parts) else 0

    @property
    def part(self) -> Part:
        """The current part: the first that is not settled."""
        if self.parts is None or self.settled >= len(self.parts):
            raise Breach("INV-7", "there is no planned part left")
        return self.parts[self.settled]


@dataclass(frozen=True, slots=True)
class Turn:
    """The fold of a turn's stream, with no more than the rules need."""

    phase: str
    lane: str
    control: bool = False
    place: tuple[str, str, str] = ("", "", "")
    runs: int = 0
    fence: int = 0
    steps: frozenset[str] = frozenset()  # begun; without done they are in doubt
    done: frozenset[str] = frozenset()  # remembered for ever
    finals: tuple[str, ...] = ()
    silent: bool = False
    abort: bool = False
    held: bool = False
    resubmitted: bool = False
    redacted: bool = False
    outcome: str | None = None

    @property
    def open(self) -> bool:
        return self.phase not in TURN_CLOSED


@dataclass(frozen=True, slots=True)
class Ledger:
    """A gate, a cursor or the store itself."""

    phase: str
    epoch: int = 0
    owner: str | None = None
    until: int | None = None


State: TypeAlias = Entry | Turn | Ledger
