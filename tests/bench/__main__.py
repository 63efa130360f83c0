"""python -m tests.bench [--quick | --gate] [--json FILE] [--svg FILE]

All rows of the targets' table through a whole Kernel, side by side with peers at the
same durability. Ratios are of one run; absolute figures belong to the machine named.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench import figures, gate, report, targets

_Row = Callable[[], figures.Figures]


def _rows(folder: Path, *, quick: bool, told: Callable[[str], None]) -> dict[str, _Row]:
    """Name and function of everything that is measured."""
    # Short turns: the disk of a shared machine changes its mind within a second.
    rounds, seconds = (10, 0.08) if quick else (60, 0.15)
    big, backlog = (10_000, 5_000) if quick else (1_000_000, 100_000)
    compare = figures.side_by_side
    return {
        "FULL": lambda: compare(folder, "FULL", rounds, seconds, (1, 10, 100), told),
        "NORMAL": lambda: compare(folder, "NORMAL", rounds, seconds, (1, 100), told),
        "open loop": lambda: figures.open_loop(
            folder, (200, 1000, 2000), 1.5 if quick else 10
        ),
        "syncs": lambda: figures.syncs(folder),
        "slow disk": lambda: figures.slow_disk(folder, (1, 5)),
        "history": lambda: figures.history(
            folder, (2_000, big) if quick else (10_000, 100_000, big)
        ),
        "backlog": lambda: figures.waiting(
            folder, (1_000, backlog) if quick else (1_000, 10_000, backlog)
        ),
        "lanes": lambda: figures.lanes(
            folder, (1, 100, 1000) if quick else (1, 10, 100, 1000, 10_000)
        ),
        "reopen": lambda: figures.reopening(folder, big, 2_000 if quick else 10_000),
        "audit": lambda: figures.audit(folder, 4_000 if quick else 50_000),
        "memory": lambda: figures.memory(folder, 2_000 if quick else 10_000),
        "import": figures.importing,
    }


def measure(*, quick: bool, only: str, told: Callable[[str], None]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as name:
        for row, run in _rows(Path(name), quick=quick, told=told).items():
            if only and row not in only.split(","):
                continue
            began = time.perf_counter()
            gc.collect()
            gc.freeze()  # what six other libraries left here is nobody's message
            found[row] = run()
            told(f"{row}: {time.perf_counter() - began:.1f} s")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller, under a minute")
    parser.add_argument("--gate", action="store_true", help="only what CI holds")
    parser.add_argument("--only", default="", help="names of rows, with commas")
    parser.add_argument("--json", type=Path, help="write all figures and the targets")
    parser.add_argument("--svg", type=Path, help="write the chart")
    args = parser.parse_args()
    if args.gate:
        return gate.main()
    found = measure(
        quick=args.quick,
        only=args.only,
        told=lambda text: print(text, file=sys.stderr),
    )
    judged = targets.judge(found)
    print(report.machine())
    print(report.tables(found))
    print(report.chart(found.get("FULL", {})))
    print(report.target_table(judged))
    if args.json:
        whole = {"machine": report.machine(), "figures": found, "targets": judged}
        args.json.write_text(json.dumps(whole, indent=1) + "\n")
    if args.svg:
        args.svg.write_text(report.svg(found.get("FULL", {})))
    return 0


if __name__ == "__main__":
    sys.exit(main())
