"""One process of a gateway at a store: its memory, its programs, its environment.

A worker has a fence and does everything; a client only accepts, enqueues and aborts.
Each step with more than one result asks `choose`, so the same process serves exhaustive
search, random search and a recorded life on a real disk.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cache, partial
from typing import Any

from attrs import evolve

from turnfold._decide import rules
from turnfold._decide.unit_of_work import Context, Fence, UnitOfWork
from turnfold._log.bodies import fetch_payload
from turnfold._log.ids import part_key, reply_entry
from turnfold._log.outbox_events import Attempted, Dispatched
from turnfold._runtime.channel import AttachedChannel
from turnfold._runtime.committer import Commit, Committer, created
from turnfold._runtime.open_streams import OpenStreams
from turnfold._runtime.programs import (
    Append,
    Asked,
    CallHandler,
    MakePlan,
    Post,
    Prepare,
    Prepared,
    Program,
    Reconcile,
    Send,
)
from turnfold._runtime.stored_bodies import read_body
from turnfold._state.entry import Entry
from turnfold._state.fold import STORE, StoreState
from turnfold._state.turn import Turn
from turnfold.clock import Clock
from turnfold.enums import DeliveryClass, FailureClass, Kind, PartAct, Phase
from turnfold.errors import FateUnknownError, NotOpenError, StoreError
from turnfold.messages import Route
from turnfold.ports.channel import (
    Absent,
    Accepted,
    Attempt,
    CannotTell,
    Capabilities,
    Found,
    Outcome,
    Part,
    Receipt,
    Rejected,
    Unknown,
)
from turnfold.ports.store import Command, Store, now
from turnfold_adapters.stores.memory import MemoryStore
from turnfold_model.crash import scripts
from turnfold_model.crash.driver import Act
from turnfold_model.crash.replays import ReplayedCommitter, Replays
from turnfold_model.crash.scenario import LATEST_MS, Assumption, Scenario
from turnfold_model.crash.scripts import CHANNEL
from turnfold_model.crash.traced import TracedDriver
from turnfold_model.crash.world import Request, World

Choose = Callable[[int], int]


class KilledError(BaseException):
    """A handler has killed its process; nothing may catch it."""


INBOX = "inbox"  # the program that takes commands of others up
_REFUSALS = {
    "refused": Rejected(failure=FailureClass.CANCELLED),
    "down": Rejected(failure=FailureClass.TRANSIENT),
    "limited": Rejected(failure=FailureClass.RATE_LIMITED, retry_after_ms=1_000),
    "offline": Rejected(failure=FailureClass.NOT_CONNECTED),
    "auth": Rejected(failure=FailureClass.AUTH),
    "barred": Rejected(failure=FailureClass.INVALID_PAYLOAD),
    "gone": Rejected(failure=FailureClass.TARGET_GONE),
}


class _Channel:
    """The platform for a kernel; it is never awaited here."""

    def __init__(self, capabilities: Capabilities) -> None:
        self.capabilities = capabilities

    async def send(self, part: Part, key: str, attempt: Attempt) -> Outcome:
        del part, key, attempt
        raise AssertionError

    async def edit(
        self, handle: Receipt, part: Part, key: str, attempt: Attempt
    ) -> Outcome:
        del handle, part, key, attempt
        raise AssertionError

    async def reconcile(self, part: Part, since_ms: int) -> Any:
        del part, since_ms
        raise AssertionError


@cache
def _desk(scenario: Scenario, *, weaker: bool) -> AttachedChannel:
    """One for all processes: it remembers nothing of them, and its checks take long."""
    claims = scenario.weaker_capabilities if weaker else scenario.capabilities
    return AttachedChannel(CHANNEL, "default", _Channel(claims), scenario.policy)


class Process:
    """`died` is called around each effect; raising, or copying the world, is a crash.
    `epoch`: 0 for a client, none for the next worker of the log. `replays`: of the life
    that it is part of."""

    def __init__(
        self,
        world: World,
        store: Store,
        choose: Choose,
        died: Callable[[], None] = lambda: None,
        epoch: int | None = None,
        replays: Replays | None = None,
    ) -> None:
        self.world, self.store, self.choose, self._died = world, store, choose, died
        self.scenario = world.scenario
        self.born = world.now
        self._quiet: dict[str, int] = {}
        scenario = world.scenario
        weaker = scenario.weaker is not None and world.crashes < scenario.crashes
        if weaker:
            world.platform.keyed = DeliveryClass.KEYED in (scenario.weaker or ())
        self._desk = _desk(scenario, weaker=weaker)
        prepares = scenario.prepares
        facts = self._desk.facts(scenario.age_ms)
        self._facts = evolve(facts, prepares=lambda _: prepares)
        self.book = OpenStreams()
        self.clock = Clock(
            lambda: world.now + world.skew,
            lambda: world.now,
            boot_id=lambda: "",
            synchronised=lambda: True,
        )
        self._fence: Fence | None = None
        if replays is not None and isinstance(store, MemoryStore):
            journal: Committer = ReplayedCommitter(
                store, self.book, self.context, replays
            )
        else:
            journal = Committer(store, self.book, self.context)
        self.driver = TracedDriver(journal, self, 0)
        now(journal.load())
        self.clock.begin(self.book.last_at)
        if self.book.position == 0 and epoch != 0:
            _create(journal)
        epoch = self.next_epoch() if epoch is None else epoch
        if epoch:
            self._fence = Fence(epoch=epoch, owner=f"w{epoch}")
        self.driver.epoch = epoch
        self._found = {c.id for c in self.waiting()} if epoch else set()

    def next_epoch(self) -> int:
        state = self.book.state(STORE)
        return state.epoch + 1 if isinstance(state, StoreState) else 1

    @property
    def called(self) -> bool:
        """Do commands of others wait, without a program that takes them up?"""
        heard = INBOX in self.driver.alive or self.driver.taking_over
        return self.readable and not heard and bool(self.waiting())

    @property
    def behind(self) -> bool:
        """A worker that has lost its place has written records that this one has not read."""
        return self.readable and bool(now(self.store.log(self.book.position, 1)))

    def hear(self) -> None:
        """Read the inbox, as after a ring or a poll."""
        self.driver.add(INBOX, scripts.take_inbox())
        alive = self.driver.alive  # the inbox goes first
        others = {key: live for key, live in alive.items() if key != INBOX}
        inbox = alive[INBOX]
        alive.clear()
        alive.update({INBOX: inbox, **others})

    @property
    def readable(self) -> bool:
        """Can the store be read? A store in doubt cannot, until a commit has opened it
        again."""
        try:
            self.waiting()
        except NotOpenError:
            return False
        return True

    def context(self) -> Context:
        return Context(
            now=max(self.now(), self.book.last_at),
            settings=self.scenario.settings,
            fence=self._fence,
            desks={(CHANNEL, "default"): self._facts} if self._fence else {},
            salt=self.salt,
            resumes=self.scenario.resumes,
            holds_back=self.driver.taking_over,
        )

    def salt(self) -> bytes:
        """One salt for all bodies, so that equal histories have equal logs."""
        return bytes(16)

    def add(self, name: str, effect: Append | Post, *, ack: bool) -> None:
        """A command of the embedder, repeated until the store has it."""
        self.driver.add(name, self._command(name, effect, ack=ack))

    def _command(self, name: str, effect: Append | Post, *, ack: bool) -> Program:
        yield from scripts.until_stored(effect)
        if ack:
            yield Act(partial(self.acknowledge, name))  # type: ignore[misc]  # ours alone

    def acknowledge(self, name: str) -> None:
        self.world.acked |= {name}

    def moment(self) -> Hashable:
        """Two equal moments in equal worlds have the same future."""
        quiet = frozenset(self._quiet.items())
        return self.driver.moment(), self.born, quiet, frozenset(self._found)

    # --- Surroundings ---

    def waiting(self) -> Sequence[Command]:
        return now(self.store.inbox())

    def now(self) -> int:
        return self.clock.now()

    def stop(self, when: str, effect: object) -> None:
        del when, effect  # this process dies anywhere
        self._died()

    def saw(self, commit: Commit) -> None:
        """An attempt that is durable now was decided with the inbox read: up to the
        take-over, and up to this moment if a part in doubt is sent again by a grant."""
        if not self.readable:
            return
        tried = [e for e in _tried(commit) if e.fence == self.driver.epoch]
        waiting = self.waiting()
        self._found.intersection_update(c.id for c in waiting)
        if self._found and tried:
            self._wrong("an attempt, though what waited at the take-over is not read")
        receipts = {c.stream for c in waiting if c.kind == "receipt"}
        for entry in tried:
            if entry.granted and entry.stream in receipts:
                self._wrong(f"INV-4 {entry.stream} again, though its receipt waited")

    def plan(self, effect: MakePlan) -> Any:
        entry = self.entry(effect.entry)
        read = partial(read_body, self.store)
        payloads = [now(fetch_payload(read, entry.stream, ref)) for ref in entry.body]
        route = Route(channel=entry.channel, conversation=entry.conversation)
        return self._desk.plan(payloads, route, entry.kind, entry.stream)

    def prepare(self, effect: Prepare) -> Any:
        del effect
        self.world.now += self.scenario.prepare_ms
        if self.world.faults and self.choose(2):
            self.world.faults -= 1
            return Rejected(failure=FailureClass.CANCELLED)
        return Prepared("upload")

    def send(self, effect: Send) -> None:
        attempt = effect.attempt
        entry = self.entry(attempt.entry)
        if self.scenario.prepares and attempt.prepared != "upload":
            self._wrong(f"{entry.stream} was sent without what prepare() gave")
        announced = entry.phase is Phase.DISPATCHED and entry.attempt == attempt.number
        if not announced and not self.scenario.zombies:
            self._wrong(f"INV-3 {entry.stream} was sent, and no attempt was announced")
        key = entry.parts[attempt.part].key if entry.planned else _live_key(entry)
        handle = "".join(entry.handle) if entry.act is PartAct.EDIT else ""
        request = Request(
            key, entry.stream, attempt.part, entry.lane, entry.act, handle
        )
        if self.scenario.drops(Assumption.PROMPT) and self.choose(2):
            self.world.now += self.scenario.window_ms  # stopped just before the wire
        self.world.flying[self._flight(effect)] = request

    def _wrong(self, what: str) -> None:
        self.world.wrongs |= {what}

    def _flight(self, effect: Send) -> str:
        return f"{effect.attempt.entry}#{self.driver.epoch}"

    def answer(self, effect: Send) -> Outcome:
        """Choose the outcome of a request; the first choice is a success."""
        world = self.world
        request = world.flying.pop(self._flight(effect))
        entry = effect.attempt.entry
        self._quiet[entry] = world.now
        fates = ("well", *self.scenario.fates)
        fate = fates[self.choose(len(fates))] if world.faults else "well"
        world.faults -= fate != "well"
        if fate == "well":
            number, again = world.platform.accept(request, world.now)
            return Accepted(receipt=Receipt(ids=(number,)), deduplicated=again)
        if fate in _REFUSALS:
            return _REFUSALS[fate]
        world.meet(fate, request)
        if fate == "hung" and not self.scenario.drops(Assumption.HUNG):
            self._quiet[entry] = world.now + LATEST_MS  # it is alive until then
        return Unknown(cause="timeout")

    def reconcile(self, effect: Reconcile) -> Asked | None:
        entry = self.entry(effect.entry)
        if not rules.look_up_is_current(entry, effect.part, effect.attempt):
            return None
        quiet = self._quiet.get(entry.stream, self.born)
        unsettled = max(0, quiet + entry.current.settle_ms - self.world.now)
        if "blurred" in self.scenario.fates and self.world.faults and self.choose(2):
            self.world.faults -= 1
            return Asked(CannotTell(), unsettled)
        found = self.world.platform.find(entry.current.key)
        if found is None:
            return Asked(Absent(), unsettled)
        return Asked(Found(receipt=Receipt(ids=(found,))), unsettled)

    def handler(self, effect: CallHandler) -> Program:
        """As in production, a turn that cannot be read just now is a run that raised."""
        try:
            return self._run(effect)
        except (StoreError, NotOpenError) as exc:
            return scripts.unread(exc)

    def _run(self, effect: CallHandler) -> Program:
        turn: Turn = self.look(lambda draft: draft.turn(effect.turn))
        final = reply_entry(turn.stream, Kind.FINAL, effect.run, "")
        entry = self.look(lambda draft: draft.find_entry(final))
        owned = entry is not None and (entry.planned or not entry.live)
        if owned and not self.scenario.zombies:
            self._wrong(f"INV-9 the answer of {turn.stream} was computed again")
        return scripts.handler(
            self.scenario, self._desk, turn, effect, self._poison(turn)
        )

    def _poison(self, turn: Turn) -> Program | None:
        """What the handler of the first message does before it replies."""
        if not self.scenario.poison or self.world.cured or turn.message_id != "0":
            return None
        return self.kill(turn)

    def kill(self, turn: Turn) -> Program:
        if turn.alone >= self.scenario.deaths:
            self._wrong(
                f"INV-14 {turn.stream} took {turn.alone} processes down and runs"
            )
        yield Act(_killed)  # type: ignore[misc]  # ours alone

    def entry(self, stream: str) -> Entry:
        entry: Entry = self.look(lambda draft: draft.entry(stream))
        return entry

    def look(self, question: Callable[[UnitOfWork], Any]) -> Any:
        return self.driver.look(question)


def _killed() -> None:
    raise KilledError


def _live_key(entry: Entry) -> str:
    offers = Capabilities()
    return part_key(entry.stream, 0, offers.key_alphabet, offers.key_length)


def _tried(commit: Commit) -> Iterator[Entry]:
    """The entries that a commit attempts or dispatches, as they are now."""
    for stream, event in commit.emitted:
        entry = commit.moved.get(stream)
        if isinstance(event, Attempted | Dispatched) and isinstance(entry, Entry):
            yield entry


def _create(journal: Committer) -> None:
    """A new store's first event; a disk that fails is tried again, as an operator
    would start the process again."""
    while True:
        try:
            commit = now(journal.commit([partial(created, store_id="s")]))
            commit.results[0].get()
        except (StoreError, FateUnknownError):
            continue
        return
