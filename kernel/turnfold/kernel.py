"""The Kernel: what a gateway embeds. Async; `turnfold.blocking` is the same in a thread.

Making one does no I/O and touches nothing outside it. Two kernels in one process have
nothing in common but the rule that one store has one worker.
"""

import asyncio
import os
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, overload

from turnfold.attached import Attached
from turnfold.book import Book
from turnfold.clock import Clock
from turnfold.decide import aborting, accepting, enqueuing, gating, operating
from turnfold.decide.aborting import Abortion
from turnfold.decide.accepting import Acceptance, SourceCursor
from turnfold.decide.draft import Context, Desk, Draft, Fence
from turnfold.decide.enqueuing import Enqueued
from turnfold.decide.queueing import Intent
from turnfold.drivers import agenda
from turnfold.drivers.aio import AioDriver, Hook
from turnfold.effects import Decision
from turnfold.errors import InvalidInputError, NotFoundError, NotOpenError
from turnfold.handlers import Handler, Handlers
from turnfold.hooks import Hooks
from turnfold.journal import Commit, Journal, created
from turnfold.machines.turn import Turn
from turnfold.names import ENTRY, TURN, time_id
from turnfold.packing import pack
from turnfold.payloads import File, Inbound, Payload, Route, Text
from turnfold.ports.store import Store
from turnfold.settings import Settings
from turnfold.sources import Sources
from turnfold.stores import store_at
from turnfold.turns import AcceptedTurn
from turnfold.words import AbortReason, BlindPolicy, Kind, TurnOutcome
from turnfold.worker import Worker


