"""The kernel of one log: of a store of one shard, or of one shard among many."""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, overload

from turnfold._decide import operator
from turnfold._decide.accepting import Acceptance
from turnfold._decide.outbox import Enqueued
from turnfold._decide.unit_of_work import ChannelFacts, Context, Fence, UnitOfWork
from turnfold._log.ids import GATE, account_scope, time_id
from turnfold._runtime import scheduler
from turnfold._runtime.calls import Calls
from turnfold._runtime.channel import AttachedChannel, attached
from turnfold._runtime.committer import Commit, Committer
from turnfold._runtime.driver import Driver, Probe
from turnfold._runtime.lasting import Lasting
from turnfold._runtime.open_streams import OpenStreams
from turnfold._runtime.policies import OnUnknown, age_limit, check_place
from turnfold._runtime.programs import Decision
from turnfold._runtime.worker import Upkeep, Worker
from turnfold._state.fold import STORE, State, StoreState
from turnfold._state.turn import Turn
from turnfold.api.acts import Acts
from turnfold.api.answering import Answering
from turnfold.api.archiving import Archiving
from turnfold.api.callbacks import Handler, Handlers, unwanted
from turnfold.api.client import Alone, Mailbox
from turnfold.api.handle import AcceptedTurn
from turnfold.api.health import Health
from turnfold.api.hooks import Hooks
from turnfold.api.importing import Importing, import_at_open
from turnfold.api.life import Life
from turnfold.api.releasing import Releasing
from turnfold.api.retelling import Retelling
from turnfold.api.sent import Sent, sent
from turnfold.api.sources import Pulling, Sources
from turnfold.api.spread import Spread
from turnfold.api.stalls import Stalls
from turnfold.api.telling import (
    Missing,
    say_closing,
    say_open,
    say_standby,
    say_working,
)
from turnfold.api.waiting import CLOSABLE, check_rested, stands, tell
from turnfold.arguments import Line, check_address, checked
from turnfold.clock import LEAD_MS, Clock
from turnfold.errors import InvalidInputError, NotOpenError, OwnedError
from turnfold.inspect import Inspect
from turnfold.logs import lines
from turnfold.messages import check_flag, check_kind, check_timeout
from turnfold.ports.channel import Outcome, Rate
from turnfold.ports.shards import Announcing
from turnfold.ports.store import Owner, Store, Wanted, store_at
from turnfold.settings import Settings
from turnfold.wrong_calls import explained_call

if TYPE_CHECKING:
    from turnfold.api.kernel import Kernel

_LOG = lines()
T = TypeVar("T")


