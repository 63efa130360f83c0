"""All stops of all scenes: which there are, and a part of them in a given time."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

from attrs import define, field, frozen

from turnfold.enums import DeliveryClass
from turnfold_model.crash_hosts.company import FIRST, SECOND
from turnfold_model.crash_hosts.failover import WRITES
from turnfold_model.crash_hosts.hosts import BACKS, READS, How, Stop
from turnfold_model.crash_hosts.play import PROOFS
from turnfold_model.crash_hosts.scenes import Scene
from turnfold_model.crash_hosts.theatre import Theatre


def _on_the_wire(of: DeliveryClass) -> Stop:
    """Two deaths beside one placeholder may park it, so there it is the edit."""
    name = "edit" if of is DeliveryClass.EDITABLE else "send"
    return Stop(name, 1, How.AFTER)


_IN_DOUBT: Final = Stop("commit", 3, How.CUT_AFTER)
_CLASSES: Final = tuple(DeliveryClass)
# How many of the last writes a failover loses; 0: the standby was synchronous.
_LAGS: Final = {DeliveryClass.LOOKUP: (0, 1, 3), DeliveryClass.BLIND: (1,)}
SCENES: Final = (
    *(Scene(f"{of}-alone", of) for of in _CLASSES),
    *(Scene(f"{of}-takes-over", of, before=_on_the_wire(of)) for of in _CLASSES),
    *(Scene(f"{of}-in-doubt", of, cut=_IN_DOUBT) for of in _CLASSES),
    *(Scene(f"{of}-client", of, client=True) for of in _CLASSES),
    *(
        Scene(f"lookup-{name}-unanswered", DeliveryClass.LOOKUP, cut=Stop(name, 1, how))
        for name, how in {"register": How.CUT_AFTER, "take": How.CUT_AFTER}.items()
    ),
    *(
        Scene(f"{of}-shares-{role}", of, shares=role)
        for of in (DeliveryClass.KEYED, DeliveryClass.LOOKUP)
        for role in (FIRST, SECOND)
    ),
    *(
        Scene(f"{of}-goes-back-{lag}{name}", of, before=before, lag=lag)
        for of, lags in _LAGS.items()
        for name, before in {"": None, "-takes-over": _on_the_wire(of)}.items()
        for lag in lags
    ),
)
_WIRE: Final = frozenset({"send", "edit"})
_LINES: Final = frozenset({"connect", "listen", "ring"})
# A read changes nothing, so it makes no difference when it runs.
_AT_A_READ: Final = (How.BEFORE, How.CUT_BEFORE, How.CUT_AFTER)
_AT_THE_WIRE: Final = (How.BEFORE, How.AFTER, How.PAUSED, How.SILENT)
_AT_A_LINE: Final = (How.BEFORE, How.CUT_BEFORE)
_READS: Final = 24  # of one life; the later ones repeat themselves
_OF_SHARDS: Final = 6  # of the questions and notes of a host that has several shards


@frozen
class Violation:
    scene: str
    stop: Stop | None
    proof: str
    rule: str


@define
class Searched:
    """`missed`: stops that were not reached, since another order came up. `complete`:
    the time was long enough for all of them."""

    scene: str
    stops: int = 0
    missed: int = 0
    wanted: int = 0
    violations: list[Violation] = field(factory=list)
    cpu_s: float = 0.0

    @property
    def complete(self) -> bool:
        return self.stops == self.wanted


def named(name: str) -> Scene:
    return next(scene for scene in SCENES if scene.name == name)


def hows(scene: Scene, name: str) -> Sequence[How]:
    """What can happen to a host at a statement of this name."""
    if scene.lag is not None:
        return _backs(name)
    if name in _LINES:
        return _AT_A_LINE
    if name in READS:
        return _AT_A_READ
    ways = _AT_THE_WIRE if name in _WIRE else [how for how in How if how not in BACKS]
    # A client has no lease.
    return [way for way in ways if not (scene.client and way is How.SILENT)]


def _backs(name: str) -> Sequence[How]:
    """A server that goes back is found by the next statement, so it makes no difference
    how a question before that ends."""
    if name in WRITES:
        return BACKS
    return (How.BACK_IDLE, How.BACK_BESIDE) if name in _WIRE else ()


def _most(scene: Scene, name: str) -> int:
    """Beside how many statements of this name a host is stopped."""
    if scene.shares and name in READS | {"mark"}:
        return _OF_SHARDS
    return _READS if name in READS else sys.maxsize


def stops(scene: Scene, counts: dict[str, int]) -> Iterator[Stop]:
    """`counts`: how often the host sends each statement if nothing happens."""
    for name in sorted(counts):
        most = min(counts[name], _most(scene, name))
        for nth in range(1, most + 1):
            if scene.cut is None or (name, nth) != (scene.cut.name, scene.cut.nth):
                yield from (Stop(name, nth, how) for how in hows(scene, name))


def search(
    theatre: Theatre,
    scene: Scene,
    until: float | None = None,
    *,
    each: int = 1,
    most: int | None = None,
) -> Searched:
    """`until`: wall time. `each`: every so many of the stops. `most`: violations, after
    which the search ends."""
    done, before = Searched(scene.name), time.process_time()
    plays = [*stops(scene, theatre.profile(scene))]
    # So that a part of them has something of each.
    random.Random(1).shuffle(plays)  # noqa: S311  repeatable on purpose
    plays = plays[::each]
    done.wanted = len(plays)
    for number, stop in enumerate(plays):
        if until is not None and time.time() > until:
            break
        proof = PROOFS[number % len(PROOFS)]
        played = theatre.play(scene, stop, proof)
        done.stops += 1
        done.missed += played.missed
        for rule in played.broken:
            done.violations.append(Violation(scene.name, stop, proof, rule))
        if most is not None and len(done.violations) >= most:
            break
    done.cpu_s = time.process_time() - before
    return done
