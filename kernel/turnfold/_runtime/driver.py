"""The production driver: programs on asyncio, one shared commit per loop tick."""

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextvars import copy_context
from functools import partial
from itertools import islice
from typing import Any

from turnfold._decide import inbox, rules
from turnfold._decide.missing import NotLoaded
from turnfold._decide.outcomes import settle
from turnfold._decide.plan import Plan
from turnfold._decide.unit_of_work import AttemptRef, UnitOfWork
from turnfold._runtime import scheduler
from turnfold._runtime.calls import LeftError
from turnfold._runtime.channel import AttachedChannel
from turnfold._runtime.committer import Commit, Committer, Decided
from turnfold._runtime.dispatcher import Dispatcher
from turnfold._runtime.flow import Flow
from turnfold._runtime.group_commit import GroupCommit
from turnfold._runtime.intake import Intake
from turnfold._runtime.lasting import Mending, was_cancelled
from turnfold._runtime.programs import (
    Append,
    CallHandler,
    Effect,
    Hear,
    Look,
    MakePlan,
    Post,
    Prepare,
    Program,
    Reconcile,
    RunEnd,
    Send,
    TakeUp,
    Wait,
    Work,
)
from turnfold._runtime.retract import Retractor
from turnfold._runtime.scheduler import Key, Timers
from turnfold._runtime.sender import DRAIN, Register, Sender
from turnfold._runtime.words import Wording
from turnfold._state.entry import Entry
from turnfold._state.fold import State
from turnfold._state.turn import Turn
from turnfold.clock import Clock
from turnfold.enums import CLOSED
from turnfold.errors import NotFoundError, OwnedError, StoreError, UsageError
from turnfold.logs import lines
from turnfold.ports.channel import Accepted, Outcome, Rejected
from turnfold.ports.store import Command, Posted
from turnfold.settings import Settings

_LOG = lines()
_AT_ONCE = 20  # lanes that are started in one turn of the loop, at the beginning
_MANY = 10  # programs under way whose questions share a draft
_SICK_MS = 5_000  # the pause of a program that broke
_NEVER_CALLED = RunEnd("stopped", "shutdown")  # not a failure of the handler

Probe = Callable[[str, Effect], None]
Watch = Callable[[Commit], None]


