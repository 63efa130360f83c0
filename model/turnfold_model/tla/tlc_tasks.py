"""The modules that TLC checks, with their constants and purposes."""

from dataclasses import replace
from typing import Any, Final

from turnfold_model.tla.tlc import Task

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
    "Turn": (
        "TypeOK",
        "OneTurn",
        "OwedNothing",
        "Follows",
        "NoticedOnce",
        "Fenced",
        "OneRun",
    ),
    "Lane": ("TypeOK", "InOrder", "OneAtATime", "Numbered"),
}
_PROPERTIES: Final = {
    "Entry": ("NumbersGrow", "AfterAbort", "Settled"),
    "Turn": ("DoubtKept", "AnsweredOnce", "RunsGrow", "Ended"),
    "Lane": ("HeldBack", "Settled"),
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


def _turn(runs: int, faults: int, **changes: bool) -> Task:
    values: dict[str, Any] = {"Doubtful": True, "Locked": True, **changes}
    return _task("Turn", Runs=runs, Faults=faults, **values)


def _lane(entries: int, lanes: int, faults: int, *, ordered: bool = True) -> Task:
    return _task(
        "Lane",
        Entries=entries,
        Lanes=lanes,
        Faults=faults,
        Crashes=1,
        Ordered=ordered,
    )


# Small ones first; each ends in seconds.
SOUND: Final = [
    *(_entry(cls, 2, 2) for cls in ("keyed", "lookup", "blind")),
    _turn(2, 2),
    _turn(2, 2, Locked=False),
    _lane(3, 1, 2),
    _lane(3, 2, 2),
]
LARGE: Final = [
    *(_entry(cls, 3, 4) for cls in ("keyed", "lookup", "blind")),
    _turn(3, 4),
    _turn(3, 4, Locked=False),
    _turn(3, 3, Doubtful=False),
    _lane(3, 2, 4),
]
# An assumption or a guard is taken away: TLC must find a violation.
BROKEN: Final = [
    _entry("keyed", 1, 2, HonoursKey=False),
    _entry("lookup", 1, 2, Settles=False),
    _entry("lookup", 1, 2, Skew=False),
    _lane(2, 1, 1, ordered=False),
]
# Without fairness nothing need ever happen, and TLC must say so.
UNFAIR: Final = [
    replace(task, specification="Unfair")
    for task in (_entry("keyed", 1, 1), _turn(1, 1), _lane(1, 1, 1))
]
