"""The words of the world model: configurations, columns, jobs.

A *column* is one inbound message with its turn, its one reply entry, the requests that
are on the wire for it and the copies that the platform has taken: everything that
belongs to one lane position. A world has one or two of them. A worker's memory about a
column is its *job*; a crash loses it.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple


class Ph(IntEnum):
    """Phases of an entry; NONE is not queued yet."""

    NONE = 0
    QUEUED = 1
    ATTEMPTED = 2
    DISPATCHED = 3
    IN_DOUBT = 4
    PARKED = 5
    RETRYABLE = 6
    DELIVERED = 7
    FAILED = 8
    ABORTED = 9


class Tp(IntEnum):
    """Phases of a turn; BARE is an entry that has no turn."""

    NONE = 0
    ACCEPTED = 1
    RUNNING = 2
    ANSWERED = 3
    COMPLETED = 4
    FAILED = 5
    ABORTED = 6
    BARE = 7


class Stage(IntEnum):
    """A worker's act on a column, and the answer that it has not logged yet."""

    IDLE = 0
    PREPARING = 1
    READY = 2  # the dispatch is committed, the wire is not touched
    SENT = 3
    ACCEPTED = 4
    REFUSED = 5
    ENDED = 6  # refused for good
    BARRED = 14  # the part alone is refused for good
    PLACED = 15
    VANISHED = 16  # the message that it was to change is gone
    DEFERRED = 7
    LOST = 8  # no answer will come
    FOUND = 9
    ABSENT = 10
    RUNNING = 11  # the handler
    REPLIED = 12


CLOSED: Final = frozenset({Ph.DELIVERED, Ph.FAILED, Ph.ABORTED})
TURN_OVER: Final = frozenset({Tp.COMPLETED, Tp.FAILED, Tp.ABORTED})
SEND, PLACEHOLDER, EDIT, PREVIEW = range(4)  # the acts of a request
EMPTY, SHORT, TEXT, GONE = range(
    4
)  # the content of a message of class editable; SHORT: a preview
DEAD, HUNG = 2, 3  # tags of requests nobody waits for; 0 and 1 are worker slots


class Request(NamedTuple):
    """A request on the wire. `tag`: the worker that waits, DEAD or HUNG. `target`: the
    message that it changes."""

    part: int
    attempt: int
    tag: int
    act: int = SEND
    target: int = 0


class Job(NamedTuple):
    """A worker's act on a column, and its attempt. `target`: the message that the
    attempt changes, or has made."""

    stage: Stage = Stage.IDLE
    part: int = 0
    attempt: int = 0
    act: int = SEND
    target: int = 0


class Facts(NamedTuple):
    """The log's view of a column."""

    turn: Tp = Tp.BARE
    runs: int = 0
    note: bool = False  # the entry is the notice of a failed turn
    phase: Ph = Ph.NONE
    settled: int = 0
    attempts: int = 0  # of the part at hand
    used: int = 0
    doubt: bool = False
    abort: bool = False
    grant: bool = False
    passed: bool = False  # later entries of the lane need not wait
    unknown: bool = False  # ended as outcome_unknown
    sealed: bool = True  # else the text of a live reply still grows
    handle: int = 0  # the placeholder of the part at hand; messages are counted from 1
    remade: bool = False  # its placeholder, out of doubt
    whole: bool = False  # its last attempt would show it whole, without a placeholder
    refused: tuple[bool, ...] = ()  # per part, once one was
    excused: tuple[bool, ...] = ()  # per part: a policy event allows a second send


class Column(NamedTuple):
    """The log of one column, and the world around it that no log shows."""

    log: Facts
    wire: tuple[Request, ...] = ()
    taken: tuple[int, ...] = ()  # per part: how often the user sees it
    screen: tuple[
        tuple[int, ...], ...
    ] = ()  # where parts are edited: the messages of each
    age: int = 0  # of the key: 0 young, 1 past half of its window, 2 past it
    lag: int = 0  # how much of that the wall clock lost
    restarted: bool = False  # since the first attempt of the part at hand
    before: Facts | None = None  # the log before the last commit, where it can be lost


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Those of specs/design.md 2; each may be dropped."""

    fsync: bool = True  # a commit stays
    key: bool = True  # the platform honours the key inside its window
    clock: bool = True  # a restart loses at most half of a key's window
    settle: bool = True  # a dead sender's request lands before the look-up, or never
    hung: bool = True  # a hung call in our own process counts as alive
    lock: bool = True  # a living worker is not replaced
    skew: bool = True  # the platform's clock is off by no more than is declared
    prompt: bool = True  # a keyed request lands inside the window it was sent for
    quiet: bool = (
        True  # a preview that nobody waits for lands before the seal, or never
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One bounded world. The budgets bound the number of faults, not their moments."""

    name: str
    cls: str = "keyed"
    policy: str = "hold"
    columns: int = 1
    parts: int = 1
    prepare: bool = False
    turns: bool = False
    one_lane: bool = True
    supersede: bool = False
    gates: bool = False
    hung: bool = False
    ages: bool = False
    live: bool = False  # the text grows, and is sealed later
    budget: int = 2
    runs: int = 2
    crashes: int = 1
    faults: int = 1
    hands: int = 0  # things people do: abort, expire, resolve, redrive
    pauses: int = 0
    assume: Assumptions = Assumptions()
    without: str = ""  # a guard of the protocol that is taken out, to see it bite

    @property
    def keyed(self) -> bool:
        return self.cls in ("keyed", "keyed-editable")

    @property
    def edits(self) -> bool:
        return self.cls in ("editable", "keyed-editable")


class Step(NamedTuple):
    """One thing that may happen to a column, and its cost."""

    label: str
    column: Column
    job: Job
    fault: int = 0
    hand: int = 0
    gate: bool = False  # closes the gate
    broken: str = ""  # the invariant that this very step breaks
