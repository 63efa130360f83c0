"""The production driver: programs on asyncio, one shared commit per loop tick.

A program that waits is a suspended generator and nothing else: only a call of an adapter
or a handler is a task, and lanes that wait for a time stand in one heap. Everything
that is appended in one tick of the loop goes into one transaction; results are handed
out after its COMMIT.
"""

import asyncio
import contextlib
import logging
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from functools import partial
from itertools import islice
from typing import Any

from turnfold.attached import Attached
from turnfold.clock import Clock
from turnfold.decide import inbox
from turnfold.decide.draft import AttemptRef, Draft, NotLoaded
from turnfold.decide.settling import settle
from turnfold.drivers import agenda
from turnfold.drivers.agenda import Key
from turnfold.drivers.carrier import Carrier
from turnfold.drivers.flushing import GroupCommit
from turnfold.drivers.legs import DRAIN, Legs
from turnfold.drivers.register import Register
from turnfold.drivers.running import Places, Running
from turnfold.drivers.timers import Timers
from turnfold.effects import (
    Append,
    CallHandler,
    Decision,
    Effect,
    Look,
    MakePlan,
    Post,
    Prepare,
    Reconcile,
    RunEnd,
    Send,
    TakeUp,
    Wait,
)
from turnfold.errors import NotFoundError, OwnedError, StoreError, UsageError
from turnfold.journal import Commit, Decided, Journal
from turnfold.machines.entry import Entry
from turnfold.ports.channel import Accepted
from turnfold.ports.store import Command, Posted, Wanted
from turnfold.settings import Settings

_LOG = logging.getLogger("turnfold")
_AT_ONCE = 20  # lanes that are looked at in one turn of the loop, at the beginning
_SWIFT = (Look, TakeUp)  # effects that need no waiting
_SICK_MS = 5_000  # how long a program that broke is left alone

Hook = Callable[[str, Effect], None]
Watch = Callable[[Commit], None]


