"""The log of an entry of class editable as a behaviour of `specs/Live.tla`; see
`trace_entry`. Previews leave nothing in a log, nor does a message that is taken back."""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from turnfold_model.reference.kinds import Record
from turnfold_model.reference.shapes import FAILURES, Entry, Part
from turnfold_model.tla.trace import OutsideError, Step, Trace
from turnfold_model.tla.trace_entry import entry_states

MODULE: Final = "Live"
SILENT: Final = frozenset(
    {
        *("Lands", "Vanishes", "Removed", "Crash", "Retracted"),
        *("Preview", "Shown", "PreviewLost"),
    }
)
ACTIONS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "placeholder": frozenset({"Placeholder"}),
        "edit": frozenset({"Edit"}),
        "placed": frozenset({"Placed", "LatePlaced"}),
        "stray": frozenset({"Stray"}),
        "planned": frozenset({"Sealed"}),
        "delivered": frozenset({"Delivered"}),
        "late_receipt": frozenset({"LateReceipt"}),
        "deferred": frozenset({"Deferred"}),
        "failed_retryable": frozenset({"Refused"}),
        "cancelled": frozenset({"Refused"}),
        "refused_in_doubt": frozenset({"Refused"}),
        "handle_gone": frozenset({"HandleGone"}),
        "owner_died": frozenset({"OwnerDied"}),
        "unknown": frozenset({"AnswerLost", "NoAnswer"}),
        "permanent": frozenset({"FailedPermanent"}),
        "parked": frozenset({"Parked"}),
        "expired": frozenset({"Expired"}),
        "exhausted": frozenset({"Exhausted"}),
        "given_up": frozenset({"Exhausted", "Expired", "GivenUp"}),
        "abort_requested": frozenset({"AbortRequested"}),
        "aborted": frozenset({"Aborted"}),
    }
)
TROUBLE: Final = frozenset(
    {
        *("deferred", "failed_retryable", "cancelled", "owner_died", "unknown"),
        *("refused_in_doubt", "permanent", "handle_gone"),
    }
)
_ENDS: Final = MappingProxyType(
    {
        "expired": "expired",
        "too_old": "expired",
        "attempts_exhausted": "exhausted",
        "permanent": "permanent",
    }
)
_STILL: Final = frozenset({"rescheduled", "acknowledged", "lane_yielded", "redacted"})


class Log(NamedTuple):
    """The module's log variables; a log does not number its messages, so `handle` is
    whether one stands."""

    phase: str = "queued"
    handle: bool = False
    sealed: bool = False
    att: int = 0
    used: int = 0
    doubt: bool = False
    remade: bool = False
    abort: bool = False
    reason: str = "none"


def is_of_it(events: Iterable[Record]) -> bool:
    """Some attempt of the entry was one that only the class editable makes."""
    return any(event["data"].get("act") in ("placeholder", "edit") for event in events)


def project(events: Iterable[Record]) -> Trace:
    """The trace of one entry's stream. Raises OutsideError."""
    steps: list[Step] = []
    last: Entry | None = None
    for event, before, last in entry_states(events):
        if before is not None:
            steps += _steps(event, before, last)
    if last is None:
        why = "never queued"
        raise OutsideError(why)
    return Trace(MODULE, _constants(last), tuple(steps))


def _constants(entry: Entry) -> tuple[tuple[str, object], ...]:
    if len(entry.parts) > 1:
        why = "edits among several parts"
        raise OutsideError(why)
    part = entry.parts[0]
    policy = part.policy or entry.policy or "hold"
    if policy != "hold":
        why = f"policy {policy}"
        raise OutsideError(why)
    return ("Grows", entry.live), ("Budget", entry.budget or 1)


def _steps(event: Record, before: Entry, after: Entry) -> Iterator[Step]:
    name, data = str(event["kind"]).partition(".")[2], event["data"]
    if name in _STILL or (name == "planned" and not before.live):
        return
    word, then = _word(name, data, before), _seen(after)
    if after.phase == "attempted":
        why = "a part that is prepared"
        raise OutsideError(why)
    if word == "aborted" and not before.abort:
        yield Step("abort_requested", _seen(before)._replace(abort=True))
    if name == "failed_terminal" and before.phase == "dispatched":
        yield from _outcome_first(word, before)
    yield Step(word, then)


def _act(data: Record) -> str:
    act = str(data.get("act", "whole"))
    if act not in ACTIONS:
        why = "whole by one class, and edited by another"
        raise OutsideError(why)
    return act


def _word(name: str, data: Record, before: Entry) -> str:
    cause = data.get("failure") or data.get("cause")
    match name:
        case "attempted":
            return _act(data)
        case "placed" if data.get("stray"):
            return "stray"
        case "delivered":
            return "late_receipt" if data.get("by") else "delivered"
        case "failed_retryable" | "unknown" if cause in (
            *("owner_died", "cancelled", "handle_gone"),
        ):
            return str(cause)
        case "unknown" if cause == "shutdown":
            why = "a stop"
            raise OutsideError(why)
        case "unknown" if cause in FAILURES:
            return "refused_in_doubt"
        case "failed_terminal" if before.doubt:
            return "expired" if data["reason"] == "expired" else "given_up"
        case "failed_terminal":
            return _ENDS.get(data["reason"], "given_up")
        case _:
            if name in ACTIONS:
                return name
            raise OutsideError(name)


def _outcome_first(word: str, before: Entry) -> Iterator[Step]:
    """The attempt's own outcome, which the kernel does not write when it is the last."""
    if before.doubt:
        yield Step("refused_in_doubt", _seen(before)._replace(phase="in_doubt"))
    elif word != "permanent":
        yield Step("failed_retryable", _seen(before)._replace(phase="retryable"))


def _seen(entry: Entry) -> Log:
    part, phase, reason = entry.parts[0], entry.phase, "none"
    if phase == "failed":
        reason = "unknown" if entry.reason == "outcome_unknown" else "no"
    return Log(
        phase=phase,
        handle=part.placed,
        sealed=entry.planned or not entry.live,
        att=part.attempts,
        used=part.used,
        doubt=_doubt(entry, part),
        remade=part.remade,
        abort=entry.abort or phase == "aborted",
        reason=reason,
    )


def _doubt(entry: Entry, part: Part) -> bool:
    return part.doubt and entry.phase != "delivered"
