"""Two hosts that share four shards: one comes, shards are handed over, one leaves.

The loops of the hosts take turns, so that they have one time. One of the two is stopped
at a statement, the other one goes on. At last a third host takes all shards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from itertools import count
from math import ceil
from typing import Final

from attrs import define, field

from turnfold.api.kernel import Kernel
from turnfold.api.shard_kernel import shard_of_place
from turnfold.errors import TurnfoldError
from turnfold.inbound import Inbound
from turnfold_adapters.stores.postgres import PostgresStore
from turnfold_model.crash_hosts import scenes
from turnfold_model.crash_hosts.hosts import Host
from turnfold_model.crash_hosts.scenes import Stage
from turnfold_model.kill9.child import SETTINGS

SHARDS: Final = 4
FIRST, SECOND, THIRD = "first", "second", "third"
_POLL_S = 0.05
_TAKES_S = 120.0  # until a host has its share


def _conversation(shard: int) -> str:
    names = map(str, count())
    return next(n for n in names if shard_of_place("t", "default", n, SHARDS) == shard)


PLACES: Final = tuple(map(_conversation, range(SHARDS)))


@define(eq=False)
class Company(Stage):
    """`settled`: hosts that have their share and had their messages taken in. `leaves`:
    those that are told to end."""

    settled: set[str] = field(factory=set)
    leaves: set[str] = field(factory=set)

    @property
    def numbers(self) -> Sequence[int]:
        return range(SHARDS)

    @property
    def messages(self) -> Sequence[tuple[str, str]]:
        """Each with its conversation; those of the first host come first."""
        roles = (FIRST, SECOND)
        return [(f"{self.name}{of[0]}{n}", n) for of in roles for n in PLACES]

    @property
    def wanted(self) -> Sequence[str]:
        return [f"re {name}" for name, _ in self.messages]

    @property
    def turns(self) -> int:
        return len(self.messages)


def _kernel(stage: Company, host: Host) -> Kernel:
    root = host.store(stage.address)
    kernel = Kernel(root, settings=SETTINGS)
    kernel._clock = host.clock()  # noqa: SLF001  `clock=` is refused: each shard has its own
    made = root.shard

    def shard(number: int) -> PostgresStore:
        part = made(number)
        scenes.tap(part, stage, host)
        _keeps_time(part, kernel, host)
        return part

    root.shard = shard  # type: ignore[method-assign]
    scenes.equip(kernel, stage, host)
    kernel.on_turn(resume=True)(scenes.answer)
    return kernel


def _keeps_time(part: PostgresStore, kernel: Kernel, host: Host) -> None:
    """The kernel of a shard gets the time of its host's loop before it begins."""
    opened = part.open

    async def opens(*, read_only: bool = False) -> None:
        for one in kernel._shards._parts() if kernel._shards else ():  # noqa: SLF001
            if one._address is part:  # noqa: SLF001
                one._clock = host.clock()  # noqa: SLF001
        await opened(read_only=read_only)

    part.open = opens  # type: ignore[method-assign]


async def lives(stage: Company, host: Host, role: str) -> None:
    """A host from its start to its orderly end. If it loses its lease it comes back."""
    kernel = _kernel(stage, host)
    try:
        await scenes.insists(kernel.open)
        await _until_share(stage, kernel, role)
        await asyncio.gather(*[_asks(stage, kernel, *m) for m in _of(stage, role)])
        if role == THIRD:
            await _until_rest(kernel)
        stage.settled.add(role)
        while role not in stage.leaves:  # noqa: ASYNC110  others say it
            await asyncio.sleep(_POLL_S)
        if kernel.health()["fences_lost"] and not host.woke:
            raise AssertionError("a host lost its lease, and had not slept")
    except TurnfoldError:
        if not host.excused:
            raise
    finally:
        await kernel.close()


def _of(stage: Company, role: str) -> Sequence[tuple[str, str]]:
    """What callers ask of a host: its half of the messages. The last one is asked for
    all that nobody was told is taken in."""
    half = len(PLACES)
    halves = {FIRST: stage.messages[:half], SECOND: stage.messages[half:]}
    return halves.get(role, stage.messages)


async def _asks(stage: Company, kernel: Kernel, name: str, conversation: str) -> None:
    inbound = Inbound("t", conversation=conversation, message_id=name)
    await scenes.acked(stage, name, partial(kernel.accept, inbound))


async def _until_share(stage: Company, kernel: Kernel, role: str) -> None:
    async with asyncio.timeout(_TAKES_S):
        while not _has_share(kernel) and role not in stage.leaves - {THIRD}:  # noqa: ASYNC110  the store is another host's, too
            await asyncio.sleep(_POLL_S)


def _has_share(kernel: Kernel) -> bool:
    hosts: int = kernel.health()["hosts"]
    return len(kernel.seats) >= ceil(SHARDS / hosts)


async def _until_rest(kernel: Kernel) -> None:
    async with asyncio.timeout(scenes.PATIENCE_S):
        while not await _rests(kernel):  # noqa: ASYNC110  as above
            await asyncio.sleep(_POLL_S)


async def _rests(kernel: Kernel) -> bool:
    shards = kernel._shards  # noqa: SLF001  the model looks inside
    seats = [] if shards is None else [*shards.balance.seats.values()]
    rested = [await scenes.part_rests(seat.store) for seat in seats]
    return len(seats) == SHARDS and all(rested)
