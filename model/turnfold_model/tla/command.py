"""`tlc`: TLC on every module, and on the logs of the kernel."""

import argparse
import time
from collections.abc import Callable
from typing import Any, Final

from turnfold_model.tla import tlc, tlc_tasks, tlc_traces, trace_batch

HELP: Final = "TLC on the modules of specs/, and the kernel's logs as their behaviours"


def configure(parser: argparse.ArgumentParser) -> None:
    """The options beside `--json` and `--seconds`."""
    parser.add_argument("--small", action="store_true", help="the small worlds only")
    parser.add_argument(
        "--traces", action="store_true", help="the kernel's logs as behaviours only"
    )


def run(
    options: argparse.Namespace, say: Callable[[str], None]
) -> tuple[dict[str, Any], bool]:
    """Checks every task; then the traces, if there is time for them."""
    if options.traces:
        traces = _traces(say)
        return {"traces": traces}, _followed(traces)
    return _modules(options, say)


def _traces(say: Callable[[str], None]) -> dict[str, Any]:
    report = tlc_traces.told(trace_batch.batch())
    for line in report["refused"]:
        say(f"no behaviour: {line}")
    say("{accepted} of {distinct} traces of {logs} logs accepted".format(**report))
    return report


def _followed(report: dict[str, Any]) -> bool:
    return not report["refused"] and not report["wrong_accepted"]


def _modules(
    options: argparse.Namespace, say: Callable[[str], None]
) -> tuple[dict[str, Any], bool]:
    end = None if options.seconds is None else time.monotonic() + options.seconds
    tasks = tlc_tasks.SOUND + ([] if options.small else tlc_tasks.LARGE)
    rows: list[dict[str, Any]] = []
    fired: dict[str, set[str]] = {name: set() for name in tlc_traces.ACTIONS}
    for task in tasks:
        if end is not None and time.monotonic() > end:
            say(f"{task.name}: time is up")
            continue
        rows.append(_row(task, fired))
        say("{name:70} {distinct:8} {broken}".format(**rows[-1]))
    silent = sorted(
        f"{module}.{action}"
        for module, actions in tlc_traces.ACTIONS.items()
        for action in actions - fired[module]
    )
    broken = [_broken(task, say) for task in tlc_tasks.BROKEN]
    broken += [_unfair(task, say) for task in tlc_tasks.UNFAIR]
    late = end is not None and time.monotonic() > end
    traces = None if late or options.small else _traces(say)
    report = {
        "distinct": sum(row["distinct"] for row in rows),
        "configurations": len(rows),
        "complete": len(rows) == len(tasks),
        "violations": sum(bool(row["broken"]) for row in rows),
        "actions": sum(len(actions) for actions in fired.values()),
        "silent_actions": silent,
        "dropped": len(broken),
        "dropped_unnoticed": broken.count(False),
        "traces": traces,
        "rows": rows,
    }
    well = traces is None or _followed(traces)
    seen = not silent or len(rows) < len(tasks)  # too little time is no defect
    return report, not report["violations"] and seen and all(broken) and well


def _row(task: tlc.Task, fired: dict[str, set[str]]) -> dict[str, Any]:
    found = tlc.run(task)
    taken = {name for name, times in found.fired.items() if times}
    fired[task.module] |= taken & tlc_traces.ACTIONS[task.module]
    return {"name": task.name, "distinct": found.distinct, "broken": found.broken}


def _broken(task: tlc.Task, say: Callable[[str], None]) -> bool:
    said = tlc.run(task).broken
    say(f"{task.name}: {said or 'nothing'}")
    return bool(said)


def _unfair(task: tlc.Task, say: Callable[[str], None]) -> bool:
    said = tlc.run(task).broken
    say(f"{task.name} without fairness: {said or 'nothing'}")
    return said == "liveness"
