"""The entries of one lane as a behaviour of `specs/Lane.tla`; see `trace_entry`.

Whether an attempt under way is in doubt makes no difference to a lane, so attempted,
dispatched and in_doubt are one here, and a change between them is no step. Gates open by
the clock, which no log shows; a head that is parked or failed yields in the same step,
as in the module.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from turnfold_model.edge_walks.edges import Edge
from turnfold_model.reference.kinds import Record
from turnfold_model.tla.trace import OutsideError, Step, Trace

MODULE: Final = "Lane"
SILENT: Final = frozenset({"GateOpened", "Doubted", "Crash", "Recovered"})
ACTIONS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "queued": frozenset({"Queued"}),
        "attempted": frozenset({"Attempted"}),
        "delivered": frozenset({"Delivered"}),
        "failed_retryable": frozenset({"FailedRetryable"}),
        "deferred": frozenset({"DeferredByRoute", "DeferredByAccount"}),
        "placed": frozenset({"Placed"}),
        "parked": frozenset({"Parked"}),
        "failed_terminal": frozenset({"Failed"}),
        "lane_yielded": frozenset({"LaneYielded"}),
        "aborted": frozenset({"Aborted"}),
        "resolved": frozenset({"Resolved"}),
    }
)
TROUBLE: Final = frozenset(
    {
        *("failed_retryable", "deferred", "failed_terminal", "aborted", "resolved"),
        "placed",
        "parked",  # it was in doubt before
    }
)
_UNDER_WAY: Final = frozenset({"attempted", "dispatched", "in_doubt"})
_STILL: Final = frozenset(
    {
        *("planned", "dispatched", "unknown", "abort_requested", "rescheduled"),
        *("acknowledged", "bounced", "redacted"),
    }
)
_LATER: Final = "an entry that is not to go before its time"


class Log(NamedTuple):
    """The module's variables, as far as a log tells them."""

    queued: int = 0
    phase: tuple[str, ...] = ()
    yielded: tuple[bool, ...] = ()


def project(events: Iterable[tuple[Edge, Record]]) -> Trace:
    """The trace of one lane: the events of all its entries. Raises OutsideError."""
    known = list(events)
    names = [str(e["stream"]) for edge, e in known if edge.event == "queued"]
    size = len(names)
    log = Log(0, ("none",) * size, (False,) * size)
    steps: list[Step] = []
    for edge, event in known:
        if event["stream"] not in names:
            raise OutsideError(edge.event)
        word = _word(edge, event["data"])
        if event["data"].get("behind") and _somebody_waits(log):
            raise OutsideError("a notice that passes another entry")
        if word:
            log = _after(log, names.index(str(event["stream"])), edge, word)
            steps.append(Step(word, log))
    constants = ("Entries", size), ("Lanes", 1), ("Ordered", True)
    return Trace(MODULE, constants, tuple(steps))


def _somebody_waits(log: Log) -> bool:
    over = ("none", "delivered", "failed", "aborted")
    pairs = zip(log.phase, log.yielded, strict=True)
    return any(phase not in over and not passed for phase, passed in pairs)


def _word(edge: Edge, data: Record) -> str:
    """The meaning of the event for the lane; nothing if the lane does not notice."""
    name, before, after = edge.event, edge.source, edge.target
    if name == "lane_yielded" and before == "queued":
        if data.get("reason") == "live":
            return name
        raise OutsideError(_LATER)
    if name == "placed" and before == after:
        return ""  # one too many
    if (
        name in _STILL
        or before == after != "retryable"
        or {before, after} <= _UNDER_WAY
    ):
        return ""
    if (
        name == "late_receipt"
        and after == "delivered"
        and before in (*_UNDER_WAY, "parked")
    ):
        return "delivered"
    if name == "reconciled":
        return "failed_retryable"  # proven absent: it will be tried again
    if name == "resolved" and (before, after) != ("parked", "retryable"):
        raise OutsideError(name)
    if name not in ACTIONS:
        raise OutsideError(name)
    return name


def _after(log: Log, index: int, edge: Edge, word: str) -> Log:
    phase, yielded = list(log.phase), list(log.yielded)
    phase[index] = "dispatched" if edge.target in _UNDER_WAY else edge.target
    yielded[index] |= word in ("parked", "failed_terminal", "lane_yielded")
    queued = log.queued + (word == "queued")
    return Log(queued, tuple(phase), tuple(yielded))
