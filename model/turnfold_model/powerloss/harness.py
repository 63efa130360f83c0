"""Power that fails at any moment: a life on a recorded disk, and every image it may
leave behind, recovered by the kernel's own programs and judged.

A life is recorded once: each operation on the disk, and between them the world as it
stands (accepted by the platform, acknowledged, under way). At each
position images are made of the synced and the other writes; each distinct one is
booted, lives to its rest, and is held against the rules. Its recovery is recorded, too,
and the power fails again in it.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Literal, Self, cast

import apsw
from attrs import define, evolve, field, frozen

from turnfold.enums import BlindPolicy, DeliveryClass
from turnfold.errors import TurnfoldError
from turnfold.ports.store import Store, now
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.crash.life import Life, StuckError, Tape
from turnfold_model.crash.scenario import Scenario
from turnfold_model.crash.verdict import broken
from turnfold_model.crash.world import World
from turnfold_model.powerloss.disk import Image, Op, Surface
from turnfold_model.powerloss.vfs import SimulatedDisk

PATH = str(Path(tempfile.gettempdir()).resolve() / "turnfold-simulated.db")
VFS = "turnfold-simulated"
_K, _L = (DeliveryClass.KEYED,), (DeliveryClass.LOOKUP,)
SCENARIOS = (
    Scenario(name="keyed", classes=_K, parts=2, faults=1),
    Scenario(name="lookup", classes=_L, parts=3, faults=1),
    Scenario(name="blind", classes=(), messages=2, parts=2),
    Scenario(name="blocks", classes=_L, blocks=1, prepares=True, faults=1),
    Scenario(name="abort", classes=_K, messages=2, lanes=2, abort=True, parts=2),
    Scenario(name="drop", classes=(), policy=BlindPolicy.DROP, parts=3, faults=1),
)

_RESTARTS = 50  # more than failures in a row


def chance(seed: str) -> Random:
    """Dice that fall the same for the same seed."""
    return Random(seed)  # noqa: S311  nothing is secret here


Level = Literal["FULL", "NORMAL"]


@define
class RandomTape(Tape):
    """Chance instead of enumeration; mostly all goes well."""

    random: Random = field(factory=Random)

    def choose(self, options: int) -> int:
        chosen = self.random.randrange(options) if self.random.random() < 0.4 else 0
        self.arities.append(options)
        return chosen

    @property
    def spent(self) -> bool:
        return True


@define(kw_only=True)
class DiskWorld(World):
    """A world with the simulated disk."""

    level: Level = "FULL"
    handles: list[SqliteStore] = field(factory=list)

    def handle(self) -> Store:
        store = SqliteStore(PATH, vfs=VFS, exclusive=True, synchronous=self.level)
        self.handles.append(store)
        return cast("Store", store)

    def copy(self) -> Self:
        return evolve(super().copy(), handles=[])

    def snapshot(self) -> Self:
        """This moment, with the requests that are under way."""
        return evolve(self.copy(), flying=dict(self.flying))


class DiskLife(Life):
    """A life that moves its log into the main file now and then, as an idle worker
    does, and notes its moments in the trace of the disk."""

    def __init__(self, world: DiskWorld, disk: SimulatedDisk, random: Random) -> None:
        self._disk, self._random = disk, random
        disk.note(Op("mark", world=world.snapshot()))
        world.crashes = 1  # so that `_mark` is called at every moment
        super().__init__(world, RandomTape(random=random), self._mark)

    def _mark(self, world: World, _cost: int) -> None:
        if self._disk.trace is None:
            return
        position = self.worker.book.position
        if world.confirmed is None or world.confirmed.position != position:
            world.confirmed = now(self.worker.store.load()).head
        self._disk.note(Op("mark", world=cast("DiskWorld", world).snapshot()))

    def _step(self) -> bool:
        if self._random.random() < 0.05:
            now(cast("SqliteStore", self.worker.store).checkpoint())
        return super()._step()


@frozen
class Broken:
    """A rule that does not hold after a power loss. `where`: scenario, seed, position
    and kind of the image; the same again if it was lost in a recovery."""

    where: str
    rule: str


@define
class Losses:
    """The figures. `distinct`: images that were booted; equal ones are judged once."""

    images: int = 0
    nested: int = 0
    distinct: int = 0
    faults: int = 0
    double_sends: int = 0
    losses: int = 0
    violations: list[Broken] = field(factory=list)

    def judge(self, where: str, rules: list[str]) -> None:
        self.double_sends += any(r.startswith("INV-2") for r in rules)
        self.losses += any(r.startswith("INV-1 ") for r in rules)
        self.violations += [Broken(where, rule) for rule in rules]


class Harness:
    """One simulated disk and the figures of its use. `until`: says when
    the time is up."""

    def __init__(
        self, *, level: Level = "FULL", until: Callable[[], bool] = lambda: False
    ) -> None:
        self.disk = SimulatedDisk(VFS)
        self.level, self.until = level, until
        self.found = Losses()
        self._seen: set[object] = set()

    def close(self) -> None:
        self.disk.unregister()

    # --- a disk that fails ---

    def fail_everywhere(self, scenario: Scenario, seed: str, stride: int = 1) -> None:
        """The same life again for each operation of it: there the disk fails, once or
        a few times, by an I/O error or for want of room; the process goes on or is
        started again."""
        self._record({}, DiskWorld.new(scenario), seed, close=True)
        total = self.disk.operations
        for at in range(0, total, stride):
            for error in (apsw.IOError, apsw.FullError):
                for count in (1, 4, 40):
                    if self.until():
                        return
                    self.found.faults += 1
                    where = f"{scenario.name} {seed}: {error.__name__} {at}+{count}"
                    self.disk.load({})
                    self.disk.fail(at, count, error)
                    self.found.judge(where, self._endure(scenario, seed))

    def _endure(self, scenario: Scenario, seed: str) -> list[str]:
        world = DiskWorld.new(scenario)
        world.level = self.level
        random = chance(seed)
        for _ in range(_RESTARTS):
            try:
                life = DiskLife(world, self.disk, random)
                life.run()
                return broken(world, life.worker.store)
            except StuckError:
                return ["INV-14 a life that never rests"]
            except (TurnfoldError, apsw.Error):  # the operator starts it again
                self.kill(world)
                world = _fallen(world, random)
            finally:
                self.kill(world)
        return ["it cannot be started any more"]

    # --- power loss ---

    def lose_power(self, scenario: Scenario, seed: str, nested: int) -> None:
        """Record one life; fail at each position, and `nested` times in each of the
        recoveries."""
        world = DiskWorld.new(scenario)
        world.level = self.level
        trace, rules = self._record({}, world, seed, close=True)
        self.found.judge(f"{scenario.name} {seed} undisturbed", rules)
        random = chance(f"{seed} images")
        for at, surface, then in _positions(trace):
            for sort in range(surface.sorts):
                if self.until():
                    return
                self.found.images += 1
                image, name = surface.image(sort, random), f"{seed} {at}.{sort}"
                where = f"{scenario.name} {name}"
                after = self._recover(image, _fallen(then, random), name, where)
                if after and nested:
                    self._again(after, name, where, nested)

    def _again(self, trace: list[Op], seed: str, where: str, many: int) -> None:
        """Power fails in the recovery, too, at so many of its operations."""
        random = chance(f"{seed} nested")
        first = next(i for i, op in enumerate(trace) if op.kind == "mark")
        chosen = Counter(random.choices(range(first, len(trace)), k=many))
        for at, surface, then in _positions(trace):
            for _ in range(chosen[at]):
                self.found.nested += 1
                sort = random.randrange(surface.sorts)
                image, name = surface.image(sort, random), f"{at}.{sort}"
                fallen = _fallen(then, random)
                self._recover(image, fallen, f"{seed} {name}", f"{where}, {name}")

    def _record(
        self, image: Image, world: DiskWorld, seed: str, *, close: bool
    ) -> tuple[list[Op], list[str]]:
        """One life from an image, and the wrongs at its end."""
        self.disk.load(image)
        self.disk.trace = trace = [_file(name, data) for name, data in image.items()]
        try:
            life = DiskLife(world, self.disk, chance(seed))
            life.run()
            if close:  # the ordinary end of a process is on record, too
                now(life.worker.store.close())
            rules = broken(world, life.worker.store)
        except StuckError:
            rules = ["INV-14 a life that never rests"]
        except (TurnfoldError, apsw.Error) as exc:
            rules = [f"it cannot be used: {exc!r} {exc}"]
        finally:
            self.disk.trace = None
            self.kill(world)
        return trace, rules

    def kill(self, world: DiskWorld) -> None:
        """End the process that lives in this world, without a last word to the disk."""
        with self.disk.gone():
            for store in world.handles:
                now(store.close())
        world.handles.clear()

    def _recover(
        self, image: Image, world: DiskWorld, seed: str, where: str
    ) -> list[Op]:
        """Boot an image, unless an equal one was booted in an equal world."""
        identity = frozenset(image.items()), world.identity()
        if identity in self._seen:
            return []
        self._seen.add(identity)
        self.found.distinct += 1
        trace, rules = self._record(image, world, seed, close=False)
        self.found.judge(where, rules)
        return trace


def _positions(trace: list[Op]) -> Iterator[tuple[int, Surface, DiskWorld]]:
    """Each position of a trace: where, the disk, and the world as it then stands."""
    surface, world = Surface(), None
    for at, op in enumerate(trace):
        if op.kind == "image":
            surface.durable[op.name] = op.data
            continue
        surface.feed(op)
        if op.kind == "mark":
            world = cast("DiskWorld", op.world)
        if world is not None:
            yield at, surface, world


def _fallen(world: DiskWorld, random: Random) -> DiskWorld:
    """The world after the power failed: each request under way met some fate."""
    return random.choice(list(world.crashed()))


def _file(name: str, data: bytes) -> Op:
    """The image that a recovery begins with is durable."""
    return Op("image", name, 0, data)
