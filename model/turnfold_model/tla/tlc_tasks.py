"""The modules that TLC checks, with their constants and purposes."""

from dataclasses import replace
from typing import Any, Final

from turnfold_model.tla.tlc import Task

# The assumption and the guards of a live reply, all in place.
LIVE_GUARDS: Final = dict.fromkeys(
    (
        *("Quiet", "SealWaits", "FinalWaits", "EditsAgain", "RemadeOnce"),
        *("HandleStays", "DoubtStays"),
    ),
    True,
)
# The assumptions and guards of an entry; the last five are of its classes.
ENTRY_GUARDS: Final = dict.fromkeys(
    (
        *("HonoursKey", "Settles", "Skew", "Prompt"),
        *("PlanCounts", "OfferCounts", "WindowCounts", "WholeStays"),
    ),
    True,
)
TURN_GUARDS: Final = dict.fromkeys(("Holds", "AloneOnly", "Unanswered"), True)
BUSY_GUARDS: Final = dict.fromkeys(
    (
        *("JoinsWhole", "KeyGoesAlong", "StopsAll", "Heeds", "AnswersOnce"),
        *("Leaves", "Memo"),
    ),
    True,
)
# The assumptions and guards of ownership; those with a rule of the same meaning in
# `ownership_model.world.Rules` come first.
LEASE_RULES: Final = {
    "TokenChecked": "token_checked",
    "TokenAfterDoubt": "token_after_unknown_fate",
    "AskedKept": "asked_tokens_are_known",
    "TokenAfterTake": "token_after_take",
    "TokenAfterHandOver": "token_after_hand_over",
    "ProofOfDeath": "proof_of_death",
    "TokenCompared": "token_compared",
    "LivingTakes": "living_takes",
    "TrueWords": "true_certificates",
    "GoodbyeLast": "goodbye_last",
    "QuietHandOver": "hands_over_quiet",
    "DurableFirst": "durable_before_wire",
    "DoubtStays": "doubt_is_not_failure",
    "BlindParks": "blind_parks",
    "AbsenceWaits": "absence_waits",
    "PromisesKept": "promised_keys_are_taken",
    "KeysKept": "logged_keys_are_taken",
    "LeavesInbox": "leaves_the_inbox",
    "NoLongSleep": "no_long_sleep",
}
# What the lack of a guard breaks, in both models if both have it; all others break O5.
LEASE_BREAKS: Final = {
    **dict.fromkeys(("TokenChecked", "TokenAfterDoubt", "TokenAfterHandOver"), "O4"),
    **dict.fromkeys(("TokenAfterTake", "OwnerChecked"), "O1"),
    "PlaceChecked": "O2",
    "DeadStays": "O3",
    "HeadCompared": "O10",
    "AskedKept": "O11",
    "SilenceEnds": "liveness",  # O8
    **dict.fromkeys(("PromisesKept", "KeysKept", "LeavesInbox"), "O9"),
}
LEASE_GUARDS: Final = dict.fromkeys(
    (
        *LEASE_RULES,
        *("OwnerChecked", "PlaceChecked", "DeadStays", "SilenceEnds"),
        *("WatchdogKills", "HeadCompared", "RestoredHeld"),
    ),
    True,
)
_INVARIANTS: Final = {
    "Entry": (
        "TypeOK",
        "NoDoubleSend",
        "WriteAhead",
        "Proven",
        "InOrder",
        "Counted",
        "Truthful",
        "Whole",
        "NotTaken",
        "NothingLeft",
    ),
    "Live": (
        "TypeOK",
        "Once",
        "WriteAhead",
        "Proven",
        "Counted",
        "Truthful",
        "NotEarly",
        "Twice",
    ),
    "Turn": (
        "TypeOK",
        "OneTurn",
        "OwedNothing",
        "Follows",
        "NoticedOnce",
        "Fenced",
        "OneRun",
        "InTime",
        "Innocent",
    ),
    "Lane": ("TypeOK", "InOrder", "OneAtATime", "Numbered"),
    "Busy": ("TypeOK", "Heard", "Once", "OneAnswer", "SaidOnce", "Newest"),
    "Lease": ("TypeOK", "O1", "O2", "O4", "O5", "O6", "O7", "O9", "O10", "O11"),
}
_PROPERTIES: Final = {
    "Entry": ("NumbersGrow", "AfterAbort", "Settled"),
    "Live": ("AnswerStays", "AfterAbort", "Settled"),
    "Turn": ("DoubtKept", "AnsweredOnce", "RunsGrow", "Ended"),
    "Lane": ("HeldBack", "Settled"),
    "Busy": ("StaysOver", "OpenWaits", "Ended"),
    "Lease": ("O3", "Grows", "O8"),
}