class AioDriver:
    """`run_handler` calls the embedder and never raises; `watch` is told of every
    commit; `probe` is called before and after each effect (tests stop there)."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        settings: Settings,
        desks: Mapping[tuple[str, str], Attached],
        run_handler: Callable[[str, int], Awaitable[RunEnd]],
        watch: Watch,
        probe: Hook | None = None,
    ) -> None:
        self.journal, self.book, self.clock = journal, journal.book, clock
        self._run_handler, self._watch, self._probe = run_handler, watch, probe
        self.register = Register()
        self.legs = Legs(
            journal.store, clock, settings, self.entry, self._late, self.register
        )
        self.epoch = 0  # 0: not the worker
        self.draining = False
        self.deposed = False
        self.troubles = 0
        self.live: dict[Key, Running] = {}
        self._again: set[Key] = set()
        self._witnesses: set[asyncio.Task[None]] = set()  # late successes under way
        self._at_rest: asyncio.Event = asyncio.Event()
        self._timers = Timers(clock, self._ring)
        self.flusher = GroupCommit(journal, self.moved)
        self._carrier = Carrier(
            journal.store,
            self.entry,
            desks,
            self.legs,
            settings.concurrent_sends,
            lambda: self.draining,
        )
        self._runs = Places(settings.concurrent_runs)

    # --- appends: one commit per tick ---

    def submit(
        self, decision: Decision, wanted: Wanted | None = None
    ) -> asyncio.Future[Any]:
        """The future resolves after COMMIT. Cancelling it does not undo the append."""
        return self.flusher.submit(decision, wanted)

    def moved(self, commit: Commit) -> None:
        """Give every program that has something to do now a chance to do it."""
        for state in commit.moved.values():
            if isinstance(state, Entry):
                self.register.moved(state)
                self.legs.forget(state)
        if self.epoch:
            self.legs.keep(commit.bodies)
            self.start(agenda.taken_up(commit.attempts, self.register))
            states, register = commit.moved.values(), self.register
            self.start(agenda.after(states, self.book, self.epoch, register))
            self._set_alarm()
        self._watch(commit)

    # --- programs ---

    def start(self, keys: Iterable[Key]) -> None:
        for key in keys:
            if key in self.live:
                self._again.add(key)
                continue
            program = agenda.program_of(key, self.register)
            if program is not None:
                self.live[key] = run = Running(key, program)
                self._go_on(run)

    def _go_on(
        self, run: Running, answer: Any = None, error: Exception | None = None
    ) -> None:
        """Let a program take its steps until it has to wait or is done."""
        run.waits = None
        program = run.program
        try:
            while True:
                effect = program.throw(error) if error else program.send(answer)
                answer, error = None, None
                try:
                    if not isinstance(effect, _SWIFT):
                        self._set_out(run, effect)
                        return
                    answer = self._at_once(run.key, effect)
                except NotLoaded:
                    self._look_again(run, effect)
                    return
                except (StoreError, UsageError) as exc:
                    error = exc
        except StopIteration as stop:
            self._ended(run, stop.value)
        except asyncio.CancelledError:  # ended from outside, where it stands
            self._ended(run, None)
        except Exception:  # noqa: BLE001  a broken program must not stop the others
            self._ended(run, self._broke(run.key))

    def _look_again(self, run: Running, effect: Effect) -> None:
        """State that is not in memory: the journal fetches it, then the effect begins
        anew. A question is asked as a decision that writes nothing."""
        if isinstance(effect, Look):
            tell: Callable[[Any], None] = partial(self._go_on, run)
            self._append(run, effect.question, tell)
        else:
            stream = _entry_of(effect)
            self.flusher.append(
                lambda draft: draft.state(stream), partial(self._loaded, run, effect)
            )

    def _loaded(self, run: Running, effect: Effect, decided: Decided) -> None:
        if decided.error is not None:
            self._go_on(run, error=decided.error)
            return
        try:
            self._set_out(run, effect)
        except (StoreError, UsageError) as exc:
            self._go_on(run, error=exc)

    def _append(
        self, run: Running, decision: Decision, tell: Callable[[Any], None]
    ) -> None:
        self.flusher.append(decision, partial(self._decided, run, tell))

    def _at_once(self, key: Key, effect: Look | TakeUp) -> Any:
        """What needs no waiting. What happened before a look has been seen by it, so
        it is no reason to start again."""
        if self._probe is not None:
            self._probe("before", effect)
        if isinstance(effect, Look):
            self._again.discard(key)
            answer = self.glance(effect.question)
        else:
            answer = None
            self.start(agenda.taken_up([effect.attempt], self.register))
        if self._probe is not None:
            self._probe("after", effect)
        return answer

    def _set_out(self, run: Running, effect: Effect) -> None:  # noqa: C901  one case per effect
        """Begin an effect that takes time; its answer goes on from there."""
        tell: Callable[[Any], None] = partial(self._go_on, run)
        if self._probe is not None:
            self._probe("before", effect)
            tell = partial(self._answered, run, effect)
        match effect:
            case Append(decision=decision):
                self._append(run, decision, tell)
            case MakePlan(entry=entry):
                self.entry(entry)
                self._make_task(run, self._carrier.plan(entry), tell)
            case Send():
                self.entry(effect.attempt.entry)
                self._carrier.send(run, effect, tell, partial(self._go_on, run, None))
            case Prepare(attempt=attempt):
                self._carrier.prepare(run, attempt, tell)
            case Reconcile(entry=entry):
                self._carrier.reconcile(run, entry, tell)
            case Post(command=command):
                self._make_task(run, self._post(command), tell)
            case CallHandler():
                self._runs.enter(run, partial(self._call_handler, run, effect, tell))
            case Wait():
                self._rest(run, effect, tell)
            case Look() | TakeUp():
                raise AssertionError  # answered at once

    def _answered(self, run: Running, effect: Effect, answer: Any) -> None:
        """Tests may stop here, before the program learns what it came to."""
        assert self._probe is not None  # noqa: S101  who else would come here
        try:
            self._probe("after", effect)
        except Exception as exc:  # noqa: BLE001  as if the effect had raised it
            self._go_on(run, error=exc)
        except asyncio.CancelledError:
            self._ended(run, None)
        else:
            self._go_on(run, answer)

    def _decided(
        self, run: Running, tell: Callable[[Any], None], decided: Decided
    ) -> None:
        if decided.error is None:
            tell(decided.value)
        else:
            self._go_on(run, error=decided.error)

    def _broke(self, key: Key) -> int:
        """Call where its error is at hand. When to try again."""
        self.troubles += 1
        _LOG.exception("program %s %s broke; trying again", key.what, key.name)
        return self.clock.now() + _SICK_MS

    def _ended(self, run: Running, until: int | None) -> None:
        key = run.key
        self.live.pop(key, None)
        if not self.live:
            self._at_rest.set()
        again = key in self._again and (key.what == "send" or not self.draining)
        if again:
            self._again.discard(key)
            if key.what != "run":
                self.start([key])
        elif until is not None and key.what != "run":
            self._wake_at(key, until)

    # --- handlers and rest ---

    def _call_handler(self, run: Running, effect: CallHandler, tell: Any) -> None:
        loop = asyncio.get_running_loop()
        run.waits = task = loop.create_task(_run(self._run_handler, effect))

        def ended(task: asyncio.Task[RunEnd]) -> None:
            self._runs.leave()
            tell(_NEVER_CALLED if task.cancelled() else _end_of(task))

        task.add_done_callback(ended)

    def _rest(self, run: Running, wait: Wait, tell: Callable[[None], None]) -> None:
        if wait.trouble is not None:
            self.troubles += 1
            _LOG.warning("%s: %s; trying again", wait.where, wait.trouble)
        loop = asyncio.get_running_loop()
        run.waits = loop.call_later(wait.ms / 1000, tell, None)

    async def _post(self, command: Command) -> Posted:
        (posted,) = await self.journal.store.post((command,))
        return posted

    def _make_task(
        self,
        run: Running,
        work: Coroutine[Any, Any, Any],
        tell: Callable[[Any], None],
    ) -> None:
        run.waits = task = asyncio.get_running_loop().create_task(work)

        def ended(task: asyncio.Task[Any]) -> None:
            if task.cancelled():
                self._ended(run, None)
            elif (error := task.exception()) is None:
                tell(task.result())
            elif isinstance(error, Exception):
                self._go_on(run, error=error)

        task.add_done_callback(ended)

    async def look(self, question: Callable[[Draft], Any]) -> Any:
        """Ask folded state; nothing that the question emits is kept."""
        try:
            return self.glance(question)
        except NotLoaded:
            return await self.submit(question)

    def glance(self, question: Callable[[Draft], Any]) -> Any:
        """As `look`, of memory alone. Raises NotLoaded."""
        return question(Draft(self.book, self.journal.context()))

    def entry(self, stream: str) -> Entry:
        found = self.book.state(stream)
        if not isinstance(found, Entry):
            raise NotFoundError(what="entry", id=stream)
        return found

    def _late(self, attempt: AttemptRef, outcome: Accepted) -> None:
        """A call that was given up has succeeded after all: that is evidence."""
        if self.epoch or self.deposed:
            witness = self._bring_late(attempt, outcome)
            task = asyncio.get_running_loop().create_task(witness)
            self._witnesses.add(task)
            task.add_done_callback(self._witnesses.discard)

    async def _bring_late(self, attempt: AttemptRef, outcome: Accepted) -> None:
        a = attempt
        decision = partial(
            settle, stream=a.entry, part=a.part, number=a.number, outcome=outcome
        )
        try:
            await self.submit(decision)
        except OwnedError:
            await self._post(inbox.receipt_command(attempt, outcome.receipt))
        except (StoreError, UsageError) as exc:
            _LOG.error("a late success could not be stored: %s", exc)

    # --- time ---

    def _wake_at(self, key: Key, until: int) -> None:
        self._timers.add(key, until)
        self._set_alarm()

    def _set_alarm(self) -> None:
        if not self.draining:
            self._timers.set_alarm(self.book.next_deadline())

    def look_again(self) -> None:
        """The clock was moved by hand: what is due by now starts now."""
        if self.epoch:
            self._ring()

    def _ring(self) -> None:
        now = self.clock.now()
        self.start(list(self._timers.due(now)))
        self.start(Key("expiry", stream) for stream in self.book.overdue(now))
        self._set_alarm()

    # --- beginning and end ---

    def begin(self, epoch: int) -> None:
        """Become the worker: take up everything that is open."""
        self.epoch = epoch
        self.legs.begin()
        self._take_up(iter(list(agenda.at_start(self.book))))

    def _take_up(self, keys: Iterator[Key]) -> None:
        """Some at a time: the first lane sends before the last one is folded."""
        some = list(islice(keys, _AT_ONCE))
        if some and self.epoch and not self.draining:
            self.start(some)
            asyncio.get_running_loop().call_soon(self._take_up, keys)
        self._set_alarm()

    def stand_down(self) -> None:
        """The right to work is lost: attempt nothing more. What is on the wire ends by
        itself; a success of it is evidence and is recorded, a failure is not ours to."""
        self.epoch, self.deposed = 0, True
        self.draining = True
        self._timers.silence()

    async def drain(self, timeout_ms: int) -> None:
        """Start nothing new; let what is on the wire end; then cut it off."""
        self.draining = True
        self._timers.silence()
        await self._rested(timeout_ms / 1000)
        self.legs.stopping = True
        self.start(self._never_taken_up())
        while self.live:
            for run in list(self.live.values()):
                self._cut_off(run)
            await self._rested(1)
        await self.flusher.rested()
        self.epoch = 0

    def _never_taken_up(self) -> list[Key]:
        """The lanes of attempts that are durable and in nobody's hand: their programs
        record that nothing was sent."""
        waiting = self.book.under_way(self.epoch) if self.epoch else ()
        return [Key("lane", e.lane) for e in waiting if not self.register.holds(e)]

    def abandon(self) -> list[asyncio.Task[Any]]:
        """End everything where it stands, as a crash does; returns the tasks of calls
        that were cancelled. For tests: the process goes on, and the log must not."""
        self.stand_down()
        self.flusher.abandon()
        self.legs.stopping = True
        for run in self.live.values():
            run.program.close()
            if run.waits is not None:
                run.waits.cancel()
        return [*self.legs.calls.tasks(), *self.legs.hung.values()]

    async def _rested(self, timeout_s: float) -> None:
        """Until no program is under way, or the time is up."""
        if not self.live:
            return
        self._at_rest.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._at_rest.wait()

    def _cut_off(self, run: Running) -> None:
        """What it waits for ends now. An append that is being stored is waited for."""
        if self._carrier.places.give_up(run):
            self._go_on(run, DRAIN)  # still in our hands: proven not sent
        elif self._runs.give_up(run):
            self._go_on(run, _NEVER_CALLED)
        elif isinstance(run.waits, asyncio.TimerHandle):
            run.waits.cancel()
            self._ended(run, None)
        elif run.waits is not None:
            run.waits.cancel()


_NEVER_CALLED = RunEnd("stopped", "shutdown")  # not its failure


def _end_of(task: asyncio.Task[RunEnd]) -> RunEnd:
    """A run ends in one way or another, or its turn would wait for ever."""
    error = task.exception()
    return task.result() if error is None else RunEnd("raised", repr(error)[:1000])


async def _run(
    handler: Callable[[str, int], Awaitable[RunEnd]], effect: CallHandler
) -> RunEnd:
    return await handler(effect.turn, effect.run)


def _entry_of(effect: Effect) -> str:
    """The entry that an effect speaks of."""
    match effect:
        case Send(attempt=attempt) | Prepare(attempt=attempt):
            return attempt.entry
        case Reconcile(entry=entry) | MakePlan(entry=entry):
            return entry
        case _:
            raise AssertionError  # it needs no entry
