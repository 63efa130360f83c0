"""The programs that should be alive, and the times when waiting ones start again.

Every driver asks here for the programs to start after a commit. Programs that wait for
a time are in one heap, with one alarm of the loop.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from turnfold._decide.unit_of_work import AttemptRef
from turnfold._log.ids import GATE
from turnfold._runtime import programs
from turnfold._runtime.open_streams import OpenStreams
from turnfold._runtime.programs import Program
from turnfold._runtime.sender import Register
from turnfold._state.entry import Entry
from turnfold._state.fold import Gate, State
from turnfold._state.turn import Turn
from turnfold.clock import Clock
from turnfold.enums import RUNNING

_LONGEST_MS = 60_000  # look again at least this often, for clocks that jump


class Key(NamedTuple):
    """The name of a program: at most one of each is alive."""

    what: str  # "lane", "send", "turns", "control", "run", "let go", "expiry", "probe" or "take over"
    name: str
    run: int = 0


TAKE_OVER = Key("take over", "")


def program_of(key: Key, register: Register) -> Program | None:
    """The program of a key; None if it has no work. A lane has one program that sends:
    the next attempt waits until the previous call has ended."""
    match key.what:
        case "lane":
            return programs.lane(key.name)
        case "send":
            attempt = register.speaks_for(key.name)
            return None if attempt is None else programs.send(attempt)
        case "turns":
            return programs.turn_lane(key.name)
        case "control":
            return programs.control(key.name)
        case "probe":
            return programs.probe(key.name)
        case "take over":
            return programs.take_over()
        case "run":
            return programs.run(key.name, key.run)
        case "let go":
            return programs.let_go(key.name, key.run)
        case _:
            return programs.expiry(key.name)


def at_start(book: OpenStreams) -> Iterator[Key]:
    """The programs of all open streams, once, after the inbox was read. The rest of the
    worker's recovery is its ordinary work."""
    # Turns first: the unsent entries of a dead run are aborted before a lane sends
    # them.
    for lane in book.turn_lanes():
        yield Key("turns", lane)
    for turn in book.controls():
        yield Key("control", turn)
    for lane in book.lanes():
        yield Key("lane", lane)


def taken_up(attempts: Iterable[AttemptRef], register: Register) -> Iterator[Key]:
    """The programs that send these attempts; they may be running already."""
    for attempt in attempts:
        register.enter(attempt)
        yield Key("send", attempt.lane)


def after(
    moved: Iterable[State], book: OpenStreams, epoch: int, register: Register
) -> Iterator[Key]:
    """The programs that may have work after these changes. A lane with an attempt under
    way is looked at when that attempt has ended."""
    for state in moved:
        if isinstance(state, Entry):  # nearly all
            lane = state.lane
            if register.speaks_for(lane) is None and book.has_open(lane):
                yield Key("lane", lane)
            continue
        match state:
            case Turn():
                yield from _turn(state, book, epoch)
            case Gate() if not state.holds(state.updated):  # open, or due for a probe
                yield from behind(state.stream.removeprefix(GATE), book)
            case _:
                pass


def _turn(turn: Turn, book: OpenStreams, epoch: int) -> Iterator[Key]:
    """The lane of a turn has no step of its own while it holds nothing but our run."""
    under_way = turn.phase is RUNNING and turn.left_open is None
    ours = under_way and turn.fence == epoch
    if turn.control:
        yield Key("control", turn.stream)
    elif book.turns_waiting(turn.lane) > ours:
        yield Key("turns", turn.lane)
    if ours:
        yield Key("run", turn.stream, turn.run)


def behind(scope: str, book: OpenStreams) -> Iterator[Key]:
    """The lanes in the scope of a gate or an account."""
    for lane in book.lanes():
        if lane == scope or lane.startswith(f"{scope}/"):
            yield Key("lane", lane)


class Timers:
    """`ring` is called in the loop when something may be due; early is harmless."""

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock, self._ring = clock, ring
        self._heap: list[tuple[int, int, Key]] = []
        self._due: dict[Key, int] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0

    def add(self, key: Key, until: int) -> None:
        """Set the time of a key, in the place of any earlier one."""
        self._due[key] = until
        heapq.heappush(self._heap, (until, id(key), key))
        if len(self._heap) > 2 * len(self._due) + 1_000:
            self._heap = [(at, id(k), k) for k, at in self._due.items()]
            heapq.heapify(self._heap)

    def due(self, now: int) -> Iterator[Key]:
        while self._heap and self._heap[0][0] <= now:
            until, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == until:
                del self._due[key]
                yield key

    def set_alarm(self, deadline: int | None) -> None:
        """Set the alarm to the first time here, or to `deadline` if that is earlier."""
        first = self._heap[0][0] if self._heap else deadline
        if first is None:
            return
        if deadline is not None and deadline < first:
            first = deadline
        if self._alarm is not None and self._alarm_at <= first:
            return  # an early alarm only looks again; most never ring
        now = self._clock.now()
        at = min(max(first, now), now + _LONGEST_MS)
        if self._alarm is not None:
            if self._alarm_at <= at:
                return
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = self._clock.call_later(at - now, self._rang)

    def _rang(self) -> None:
        self._alarm = None
        self._ring()

    def silence(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
