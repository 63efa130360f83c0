"""The world, which survives a crash: the disk, the platform, the requests under way,
the time."""

from collections.abc import Iterator
from itertools import product
from typing import Self

from attrs import define, evolve, field, frozen

from turnfold.audit import Acceptance
from turnfold.enums import DeliveryClass, PartAct
from turnfold.ports.store import Head, Store
from turnfold_adapters.stores.memory import MemoryDisk, MemoryStore
from turnfold_model.crash.scenario import LATEST_MS, SETTLE_MS, Assumption, Scenario


@frozen
class Request:
    """One visible call on its way to the platform."""

    key: str
    entry: str
    part: int
    lane: str
    act: PartAct = PartAct.SEND
    handle: str = ""  # of the message that an edit fills


@define
class Platform:
    """The platform's own list of accepted messages: the witness. `pending`: requests of a dead
    sender that will still land, at their time. It honours a key for `window_ms`."""

    keyed: bool
    window_ms: int
    accepted: list[Request] = field(factory=list)
    times: list[int] = field(factory=list)
    pending: list[tuple[int, Request]] = field(factory=list)
    empty: int = 0  # placeholders that were made

    def accept(self, request: Request, now: int) -> tuple[str, bool]:
        """The id it answers with, and whether it had the message already. A placeholder
        shows nothing of its part; an edit shows the part in its place."""
        if request.act is PartAct.PLACEHOLDER:
            self.empty += 1
            return f"p{self.empty}", False
        if request.act is PartAct.EDIT:
            if request not in self.accepted:
                self.accepted.append(request)
                self.times.append(now)
            return request.handle, False
        for number, known in enumerate(self.accepted):
            fresh = now - self.times[number] < self.window_ms
            if self.keyed and fresh and known.key == request.key:
                return f"m{number}", True
        self.accepted.append(request)
        self.times.append(now)
        return f"m{len(self.accepted) - 1}", False

    def find(self, key: str) -> str | None:
        for number, known in enumerate(self.accepted):
            if known.key == key:
                return f"m{number}"
        return None

    def land(self, now: int) -> None:
        due = [(at, request) for at, request in self.pending if at <= now]
        self.pending = [(at, r) for at, r in self.pending if at > now]
        for at, request in due:
            self.accept(request, at)

    def witness(self) -> list[Acceptance]:
        return [
            Acceptance(r.key, r.handle or f"m{n}") for n, r in enumerate(self.accepted)
        ]

    def copy(self) -> "Platform":
        return Platform(
            self.keyed,
            self.window_ms,
            list(self.accepted),
            list(self.times),
            list(self.pending),
            self.empty,
        )


@define
class World:
    """`now` is the time of the universe; wall clocks may show it with a `skew`."""

    scenario: Scenario
    disk: MemoryDisk
    platform: Platform
    now: int = 1_000_000
    skew: int = 0
    ids: int = 0
    acked: frozenset[str] = frozenset()  # acknowledged to somebody
    aborted: bool = False
    crashes: int = 0  # left
    faults: int = 0  # left
    store_faults: int = 0  # left
    zombies: int = 0  # left
    unholds: int = 0  # left
    killed: int = 0  # processes, by their own handlers
    wrongs: frozenset[str] = frozenset()  # violations during the run
    confirmed: Head | None = None  # the log must contain this from now on
    flying: dict[str, Request] = field(factory=dict)
    booted: MemoryDisk | None = None  # the disk at the last boot, if it may come back

    @classmethod
    def new(cls, scenario: Scenario) -> Self:
        keyed = DeliveryClass.KEYED in scenario.classes
        return cls(
            scenario,
            MemoryDisk(),
            Platform(keyed and not scenario.drops(Assumption.KEY), scenario.window_ms),
            crashes=scenario.crashes,
            faults=scenario.faults,
            store_faults=scenario.store_faults,
            zombies=scenario.zombies,
            unholds=scenario.unholds,
        )

    def handle(self) -> Store:
        """A new process's handle on the disk, not open."""
        return MemoryStore(self.disk)

    def copy(self) -> Self:
        """A copy for another life. Without `fsync` its disk may lose commits."""
        disk, platform = self.disk.fork(), self.platform.copy()
        booted = disk.fork() if self.scenario.drops(Assumption.FSYNC) else None
        return evolve(self, disk=disk, platform=platform, flying={}, booted=booted)

    @property
    def cured(self) -> bool:
        """What a person has let run for the last time kills no more."""
        return bool(self.scenario.unholds) and not self.unholds

    def crashed(self, cost: int = 1) -> Iterator[Self]:
        """Every world that a crash here may leave behind: each request under way has
        landed, is lost, or lands at the latest moment that its class allows. `cost`: of the
        crashes that the scenario has; none for a death by a handler."""
        fates = product(("landed", "lost", "late"), repeat=len(self.flying))
        for fate in fates:
            world = self.copy()
            for how, request in zip(fate, self.flying.values(), strict=True):
                world.meet(how, request)
            world.crashes -= cost
            world.now += self.scenario.down_ms
            if self.scenario.drops(Assumption.CLOCK):
                world.skew -= self.scenario.down_ms
            world.platform.land(world.now)
            yield world
            if self.booted is not None:
                yield evolve(world, disk=self.booted.fork())

    def meet(self, fate: str, request: Request) -> None:
        if fate == "landed":
            self.platform.accept(request, self.now)
        elif fate == "late":
            trusted = not self.scenario.drops(Assumption.SETTLE)
            wait = SETTLE_MS - 1 if trusted else LATEST_MS
            self.platform.pending.append((self.now + wait, request))
        elif fate == "hung":
            self.platform.pending.append((self.now + LATEST_MS, request))

    def identity(self) -> object:
        """Two worlds with the same identity have the same future."""
        platform = self.platform
        return (
            self.disk.head.hash,
            tuple(self.disk.inbox),
            self.now,
            tuple(platform.accepted),
            tuple(platform.pending),
            platform.empty,
            self.acked,
            self.aborted,
            self.wrongs,
            self.crashes,
            self.faults,
            self.store_faults,
            self.zombies,
            self.unholds,
            self.killed,
        )
