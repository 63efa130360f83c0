"""`readings`: both readings of the rules on damaged logs, any number, by any seed."""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final

from turnfold_model.edge_walks.stage import logs
from turnfold_model.edge_walks.walks import WALKS
from turnfold_model.readings.compare import judged
from turnfold_model.readings.damage import WAYS, Log, damaged

HELP: Final = "the kernel's audit and the reference on logs with 1 to 3 damages"
_EACH: Final = 50  # logs of one walk: it costs as much to make its damages as to judge
_MORE: Final = (0, 0, 1, 2)  # pieces of damage on top of the first


def configure(parser: argparse.ArgumentParser) -> None:
    """The options beside `--json` and `--seconds`."""
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the logs and their damage"
    )
    parser.add_argument(
        "--logs", type=int, default=5_000, metavar="N", help="about so many logs"
    )


def run(
    options: argparse.Namespace, say: Callable[[str], None]
) -> tuple[dict[str, Any], bool]:
    """A log that the readings judge differently is told with its damage."""
    until = None if options.seconds is None else time.monotonic() + options.seconds
    found: Counter[str] = Counter()
    complete = True
    for name, log in sample(options.seed, options.logs):
        if until is not None and time.monotonic() > until:
            complete = False
            break
        verdicts = judged(log)
        if verdicts is None:
            found["unreadable"] += 1
        elif verdicts.equal:
            found["legal" if verdicts.legal else "illegal"] += 1
        else:
            found["different"] += 1
            say(f"{name}\n  {verdicts}")
    words = ("legal", "illegal", "unreadable", "different")
    report = {"seed": options.seed, **{word: found[word] for word in words}}
    return {**report, "complete": complete}, not found["different"]


def sample(seed: int, count: int) -> Iterator[tuple[str, Log]]:
    """About so many damaged logs, of walks of the kernel that the seed chooses."""
    dice = Random(seed)  # noqa: S311  a seed is meant to repeat
    walks = dice.sample(WALKS, min(len(WALKS), -(-count // _EACH)))
    each = -(-count // len(walks))
    for walk, log in logs(walks, seed):
        cases = list(damaged(log))
        for name, case in dice.sample(cases, min(each, len(cases))):
            told, worse = _worse(dice, name, case)
            yield f"{walk.name}: {told}", worse


def _worse(dice: Random, name: str, log: Log) -> tuple[str, Log]:
    for _ in range(dice.choice(_MORE)):
        cases = list(dice.choice(WAYS)(log))
        if cases:
            more, log = dice.choice(cases)
            name = f"{name}; {more}"
    return name, log