def _task(module: str, **constants: Any) -> Task:
    return Task(
        module=module,
        constants=constants,
        invariants=_INVARIANTS[module],
        properties=_PROPERTIES[module],
    )


def _entry(
    plan: str, parts: int, faults: int, offers: str = "", **changes: bool
) -> Task:
    """`offers`: the classes of the channel that is attached later; none is."""
    return _task(
        "Entry",
        Parts=parts,
        Budget=2,
        Faults=faults,
        Plan=plan,
        Offers=offers or plan,
        **{"Ages": "+" in plan, **ENTRY_GUARDS, **changes},
    )


def _live(faults: int, *, grows: bool, budget: int = 2, **changes: bool) -> Task:
    values: dict[str, Any] = {**LIVE_GUARDS, **changes}
    return _task("Live", Grows=grows, Budget=budget, Faults=faults, **values)


def _turn(runs: int, faults: int, **changes: bool) -> Task:
    values: dict[str, Any] = {
        "Doubtful": True,
        "Locked": True,
        **TURN_GUARDS,
        **changes,
    }
    return _task("Turn", Runs=runs, Faults=faults, MaxAlone=2, **values)


def _lane(entries: int, lanes: int, faults: int, *, ordered: bool = True) -> Task:
    return _task(
        "Lane", Entries=entries, Lanes=lanes, Faults=faults, Crashes=1, Ordered=ordered
    )


def _busy(messages: int, faults: int, **changes: bool) -> Task:
    values: dict[str, Any] = {**BUSY_GUARDS, **changes}
    return _task("Busy", Messages=messages, Faults=faults, **values)


def _lease(cls: str, faults: int = 1, **changes: Any) -> Task:
    values: dict[str, Any] = {
        "Lives": 2,
        "Shards": 1,
        "Class": cls,
        "Records": 8,
        "Faults": faults,
        "Failovers": 0,
        **LEASE_GUARDS,
        **changes,
    }
    task = _task("Lease", **values)
    if cls == "none" and not faults and not values["Failovers"]:
        return task
    # O8 is no matter of the message, and liveness of a larger world takes long.
    return replace(task, properties=("O3", "Grows"))


