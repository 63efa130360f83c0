"""All that can happen to one entry, searched for dead ends and double sends.

The search drives the reference (`transition_table` and the rules of `reference_entry`)
with the steps of a worker, of a platform, and of faults and people. Each step becomes
the events that tell of it. So it finds a fact that no row can tell, an open entry that
nobody can take further, and a part that is shown more often than the log allows.
`entry_steps` and `entry_faults` have the steps.

>>> found = search(Setting("keyed"), faults=1)
>>> found.problems, found.states > 30
({}, True)
"""

from collections import deque
from dataclasses import dataclass, field

from turnfold_model.entry_faults import faults_of, late_answers
from turnfold_model.entry_steps import (
    Gap,
    Setting,
    Step,
    World,
    born,
    own_steps,
    taken,
)

_PATIENCE = 40  # own steps after which an entry must have come to rest


@dataclass(slots=True)
class Search:
    """`problems`: what was found, with the shortest way that leads there. `rows`: the
    edges that were taken."""

    states: int = 0
    problems: dict[str, list[str]] = field(default_factory=dict)
    rows: set[tuple[str, str, str]] = field(default_factory=set)


def search(setting: Setting, *, faults: int) -> Search:
    """Every state that an entry can reach with so many faults, breadth first."""
    found = Search()
    start = born(setting)
    way: dict[World, tuple[World, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        world = queue.popleft()
        found.states += 1
        for problem in [*_wrong(world), *_stuck(setting, world)]:
            found.problems.setdefault(problem, _trace(way, world))
        for step in _steps(setting, world, faults):
            try:
                after = taken(world, step, found.rows)
            except Gap as gap:
                trace = [*_trace(way, world), step.name]
                found.problems.setdefault(str(gap), trace)
                continue
            if after not in way:
                way[after] = (world, step.name)
                queue.append(after)
    return found


def _steps(setting: Setting, world: World, faults: int) -> list[Step]:
    steps = list(own_steps(setting, world))
    if world.faults < faults:
        steps += faults_of(world)
    return [*steps, *late_answers(world)]


def _trace(way: dict[World, tuple[World, str] | None], world: World) -> list[str]:
    names: list[str] = []
    before = way[world]
    while before is not None:
        world, name = before
        names.append(name)
        before = way[world]
    return names[::-1]


def _wrong(world: World) -> list[str]:
    entry = world.entry
    wrong = []
    for number, part in enumerate(world.parts):
        if part.shown > 1 + part.allowed:
            wrong.append(f"part {number} is shown {part.shown} times")
        if part.empty > 2 + part.allowed:
            wrong.append(f"part {number} has {part.empty} placeholders")
    if entry.phase in ("queued", "retryable", "aborted") and entry.doubt:
        wrong.append(f"{entry.phase}, and in doubt")
    if entry.phase == "delivered" and not entry.whole:
        wrong.append("delivered, and not all of it is")
    if entry.phase == "failed" and entry.whole:
        wrong.append("failed, and all of it is delivered")
    return wrong


def _stuck(setting: Setting, world: World) -> list[str]:
    """Without any fault an entry ends, or waits for a person."""
    here = world
    for _ in range(_PATIENCE):
        if not here.entry.open or here.entry.phase == "parked":
            return []
        step = next(iter(own_steps(setting, here)), None)
        if step is None:
            return [f"nothing leads on from {here.entry.phase}"]
        try:
            here = taken(here, step, set())
        except Gap:
            return []  # told where the step is taken itself
    return [f"no end from {world.entry.phase}"]
