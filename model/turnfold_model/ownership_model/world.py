"""The world of a shared store: workers, the server, the wire, and one entry of one part.

There is no clock: a lease may end at any moment, and a worker that takes no step is a
stopped one. One statement may be under way, and a request on the wire lands at any
time. `epoch` grows with each take-over and stands in the events; `token` grows also
after each commit of unknown fate and with each hand-over. The one seat here is one of
many on a sharded store; `routing.py` has the traffic between shards.

`Rules` names each guard and each assumption; taking one away must break an invariant. A
commit also shows where the log ends, and a worker that counts as dead renews no lease. Where
death is proven and tokens are checked, neither can be missed, so they are no rules here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

Class = Literal["lookup", "blind", "inbox", "keyed"]
MAX_EPOCH: Final = 2
MAX_TOKEN: Final = 3
MAX_ATTEMPTS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The guards of the store and of its worker, and the assumptions."""

    token_checked: bool = True  # a commit shows the token in hand
    token_after_unknown_fate: bool = True
    asked_tokens_are_known: bool = True  # a seat remembers each that it asked for
    token_after_take: bool = True
    proof_of_death: bool = True  # a lease that is over is not enough
    token_compared: bool = True  # a take compares the token that it found free
    living_takes: bool = True  # and only a host that counts as alive takes
    true_certificates: bool = True  # a certificate speaks of a process that has ended
    goodbye_last: bool = True  # a worker leaves after its last request was answered
    hands_over_quiet: bool = True  # a seat is freed after the last request ended
    token_after_hand_over: bool = True
    durable_before_wire: bool = True
    doubt_is_not_failure: bool = True
    blind_parks: bool = True
    absence_waits: bool = True  # until nothing of the dead worker can land any more
    promised_keys_are_taken: bool = True
    logged_keys_are_taken: bool = True
    leaves_the_inbox: bool = True  # in the commit that logs it
    no_long_sleep: bool = True  # assumption: nothing goes on after max_pause_ms


class Worker(NamedTuple):
    """One life of a worker. `lease`: whether it is over, for the server. `row`: whether
    it counts as dead. `seen`: the token of the seat that it found free. `epoch`, `token`: those that it
    holds, 0 for none. `asked`: the token that it has asked for without an answer. `base`:
    where it believes that the log ends. `hand`: how far its request is."""

    alive: bool = True
    lease_over: bool = False
    gone: bool = False
    seen: int = -1
    epoch: int = 0
    token: int = 0
    asked: int = 0
    base: int = 0
    hand: Literal["", "armed", "wire", "yes", "timeout"] = ""
    doubt: bool = False


class Statement(NamedTuple):
    """A commit that is under way. `told`: somebody was told that it is not stored."""

    token: int
    base: int
    event: str
    epoch: int
    told: bool = False


class World(NamedTuple):
    """`position`: unique for each state of the log. `phase`, `epoch`: of the attempt."""

    workers: tuple[Worker, ...]
    owner: int = -1
    freed: bool = False  # the owner has handed its seat over, and lives
    token: int = 0
    epochs: int = 0
    position: int = 0
    writer: int = -1  # the writer under this token
    phase: str = "queued"
    epoch: int = 0
    attempts: int = 0
    under_way: Statement | None = None
    wire: int = 0
    landed: int = 0
    key: str = ""  # "", promised, or the turn that the log knows: posted, accepted
    waiting: bool = False  # the command lies in the inbox
    logged: int = 0
    told: frozenset[str] = frozenset()
    broken: str = ""


Step = tuple[str, World]


def start(workers: int) -> World:
    return World(workers=tuple(Worker() for _ in range(workers)))


def broken(world: World, kind: Class) -> str:
    """The invariant that does not hold, by its number in specs/postgres.md."""
    if world.broken:
        return world.broken
    if kind in ("lookup", "blind") and world.landed > 1:
        return "O5: sent twice"
    if world.phase == "delivered" and not world.landed:
        return "O7: delivered and never shown"
    if world.logged > 1:
        return "O9: a command was decided twice"
    if len(world.told) > 1:
        return "O9: one message, two turns"
    return ""


