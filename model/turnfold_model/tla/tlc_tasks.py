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
TURN_GUARDS: Final = dict.fromkeys(("Holds", "AloneOnly", "Unanswered"), True)
BUSY_GUARDS: Final = dict.fromkeys(
    (
        *("JoinsWhole", "KeyGoesAlong", "StopsAll", "Heeds", "AnswersOnce"),
        *("Leaves", "Memo"),
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
}
_PROPERTIES: Final = {
    "Entry": ("NumbersGrow", "AfterAbort", "Settled"),
    "Live": ("AnswerStays", "AfterAbort", "Settled"),
    "Turn": ("DoubtKept", "AnsweredOnce", "RunsGrow", "Ended"),
    "Lane": ("HeldBack", "Settled"),
    "Busy": ("StaysOver", "OpenWaits", "Ended"),
}


def _task(module: str, **constants: Any) -> Task:
    return Task(
        module=module,
        constants=constants,
        invariants=_INVARIANTS[module],
        properties=_PROPERTIES[module],
    )


def _entry(cls: str, parts: int, faults: int, **changes: bool) -> Task:
    assumed = {"HonoursKey": True, "Settles": True, "Skew": True}
    values: dict[str, Any] = {**assumed, **changes}
    return _task("Entry", Parts=parts, Budget=2, Faults=faults, Class=cls, **values)


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
        "Lane",
        Entries=entries,
        Lanes=lanes,
        Faults=faults,
        Crashes=1,
        Ordered=ordered,
    )


def _busy(messages: int, faults: int, **changes: bool) -> Task:
    values: dict[str, Any] = {**BUSY_GUARDS, **changes}
    return _task("Busy", Messages=messages, Faults=faults, **values)


# Small ones first; each ends in seconds.
SOUND: Final = [
    *(_entry(cls, 2, 2) for cls in ("keyed", "lookup", "blind")),
    *(_live(2, grows=grows) for grows in (False, True)),
    _turn(2, 2),
    _turn(2, 2, Locked=False),
    _lane(3, 1, 2),
    _lane(3, 2, 2),
    _busy(3, 1),
]
_LARGE: Final = [
    *(_entry(cls, 3, 4) for cls in ("keyed", "lookup", "blind")),
    *(_live(3, grows=grows, budget=3) for grows in (False, True)),
    _turn(3, 4),
    _turn(3, 3, Locked=False),
    _turn(3, 3, Doubtful=False),
    _lane(3, 2, 3),
]
LARGE: Final = [replace(task, large=True) for task in _LARGE]
# An assumption or a guard is taken away: TLC must find a violation.
BROKEN: Final = [
    _entry("keyed", 1, 2, HonoursKey=False),
    _entry("lookup", 1, 2, Settles=False),
    _entry("lookup", 1, 2, Skew=False),
    *(_live(1, grows=True, **{name: False}) for name in ("Quiet", "SealWaits")),
    *(
        _live(2, grows=False, budget=3, **{name: False})
        for name in LIVE_GUARDS
        if name not in ("Quiet", "SealWaits")
    ),
    *(_turn(1, 4, **{name: False}) for name in TURN_GUARDS),
    _lane(2, 1, 1, ordered=False),
    *(_busy(2, 1, **{name: False}) for name in BUSY_GUARDS),
]
# Without fairness nothing need ever happen, and TLC must say so.
UNFAIR: Final = [
    replace(task, specification="Unfair")
    for task in (
        _entry("keyed", 1, 1),
        _live(1, grows=True),
        _turn(1, 1),
        _lane(1, 1, 1),
        _busy(1, 1),
    )
]
