"""The crash matrix: the real kernel with the channel under test, killed around each
effect, its connections cut, and started again - until the entry is at rest.

A kill abandons a kernel at once: it does not drain, it writes nothing more, and its
calls are dropped. Only the platform's list at the end counts.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from attrs import define, field, frozen

from turnfold._log.bodies import unpack
from turnfold._runtime.programs import Effect
from turnfold._state.entry import Entry
from turnfold.api.kernel import Kernel
from turnfold.audit import Acceptance, audit_store
from turnfold.enums import DeliveryClass, Phase
from turnfold.messages import Payload
from turnfold.ports.channel import Part
from turnfold.ports.store import now
from turnfold.settings import Settings
from turnfold_adapters.stores.memory import MemoryDisk, MemoryStore
from turnfold_model.checks.channel_kit import (
    Bench,
    CheckFailedError,
    Fault,
    Seen,
    close,
    is_of,
    settle_s,
    true,
)
from turnfold_model.checks.store_kit import checks_in
from turnfold_model.testing.failpoints import Failpoints, Stop
from turnfold_model.testing.gateway import crash, entry
from turnfold_model.testing.peek import Peek

# Many deaths are intended here: no limit may end an entry, and waits are short.
SETTINGS = Settings(
    max_deaths_alone=1_000,
    max_failures=1_000,
    max_lookups=1_000,
    backoff_base_ms=5,
    backoff_cap_ms=50,
    probe_ms=50,
    rate_limit_ms=100,
    drain_ms=2_000,
)
REST_S = 30.0  # within this time, and twice the settle time, an entry comes to rest


class KilledError(asyncio.CancelledError):
    """Ends the program that meets it, without any further effect."""


@define(eq=False)
class _Life:
    """One kernel, from its opening to its death or to the rest of the entry."""

    disk: MemoryDisk
    points: Failpoints
    dead: bool = False
    kernel: Kernel = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.points.die = self._die
        store = MemoryStore(self.disk)
        self.kernel = Kernel(store, settings=SETTINGS, probe=self._probe)

    def _probe(self, when: str, effect: Effect) -> None:
        if self.dead:
            raise KilledError
        self.points.probe(when, effect)

    def _die(self) -> None:
        self.dead = True
        now(self.kernel.store.close())  # no more writes from here on
        raise KilledError


@frozen(kw_only=True)
class Scene:
    """The ends of the lives, one after the other; a last life comes to rest. `fault`:
    of the visible call after the first `skip`."""

    stops: Sequence[Stop] = ()
    fault: Fault | None = None
    skip: int = 0

    def __str__(self) -> str:
        kills = [f"killed at {stop.name} ({stop.nth})" for stop in self.stops]
        cut = [f"{self.fault} at call {self.skip + 1}"] if self.fault else []
        return ", ".join([*kills, *cut]) or "undisturbed"


@define
class _Play:
    """One entry on one disk through all its lives."""

    bench: Bench
    scene: Scene
    payloads: Sequence[Payload]
    disk: MemoryDisk = field(factory=MemoryDisk)
    stream: str = ""
    entry: Entry | None = None
    passed: Counter[str] = field(factory=Counter)

    async def run(self) -> None:
        harness, scene = self.bench.harness, self.scene
        before = len(await harness.witness())
        if scene.fault is not None:
            await harness.fault(scene.fault, skip=scene.skip)
        with _quiet():
            for stop in [*scene.stops, None]:
                await self._live(stop)
        await harness.heal()
        problems = await self._problems((await harness.witness())[before:])
        true(not problems, f"{scene}: {'; '.join(problems)}")

    async def _live(self, stop: Stop | None) -> None:
        channel = self.bench.harness.channel()
        points = Failpoints(stop)
        life = _Life(self.disk, points)
        life.kernel.attach(self.bench.harness.route.channel, channel, on_unknown="hold")
        await life.kernel.open()
        try:
            await self._until_rest(life)
        finally:
            self.passed = points.reached
            await crash(life.kernel)
            await close(channel)

    async def _until_rest(self, life: _Life) -> None:
        if not self.stream and not life.dead:  # it may have died during its opening
            route = self.bench.harness.route
            made = await life.kernel.enqueue(route, *self.payloads, key="kit")
            self.stream = made.entry_id
        for _ in range(int(REST_S / 0.005)):
            if life.dead:
                return
            self.entry = entry(life.kernel, self.stream)
            if self.entry.phase.closed or self.entry.phase is Phase.PARKED:
                return
            await asyncio.sleep(0.005)
        where = self.entry.phase if self.entry else "unknown"
        raise CheckFailedError(f"{self.scene}: no rest in {REST_S:.0f} s, but {where}")

    # --- the verdict ---

    async def _problems(self, witness: Sequence[Seen]) -> list[str]:
        store = MemoryStore(self.disk)
        await store.open(read_only=True)
        try:
            parts = self._parts(Peek(store))
            places = [[n for n, s in enumerate(witness) if is_of(s, p)] for p in parts]
            mine = [s for s in witness if any(is_of(s, part) for part in parts)]
            report = await audit_store(store, witness=_acceptances(mine))
        finally:
            await store.close()
        return [
            *(f"{s} is of no part" for s in witness if s not in mine),
            *self._counted([len(found) for found in places]),
            *_in_order([found[0] for found in places if found]),
            *(str(finding) for finding in report.findings),
        ]

    def _parts(self, store: Peek) -> list[Part]:
        entry = self._settled()
        body = partial(store.body, entry.stream)
        return [
            Part(
                entry_id=entry.stream,
                index=index,
                count=len(entry.parts),
                kind=planned.kind,
                payload=unpack(body(planned.body), body),
                key=planned.key,
                route=self.bench.harness.route,
            )
            for index, planned in enumerate(entry.parts)
        ]

    def _settled(self) -> Entry:
        if self.entry is None:
            raise CheckFailedError(f"{self.scene}: no kernel lived to see the entry")
        return self.entry

    def _counted(self, counts: list[int]) -> Iterator[str]:
        entry = self._settled()
        for index, count in enumerate(counts):
            if count > 1:
                yield f"part {index} is shown {count} times"
        sure = all(_is_sure(part.classes) for part in entry.parts)
        if entry.phase is not Phase.DELIVERED and (
            sure or entry.phase is not Phase.PARKED
        ):
            yield f"the entry ends as {entry.phase.name}, {entry.reason}"
        if entry.phase is Phase.DELIVERED and 0 in counts:
            yield f"delivered, but the parts are shown {counts} times"


def _is_sure(classes: Sequence[DeliveryClass]) -> bool:
    """Can a part of these classes be settled after an unknown outcome?"""
    return DeliveryClass.KEYED in classes or DeliveryClass.LOOKUP in classes


def _in_order(places: list[int]) -> Iterator[str]:
    if places != sorted(places):
        yield f"the parts stand at {places}"


def _acceptances(seen: Sequence[Seen]) -> list[Acceptance] | None:
    """The witness of an audit, if the platform sees keys."""
    known = [Acceptance(s.key, s.id) for s in seen if s.key is not None]
    return known if len(known) == len(seen) else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the kernel's log lines about deaths and outages, which are expected
    here."""
    logger = logging.getLogger("turnfold")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


