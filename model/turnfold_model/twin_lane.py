"""The twin of `specs/Lane.tla`, by hand, action by action. Entries count from 0 here."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

MODULE: Final = "Lane"
ACTIONS: Final = frozenset(
    [
        "Queued",
        "Attempted",
        "Delivered",
        "FailedRetryable",
        "DeferredByRoute",
        "DeferredByAccount",
        "Doubted",
        "Parked",
        "Failed",
        "LaneYielded",
        "Aborted",
        "Resolved",
        "GateOpened",
        "Crash",
        "Recovered",
    ]
)


class Lanes(NamedTuple):
    """The variables of the module."""

    phase: tuple[str, ...]
    yielded: tuple[bool, ...]
    first: tuple[int, ...]
    gate: tuple[bool, ...]
    left: int
    crashes: int
    queued: int = 0
    sent: int = 0
    account: bool = True
    alive: bool = True


Constants = Mapping[str, Any]
Steps = Iterator[tuple[str, Lanes]]


def start(constants: Constants) -> Lanes:
    """`Init`."""
    entries, lanes = constants["Entries"], constants["Lanes"]
    return Lanes(
        phase=("none",) * entries,
        yielded=(False,) * entries,
        first=(0,) * entries,
        gate=(True,) * lanes,
        left=constants["Faults"],
        crashes=constants["Crashes"],
    )


def _at(values: tuple[Any, ...], index: int, value: object) -> tuple[Any, ...]:
    return (*values[:index], value, *values[index + 1 :])


def _lane(constants: Constants, entry: int) -> int:
    lane: int = (entry + 1) % constants["Lanes"]
    return lane


def _ahead(constants: Constants, entry: int) -> Iterator[int]:
    mine = _lane(constants, entry)
    return (e for e in range(entry) if _lane(constants, e) == mine)


def steps(constants: Constants, s: Lanes) -> Steps:
    """`Next`."""
    if s.queued < constants["Entries"]:
        phase = _at(s.phase, s.queued, "queued")
        yield "Queued", s._replace(queued=s.queued + 1, phase=phase)
    for entry in range(s.queued):
        yield from _outcomes(constants, s, entry)
        yield from _waiting(constants, s, entry)
    yield from _surroundings(s)


def _to(s: Lanes, entry: int, phase: str, *, spend: int = 0) -> Lanes:
    return s._replace(phase=_at(s.phase, entry, phase), left=s.left - spend)


def _yields(s: Lanes, entry: int) -> Lanes:
    return s._replace(yielded=_at(s.yielded, entry, True))


def _outcomes(constants: Constants, s: Lanes, entry: int) -> Steps:
    if not s.alive:
        return
    if s.phase[entry] in ("dispatched", "in_doubt", "parked"):
        yield "Delivered", _to(s, entry, "delivered")
    if s.phase[entry] == "dispatched" and s.left:
        yield "FailedRetryable", _to(s, entry, "retryable", spend=1)
        again = _to(s, entry, "queued", spend=1)
        gate = _at(s.gate, _lane(constants, entry), False)
        yield "DeferredByRoute", again._replace(gate=gate)
        yield "DeferredByAccount", again._replace(account=False)
        yield "Doubted", _to(s, entry, "in_doubt", spend=1)
    if (
        s.phase[entry] in ("queued", "dispatched", "in_doubt", "retryable", "parked")
        and s.left
    ):
        yield "Failed", _yields(_to(s, entry, "failed", spend=1), entry)
    if s.phase[entry] == "in_doubt":
        yield "Parked", _yields(_to(s, entry, "parked"), entry)


def _waiting(constants: Constants, s: Lanes, entry: int) -> Steps:
    phase = s.phase[entry]
    if phase in ("queued", "retryable"):
        if s.alive and _may_go(constants, s, entry):
            yield "Attempted", _dispatched(s, entry)
        if s.left:
            yield "Aborted", _to(s, entry, "aborted", spend=1)
    if s.alive and phase == "retryable" and not s.yielded[entry]:
        yield "LaneYielded", _yields(s, entry)
    if s.alive and phase == "parked" and s.left:
        yield "Resolved", _to(s, entry, "retryable", spend=1)


def _may_go(constants: Constants, s: Lanes, entry: int) -> bool:
    if not (s.account and s.gate[_lane(constants, entry)]):
        return False
    passed = (
        s.phase[e] in ("delivered", "aborted") or s.yielded[e]
        for e in _ahead(constants, entry)
    )
    return not constants["Ordered"] or all(passed)


def _dispatched(s: Lanes, entry: int) -> Lanes:
    s = _to(s, entry, "dispatched")
    if s.first[entry]:
        return s
    return s._replace(sent=s.sent + 1, first=_at(s.first, entry, s.sent + 1))


def _surroundings(s: Lanes) -> Steps:
    for lane, is_open in enumerate(s.gate):
        if not is_open:
            yield "GateOpened", s._replace(gate=_at(s.gate, lane, True))
    if not s.account:
        yield "GateOpened", s._replace(account=True)
    if s.alive and s.crashes:
        yield "Crash", s._replace(alive=False, crashes=s.crashes - 1)
    if not s.alive:
        phase = tuple("in_doubt" if p == "dispatched" else p for p in s.phase)
        yield "Recovered", s._replace(alive=True, phase=phase)


def wrong(constants: Constants, s: Lanes) -> str:
    """The first safety property that does not hold, or nothing."""
    for later in range(s.queued):
        for earlier in _ahead(constants, later):
            before = 0 < s.first[earlier] < s.first[later]
            excused = s.yielded[earlier] or s.phase[earlier] == "aborted"
            if s.first[later] and not (before or excused):
                return "InOrder"
            both = s.phase[earlier] == s.phase[later] == "dispatched"
            if both and not (s.yielded[earlier] or s.yielded[later]):
                return "OneAtATime"
    return ""
