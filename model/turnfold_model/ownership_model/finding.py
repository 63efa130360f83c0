"""How the processes of a store find the primary of a cluster, and follow a failover.

Two servers: a primary, and its standby, which is promoted once. Each may stop and go on
at any moment, and any of them may be out of reach for one question. A worker reads the
log on one connection and commits on another; a client only posts. Commits here are of
one worker: who may write is `world.py`.

An old primary that goes on after the promotion still calls itself one, and may have
found another standby. Two assumptions make it harmless: it is fenced, so it confirms no
commit; and before, a commit was confirmed only when the standby had it, too. The rules
keep a process off it, and with the primary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MAX_COMMITS = 2
_SERVERS = range(2)
NONE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of the way to the primary, and the assumptions about the cluster."""

    all_asked: bool = True  # not only the first host of the address
    primary_alone: bool = True  # a standby is skipped
    never_back: bool = True  # to an earlier timeline than it has seen
    later_wins: bool = True  # of two primaries that answer
    one_way: bool = True  # all connections leave if one finds another primary
    looks_around: bool = True  # while a statement has no answer
    fenced: bool = True  # assumption: an old primary confirms no commit
    synchronous: bool = True  # assumption: the standby has what a caller was told


class Server(NamedTuple):
    """`log`: its commits."""

    up: bool = True
    primary: bool = False
    timeline: int = 1
    log: frozenset[int] = frozenset()


class Process(NamedTuple):
    """`reads`, `writes`: the servers of its connections. `known`: the latest timeline
    that it has seen. `told`: the commits that it was told are stored."""

    reads: int = NONE
    writes: int = NONE
    known: int = 0
    told: frozenset[int] = frozenset()
    down: bool = False  # it has stood down


class World(NamedTuple):
    """`processes`: a worker and a client."""

    servers: tuple[Server, ...]
    processes: tuple[Process, ...] = (Process(), Process())
    made: int = 0
    broken: str = ""


Step = tuple[str, World]
WORKER, CLIENT = 0, 1


def start() -> World:
    return World(servers=(Server(primary=True), Server()))


def broken(world: World) -> str:
    """The invariant that does not hold."""
    if world.broken:
        return world.broken
    primary = max(world.servers, key=lambda server: (server.primary, server.timeline))
    told = frozenset[int]().union(*(process.told for process in world.processes))
    if told - primary.log:
        return "P1: a caller was told of a commit that the primary lacks"
    return ""


def steps(world: World, rules: Rules) -> Iterator[Step]:
    yield from _cluster(world)
    for number, process in enumerate(world.processes):
        if process.down:
            continue
        for which in ("reads", "writes") if number == WORKER else ("writes",):
            if getattr(process, which) == NONE:
                yield from _asks(world, number, which, rules)
            else:
                lost = {which: NONE}
                yield f"{which}: the connection breaks", _be(world, number, **lost)
        yield from _waits(world, number, rules)
        yield from _commits(world, number, rules)
    yield from _reads(world)


# --- the cluster -------------------------------------------------------------------


def _cluster(world: World) -> Iterator[Step]:
    first, second = world.servers
    for number, server in enumerate(world.servers):
        word = "stops" if server.up else "goes on"
        yield f"server {number} {word}", _serve(world, number, up=not server.up)
    if not second.primary:
        yield "the standby follows", _serve(world, 1, log=first.log)
        if not first.up:
            yield "promoted", _serve(world, 1, primary=True, timeline=2)


# --- the way -----------------------------------------------------------------------


def _asks(world: World, number: int, which: str, rules: Rules) -> Iterator[Step]:
    """Any of the servers that are up may answer in time."""
    up = [n for n in _SERVERS if world.servers[n].up]
    for answers in ([], [0], [1], [0, 1]):
        if not set(answers) <= set(up):
            continue
        asked = answers if rules.all_asked else [n for n in answers if n == 0]
        found = _chosen(world, world.processes[number], asked, rules)
        name = f"{number} {which}: {answers} answer"
        yield name, _found(world, number, which, found, answers, rules)


def _chosen(
    world: World, process: Process, answers: Sequence[int], rules: Rules
) -> int:
    servers = world.servers
    fit = [n for n in answers if servers[n].primary or not rules.primary_alone]
    if rules.never_back:
        fit = [n for n in fit if servers[n].timeline >= process.known]
    if not fit:
        return NONE
    return max(fit, key=lambda n: servers[n].timeline) if rules.later_wins else fit[0]


def _found(
    world: World,
    number: int,
    which: str,
    found: int,
    answers: Sequence[int],
    rules: Rules,
) -> World:
    process, servers = world.processes[number], world.servers
    lines = [servers[n].timeline for n in answers if servers[n].primary]
    if found == NONE:
        missed = any(line >= process.known for line in lines)
        why = "P3: a primary answered, and was not found"
        return world._replace(broken=why) if missed else world
    line = servers[found].timeline
    if line < max([process.known, *lines]):
        return world._replace(broken="P2: a server of an earlier timeline is used")
    if rules.one_way and line > process.known:
        world = _be(world, number, reads=NONE, writes=NONE)
    return _be(world, number, **{which: found, "known": line})


def _waits(world: World, number: int, rules: Rules) -> Iterator[Step]:
    """A statement waits for a server that has stopped, and another one is the primary."""
    at = world.processes[number].writes
    if at != 0 or world.servers[0].up or not _is_served(world):
        return
    if rules.looks_around:
        yield (f"{number} looks around", _found(world, number, "writes", 1, [1], rules))
    else:
        why = "P3: it waits beyond its lease, and a primary is there"
        yield f"{number} waits", world._replace(broken=why)


def _is_served(world: World) -> bool:
    second = world.servers[1]
    return second.up and second.primary


# --- the work ----------------------------------------------------------------------


def _commits(world: World, number: int, rules: Rules) -> Iterator[Step]:
    """A caller is told only by a primary that confirms."""
    process = world.processes[number]
    at = process.writes
    if at == NONE or world.made == MAX_COMMITS:
        return
    server = world.servers[at]
    if not (server.up and server.primary):
        return
    new = world.made + 1
    stored = _serve(world, at, log=server.log | {new})._replace(made=new)
    yield f"{number} commits, no answer", _be(stored, number, writes=NONE)
    if at == 0 and world.servers[1].primary and rules.fenced:
        return
    standby = world.servers[1]
    if at == 0 and rules.synchronous and not standby.primary:
        if not standby.up:
            return  # it waits for its standby
        stored = _serve(stored, 1, log=stored.servers[0].log)
    told = process.told | {new}
    yield f"{number} commits at {at}", _be(stored, number, told=told)


def _reads(world: World) -> Iterator[Step]:
    """The worker reads the log, and stands down if it lacks what it stored."""
    worker = world.processes[WORKER]
    if worker.down or worker.reads == NONE or not world.servers[worker.reads].up:
        return
    if worker.told <= world.servers[worker.reads].log:
        return
    down = _be(world, WORKER, down=True)
    newest = max(world.servers, key=lambda server: (server.primary, server.timeline))
    if worker.told <= newest.log:
        down = down._replace(broken="P4: it stood down, and the primary lacks nothing")
    yield "stands down", down


def _serve(world: World, number: int, **changes: object) -> World:
    servers = [*world.servers]
    servers[number] = servers[number]._replace(**changes)  # type: ignore[arg-type]
    return world._replace(servers=tuple(servers))


def _be(world: World, number: int, **changes: object) -> World:
    processes = [*world.processes]
    processes[number] = processes[number]._replace(**changes)  # type: ignore[arg-type]
    return world._replace(processes=tuple(processes))