def steps(world: World, kind: Class, rules: Rules) -> Iterator[Step]:
    """Everything that may happen next."""
    yield from _elsewhere(world, kind, rules)
    for number, worker in enumerate(world.workers):
        if worker.alive:
            yield from _life(world, number, rules)
            yield from _taking(world, number, rules)
            if worker.token:
                yield from _working(world, number, kind, rules)
            yield from _sending(world, number)


# --- the server and the wire ------------------------------------------------------


def _elsewhere(world: World, kind: Class, rules: Rules) -> Iterator[Step]:
    if world.wire:
        yield "lands", world._replace(wire=world.wire - 1, landed=world.landed + 1)
    late = world.under_way
    if late is not None:
        left = world._replace(under_way=None)
        if not _fits(world, late, rules):
            yield "late commit refused", left
        elif late.told:
            yield (
                "late commit",
                left._replace(broken="O4: told not stored, then stored"),
            )
        else:
            yield "late commit", _stored(left, late, -1, rules)
    if kind == "inbox" and not world.waiting and not world.logged:
        yield from _posts(world, rules)


def _posts(world: World, rules: Rules) -> Iterator[Step]:
    if not world.key:
        told = world.told | {"posted"}
        yield "post", world._replace(key="promised", waiting=True, told=told)
    elif rules.logged_keys_are_taken:
        yield "post again", world._replace(told=world.told | {_turn(world)})
    else:
        told = world.told | {"posted"}
        yield "post again", world._replace(waiting=True, told=told)


def _turn(world: World) -> str:
    return "accepted" if world.key == "accepted" else "posted"


# --- a worker's life --------------------------------------------------------------


def _life(world: World, number: int, rules: Rules) -> Iterator[Step]:
    worker = world.workers[number]
    if not worker.lease_over:
        yield "the lease ends", _with(world, number, lease_over=True)
    yield "dies", _with(world, number, **_DEAD)
    quiet = worker.hand in ("", "yes", "timeout")
    ends = (quiet and not worker.doubt) or not rules.goodbye_last
    # A life that never had a seat matters only if it may take one later.
    matters = worker.token or not rules.living_takes
    if not worker.gone and matters and ends:
        yield "leaves", _with(world, number, gone=True, token=0, asked=0, epoch=0)
    mine = worker.token and _is_its(world, number, rules)
    first = world.epochs < MAX_EPOCH  # nobody could take it afterwards
    if mine and first and (quiet or not rules.hands_over_quiet):
        yield "hands the seat over", _freed(world, number, rules)


def _freed(world: World, number: int, rules: Rules) -> World:
    """The caller of a commit of unknown outcome learns that it is not stored."""
    late = world.under_way
    if late is not None:
        late = late._replace(told=True)
    top = max(world.token, _top(world.workers[number], rules))
    token = top + 1 if rules.token_after_hand_over else world.token
    new = world._replace(freed=True, under_way=late, token=token, writer=-1)
    hand = "" if rules.hands_over_quiet else world.workers[number].hand
    return _with(new, number, token=0, asked=0, epoch=0, doubt=False, hand=hand)


def _top(worker: Worker, rules: Rules) -> int:
    """The highest token that the worker knows as its own."""
    known = rules.asked_tokens_are_known
    return max(worker.token, worker.asked) if known else worker.token


def _is_its(world: World, number: int, rules: Rules) -> bool:
    """Is the token of the shard the worker's, or one that it has asked for?"""
    worker = world.workers[number]
    top = _top(worker, rules)
    return world.owner == number and worker.token <= world.token <= top


_DEAD: Final[dict[str, Any]] = {
    "alive": False,
    "hand": "",
    "token": 0,
    "asked": 0,
    "epoch": 0,
    "doubt": False,
}


