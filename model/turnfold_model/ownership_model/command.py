"""`ownership`: every state of a store that two workers share; then without each rule."""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, get_args

from turnfold_model.ownership_model.world import (
    Class,
    Rules,
    World,
    broken,
    start,
    steps,
)

HELP: Final = "every state of a store that several hosts share (specs/postgres.md)"
_WORKERS: Final = 2
CLASSES: Final[Sequence[Class]] = get_args(Class)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """`broken`: the invariant, if one fell; `trace`: the steps that lead there."""

    name: str
    states: int
    complete: bool
    broken: str = ""
    trace: tuple[str, ...] = ()


def configure(parser: argparse.ArgumentParser) -> None:
    """The options beside `--json` and `--seconds`."""
    parser.add_argument("--only", metavar="WORD", help="rules with this word")
    parser.add_argument("--traces", action="store_true", help="tell each violation")


def run(
    options: argparse.Namespace, say: Callable[[str], None]
) -> tuple[dict[str, Any], bool]:
    """All classes with all rules hold; each rule is missed by some class."""
    end = None if options.seconds is None else time.monotonic() + options.seconds
    sound = [search(kind, Rules(), kind, end) for kind in CLASSES]
    for result in sound:
        say(_line(result))
    missed = [
        _without(rule.name, end, say)
        for rule in fields(Rules)
        if (options.only or "") in rule.name
    ]
    if options.traces:
        for result in (*sound, *missed):
            say("\n  ".join([result.name, *result.trace]))
    violations = [result.name for result in sound if result.broken]
    silent = [result.name for result in missed if not result.broken]
    report = {
        "states": sum(result.states for result in sound),
        "configurations": len(sound),
        "complete": sum(result.complete for result in sound),
        "violations": violations,
        "dropped": len(missed),
        "unnoticed": silent,
        "rows": [_row(result) for result in (*sound, *missed)],
    }
    return report, not violations and not silent


def _without(rule: str, end: float | None, say: Callable[[str], None]) -> Result:
    """The first class that breaks when a rule is taken away."""
    rules = replace(Rules(), **{rule: False})
    last = None
    for kind in CLASSES:
        last = search(kind, rules, f"{kind} without {rule}", end)
        if last.broken:
            break
    assert last is not None  # noqa: S101  there are classes
    say(_line(last))
    return last


def search(kind: Class, rules: Rules, name: str, end: float | None = None) -> Result:
    """Breadth first, so a trace is a shortest one."""
    first = start(_WORKERS)
    came: dict[World, tuple[str, World] | None] = {first: None}
    todo = deque([first])
    while todo:
        if end is not None and time.monotonic() > end:
            return Result(name=name, states=len(came), complete=False)
        world = todo.popleft()
        bad = broken(world, kind)
        if bad:
            trace = _trace(came, world)
            return Result(
                name=name, states=len(came), complete=False, broken=bad, trace=trace
            )
        for label, new in steps(world, kind, rules):
            new_ = _nameless(new)
            if new_ not in came:
                came[new_] = (label, world)
                todo.append(new_)
    return Result(name=name, states=len(came), complete=True)


def _nameless(world: World) -> World:
    """Positions count only by which worker believes the present one: two logs that
    differ in length alone go on in the same way."""
    now = world.position
    workers = tuple(
        w._replace(base=0 if w.base == now and w.token else -1 if w.token else 0)
        for w in world.workers
    )
    late = world.under_way
    if late is not None:
        late = late._replace(base=0 if late.base == now else -1)
    return world._replace(workers=workers, under_way=late, position=0)


def _trace(
    came: dict[World, tuple[str, World] | None], world: World
) -> tuple[str, ...]:
    path: list[str] = []
    while (before := came[world]) is not None:
        label, world = before
        path.append(label)
    return tuple(reversed(path))


def _line(result: Result) -> str:
    state = result.broken or ("complete" if result.complete else "time is up")
    return f"{result.name:44} {result.states:8} states  {state}"


def _row(result: Result) -> dict[str, object]:
    return {
        "name": result.name,
        "states": result.states,
        "complete": result.complete,
        "broken": result.broken,
    }
