"""Every execution of a scenario: depth first over crash points, fates and orders.

A crash does not end the enumeration of a life: the world is copied at each point where
the process could die, and the copy is booted later. Worlds with the same future are
booted once.
"""

import time
from collections.abc import Callable, Hashable, Iterator
from functools import partial

from attrs import define, field, frozen

from turnfold.errors import TurnfoldError
from turnfold_model.crash.life import Life, MergedError, StuckError, Tape
from turnfold_model.crash.replays import Memo
from turnfold_model.crash.scenario import Scenario
from turnfold_model.crash.verdict import broken
from turnfold_model.crash.world import World

# Reproduces an execution: the tape of each life, and the image of its crash.
Path = tuple[tuple[tuple[int, ...], int], ...]


@frozen
class Violation:
    scenario: str
    rule: str
    path: Path


@define
class Explored:
    """`complete`: every possible execution was made. `merged`: executions that reached
    the state of an earlier one. `cpu_s`: processor seconds, if they were counted."""

    scenario: str
    executions: int = 0
    merged: int = 0
    worlds: int = 0  # distinct booted images
    effects: int = 0
    violations: list[Violation] = field(factory=list)
    complete: bool = True
    moments: set[Hashable] = field(factory=set, repr=False)
    cpu_s: float = 0.0


@frozen
class _Boot:
    world: World
    path: Path


def explore(
    scenario: Scenario,
    *,
    seconds: float | None = None,
    most: int = 10,
    check: Callable[[World], list[str]] = broken,
) -> Explored:
    """Run all executions, or until the time is up or `most` violations were found."""
    done = Explored(scenario.name)
    until = None if seconds is None else time.monotonic() + seconds
    stack = [_Boot(World.new(scenario), ())]
    seen: set[object] = set()
    while stack and done.complete:
        boot = stack.pop()
        done.worlds += 1
        for tape, images in _lives(boot, done, check):
            for number, image in enumerate(images):
                identity = image.identity()
                if identity not in seen:
                    seen.add(identity)
                    stack.append(_Boot(image, (*boot.path, (tape, number))))
            if len(done.violations) >= most or (until and time.monotonic() > until):
                done.complete = False
                break
    return done


def _lives(
    boot: _Boot, done: Explored, check: Callable[[World], list[str]]
) -> Iterator[tuple[tuple[int, ...], list[World]]]:
    """All lives that begin with this image; yields the images they may crash into."""
    tapes: list[tuple[int, ...]] = [()]
    memo: Memo = {}
    while tapes:
        tape = Tape(tapes.pop())
        images: list[World] = []
        path = (*boot.path, (tape.given, -1))
        rules = _live(boot.world.copy(), tape, images, done, check, memo)
        done.violations += [Violation(done.scenario, rule, path) for rule in rules]
        done.executions += 1
        tapes += tape.siblings()
        yield tape.given, images


def _live(
    world: World,
    tape: Tape,
    images: list[World],
    done: Explored,
    check: Callable[[World], list[str]],
    memo: Memo,
) -> list[str]:
    try:
        life = Life(world, tape, partial(_collect, images), done.moments, memo)
        life.run()
    except MergedError:
        done.merged += 1
        return []
    except StuckError:
        return ["INV-14 a life that never rests"]
    except TurnfoldError as exc:  # no program may raise one
        return [f"a program ended with {exc!r}: {exc}"]
    done.effects += life.effects
    if life.killed:  # not at rest: its successors are judged
        return sorted(world.wrongs)
    ended = [f"{life.broken} programs were ended by an error"] if life.broken else []
    return [*ended, *check(world)]


def replay(scenario: Scenario, path: Path) -> World:
    """The world at the end of a violation's path, lived again."""
    world = World.new(scenario)
    for tape, number in path:
        images: list[World] = []
        world = world.copy()
        life = Life(world, Tape(tape), partial(_collect, images))
        try:
            life.run()
        except StuckError:
            return world
        if number >= 0:
            world = images[number]
    return world


def _collect(images: list[World], here: World, cost: int) -> None:
    images.extend(here.crashed(cost))
