"""Breadth-first search over all states of a world, with the shortest counterexample.

Deterministic: the same configuration always gives the same states in the same order,
so there is no seed. A search ends when every state was seen, when the first violation
is found, or when its time is up; only the first of these is exhaustive.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import pairwise

from turnfold_model.command_kit import uncollected
from turnfold_model.protocol_model.words import Config
from turnfold_model.protocol_model.world import Edge, State, World


@dataclass(slots=True)
class Result:
    """The result of a search of one configuration."""

    config: Config
    distinct: int = 0
    edges: int = 0
    depth: int = 0
    complete: bool = False
    seconds: float = 0.0
    broken: str = ""  # the invariant
    trace: list[str] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)


def explore(
    config: Config,
    *,
    deadline: float | None = None,
    ignore: frozenset[str] = frozenset(),
) -> Result:
    """Every reachable state of one configuration; stops at the first violation.

    `deadline` is in `time.monotonic`. Invariants in `ignore` may break, so that one can
    see the other effects of a missing guard.
    """
    with uncollected():
        return Search(config, ignore).run(deadline)


def always_ends(config: Config) -> bool:
    """INV-14, the other half: with no further faults nothing can go round in circles.

    Together with "a world that cannot move is at rest", which every search checks, it says
    that each run in which faults stop comes to rest. Needs all edges: small worlds.
    """
    world = World(config)
    after: dict[State, list[State]] = {}
    todo = [world.start()]
    while todo:
        state = todo.pop()
        if state in after:
            continue
        edges = list(world.edges(state))
        after[state] = [e.to for e in edges if not e.fault and e.to != state]
        todo.extend(edge.to for edge in edges)
    return _acyclic(after)


def _acyclic(after: dict[State, list[State]]) -> bool:
    """Kahn: take away states that nothing points to, until nothing is left."""
    into = dict.fromkeys(after, 0)
    for targets in after.values():
        for target in targets:
            into[target] += 1
    ready = [state for state, count in into.items() if not count]
    taken = 0
    while ready:
        taken += 1
        for target in after[ready.pop()]:
            into[target] -= 1
            if not into[target]:
                ready.append(target)
    return taken == len(after)


class Search:
    """One search. Parents are kept to tell the shortest way to a violation."""

    def __init__(self, config: Config, ignore: frozenset[str] = frozenset()) -> None:
        self._ignore = ignore
        self.world = World(config)
        self.result = Result(config)
        self._parents: dict[State, State | None] = {}

    def run(self, deadline: float | None) -> Result:
        began, result = time.monotonic(), self.result
        start = self.world.start()
        self._parents[start] = None
        layer = [start]
        while layer and not result.broken:
            if deadline is not None and time.monotonic() > deadline:
                break
            layer = self._layer(layer)
            result.depth += 1
            result.distinct = len(self._parents)
        result.complete = not layer
        result.seconds = time.monotonic() - began
        return result

    def _layer(self, layer: list[State]) -> list[State]:
        parents, world, result = self._parents, self.world, self.result
        labels, after = result.labels, []
        for state in layer:
            moving = False
            for edge in world.edges(state):
                labels.add(edge.label)
                result.edges += 1
                moving = moving or not edge.fault
                broken = edge.broken
                if edge.to not in parents:
                    parents[edge.to] = state
                    after.append(edge.to)
                    broken = broken or world.wrong(edge.to)
                if broken and broken not in self._ignore:
                    self._found(broken, state, edge)
                    return after
            if not moving and not world.at_rest(state):
                self._found("INV-14", state, None)
                return after
        return after

    def _found(self, broken: str, state: State, last: Edge | None) -> None:
        """The way from the start to the violation, one label per line."""
        self.result.broken = broken
        states = [state]
        while (parent := self._parents[states[-1]]) is not None:
            states.append(parent)
        states.reverse()
        trace = [self.world.describe(states[0])]
        for before, after in pairwise(states):
            label = next(e.label for e in self.world.edges(before) if e.to == after)
            trace.append(f"{label}: {self.world.describe(after)}")
        if last is not None:
            trace.append(f"{last.label}: {self.world.describe(last.to)}")
        self.result.trace = trace
