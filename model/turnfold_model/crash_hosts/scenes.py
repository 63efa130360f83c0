"""What the hosts of a play do: gateways that work, and clients that only post."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from attrs import define, field, frozen

from turnfold._log.canonical import head_after
from turnfold.api.handle import TurnHandle
from turnfold.api.kernel import Kernel
from turnfold.enums import DeliveryClass
from turnfold.errors import FateUnknownError, StoreError, TurnfoldError, UsageError
from turnfold.inbound import Inbound
from turnfold.messages import Route
from turnfold.ports.channel import Attempt, Part, Receipt
from turnfold.ports.store import Head, Loaded, Owner, Refused, Stored, Write
from turnfold_adapters.stores.postgres import PostgresStore, reads
from turnfold_model.crash_hosts.hosts import Host, Stop
from turnfold_model.kill9.child import SETTINGS
from turnfold_model.testing.peek import at_rest
from turnfold_model.testing.platform import Platform, PlatformChannel

LEASE_MS: Final = 40_000
MAX_PAUSE_MS: Final = 600_000
TERMS: Final = f"lease_ms={LEASE_MS}&max_pause_ms={MAX_PAUSE_MS}"
_RENEWED_S = LEASE_MS / 4_000 + 1
_POLL_S = 0.05
_TRIES = 20  # of a caller that gets an error
PATIENCE_S = 120.0  # of the loop's own time
_STANDS_BY_S = 2.0


@frozen
class Scene:
    """`client`: the host under search only posts, beside a worker that lives. `before`:
    where an earlier host has died, which the one under search takes over from. `cut`:
    where the one under search has lost a connection already. `lag`: how many of the last
    writes of the one under search a failover loses; None: there is none. `shares`: two hosts
    share the shards, and the one of this role is under search."""

    name: str
    delivery: DeliveryClass
    client: bool = False
    before: Stop | None = None
    cut: Stop | None = None
    lag: int | None = None
    shares: str = ""


@define(eq=False)
class Stage:
    """One play. `acked`: what a caller was told is taken in. `stored` and `never`: the
    heads that a host was told are stored, and those that it was told are not.
    `woke`: requests of a host that slept too long, after it woke up. After a failover:
    `lost` has the heads that went with it, `end` is where the log ends, `noted` the last
    note of the triggers before it, `of_lost` the keys of messages that a lost log may have
    announced, `anew` the token under which the host under search began once more."""

    scene: Scene
    address: str
    shard: int
    name: str
    platform: Platform
    acked: set[str] = field(factory=set)
    stored: list[Head] = field(factory=list)
    never: list[Head] = field(factory=list)
    woke: int = 0
    lost: list[Head] = field(factory=list)
    noted: int | None = None
    end: int = 0
    of_lost: set[str] = field(factory=set)
    anew: int | None = None

    def goes_back(self, position: int, noted: int) -> None:
        """The log ends at this position again. What a caller was told may be lost, so
        it tries everything again."""
        self.lost = [head for head in self.stored if head.position > position]
        self.stored = [head for head in self.stored if head.position <= position]
        self.acked.clear()
        self.end, self.noted = position, noted
        self.of_lost = {message.key for message in self.platform.messages}

    @property
    def numbers(self) -> Sequence[int]:
        """The shards of this play."""
        return (self.shard,)

    @property
    def turns(self) -> int:
        return 1

    @property
    def wanted(self) -> Sequence[str]:
        return (f"re {self.name}m", f"note {self.name}n")


class HostChannel(PlatformChannel):
    """The platform as one host reaches it."""

    def __init__(self, stage: Stage, host: Host) -> None:
        super().__init__(stage.platform, stage.scene.delivery)
        self._stage, self._host = stage, host

    async def send(self, part: Part, key: str, attempt: Attempt) -> Any:
        return await self._passes("send", super().send, part, key, attempt)

    async def _edit(
        self, handle: Receipt, part: Part, key: str, attempt: Attempt
    ) -> Any:
        return await self._passes("edit", super()._edit, handle, part, key, attempt)

    async def _passes(self, name: str, call: Any, *args: Any) -> Any:
        return await self._host.asked(name, partial(self._requested, call, *args))

    async def _requested(self, call: Any, *args: Any) -> Any:
        self._stage.woke += self._host.woke
        if self._host.excused:  # its server had announced it
            self._stage.of_lost.add(args[-2])
        return await call(*args)


def tap(part: PostgresStore, stage: Stage, host: Host) -> None:
    """Note what the store tells its kernel about each commit. After a commit of unknown
    fate and a new token the log says which it was, for ever: only then the statement of
    a lost connection runs."""
    commit, reopen, ownership = part.commit, part.reopen, part.ownership()
    take = ownership.take
    doubtful: list[Head] = []

    async def tapped(writes: Sequence[Write]) -> Sequence[Stored | Refused]:
        heads = [head_after(w.base, w.records) for w in writes if w.records]
        noted = stage.noted
        try:
            answers = await commit(writes)
        except (StoreError, UsageError) as exc:
            unknown = isinstance(exc, FateUnknownError)
            (doubtful if unknown else stage.never).extend(heads)
            raise
        for head, answer in zip(heads, answers, strict=False):
            if not isinstance(answer, Stored):
                stage.never.append(head)
            elif noted == stage.noted or head.position <= stage.end:
                stage.stored.append(head)
            else:  # the server that has it is gone
                stage.lost.append(head)
        return answers

    async def reopened() -> None:
        await reopen()
        while doubtful:
            head = doubtful.pop()
            is_there = await part._reading(partial(reads.contains_head, wanted=head))  # noqa: SLF001
            (stage.stored if is_there else stage.never).append(head)
        await host.land_cut()

    async def taken() -> Owner | None:
        owner = await take()
        if owner is not None and host.excused and stage.anew is None:
            _, stage.anew = ownership.seat or ("", 0)
        return owner

    part.commit = tapped  # type: ignore[method-assign]
    ownership.take = taken  # type: ignore[method-assign]
    part.reopen = reopened  # type: ignore[method-assign]


async def answer(turn: TurnHandle) -> None:
    if not await turn.previous():
        await turn.reply(f"re {turn.inbound.message_id}")


def kernel_of(stage: Stage, host: Host, root: PostgresStore, *, work: bool) -> Kernel:
    part = root.shard(stage.shard)
    tap(part, stage, host)
    kernel = Kernel(part, settings=SETTINGS, clock=host.clock(), work=work)
    equip(kernel, stage, host)
    if work:
        kernel.on_turn(resume=True)(answer)
    return kernel


def equip(kernel: Kernel, stage: Stage, host: Host) -> None:
    """Attach the platform."""
    edits = stage.scene.delivery is DeliveryClass.EDITABLE
    policy = None if edits else "hold"
    kernel.attach("t", HostChannel(stage, host), on_unknown=policy)


async def lives(stage: Stage, host: Host) -> None:
    """The host under search, from its start to its orderly end. It ends early if it has
    lost its place."""
    root = host.store(stage.address)
    await insists(root.open)
    works = not stage.scene.client
    kernel = kernel_of(stage, host, root, work=works)
    try:
        await insists(kernel.open)
        await talk(stage, kernel)
        if works:
            await rests(kernel, host)
            await asyncio.sleep(_RENEWED_S)
    except TurnfoldError:
        if not host.excused:
            raise
    finally:
        await kernel.close()
        await root.close()


async def works(
    stage: Stage, host: Host, root: PostgresStore, *, stands: bool = False
) -> None:
    """Another host, which takes over and ends all work. `stands`: it stands as soon as
    it works, and waits for the director."""
    async with kernel_of(stage, host, root, work=True) as kernel:
        if stands:
            host.stand()
            await asyncio.sleep(0)
        await until_working(kernel)
        await talk(stage, kernel)
        await rests(kernel, host)


async def stands_by(stage: Stage, host: Host, root: PostgresStore) -> bool:
    """Another host beside one that may still live. True if it began to work."""
    async with kernel_of(stage, host, root, work=True) as kernel:
        await asyncio.sleep(_STANDS_BY_S)
        if kernel.working:
            await talk(stage, kernel)
            await rests(kernel, host)
        return kernel.working


async def talk(stage: Stage, kernel: Kernel) -> None:
    """A message and a note. A caller that was not told that they are taken in tries
    again, also at the next host."""
    message, note = f"{stage.name}m", f"{stage.name}n"
    inbound = Inbound("t", conversation="1", message_id=message)
    await acked(stage, message, partial(kernel.accept, inbound))
    to = Route(channel="t", conversation="4")
    await acked(stage, note, partial(kernel.enqueue, to, f"note {note}", key=note))


async def acked(stage: Stage, name: str, call: Any) -> None:
    """An answer that came from a server which is gone tells nothing of the new one."""
    if name not in stage.acked:
        noted = stage.noted
        await insists(call)
        if noted == stage.noted:
            stage.acked.add(name)


async def insists(call: Any) -> Any:
    for left in reversed(range(_TRIES)):
        try:
            return await call()
        except StoreError:
            if not left:
                raise
            await asyncio.sleep(_POLL_S)
    raise AssertionError


async def until_working(kernel: Kernel) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not kernel.working:  # noqa: ASYNC110  the store is another host's, too
            await asyncio.sleep(_POLL_S)


async def rests(kernel: Kernel, host: Host) -> None:
    """Wait until nothing is left to do. A host that woke up too late, or whose log is
    lost, waits for nothing."""
    async with asyncio.timeout(PATIENCE_S):
        while not await _rests(kernel):
            if host.excused and not kernel.working:
                return
            await asyncio.sleep(_POLL_S)


async def _rests(kernel: Kernel) -> bool:
    return kernel.working and await part_rests(kernel.store)


async def part_rests(part: Any) -> bool:
    """Is nothing left to do in this shard? What a person must decide is at rest, too.
    The worker there knows nothing of the question."""
    try:
        waits = await part.inbox(1)
        found: Loaded = await part._reading(reads.load)  # noqa: SLF001  it is a PostgresStore
    except StoreError:
        return False
    moving = [row for row in found.open if not row.person]
    return not waits and (at_rest(found.open) or at_rest(moving))
