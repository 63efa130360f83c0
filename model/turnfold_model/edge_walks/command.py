"""`edges`: which edges of the model a log takes; without a log, the kernel's walks."""

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from turnfold_model.edge_walks.edges import ALL, Edge, taken
from turnfold_model.edge_walks.stage import logs
from turnfold_model.edge_walks.walks import UNTAKEN, WALKS
from turnfold_model.reference import audit, read_ndjson

HELP: Final = "the edges of the model that logs take; without a log: the kernel's walks"


def configure(parser: argparse.ArgumentParser) -> None:
    """The options beside `--json` and `--seconds`."""
    parser.add_argument(
        "--log",
        action="append",
        metavar="FILE",
        type=Path,
        help="an export as NDJSON (turnfold log); may be given again",
    )


def run(
    options: argparse.Namespace, say: Callable[[str], None]
) -> tuple[dict[str, Any], bool]:
    """Logs of others are only reported; the kernel's walks must take every edge."""
    if options.log:
        seen = _of_files(options.log)
        report = told(seen)
        for line in report["missing"]:
            say(f"not taken  {line}")
        return report, True
    report, broken = _walked(say)
    well = not (report["missing"] or report["unexpected"] or broken)
    return report, well


def _of_files(files: Iterable[Path]) -> Mapping[Edge, int]:
    seen: Counter[Edge] = Counter()
    for file in files:
        with file.open(encoding="utf-8") as lines:
            seen.update(taken(read_ndjson(lines)))
    return seen


def _walked(say: Callable[[str], None]) -> tuple[dict[str, Any], int]:
    seen: Counter[Edge] = Counter()
    broken = 0
    for walk, log in logs(WALKS):
        for found in audit(log):
            say(f"{walk.name}\n  {found}")
            broken += 1
        seen.update(taken(log))
    report = told(seen)
    for line in [*report["missing"], *report["unexpected"]]:
        say(line)
    return {"walks": len(WALKS), "breaches": broken, **report}, broken


def told(seen: Mapping[Edge, int]) -> dict[str, Any]:
    """The report on a set of edges. `never`: edges that the kernel does not take;
    `unexpected`: those of them that it took."""
    missing = ALL - set(seen) - set(UNTAKEN)
    return {
        "edges": len(ALL),
        "taken": len(seen),
        "never": len(UNTAKEN),
        "missing": sorted(map(str, missing)),
        "unexpected": sorted(str(edge) for edge in seen if edge in UNTAKEN),
        "times": {str(edge): seen[edge] for edge in sorted(seen)},
    }
