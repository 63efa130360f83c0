"""The pace of attempts behind gates that have closed, and the test for a failing
account.

When a gate's time is over, one lane goes first, the probe; the other lanes wait for its
answer. After a rate limit the lanes behind a gate share a pace. It grows until the
platform refuses; then it is a little slower, and is kept until that refusal is paid
for: a refusal that cost seconds is risked more rarely than one that cost little. This
state is memory of one process and may be lost: it delays attempts and permits none. A
new worker begins with one probe behind each gate that is closed in the log.

After a transient failure the part waits. When several lanes of an account in a row fail
so, the account counts as failing: its gate closes, and one lane is tried for all of
them.
"""

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from attrs import define, field

from turnfold._log.ids import gates_of
from turnfold._runtime.limits import Limits
from turnfold._runtime.scheduler import Key
from turnfold._state.entry import Entry
from turnfold._state.fold import Gate, State
from turnfold._state.turn import Turn
from turnfold.clock import Clock
from turnfold.enums import ON_ITS_WAY, FailureClass, Phase
from turnfold.logs import lines
from turnfold.ports.channel import Rate

_LOG = lines()
_PATIENCE_MS = 60_000  # a lane that waits asks again at least this often
_SLOWEST_MS = 60_000.0
_FIRST_MS = 1_000.0  # the pace after a first refusal, at most: a guess
_DOUBLE_MS = 2_000.0  # a guess doubles in this time, until it is refused
_PAID = 20  # a pace is kept for so many times what the last refusal cost, ...
_PAID_CALLS = 60  # ... and for so many calls, where a refusal costs hardly any time
_SLOWER, _MUCH_SLOWER = 1.05, 1.2  # factors of the interval after a refusal
_ENOUGH = 3  # messages, to know the least that a platform takes
_FAST_MS = 1.0  # a shorter interval counts as none
_REMEMBERED = 10_000  # conversations that have moved
_SEVERAL = 3  # lanes with transient failures in a row, or entries with adapter bugs
_HERD = 10  # lanes that may go at once when a gate opens
_RAMP = 2  # lanes that may follow each answer, where the gate has no rate
_RAMP_MS = 10_000  # without an answer the ramp is over


