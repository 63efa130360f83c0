"""The log of an entry as a behaviour of `specs/Entry.tla`: its states, step by step.

A trace holds the module's log variables after each event, and the actions that may have
led there. One event of the kernel is two steps of the module if the first one is
invisible: an attempt that goes on the wire at once, the abort of an unsent entry, the
last failure of a budget. Only these become two steps here. An event outside the module
ends the projection with a reason: such traces are counted, not forced.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from turnfold_model.reference.judge import legal
from turnfold_model.reference.kinds import Record
from turnfold_model.reference.shapes import FAILURES, Entry
from turnfold_model.tla.trace import OutsideError, Step, Trace

MODULE: Final = "Entry"
SILENT: Final = frozenset(
    {"Lands", "Vanishes", "Crash", "Swapped", "WindowOver", "Forgets"}
)
# A word of a trace and the actions of the module that it may stand for. A word is the
# event, made sharper by the event's cause.
ACTIONS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "attempted": frozenset({"Attempted"}),
        "dispatched": frozenset({"Dispatched"}),
        "delivered": frozenset({"Delivered"}),
        "found": frozenset({"Found"}),
        "late_receipt": frozenset({"LateReceipt"}),
        "bounced": frozenset({"Bounced"}),
        "part_refused": frozenset({"PartRefused"}),
        "deferred": frozenset({"Deferred", "AbortedAttempt"}),
        "failed_retryable": frozenset({"FailedRetryable"}),
        "cancelled": frozenset({"FailedRetryable"}),
        "owner_died": frozenset({"OwnerDiedBefore", "OwnerDiedAfter"}),
        "unknown": frozenset({"AnswerLost", "NoAnswer"}),
        "refused_in_doubt": frozenset({"FailedRetryable"}),
        "reconciled": frozenset({"Absent"}),
        "parked": frozenset({"Parked", "OutOfMeans"}),
        "permanent": frozenset({"FailedPermanent"}),
        "expired": frozenset({"Expired"}),
        "exhausted": frozenset({"Exhausted"}),
        "given_up": frozenset({"Exhausted", "Expired"}),
        "abort_requested": frozenset({"AbortRequested"}),
        "aborted": frozenset({"Aborted"}),
    }
)
_ENDS: Final = MappingProxyType(
    {
        "expired": "expired",
        "too_old": "expired",  # the module has no clock: its time is over
        "attempts_exhausted": "exhausted",
        "permanent": "permanent",
        "refused": "permanent",
    }
)
# Seen by people, or for the order of a lane: the module's log does not move.
_STILL: Final = frozenset(
    {
        *("queued", "planned", "rescheduled", "acknowledged"),
        *("lane_yielded", "redacted", "tried"),
    }
)
_CLASSES: Final = MappingProxyType(
    {frozenset[str](): "blind", frozenset({"keyed"}): "keyed"}
    | {frozenset({"lookup"}): "lookup", frozenset({"keyed", "lookup"}): "keyed+lookup"}
    # An entry of these that went out whole; one with a placeholder is of `trace_live`.
    | {frozenset({one, "editable"}): f"{one}+editable" for one in ("keyed", "lookup")}
)


# The events that spend the module's faults.
TROUBLE: Final = frozenset(
    {
        *("deferred", "failed_retryable", "cancelled", "owner_died", "unknown"),
        *("refused_in_doubt", "permanent", "bounced", "part_refused"),
    }
)


class Log(NamedTuple):
    """The module's log variables."""

    phase: str = "queued"
    part: int = 0
    att: int = 0
    used: int = 0
    doubt: bool = False
    abort: bool = False
    reason: str = "none"
    spoiled: bool = False


def project(events: Iterable[Record]) -> Trace:
    """The trace of one entry's stream. Raises OutsideError."""
    steps: list[Step] = []
    last: Entry | None = None
    for event, before, last in entry_states(events):
        if before is not None:
            steps += _steps(event, before, last)
        elif event["kind"] != "outbox.queued":
            raise OutsideError(str(event["kind"]))
    if last is None or not last.planned:
        why = "never planned"
        raise OutsideError(why)
    return Trace(MODULE, _constants(last), tuple(steps))