class StoreKernel(
    Releasing,
    Life,
    Acts,
    Answering,
    Importing,
    Archiving,
    Health,
    Pulling,
    Spread,
):
    """See `Kernel`, which is this and the link to several shards."""

    _after_loss = "restart it"  # what to do when it is no longer the worker

    @checked
    def __init__(
        self,
        store: Annotated[str | Path | Store, check_address],
        *,
        settings: Settings | None = None,
        work: bool = True,
        clock: Clock | None = None,
        probe: Probe | None = None,
        entropy: random.Random | None = None,
        import_from: Line | Path | None = None,
    ) -> None:
        Life.__init__(self)
        self.settings = settings or Settings()
        self._address = store
        self._work, self._import_from = work, import_from
        self._clock = clock or Clock()
        self._own_time = clock is not None
        self._probe = probe
        self._entropy = entropy or random.SystemRandom()
        self._salt = partial(self._entropy.randbytes, 16)
        self._desks: dict[tuple[str, str], AttachedChannel] = {}
        self._missing = Missing(self._desks)
        self._rates: dict[str, Rate] = {}  # account's gate -> its rate
        self._stalls: Stalls | None = None
        self._watching: list[Lasting] = []
        self._views: dict[tuple[str, str], ChannelFacts] = {}
        self._calls = Calls()  # of handlers, hooks and sources; the sender has its own
        self._sources = Sources(self, self._calls, self._desks)
        self._handlers = Handlers(self, self._calls, self._sources)
        self.hooks = Hooks(self._calls, self.settings.hook_deadline_ms)
        self._store: Store | None = None
        self._driver: Driver | None = None
        self._worker: Worker | None = None
        self._post: Mailbox | None = None
        self._alone: Alone | None = None
        self._fence: Fence | None = None
        self._owns = False  # the store is ours, and its open streams are taken up
        self._leaving: asyncio.Task[None] | None = None
        self._waiters: dict[str, list[asyncio.Future[State | None]]] = {}

    @property
    def whole(self) -> "Kernel":
        """The kernel that the gateway has made. It finds the shard of every call."""
        raise NotImplementedError

    # --- attaching channels and handlers ---

    @explained_call
    def attach(
        self,
        name: str,
        channel: object,
        *,
        account: str = "default",
        on_unknown: OnUnknown | None = None,
        rate: Rate | None = None,
        max_entry_age_ms: int | None = None,
    ) -> None:
        """Attach a channel under a name and one of its accounts. `on_unknown`: the
        policy for a part whose outcome stays unknown: `hold`, `resend_marked`, `resend`
        or `drop`, or one of them by kind of part. It may be left out if every kind is
        of class `lookup`, or `keyed` without a window. `rate`: the most messages a
        second. `max_entry_age_ms`: as the setting, for this account. Raises
        ContractError if `channel` is no channel, InvalidInputError if the account is
        attached already or a policy is missing."""
        self._home.check()
        check_place(self._desks, name, account)
        check_kind("rate", rate, Rate, type(None))
        age = age_limit(max_entry_age_ms, self.settings)
        desk = attached(name, account, channel, on_unknown)
        self._take_desk(desk, desk.facts(age), rate)

    def _take_desk(
        self, desk: AttachedChannel, facts: ChannelFacts, rate: Rate | None
    ) -> None:
        key = (desk.name, desk.account)
        self._desks[key], self._views[key] = desk, facts
        scope = account_scope(*key)
        if rate is not None:
            self._rates[f"{GATE}{scope}"] = rate
        self._announce()
        if self._driver is not None and self._driver.works:
            book = self._driver.book
            if book.holding(f"{GATE}{scope}") is not None:
                self._driver.start([scheduler.Key("probe", f"{GATE}{scope}")])
            self._driver.start(scheduler.behind(scope, book))

    @overload
    def on_turn(self, handler: Handler, /) -> Handler: ...

    @overload
    def on_turn(
        self, handler: None = None, /, *, resume: bool = False
    ) -> Callable[[Handler], Handler]: ...

    def on_turn(
        self, handler: Handler | None = None, /, *, resume: bool = False
    ) -> Handler | Callable[[Handler], Handler]:
        """Register the handler: a function or object that is called with the turn. A
        plain function runs in a thread; its return value is the reply. `resume`: the
        handler goes on with the answer of an earlier run, so it may run again even if
        somebody has seen a part of that answer. Raises InvalidInputError if it cannot
        be called with a turn, or if a handler is registered already."""
        self._home.check()
        register = partial(self._register, resume=check_flag("resume", resume))
        return register if handler is None else register(handler)

    def _register(self, handler: Handler, *, resume: bool) -> Handler:
        known = self._handlers.register(handler, resume=resume)
        self._missing.handles = True
        return known

    # --- open and close ---

    async def _open(self) -> None:
        self._state = "opening"
        address = self._address
        store: Store | None = None
        try:
            store = store_at(address) if isinstance(address, str | Path) else address
            await store.open()
            await self._assemble(store)
            if self._import_from is not None:
                await import_at_open(self, self._import_from)
            role = "standby" if self._work else "client"
            say_open(store.address, "worker" if self._owns else role)
        except BaseException:
            await self._undo(store)
            raise

    async def _undo(self, store: Store | None) -> None:
        """Opening failed or was cancelled: release everything."""
        driver, worker = self._driver, self._worker
        self._driver = self._worker = None
        self._state, self._owns = "not open", False
        if driver is not None:
            driver.abandon()
        await self._sources.stop()
        if worker is not None:
            await worker.stop()
            worker.ownership.release()
        self._home.leave()
        if store is not None:
            await store.close()

    async def _assemble(self, store: Store) -> None:
        """Put the parts together for an open store, and become its worker or stand by."""
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
        driver.flow.rates = self._rates
        self._handlers.received = driver.sender.bodies.read_once
        upkeep = Upkeep(
            store.maintenance, store.address, lambda: journal.store_id, self._clock
        )
        self._worker = worker = Worker(
            store,
            upkeep,
            self._promote,
            self._depose,
            self._rung,
            self._replaced,
            lambda: driver.book.position,
            self._after_loss,
        )
        self._store, self._driver, self._state = store, driver, "open"
        self._alone = Alone(
            store, worker.ownership, upkeep, self._clock, self._context, self._new_id
        )
        self._post = Mailbox(store, worker.ring, self._apply_alone)
        self._announce()
        if self._work:
            await worker.start()
            if not self._owns:
                say_standby(store.address, await worker.ownership.current())

    def _announce(self) -> None:
        """Tell the other hosts of the store which accounts are attached here."""
        if isinstance(self._store, Announcing):
            self._store.announce(account_scope(*key) for key in self._desks)

    async def _promote(self, owner: Owner) -> None:
        """The store is ours: read it, doubt its open streams if it is an older copy,
        log the commands of its inbox, then work."""
        driver, worker = self._open_driver(), self._worker
        assert worker is not None  # noqa: S101  it calls this
        await driver.journal.begin(self._new_id)
        found = driver.book.position
        await self._begin_time(driver, worker)
        self._fence = Fence(epoch=self._epoch() + 1, owner=owner.id)
        await self._doubt_if_restored()
        driver.group_commit.start()
        await driver.begin(self._fence.epoch)
        self._owns = True
        say_working(self.store.address, self._fence.epoch, driver.book)
        self._missing.look(driver.book)
        self._watch_lanes(driver)
        means = Retelling(self.append, self.look, self.store.log)
        await self.hooks.begin(means, found)
        self._sources.start()

    def _watch_lanes(self, driver: Driver) -> None:
        """Report the lanes that stand still, from now on."""
        stall_ms, tell = self.settings.stall_ms, self.hooks.tell_stalled
        self._stalls = Stalls(driver.book, self._clock.now, stall_ms, tell)
        forever = (self._stalls.forever, self.prune_for_ever, self.watch_room)
        self._watching = [Lasting(f"watch {f.__qualname__}", f) for f in forever]

    async def _begin_time(self, driver: Driver, worker: Worker) -> None:
        """Log time goes on from the last record, or from the time that an older life of
        this boot would have reached by now. The mark beside the store passes that on to
        a later life."""
        clock, upkeep = self._clock, worker.upkeep
        clock.begin(driver.book.last_at, await upkeep.lived(driver.journal.store_id))
        lead = driver.book.last_at - clock.wall_now()
        if lead > LEAD_MS:
            _LOG.warning("the log is %s s ahead of the wall clock", lead // 1000)

    async def _note_steps(self) -> None:
        """Steps of the wall clock go into the log. They change nothing else."""
        for by in self._clock.take_steps() if self._owns else []:
            _LOG.warning("the wall clock was set by %s ms", by)
            await self._open_driver().submit(partial(operator.wall_jumped, by_ms=by))

    def _epoch(self) -> int:
        state = self._open_driver().book.state(STORE)
        return state.epoch if isinstance(state, StoreState) else 0

    def _replaced(self) -> str | None:
        """The reason why this kernel cannot be the owner any more, if another one has
        written."""
        replaced = self._open_driver().journal.replaced
        return None if replaced is None else str(replaced)

    async def _doubt_if_restored(self) -> None:
        """Doubt all open streams of a restored store, before the first attempt. A crash
        in here repeats it: the watermark stays until the commit is durable, and one
        watermark makes one commit."""
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
            await worker.upkeep.erase()  # a damaged log ends here, and its proof
        if mark is not None or worker.upkeep.has_news:
            await worker.upkeep.note_watermark()

    async def _rung(self, ring: bool) -> None:
        """At every `ring` of the doorbell, and a few times a second."""
        self._open_driver().mend()
        await self._note_steps()
        if ring or self._polls():
            await self._open_driver().intake.read()
            if self._owns:
                self._missing.see(self._open_driver().book)

    async def _apply_alone(self) -> None:
        if self._alone is not None and not self._owns:
            await self._alone.apply()

    def _depose(self) -> None:
        self._owns = False
        self._open_driver().stand_down()
        self._wake_all()  # they go on waiting as in a client
        self._leaving = asyncio.create_task(self._sources.stop())

    def _inside(self) -> bool:
        """Does the call come from foreign code that closing waits for?"""
        driver = self._driver
        sends = driver is not None and driver.sender.calls.inside()
        return sends or self._calls.inside()

    @property
    def _where(self) -> str:
        return self.store.address

    async def _close(self) -> None:
        driver, worker = self._open_driver(), self._worker
        self._state = "draining"
        say_closing(self.store.address, len(driver.live))
        try:
            await self._end_work(driver, worker)
        except BaseException:  # a store that fails, or a loop that is being ended
            driver.abandon()
            self.hooks.cut_off()
            raise
        finally:
            await self._let_go(worker)

    async def _end_work(self, driver: Driver, worker: Worker | None) -> None:
        await self._sources.stop()
        if self._leaving is not None:
            await self._leaving
        await driver.drain(self.settings.drain_ms)
        await self.hooks.end(self.settings.drain_ms / 1000)
        for part in (self._post, self._alone):
            if part is not None:
                await part.end()
        if worker is not None:
            await worker.stop()
        await driver.group_commit.close()

    async def drain(self, timeout_ms: int | None = None) -> None:
        """Send nothing new, and wait for what is under way, by default `drain_ms`; then
        cut it off. Accepting goes on. Raises NotYetError if something was cut off."""
        self._home.check()
        wait = check_timeout(timeout_ms)
        wait = self.settings.drain_ms if wait is None else wait
        check_rested(await self._drain(wait), wait)

    async def _drain(self, wait_ms: int) -> int:
        """Returns how many calls were cut off."""
        return await self._open_driver().drain(wait_ms)

    # --- commands: the rest is in commands.py ---

    def append(
        self, decision: Decision, wanted: Wanted | None = None
    ) -> asyncio.Future[Any]:
        """Decide and commit; the answer is durable. Cancelling the caller does not undo
        the append. Raises OwnedError if the store is not ours."""
        self._home.check()
        self._check_one("kernel.append")
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

    async def _erased(self, *_streams: str) -> bool:
        """Is every file of the store free of redacted bytes? `_streams`: the redacted
        ones."""
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
        """True while this kernel is the worker of its store, or of some of its shards."""
        return self._owns

    @property
    def inspect(self) -> Inspect:
        """Typed queries: the history of a message, and its next steps."""
        self._home.check()
        return Inspect(
            self.store,
            clock=self._clock,
            settings=self.settings,
            desks=self._views,
            alive=lambda: True if self.working else None,
        )

    async def look(self, question: Callable[[UnitOfWork], T]) -> T:
        """Ask folded state. Raises OwnedError if the store is not ours."""
        if not callable(question):
            problem = "expected a function of folded state"
            raise InvalidInputError(field="question", problem=problem)
        self._home.check()
        self._check_one("kernel.look")
        self._check_owned()
        answer: T = await self._open_driver().look(question)
        return answer

    # --- inside ---

    async def preview(self, entry: str, text: str) -> Outcome | None:
        """Show the text of a live reply so far. None if nothing can be shown just
        now."""
        return await self._open_driver().dispatcher.preview(entry, text)

    def _open_driver(self) -> Driver:
        if self._driver is None or self._state == "closed":
            raise NotOpenError(state=self._state)
        return self._driver

    def _context(self) -> Context:
        """The facts that decisions may use now."""
        driver, handlers, clock = self._open_driver(), self._handlers, self._clock
        now, wall, sure_from = clock.reading()
        return Context(
            now=max(now, driver.book.last_at),
            wall=wall,
            shift=clock.shift,
            sure_from=sure_from,
            unlived=clock.unlived,
            booted=clock.booted,
            settings=self.settings,
            fence=self._fence,
            desks=self._views,
            jitter=clock.jitter,
            salt=self._salt,
            runs=handlers.present,
            resumes=handlers.resumes,
            holds_back=driver.draining or driver.taking_over,
            ask_words=driver.wording.ask,
            flow=driver.flow,
        )

    def _accepted(self, done: Acceptance, key: str | None = None) -> AcceptedTurn:
        return AcceptedTurn(
            turn_id=done.turn_id,
            status=done.status,
            new=done.new,
            differs=done.differs,
            kept=done.kept,
            joined=done.joined,
            stopped=done.stopped,
            kernel=self.whole,
            key=key,
        )

    def sent(self, done: Enqueued, key: str | None = None) -> Sent:
        """The handle of an entry for its caller."""
        return sent(self.whole, done, key)

    def _new_id(self) -> str:
        return time_id(self._clock.now(), self._entropy.randbytes(16))

    def _saw(self, commit: Commit) -> None:
        """After each commit: stop unwanted runs, wake waiters, tell hooks the news."""
        waiters = self._waiters
        for stream, state in commit.moved.items():
            if isinstance(state, Turn) and unwanted(state):
                self._handlers.stop(stream)
            if stream in waiters and isinstance(state, CLOSABLE) and stands(state):
                tell(waiters.pop(stream), state)
        driver = self._driver
        self.hooks.tell(commit, 0 if driver is None else driver.book.position)
