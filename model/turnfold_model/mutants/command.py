"""`mutants`: the product is broken on purpose, and each break must be noticed.

A mutant is held against its checkers, cheapest first, until one notices it; with
`--full` against all there are. Before that every checker that is used must have nothing
to say of the healthy product. A mutant that does not fit the code any more is an error.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final

from attrs import field, frozen

from turnfold_model.command_kit import UnavailableError, isolate, processors
from turnfold_model.mutants import server
from turnfold_model.mutants.checkers import NoCheckerError, check, price
from turnfold_model.mutants.code import Mutant, StaleMutantError, applied
from turnfold_model.mutants.matrix import Found, checkers, survey, table
from turnfold_model.mutants.table import MUTANTS

HELP: Final = "each guard and promise broken once; some checker must notice"
_READY: Final = "turnfold_model.mutants.ready"
Say = Callable[[str], None]


@frozen
class _Task:
    """`mutant`: its place in the table; none: the healthy product, which no checker may
    complain of. `until`: wall time."""

    mutant: int | None
    checkers: tuple[str, ...]
    full: bool
    until: float | None


@frozen
class _Done:
    """`found`: the word of each checker that was asked. `late`: there was no time to ask
    them all. `stale`: the text that was looked for in vain, in the code or among the checkers."""

    task: _Task
    found: list[tuple[str, Found]] = field(factory=list)
    late: bool = False
    stale: str = ""
    seconds: float = 0.0

    @property
    def mutant(self) -> Mutant:
        return MUTANTS[self.task.mutant or 0]

    @property
    def kills(self) -> list[tuple[str, Found]]:
        """The world model speaks of the protocol, not of this kernel."""
        return [cell for cell in self.found if cell[1] and "world" not in cell[1]]

    @property
    def survives(self) -> bool:
        known = self.kills or self.late or self.stale
        return self.task.mutant is not None and not known


def configure(parser: argparse.ArgumentParser) -> None:
    """The options beside `--json` and `--seconds`."""
    parser.add_argument("--only", metavar="WORD", help="mutants with this word")
    # Most of the time of a mutant goes by in a test that waits in vain.
    parser.add_argument("--jobs", type=int, default=2 * processors(), metavar="N")
    parser.add_argument(
        "--tests-passed",
        action="store_true",
        help="the tests have just passed: they are not asked about the healthy product",
    )
    parser.add_argument(
        "--full", action="store_true", help="each against all checkers: takes hours"
    )


def run(options: argparse.Namespace, say: Say) -> tuple[dict[str, Any], bool]:
    """All mutants, and the checkers they need against the healthy product."""
    until = None if options.seconds is None else time.time() + options.seconds
    passed = ("test:", "stateful") if options.tests_passed else ()
    tasks = _tasks(options.only or "", until, passed, full=options.full)
    with _server(tasks, say):
        return _run(options, tasks, say)


@contextmanager
def _server(tasks: list[_Task], say: Say) -> Iterator[None]:
    """The mutants of SQL need a server, and are left out where none can be had."""
    of_sql = [t for t in tasks if any(n.startswith("server:") for n in t.checkers)]
    if not of_sql:
        yield
    elif server.is_there():
        with server.running():
            yield
    else:
        say(f"no PostgreSQL here: {len(of_sql)} checks of its SQL are left out")
        tasks[:] = [task for task in tasks if task not in of_sql]
        yield


def _run(
    options: argparse.Namespace, tasks: list[_Task], say: Say
) -> tuple[dict[str, Any], bool]:
    dead: dict[int, _Done] = {}
    alarms: list[_Done] = []
    late = 0
    rows_of = isolate(_work, tasks, options.jobs, _READY)
    for number, done in enumerate(rows_of, 1):
        late += done.late
        if done.task.mutant is not None:
            dead[done.task.mutant] = done
            say(f"{number:3}/{len(tasks)} {_line(done)}")
        elif done.kills or done.stale:
            alarms.append(done)
            say(f"FALSE ALARM {_what(done)}")
    doubtful = [done for done in dead.values() if done.survives] + alarms
    again = [_once_more(done, say) for done in doubtful]
    dead |= {d.task.mutant: d for d in again if d.task.mutant is not None}
    false = [d for d in again if d.task.mutant is None and (d.kills or d.stale)]
    rows = [dead[index] for index in sorted(dead)]
    if options.full:
        say("\n".join(table((row.mutant, row.found) for row in rows)))
    report = _report(rows, [_what(done) for done in false], late)
    gone = [_name(done) for done in again if not (done.survives or done in false)]
    report["only_at_first"] = gone
    return report, not (false or report["survivors"] or report["stale"])


def _once_more(done: _Done, say: Say) -> _Done:
    """A survivor or a false alarm is asked again, alone: some checkers wait for a time,
    and a busy machine may take it from them. `only_at_first` names the ones that are
    well then; somebody must look at such a test."""
    (again,) = isolate(_work, [done.task], 1, _READY)
    say(f"once more, alone: {_name(done)}: {_what(again)}")
    return again


def _name(done: _Done) -> str:
    return (
        ", ".join(done.task.checkers) if done.task.mutant is None else done.mutant.name
    )


def _tasks(
    word: str, until: float | None, passed: tuple[str, ...], *, full: bool
) -> list[_Task]:
    """The longest ones first, so that no processor is left alone at the end; of the
    whole table the mutants first, since each is a row that somebody waits for.
    `passed`: checkers of these kinds had nothing to say of the healthy product."""
    chosen = [(i, m) for i, m in enumerate(MUTANTS) if word in f"{m.area} {m.name}"]
    if not chosen:
        raise UnavailableError(f"no mutant has the words {word!r}")
    cheap = {i: sorted(m.killers, key=price) for i, m in chosen}
    asked = {i: tuple(checkers(m) if full else cheap[i]) for i, m in chosen}
    healthy = {
        name for names in asked.values() for name in names[: None if full else 1]
    }
    known = ("world:", *passed)
    real = [name for name in healthy if not name.startswith(known)]
    tasks = [_Task(None, (name,), full, until) for name in sorted(real)]
    tasks += [_Task(i, names, full, until) for i, names in asked.items()]
    longest = sorted(tasks, key=lambda task: -price(task.checkers[0]))
    return sorted(longest, key=lambda task: full and task.mutant is None)


def _work(task: _Task) -> _Done:
    if _over(task):
        return _Done(task, late=True)
    began = time.monotonic()
    mutant = nullcontext() if task.mutant is None else applied(MUTANTS[task.mutant])
    try:
        with mutant:
            found = _ask(task)
    except (StaleMutantError, NoCheckerError) as exc:
        return _Done(task, stale=str(exc))
    cut = _over(task) and len(found) < len(task.checkers)
    late = cut and (task.full or not found[-1][1])
    return _Done(task, found, late, seconds=time.monotonic() - began)


def _ask(task: _Task) -> list[tuple[str, Found]]:
    """Until one checker has found something; with `full` all of them."""
    out: list[tuple[str, Found]] = []
    for name in task.checkers:
        out.append((name, survey(name) if task.full else _asked(name)))
        if (out[-1][1] and not task.full) or _over(task):
            break
    return out


def _asked(name: str) -> Found:
    text = check(name)
    return {name.partition(":")[0]: text} if text else {}


def _over(task: _Task) -> bool:
    return task.until is not None and time.time() > task.until


def _line(done: _Done) -> str:
    if done.stale:
        return f"STALE            {done.mutant.name} | {done.stale}"
    verdict = "killed  " if done.kills else "late    " if done.late else "SURVIVES"
    return f"{verdict} {done.seconds:5.1f} s  {done.mutant.name} | {_what(done)}"


def _what(done: _Done) -> str:
    if done.stale:
        return done.stale
    if not done.kills:
        return ", ".join(done.task.checkers)
    name, found = done.kills[0]
    return f"{name} | {' '.join(next(iter(found.values())).split())[:120]}"


def _report(rows: list[_Done], alarms: list[str], late: int) -> dict[str, Any]:
    killers = [row.kills[0][0].partition(":")[0] for row in rows if row.kills]
    return {
        "rows": [_row(row) for row in rows],  # long: what is read stands at the end
        "areas": _counted(row.mutant.area for row in rows),
        "killed_by": _counted(killers),
        "total": len(rows),
        "killed": len(killers),
        "late": late,
        "complete": not late,
        "false_alarms": alarms,
        "stale": [f"{row.mutant.name}: {row.stale}" for row in rows if row.stale],
        "survivors": [row.mutant.name for row in rows if row.survives],
    }


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


def _row(done: _Done) -> dict[str, Any]:
    return {
        "name": done.mutant.name,
        "area": done.mutant.area,
        "killed_by": {name: dict(found) for name, found in done.kills},
        "seconds": round(done.seconds, 1),
    }