def entry_states(
    events: Iterable[Record],
) -> Iterator[tuple[Record, Entry | None, Entry]]:
    """Each event with the entry before and after it, as the reference reads them. Raises
    OutsideError."""
    before: Entry | None = None
    for event in events:
        after = legal(before, event)
        if not isinstance(after, Entry):
            why = "an event that the reference refuses"
            raise OutsideError(why)
        yield event, before, after
        before = after


def _constants(entry: Entry) -> tuple[tuple[str, object], ...]:
    parts = entry.parts
    offers = {part.classes for part in parts}
    if len(offers) != 1 or next(iter(offers)) not in _CLASSES:
        why = "parts of several classes"
        raise OutsideError(why)
    kind = _CLASSES[next(iter(offers))]
    refused = any(part.end == "refused" for part in parts)
    if refused and len({part.kind for part in parts}) > 1:
        why = "words before files, after a refusal"
        raise OutsideError(why)
    said = {part.policy or entry.policy or "hold" for part in parts}
    if kind == "blind" and said != {"hold"}:
        why = f"policy {', '.join(sorted(said))}"
        raise OutsideError(why)
    # A log does not tell what a later channel offers: it may offer less.
    later = kind.rpartition("+")[2]
    return (
        *(("Parts", len(parts)), ("Budget", entry.budget)),
        *(("Plan", kind), ("Offers", later), ("Ages", "+" in kind)),
    )


def _steps(event: Record, before: Entry, after: Entry) -> Iterator[Step]:
    name = str(event["kind"]).partition(".")[2]
    if _is_still(event, before, after):
        return
    word, then = _word(name, event["data"], before), _seen(after)
    if word == "aborted" and before.over:
        why = "aborted when nothing was left"
        raise OutsideError(why)
    if word == "attempted" and after.phase == "dispatched":
        yield Step(word, then._replace(phase="attempted"))
        word = "dispatched"
    if word == "aborted" and not before.abort:
        yield Step("abort_requested", _seen(before)._replace(abort=True))
    if (
        name == "failed_terminal"
        and before.phase in ("attempted", "dispatched")
        and word != "permanent"
    ):
        yield from _outcome_first(before)
    yield Step(word, then)


def _is_still(event: Record, before: Entry, after: Entry) -> bool:
    """The module does not notice this event."""
    name = str(event["kind"]).partition(".")[2]
    match name:
        case "reconciled":
            return after.phase != "retryable"
        case "bounced":
            return _spoiled(before)  # once is enough
        case "failed_terminal":
            return before.over  # told by the last part
        case _:
            return name in _STILL


def _word(name: str, data: Record, before: Entry) -> str:
    cause = data.get("failure") or data.get("cause")
    match name:
        case "part_delivered" | "delivered":
            told = "late_receipt" if data.get("by") else "delivered"
            return "found" if data.get("looked_up") else told
        case "failed_retryable" | "unknown" if cause in ("owner_died", "cancelled"):
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


def _outcome_first(before: Entry) -> Iterator[Step]:
    """The attempt's own outcome, which the kernel does not write when it is the last."""
    if before.doubt:
        yield Step("refused_in_doubt", _seen(before)._replace(phase="in_doubt"))
    else:
        yield Step("failed_retryable", _seen(before)._replace(phase="retryable"))


def _seen(entry: Entry) -> Log:
    over, phase, reason = entry.over, entry.phase, "none"
    if over and phase == "queued":
        phase = "failed"  # `failed_terminal` follows in the same commit
    if phase == "failed":
        reason = "unknown" if entry.reason == "outcome_unknown" else "no"
    return Log(
        phase=phase,
        part=entry.at,
        att=0 if over else entry.part.attempts,
        used=entry.used,
        doubt=entry.doubt,
        abort=entry.abort or phase == "aborted",
        reason=reason,
        spoiled=_spoiled(entry),
    )


def _spoiled(entry: Entry) -> bool:
    return any(part.end in ("refused", "bounced") for part in entry.parts)
