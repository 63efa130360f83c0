"""One life of a gateway process in a world, from its boot to its crash or its rest."""

from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import define, field

from turnfold.attached import Attached
from turnfold.book import Book
from turnfold.decide import accepting, running
from turnfold.decide.aborting import abort_turn
from turnfold.decide.draft import Context, Desk, Draft, Fence
from turnfold.decide.queueing import Intent
from turnfold.drivers.crash import Act, CrashDriver
from turnfold.effects import (
    Append,
    Asked,
    CallHandler,
    MakePlan,
    Prepare,
    Prepared,
    Program,
    Reconcile,
    RunEnd,
    Send,
)
from turnfold.fold import STORE
from turnfold.journal import Journal, created
from turnfold.machines.entry import Entry
from turnfold.machines.ledger import StoreState
from turnfold.names import TURN, reply_entry
from turnfold.packing import pack, unpack
from turnfold.payloads import File, Inbound, Payload, Route, Text
from turnfold.ports.channel import (
    Absent,
    Accepted,
    Attempt,
    Found,
    Outcome,
    Part,
    Receipt,
    Rejected,
    Unknown,
)
from turnfold.words import AbortReason, FailureClass, Kind
from turnfold_adapters.stores.memory import MemoryStore
from turnfold_model.crash.world import Request, World

CHANNEL = "model"
_STEPS = 3_000  # far more than any life needs


class StuckError(Exception):
    """A life that neither rests nor ends."""


class _Channel:
    """What a kernel is told about the platform; it is never awaited here."""

    def __init__(self, world: World) -> None:
        self.capabilities = world.scenario.capabilities

    async def send(self, part: Part, key: str, attempt: Attempt) -> Outcome:
        raise AssertionError

    async def reconcile(self, part: Part, since_ms: int) -> Any:
        raise AssertionError


@define
class Tape:
    """The choices of one execution: a prefix that is given, then always the first."""

    given: tuple[int, ...] = ()
    arities: list[int] = field(factory=list)

    def choose(self, options: int) -> int:
        index = len(self.arities)
        self.arities.append(options)
        return self.given[index] if index < len(self.given) else 0

    def siblings(self) -> list[tuple[int, ...]]:
        """The executions that differ first behind the given prefix."""
        taken = [*self.given, *[0] * (len(self.arities) - len(self.given))]
        return [
            (*taken[:index], other)
            for index in range(len(self.given), len(self.arities))
            for other in range(1, self.arities[index])
        ]


