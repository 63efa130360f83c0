"""The reference's memory of a stream, and the closed sets of words in it."""

from dataclasses import dataclass
from typing import Final, TypeAlias

from turnfold_model.machines.transition_table import CLOSED, TURN_CLOSED
from turnfold_model.reference.kinds import Breach

KINDS: Final = frozenset({"tool", "block", "final", "notice"})
POLICIES: Final = frozenset({"hold", "resend_marked", "resend", "drop"})
DEFERS: Final = frozenset(
    {"transient", "not_connected", "rate_limited", "auth", "drain", "stopped"}
)
ENDS: Final = frozenset({"permission", "target_gone", "too_long", "invalid_payload"})
RETRIES: Final = frozenset(
    {"target_moved", "cancelled", "owner_died", "handle_gone", "decoration"}
)
FAILURES: Final = DEFERS | ENDS | RETRIES
CLASSES: Final = FAILURES | {"absent", "not_sent"}  # these two are of no attempt
REASONS: Final = frozenset(
    {
        "permanent",
        "attempts_exhausted",
        "expired",
        "too_old",
        "refused",
        "quarantined",
        "partial",
        "outcome_unknown",
    }
)
ABORTS: Final = frozenset({"user", "superseded", "rerun", "suppressed"})
# The events of an attempt with a request that may still be on the wire: the platform
# refused it. That time ran out, or that its owner died, proves nothing.
PROVEN_BY_REFUSAL: Final = frozenset(
    {"permanent", "refused", "attempts_exhausted", "outcome_unknown"}
)
ACTS: Final = frozenset({"placeholder", "send", "edit"})
TRIALS: Final = frozenset({"plan", "look_up"})
TRIAL_ENDS: Final = frozenset({"owner_died", "stopped"})
DECORATIONS: Final = frozenset({"reply_to", "thread", "format"})
FORMS: Final = frozenset({"json", "text", "bytes"})
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
    """One part and how far it has come. `end`: delivered, refused or bounced; none while
    the part is open."""

    kind: str = ""
    classes: frozenset[str] = frozenset()
    window: int | None = None
    policy: str | None = None
    key: str | None = None
    attempts: int = 0
    used: int = 0
    first_at: int | None = None
    doubt: bool = False
    placed: bool = False
    remade: bool = False  # its placeholder, out of doubt
    end: str | None = None
    receipt: tuple[str, ...] = ()
    void: tuple[str, ...] = ()  # a receipt that bounced
    dropped: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Entry:
    """The fold of an entry's stream, with no more than the rules need. `at`: the number
    of the part that is next. Before the plan there is one part of which nothing is
    known."""

    phase: str
    kind: str
    lane: str
    expires_at: int
    policy: str | None = None
    turn: str | None = None
    live: bool = False  # a final that grows until its plan
    cause: str | None = None  # of a notice
    behind: int = 0  # of a notice: the position of the entry that it follows
    place: tuple[str, str, str] = ("", "", "")  # channel, account, conversation
    parts: tuple[Part, ...] = (Part(),)
    planned: bool = False
    ids: bool = True
    budget: int = 0
    at: int = 0
    act: str = "send"  # of the attempt
    fence: int = 0
    trying: bool = False  # a plan or a look-up is under way
    abort: bool = False
    grant: bool = False  # resolved(resend), not yet used
    granted: bool = False  # ... and used by the attempt
    marked: bool = False
    yielded: bool = False
    reason: str | None = None
    redacted: bool = False

    @property
    def open(self) -> bool:
        return self.phase not in CLOSED

    @property
    def over(self) -> bool:
        """No part is left to be sent."""
        return all(part.end is not None for part in self.parts)

    @property
    def whole(self) -> bool:
        return all(part.end == "delivered" for part in self.parts)

    @property
    def doubt(self) -> bool:
        return any(part.doubt for part in self.parts)

    @property
    def delivered(self) -> bool:
        """At least one part is."""
        return any(part.end == "delivered" for part in self.parts)

    @property
    def attempts(self) -> int:
        """The number of the last attempt of the part that is next."""
        return 0 if self.over else self.part.attempts

    @property
    def used(self) -> int:
        return 0 if self.over else self.part.used

    @property
    def part(self) -> Part:
        """The part that is next."""
        if self.over:
            raise Breach("INV-7", "there is no part left")
        return self.parts[self.at]


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
    left_open: bool = False
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
    person: bool = False  # a gate that only a person opens


State: TypeAlias = Entry | Turn | Ledger
