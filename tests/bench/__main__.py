"""python -m tests.bench [--quick | --gate] [--only NAME,...] [--turns N] [--json FILE] [--svg FILE]

Measures every row of the targets through a whole Kernel: beside the floor, beside peers
and servers of the same durability, in one run. Absolute figures belong to the machine
that is named; specs/performance.md says how to read the rest.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from attrs import define, field
from tests.bench import (
    calls,
    compare,
    gate,
    growth,
    instructions,
    questions,
    report,
    sizes,
    tail,
    targets,
)
from tests.bench.compare import Figures

_Row = Callable[[Path], Figures]


@define
class Measured:
    """`found`: figures by row. `missing`: why a row, a peer or a server has none."""

    found: dict[str, Figures] = field(factory=dict)
    missing: dict[str, str] = field(factory=dict)

    def note_missing(self, name: str, reason: str) -> None:
        self.missing.setdefault(name, reason)
        _tell(f"{name} is left out: {reason}")


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _rows(measured: Measured, *, quick: bool) -> dict[str, _Row]:
    """All that is measured, by name, in order."""
    rounds, seconds = (10, 0.08) if quick else (60, 0.15)
    big, backlog = (10_000, 5_000) if quick else (1_000_000, 100_000)
    few = (2_000, big) if quick else (10_000, 100_000, big)
    lanes = (1, 100, 1000) if quick else (1, 10, 100, 1000, 10_000)
    missing = measured.note_missing

    def side_by_side(level: Any, senders: tuple[int, ...]) -> _Row:
        how = compare.Setting(rounds, seconds, senders)
        return partial(compare.side_by_side, level=level, how=how, missing=missing)

    return {
        "FULL": side_by_side("FULL", (1, 10, 100)),
        "NORMAL": side_by_side("NORMAL", (1, 100)),
        "instructions": partial(_instructions, missing=missing),
        "calls": calls.figures,
        "open loop": partial(
            tail.open_loop, rates=(200, 1000, 2000), seconds=1.5 if quick else 10
        ),
        "commits": sizes.commits,
        "slow disk": partial(
            tail.slow_disk,
            delays_ms=(200,) if quick else (1, 5, 200),
            seconds=3 if quick else 6,
        ),
        "WAL pages": partial(growth.wal_pages, size=20_000 if quick else 100_000),
        "history": partial(growth.history, sizes=few),
        "backlog": partial(
            growth.waiting,
            sizes=(1_000, backlog) if quick else (1_000, 10_000, backlog),
        ),
        "lanes": partial(growth.lanes, counts=lanes),
        "reopen": partial(
            growth.reopening, finished=big, still_open=2_000 if quick else 10_000
        ),
        "audit": partial(sizes.audit, messages=4_000 if quick else 50_000),
        "memory": partial(sizes.memory, entries=2_000 if quick else 10_000),
        "import": lambda _: sizes.importing(),
        "questions": partial(questions.questions, turns=10_000 if quick else 1_000_000),
    }


def _instructions(_folder: Path, missing: compare.Missing) -> Figures:
    try:
        return instructions.count()
    except instructions.UncountedError as exc:
        missing("valgrind", f"{exc}; see the row 'calls'")
        return {}


def measure(only: list[str], *, quick: bool, turns: int | None = None) -> Measured:
    measured = Measured()
    rows = _rows(measured, quick=quick)
    if turns is not None:
        rows["questions"] = partial(questions.questions, turns=turns)
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as folder:
        for name, row in rows.items():
            if only and name not in only:
                continue
            began = time.perf_counter()
            home = Path(folder) / name.replace(" ", "-")
            home.mkdir()
            gc.collect()
            gc.freeze()  # objects of earlier rows are no part of a message
            measured.found[name] = row(home)
            _tell(f"{name}: {time.perf_counter() - began:.1f} s")
    return measured


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of turns")
    return int(text)


def _writable(path: Path) -> bool:
    return path.parent.is_dir() and not path.is_dir()


def main() -> int:
    parser = _Parser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller, a few minutes")
    parser.add_argument("--gate", action="store_true", help="only the bounds of CI")
    parser.add_argument("--turns", type=_count, help="of the store of 'questions'")
    parser.add_argument("--only", default="", help="names of rows, with commas")
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        help="all figures and the targets, to a file or instead of the tables",
    )
    parser.add_argument("--svg", type=Path, help="write the chart")
    args = parser.parse_args()
    if args.gate:
        return gate.main()
    only = [name.strip() for name in args.only.split(",") if name.strip()]
    for file in (args.json, args.svg):
        if file not in (None, "-") and not _writable(Path(file)):
            parser.error(f"{file} cannot be written")
    if unknown := set(only) - (rows := _rows(Measured(), quick=True)).keys():
        parser.error(f"no such row: {', '.join(unknown)}; there are: {', '.join(rows)}")
    before = report.machine()
    measured = measure(only, quick=args.quick, turns=args.turns)
    found, missing = measured.found, measured.missing
    judged = targets.judge(found, missing)
    whole = {
        "machine": before,
        "quick": args.quick,
        "figures": found,
        "missing": missing,
        "targets": judged,
    }
    if args.json == "-":
        print(json.dumps(whole, indent=1))
        return 0
    print(f"before: {before}\nafter:  {report.machine()}")
    print(report.tables(found, missing))
    print(report.chart(found.get("FULL", {})))
    print(report.target_table(judged))
    if args.json:
        Path(args.json).write_text(json.dumps(whole, indent=1) + "\n")
    if args.svg:
        args.svg.write_text(report.svg(found.get("FULL", {})))
    return 0


if __name__ == "__main__":
    sys.exit(main())
