"""One life of a machine in a world: a worker, and perhaps a client or a zombie, from
boot to crash or rest. Every choice is on a tape."""

from collections.abc import Callable, Hashable, Sequence
from typing import NoReturn, cast

from attrs import define, field

from turnfold._runtime.programs import Append, Program
from turnfold.errors import DiskError, FateUnknownError
from turnfold.ports.store import (
    Command,
    Posted,
    Refused,
    Store,
    Stored,
    Wanted,
    Write,
    now,
)
from turnfold_adapters.stores.memory import MemoryStore
from turnfold_model.crash import scripts
from turnfold_model.crash.driver import Act, Live
from turnfold_model.crash.process import Choose, KilledError, Process
from turnfold_model.crash.replays import Memo, Replays
from turnfold_model.crash.scenario import LATEST_MS
from turnfold_model.crash.world import World

STEPS = 3_000  # far more than any life needs
_AFTERLIFE = 8  # steps after a worker has lost its place; its own, if it slept first
_REST_MS = 3_600_000
_KILLS = 20  # by a handler; far fewer find it and what a person lets it do after that


class StuckError(Exception):
    """A life that neither rests nor ends."""


class MergedError(Exception):
    """The rest of this execution equals that of an earlier one."""


@define
class Tape:
    """The choices of one execution: a prefix that is given, then always the first."""

    given: tuple[int, ...] = ()
    arities: list[int] = field(factory=list)

    def choose(self, options: int) -> int:
        index = len(self.arities)
        self.arities.append(options)
        return self.given[index] if index < len(self.given) else 0

    @property
    def spent(self) -> bool:
        """True after the given prefix: every further step is new."""
        return len(self.arities) >= len(self.given)

    def choices(self) -> tuple[int, ...]:
        """The choices so far."""
        made = len(self.arities)
        return (*self.given[:made], *[0] * (made - len(self.given)))

    def siblings(self) -> list[tuple[int, ...]]:
        """The executions that first differ after the given prefix."""
        taken = [*self.given, *[0] * (len(self.arities) - len(self.given))]
        return [
            (*taken[:index], other)
            for index in range(len(self.given), len(self.arities))
            for other in range(1, self.arities[index])
        ]


class ShakyStore(MemoryStore):
    """A store whose commits fail by a choice of the world: surely not stored, or with
    an unknown outcome."""

    def __init__(self, world: World, choose: Choose) -> None:
        super().__init__(world.disk)
        self._world, self._choose = world, choose

    async def commit(self, writes: Sequence[Write]) -> Sequence[Stored | Refused]:
        fate = self._fate()
        if fate == 2:
            self._doubt()
        done = await super().commit(writes)
        if fate == 3:
            self._doubt()
        return done

    async def post(self, commands: Sequence[Command]) -> Sequence[Posted]:
        fate = self._fate()
        if fate == 2:
            self._doubt()
        done = await super().post(commands)
        if fate == 3:
            self._doubt()
        return done

    def _fate(self) -> int:
        """0: stored; 1: surely not stored; 2: lost, 3: stored, both with an unknown
        outcome."""
        fate = self._choose(4) if self._world.store_faults else 0
        self._world.store_faults -= fate > 0
        if fate == 1:
            raise DiskError(path="memory:", problem="full")
        return fate

    def _doubt(self) -> NoReturn:
        self._state = "in doubt"
        raise FateUnknownError(path="memory:", problem="injected")

    async def reopen(self) -> None:
        self._state = "open"
        await super().reopen()