@define
class Pace:
    """The lanes behind one gate. Times are ms of the log."""

    gate: str
    since: int | None = None  # when the gate was closed first
    half_open: bool = True
    probe: str | None = None  # the lane that is tried
    probe_until: int = 0
    interval: float = 0.0  # between two attempts; 0: no limit is known
    next_at: float = 0.0
    refused: int = 0  # probes in a row
    least: float = 0.0  # the declared interval, a lower limit
    known: bool = False  # was this pace refused, so is it near the platform's own rate?
    shut: int | None = None  # the last refusal at the pace, until the gate opens again
    cost: float = 0.0  # ms that the platform asked for then
    opened: int = 0
    counted: int = 0  # since when `accepted` counts
    accepted: int = 0
    granted: set[str] = field(factory=set)  # may attempt once, and have not yet
    asking: dict[str, str] = field(factory=dict)  # lane -> entry that is looked up
    flying: set[str] = field(factory=set)
    waiting: dict[str, None] = field(factory=dict)
    line: list[tuple[int, str]] = field(factory=list)  # a heap: the oldest entry first
    credit: int | None = None  # lanes that may follow now; None: no ramp

    def ask(
        self, lane: str, now: int, asks: str | None = None, order: int = 0
    ) -> int | None:
        """None: the lane may attempt now, or look the entry `asks` up. Else when the
        lane should ask again. `order`: of its entry."""
        if lane in self.granted:
            return None
        if self.half_open:
            if self.probe is not None and now < self.probe_until:
                self._wait(lane, order)
                return self.probe_until
            self.probe, self.probe_until = lane, now + _PATIENCE_MS
            self._grant(lane)
            if asks is not None:
                self.asking[lane] = asks
            return None
        if asks is not None or not (self.interval or self.credit is not None):
            return None
        if not self.waiting and self._take(lane, now):
            return None
        self._wait(lane, order)
        return now + _PATIENCE_MS

    def _wait(self, lane: str, order: int) -> None:
        if lane not in self.waiting:
            self.waiting[lane] = None
            heapq.heappush(self.line, (order, lane))

    def _first(self) -> str | None:
        """The waiting lane with the oldest entry."""
        while self.line and self.line[0][1] not in self.waiting:
            heapq.heappop(self.line)
        return self.line[0][1] if self.line else None

    def _grant(self, lane: str) -> None:
        self.waiting.pop(lane, None)
        self.granted.add(lane)

    def _take(self, lane: str, now: int) -> bool:
        """Let a lane go if the pace allows it now."""
        if self.credit is not None:
            if now >= self.next_at:
                self.credit = None
            elif not self.credit:
                return False
            else:
                self.credit -= 1
        elif self.interval:
            if now < self.next_at:
                return False
            self.next_at = max(float(now), self.next_at) + self.interval
        self._grant(lane)
        return True

    def closed(self, gate: Gate, now: int) -> None:
        """The platform has refused: one probe after the wait, and a slower pace. A
        refused probe sets the next wait and leaves the pace as it is."""
        if self.since is None or not self.half_open:
            self.since = now
        at_pace = not self.half_open or not self.interval
        self.refused += 1
        self.granted.difference_update(self.asking)
        self.asking.clear()
        self.half_open, self.probe, self.credit = True, None, None
        if gate.reason == FailureClass.RATE_LIMITED and gate.until is not None:
            self.next_at = float(gate.until)
            self.shut = now if self.shut is None else self.shut
            if at_pace:
                self.interval = max(self._slower(gate.until - now, now), self.least)

    def _slower(self, wait: int, now: int) -> float:
        """The interval after a refusal. A guess was too fast by an unknown factor, and
        so was a pace that is refused again before it has paid for the last refusal.
        But no pace is slower than what the platform took since that one."""
        ms, took = now - self.counted, self.accepted
        self.counted, self.accepted = now, 0
        if not self.interval:
            return min(float(wait), _FIRST_MS)
        far = not self.known or now < self.opened + self._kept_ms() / 4
        self.known = True
        slower = self.interval * (_MUCH_SLOWER if far else _SLOWER)
        if took >= _ENOUGH:
            slower = min(slower, max(ms / took, self.interval * _SLOWER))
        return min(slower, _SLOWEST_MS)

    def _kept_ms(self) -> float:
        """How long a known pace is kept: until the last refusal is paid for."""
        return max(_PAID * self.cost, _PAID_CALLS * self.interval)

    def _faster(self, now: int) -> None:
        """Ask for more after a success: a guess at once, a known pace when it has been
        kept for long enough. The pace doubles while so many messages go as it allows,
        not while nobody has anything to send."""
        kept = self._kept_ms() if self.known else 0.0
        if now >= self.opened + kept:
            double = kept / 2 or _DOUBLE_MS
            self.interval *= 0.5 ** min(self.interval / double, 1.0)
        self.interval = max(self.interval, self.least)

    def moved(self, entry: Entry, now: int) -> None:
        """Learn the new state of an entry behind the gate."""
        lane = entry.lane
        if entry.phase in ON_ITS_WAY:
            self.granted.discard(lane)
            self.waiting.pop(lane, None)
            self.flying.add(lane)
        elif lane in self.flying:
            self.flying.discard(lane)
            self._answered(lane, now)
        elif self.asking.get(lane) == entry.stream and not entry.trying:
            del self.asking[lane]
            self.granted.discard(lane)
            if lane == self.probe:
                self.open(now)
        elif lane == self.probe and not entry.open:
            self.probe = None  # the probe ended without an attempt
            self.granted.discard(lane)

    def _answered(self, lane: str, now: int) -> None:
        """An attempt got an answer other than the gate's failure, which would have
        closed the gate again."""
        if self.half_open and lane != self.probe:
            return  # sent before the gate closed, so no evidence
        if self.half_open:
            self.open(now)
        self.accepted += 1
        self._faster(now)
        if 0.0 < self.interval < _FAST_MS:  # without a pace all lanes would go at once
            self.interval = _FAST_MS if self.waiting else 0.0
        if self.credit is not None:
            self.ramp(self.credit + _RAMP, now)

    def open(self, now: int) -> None:
        """The probe has an answer: the others follow at the pace."""
        if self.shut is not None:
            self.cost, self.shut, self.opened = self.next_at - self.shut, None, now
        self.half_open, self.probe, self.refused = False, None, 0
        if not self.interval and len(self.waiting) > _HERD:
            self.ramp(_RAMP, now)
            return
        self.next_at = max(self.next_at, now + self.interval)

    def ramp(self, first: int, now: int) -> None:
        """Let the `first` lanes go, and more with each answer: no rate is known."""
        self.credit, self.next_at = first, now + _RAMP_MS

    def released(self, now: int) -> list[str]:
        """The lanes that the pace lets go now."""
        if self.half_open:
            free = self.probe is None or now >= self.probe_until
            # In the order of asking: the platform may refuse only the oldest entry.
            return list(self.waiting)[:1] if free else []
        lanes = []
        while (first := self._first()) is not None and self._take(first, now):
            lanes.append(first)
        return lanes

    def over(self, now: int) -> bool:
        """Can this pace be forgotten? Its account is idle for so long that a new refusal
        costs little."""
        begins = self.credit is not None and not self.accepted and now < self.next_at
        if self.half_open or self.waiting or begins:
            return False
        idle = 0.0 if self.interval <= self.least else self._kept_ms()
        moving = self.granted or self.flying
        return not self.interval or (not moving and now >= self.next_at + idle)


