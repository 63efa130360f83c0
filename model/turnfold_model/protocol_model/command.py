"""`explore`: the world model over its whole matrix, with each assumption and guard dropped in turn."""

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from turnfold_model.command_kit import check_word
from turnfold_model.protocol_model import matrix
from turnfold_model.protocol_model.explorer import Result, explore
from turnfold_model.protocol_model.steps import STEPS
from turnfold_model.protocol_model.words import Config

HELP: Final = "every state of the world model, over the matrix of configurations"


def configure(parser: argparse.ArgumentParser) -> None:
    """The options beside `--json` and `--seconds`."""
    parser.add_argument("--only", metavar="WORD", help="configurations with this word")
    parser.add_argument("--traces", action="store_true", help="tell each violation")


def run(
    options: argparse.Namespace, say: Callable[[str], None]
) -> tuple[dict[str, Any], bool]:
    """Searches the matrix; then every assumption and guard must be missed."""
    end = None if options.seconds is None else time.monotonic() + options.seconds
    word = options.only or ""
    names = [config.name for config in (*_sound(), *_broken())]
    check_word(word, names, "configuration")
    results = [_one(config, end, say) for config in _sound() if word in config.name]
    missed = [_one(config, end, say) for config in _broken() if word in config.name]
    violations = [r for r in results if r.broken]
    silent = [r.config.name for r in missed if r.complete and not r.broken]
    taken = set[str]().union(*(r.labels for r in results))
    asleep = (
        sorted(STEPS - taken) if not word and all(r.complete for r in results) else []
    )
    if options.traces:
        for result in [*violations, *missed]:
            say("\n  ".join([result.config.name, *result.trace]))
    report = {
        "distinct": sum(r.distinct for r in results),
        "edges": sum(r.edges for r in results),
        "configurations": len(results),
        "complete": sum(r.complete for r in results),
        "violations": len(violations),
        "dropped": len(missed),
        "dropped_unnoticed": len(silent),
        "unnoticed": silent,
        "steps_never_taken": asleep,
        "rows": [_row(r) for r in [*results, *missed]],
    }
    return report, not violations and not silent and not asleep


def _sound() -> list[Config]:
    small = [*matrix.kept(), *matrix.guarded()]
    return [*small, *matrix.MATRIX]


def _broken() -> list[Config]:
    return [*matrix.dropped(), *matrix.unguarded()]


def _one(config: Config, end: float | None, say: Callable[[str], None]) -> Result:
    result = explore(config, deadline=end)
    state = result.broken or ("complete" if result.complete else "time is up")
    rate = result.distinct / max(result.seconds, 1e-6)
    say(f"{config.name:28} {result.distinct:8} states {rate:8.0f}/s  {state}")
    return result


def _row(result: Result) -> dict[str, Any]:
    row = {key: asdict(result)[key] for key in ("distinct", "edges", "depth")}
    return {"name": result.config.name, **row, "broken": result.broken}