# --- the checks ---


async def _play(bench: Bench, scene: Scene) -> Counter[str]:
    """Play a scene. Returns the points that the last life passed. Raises
    CheckFailedError."""
    desk = bench.desk()
    settle_s(desk)
    play = _Play(bench, scene, [bench.text(), *bench.payloads(desk)])
    await play.run()
    return play.passed


async def killed_around_every_effect_each_part_is_there_once(bench: Bench) -> None:
    for name, count in (await _play(bench, Scene())).items():
        for nth in range(1, count + 1):
            await _play(bench, Scene(stops=[Stop(nth, name)]))


async def killed_again_while_recovering_each_part_is_there_once(bench: Bench) -> None:
    known = set(await _play(bench, Scene()))
    for name in ("after Send", "before Send"):
        first = Stop(1, name)
        passed = await _play(bench, Scene(stops=[first]))
        new = [again for again in passed if again not in known]
        known.update(new)
        for again in new:
            await _play(bench, Scene(stops=[first, Stop(1, again)]))


async def cut_at_every_call_each_part_is_there_once(bench: Bench) -> None:
    cuts = [f for f in (Fault.CUT_AFTER, Fault.CUT_BEFORE) if f in bench.harness.faults]
    if not cuts:
        bench.needs(Fault.CUT_AFTER)
    calls = (await _play(bench, Scene()))["after Send"]
    for cut in cuts:
        for skip in range(calls):
            await _play(bench, Scene(fault=cut, skip=skip))


async def cut_and_killed_each_part_is_there_once(bench: Bench) -> None:
    bench.needs(Fault.CUT_AFTER)
    for name in ("after Send", "before Append settle", "after Append settle"):
        stops = [Stop(1, name)]
        await _play(bench, Scene(stops=stops, fault=Fault.CUT_AFTER))
        await _play(bench, Scene(stops=stops * 2, fault=Fault.CUT_AFTER, skip=1))


CHECKS = checks_in(globals())
