"""The matrix of scenarios. Each row is explored exhaustively unless it says otherwise."""

from typing import Any, Final

from turnfold.enums import BlindPolicy, Busy, DeliveryClass
from turnfold_model.crash.scenario import Assumption, Scenario

_K, _L = (DeliveryClass.KEYED,), (DeliveryClass.LOOKUP,)
_KL = (*_K, *_L)
_E = (DeliveryClass.EDITABLE,)
_KE = (*_K, *_E)
_DROP, _RESEND = BlindPolicy.DROP, BlindPolicy.RESEND
_MARKED = BlindPolicy.RESEND_MARKED
_WEIRD = ("barred", "gone", "offline")

# Key windows are at least twice SETTLE_MS: `attach` refuses shorter ones, and the row
# without the assumption `prompt` shows why.


def _paused(name: str, *, crashes: int = 0, **more: Any) -> Scenario:
    """A worker that is stopped at any step, replaced, and goes on at any later one."""
    return Scenario(name=name, zombies=1, pauses=True, crashes=crashes, **more)


# Small scenarios: seconds each, and together they kill every mutant of the programs.
SMALL: Final = (
    Scenario(name="one", crashes=1),
    Scenario(name="keyed", parts=2, crashes=2),
    Scenario(name="lookup", classes=_L, parts=2, crashes=2),
    Scenario(name="both", classes=_KL, parts=2, crashes=1, faults=1),
    Scenario(name="blind-hold", classes=(), parts=2, crashes=2),
    Scenario(name="blind-drop", classes=(), policy=_DROP, parts=2, crashes=2),
    Scenario(name="blind-resend", classes=(), policy=_RESEND, parts=2, crashes=2),
    Scenario(name="blind-marked", classes=(), policy=_MARKED, crashes=2),
    Scenario(name="keyed-then-blind", weaker=(), parts=2, crashes=2),
    Scenario(name="both-then-lookup", classes=_KL, weaker=_L, parts=2, crashes=2),
    Scenario(name="keyed-fault", parts=2, crashes=1, faults=1),
    Scenario(name="lookup-fault", classes=_L, parts=2, crashes=1, faults=1),
    Scenario(name="blind-fault", classes=(), parts=2, crashes=1, faults=1),
    Scenario(name="lookup-two-faults", classes=_L, crashes=0, faults=2),
    Scenario(name="lookup-blurred", classes=_L, faults=2, fates=("late", "blurred")),
    Scenario(
        name="keyed-editable", classes=_KE, window_ms=10_000, down_ms=6_000, faults=1
    ),
    Scenario(name="editable", classes=_E, parts=2, crashes=1),
    Scenario(name="editable-twice", classes=_E, crashes=2),
    Scenario(name="editable-fault", classes=_E, crashes=1, faults=1),
    Scenario(name="editable-faults", classes=_E, crashes=0, faults=2),
    Scenario(name="editable-abort", classes=_E, abort=True, faults=1),
    Scenario(name="editable-late", classes=_E, faults=2, fates=("late", "hung")),
    Scenario(name="editable-resend", classes=_E, policy=_RESEND, crashes=1, faults=2),
    Scenario(name="live", classes=_E, live=True, crashes=1),
    Scenario(name="live-twice", classes=_E, live=True, crashes=2),
    Scenario(name="live-parts", classes=_E, live=True, parts=2, blocks=1),
    Scenario(name="live-fault", classes=_E, live=True, crashes=1, faults=1),
    Scenario(name="live-abort", classes=_E, live=True, abort=True, faults=1),
    Scenario(name="live-silent", classes=_E, live=True, silent=True, faults=1),
    Scenario(name="live-lookup", classes=(*_L, *_E), live=True, faults=1),
    Scenario(name="prepare", prepares=True, crashes=2),
    Scenario(name="prepare-fault", prepares=True, crashes=1, faults=1),
    Scenario(name="abort", parts=2, abort=True),
    Scenario(name="abort-lookup", classes=_L, parts=2, abort=True),
    Scenario(name="abort-blind", classes=(), parts=2, abort=True),
    Scenario(name="abort-prepare", parts=2, prepares=True, abort=True),
    Scenario(name="abort-fault", parts=2, abort=True, faults=1, crashes=0),
    Scenario(
        name="abort-reply",
        abort=True,
        abort_reply=True,
        blocks=2,
        faults=1,
        fates=("limited",),
        crashes=0,
    ),
    Scenario(name="two", messages=2, crashes=1),
    Scenario(name="two-blocks", messages=2, blocks=1, crashes=1),
    Scenario(name="two-faults", messages=2, crashes=0, faults=1),
    Scenario(name="hold-two", classes=(), messages=2, crashes=1, faults=1),
    Scenario(name="silent", silent=True, blocks=1, crashes=2),
    Scenario(name="speechless", silent=True, crashes=2),
    Scenario(name="not-resumed", resumes=False, blocks=1, crashes=2),
    Scenario(name="later", later=True, messages=2, crashes=1),
    Scenario(name="join", busy=Busy.JOIN, messages=3, crashes=1),
    Scenario(name="debounce", busy=Busy.JOIN, debounce_ms=500, messages=2, crashes=1),
    Scenario(name="supersede", busy=Busy.SUPERSEDE, messages=2, crashes=1),
    Scenario(name="drop-busy", busy=Busy.DROP, messages=2, crashes=1),
    Scenario(name="sends", resumes=False, sends=2, crashes=2),
    Scenario(name="sends-abort", sends=1, abort=True, crashes=1, faults=1),
    Scenario(name="few-runs", runs=1, blocks=1, crashes=2),
    Scenario(name="stale-blocks", messages=2, blocks=1, faults=1, fates=("limited",)),
    Scenario(
        name="expires-in-prepare",
        ttl_ms=3_000,
        prepares=True,
        prepare_ms=4_000,
        crashes=0,
    ),
    Scenario(name="keyed-two-faults", faults=2, crashes=0),
    Scenario(name="store-twice", store_faults=2, crashes=1),
    Scenario(name="store", parts=2, store_faults=1, crashes=1),
    Scenario(name="store-lookup", classes=_L, store_faults=2, crashes=0),
    Scenario(name="store-prepare", classes=(), prepares=True, store_faults=1),
    Scenario(name="expiry", ttl_ms=3_000, faults=2, fates=("refused", "landed")),
    Scenario(name="expired-while-down", ttl_ms=3_000, down_ms=4_000),
    Scenario(name="old-while-down", age_ms=3_000, down_ms=4_000),
    Scenario(name="old-blind", classes=(), age_ms=3_000, parts=2, down_ms=4_000),
    Scenario(name="expired-prepared", ttl_ms=3_000, down_ms=4_000, prepares=True),
    Scenario(name="window", window_ms=12_000, faults=2, down_ms=13_000),
    Scenario(name="window-lookup", classes=_KL, window_ms=12_000, down_ms=13_000),
    Scenario(name="budget", attempts=2, faults=3, fates=("refused", "lost"), crashes=0),
    Scenario(name="budget-crash", attempts=2, crashes=3, prepares=True),
    Scenario(
        name="resend-budget",
        classes=(),
        policy=_RESEND,
        resends=9,
        attempts=2,
        crashes=3,
    ),
    Scenario(name="deaths", deaths=2, crashes=3, prepares=True),
    Scenario(name="poison", poison=True, messages=2, lanes=2, deaths=2),
    Scenario(name="poison-lane", poison=True, messages=2, blocks=1, deaths=2),
    Scenario(
        name="poison-three", poison=True, messages=3, lanes=3, deaths=1, crashes=0
    ),
    Scenario(name="poison-unheld", poison=True, unholds=2, deaths=2),
    Scenario(name="poison-abort", poison=True, abort=True, deaths=2, crashes=0),
    Scenario(name="refused", faults=1, fates=_WEIRD, messages=2),
    Scenario(name="part-refused", parts=3, faults=2, fates=("barred", "landed")),
    Scenario(name="zombie", zombies=1, crashes=0),
    Scenario(name="zombie-two", messages=2, zombies=1, crashes=0),
    Scenario(name="zombie-fault", classes=(), zombies=1, crashes=0, faults=1),
    Scenario(name="zombie-resend", classes=(), policy=_RESEND, zombies=1, crashes=1),
    Scenario(name="client", client=True, crashes=0),
    Scenario(name="client-abort", client=True, abort=True, crashes=0),
)
# Larger scenarios: more crashes, more messages, every order of the programs.
LARGE: Final = (
    Scenario(name="keyed-three-crashes", parts=3, crashes=3, faults=1),
    Scenario(name="lookup-three-crashes", classes=_L, parts=3, crashes=3, faults=1),
    Scenario(name="blind-three-crashes", classes=(), parts=3, crashes=3, faults=1),
    Scenario(name="both-three-crashes", classes=_KL, parts=2, crashes=3, faults=1),
    Scenario(name="resend-three", classes=(), policy=_RESEND, crashes=3, faults=1),
    Scenario(name="marked-three", classes=(), policy=_MARKED, crashes=3, faults=1),
    Scenario(name="drop-three", classes=(), policy=_DROP, parts=2, crashes=3, faults=1),
    Scenario(name="prepare-three", parts=2, prepares=True, crashes=3, faults=1),
    Scenario(name="prepare-lookup", classes=_L, prepares=True, crashes=3, faults=1),
    Scenario(name="abort-two", parts=2, abort=True, crashes=2, faults=1),
    Scenario(name="abort-lookup-two", classes=_L, abort=True, crashes=2, faults=1),
    Scenario(name="abort-prepare-two", prepares=True, abort=True, crashes=2, faults=1),
    Scenario(name="abort-blind-two", classes=(), abort=True, crashes=2, faults=1),
    Scenario(name="messages", messages=2, parts=2, crashes=2),
    Scenario(name="messages-blocks", messages=2, blocks=1, crashes=2),
    Scenario(name="messages-lookup", classes=_L, messages=2, crashes=2, faults=1),
    Scenario(name="messages-blind", classes=(), messages=2, crashes=2, faults=1),
    Scenario(name="not-resumed-fault", resumes=False, blocks=1, crashes=2, faults=1),
    Scenario(name="store-crash", parts=2, store_faults=2, crashes=2),
    Scenario(name="store-blind", classes=(), parts=2, store_faults=2, crashes=1),
    Scenario(name="store-fault", classes=_L, store_faults=1, crashes=1, faults=1),
    Scenario(name="expiry-lookup", classes=_L, ttl_ms=3_000, faults=2, crashes=2),
    Scenario(name="expiry-blind", classes=(), ttl_ms=3_000, faults=2, crashes=2),
    Scenario(name="window-crash", window_ms=12_000, crashes=2, faults=2),
    Scenario(name="budget-lookup", classes=_L, attempts=2, faults=3, crashes=1),
    Scenario(name="orders", messages=2, lanes=2, interleave=True, crashes=0),
    Scenario(name="orders-crash", messages=2, lanes=2, interleave=True, crashes=1),
    Scenario(name="orders-blocks", blocks=2, interleave=True, crashes=1),
    Scenario(name="orders-abort", blocks=1, interleave=True, abort=True, crashes=0),
    Scenario(name="client-crash", client=True, crashes=1),
    Scenario(name="client-abort-crash", client=True, abort=True, crashes=1),
    Scenario(name="client-orders", client=True, blocks=1, interleave=True, crashes=0),
    Scenario(name="client-fault", client=True, abort=True, faults=1, crashes=0),
    Scenario(name="zombie-lookup", classes=_L, zombies=1, crashes=0, faults=1),
    Scenario(name="zombie-prepare", zombies=1, prepares=True, crashes=0),
    _paused("paused"),
    _paused("paused-lookup", classes=_L),
    _paused("paused-blind", classes=()),
    _paused("paused-prepare", prepares=True),
    _paused("paused-abort", abort=True),
    _paused("paused-crash", crashes=1),
    _paused("paused-fault", faults=1),
    _paused("paused-blind-fault", classes=(), faults=1),
)
MATRIX: Final = (*SMALL, *LARGE)


def _without(assumption: Assumption, **more: Any) -> Scenario:
    return Scenario(name=f"without-{assumption}", dropped=assumption, **more)


_SHORT: Final = {"window_ms": 12_000, "fates": ("landed",)}
# One scenario for each assumption: without it a part is accepted twice, with it none
# is.
ASSUMPTIONS: Final = (
    _without(Assumption.FSYNC, classes=(), crashes=2),
    _without(Assumption.KEY, crashes=1),
    _without(Assumption.CLOCK, window_ms=12_000, down_ms=13_000),
    _without(Assumption.SETTLE, classes=_L, crashes=1),
    _without(Assumption.HUNG, classes=_L, faults=1, fates=("hung",), crashes=0),
    _without(Assumption.LOCK, classes=_L, zombies=1, pauses=True, crashes=0),
    _without(Assumption.PROMPT, faults=1, crashes=0, **_SHORT),
)


def named(name: str) -> Scenario:
    """A row of the matrix."""
    return next(scenario for scenario in MATRIX if scenario.name == name)