class Flow:
    """The paces of all gates that have closed in this process. `start` runs programs."""

    def __init__(
        self, clock: Clock, start: Callable[[Iterable[Key]], None], places: int
    ) -> None:
        self._clock, self._start = clock, start
        self.places = Places(places)
        self._paces: dict[str, Pace] = {}
        self._begun = Counter[str]()  # account's gate -> lanes that a new worker starts
        self._failing: dict[str, set[str]] = {}  # account's gate -> lanes in a row
        self._broken: dict[str, set[str]] = {}  # account's gate -> entries in a row
        self._limits = Limits()
        self._moved: dict[str, str] = {}  # conversation's gate -> its new place
        self._alarm: asyncio.TimerHandle | None = None
        self.rates: Mapping[str, Rate] = {}  # account's gate -> its declared rate

    def wait_for_place(self, lane: str, order: int) -> None:
        self.places.wait(lane, order)

    def moved_to(self, lane: str, target: str) -> None:
        """A conversation has moved: the next entry for it goes to the new place."""
        if len(self._moved) >= _REMEMBERED:
            self._moved.clear()
        self._moved[gates_of(lane)[1]] = target

    def target(self, lane: str) -> str | None:
        return self._moved.get(gates_of(lane)[1]) if self._moved else None

    @property
    def knows(self) -> bool:
        """False: no gate has closed and nothing fails, so the other methods need not be
        called."""
        return bool(self._paces or self._fails or self.rates)

    @property
    def _fails(self) -> bool:
        return bool(self._failing or self._broken or self._limits)

    def begin(self, gates: Iterable[Gate]) -> None:
        """Begin as a new worker: one probe behind each closed gate."""
        self._paces, self._begun = {}, Counter()
        for gate in gates:
            pace = self._pace(gate.stream)
            pace.half_open, pace.since = True, gate.updated

    def begins(self, lanes: Iterable[str]) -> None:
        """A new worker starts these lanes next. Of an account that has many a few go
        first: nobody knows what the platform allows."""
        for lane in lanes:
            name = gates_of(lane)[0]
            self._begun[name] += 1
            known = name in self._paces or self._declared(name)
            if self._begun[name] == _HERD + 1 and not known:
                self._pace(name).ramp(_HERD, self._clock.now())

    def _pace(self, name: str) -> Pace:
        """The pace of a gate; a new one starts with the declared rate, if any."""
        pace = self._paces.get(name)
        if pace is None:
            least = self._declared(name)
            pace = Pace(name, half_open=False, interval=least, least=least)
            self._paces[name] = pace
        return pace

    def _declared(self, name: str) -> float:
        """The declared interval of an account or a conversation, in ms; 0 for none."""
        if name in self.rates:
            a_second = self.rates[name].account
        else:
            account = name.rpartition("/")[0]
            rate = self.rates.get(account)
            a_second = None if rate is None else rate.conversation
        return 0.0 if a_second is None else 1_000 / a_second

    def turn_of(
        self, lane: str, now: int, asks: str | None = None, order: int = 0
    ) -> int | None:
        """None: an entry of this lane may be attempted now, or the entry `asks` looked
        up. Else when to ask again; the lane is started earlier if the pace allows
        it."""
        for name in gates_of(lane):
            pace = self._paces.get(name)
            if pace is None and self.rates and self._declared(name):
                pace = self._pace(name)
            until = None if pace is None else pace.ask(lane, now, asks, order)
            if until is not None:
                self._set_alarm(now)
                return until
        return None

    def fails(self, lane: str) -> bool:
        """A lane met a transient failure. True if its account fails: the lane was the
        probe of its gate, or is one of several in a row."""
        return self._in_a_row(self._failing, lane, lane)

    def limits(self, entry: Entry) -> bool:
        """A conversation met a rate limit. True if it is the limit of its account."""
        pace = self._paces.get(gates_of(entry.lane)[0])
        probe = pace is not None and pace.half_open
        return self._limits.refused(entry, self._clock.now(), probe=probe)

    def breaks(self, lane: str, entry: str) -> bool:
        """An adapter raised a bug for an entry. True if it breaks for several entries
        in a row, or broke for the probe."""
        return self._in_a_row(self._broken, lane, entry)

    def _in_a_row(self, seen: dict[str, set[str]], lane: str, name: str) -> bool:
        account = gates_of(lane)[0]
        pace = self._paces.get(account)
        if pace is not None and pace.half_open:
            return True
        names = seen.setdefault(account, set())
        if len(names) < _SEVERAL:
            names.add(name)
        return len(names) >= _SEVERAL

    def refused(self, lane: str) -> int:
        """How many probes of its account were refused in a row."""
        pace = self._paces.get(gates_of(lane)[0])
        return 0 if pace is None else pace.refused

    def moved(self, states: Sequence[State]) -> None:
        """Learn from a commit. Gates first: an entry that was refused is no success."""
        if self.places.waiting:
            self.places.moved(states)
        for state in states:
            if type(state) is Gate:
                self._gate(state, self._clock.now())
        if not self.knows:
            return  # nearly always
        for state in states:
            if type(state) is Entry:
                self._works(state)
        if self._paces:
            self._go_on(states, self._clock.now())

    def _go_on(self, states: Sequence[State], now: int) -> None:
        for state in states:
            if isinstance(state, Entry):
                for name in gates_of(state.lane):
                    if name in self._paces:
                        self._paces[name].moved(state, now)
        self.ring(now)

    def _works(self, entry: Entry) -> None:
        """A delivery clears the failures of its account."""
        if entry.phase is Phase.DELIVERED:
            account = gates_of(entry.lane)[0]
            self._failing.pop(account, None)
            self._broken.pop(account, None)
            self._limits.delivered(account)

    def _gate(self, gate: Gate, now: int) -> None:
        _tell(gate)
        if gate.closed:
            self._pace(gate.stream).closed(gate, now)
        elif gate.stream in self._paces:
            self._paces[gate.stream].open(now)

    def wait_out(self, name: str, wait_ms: int) -> None:
        """Another shard of this host was told to wait. The lanes of this shard wait as
        long, and then one of them goes first."""
        pace, until = self._pace(name), self._clock.now() + wait_ms
        if pace.interval and not pace.half_open:
            pace.next_at = max(pace.next_at, float(until))
        elif not pace.half_open and pace.credit is None:
            pace.half_open, pace.probe, pace.probe_until = True, "", until

    def ring(self, now: int) -> None:
        """Start the lanes that their paces let go now."""
        lanes = [lane for pace in self._paces.values() for lane in pace.released(now)]
        for name in [name for name, pace in self._paces.items() if pace.over(now)]:
            del self._paces[name]
            self._limits.over(name)
        if lanes:
            self._start([Key("lane", lane) for lane in lanes])
        self._set_alarm(now)

    def waiting(self) -> dict[str, int]:
        """How many lanes wait behind each gate, for `health()`."""
        return {name: len(pace.waiting) for name, pace in self._paces.items()}

    def tried(self) -> set[str]:
        """The gates with a probe under way or due; the other lanes wait for it."""
        return {name for name, pace in self._paces.items() if pace.half_open}

    def closed_since(self, gate: Gate) -> int:
        """When a gate was closed first, before its probes were refused."""
        pace = self._paces.get(gate.stream)
        since = None if pace is None else pace.since
        return gate.updated if since is None else since

    def silence(self) -> None:
        """Start nothing any more."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _set_alarm(self, now: int) -> None:
        due = [
            pace.next_at
            for pace in self._paces.values()
            if pace.waiting and not pace.half_open
        ]
        if due and self._alarm is None:
            wait = int(max(min(due) - now, 0)) + 1
            self._alarm = self._clock.call_later(wait, self._rang)

    def _rang(self) -> None:
        self._alarm = None
        self.ring(self._clock.now())


def _tell(gate: Gate) -> None:
    facts = {"gate": gate.stream, "reason": gate.reason, "until": gate.until}
    if not gate.closed:
        _LOG.info("%s is open (%s)", gate.stream, gate.reason, extra=facts)
    elif gate.until is None:
        _LOG.warning("%s is closed (%s)", gate.stream, gate.reason, extra=facts)
    else:
        text = "%s is closed (%s), tried again at %s ms"
        _LOG.info(text, gate.stream, gate.reason, gate.until, extra=facts)


# --- Turns that wait for a place to run: memory of one process, too ---


class Places:
    """The lanes of turns whose first turn waits for a place, the oldest turn first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._line: list[tuple[int, str]] = []  # also lanes that wait no more
        self.waiting: dict[str, int] = {}  # lane -> order of its first turn

    def wait(self, lane: str, order: int) -> None:
        """`order`: of the turn."""
        if self.waiting.get(lane) != order:
            self.waiting[lane] = order
            heapq.heappush(self._line, (order, lane))

    def moved(self, states: Iterable[State]) -> None:
        """A waiting turn that has moved loses its wait: it may be aborted or held. The
        program of its lane asks again if it still waits."""
        for state in states:
            if isinstance(state, Turn) and self.waiting.get(state.lane) == state.order:
                del self.waiting[state.lane]

    def freed(self, taken: int) -> Iterator[str]:
        """The lanes that may ask again while `taken` places are in use."""
        free = self.most - taken
        while free > 0 and self._line:
            order, lane = heapq.heappop(self._line)
            if self.waiting.get(lane) == order:
                del self.waiting[lane]
                free -= 1
                yield lane
