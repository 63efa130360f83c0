"""`python -m turnfold_model kill9`: see `play`."""

import argparse
from collections.abc import Callable
from typing import Any

from attrs import asdict

from turnfold.enums import DeliveryClass
from turnfold_model.kill9.play import Report, full, play_all, quick

HELP = "kill -9 real gateways at every point, their recovery included"
_CLASSES = [d.value for d in DeliveryClass]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--class",
        dest="classes",
        choices=_CLASSES,
        action="append",
        help="delivery class; may be given again (default: all)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of what is sampled")
    parser.add_argument(
        "--again", type=int, default=2, metavar="N", help="second deaths after each"
    )
    parser.add_argument("--long", action="store_true", help="every pair of points")


def run(
    options: argparse.Namespace, say: Callable[[str], None]
) -> tuple[dict[str, Any], bool]:
    """`--seconds` is for all classes together."""
    names = options.classes or _CLASSES
    share = None if options.seconds is None else options.seconds / len(names)
    reports = {}
    for name in names:
        delivery = DeliveryClass(name)
        some = quick(delivery, options.seed, options.again)
        verdicts = full(delivery) if options.long else some
        reports[name] = play_all(verdicts, share)
        say(f"{name}: {reports[name]}")
        for breach in reports[name].breaches:
            say(f"  {breach}")
    return _result(reports), not any(r.breaches for r in reports.values())


def _result(reports: dict[str, Report]) -> dict[str, Any]:
    kills = sum(report.kills for report in reports.values())
    seconds = sum(report.seconds for report in reports.values())
    return {
        "runs": sum(report.runs for report in reports.values()),
        "points": kills,
        "points_a_second": round(kills / seconds, 1) if seconds else 0,
        "complete": all(report.complete for report in reports.values()),
        "violations": sum(len(report.breaches) for report in reports.values()),
        "classes": {name: asdict(report) for name, report in reports.items()},
    }
