"""TLC asked whether logs of the kernel are behaviours of the modules.

For each set of constants one module is written that extends ours: its next step is a
step of ours that leads where the trace says, or one that no log shows. TLC looks for
all ways at once; a trace is accepted when one way reaches its end.
"""

import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from attrs import define, field

from turnfold_model.tla import (
    tlc,
    tlc_tasks,
    trace_busy,
    trace_entry,
    trace_lane,
    trace_lease,
    trace_live,
    trace_turn,
)
from turnfold_model.tla.trace import Trace, without_a_required_step
from turnfold_model.tla.trace_log import Traces

_OF_LOGS: Final = (trace_entry, trace_live, trace_turn, trace_lane, trace_busy)
_KINDS: Final = {kind.MODULE: kind for kind in (*_OF_LOGS, trace_lease)}
ACTIONS: Final[Mapping[str, frozenset[str]]] = {
    "Entry": trace_entry.SILENT.union(*trace_entry.ACTIONS.values()),
    "Live": trace_live.SILENT.union(*trace_live.ACTIONS.values()),
    "Turn": trace_turn.SILENT.union(trace_turn.UNSEEN, *trace_turn.ACTIONS.values()),
    "Lane": trace_lane.SILENT.union(*trace_lane.ACTIONS.values()),
    "Busy": trace_busy.SILENT.union(*trace_busy.ACTIONS.values()),
    "Lease": trace_lease.SILENT.union(
        trace_lease.UNSEEN, *trace_lease.ACTIONS.values()
    ),
}
_FIXED: Final[Mapping[str, Mapping[str, Any]]] = {
    "Entry": tlc_tasks.ENTRY_GUARDS,
    "Live": tlc_tasks.LIVE_GUARDS,
    "Turn": tlc_tasks.TURN_GUARDS,
    "Lane": {"Crashes": 1},
    "Busy": tlc_tasks.BUSY_GUARDS,
    "Lease": {**tlc_tasks.LEASE_GUARDS, "Shards": 1, "Class": "none"},
}
# Actions of one of the workers, or of one of the entries.
_OF_WORKER: Final = frozenset(
    {
        *("Started", "Computed", "Answered", "Stale", "RunFailed", "Released"),
        *("Orphaned", "GaveUp", "Crash", "TakesOver"),
    }
)
_OF_NO_ENTRY: Final = frozenset({"Queued", "GateOpened", "Crash", "Recovered"})
_DONE: Final = re.compile(r'<<"done", (\d+)>>')


@define
class Checked:
    """`refused`: traces that no behaviour of the module has."""

    accepted: int = 0
    refused: list[Trace] = field(factory=list)
    covered: set[str] = field(factory=set)


