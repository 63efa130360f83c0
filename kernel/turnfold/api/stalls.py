"""Stalled lanes: the first entry of each has not moved for a set time.

Such a lane waits for a gate, an answer or a person, which is no error to the kernel.
The embedder should know all the same. The findings are kept in memory only.
"""

import asyncio
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from attrs import asdict, define, frozen

from turnfold._decide.missing import NotLoaded
from turnfold._log.ids import gates_of
from turnfold._runtime.open_streams import OpenStreams
from turnfold._state.entry import Entry

_AT_ONCE = 500  # lanes between two yields to the loop
_SHOWN = 100  # in `health()`
_LEAST_S, _MOST_S = 0.05, 60.0  # seconds between two looks


@frozen
class Stall:
    """A stalled lane. `since_ms`: how long its first entry has not moved. `behind`:
    entries that wait behind it."""

    lane: str
    entry: str
    cause: str
    since_ms: int
    behind: int


@define
class _Head:
    entry: str
    part: int
    since: int
    told: bool = False


class Stalls:
    """`tell` is called once for each entry that stalls its lane, with the cause."""

    def __init__(
        self,
        book: OpenStreams,
        now: Callable[[], int],
        stall_ms: int,
        tell: Callable[[Entry, str], None],
    ) -> None:
        self._book, self._now, self._tell = book, now, tell
        self._stall_ms = stall_ms
        self._heads: dict[str, _Head] = {}
        self._found: list[Stall] = []

    def facts(self) -> list[dict[str, Any]]:
        """The findings of the last look, the oldest first."""
        return [asdict(stall) for stall in self._found[:_SHOWN]]

    @property
    def count(self) -> int:
        """How many lanes were stalled at the last look."""
        return len(self._found)

    async def forever(self) -> None:
        """Look at all lanes again and again, some at a time."""
        pause = min(max(self._stall_ms / 4_000, _LEAST_S), _MOST_S)
        while True:
            await asyncio.sleep(pause)
            await self.look()

    async def look(self) -> None:
        """Look at each lane once."""
        lanes = iter(self._book.lanes())
        heads: dict[str, _Head] = {}
        found: list[Stall] = []
        while some := list(islice(lanes, _AT_ONCE)):
            for lane in some:
                found += self._look_at(lane, heads)
            await asyncio.sleep(0)
        self._heads = heads
        self._found = sorted(found, key=lambda stall: -stall.since_ms)

    def _look_at(self, lane: str, heads: dict[str, _Head]) -> Iterator[Stall]:
        entry, now = self._first(lane), self._now()
        if entry is None:
            return
        head = self._heads.get(lane)
        if head is None or (head.entry, head.part) != (entry.stream, entry.part):
            head = _Head(entry.stream, entry.part, now)
        heads[lane] = head
        since, cause = now - head.since, self._cause(entry, now)
        if since < self._stall_ms:
            return
        if not head.told:
            head.told = True
            self._tell(entry, cause)
        behind = self._book.length(lane) - 1
        yield Stall(lane, entry.stream, cause, since, behind)

    def _first(self, lane: str) -> Entry | None:
        """The entry that holds the others of its lane back. An entry that waits for a
        date has yielded."""
        try:
            return next((e for e in self._book.lane(lane) if not e.yielded), None)
        except NotLoaded:
            return None  # the worker has not read it yet

    def _cause(self, entry: Entry, now: int) -> str:
        for name in gates_of(entry.lane):
            gate = self._book.holding(name)
            if gate is not None and gate.holds(now):
                return f"{name} is closed: {gate.reason}"
        why = entry.reason or entry.failure
        return f"{entry.phase}: {why}" if why else str(entry.phase)
