"""`crash`: the kernel's own programs under every crash, fault and order."""

import argparse
import time
from collections.abc import Callable
from typing import Any, Final

from attrs import frozen

from turnfold_model.command_kit import check_word, fair_share, processors, spread
from turnfold_model.crash.explore import Explored, explore
from turnfold_model.crash.matrix import MATRIX, named
from turnfold_model.crash_hosts import command as of_hosts

HELP: Final = "the kernel's programs: up to 3 crashes, faults, two processes"
_SHARE = 40.0  # seconds for one scenario, by default


@frozen
class _Task:
    """`share`: the most seconds for this scenario. `until`: wall time for all, and
    `lines`: how many scenarios still have to share it, for each process."""

    name: str
    share: float
    until: float | None
    lines: float


def configure(parser: argparse.ArgumentParser) -> None:
    """The options beside `--json` and `--seconds`."""
    parser.add_argument("--only", metavar="WORD", help="scenarios with this word")
    parser.add_argument(
        "--store",
        choices=("memory", "postgresql"),
        default="memory",
        help="postgresql: hosts on a real server, stopped at each of their statements",
    )
    parser.add_argument("--jobs", type=int, default=processors(), metavar="N")
    parser.add_argument(
        "--share", type=float, default=_SHARE, metavar="N", help="seconds per scenario"
    )


def run(
    options: argparse.Namespace, say: Callable[[str], None]
) -> tuple[dict[str, Any], bool]:
    """The whole matrix. A violation is reported with the tapes that reproduce it."""
    if options.store == "postgresql":
        return of_hosts.run(options, say)
    word = options.only or ""
    check_word(word, [scenario.name for scenario in MATRIX], "scenario")
    until = None if options.seconds is None else time.time() + options.seconds
    names = [scenario.name for scenario in MATRIX if word in scenario.name]
    tasks = [
        _Task(name, options.share, until, (len(names) - done) / options.jobs)
        for done, name in enumerate(names)
    ]
    results = []
    for done in spread(_explore, tasks, options.jobs):
        results.append(done)
        state = "complete" if done.complete else "time is up"
        say(f"{done.scenario:22} {done.executions:7} executions  {state}")
        for found in done.violations:
            say(f"  {found.rule}\n    {found.path}")
    return _report(results), not any(done.violations for done in results)


def _explore(task: _Task) -> Explored:
    left = fair_share(task.share, task.until, task.lines)
    before = time.process_time()
    done = explore(named(task.name), seconds=left)
    done.cpu_s = time.process_time() - before
    done.moments.clear()  # large, and not used any more
    return done


def _report(results: list[Explored]) -> dict[str, Any]:
    return {
        "executions": sum(done.executions for done in results),
        "merged": sum(done.merged for done in results),
        "images": sum(done.worlds for done in results),
        "effects": sum(done.effects for done in results),
        "scenarios": len(results),
        "complete": sum(done.complete for done in results),
        "violations": sum(len(done.violations) for done in results),
        "cpu_seconds": round(sum(done.cpu_s for done in results), 1),
        "rows": [
            {
                "name": done.scenario,
                "executions": done.executions,
                "complete": done.complete,
                "cpu_seconds": round(done.cpu_s, 2),
                "violations": [found.rule for found in done.violations],
            }
            for done in results
        ],
    }
