"""Every execution of a scenario: depth first over crash points, fates and orders.

A crash does not end the enumeration of a life: the world is copied where the process
could die, and the copy is booted later. Worlds with the same future are booted once.
"""

import time
from collections.abc import Callable, Iterator

from attrs import define, field, frozen

from turnfold_model.crash.life import Life, StuckError, Tape
from turnfold_model.crash.scenario import Scenario
from turnfold_model.crash.verdict import broken
from turnfold_model.crash.world import World


@frozen
class Violation:
    scenario: str
    rule: str
    path: tuple[tuple[int, ...], ...]  # the tape of each life: reproduces it


@define
class Explored:
    scenario: str
    executions: int = 0
    worlds: int = 0  # distinct images that were booted
    effects: int = 0
    violations: list[Violation] = field(factory=list)
    complete: bool = True


@frozen
class _Boot:
    world: World
    path: tuple[tuple[int, ...], ...]


def explore(
    scenario: Scenario,
    *,
    seconds: float | None = None,
    most: int = 10,
    check: Callable[[World], list[str]] = broken,
) -> Explored:
    """Run them all, or until the time is up or `most` violations were found."""
    done = Explored(scenario.name)
    until = None if seconds is None else time.monotonic() + seconds
    stack = [_Boot(World.new(scenario), ())]
    seen: set[object] = set()
    while stack:
        if len(done.violations) >= most or (until and time.monotonic() > until):
            done.complete = False
            break
        boot = stack.pop()
        done.worlds += 1
        for image, path in _lives(boot, done, check):
            identity = image.identity()
            if identity not in seen:
                seen.add(identity)
                stack.append(_Boot(image, path))
    return done


def _lives(
    boot: _Boot, done: Explored, check: Callable[[World], list[str]]
) -> Iterator[tuple[World, tuple[tuple[int, ...], ...]]]:
    """All lives that begin with this image; yields the images they may crash into."""
    tapes: list[tuple[int, ...]] = [()]
    while tapes:
        tape = Tape(tapes.pop())
        images: list[World] = []
        world = _reborn(boot.world)
        rules = _live(world, tape, images, done, check)
        path = (*boot.path, tape.given)
        done.violations += [Violation(done.scenario, rule, path) for rule in rules]
        done.executions += 1
        tapes += tape.siblings()
        for image in images:
            yield image, path


def _reborn(world: World) -> World:
    twin = World(
        world.scenario,
        world.disk.fork(),
        world.platform.copy(),
        now=world.now,
        ids=world.ids,
        acked=world.acked,
        aborted=world.aborted,
        enqueued=world.enqueued,
        crashes=world.crashes,
        faults=world.faults,
    )
    return twin


def _live(
    world: World,
    tape: Tape,
    images: list[World],
    done: Explored,
    check: Callable[[World], list[str]],
) -> list[str]:
    life = Life(world, tape, lambda here: images.extend(here.crashed()))
    try:
        life.run()
    except StuckError:
        return ["INV-14 a life that never rests"]
    finally:
        done.effects += life.driver.effects
    return check(world)