class Life:
    """`crash` is called with the world wherever the process may die."""

    def __init__(
        self, world: World, tape: Tape, crash: Callable[[World], None]
    ) -> None:
        self.world, self.tape, self._crash = world, tape, crash
        self.scenario = world.scenario
        self.store = MemoryStore(world.disk)
        self.store.open()
        self._owner = self.store.ownership().take()
        self._born = world.now
        self._quiet: dict[str, int] = {}
        self._fates: dict[str, str] = {}
        channel = Attached(CHANNEL, "default", _Channel(world))
        self._desk = channel
        prepares = world.scenario.prepares
        self._desks = {(CHANNEL, "default"): Desk(prepares=lambda _: prepares)}
        self.book = Book(self.store)
        self.book.load()
        self._fence: Fence | None = None
        journal = Journal(self.store, self.book, self._context)
        if self.store.head.position == 0:
            journal.commit([partial(created, store_id="s")])
        state = self.book.state(STORE)
        epoch = state.epoch + 1 if isinstance(state, StoreState) else 1
        owner = self._owner.id if self._owner else ""
        self._fence = Fence(epoch=epoch, owner=owner)
        self.driver = CrashDriver(journal, self, epoch)

    def _context(self) -> Context:
        return Context(
            now=max(self.world.now, self.book.last_at),
            settings=self.scenario.settings,
            fence=self._fence,
            desks=self._desks,
            jitter=lambda: 0,
            salt=self._salt,
            resumes=self.scenario.resumes,
        )

    def _salt(self) -> bytes:
        return bytes(16)

    # --- the process ---

    def run(self) -> None:
        """Live until nothing is left to do. Raises StuckError."""
        self.driver.begin()
        for number in range(self.scenario.messages):
            if f"in{number}" not in self.world.acked:
                self.driver.add(f"in{number}", self._inbound(number))
        for _ in range(_STEPS):
            if not self._step():
                self.store.close()
                return
        raise StuckError(self.scenario.name)

    def _step(self) -> bool:
        self._maybe_abort()
        ready = self.driver.ready()
        if not ready:
            return self._pass_time()
        index = self.tape.choose(len(ready)) if self.scenario.interleave else 0
        live = ready[index]
        self.driver.step(live)
        if live.key in self.driver.alive:  # the others come first next time
            self.driver.alive[live.key] = self.driver.alive.pop(live.key)
        return True

    def _pass_time(self) -> bool:
        due = self.driver.next_time()
        if due is None or due - self.world.now > 3_600_000:
            return False  # at rest: what waits an hour or more is parked
        self.world.now = max(due, self.world.now + 1)
        self.world.platform.land(self.world.now)
        self.driver.tick()
        return True

    def _maybe_abort(self) -> None:
        world = self.world
        if not self.scenario.abort or world.aborted or not self.book.turn_lanes():
            return
        if self.tape.choose(2):
            world.aborted = True
            self.driver.add("abort", self._abort())

    def _abort(self) -> Program:
        key = f"in:{_message(0).dedupe_key}"
        stream = self.book.lookup(key)
        if stream is not None:
            yield Append(partial(abort_turn, stream=stream, reason=AbortReason.USER))

    def _inbound(self, number: int) -> Program:
        """A message that the platform repeats until it is acknowledged."""
        self.world.ids += 1
        turn = f"{TURN}{self.world.ids:06}"
        message = _message(number % self.scenario.lanes, number)
        yield Append(partial(accepting.accept, turn=turn, inbound=message))
        yield Act(partial(self._ack, f"in{number}"))  # type: ignore[misc]  # ours alone

    def _ack(self, name: str) -> None:
        self.world.acked |= {name}

    # --- Surroundings ---

    def now(self) -> int:
        return self.world.now

    def stop(self, when: str, effect: object) -> None:
        if self.world.crashes:
            self._crash(self.world)

    def plan(self, effect: MakePlan) -> Any:
        entry = self._entry(effect.entry)
        payloads = [unpack(self.store.body(d), self.store.body) for d in entry.body]
        route = Route(channel=entry.channel, conversation=entry.conversation)
        return self._desk.plan(payloads, route, entry.kind, entry.stream)

    def prepare(self, effect: Prepare) -> Any:
        if self.world.faults and self.tape.choose(2):
            self.world.faults -= 1
            return Rejected(failure=FailureClass.TRANSIENT)
        return Prepared("upload")

    def send(self, effect: Send) -> None:
        entry = self._entry(effect.leg.entry)
        request = Request(
            entry.current.key, entry.stream, effect.leg.part, entry.lane
        )
        self.world.flying[entry.stream] = request

    def answer(self, effect: Send) -> Outcome:
        """The request has met its fate; the first one is that all goes well."""
        world, stream = self.world, effect.leg.entry
        request = world.flying.pop(stream)
        self._quiet[stream] = world.now
        fates = ("well", "landed", "lost", "late", "refused", "limited")
        fate = fates[self.tape.choose(len(fates))] if world.faults else "well"
        world.faults -= fate != "well"
        if fate == "well":
            number, again = world.platform.accept(request)
            return Accepted(receipt=Receipt(ids=(number,)), deduplicated=again)
        if fate == "refused":
            return Rejected(failure=FailureClass.TRANSIENT)
        if fate == "limited":
            return Rejected(failure=FailureClass.RATE_LIMITED, retry_after_ms=1_000)
        world.meet(fate, request)
        return Unknown(cause="timeout")

    def reconcile(self, effect: Reconcile) -> Asked:
        entry = self._entry(effect.leg.entry)
        quiet = self._quiet.get(entry.stream, self._born)
        unsettled = max(0, quiet + entry.current.settle_ms - self.world.now)
        found = self.world.platform.find(entry.current.key)
        if found is None:
            return Asked(Absent(), unsettled)
        return Asked(Found(receipt=Receipt(ids=(found,))), unsettled)

    def handler(self, effect: CallHandler) -> Program:
        turn = self._look(lambda draft: draft.turn(effect.turn))
        route = Route(channel=CHANNEL, conversation=turn.conversation)
        for number in range(self.scenario.blocks):
            block = self._intent(turn.stream, effect.run, route, Kind.BLOCK, number)
            yield Append(partial(running.say, stream=effect.turn, run=effect.run, intent=block))
        final = self._intent(turn.stream, effect.run, route, Kind.FINAL)
        yield Append(partial(running.reply, stream=effect.turn, run=effect.run, intent=final))
        return RunEnd("returned")

    def _intent(
        self, turn: str, run: int, route: Route, kind: Kind, number: int = 0
    ) -> Intent:
        name = reply_entry(turn, kind, run, str(number))
        payloads: list[Payload] = [
            File(data=b"x", name="f") if index % 3 == 2 else Text(f"part {index}")
            for index in range(self.scenario.parts if kind is Kind.FINAL else 1)
        ]
        return Intent(
            entry=name,
            route=route,
            kind=kind,
            packed=tuple(pack(p) for p in payloads),
            plan=self._desk.plan(payloads, route, kind, name),
            turn=turn,
            run=run,
            key=str(number),
        )

    def _entry(self, stream: str) -> Entry:
        entry: Entry = self._look(lambda draft: draft.entry(stream))
        return entry

    def _look(self, question: Callable[[Draft], Any]) -> Any:
        return question(Draft(self.book, self._context()))


def _message(lane: int, number: int = 0) -> Inbound:
    return Inbound(CHANNEL, conversation=f"c{lane}", message_id=str(number))

