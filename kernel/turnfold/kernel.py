"""The Kernel: what a gateway embeds. Async; `turnfold.blocking` is the same in a thread.

Making one does no I/O and touches nothing outside it. Two kernels in one process have
nothing in common but the rule that one store has one worker.
"""

import asyncio
import os
import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self, overload

from turnfold.arguments import a_name, a_text
from turnfold.attached import Attached
from turnfold.book import Book
from turnfold.clock import Clock
from turnfold.commands import Commands
from turnfold.decide import restoring
from turnfold.decide.accepting import Acceptance
from turnfold.decide.draft import Context, Desk, Draft, Fence
from turnfold.drivers import scheduler
from turnfold.drivers.driver import Driver, Probe
from turnfold.effects import Decision
from turnfold.errors import InvalidInputError, NotFoundError, NotOpenError
from turnfold.fold import State
from turnfold.handlers import Handler, Handlers
from turnfold.hooks import Hooks
from turnfold.inspect import Inspect
from turnfold.journal import Commit, Journal, created
from turnfold.leaving import close_channels
from turnfold.machines.entry import Entry
from turnfold.machines.turn import Turn
from turnfold.names import account_scope, time_id
from turnfold.ports.store import Store
from turnfold.settings import Settings
from turnfold.sources import Sources
from turnfold.stores import store_at
from turnfold.turns import AcceptedTurn
from turnfold.words import TurnOutcome, TurnPhase
from turnfold.worker import Worker


