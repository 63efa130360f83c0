"""The log of a turn as a behaviour of `specs/Turn.tla`; see `trace_entry`.

The module has one final entry and says no more of it than whether it is owed, so an
entry's way through doubt is its own trace. Which notice was queued is not compared:
the module tells of every failure, the kernel not of all. Workers that sleep leave
nothing in a log.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from turnfold_model.reference.judge import legal
from turnfold_model.reference.kinds import Record
from turnfold_model.reference.shapes import Turn
from turnfold_model.tla.trace import OutsideError, Step, Trace

MODULE: Final = "Turn"
SILENT: Final = frozenset({"Computed", "Stale", "FinalDoubted", "Crash", "TakesOver"})
ACTIONS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "accepted": frozenset({"Accepted"}),
        "dead": frozenset({"Dead"}),
        "resubmitted": frozenset({"Resubmitted"}),
        "held": frozenset({"Held"}),
        "unheld": frozenset({"Unheld"}),
        "started": frozenset({"Started"}),
        "run_failed": frozenset({"RunFailed"}),
        "orphaned": frozenset({"Orphaned"}),
        "last_run": frozenset({"RunFailed"}),
        "gave_up": frozenset({"GaveUp"}),
        "released": frozenset({"Released"}),
        "answered": frozenset({"Answered"}),
        "completed": frozenset({"FinalDelivered"}),
        "failed": frozenset({"FinalFailed"}),
        "abort_requested": frozenset({"AbortRequested"}),
        "aborted": frozenset({"Aborted"}),
        "amended": frozenset({"Amended"}),
    }
)
# A worker that is stopped and not replaced leaves nothing in a log.
UNSEEN: Final = frozenset({"Sleeps", "Wakes"})
TROUBLE: Final = frozenset({"run_failed", "orphaned", "last_run", "released", "unheld"})
_STILL: Final = frozenset({"step_started", "step_done", "redacted"})
_SAID: Final = MappingProxyType(
    {
        "replied": "replied",
        "failed": "failed",
        "expired": "failed",
        "aborted": "aborted",
        "superseded": "aborted",
    }
)


class Log(NamedTuple):
    """The module's log variables; `final` is owed while it is open or in doubt."""

    turns: int = 0
    turn: str = "none"
    outcome: str = "none"
    runs: int = 0
    failed: int = 0
    final: str = "none"
    abort: bool = False
    blame: int = 0
    held: bool = False


def project(events: Iterable[tuple[Record, str]]) -> Trace:
    """The trace of one turn: its events, each with the phase of its final entry at that
    time. Raises OutsideError."""
    steps: list[Step] = []
    before: Turn | None = None
    log = Log()
    for event, final in events:
        after = legal(before, event)
        if not isinstance(after, Turn):
            why = "an event that the reference refuses"
            raise OutsideError(why)
        for step in _steps(event, before, after, log, _owed(final)):
            steps.append(step)
            log = Log(*step.log)
        before = after
    more = not any(step.event == "gave_up" for step in steps)
    failed = max((Log(*step.log).failed for step in steps), default=0)
    constants = (
        *(("Runs", failed + more), ("Doubtful", True), ("Locked", True)),
        ("MaxAlone", _most_alone(steps)),
    )
    return Trace(MODULE, constants, tuple(steps))


def _most_alone(steps: list[Step]) -> int:
    """The limit of the kernel that was at work, as far as its log tells it."""
    at = [Log(*step.log).blame for step in steps if step.event == "held"]
    return min(at, default=1 + max((Log(*s.log).blame for s in steps), default=0))


def _owed(phase: str) -> str:
    return phase if phase in ("none", "delivered", "failed", "aborted") else "owed"


def _steps(
    event: Record, before: Turn | None, after: Turn, log: Log, final: str
) -> Iterator[Step]:
    name = str(event["kind"]).partition(".")[2]
    if name in _STILL:
        return
    if name == "released" and event["data"]["reason"] == "owner_died":
        name = "orphaned"
    if after.silent or len(after.finals) > 1:
        why = "silent" if after.silent else "several finals"
        raise OutsideError(why)
    if after.outcome is not None and after.outcome not in _SAID:
        raise OutsideError(after.outcome)
    if before is not None and before.phase == "running" and name == "failed":
        log = log._replace(failed=log.failed + 1)
        yield Step("last_run", log._replace(turn="accepted"))
        name = "gave_up"
    if name == "aborted" and before is not None and not before.abort:
        log = log._replace(abort=True)
        yield Step("abort_requested", log)
    if name == "held" and event["data"]["reason"] != "quarantined":
        why = "held, and not for deaths"
        raise OutsideError(why)
    if name not in ACTIONS:
        raise OutsideError(name)
    fresh = name in ("resubmitted", "unheld")
    alone = name == "orphaned" and event["data"].get("beside") == 0
    yield Step(
        name,
        log._replace(
            held=after.held,
            blame=0 if fresh else log.blame + alone,
            turns=1,
            turn=after.phase,
            final=final,
            outcome=_SAID[after.outcome] if after.outcome else "none",
            runs=after.runs,
            failed=0 if name == "resubmitted" else log.failed + (name == "run_failed"),
            abort=log.abort or after.abort,
        ),
    )