class Kernel:
    """`store`: an address or a Store. `work=False`: never the worker, only a client
    that accepts, enqueues, aborts and reads. Everything else has its default."""

    def __init__(
        self,
        store: str | Path | Store,
        *,
        settings: Settings | None = None,
        work: bool = True,
        clock: Clock | None = None,
        probe: Hook | None = None,
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
        self._store: Store | None = None
        self._driver: AioDriver | None = None
        self._worker: Worker | None = None
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}

    # --- what is attached ---

    def attach(
        self, name: str, channel: object, *, account: str = "default"
    ) -> None:
        """A channel under a name and one of its accounts. Raises ContractError if it
        is not a channel, InvalidInputError if the place is taken."""
        key = (name, account)
        if key in self._desks:
            raise InvalidInputError(field="name", problem=f"{key} is attached already")
        desk = Attached(name, account, channel)
        self._desks[key] = desk
        self._views[key] = Desk(prepares=desk.prepares)
        if self._driver is not None and self._driver.epoch:
            self._driver.start(agenda.behind(f"{name}/{account}", self._driver.book))

    def source(
        self, name: str, stream: Callable[..., Any], *, account: str = "default"
    ) -> None:
        """Accept what a Source brings, in order, while this kernel is the worker; its
        cursor moves in the commit of what it has passed."""
        self._sources.add(name, account, stream)

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
        """Open the store, take up what is open, and begin to work or stand by."""
        if self._state == "open":
            return
        address = self._address
        store = store_at(address) if isinstance(address, str | Path) else address
        store.open()
        try:
            self._assemble(store)
        except BaseException:
            store.close()
            raise

    def _assemble(self, store: Store) -> None:
        book = Book(store)
        book.load()
        self._clock.at_least(book.last_at)
        journal = Journal(store, book, self._context)
        driver = AioDriver(
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
        self._worker = Worker(store, book, self._promote, driver.refresh)
        self._worker.start(work=self._work)

    def _promote(self, fence: Fence) -> None:
        self._open_driver().begin(fence.epoch)
        self._sources.start()

    async def close(self) -> None:
        """Drain, then let go of the store. What was promised is durable already."""
        if self._state != "open":
            return
        driver, worker = self._open_driver(), self._worker
        self._state = "draining"
        await self._sources.stop()
        await driver.drain(self.settings.drain_ms)
        if worker is not None:
            await worker.stop()
            worker.release()
        self._state = "closed"
        await self._close_channels()
        self.store.close()
        self._wake_all()

    async def _close_channels(self) -> None:
        for channel in {id(d.channel): d.channel for d in self._desks.values()}.values():
            close = getattr(channel, "aclose", None)
            if close is not None:
                await close()

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

    # --- commands ---

    async def accept(
        self, inbound: Inbound, *, cursor: SourceCursor | None = None
    ) -> AcceptedTurn:
        """Take a message in. When this returns it is durable: acknowledge it now."""
        turn = f"{TURN}{self._new_id()}"
        done: Acceptance = await self.append(
            partial(accepting.accept, turn=turn, inbound=inbound, cursor=cursor)
        )
        return AcceptedTurn(
            turn_id=done.turn_id, status=done.status, new=done.new, kernel=self
        )

    async def advance(self, cursor: SourceCursor) -> None:
        """A source got on without bringing a message."""
        await self.append(partial(accepting.advance, cursor=cursor))

    async def enqueue(
        self,
        route: Route,
        *payloads: Payload | str,
        key: str | None = None,
        kind: Kind = Kind.NOTICE,
        policy: BlindPolicy | None = None,
        ttl_ms: int | None = None,
        not_before: int | None = None,
    ) -> Enqueued:
        """Send something without a turn: a notice, a reminder, a tool's result. The
        same `key` again returns the first entry. If this raises, nothing is queued
        and nothing will be sent."""
        intent = await self.intend(
            entry=f"{ENTRY}{self._new_id()}",
            route=route,
            kind=kind,
            payloads=[Text(p) if isinstance(p, str) else p for p in payloads],
            key=key,
            policy=policy,
            ttl_ms=ttl_ms,
            not_before=not_before,
        )
        done: Enqueued = await self.append(partial(enqueuing.enqueue, intent=intent))
        return done

    async def intend(
        self,
        *,
        entry: str,
        route: Route,
        kind: Kind,
        payloads: Sequence[Payload],
        turn: str | None = None,
        run: int | None = None,
        key: str | None = None,
        policy: BlindPolicy | None = None,
        ttl_ms: int | None = None,
        not_before: int | None = None,
    ) -> Intent:
        """Read files, run the channel's plan: all that comes before the decision."""
        if not payloads:
            raise InvalidInputError(field="payloads", problem="nothing to send")
        payloads = [await _held(payload) for payload in payloads]
        desk = self._desks.get((route.channel, route.account))
        plan = desk.plan(payloads, route, kind, entry) if desk else None
        expires = None if ttl_ms is None else self._clock.now() + ttl_ms
        return Intent(
            entry=entry,
            route=route,
            kind=kind,
            packed=tuple(pack(payload) for payload in payloads),
            plan=plan,
            turn=turn,
            run=run,
            key=key,
            policy=policy,
            not_before=not_before,
            expires_at=expires,
        )

    async def abort(self, stream: str, *, by: str | None = None) -> Abortion:
        """Stop a turn or an entry. Says honestly if it is too late."""
        return await self._stop(stream, AbortReason.USER, by)

    async def supersede(self, turn: str, *, by: str | None = None) -> Abortion:
        """Stop a turn because something newer replaces it."""
        return await self._stop(turn, AbortReason.SUPERSEDED, by)

    async def _stop(self, stream: str, reason: AbortReason, by: str | None) -> Abortion:
        turn = stream.startswith(TURN)
        decision = aborting.abort_turn if turn else aborting.abort_entry
        done: Abortion = await self.append(
            partial(decision, stream=stream, reason=reason, by=by)
        )
        return done

    async def connected(self, channel: str, *, account: str = "default") -> None:
        """The account works: what waited for it goes now, back-off or not."""
        await self.append(
            partial(gating.connected, channel=channel, account=account)
        )

    async def disconnected(self, channel: str, *, account: str = "default") -> None:
        """The account cannot send: hold it and spend no attempts until connected()."""
        await self.append(
            partial(gating.disconnected, channel=channel, account=account)
        )

    async def redrive(
        self, entry: str, *, by: str, accept_duplicate: bool = False
    ) -> None:
        """Send a dead letter again, from its first part that is not delivered."""
        await self.append(
            partial(
                operating.redrive,
                stream=entry,
                by=by,
                accept_duplicate=accept_duplicate,
            )
        )

    async def resolve(
        self, entry: str, verdict: str, *, by: str, why: str = "", marked: bool = True
    ) -> None:
        """End a doubt: "delivered", "not_sent", "resend" or "give_up"."""
        await self.append(
            partial(
                operating.resolve,
                stream=entry,
                verdict=verdict,
                by=by,
                why=why,
                marked=marked,
            )
        )

    async def acknowledge(self, entry: str, *, by: str) -> None:
        """A person has seen a dead letter."""
        await self.append(partial(operating.acknowledge, stream=entry, by=by))

    async def reschedule(self, entry: str, due_ms: int, *, by: str) -> None:
        await self.append(
            partial(operating.reschedule, stream=entry, due=due_ms, by=by)
        )

    async def bounced(self, entry: str, *, part: int = 0, detail: str = "") -> None:
        """The platform refused afterwards what it had accepted."""
        await self.append(
            partial(operating.bounce, stream=entry, part=part, detail=detail)
        )

    async def resubmit(self, turn: str, *, by: str) -> None:
        """Run a failed turn again, once."""
        await self.append(partial(operating.resubmit, stream=turn, by=by))

    async def append(self, decision: Decision) -> Any:
        """Decide and commit; the answer is durable. A cancelled caller does not take
        its append back."""
        if self._state not in ("open", "draining"):
            raise NotOpenError(state=self._state)
        answer = await asyncio.shield(self._open_driver().submit(decision))
        if self._worker is not None:
            self._worker.ring()
        return answer

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

    def look(self, question: Callable[[Draft], Any]) -> Any:
        """Ask the folded state."""
        return self._open_driver().look(question)

    async def settled(
        self, stream: str, timeout_ms: int | None = None
    ) -> TurnOutcome | None:
        """Wait until a turn or an entry is closed; a turn's outcome. TimeoutError."""
        async with asyncio.timeout(None if timeout_ms is None else timeout_ms / 1000):
            while True:
                if self._state not in ("open", "draining"):
                    raise NotOpenError(state=self._state)
                state = self.look(lambda draft: draft.state(stream))
                if state is None:
                    raise NotFoundError(what="turn or entry", id=stream)
                if not state.open:
                    return state.outcome if isinstance(state, Turn) else None
                moved = asyncio.get_running_loop().create_future()
                self._waiters.setdefault(stream, []).append(moved)
                await moved

    # --- inside ---

    def _open_driver(self) -> AioDriver:
        if self._driver is None or self._state == "closed":
            raise NotOpenError(state=self._state)
        return self._driver

    def _context(self) -> Context:
        driver = self._open_driver()
        worker = self._worker
        return Context(
            now=max(self._clock.now(), driver.book.last_at),
            settings=self.settings,
            fence=worker.fence if worker else None,
            desks=self._views,
            jitter=lambda: self._entropy.randint(0, 1000),
            salt=partial(os.urandom, 16),
            runs=self._handlers.present,
            resumes=self._handlers.resumes,
            draining=driver.draining,
        )

    def _new_id(self) -> str:
        return time_id(self._clock.now(), os.urandom(10))

    def _saw(self, commit: Commit) -> None:
        """After every commit, ours or another process's."""
        for stream, state in commit.moved.items():
            if isinstance(state, Turn) and not state.open:
                self._handlers.stop(stream)
            for waiter in self._waiters.pop(stream, ()):
                if not waiter.done():
                    waiter.set_result(None)
        self.hooks.tell(commit)

    def _wake_all(self) -> None:
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        self._waiters.clear()

    def health(self) -> Mapping[str, Any]:
        """Facts for a health endpoint, from state and not from counters of events."""
        driver = self._open_driver()
        return {
            "state": self._state,
            "working": self.working,
            "open_entries": driver.book.open_count,
            "corrupt_streams": sorted(driver.book.corrupt),
            "hung_calls": len(driver.legs.hung),
            "troubles": driver.troubles,
            "position": driver.book.position,
        }


async def _held(payload: Payload) -> Payload:
    """A file's content in hand: from here on the queue owns a copy."""
    if isinstance(payload, File) and payload.data is None and payload.path is not None:
        packed = await asyncio.to_thread(pack, payload)
        head = packed.head
        return File(data=packed.content, name=head["name"], mime=head["mime"])
    if not isinstance(payload, Payload):
        problem = f"expected Text, File or Native, got {type(payload).__name__}"
        raise InvalidInputError(field="payloads", problem=problem)
    return payload


