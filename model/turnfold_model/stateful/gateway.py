"""A gateway on a real SQLite file, stepped by hand and killed between any two effects.

The Hypothesis machine plays with it: commands are decisions appended at once,
the worker's programs take a step when they are told to, a crash is the number of the
moment at which the process ends. Beside it runs the reference.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from attrs import evolve

from turnfold._decide import turns
from turnfold._runtime.programs import Append, CallHandler, Program, RunEnd
from turnfold._state.entry import Entry
from turnfold._state.fold import family
from turnfold._state.turn import Turn
from turnfold.audit import audit_store
from turnfold.enums import Flush, Phase
from turnfold.errors import RuleBrokenError, StepInDoubtError, UsageError
from turnfold.ports.store import Listing, Summary, now
from turnfold_adapters.stores.memory import MemoryDisk
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.crash import scripts
from turnfold_model.crash.driver import Live
from turnfold_model.crash.process import KilledError, Process
from turnfold_model.crash.scenario import Scenario
from turnfold_model.crash.world import Platform, World
from turnfold_model.machines.transition_table import NONE
from turnfold_model.reference import Log, as_events
from turnfold_model.reference.ages import Ages
from turnfold_model.reference.deaths import Deaths
from turnfold_model.reference.kinds import Record
from turnfold_model.testing.peek import Peek, at_rest

EFFECTS = 4_000  # far more than a gateway needs to come to rest
POISON = 1_000_000  # the handler of a message from here on kills its process


class DiedError(BaseException):
    """The process ends here; nothing may catch it."""


class Dice:
    """Choices as data: a list that was drawn before, then always the first option."""

    def __init__(self) -> None:
        self.drawn: list[int] = []
        self.loaded: dict[int, int] = {}  # options -> the one that is always chosen

    def choose(self, options: int) -> int:
        if options in self.loaded:
            return self.loaded[options]
        if options < 2 or not self.drawn:
            return 0
        return self.drawn.pop(0) % options


class Talker(Process):
    """A process with a handler that does something else for every message. `cured`:
    messages that kill their process no more."""

    cured: set[int]

    def salt(self) -> bytes:
        """Another for each body: erasing one must not erase its equals."""
        self.world.ids += 1
        return self.world.ids.to_bytes(16, "big")

    def handler(self, effect: CallHandler) -> Program:
        turn: Turn = self.look(lambda draft: draft.turn(effect.turn))
        number = int(turn.message_id)
        style = number % 6
        talk = evolve(
            self.scenario,
            blocks=(0, 1, 2, 0, 1, 0)[style],
            sends=(0, 0, 1, 0, 0, 1)[style],
            silent=style in (2, 3),
            parts=(1, 3, 1, 1, 2, 1)[style],
        )
        deadly = number >= POISON and number not in self.cured
        kills = self.kill(turn) if deadly else None
        told = scripts.handler(talk, self._desk, turn, effect, kills)
        return _moody(style, effect, told, fails=number % 12 == 11)


def _moody(style: int, call: CallHandler, told: Program, *, fails: bool) -> Program:
    """Styles 4 and 5 remember a step; 5 fails in its first run, or in every one if
    `fails`; 3 is released in its first."""
    if style >= 4:
        step = partial(turns.begin_step, stream=call.turn, run=call.run, key="s")
        state = yield Append(step)
        if not state.done:
            end = partial(turns.end_step, stream=call.turn, run=call.run, key="s")
            yield Append(partial(end, result=1))
    if fails or (call.run == 1 and style in (3, 5)):
        return RunEnd("raised" if style == 5 else "stopped", "on purpose")
    return (yield from told)


class StatefulGateway:
    """`seen`: the steps of this gateway: (phase, event), for an event with an
    outcome or a reason (event, that), and the faults from outside."""

    def __init__(self, scenario: Scenario, path: str) -> None:
        platform = Platform("keyed" in scenario.classes, scenario.window_ms)
        self.world = World(scenario, MemoryDisk(), platform)
        self.path, self.dice = path, Dice()
        self.seen: set[tuple[str, str]] = set()
        self.cured: set[int] = set()
        self._log, self._phases = Log(), dict[str, str]()
        self._streams: dict[str, str] = {}  # of turns, by message id
        self._deaths, self._ages = Deaths(scenario.deaths), Ages(scenario.age_ms)
        self._left: int | None = None  # moments to live
        self._read = 0
        self.process = self._boot()

    # --- lives ---

    def _boot(self) -> Process:
        store = SqliteStore(self.path, flush=Flush.LOOP)
        now(store.open())
        owner = now(store.ownership().take())
        if owner is None:
            message = "the lock of a dead worker still holds"
            raise AssertionError(message)
        process = Talker(self.world, store, self.dice.choose, self._moment)
        process.cured = self.cured
        process.driver.begin()
        return process

    def _moment(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise DiedError

    def live(
        self,
        steps: int,
        dies_at: int | None,
        drawn: Sequence[int],
        until: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Take steps; False if the process died in them and was started again."""
        self._left, self.dice.drawn = dies_at, list(drawn)
        try:
            for _ in range(steps):
                if not self.step() or until():
                    break
        except (DiedError, KilledError) as exc:
            self._left = None
            self.restart(type(exc))
            return False
        finally:
            self._left, self.dice.drawn = None, []
        return True

    def restart(self, death: type[BaseException] = DiedError) -> None:
        """Its file is opened again. The requests that were under way are lost, land, or
        land late."""
        by_handler = death is KilledError
        self.seen.add(("process", "killed by a handler" if by_handler else "killed"))
        for request in list(self.world.flying.values()):
            self.world.meet(("lost", "landed", "late")[self.dice.choose(3)], request)
        self.world.flying.clear()
        now(self.process.store.close())
        self.world.now += 1
        self.process = self._boot()

    def step(self) -> bool:
        """One step of one program, chosen by the dice; time passes if none is ready."""
        driver = self.process.driver
        if self.process.called:
            self.process.hear()
        ready: list[Live] = driver.ready()
        if not ready:
            due = driver.next_time()
            if due is None:
                return False
            self.pass_time(max(1, due - self.process.now()))
            return True
        self._tick()
        live = ready[self.dice.choose(len(ready))]
        driver.step(live)
        if live.key in driver.alive:
            driver.alive[live.key] = driver.alive.pop(live.key)
        return True

    def _tick(self) -> None:
        """No two commits at one time: that is how the reference tells them apart."""
        self.world.now += 1

    def pass_time(self, ms: int) -> None:
        self.world.now += ms
        self.world.platform.land(self.world.now)
        self.process.driver.tick()

    # --- people ---

    def tell(self, decision: Callable[..., Any], **arguments: Any) -> Any:
        """A command; one that is refused changes nothing and is no finding."""
        self._tick()
        try:
            return self.process.driver.append(partial(decision, **arguments))
        except (RuleBrokenError, UsageError, StepInDoubtError) as exc:
            return exc

    def accept(self, number: int) -> None:
        self._tick()
        self.world.ids += 1
        decision = scripts.accept(self.world.scenario, number, self.world.ids)
        taken = self.process.driver.append(decision)
        self.seen.add(("message", "new" if taken.new else "delivered again"))
        self.world.acked |= {str(number)}

    def enqueue(self, number: int) -> None:
        """Another process posts a notice, which the worker logs when it hears of it."""
        command = scripts.enqueue(number, self.process.now()).command
        (posted,) = now(self.process.store.post((command,)))
        self.seen.add(("notice", "posted" if posted.new else "posted again"))

    def lose_answers(self, steps: int, fate: str = "landed") -> None:
        """Take steps until an entry is in doubt: nobody hears of the requests."""
        self.strike(fate, steps, self._doubts, faults=3)

    def strike(
        self,
        fate: str,
        steps: int,
        until: Callable[[], bool] = lambda: False,
        faults: int = 1,
    ) -> None:
        """Take steps in which the next requests meet this fate."""
        fates = self.world.scenario.fates
        self.dice.loaded = {len(fates) + 1: 1 + fates.index(fate)}
        self.world.faults = faults
        self.live(steps, None, (), until)
        self.world.faults, self.dice.loaded = 0, {}

    def _doubts(self) -> bool:
        wanted = Listing(phases=(Phase.IN_DOUBT,), open=True, limit=1)
        return bool(now(self.process.store.list(wanted)))

    def entries(self) -> list[Entry]:
        self.compare()
        found = (self._state(s) for s in self._phases if family(s) == "entry")
        return [e for e in found if isinstance(e, Entry)]

    def turns(self) -> list[Turn]:
        self.compare()
        found = (self._state(s) for s in self._phases if family(s) == "turn")
        return [t for t in found if isinstance(t, Turn)]

    def turn_of(self, message_id: str) -> Turn:
        """The turn of a message; StopIteration if there is none. It is asked for after
        each step, so its stream is searched for once."""
        self.compare()
        if message_id not in self._streams:
            turns = (t for t in self.turns() if t.message_id == message_id)
            self._streams[message_id] = next(turns).stream
        found: Turn = self._state(self._streams[message_id])
        return found

    def _state(self, stream: str) -> Any:
        return self.process.look(lambda draft: draft.state(stream))

    # --- other programs ---

    def compare(self) -> None:
        """Every new event is legal for the reference, which agrees on the phase after
        it; the process remembers the fold of the log."""
        peek, moved = Peek(self.process.store), set[str]()
        for record in peek.log(self._read):
            self._read = record.position
            for event in as_events(record):
                found = list(self._judged(record.stream, event))
                assert not found, found  # noqa: S101  a finding
                self._follow(record.stream, event)
            moved.add(record.stream)
        for stream in moved:
            state = peek.state(stream)
            assert state == self._state(stream), stream  # noqa: S101  a finding
            if isinstance(state, Entry | Turn):
                assert state.phase == self._phases[stream]  # noqa: S101  a finding

    def _judged(self, stream: str, event: Record) -> Iterator[str]:
        yield from map(str, self._log.feed(event))
        yield from self._deaths.feed(event, self._log.streams[stream])
        yield from self._ages.feed(event)

    def _follow(self, stream: str, event: Record) -> None:
        state: Any = self._log.streams[stream]
        kind, data = str(event["kind"]), event["data"]
        if kind.startswith(("outbox.", "turn.")):
            self.seen.add((self._phases.get(stream, NONE), kind))
            self._phases[stream] = state.phase
        else:  # of the store, a gate or a cursor
            self.seen.add(("", kind))
        for field in ("outcome", "reason"):
            if isinstance(data.get(field), str):
                self.seen.add((kind, data[field]))

    # --- the end ---

    def settle(self) -> None:
        """Without faults and with every channel connected, all comes to rest soon."""
        self.dice.drawn, self.world.faults = [], 0
        for _ in range(EFFECTS):
            self.live(1, None, ())
            if self._rests():
                break
        self.compare()
        assert self._rests(), [  # noqa: S101  a finding
            (row.stream, row.phase, row.due) for row in self._open()
        ]

    def _rests(self) -> bool:
        """A turn that is held waits for a person, too."""
        rows = self._open()
        held = {r.stream for r in rows if r.person and family(r.stream) == "turn"}
        moving = [row for row in rows if row.stream not in held]
        return at_rest(moving) and not now(self.process.store.inbox(1))

    def _open(self) -> Sequence[Summary]:
        return now(self.process.store.load()).open

    def judge(self) -> None:
        """The whole log, with the platform's own list; nothing acknowledged is lost, and
        nothing was sent or run that should not have been."""
        found = [str(v) for v in self._log.finish()]
        assert not found, found  # noqa: S101  a finding
        witness = self.world.platform.witness()
        report = now(audit_store(self.process.store, integrity=False, witness=witness))
        assert report.passed, report.findings  # noqa: S101  a finding
        known = {turn.message_id for turn in self.turns()}
        assert known >= self.world.acked, self.world.acked - known  # noqa: S101  as above
        assert not self.world.wrongs, self.world.wrongs  # noqa: S101  as above

    def close(self) -> None:
        now(self.process.store.close())
