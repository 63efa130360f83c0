"""What survives a crash: the disk, the platform, the requests under way, the time."""

from collections.abc import Iterator
from itertools import product

from attrs import define, field, frozen

from turnfold.words import DeliveryClass
from turnfold_adapters.stores.memory import MemoryDisk
from turnfold_model.crash.scenario import SETTLE_MS, Scenario


@frozen
class Request:
    """One visible call on its way to the platform."""

    key: str
    entry: str
    part: int
    lane: str


@define
class Platform:
    """Its own list of what it accepted: the witness. `pending`: requests of a dead
    sender that will still land, at their time."""

    keyed: bool
    accepted: list[Request] = field(factory=list)
    pending: list[tuple[int, Request]] = field(factory=list)

    def accept(self, request: Request) -> tuple[str, bool]:
        """The id it answers with, and whether it had the message already."""
        for number, known in enumerate(self.accepted):
            if self.keyed and known.key == request.key:
                return f"m{number}", True
        self.accepted.append(request)
        return f"m{len(self.accepted) - 1}", False

    def find(self, key: str) -> str | None:
        for number, known in enumerate(self.accepted):
            if known.key == key:
                return f"m{number}"
        return None

    def land(self, now: int) -> None:
        due = [request for at, request in self.pending if at <= now]
        self.pending = [(at, r) for at, r in self.pending if at > now]
        for request in due:
            self.accept(request)

    def copy(self) -> "Platform":
        return Platform(self.keyed, list(self.accepted), list(self.pending))


@define
class World:
    scenario: Scenario
    disk: MemoryDisk
    platform: Platform
    now: int = 1_000_000
    ids: int = 0
    acked: frozenset[str] = frozenset()  # inbound messages the platform stops repeating
    aborted: bool = False
    enqueued: int = 0
    crashes: int = 0  # left
    faults: int = 0  # left
    flying: dict[str, Request] = field(factory=dict)

    @classmethod
    def new(cls, scenario: Scenario) -> "World":
        keyed = DeliveryClass.KEYED in scenario.classes
        return cls(
            scenario,
            MemoryDisk(),
            Platform(keyed),
            crashes=scenario.crashes,
            faults=scenario.faults,
        )

    def crashed(self) -> Iterator["World"]:
        """Every world that a crash here may leave behind: each request under way has
        landed, is lost, or lands at the latest moment that its class allows."""
        fates = product(("landed", "lost", "late"), repeat=len(self.flying))
        for fate in fates:
            world = World(
                self.scenario,
                self.disk.fork(),
                self.platform.copy(),
                now=self.now + 1,
                ids=self.ids,
                acked=self.acked,
                aborted=self.aborted,
                enqueued=self.enqueued,
                crashes=self.crashes - 1,
                faults=self.faults,
            )
            for how, request in zip(fate, self.flying.values(), strict=True):
                world.meet(how, request)
            yield world

    def meet(self, fate: str, request: Request) -> None:
        if fate == "landed":
            self.platform.accept(request)
        elif fate == "late":
            self.platform.pending.append((self.now + SETTLE_MS - 1, request))

    def identity(self) -> object:
        """Two worlds with the same identity have the same future."""
        platform = self.platform
        return (
            self.disk.head.hash,
            self.disk.head.position,
            tuple(platform.accepted),
            tuple(platform.pending),
            self.acked,
            self.aborted,
            self.enqueued,
            self.crashes,
            self.faults,
        )
