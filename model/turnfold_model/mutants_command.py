"""`mutants`: the product is broken on purpose, and each break must be noticed."""

import argparse
import time
from collections.abc import Callable
from typing import Any, Final

from attrs import frozen

from turnfold_model.crash.matrix import SMALL
from turnfold_model.jobs import processors, spread
from turnfold_model.mutants_checks import check
from turnfold_model.mutants_code import applied
from turnfold_model.mutants_table import MUTANTS

HELP: Final = "each guard and promise broken once; some checker must notice"


@frozen
class _Task:
    """`mutant`: its place in the table; none: the healthy product, which no checker may
    complain of. `until`: wall time."""

    mutant: int | None
    checker: str
    until: float | None


@frozen
class _Done:
    """`found`: what the checker said; none: nothing. `late`: there was no time."""

    task: _Task
    found: str | None
    late: bool = False


def configure(parser: argparse.ArgumentParser) -> None:
    """The options beside `--json` and `--seconds`."""
    parser.add_argument("--only", metavar="WORD", help="mutants with this word")
    parser.add_argument("--jobs", type=int, default=processors(), metavar="N")
    parser.add_argument(
        "--matrix", action="store_true", help="every small crash scenario, too"
    )
    parser.add_argument(
        "--seed", type=int, help="taken for symmetry; nothing here is left to chance"
    )


def run(
    options: argparse.Namespace, say: Callable[[str], None]
) -> tuple[dict[str, Any], bool]:
    """Every mutant against the checkers that it names, and they against none."""
    until = None if options.seconds is None else time.time() + options.seconds
    tasks = _tasks(options.only or "", until, matrix=options.matrix)
    rows: dict[int, dict[str, str | None]] = {
        t.mutant: {} for t in tasks if t.mutant is not None
    }
    alarms: list[str] = []
    late = 0
    for done in spread(_work, tasks, options.jobs):
        late += done.late
        if done.task.mutant is not None:
            rows[done.task.mutant][done.task.checker] = done.found
            say(_line(done))
        elif done.found:
            alarms.append(f"{done.task.checker}: {done.found}")
            say(f"FALSE ALARM {alarms[-1]}")
    report = _report(rows, alarms, late)
    return report, report["killed"] == report["total"] and not alarms and not late


def _tasks(word: str, until: float | None, *, matrix: bool) -> list[_Task]:
    chosen = [(i, m) for i, m in enumerate(MUTANTS) if word in f"{m.area} {m.name}"]
    wide = [f"crash:{scenario.name}" for scenario in SMALL] if matrix else []
    out: list[_Task] = []
    for index, mutant in chosen:
        checkers = dict.fromkeys([*mutant.killers, *wide])
        out += [_Task(index, checker, until) for checker in checkers]
    healthy = dict.fromkeys(k for _, mutant in chosen for k in mutant.killers)
    return [*(_Task(None, checker, until) for checker in healthy), *out]


def _work(task: _Task) -> _Done:
    if task.until is not None and time.time() > task.until:
        return _Done(task, None, late=True)
    if task.mutant is None:
        return _Done(task, check(task.checker))
    with applied(MUTANTS[task.mutant]):
        return _Done(task, check(task.checker))


def _line(done: _Done) -> str:
    mutant = MUTANTS[done.task.mutant or 0]
    verdict = "late    " if done.late else "killed  " if done.found else "SURVIVES"
    found = (done.found or "").splitlines()[:1]
    return f"{verdict} {mutant.name} | {done.task.checker} | {''.join(found)[:120]}"


def _report(
    rows: dict[int, dict[str, str | None]], alarms: list[str], late: int
) -> dict[str, Any]:
    """A named checker that does not kill is a hole in the table, even if another does."""
    table = []
    for index, found in rows.items():
        mutant = MUTANTS[index]
        named = [found.get(checker) for checker in mutant.killers]
        table.append(
            {
                "name": mutant.name,
                "area": mutant.area,
                "killed": all(named),
                "killers": [checker for checker, text in found.items() if text],
            }
        )
    return {
        "total": len(table),
        "killed": sum(bool(row["killed"]) for row in table),
        "survivors": [row["name"] for row in table if not row["killed"]],
        "false_alarms": alarms,
        "late": late,
        "rows": table,
    }