def _taking(world: World, number: int, rules: Rules) -> Iterator[Step]:
    """A seat is found free, or its worker is found dead; then the seat is taken."""
    me = world.workers[number]
    for other, it in enumerate(world.workers):
        if other == number or it.gone or other != world.owner:
            continue
        if not it.alive or not rules.true_certificates:
            yield "certifies", _with(world, other, gone=True)
        if it.lease_over and not rules.proof_of_death:
            yield "believes the lease", _with(world, other, gone=True)
        if it.lease_over:
            sleeps = {"gone": True, **(_DEAD if rules.no_long_sleep else {})}
            yield "max_pause_ms is over", _with(world, other, **sleeps)
    owner = world.owner
    free = owner < 0 or world.freed or world.workers[owner].gone
    if free and me.seen != world.token and not me.token:
        yield "finds it free", _with(world, number, seen=world.token)
    fits = me.seen == world.token or not rules.token_compared
    counts = not (me.gone or me.lease_over) or not rules.living_takes
    may = me.seen >= 0 and fits and counts and not me.token
    if may and world.epochs < MAX_EPOCH and world.token < MAX_TOKEN:
        yield "takes", _taken(world, number, rules)


def _taken(world: World, number: int, rules: Rules) -> World:
    grows = rules.token_after_take or not world.token
    token = world.token + grows
    writer = -1 if grows else world.writer
    new = world._replace(
        owner=number, freed=False, token=token, epochs=world.epochs + 1, writer=writer
    )
    held = {"epoch": new.epochs, "token": token, "base": world.position, "seen": -1}
    return _with(new, number, hand="", doubt=False, **held)


# --- a worker's decisions -----------------------------------------------------------


def _working(world: World, number: int, kind: Class, rules: Rules) -> Iterator[Step]:
    worker = world.workers[number]
    if worker.doubt:
        yield from _after_doubt(world, number, rules)
        return
    if world.token != worker.token or world.owner != number:
        yield "notices the loss", _with(world, number, token=0, epoch=0)
    elif worker.base != world.position:
        yield "reads anew", _with(world, number, base=world.position)
    if kind == "inbox":
        events = [*_inbox_events(world)]
    else:
        events = [*_events(world, worker, kind, rules)]
    for event in events:
        yield from _commit(world, number, event, rules)
    armed = world.phase == "attempted" and world.epoch == worker.epoch
    early = not rules.durable_before_wire and world.phase in ("queued", "retry")
    if (armed or early) and not worker.hand and not worker.lease_over:
        yield "prepares a request", _with(world, number, hand="armed")


def _after_doubt(world: World, number: int, rules: Rules) -> Iterator[Step]:
    """Take a new token, then read; or notice that the store is another's. The answer may
    be lost, too."""
    worker = world.workers[number]
    if not _is_its(world, number, rules):
        lost = {"token": 0, "asked": 0, "epoch": 0, "doubt": False}
        down = _with(world, number, **lost)
        if world.owner == number:
            down = down._replace(broken="O11: stood down, and the shard is its own")
        yield "notices the loss", down
        return
    grows = rules.token_after_unknown_fate
    top = _top(worker, rules)
    if grows and top >= MAX_TOKEN:
        return
    token = top + 1 if grows else world.token
    new = world._replace(token=token, writer=-1 if grows else world.writer)
    if grows:
        yield "its new token has no answer", _with(new, number, asked=token)
        yield "its new token is not asked for", _with(world, number, asked=token)
    late = new.under_way
    if late is not None:  # its caller learns that it is not stored
        new = new._replace(under_way=late._replace(told=True))
    yield (
        "reads under a new token",
        _with(new, number, token=token, asked=0, base=world.position, doubt=False),
    )


def _inbox_events(world: World) -> Iterator[str]:
    if world.waiting:
        yield "log the command"
    yield "accept"