# Each guard of ownership that is taken away, in a small world that misses it.
_LEASE_BROKEN: Final = [
    *(
        _lease("none", 1, Records=2, **{name: False})
        for name in ("TokenChecked", "TokenAfterDoubt", "TokenAfterTake", "DeadStays")
    ),
    *(
        _lease("none", 2, Records=2, **{name: False})
        for name in ("TokenAfterHandOver", "AskedKept")
    ),
    *(
        _lease("none", 0, Records=2, Failovers=1, **{name: False})
        for name in ("OwnerChecked", "PlaceChecked", "HeadCompared")
    ),
    _lease("none", 0, Records=2, SilenceEnds=False),
    *(
        _lease("lookup", 0, Records=4, **{name: False})
        for name in (
            *("TokenCompared", "LivingTakes", "ProofOfDeath", "TrueWords"),
            *("NoLongSleep", "WatchdogKills", "GoodbyeLast", "DurableFirst"),
            *("DoubtStays", "AbsenceWaits"),
        )
    ),
    _lease("lookup", 1, Records=4, QuietHandOver=False),
    _lease("blind", 0, Records=4, BlindParks=False),
    _lease("blind", 0, Records=3, Failovers=1, RestoredHeld=False),
    *(
        _lease("inbox", 0, Records=3, **{name: False})
        for name in ("PromisesKept", "KeysKept", "LeavesInbox")
    ),
]
# Small ones first; each ends in seconds.
SOUND: Final = [
    *(_entry(cls, 2, 2) for cls in ("keyed", "lookup", "blind")),
    _entry("keyed+lookup", 2, 1),
    _entry("keyed+lookup", 1, 2, "keyed"),
    _entry("keyed+lookup", 1, 2, "lookup"),
    _entry("keyed", 1, 2, "keyed+lookup"),
    _entry("lookup", 1, 2, "keyed"),
    _entry("blind", 1, 2, "keyed+lookup"),
    *(_entry(f"{cls}+editable", 2, 2) for cls in ("keyed", "lookup")),
    *(
        _entry(f"{cls}+editable", 1, 3, offers)
        for cls in ("keyed", "lookup")
        for offers in (cls, "editable", "blind")
    ),
    _entry("keyed", 1, 2, "keyed+editable"),
    *(_live(2, grows=grows) for grows in (False, True)),
    _turn(2, 2),
    _turn(2, 2, Locked=False),
    _lane(3, 1, 2),
    _lane(3, 2, 2),
    _busy(3, 1),
    _lease("none", 0, Shards=2, Records=0),
    *(_lease(cls, 0, Records=4) for cls in ("keyed", "lookup", "blind", "inbox")),
    _lease("none", 2, Records=2),
    _lease("none", 0, Records=2, Failovers=1),
]
_LARGE: Final = [
    *(_entry(cls, 3, 4) for cls in ("keyed", "lookup", "blind")),
    *(_live(3, grows=grows, budget=3) for grows in (False, True)),
    _turn(3, 4),
    _turn(3, 3, Locked=False),
    _turn(3, 3, Doubtful=False),
    _lane(3, 2, 3),
    _lease("lookup", 1, Records=6),
    _lease("blind", 0, Records=4, Failovers=1),
]
# The small worlds take every action but one of Turn.
LARGE: Final = [
    replace(task, large=True, counted=task.module == "Turn") for task in _LARGE
]
# An assumption or a guard is taken away: TLC must find a violation.
_BROKEN: Final = [
    _entry("keyed", 1, 2, HonoursKey=False),
    _entry("lookup", 1, 2, Settles=False),
    _entry("lookup", 1, 2, Skew=False),
    _entry("keyed+lookup", 1, 2, Prompt=False),
    _entry("keyed+lookup", 1, 2, WindowCounts=False),
    _entry("blind", 1, 2, "keyed", PlanCounts=False),
    _entry("keyed", 1, 2, "lookup", PlanCounts=False),
    _entry("keyed", 1, 2, "blind", OfferCounts=False),
    _entry("keyed+lookup", 1, 2, "lookup", OfferCounts=False),
    _entry("keyed+editable", 1, 2, WholeStays=False),
    _entry("lookup+editable", 1, 2, "editable", WholeStays=False),
    _entry("keyed+editable", 1, 2, "keyed", OfferCounts=False),
    *(_live(1, grows=True, **{name: False}) for name in ("Quiet", "SealWaits")),
    *(
        _live(2, grows=False, budget=3, **{name: False})
        for name in LIVE_GUARDS
        if name not in ("Quiet", "SealWaits")
    ),
    *(_turn(1, 4, **{name: False}) for name in TURN_GUARDS),
    _lane(2, 1, 1, ordered=False),
    *(_busy(2, 1, **{name: False}) for name in BUSY_GUARDS),
    *_LEASE_BROKEN,
]
# How often an action is taken before the violation tells nothing.
BROKEN: Final = [replace(task, counted=False) for task in _BROKEN]
# Without fairness nothing need ever happen, and TLC must say so.
UNFAIR: Final = [
    replace(task, specification="Unfair", counted=False)
    for task in (
        _entry("keyed", 1, 1),
        _live(1, grows=True),
        _turn(1, 1),
        _lane(1, 1, 1),
        _busy(1, 1),
        _lease("none", 0, Records=1),
    )
]