class Life:
    """`crash` is called with the world, and what that costs, at each point where the
    machine may die, unless the parent of this execution was called there. `seen`: moments of earlier lives.
    `memo`: the commits of other lives that began here."""

    def __init__(
        self,
        world: World,
        tape: Tape,
        crash: Callable[[World, int], None],
        seen: set[Hashable] | None = None,
        memo: Memo | None = None,
    ) -> None:
        self.world, self.tape, self._crash, self._seen = world, tape, crash, seen
        self.scenario = world.scenario
        self._replays: Replays | None = None
        if memo is not None and not self.scenario.store_faults:
            alone = not (self.scenario.client or self.scenario.zombies)
            self._replays = Replays(memo, tape.choices, shares=alone)
        self.worker = self._process()
        self.client: Process | None = None
        self._zombie: tuple[Process, int] | None = None
        self._asleep: Process | None = None
        self.killed = False  # by its own handler
        self._rang = (0, 0)  # the inbox at the last ring, and its place
        self._mine: set[Hashable] = set()  # moments that this life was the first in

    def _process(self, epoch: int | None = None) -> Process:
        store = self._store()
        now(store.open())
        choose, died, replays = self.tape.choose, self._died, self._replays
        return Process(self.world, store, choose, died, epoch, replays)

    def _store(self) -> Store:
        if self.world.store_faults:
            return cast("Store", ShakyStore(self.world, self.tape.choose))
        return self.world.handle()

    def _died(self) -> None:
        if self.world.crashes and self.tape.spent:
            self._crash(self.world, 1)

    @property
    def effects(self) -> int:
        return self.worker.driver.effects

    @property
    def broken(self) -> int:
        """Programs that ended by an unexpected error."""
        expected = self.scenario.store_faults or self.scenario.zombies
        return 0 if expected else self.worker.driver.broken

    # --- the machine ---

    def run(self) -> None:
        """Live until nothing is left to do. Raises StuckError, MergedError."""
        world = self.world
        self.worker.driver.begin()
        for number in range(self.scenario.messages):
            if f"in{number}" not in world.acked:
                world.ids += 1
                decision = scripts.accept(self.scenario, number, world.ids)
                self.worker.add(f"in{number}", Append(decision), ack=True)
        if self.scenario.client:
            self._start_client()
        try:
            self._steps()
        except KilledError:
            self.killed = True
            world.killed += 1
            if world.killed > _KILLS:
                raise StuckError(self.scenario.name) from None
            self._crash(world, 0)

    def _steps(self) -> None:
        for _ in range(STEPS):
            if not self._step():
                return
        raise StuckError(self.scenario.name)

    def _start_client(self) -> None:
        self.client = self._process(epoch=0)
        if "out0" not in self.world.acked:
            self.client.add("out0", scripts.enqueue(0, self.world.now), ack=True)
        if self.scenario.abort and not self.world.aborted:
            self.client.driver.add("abort", self._client_abort())

    def _client_abort(self) -> Program:
        turn = yield Act(self._first_turn)  # type: ignore[misc]  # ours alone
        if turn is not None:
            yield from scripts.until_stored(scripts.abort(turn))
        self.world.aborted = True

    def _first_turn(self) -> str | None:
        key = f"in:{scripts.message(0).dedupe_key}"
        assert self.client is not None  # noqa: S101  its own program
        found = now(self.client.store.fetch(Wanted(keys=frozenset((key,)))))
        return found.keys[key]

    def _meet_others(self) -> None:
        if self._seen is None or not self.tape.spent:
            return
        zombie = self._zombie and (self._zombie[0].moment(), self._zombie[1])
        asleep = self._asleep and self._asleep.moment()
        flying = frozenset(self.world.flying.items())
        people = tuple(process.moment() for process in self._processes())
        moment = self.world.identity(), flying, people, zombie, asleep, self._rang
        if moment in self._mine:  # a loop
            raise StuckError(self.scenario.name)
        if moment in self._seen:
            raise MergedError
        self._mine.add(moment)
        self._seen.add(moment)

    def _step(self) -> bool:
        self._meet_others()
        self._maybe_abort()
        self._maybe_lose_place()
        self._maybe_wake()
        self._maybe_hear()
        options = self._options()
        if not options:
            return self._rested()
        choice = self.tape.choose(len(options)) if len(options) > 1 else 0
        process, live = options[choice]
        alive = process.driver.alive
        process.driver.step(live)
        self._grow_older(process)
        if live.key in alive:  # others go first next time
            alive[live.key] = alive.pop(live.key)
        return True

    def _options(self) -> list[tuple[Process, Live]]:
        """The processes that may take the next step."""
        out = []
        for process in self._processes():
            ready = process.driver.ready()
            chosen = ready if self.scenario.interleave else ready[:1]
            out += [(process, live) for live in chosen]
        if self._zombie is not None:
            process, left = self._zombie
            out += [(process, live) for live in process.driver.ready()[:1] if left]
        return out

    def _processes(self) -> list[Process]:
        return [self.worker, self.client] if self.client else [self.worker]

    def _rested(self) -> bool:
        """No program is ready: read records of others, or let time pass."""
        if self.worker.called:
            self.worker.hear()
            return True
        if self.worker.behind:
            self.worker.driver.refresh()
            return True
        world = self.world
        dues = [process.driver.next_time() for process in self._processes()]
        due = min((d for d in dues if d is not None), default=None)
        if due is None or due - world.now > self._patience:
            if self._let_go():
                return True
            world.platform.land(world.now + LATEST_MS)  # late requests come, too
            return False  # at rest: an entry that waits an hour or more is parked
        world.now = max(due, world.now + 1)
        world.platform.land(world.now)
        for process in self._processes():
            process.driver.tick()
        return True

    def _let_go(self) -> bool:
        """A person lets the turn that is held run; again, if a crash has undone it."""
        world, question = self.world, scripts.first_turn_is_held
        if not self.scenario.unholds or not self.worker.look(question):
            return False
        world.unholds = max(0, world.unholds - 1)
        self.worker.add("unhold", Append(scripts.let_first_run), ack=False)
        return True

    @property
    def _patience(self) -> int:
        return max(_REST_MS, 2 * self.scenario.ttl_ms) if self._mortal else _REST_MS

    @property
    def _mortal(self) -> bool:
        return self.scenario.ttl_ms < _REST_MS

    # --- events at any step ---

    def _maybe_abort(self) -> None:
        asked = self.scenario.abort and not self.scenario.client
        if not asked or self.world.aborted or not self._wanted():
            return
        if self.tape.choose(2):
            self.world.aborted = True
            alone = self.scenario.abort_reply
            stop = scripts.abort_reply if alone else scripts.abort_first
            self.worker.add("abort", Append(stop), ack=False)

    def _wanted(self) -> bool:
        """Has the first message come, and is its turn open?"""
        question = scripts.first_turn_is_open
        return bool(self.worker.readable and self.worker.look(question))

    def _maybe_hear(self) -> None:
        """The ring of a client, or of a worker that has lost its place, is heard at once
        or not before the machine rests."""
        others = self.client is not None or self._zombie is not None
        if not others or not self.worker.called:
            return
        posted = len(self.world.disk.inbox), self.worker.book.position
        if posted != self._rang:
            self._rang = posted
            if self.tape.choose(2) == 0:
                self.worker.hear()

    def _maybe_lose_place(self) -> None:
        """The lock failed: another worker begins while this one still lives, or is
        asleep."""
        if self._zombie is not None:
            process, left = self._zombie
            if not self.scenario.pauses:
                self._zombie = process, max(0, left - 1)
        elif self._may_lose_place and self.tape.choose(2):
            self.world.zombies -= 1
            if self.scenario.pauses:
                self._asleep = self.worker
            else:
                self._zombie = self.worker, _AFTERLIFE
            later = self.worker.driver.epoch + 1
            self.worker = self._process(epoch=max(later, self.worker.next_epoch()))
            self.worker.driver.begin()

    @property
    def _may_lose_place(self) -> bool:
        free = self._asleep is None and self.world.zombies
        return bool(free and self.worker.driver.alive)

    def _maybe_wake(self) -> None:
        """A stopped process goes on at its last step, as if no time had passed."""
        if self._asleep is not None and self.tape.choose(2):
            self._zombie, self._asleep = (self._asleep, _AFTERLIFE), None
            self._zombie[0].driver.tick()

    def _grow_older(self, process: Process) -> None:
        if self._zombie is not None and self.scenario.pauses:
            zombie, left = self._zombie
            self._zombie = zombie, left - (process is zombie)