class Kernel(Commands):
    """`store`: an address or a Store. `work=False`: never the worker, only a client
    that accepts, enqueues, aborts and reads. Everything else has its default."""

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
        self._desks: dict[tuple[str, str], Attached] = {}
        self._views: dict[tuple[str, str], Desk] = {}
        self._handlers = Handlers(self)
        self._sources = Sources(self)
        self.hooks = Hooks()
        self._state = "not open"
        self._facts: tuple[object, ...] = ()
        self._known: Context | None = None
        self._store: Store | None = None
        self._driver: Driver | None = None
        self._worker: Worker | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._waiters: dict[str, list[asyncio.Future[State | None]]] = {}

    # --- what is attached ---

    def attach(self, name: str, channel: object, *, account: str = "default") -> None:
        """A channel under a name and one of its accounts. Raises ContractError if it
        is not a channel, InvalidInputError if the place is taken."""
        key = (a_name("name", name), a_name("account", account))
        if key in self._desks:
            raise InvalidInputError(field="name", problem=f"{key} is attached already")
        desk = Attached(name, account, channel)
        self._desks[key] = desk
        self._views[key] = Desk(prepares=desk.prepares)
        if self._driver is not None and self._driver.epoch:
            self._driver.start(
                scheduler.behind(account_scope(name, account), self._driver.book)
            )

    def source(
        self, name: str, stream: Callable[..., Any], *, account: str = "default"
    ) -> None:
        """Accept what a Source brings, in order, while this kernel is the worker; its
        cursor moves in the commit of what it has passed."""
        self._sources.add(a_name("name", name), a_name("account", account), stream)

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
        store.open()
        try:
            self._assemble(store)
        except BaseException:
            self._state = "not open"
            store.close()
            raise

    def _assemble(self, store: Store) -> None:
        book = Book(store)
        book.load()
        self._clock.at_least(book.last_at)
        journal = Journal(store, book, self._context)
        driver = Driver(
            journal,
            self._clock,
            self.settings,
            self._desks,
            self._handlers.run,
            self._saw,
            self._probe,
        )
        self._store, self._driver, self._state = store, driver, "open"
        if store.head.position == 0:
            journal.commit([partial(created, store_id=self._new_id())])
        self._worker = Worker(
            store,
            book,
            self._promote,
            self._depose,
            driver.refresh,
            driver.flusher.land,
        )
        self._worker.start(work=self._work)

    def _promote(self, fence: Fence) -> None:
        self._doubt_if_restored()
        self._open_driver().begin(fence.epoch)
        self._sources.start()

    def _doubt_if_restored(self) -> None:
        """Before anything is attempted. A crash in here repeats it: the mark stands
        until the commit does, and the commit is not made twice for one mark."""
        driver, worker = self._open_driver(), self._worker
        if worker is None:
            return
        mark = worker.upkeep.lost_history()
        if mark is not None:
            streams = driver.book.open_streams()
            decision = partial(restoring.restored, mark=mark, streams=streams)
            commit = driver.journal.commit([decision])
            commit.results[0].get()
            driver.moved(commit.moved, commit)
        worker.upkeep.trust()
        if mark is not None:
            worker.upkeep.mark()

    def _depose(self) -> None:
        self._open_driver().stand_down()
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
        if worker is not None:
            await worker.stop()
            worker.release()
        self._state = "closed"
        driver.flusher.close()
        await close_channels(self._desks.values())
        self.store.close()
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

    async def append(self, decision: Decision) -> Any:
        """Decide and commit; the answer is durable. A cancelled caller does not take
        its append back."""
        driver = self._driver
        if driver is None or self._state not in ("open", "draining"):
            raise NotOpenError(state=self._state)
        answer = await driver.submit(decision)
        if self._worker is not None:
            self._worker.ring()
        return answer

    def _erased(self) -> bool:
        self._open_driver().flusher.land()
        done = self.store.checkpoint()
        if not done and self._worker is not None:
            self._worker.upkeep.owe()
        return done

    # --- reading ---

    @property
    def store(self) -> Store:
        if self._store is None:
            raise NotOpenError(state=self._state)
        return self._store

    @property
    def working(self) -> bool:
        """True while this kernel is the worker of its store."""
        return self._worker is not None and self._worker.fence is not None

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

    def look(self, question: Callable[[Draft], Any]) -> Any:
        """Ask the folded state."""
        return self._open_driver().look(question)

    async def settled(
        self, stream: str, timeout_ms: int | None = None
    ) -> TurnOutcome | None:
        """Wait until a turn or an entry is closed; a turn's outcome. TimeoutError."""
        a_text("stream", stream)
        if timeout_ms is None:
            return await self._closed(stream)
        async with asyncio.timeout(timeout_ms / 1000):
            return await self._closed(stream)

    async def _closed(self, stream: str) -> TurnOutcome | None:
        state = self._open_driver().book.state(stream)
        if isinstance(state, Entry | Turn) and state.open:
            closed = asyncio.get_running_loop().create_future()
            self._waiters.setdefault(stream, []).append(closed)
            state = await closed
        if self._state not in ("open", "draining"):
            raise NotOpenError(state=self._state)
        if not isinstance(state, Entry | Turn):
            raise NotFoundError(what="turn or entry", id=stream)
        return state.outcome if isinstance(state, Turn) else None

    # --- inside ---

    def _open_driver(self) -> Driver:
        if self._driver is None or self._state == "closed":
            raise NotOpenError(state=self._state)
        return self._driver

    def _context(self) -> Context:
        """What decisions may know now; made anew when any of it has changed."""
        driver = self._open_driver()
        now = max(self._clock.now(), driver.book.last_at)
        fence = self._worker.fence if self._worker else None
        facts = (now, fence, self._handlers.present, driver.draining)
        if facts != self._facts or self._known is None:
            self._facts, self._known = facts, self._context_at(now, fence, driver)
        return self._known

    def _context_at(self, now: int, fence: Fence | None, driver: Driver) -> Context:
        return Context(
            now=now,
            settings=self.settings,
            fence=fence,
            desks=self._views,
            jitter=lambda: self._entropy.randint(0, 1000),
            salt=partial(os.urandom, 16),
            runs=self._handlers.present,
            resumes=self._handlers.resumes,
            draining=driver.draining,
        )

    def _accepted(self, done: Acceptance) -> AcceptedTurn:
        return AcceptedTurn(
            turn_id=done.turn_id, status=done.status, new=done.new, kernel=self
        )

    def _new_id(self) -> str:
        return time_id(self._clock.now(), os.urandom(10))

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

    def health(self) -> Mapping[str, Any]:
        """Facts for a health endpoint, from state and not from counters of events."""
        driver, worker = self._open_driver(), self._worker
        trouble = worker.upkeep.trouble if worker else None
        return {
            "state": self._state,
            "working": self.working,
            "fences_lost": worker.fences_lost if worker else 0,
            "upkeep": None if trouble is None else str(trouble),
            "open_entries": driver.book.open_count,
            "corrupt_streams": sorted(driver.book.corrupt),
            "hung_calls": len(driver.sender.hung),
            "troubles": driver.troubles,
            "flush": "thread" if driver.flusher.threaded else "loop",
            "disk_wait_ms": round(driver.flusher.wait_ms, 3),
            "position": driver.book.position,
        }


def _unwanted(turn: Turn) -> bool:
    """Nobody wants what the handler still does. A handler whose reply has just been
    delivered is not stopped: it may have work of its own left."""
    return turn.abort is not None or turn.phase is TurnPhase.ABORTED


def _tell(waiters: Iterable[asyncio.Future[State | None]], state: State | None) -> None:
    for waiter in waiters:
        if not waiter.done():  # else who waited was cancelled
            waiter.set_result(state)
