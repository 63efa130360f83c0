"""kill -9 at every point of the path, the recovery included: real processes, real files.

Each run forks a gateway from this process, which has everything imported and plays the
platform. The gateway dies at its k-th point - before or after an effect or a COMMIT -
and another one takes over, which may die as well. Then platform, log and audit have to
agree that nothing was lost and nothing doubled.

This sees the files of a dead process, not the losses of a disk: power loss is
another harness. As a command: `python -m turnfold_model kill9 --long`.
"""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count

from attrs import define, evolve, field

from turnfold.enums import DeliveryClass, Flush
from turnfold_model.kill9.child import Command, warm_up
from turnfold_model.kill9.stage import Scene
from turnfold_model.kill9.verdict import Verdict, play

# Wishes of several people at once, from a process beside the worker.
_BESIDE = (
    Command(what="accept", name="m1"),
    Command(what="accept", name="m2", conversation="43"),
    Command(what="enqueue", name="n1", conversation="42"),
    Command(what="accept", name="m3", conversation="43"),
    Command(what="abort", name="m3", conversation="43"),
)
_ANSWERS = 4  # that the platform gives in a run without trouble


@define
class Report:
    """The result of a matrix. `points`: deaths that took place, by where."""

    runs: int = 0
    forks: int = 0
    troubles: int = 0
    points: Counter[str] = field(factory=Counter)
    breaches: list[str] = field(factory=list)
    seconds: float = 0.0
    complete: bool = True

    def add(self, verdict: Verdict) -> None:
        self.runs += 1
        self.forks += verdict.forks
        self.troubles += verdict.troubles
        self.points.update(verdict.stopped)
        where = " -> ".join(verdict.stopped)
        self.breaches += [
            f"[{verdict.scene}; {where}] {text}" for text in verdict.breaches
        ]

    @property
    def kills(self) -> int:
        return self.points.total()

    @property
    def rate(self) -> float:
        """Points a second."""
        return self.kills / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        return (
            f"{self.runs} runs, {self.kills} deaths at {len(self.points)} kinds of "
            f"points, {self.forks} processes, {self.seconds:.1f} s, "
            f"{self.rate:.0f} points/s, {len(self.breaches)} breaches"
        )


def every_point(scene: Scene) -> Iterator[Verdict]:
    """Play a scene with one more death, at every point of the next worker's life."""
    for number in count(1):
        verdict = play(evolve(scene, deaths=(*scene.deaths, number)))
        yield verdict
        if not verdict.all_died:
            return


def every_client_point(scene: Scene) -> Iterator[Verdict]:
    """The same for the client beside the worker."""
    for number in count(1):
        verdict = play(evolve(scene, client_dies=number))
        yield verdict
        if not verdict.all_died:
            return


def nested(scene: Scene) -> Iterator[Verdict]:
    """Two deaths: every point of the recovery from every point."""
    for verdict in every_point(scene):
        yield verdict
        if verdict.all_died:
            yield from every_point(verdict.scene)


def sampled(scene: Scene, seed: int, many: int) -> Iterator[Verdict]:
    """Every point, and so many second deaths after each, by chance."""
    rng = random.Random(seed)  # noqa: S311  repeatable on purpose
    for verdict in every_point(scene):
        yield verdict
        if not verdict.all_died:
            return
        for second in rng.sample(range(1, 13), many):
            yield play(evolve(verdict.scene, deaths=(*verdict.scene.deaths, second)))


def beside(delivery: DeliveryClass) -> Scene:
    """A worker, a client and a standby on one store."""
    return Scene(delivery=delivery, commands=_BESIDE, client=True, standby=True)


def in_thread(scene: Scene) -> Scene:
    """The same with its transactions written in a thread."""
    return evolve(scene, flush=Flush.THREAD)


def quick(delivery: DeliveryClass, seed: int = 1, again: int = 2) -> Iterator[Verdict]:
    """Every point with either flush, each followed by others by chance; a lost answer,
    and two processes at some points."""
    scene = Scene(delivery=delivery)
    yield from sampled(scene, seed, again)
    yield from sampled(in_thread(scene), seed + 1, again)
    rng = random.Random(seed)  # noqa: S311  repeatable on purpose
    yield play(evolve(scene, lose=rng.randint(1, _ANSWERS)))
    for number in rng.sample(range(1, 60), 8):
        yield play(evolve(beside(delivery), deaths=(number,)))


def full(delivery: DeliveryClass) -> Iterator[Verdict]:
    """Every pair of points, with either flush; every point with every lost answer; two
    processes at every point of either."""
    scene = Scene(delivery=delivery)
    yield from nested(scene)
    yield from nested(in_thread(scene))
    yield from every_point(in_thread(beside(delivery)))
    for lose in range(1, _ANSWERS + 1):
        yield from every_point(evolve(scene, lose=lose))
    yield from every_point(evolve(scene, standby=True))
    yield from every_point(beside(delivery))
    yield from every_client_point(beside(delivery))


def play_all(verdicts: Iterable[Verdict], seconds: float | None = None) -> Report:
    """Play them all, or as many as begin within `seconds`. Refuses to fork from a
    process that has threads."""
    if threading.active_count() > 1:
        raise RuntimeError("a process with threads cannot be forked safely")
    asyncio.run(warm_up())
    report, began = Report(), time.monotonic()
    for verdict in verdicts:
        report.add(verdict)
        report.seconds = time.monotonic() - began
        if seconds is not None and report.seconds > seconds:
            report.complete = False
            break
    return report