class Driver(Mending):
    """`run_handler` calls the embedder and never raises. `watch` is called for every
    commit. `probe` is called before and after each effect (tests stop there)."""

    def __init__(
        self,
        journal: Committer,
        clock: Clock,
        settings: Settings,
        channels: Mapping[tuple[str, str], AttachedChannel],
        run_handler: Callable[[str, int], Awaitable[RunEnd]],
        watch: Watch,
        probe: Probe | None = None,
    ) -> None:
        store = journal.store
        self.journal, self.book, self.clock = journal, journal.book, clock
        self._run_handler, self._watch, self._probe = run_handler, watch, probe
        self.register = Register()
        self.sender = Sender(store, clock, settings, self.register, self._evidence)
        self.dispatcher = Dispatcher(
            self.entry,
            channels,
            self.sender,
            settings.concurrent_sends,
            lambda: journal.context().salt(),
        )
        self.wording = Wording()
        self.retractor = Retractor(channels, self.sender, settings, self.wording)
        self.group_commit = GroupCommit(journal, self.moved)
        self.submit = self.group_commit.submit
        self.intake = Intake(journal, self.submit, lambda: bool(self.epoch))
        self._timers = Timers(clock, self._ring)
        self.flow = Flow(clock, self.start, settings.concurrent_runs)
        self.epoch = 0  # 0: not the worker
        self._taking_over: int | None = None  # since when, monotonic ms
        self._looked = asyncio.Event()  # set after the first reading of the inbox
        self.draining = False
        self.deposed = self._abandoned = False
        self.troubles = 0
        # None: no task; the program's last append is in the hands of the group commit.
        self.live: dict[Key, asyncio.Task[Any] | None] = {}
        self._context = copy_context()
        self._again: set[Key] = set()
        self._idle: set[asyncio.Task[Any]] = set()  # may be cancelled at their wait
        self._asked: UnitOfWork | None = None  # by the questions of this tick
        self._at_rest = asyncio.Event()

    # --- after each commit ---

    def moved(self, commit: Commit) -> None:
        """Start every program that has work after this commit."""
        states = list(commit.moved.values())
        for state in states:
            if isinstance(state, Entry):
                self.register.moved(state)
                if state.phase in CLOSED:
                    self.sender.forget(state)
        if self.works:
            self.sender.bodies.keep(commit.bodies)
            self._take_up(commit.attempts)
            self.retractor.moved(commit)
            self.flow.moved(states)
            self.start(scheduler.after(states, self.book, self.epoch, self.register))
            self._give_places()
            self._set_alarm()
        self._watch(commit)

    def _give_places(self) -> None:
        places = self.flow.places
        if places.waiting:
            running = map(self.book.state, self.book.running())
            taken = rules.places_taken([t for t in running if isinstance(t, Turn)])
            self.start([Key("turns", lane) for lane in places.freed(taken)])

    # --- programs ---

    def start(self, keys: Iterable[Key]) -> None:
        for key in keys:
            if key in self.live:
                self._again.add(key)
                continue
            program = scheduler.program_of(key, self.register)
            if program is not None:
                loop = asyncio.get_running_loop()
                self.live[key] = loop.create_task(self._run(key, program))

    def _take_up(self, attempts: Iterable[AttemptRef]) -> None:
        self.start(scheduler.taken_up(attempts, self.register))

    async def _run(
        self,
        key: Key,
        program: Program,
        answer: Any = None,
        error: BaseException | None = None,
    ) -> Any:
        """Run one program to its end. `answer`, `error`: of the effect at which it goes
        on. If the program goes on in another task, this one returns the end of its
        call."""
        until: int | None = None
        try:
            while True:
                effect = program.throw(error) if error else program.send(answer)
                answer = error = None
                try:
                    if self._probe is not None:
                        self._probe("before", effect)
                    if key.what == "send" and type(effect) is Append:
                        return self._hand_in(key, program, effect)
                    answer = await self._perform(key, program, effect)
                except (StoreError, UsageError) as exc:
                    error = exc
                if self._probe is not None:
                    self._probe("after", effect)
        except StopIteration as stop:
            until = stop.value
        except LeftError as left:
            return left.end
        except asyncio.CancelledError:
            program.close()  # ended from outside, at its effect
            self._torn(key)
        except BaseException:  # noqa: BLE001  a broken program must not stop the others
            until = self._broke(key)
            program.close()
        # An adapter may have set variables in the context of this task.
        self._context.copy().run(self._ended, key, until)
        return None

    def _go_on(
        self, key: Key, program: Program, effect: Effect, outcome: Outcome
    ) -> None:
        """Give a send program another task: its own waits for a call that hangs."""
        if self._abandoned:
            return
        if self._probe is not None:
            self._probe("after", effect)
        self._begin(key, self._run(key, program, outcome))

    def _begin(self, key: Key, rest: Coroutine[Any, Any, Any]) -> None:
        """A program goes on in a task of its own, without a caller's context."""
        loop = asyncio.get_running_loop()
        self.live[key] = loop.create_task(rest, context=self._context.copy())

    def _hand_in(self, key: Key, program: Program, effect: Append) -> None:
        """Append the outcome of a send. No task waits for it, since the program ends
        with it."""
        self.live[key] = None
        tell = partial(self._handed_in, key, program, effect)
        self.group_commit.hand_in(effect.decision, tell)

    def _handed_in(
        self, key: Key, program: Program, effect: Append, decided: Decided
    ) -> None:
        if self._abandoned:
            return
        if self._probe is not None:
            self._probe("after", effect)
        if decided.error is None:
            until: int | None = None
            try:  # to its end: a program that is dropped half way is costly to close
                program.send(decided.value)
            except StopIteration as stop:
                until = stop.value
            self._ended(key, until)
            return
        self._begin(key, self._run(key, program, error=decided.error))

    def _perform(self, key: Key, program: Program, effect: Effect) -> Awaitable[Any]:  # noqa: C901  one case per effect
        """The awaitable of an effect's answer. Not wrapped in another coroutine: each
        wrapper costs a step when the answer comes."""
        if isinstance(effect, Send):  # of every message, and so at once
            go_on = partial(self._go_on, key, program, effect)
            return self.dispatcher.send(effect.attempt, go_on)
        match effect:
            case Append(decision=decision):
                return self.submit(decision)
            case Prepare(attempt=attempt):
                return self.dispatcher.prepare(attempt)
            case Reconcile(entry=entry, part=part, attempt=number):
                return self.dispatcher.reconcile(entry, part, number)
            case CallHandler(turn=turn, run=run):
                return self._call_handler(turn, run)
            case Hear():
                return self._hear()
            case Work():
                return self._work()
            case Wait():
                return self._wait(effect)
            case MakePlan(entry=entry):
                return self._plan(entry)
            case Post(command=command):
                return self._post(command)
            case Look(question=question):
                self._again.discard(key)  # a look sees all earlier commits
                return self.look(question)
            case TakeUp(attempt=attempt):
                return self._hand_over(attempt)

    async def _hand_over(self, attempt: AttemptRef) -> None:
        self._take_up([attempt])

    async def _hear(self) -> None:
        try:
            await self.intake.read()
        finally:
            self._looked.set()

    async def _post(self, command: Command) -> Posted:
        (posted,) = await self.journal.store.post((command,))
        return posted

    def _broke(self, key: Key) -> int:
        """Log a program's error, inside its `except`. Returns when to try again. The
        end of the process or of the task is none."""
        if isinstance(sys.exception(), KeyboardInterrupt | GeneratorExit):
            raise  # noqa: PLE0704  the one that the caller handles
        self.troubles += 1
        _LOG.exception("program %s %s broke; trying again", key.what, key.name)
        self._let_go(key)
        return self.clock.now() + _SICK_MS

    def _ended(self, key: Key, until: int | None) -> None:
        self.live.pop(key, None)
        if key == scheduler.TAKE_OVER:
            self._looked.set()  # an error of the reading is logged
        again = key in self._again
        self._again.discard(key)
        if key.what == "run" or not self.epoch:
            again, until = False, None
        if again and (key.what == "send" or not self.draining):
            self.start([key])
        elif until is not None:
            self._wake_at(key, until)
        if not self.live:
            self._at_rest.set()

    # --- handlers and waits: here a program may be cut off ---

    async def _call_handler(self, turn: str, run: int) -> RunEnd:
        if self.sender.stopping:
            return _NEVER_CALLED
        with self._cut_off_here():
            try:
                return await self._run_handler(turn, run)
            except asyncio.CancelledError:
                return _NEVER_CALLED

    async def _plan(self, entry: str) -> Plan | Rejected:
        with self._cut_off_here():  # a plan in a thread may never end
            try:
                return await self.dispatcher.plan(entry)
            except asyncio.CancelledError:
                if not self.sender.stopping or self._abandoned:
                    raise
                return DRAIN

    async def _wait(self, wait: Wait) -> None:
        if self._abandoned or (was_cancelled() and not self.sender.stopping):
            raise asyncio.CancelledError("this task goes on no more")
        if wait.trouble is not None:
            self.troubles += 1
            _LOG.warning("%s: %s; trying again", wait.where, wait.trouble)
        with self._cut_off_here():
            await asyncio.sleep(wait.ms / 1000)

    @contextlib.contextmanager
    def _cut_off_here(self) -> Iterator[None]:
        """While a program waits in here, a drain may cancel its task."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  programs run in tasks
        self._idle.add(task)
        try:
            yield
        finally:
            self._idle.discard(task)

    # --- folded state ---

    async def look(self, question: Callable[[UnitOfWork], Any]) -> Any:
        """Ask folded state; events of the question are dropped. The committer fetches
        state that is not in memory, by a commit that writes nothing."""
        try:
            if len(self.live) < _MANY:
                return question(UnitOfWork(self.book, self.journal.context()))
            return question(self._of_this_tick())
        except NotLoaded:
            return await self.submit(question)

    def _of_this_tick(self) -> UnitOfWork:
        """Many lanes ask in one tick of the loop: they share a moment."""
        draft = self._asked
        if draft is None or draft.made or draft.position != self.book.position:
            draft = self._asked = UnitOfWork(self.book, self.journal.context())
            asyncio.get_running_loop().call_soon(self._look_anew)
        return draft

    def _look_anew(self) -> None:
        self._asked = None

    async def state(self, stream: str) -> State | None:
        """The folded state of a stream."""
        try:
            return self.book.state(stream)
        except NotLoaded:
            found: State | None = await self.submit(lambda draft: draft.state(stream))
            return found

    async def entry(self, stream: str) -> Entry:
        """The folded entry. Raises NotFoundError."""
        try:
            found = self.book.state(stream)
        except NotLoaded:
            found = await self.state(stream)
        if not isinstance(found, Entry):
            raise NotFoundError(what="entry", id=stream)
        return found

    async def _evidence(self, attempt: AttemptRef, outcome: Accepted) -> None:
        """Record a success of a call after its deadline."""
        if not (self.epoch or self.deposed):
            return
        a = attempt
        decision = partial(
            settle,
            stream=a.entry,
            part=a.part,
            number=a.number,
            outcome=outcome,
            act=a.act,
        )
        try:
            try:
                await self.submit(decision)
            except OwnedError:
                await self._post(inbox.receipt_command(attempt, outcome.receipt))
        except (StoreError, UsageError) as exc:
            _LOG.error(
                "a late success could not be stored, and its part may stay in doubt: %s",
                exc,
            )

    # --- time ---

    def _wake_at(self, key: Key, until: int) -> None:
        self._timers.add(key, until)
        self._set_alarm()

    def _set_alarm(self) -> None:
        if not self.draining:
            self._timers.set_alarm(self.book.next_deadline())

    def look_again(self) -> None:
        """The clock was moved by hand: start all programs that are due by now."""
        if self.works:
            self._ring()

    def _ring(self) -> None:
        now = self.clock.now()
        self.flow.ring(now)
        self.start(list(self._timers.due(now)))
        if self.works:
            self.start(Key("expiry", stream) for stream in self.book.overdue(now))
        self._set_alarm()

    # --- beginning and end ---

    async def begin(self, epoch: int) -> None:
        """Become the worker. Returns when the inbox was read and the open streams were
        taken up, or when the store could not do that: the program then tries again."""
        self.epoch, self._taking_over = epoch, self.clock.mono_ms()
        self.sender.begin()
        self.start([scheduler.TAKE_OVER])
        await self._looked.wait()

    @property
    def works(self) -> bool:
        """True for the worker, once it has read the inbox."""
        return bool(self.epoch) and self._taking_over is None

    @property
    def taking_over(self) -> bool:
        return self._taking_over is not None

    @property
    def taking_over_ms(self) -> int | None:
        """How long the worker has been taking over; None when it is done."""
        since = self._taking_over
        return None if since is None else self.clock.mono_ms() - since

    async def _work(self) -> None:
        """Take up all open streams."""
        self._taking_over = None
        self.flow.begin(self.book.closed_gates())
        self._start_some(iter(list(scheduler.at_start(self.book))))

    def _start_some(self, keys: Iterator[Key]) -> None:
        """Start some programs at a time: the first lane sends before the last one is
        folded."""
        some = list(islice(keys, _AT_ONCE))
        if some and self.epoch and not self.draining:
            self.flow.begins(key.name for key in some if key.what == "lane")
            self.start(some)
            asyncio.get_running_loop().call_soon(self._start_some, keys)
        self._set_alarm()

    def stand_down(self) -> None:
        """The right to work is lost: attempt and append nothing more. A call on the
        wire ends by itself. Its success is evidence and goes to the inbox; its failure
        is left to the next owner."""
        self.epoch, self.deposed = 0, True
        self.journal.stand_down()
        self._start_nothing()

    def _start_nothing(self) -> None:
        self.draining = self.dispatcher.draining = True
        self._look_anew()
        self._timers.silence()
        self.flow.silence()

    async def drain(self, timeout_ms: int) -> int:
        """Start nothing new; wait for what is under way; cut off the rest: how many?"""
        self._start_nothing()
        until = asyncio.get_running_loop().time() + timeout_ms / 1000
        await self._rested(timeout_ms / 1000)
        cut = len(self.live)
        await self.retractor.rested(until)
        self.sender.stopping = True
        self.start(self._never_taken_up())
        while self.live:
            self._cut_off()
            await self._rested(1)
            self.mend()
        await self.sender.calls.end_all()  # calls after their deadline
        await self.group_commit.rested()
        self.epoch = 0
        return cut

    def _never_taken_up(self) -> list[Key]:
        """Lanes of attempts that no program has taken up, and of plans that have begun by
        the log: it records them as unsent, or ended."""
        waiting = self.book.under_way(self.epoch) if self.epoch else ()
        return [Key("lane", e.lane) for e in waiting if not self.register.holds(e)]

    def _cut_off(self) -> None:
        """End the waits of programs for a call, a slot, a handler or a time. An append
        under way is not cut off."""
        self.dispatcher.stop(len(self.live))
        for task in list(self._idle):
            task.cancel()

    async def _rested(self, timeout_s: float) -> None:
        """Wait until no program is under way, or the timeout."""
        if not self.live:
            return
        self._at_rest.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._at_rest.wait()

    def abandon(self) -> list[asyncio.Task[Any]]:
        """Stop at once, as in a crash, for tests; returns the cancelled tasks."""
        self.stand_down()
        self._abandoned = True
        self.group_commit.abandon()
        self.sender.stopping = True
        calls, listeners = self.sender.calls.tasks(), self.sender.hung.values()
        live = [task for task in self.live.values() if task is not None]
        tasks: list[asyncio.Task[Any]] = [*live, *calls, *listeners]
        for task in tasks:
            task.cancel()
        return tasks
