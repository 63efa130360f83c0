"""The world of a watchdog: one worker, one process id, and who has it.

The worker is stopped or hangs at any step, since a step need not be taken. It may die at
any moment, and a stranger may get its process id. It may give its life up and begin
another one. The watchdog is stopped at any step, too. `Seats.tla` has what its word
leads to: there the end and the word are two actions, and here is how the end is reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the watchdog does before it ends a process, and before it says so."""

    primary_asked: bool = True  # a standby may lack renewals; cut off, nobody is ended
    every_life_asked: bool = True  # the process may have begun another one
    start_compared: bool = True
    held_by_handle: bool = True  # else the signal goes to whoever has the id then
    held_before_compared: bool = True
    gone_before_word: bool = True


class World(NamedTuple):
    """`holder`: who has the process id. `over`, `again`: the lease of the row is over;
    the process has another life with a live lease. `held`: whom the watchdog holds.
    `answer`: of the server, after the process was held; `true`: whether it was so."""

    holder: Literal["worker", "stranger", ""] = "worker"
    over: bool = False
    again: bool = False
    certified: bool = False
    at: Literal["", "compared", "held", "asked", "shot"] = ""
    held: Literal["worker", "stranger", ""] = ""
    compared: bool = False
    true: bool = False
    broken: str = ""


Step = tuple[str, World]
_Act = Callable[[World, Rules], Iterator[Step]]


def start() -> World:
    return World()


def broken(world: World) -> str:
    return world.broken


def steps(world: World, rules: Rules) -> Iterator[Step]:
    yield from _elsewhere(world)
    if not world.certified:
        yield from _watchdog(world, rules)


def _elsewhere(world: World) -> Iterator[Step]:
    if not world.over:
        yield "the lease ends", world._replace(over=True)
    if world.holder == "worker":
        yield "the worker dies", world._replace(holder="", again=False)
        if world.over and not world.again:
            yield "the worker begins another life", world._replace(again=True)
    if not world.holder:
        yield "a stranger gets the id", world._replace(holder="stranger")


def _watchdog(world: World, rules: Rules) -> Iterator[Step]:
    yield "the watchdog begins anew", _anew(world)
    order: list[_Act] = [_hold, _compare]
    first, then = order if rules.held_before_compared else reversed(order)
    match world.at:
        case "":
            yield from first(world, rules)
        case "compared" | "held" if not (world.held and world.compared):
            yield from then(world, rules)
        case "compared" | "held":
            yield from _asks(world, rules)
        case "asked":
            yield "ends the process", _shot(world, rules)
        case "shot":
            pass
    yield from _says(world, rules)


def _anew(world: World) -> World:
    return world._replace(at="", held="", compared=False, true=False)


def _hold(world: World, _: Rules) -> Iterator[Step]:
    if world.holder:
        yield "holds the process", world._replace(at="held", held=world.holder)


def _compare(world: World, rules: Rules) -> Iterator[Step]:
    if world.holder == "worker" or not rules.start_compared:
        yield "compares the start time", world._replace(at="compared", compared=True)


def _asks(world: World, rules: Rules) -> Iterator[Step]:
    true = world.over and not world.again
    known = world.over if not rules.every_life_asked else true
    if known or not rules.primary_asked:
        yield "hears that its lease is over", world._replace(at="asked", true=true)


def _shot(world: World, rules: Rules) -> World:
    """A handle of a process that has ended reaches nobody."""
    whom = world.held if rules.held_by_handle else world.holder
    if whom == "stranger" and world.holder == "stranger":
        return world._replace(broken="W1: another process was ended")
    if whom != "worker" or world.holder != "worker":
        return world._replace(at="shot")
    if not world.true:
        return world._replace(broken="W2: a worker with a live lease was ended")
    return world._replace(at="shot", holder="", again=False)


def _says(world: World, rules: Rules) -> Iterator[Step]:
    gone = world.holder != "worker"
    early = world.at == "asked" and not rules.gone_before_word
    if not gone and early:
        bad = "W3: a worker that lives was called dead"
        yield "says that it is dead", world._replace(broken=bad)
    elif gone:
        yield "says that it is dead", world._replace(certified=True)