def _events(world: World, worker: Worker, kind: Class, rules: Rules) -> Iterator[str]:
    mine = world.epoch == worker.epoch
    more = world.attempts < MAX_ATTEMPTS
    match world.phase:
        case "queued" | "retry" if more and (worker.hand == "" or not mine):
            yield "attempted"
        case "attempted" if mine and worker.hand == "yes":
            yield "delivered"
        case "attempted" if mine and worker.hand == "timeout":
            yield "doubt" if rules.doubt_is_not_failure else "retry"
        case "attempted" if not mine:
            yield "doubt" if rules.doubt_is_not_failure else "retry"
        case "doubt":
            yield from _out_of_doubt(world, kind, rules)
        case _:
            pass


def _out_of_doubt(world: World, kind: Class, rules: Rules) -> Iterator[str]:
    if kind == "keyed":
        yield "retry"
    elif kind == "blind":
        yield "parked" if rules.blind_parks else "retry"
    elif world.landed:
        yield "delivered"
    elif not world.wire or not rules.absence_waits:
        yield "retry"


def _commit(world: World, number: int, event: str, rules: Rules) -> Iterator[Step]:
    """Stored, stored without an answer, still under way, or refused."""
    worker = world.workers[number]
    statement = Statement(worker.token, worker.base, event, worker.epoch)
    if _fits(world, statement, rules):
        stored = _stored(world, statement, number, rules)
        over = event in ("delivered", "doubt", "retry", "parked")
        after: dict[str, Any] = {"base": stored.position}
        after |= {"hand": ""} if over else {}
        yield event, _with(stored, number, **after)
        yield f"{event}, answer lost", _with(stored, number, doubt=True)
    elif world.token == worker.token:
        yield f"{event} refused", _with(world, number, base=world.position)
    else:
        yield f"{event} refused", _with(world, number, token=0, epoch=0)
    if world.under_way is None:
        waits = world._replace(under_way=statement)
        yield f"{event} under way", _with(waits, number, doubt=True)


def _fits(world: World, statement: Statement, rules: Rules) -> bool:
    token = statement.token == world.token or not rules.token_checked
    return token and statement.base == world.position


def _stored(world: World, statement: Statement, number: int, rules: Rules) -> World:
    new = world._replace(position=world.position + 1)
    if number >= 0 and rules.token_checked:
        if world.writer not in (-1, number):
            return new._replace(broken="O1: two writers under one token")
        new = new._replace(writer=number)
    match statement.event:
        case "attempted":
            attempts = world.attempts + 1
            new = new._replace(
                phase="attempted", epoch=statement.epoch, attempts=attempts
            )
        case "accept" | "log the command":
            return _decided(new, statement.event, rules)
        case phase:
            new = new._replace(phase=phase)
    undone = world.phase == "delivered" and new.phase != "delivered"
    return new._replace(broken="O6: evidence was undone") if undone else new


def _decided(world: World, event: str, rules: Rules) -> World:
    if event == "log the command":
        waiting = not rules.leaves_the_inbox
        return world._replace(key="posted", waiting=waiting, logged=world.logged + 1)
    if world.key == "promised" and rules.promised_keys_are_taken:
        return world._replace(told=world.told | {"posted"})
    if world.key in ("posted", "accepted"):
        return world._replace(told=world.told | {_turn(world)})
    return world._replace(key="accepted", told=world.told | {"accepted"})


# --- the wire, from a worker --------------------------------------------------------


def _sending(world: World, number: int) -> Iterator[Step]:
    worker = world.workers[number]
    if worker.hand == "armed":
        sent = world._replace(wire=world.wire + 1)
        yield "sends", _with(sent, number, hand="wire")
    elif worker.hand == "wire":
        if world.landed:
            yield "is answered", _with(world, number, hand="yes")
        yield "is not answered", _with(world, number, hand="timeout")


def _with(world: World, number: int, **changes: Any) -> World:
    workers = list(world.workers)
    workers[number] = workers[number]._replace(**changes)
    return world._replace(workers=tuple(workers))
