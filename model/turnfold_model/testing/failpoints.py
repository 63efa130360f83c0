"""Where a process can be stopped, by name or by number, exactly and repeatably.

Two layers together cover every crash that a kernel can die of: the probe of its driver
(before and after each effect of a program) and its store (before and after each COMMIT,
also of those that no program asked for: an accept, an enqueue, a reply of a handler, a
command that is posted).
The name of a point says its moment: "before Send", "after Append settle",
"before commit turn.answered".
"""

import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from attrs import define, field, frozen

from turnfold._log.codec import decode
from turnfold._log.events import NAMES
from turnfold._runtime.programs import Append, Effect, Look, TakeUp, Wait
from turnfold.ports.store import Command, Posted, Refused, Store, Stored, Write


@frozen
class Stop:
    """The `nth` time (from 1) that a point of this name is reached; with no name, the
    `nth` point of any name."""

    nth: int
    name: str = ""


def kill_self() -> None:
    """As hard as it gets: no handler, no flush, no exit code of ours."""
    os.kill(os.getpid(), signal.SIGKILL)


@define
class Failpoints:
    """`stop`: where to die, none = never. `told` hears the name of a point just before
    the end, since a dead process tells nothing."""

    stop: Stop | None = None
    die: Callable[[], None] = kill_self
    told: Callable[[str], None] = lambda _: None
    reached: Counter[str] = field(factory=Counter)
    _total: int = 0

    def reach(self, name: str) -> None:
        """Come by a point."""
        self._total += 1
        self.reached[name] += 1
        stop = self.stop
        if stop is None:
            return
        count = self.reached[name] if stop.name == name else self._total
        if stop.name in ("", name) and count == stop.nth:
            self.told(name)
            self.die()

    def probe(self, when: str, effect: Effect) -> None:
        """For `Kernel(probe=...)`."""
        if not isinstance(effect, Look | TakeUp | Wait):
            self.reach(f"{when} {label(effect)}")

    def watch(self, store: Store) -> Store:
        """The same store, with a point on either side of every COMMIT."""
        return cast("Store", WatchedStore(store, self.reach))


def label(effect: Effect) -> str:
    """The readable name of an effect; an append goes by the decision that it makes."""
    name = type(effect).__name__
    if not isinstance(effect, Append):
        return name
    decision: Any = effect.decision
    while isinstance(decision, partial):
        decision = decision.func
    return f"{name} {decision.__name__}"


class WatchedStore:
    """Any store; it stops nothing but commits and posts that write. See
    Failpoints.watch."""

    def __init__(self, store: Store, reach: Callable[[str], None]) -> None:
        self._store, self._reach = store, reach

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, writes: Sequence[Write]) -> Sequence[Stored | Refused]:
        records = [record for write in writes for record in write.records]
        name = _telling([NAMES[type(e)] for record in records for e in decode(record)])
        if name:
            self._reach(f"before commit {name}")
        answers = await self._store.commit(writes)
        if name:
            self._reach(f"after commit {name}")
        return answers

    async def post(self, commands: Sequence[Command]) -> Sequence[Posted]:
        name = commands[-1].kind if commands else ""
        if name:
            self._reach(f"before post {name}")
        posted = await self._store.post(commands)
        if name:
            self._reach(f"after post {name}")
        return posted


# The event that a commit is best known by, if it holds several.
_TELLING = (
    "turn.accepted",
    "turn.answered",
    "turn.completed",
    "turn.failed",
    "turn.aborted",
    "outbox.delivered",
    "outbox.part_delivered",
    "outbox.unknown",
    "outbox.parked",
    "outbox.queued",
)


def _telling(kinds: list[str]) -> str:
    for name in _TELLING:
        if name in kinds:
            return name
    return kinds[-1] if kinds else ""
