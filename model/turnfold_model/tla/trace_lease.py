"""What happened to one shard of a store in PostgreSQL as a behaviour of `specs/Lease.tla`.

A recorder does one thing to real handles of a store, looks at its tables, and writes both
down. What no table shows is silent: leases that end, processes, what a worker has read.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

MODULE: Final = "Lease"
# What no table shows, and the acts before which it may have happened.
BEFORE: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "LeaseEnds": ("silence", "watchdog"),
        "Dies": ("certify",),
        "WatchdogEnds": ("watchdog",),
        "Finds": ("take",),
        "LosesSeat": ("take",),
        "LateRefused": ("never_sent",),
    }
)
SILENT: Final = frozenset(BEFORE)
ACTIONS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "enter": frozenset({"Register"}),
        "take": frozenset({"Takes"}),
        "commit": frozenset({"Commits"}),
        "stored_unanswered": frozenset({"AnswerLost"}),
        "never_sent": frozenset({"UnderWay"}),
        "reopen": frozenset({"AfterDoubt"}),
        "token_unanswered": frozenset({"TokenUnanswered"}),
        "hand_over": frozenset({"HandsOver"}),
        "certify": frozenset({"Certified"}),
        "silence": frozenset({"Silent"}),
        "watchdog": frozenset({"Watchdog"}),
        "falls_behind": frozenset({"Lags"}),
        "failover": frozenset({"FailsOver"}),
    }
)
TROUBLE: Final = frozenset(
    {"stored_unanswered", "never_sent", "hand_over", "token_unanswered"}
)
# A recorder does without them: requests, posts, statements that come late, the end of a host.
UNSEEN: Final = frozenset(
    {
        *("LateStored", "Posts", "Sends", "Lands", "Answered", "TimesOut"),
        *("Goodbye", "SeenGone", "ReadsAnew", "Notes"),
    }
)
OF_SEAT: Final = frozenset(
    {
        *("Finds", "Takes", "HandsOver", "LosesSeat", "ReadsAnew", "AfterDoubt"),
        *("Commits", "AnswerLost", "UnderWay", "Notes", "TokenUnanswered"),
    }
)
OF_LIFE: Final = frozenset(
    {
        *("Register", "LeaseEnds", "Dies", "Goodbye", "SeenGone", "Certified"),
        *("WatchdogEnds", "Watchdog", "Silent", "Sends", "Answered", "TimesOut"),
    }
)


class Log(NamedTuple):
    """The tables: the state of each life, and of the shard its owner (0 for none), its
    token, whether its seat was handed over, and how many records its log has."""

    row: tuple[str, ...]
    owner: int = 0
    token: int = 0
    freed: bool = False
    records: int = 0