def told(traces: Traces) -> dict[str, Any]:
    """The report on a batch; of each trace one is made wrong, and must be refused."""
    right = list(traces.found)
    wrong_ones = (without_a_required_step(trace) for trace in right)
    wrong = dict.fromkeys(few[len(few) // 2] for few in wrong_ones if few)
    done, still = check(right), check(wrong, counted=False)
    actions = {f"{kind.MODULE}.{a}" for kind in _OF_LOGS for a in ACTIONS[kind.MODULE]}
    unseen = actions - done.covered
    return {
        "logs": traces.logs,
        "events": traces.events,
        "streams": traces.found.total() + traces.outside.total(),
        "outside": dict(traces.outside.most_common()),
        "distinct": len(right),
        "accepted": done.accepted,
        "refused": [shown(trace) for trace in done.refused],
        "wrong": len(wrong),
        "wrong_accepted": still.accepted,
        "actions_covered": len(done.covered),
        "actions_total": len(actions),
        "actions_unseen": sorted(unseen),
    }


def shown(trace: Trace) -> str:
    """A trace on one line, for people."""
    constants = ",".join(f"{name}={value}" for name, value in trace.constants)
    return f"{trace.module}({constants}): {' '.join(s.event for s in trace.steps)}"


def check(traces: Iterable[Trace], *, counted: bool = True) -> Checked:
    """Each trace against its module; the same trace is asked for once. `counted`: which
    actions they cover, too."""
    groups: dict[tuple[str, Any], list[Trace]] = defaultdict(list)
    for trace in dict.fromkeys(traces):
        groups[trace.module, trace.constants].append(trace)
    result = Checked()
    for (module, constants), group in groups.items():
        _check(module, dict(constants), group, result, counted=counted)
    return result


def _check(
    module: str,
    constants: dict[str, Any],
    traces: list[Trace],
    result: Checked,
    *,
    counted: bool,
) -> None:
    faults = max(1, *(_troubles(trace) for trace in traces))
    values = {**constants, **_FIXED[module], "Faults": faults}
    with tempfile.TemporaryDirectory(prefix="turnfold-traces-") as folder:
        place = Path(folder)
        tlc.copy(module, place)
        (place / "Traces.tla").write_text(written(module, traces), encoding="utf-8")
        config = tlc.config(
            values, specification="TraceSpec", invariants=("TraceEnds",)
        )
        (place / "Traces.cfg").write_text(config, encoding="utf-8")
        run = tlc.run_in(place, "Traces", counted=counted)
    if run.broken:
        raise tlc.TlcFailedError(run.output[-2000:])
    done = {int(number) for number in _DONE.findall(run.output)}
    result.accepted += len(done)
    result.refused += [t for n, t in enumerate(traces, 1) if n not in done]
    fired = {name.removeprefix("T") for name, times in run.fired.items() if times}
    result.covered |= {f"{module}.{a}" for a in fired & ACTIONS[module]}


def _troubles(trace: Trace) -> int:
    return sum(step.event in _KINDS[trace.module].TROUBLE for step in trace.steps)


def written(module: str, traces: list[Trace]) -> str:
    """The text of the module that follows these traces."""
    kind = _KINDS[module]
    stands: dict[str, set[str]] = {action: set() for action in ACTIONS[module]}
    for event, actions in kind.ACTIONS.items():
        for action in actions:
            stands[action].add(event)
    rows = ",\n".join(f"  <<{', '.join(map(_step, t.steps))}>>" for t in traces)
    lines = [
        "---- MODULE Traces ----",
        f"EXTENDS {module}, Sequences, TLC",
        "VARIABLES trace, todo",
        f"Traces == <<\n{rows}\n>>",
        "TraceInit ==",
        "  Init /\\ \\E n \\in 1..Len(Traces) : trace = n /\\ todo = Traces[n]",
        "TraceSays(events) == todo # <<>> /\\ Head(todo).event \\in events",
        "TraceFollows ==",
        "  /\\ todo' = Tail(todo) /\\ trace' = trace",
        *(f"  /\\ {_same(module, name)}" for name in kind.Log._fields),
        "TraceStays == UNCHANGED <<trace, todo>>",
    ]
    for action, events in sorted(stands.items()):
        taken = _applied(module, action)
        said = ", ".join(f'"{event}"' for event in sorted(events))
        if action in kind.SILENT:
            before = trace_lease.BEFORE.get(action, ()) if module == "Lease" else ()
            next_is = ", ".join(f'"{event}"' for event in before)
            only = f"TraceSays({{{next_is}}}) /\\ " if before else ""
            lines.append(f"T{action} == {only}{taken} /\\ TraceStays")
        elif events:
            lines.append(
                f"T{action} == TraceSays({{{said}}}) /\\ {taken} /\\ TraceFollows"
            )
    named = [f"T{a}" for a, events in sorted(stands.items()) if events]
    named += [f"T{a}" for a in sorted(kind.SILENT)]
    lines += [
        "TraceNext == " + " \\/ ".join(named),
        "TraceSpec == TraceInit /\\ [][TraceNext]_<<vars, trace, todo>>",
        'TraceEnds == todo = <<>> => PrintT(<<"done", trace>>)',
        "====",
    ]
    return "\n".join(lines) + "\n"


def _applied(module: str, action: str) -> str:
    if module == "Turn" and action in _OF_WORKER:
        return f"(\\E w \\in Workers : {action}(w))"
    if module == "Lane" and action not in _OF_NO_ENTRY:
        return f"(\\E e \\in E : {action}(e))"
    if module == "Lease" and action in trace_lease.OF_SEAT:
        return f"(\\E w \\in W : {action}(w, 1))"
    if module == "Lease" and action in trace_lease.OF_LIFE:
        return f"(\\E w \\in W : {action}(w))"
    return action


def _same(module: str, name: str) -> str:
    said = f"Head(todo).{name}"
    if (module, name) == ("Lease", "records"):
        return f"Len(shard'[1].log) = {said}"
    if module == "Lease" and name != "row":
        return f"shard'[1].{name} = {said}"
    if name == "handle":  # a log does not number the messages
        return f"(handle' # 0) = {said}"
    if name == "final":  # open or in doubt: the turn's own log does not tell
        owed = '{"open", "doubt"}'
        return f'final\' \\in (IF {said} = "owed" THEN {owed} ELSE {{{said}}})'
    if (module, name) == ("Lane", "phase"):  # in doubt or not is one to a lane
        wire = '{"dispatched", "in_doubt"}'
        return f'\\A e \\in E : phase\'[e] \\in (IF {said}[e] = "dispatched" THEN {wire} ELSE {{{said}[e]}})'
    return f"{name}' = {said}"


def _step(step: Any) -> str:
    values = {"event": step.event, **step.log._asdict()}
    return "[" + ", ".join(f"{k} |-> {tlc.literal(v)}" for k, v in values.items()) + "]"
