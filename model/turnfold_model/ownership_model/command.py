"""`ownership`: every state of a store that two workers share, of the traffic between its
shards, of a watchdog, and of the way to the primary; then without each rule."""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Final, TypeVar, get_args

from turnfold_model.command_kit import check_word, uncollected
from turnfold_model.ownership_model import finding, routing, watching
from turnfold_model.ownership_model.world import (
    Class,
    Rules,
    Worker,
    World,
    broken,
    start,
    steps,
)
from turnfold_model.tla.tlc_tasks import LEASE_BREAKS, LEASE_RULES

HELP: Final = "every state of a store that several hosts share (specs/postgres.md)"
_WORKERS: Final = 2
CLASSES: Final[Sequence[Class]] = get_args(Class)
# The class that misses a rule, if it is not the first: it is asked before the others.
_MISSED_BY: Final[dict[str, Class]] = {
    "blind_parks": "blind",
    "promised_keys_are_taken": "inbox",
    "logged_keys_are_taken": "inbox",
    "leaves_the_inbox": "inbox",
}
# The worlds beside that of a seat: each has its rules, its states and what is broken.
_SIDES: Final[dict[str, Any]] = {
    "between shards": routing,
    "watchdog": watching,
    "way to the primary": finding,
}
_W = TypeVar("_W")  # a world


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
    only = options.only or ""
    kinds = [Rules, *(side.Rules for side in _SIDES.values())]
    names = [rule.name for kind in kinds for rule in fields(kind)]
    check_word(only, names, "rule")
    end = None if options.seconds is None else time.monotonic() + options.seconds
    sound = [search(kind, Rules(), kind, end) for kind in CLASSES]
    sound += [search_side(name, end=end) for name in _SIDES]
    for result in sound:
        say(_line(result))
    missed = [
        _without(rule.name, end, say) for rule in fields(Rules) if only in rule.name
    ]
    missed += [
        _without_of(side, rule.name, end, say)
        for side, module in _SIDES.items()
        for rule in fields(module.Rules)
        if only in rule.name
    ]
    if options.traces:
        for result in (*sound, *missed):
            say("\n  ".join([result.name, *result.trace]))
    violations = [result.name for result in sound if result.broken]
    silent = [result.name for result in missed if not result.broken]
    otherwise = [result.name for result in missed if _differs(result)]
    report = {
        "states": sum(result.states for result in sound),
        "configurations": len(sound),
        "complete": sum(result.complete for result in sound),
        "violations": violations,
        "dropped": len(missed),
        "unnoticed": silent,
        "otherwise_in_tla": otherwise,
        "rows": [_row(result) for result in (*sound, *missed)],
    }
    return report, not violations and not silent and not otherwise


def _differs(result: Result) -> bool:
    """What breaks is not what breaks in `specs/Lease.tla` without the same rule."""
    rule = result.name.rpartition(" without ")[2]
    guards = [name for name, same in LEASE_RULES.items() if same == rule]
    wanted = [LEASE_BREAKS.get(name, "O5") for name in guards]
    return bool(result.broken) and any(
        not result.broken.startswith(f"{name}:") for name in wanted
    )


def _without(rule: str, end: float | None, say: Callable[[str], None]) -> Result:
    """A class that breaks when a rule is taken away."""
    rules = replace(Rules(), **{rule: False})
    last, likely = None, _MISSED_BY.get(rule)
    for kind in sorted(CLASSES, key=lambda kind: kind != likely):
        last = search(kind, rules, f"{kind} without {rule}", end)
        if last.broken:
            break
    assert last is not None  # noqa: S101  there are classes
    say(_line(last))
    return last


def _without_of(
    side: str, rule: str, end: float | None, say: Callable[[str], None]
) -> Result:
    result = search_side(side, rule, end)
    say(_line(result))
    return result


def search(kind: Class, rules: Rules, name: str, end: float | None = None) -> Result:
    """Every state of a seat."""

    def nexts(world: World) -> Iterator[tuple[str, World]]:
        for label, new in steps(world, kind, rules):
            yield label, _nameless(new)

    return _searched(start(_WORKERS), nexts, lambda w: broken(w, kind), name, end)


def search_side(name: str, without: str = "", end: float | None = None) -> Result:
    """Every state of the world of this name, without this rule."""
    side = _SIDES[name]
    rules = side.Rules(**{without: False} if without else {})
    nexts = partial(side.steps, rules=rules)
    called = f"{name} without {without}" if without else name
    return _searched(side.start(), nexts, side.broken, called, end)


@uncollected()
def _searched(
    first: _W,
    nexts: Callable[[_W], Iterator[tuple[str, _W]]],
    broken_in: Callable[[_W], str],
    name: str,
    end: float | None,
) -> Result:
    """Breadth first, so a trace is a shortest one."""
    came: dict[_W, tuple[str, _W] | None] = {first: None}
    todo = deque([first])
    while todo:
        if end is not None and time.monotonic() > end:
            return Result(name=name, states=len(came), complete=False)
        world = todo.popleft()
        bad = broken_in(world)
        if bad:
            trace = _trace(came, world)
            return Result(
                name=name, states=len(came), complete=False, broken=bad, trace=trace
            )
        for label, new in nexts(world):
            if new not in came:
                came[new] = (label, world)
                todo.append(new)
    return Result(name=name, states=len(came), complete=True)


def _nameless(world: World) -> World:
    """A position counts only by the workers that know the present one: two logs that
    differ only in length go on in the same way. So do worlds that differ only in the
    places of their workers."""
    now, late = world.position, world.under_way
    one, two = (_based(worker, now) for worker in world.workers)
    if late is not None:
        late = late._replace(base=0 if late.base == now else -1)
    owner, writer = world.owner, world.writer
    if (one, owner == 0) > (two, owner == 1):
        one, two = two, one
        owner, writer = _OTHER[owner], _OTHER[writer]
    return world._replace(
        workers=(one, two), owner=owner, position=0, writer=writer, under_way=late
    )


_OTHER: Final = {-1: -1, 0: 1, 1: 0}


def _based(worker: Worker, now: int) -> Worker:
    base = (0 if worker.base == now else -1) if worker.token else 0
    return worker if worker.base == base else worker._replace(base=base)


def _trace(came: dict[_W, tuple[str, _W] | None], world: _W) -> tuple[str, ...]:
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
