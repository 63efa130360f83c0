"""The Kernel: what a gateway embeds. Async; `turnfold.api.blocking` is the same in a thread.

Making one does no I/O and touches nothing outside it. Two kernels in one process have
nothing in common but the rule that one store has one worker.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar, overload

from attrs import asdict

from turnfold._decide import operator
from turnfold._decide.turns import Acceptance
from turnfold._decide.unit_of_work import (
    ChannelFacts,
    Context,
    Fence,
    UnitOfWork,
)
from turnfold._log.ids import (
    ENTRY,
    TURN,
    account_scope,
    time_id,
)
from turnfold._runtime import scheduler
from turnfold._runtime.calls import Calls
from turnfold._runtime.channel import AttachedChannel, close_channels
from turnfold._runtime.committer import Commit, Committer
from turnfold._runtime.driver import Driver, Probe
from turnfold._runtime.open_streams import OpenStreams
from turnfold._runtime.programs import Decision
from turnfold._runtime.worker import Upkeep, Worker
from turnfold._state.entry import Entry
from turnfold._state.fold import STORE, State, StoreState
from turnfold._state.turn import Turn
from turnfold.api.callbacks import Handler, Handlers, Hooks, Sources
from turnfold.api.client import Alone, Mailbox
from turnfold.api.commands import Commands
from turnfold.api.handle import AcceptedTurn
from turnfold.clock import Clock
from turnfold.enums import TurnOutcome, TurnPhase
from turnfold.errors import (
    InvalidInputError,
    NotFoundError,
    NotOpenError,
    OwnedError,
)
from turnfold.inspect import Inspect
from turnfold.messages import check_id, check_text
from turnfold.ports.store import Found, Owner, Store, Summary, Wanted, store_at
from turnfold.settings import Settings

_LOG = logging.getLogger("turnfold")
_CLIENT_POLL_S = 0.05  # a process that does not own the store hears of no commit
T = TypeVar("T")


class Kernel(Commands):
    """`store`: an address or a Store. `work=False`: never the worker, only a client
    that accepts, enqueues, aborts and reads. `entropy`: ids, salts and jitter, which a
    test may want to repeat. Everything else has its default."""

    def __init__(
        self,
        store: str | Path | Store,
        *,
        settings: Settings | None = None,
        work: bool = True,
        clock: Clock | None = None,
        probe: Probe | None = None,
        entropy: random.Random | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self._address = store
        self._work = work
        self._clock = clock or Clock()
        self._probe = probe
        self._entropy = entropy or random.SystemRandom()
        self._desks: dict[tuple[str, str], AttachedChannel] = {}
        self._views: dict[tuple[str, str], ChannelFacts] = {}
        self._calls = Calls()  # of handlers, hooks and sources; the sender has its own
        self._handlers = Handlers(self, self._calls)
        self._sources = Sources(self, self._calls)
        self.hooks = Hooks(self._calls, self.settings.hook_deadline_ms)
        self._state = "not open"
        self._facts: tuple[object, ...] = ()
        self._known: Context | None = None
        self._store: Store | None = None
        self._driver: Driver | None = None
        self._worker: Worker | None = None
        self._post: Mailbox | None = None
        self._alone: Alone | None = None
        self._fence: Fence | None = None
        self._owns = False  # the store is ours, and what was open is taken up
        self._leaving: asyncio.Task[None] | None = None
        self._waiters: dict[str, list[asyncio.Future[State | None]]] = {}

    # --- what is attached ---

    def attach(self, name: str, channel: object, *, account: str = "default") -> None:
        """A channel under a name and one of its accounts. Raises ContractError if it
        is not a channel, InvalidInputError if the place is taken."""
        key = (check_id("name", name), check_id("account", account))
        if key in self._desks:
            raise InvalidInputError(field="name", problem=f"{key} is attached already")
        desk = AttachedChannel(name, account, channel)
        self._desks[key] = desk
        self._views[key] = ChannelFacts(prepares=desk.prepares)
        if self._driver is not None and self._driver.works:
            self._driver.start(
                scheduler.behind(account_scope(name, account), self._driver.book)
            )

    def source(
        self, name: str, stream: Callable[..., Any], *, account: str = "default"
    ) -> None:
        """Accept what a Source brings, in order, while this kernel is the worker; its
        cursor moves in the commit of what it has passed."""
        self._sources.add(check_id("name", name), check_id("account", account), stream)

    @overload
    def on_turn(self, handler: Handler, /) -> Handler: ...

    @overload
    def on_turn(
        self, handler: None = None, /, *, resume: bool = False
    ) -> Callable[[Handler], Handler]: ...

    def on_turn(
        self, handler: Handler | None = None, /, *, resume: bool = False
    ) -> Handler | Callable[[Handler], Handler]:
        """Register the handler. `resume`: it takes up what an earlier run began, so
        it may run again even if somebody has seen a part of the answer."""
        if handler is not None:
            return self._handlers.register(handler, resume=resume)
        return lambda later: self._handlers.register(later, resume=resume)

    # --- open and close ---

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Open the store, take up what is open, and begin to work or stand by.
        Channels and handlers run in the context (`contextvars`) of this call."""
        if self._state == "open":
            return
        address = self._address
        store = store_at(address) if isinstance(address, str | Path) else address
        await store.open()
        try:
            await self._assemble(store)
        except BaseException:
            self._state = "not open"
            await store.close()
            raise

    async def _assemble(self, store: Store) -> None:
        journal = Committer(store, OpenStreams(), self._context)
        driver = Driver(
            journal,
            self._clock,
            self.settings,
            self._desks,
            self._handlers.run,
            self._saw,
            self._probe,
        )
        upkeep = Upkeep(store.maintenance, store.address, lambda: journal.store_id)
        self._worker = worker = Worker(
            store,
            upkeep,
            self._promote,
            self._depose,
            driver.intake.read,
            self._replaced,
            lambda: driver.book.position,
        )
        self._store, self._driver, self._state = store, driver, "open"
        self._alone = Alone(
            store, worker.ownership, upkeep, self._clock, self._context, self._new_id
        )
        self._post = Mailbox(store, worker.ring, self._apply_alone)
        if self._work:
            await worker.start()

    async def _promote(self, owner: Owner) -> None:
        """The store is ours: read it, doubt it if it is an older copy, log what waits
        in its inbox, then work."""
        driver = self._open_driver()
        await driver.journal.begin(self._new_id)
        self._clock.at_least(driver.book.last_at)
        self._fence = Fence(epoch=self._epoch() + 1, owner=owner.id)
        await self._doubt_if_restored()
        driver.flusher.start()
        await driver.begin(self._fence.epoch)
        self._owns = True
        self._sources.start()

    def _epoch(self) -> int:
        state = self._open_driver().book.state(STORE)
        return state.epoch if isinstance(state, StoreState) else 0

    def _replaced(self) -> str | None:
        """Why this kernel cannot be the owner any more, if another one has written."""
        replaced = self._open_driver().journal.replaced
        return None if replaced is None else str(replaced)

    async def _doubt_if_restored(self) -> None:
        """Before anything is attempted. A crash in here repeats it: the watermark
        stands until the commit does, and one watermark makes one commit."""
        driver, worker = self._open_driver(), self._worker
        if worker is None:
            return
        mark = await worker.upkeep.lost_history(driver.journal.store_id)
        if mark is not None:
            streams = driver.book.open_streams()
            decision = partial(operator.restored, mark=mark, streams=streams)
            commit = await driver.journal.commit([decision])
            commit.results[0].get()
            driver.moved(commit)
        worker.upkeep.trust()
        if mark is not None:
            await worker.upkeep.note_watermark()

    async def _apply_alone(self) -> None:
        if self._alone is not None and not self._owns:
            await self._alone.apply()

    def _depose(self) -> None:
        self._owns = False
        self._open_driver().stand_down()
        self._wake_all()  # they go on waiting as those of a client do
        self._leaving = asyncio.create_task(self._sources.stop())

    async def close(self) -> None:
        """Drain, then let go of the store. What was promised is durable already."""
        if self._state != "open":
            return
        driver, worker = self._open_driver(), self._worker
        self._state = "draining"
        await self._sources.stop()
        if self._leaving is not None:
            await self._leaving
        await driver.drain(self.settings.drain_ms)
        await self.hooks.end(self.settings.drain_ms / 1000)
        if self._alone is not None:
            await self._alone.end()
        if worker is not None:
            await worker.stop()
        await driver.flusher.close()
        if worker is not None:
            await worker.release()
        self._owns = False
        self._state = "closed"
        await close_channels(self._calls, self._desks.values())
        await self.store.close()
        self._wake_all()

    async def drain(self, timeout_ms: int | None = None) -> None:
        """Send nothing new; wait for what is on the wire. Accepting goes on."""
        wait = self.settings.drain_ms if timeout_ms is None else timeout_ms
        await self._open_driver().drain(wait)

    async def run(self) -> None:
        """Open, work until SIGINT or SIGTERM, drain, close."""
        import signal  # noqa: PLC0415  only who calls run() leaves signals to us

        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        try:
            async with self:
                await stop.wait()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    # --- commands: the rest is in commands.py ---

    def append(
        self, decision: Decision, wanted: Wanted | None = None
    ) -> asyncio.Future[Any]:
        """Decide and commit; the answer is durable. A cancelled caller does not take
        its append back. Raises OwnedError if the store is not ours."""
        driver = self._driver
        if driver is None or self._state not in ("open", "draining"):
            raise NotOpenError(state=self._state)
        self._check_owned()
        return driver.submit(decision, wanted)

    def _check_owned(self) -> None:
        if not self._owns:
            raise OwnedError(path=self.store.address, owner="another process")

    @property
    def _mailbox(self) -> Mailbox:
        if self._post is None or self._state not in ("open", "draining"):
            raise NotOpenError(state=self._state)
        return self._post

    async def _erased(self) -> bool:
        if not self._owns or self._worker is None:
            return False
        return await self._worker.upkeep.erase()

    # --- reading ---

    @property
    def store(self) -> Store:
        if self._store is None:
            raise NotOpenError(state=self._state)
        return self._store

    @property
    def working(self) -> bool:
        """True while this kernel is the worker of its store."""
        return self._owns

    @property
    def inspect(self) -> Inspect:
        """Typed queries: what happened to a message, and what happens next."""
        return Inspect(
            self.store,
            now=self._clock.now,
            settings=self.settings,
            desks=self._views,
            alive=lambda: True if self.working else None,
        )

    async def look(self, question: Callable[[UnitOfWork], T]) -> T:
        """Ask folded state. Raises OwnedError if the store is not ours."""
        self._check_owned()
        answer: T = await self._open_driver().look(question)
        return answer

    async def settled(
        self, stream: str, timeout_ms: int | None = None
    ) -> TurnOutcome | None:
        """Wait until a turn or an entry is closed; a turn's outcome. TimeoutError."""
        check_text("stream", stream)
        if timeout_ms is None:
            return await self._closed(stream, None)
        return await self.closed(stream, None, timeout_ms)

    async def closed(
        self, stream: str, key: str | None, timeout_ms: int | None
    ) -> TurnOutcome | None:
        """As `settled`. `key`: the dedupe key of a message that was posted to the
        inbox as `stream`; the owner may have known it as another turn."""
        if timeout_ms is None:
            return await self._closed(stream, key)
        async with asyncio.timeout(timeout_ms / 1000):
            return await self._closed(stream, key)

    async def _closed(self, stream: str, key: str | None) -> TurnOutcome | None:
        if not stream.startswith((ENTRY, TURN)):
            raise NotFoundError(what="turn or entry", id=stream)
        while self._state in ("open", "draining"):
            if self._owns:
                try:
                    state = await self._awaited(stream)
                except (NotFoundError, OwnedError):
                    pass  # it may lie in the inbox
                else:
                    if isinstance(state, Entry | Turn):
                        return state.outcome if isinstance(state, Turn) else None
                    continue
            row = await self._seen_closed(stream, key)
            if row is not None:
                return _outcome_in(row)
        raise NotOpenError(state=self._state)

    async def _awaited(self, stream: str) -> State | None:
        """The state of a stream once it is closed; None if the waiting was cut short.
        The waiter is there before the question, so no end can pass between them."""
        closed: asyncio.Future[State | None]
        closed = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(stream, [])
        waiters.append(closed)
        try:
            state = await self._open_driver().state(stream)
            if not isinstance(state, Entry | Turn):
                raise NotFoundError(what="turn or entry", id=stream)
            return await closed if state.open else state
        finally:
            _drop(waiters, closed)

    async def _seen_closed(self, stream: str, key: str | None) -> Summary | None:
        """For a stream that memory does not have, because another process owns the
        store or because the command that makes it lies in the inbox: its row when it is
        closed, or None after a short wait. Raises NotFoundError."""
        found = await self._look_from_outside(stream)
        row = found.summaries[stream]
        if row is None and stream not in found.waiting:
            # It left the inbox between two reads, or as a message that was known.
            row = await self._logged(stream, key)
        if row is not None and not row.open:
            return row
        await asyncio.sleep(_CLIENT_POLL_S)
        return None

    async def _look_from_outside(self, stream: str) -> Found:
        names = frozenset((stream,))
        return await self.store.fetch(Wanted(summaries=names, answers=names))

    async def _logged(self, stream: str, key: str | None) -> Summary | None:
        if key is not None:
            found = await self.store.fetch(Wanted(keys=frozenset((key,))))
            stream = found.keys[key] or stream
        row = (await self._look_from_outside(stream)).summaries[stream]
        if row is None:
            raise NotFoundError(what="turn or entry", id=stream)
        return row

    # --- inside ---

    def _open_driver(self) -> Driver:
        if self._driver is None or self._state == "closed":
            raise NotOpenError(state=self._state)
        return self._driver

    def _context(self) -> Context:
        """What decisions may know now; made anew when any of it has changed."""
        driver = self._open_driver()
        now = max(self._clock.now(), driver.book.last_at)
        fence = self._fence
        holds_back = driver.draining or driver.taking_over
        facts = (now, fence, self._handlers.present, holds_back)
        if facts != self._facts or self._known is None:
            self._facts, self._known = facts, self._context_at(now, fence, driver)
        return self._known

    def _context_at(self, now: int, fence: Fence | None, driver: Driver) -> Context:
        return Context(
            now=now,
            wall=self._clock.wall_now(),
            settings=self.settings,
            fence=fence,
            desks=self._views,
            jitter=lambda: self._entropy.randint(0, 1000),
            salt=partial(self._entropy.randbytes, 16),
            runs=self._handlers.present,
            resumes=self._handlers.resumes,
            holds_back=driver.draining or driver.taking_over,
            flow=driver.flow,
        )

    def _accepted(self, done: Acceptance, key: str | None = None) -> AcceptedTurn:
        return AcceptedTurn(
            turn_id=done.turn_id,
            status=done.status,
            new=done.new,
            kernel=self,
            key=key,
        )

    def _new_id(self) -> str:
        return time_id(self._clock.now(), self._entropy.randbytes(16))

    def _saw(self, commit: Commit) -> None:
        """After every commit, ours or another process's."""
        waiters = self._waiters
        for stream, state in commit.moved.items():
            if isinstance(state, Turn) and _unwanted(state):
                self._handlers.stop(stream)
            if stream in waiters and isinstance(state, Entry | Turn) and not state.open:
                _tell(waiters.pop(stream), state)
        self.hooks.tell(commit)

    def _wake_all(self) -> None:
        for waiters in self._waiters.values():
            _tell(waiters, None)
        self._waiters.clear()

    def _foreign_bugs(self) -> Mapping[str, int]:
        """Errors of foreign code since the kernel was made, by whose they were."""
        channels = {f"{n}/{a}": desk.bugs for (n, a), desk in self._desks.items()}
        return {
            "handler": self._handlers.bugs,
            "hooks": self.hooks.bugs,
            **{name: bugs for name, bugs in channels.items() if bugs},
        }

    def health(self) -> Mapping[str, Any]:
        """Facts for a health endpoint, from state and not from counters of events."""
        driver, worker, store = self._open_driver(), self._worker, self.store
        trouble = worker.upkeep.trouble if worker else None
        runs = self._handlers.ages_ms()
        return {
            "state": self._state,
            "working": self.working,
            "taking_over_ms": driver.taking_over_ms,
            "fences_lost": worker.fences_lost if worker else 0,
            "upkeep": None if trouble is None else str(trouble),
            "open_entries": driver.book.open_count,
            "corrupt_streams": sorted(driver.book.corrupt),
            "hung_calls": len(driver.sender.hung),
            "troubles": driver.troubles,
            "runs": len(runs),
            "oldest_run_ms": max(runs.values(), default=None),
            "hung_runs": self._handlers.hung,
            "foreign_bugs": self._foreign_bugs(),
            "sources": {n: asdict(f) for n, f in self._sources.facts().items()},
            "gates": self._gates(driver),
            "inbox_refused": sorted(driver.intake.unfit),
            "position": driver.book.position,
            **store.facts(),
        }

    def _gates(self, driver: Driver) -> list[dict[str, Any]]:
        """What is held back, why, until when (log ms; None: until somebody opens it),
        and how many lanes wait for their turn behind it."""
        waiting = driver.flow.waiting()
        return [
            {
                "gate": gate.stream,
                "reason": gate.reason,
                "until": gate.until,
                "waiting": waiting.get(gate.stream, 0),
            }
            for gate in driver.book.closed_gates()
            if gate.holds(self._clock.now()) or gate.stream in waiting
        ]


def _unwanted(turn: Turn) -> bool:
    """Nobody wants what the handler still does. A handler whose reply has just been
    delivered is not stopped: it may have work of its own left."""
    return turn.abort is not None or turn.phase is TurnPhase.ABORTED


def _outcome_in(row: Summary) -> TurnOutcome | None:
    """The outcome of a closed turn, as its summary says it."""
    if not row.stream.startswith(TURN) or row.reason is None:
        return None
    return TurnOutcome(row.reason)


def _drop(
    waiters: list[asyncio.Future[State | None]], waiter: asyncio.Future[State | None]
) -> None:
    if waiter in waiters:
        waiters.remove(waiter)


def _tell(waiters: Iterable[asyncio.Future[State | None]], state: State | None) -> None:
    for waiter in waiters:
        if not waiter.done():  # else who waited was cancelled
            waiter.set_result(state)
