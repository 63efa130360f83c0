"""`powerloss`: power that fails anywhere, and disks that fail, under the real store."""

import argparse
import time
from collections.abc import Callable
from typing import Any, Final

from attrs import asdict, frozen

from turnfold_model.command_kit import processors, spread
from turnfold_model.powerloss.harness import SCENARIOS, Harness, Level, Losses

HELP: Final = "power loss at every position, again in the recovery, and disk errors"
Say = Callable[[str], None]
# Of the scenarios: one that loses without syncs, and one with a platform that can do nothing
# against a second send.
_KEYED, _BLIND = 0, 2


@frozen
class _Task:
    """`what`: "loss", "faults" or "normal". `until`: wall time."""

    what: str
    scenario: int
    seed: str
    nested: int
    until: float | None


def configure(parser: argparse.ArgumentParser) -> None:
    """The options beside `--json` and `--seconds`."""
    parser.add_argument("--seed", default="1", help="reproduces a run")
    parser.add_argument(
        "--lives", type=int, default=4, metavar="N", help="recorded per scenario"
    )
    parser.add_argument(
        "--nested", type=int, default=2, metavar="N", help="losses in each recovery"
    )
    parser.add_argument("--jobs", type=int, default=processors(), metavar="N")


def run(options: argparse.Namespace, say: Say) -> tuple[dict[str, Any], bool]:
    """FULL must hold everywhere; NORMAL must be seen to fail."""
    until = None if options.seconds is None else time.time() + options.seconds
    full, normal = Losses(), Losses()
    for task, found in spread(_work, _tasks(options, until), options.jobs):
        _add(normal if task.what == "normal" else full, found)
        say(
            f"{task.what:7} {SCENARIOS[task.scenario].name:8} seed {task.seed}: "
            f"{found.images} images, {found.nested} nested, {found.faults} faults, "
            f"{len(found.violations)} violations"
        )
    for broken in full.violations[:10]:
        say(f"{broken.where}: {broken.rule}")
    report = {
        "complete": until is None or time.time() < until,
        "images": full.images,
        "nested": full.nested,
        "distinct": full.distinct,
        "faults": full.faults,
        "violations": len(full.violations),
        "normal_images": normal.images,
        "normal_double_sends": normal.double_sends,
        "normal_losses": normal.losses,
        "seed": options.seed,
        "rows": [asdict(broken) for broken in full.violations[:100]],
    }
    bites = normal.double_sends > 0 and normal.losses > 0
    late = not report["complete"]  # too little time is no defect
    return report, not full.violations and (bites or late)


def _tasks(options: argparse.Namespace, until: float | None) -> list[_Task]:
    """The proof that the harness bites comes first, for it is short."""
    seed, nested = options.seed, options.nested
    tasks = [_Task("normal", number, seed, 0, until) for number in (_BLIND, _KEYED)]
    for life in range(options.lives):
        for number in range(len(SCENARIOS)):
            tasks.append(_Task("loss", number, f"{seed}.{life}", nested, until))
            if life == 0:
                tasks.append(_Task("faults", number, seed, 0, until))
    return tasks


def _work(task: _Task) -> tuple[_Task, Losses]:
    level: Level = "NORMAL" if task.what == "normal" else "FULL"
    limit = task.until
    harness = Harness(level=level, until=lambda: bool(limit and time.time() > limit))
    try:
        scenario = SCENARIOS[task.scenario]
        if task.what == "faults":
            harness.fail_everywhere(scenario, task.seed)
        else:
            harness.lose_power(scenario, task.seed, task.nested)
    finally:
        harness.close()
    return task, harness.found


def _add(total: Losses, part: Losses) -> None:
    total.images += part.images
    total.nested += part.nested
    total.distinct += part.distinct
    total.faults += part.faults
    total.double_sends += part.double_sends
    total.losses += part.losses
    total.violations += part.violations
