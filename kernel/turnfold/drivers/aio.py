"""The production driver: programs on asyncio, one shared commit per loop tick.

A program is a task while it has something to do and nothing at all while it waits:
lanes that wait for a time stand in one heap. Everything that is appended in one tick
of the loop goes into one transaction; results are handed out after its COMMIT.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from turnfold.attached import Attached
from turnfold.clock import Clock
from turnfold.decide.draft import Draft
from turnfold.decide.settling import settle
from turnfold.drivers import agenda
from turnfold.drivers.agenda import Key
from turnfold.drivers.legs import Legs, route_of
from turnfold.drivers.timers import Timers
from turnfold.effects import (
    Append,
    Asked,
    CallHandler,
    Decision,
    Effect,
    Leg,
    Look,
    MakePlan,
    Prepare,
    Program,
    Reconcile,
    RunEnd,
    Send,
    Wait,
)
from turnfold.errors import MissingBodyError, NotFoundError, StoreError, UsageError
from turnfold.fold import State
from turnfold.journal import Commit, Journal
from turnfold.machines.entry import Entry
from turnfold.packing import unpack
from turnfold.planning import Plan
from turnfold.ports.channel import Accepted, CannotTell, Rejected
from turnfold.settings import Settings
from turnfold.words import FailureClass

_LOG = logging.getLogger("turnfold")
_AT_ONCE = 20  # lanes that are looked at in one turn of the loop, at the beginning
_SICK_MS = 5_000  # how long a program that broke is left alone

Hook = Callable[[str, Effect], None]
Watch = Callable[[Commit], None]


class AioDriver:
    """`run_handler` calls the embedder; `watch` is told of every commit; `probe` is
    called before and after each effect (tests stop the process there)."""

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
        self.settings, self.desks = settings, desks
        self._run_handler, self._watch, self._probe = run_handler, watch, probe
        self.legs = Legs(journal.store, clock, settings, self.entry, self._late)
        self.epoch = 0  # 0: not the worker
        self.draining = False
        self.deposed = False
        self.troubles = 0
        self.live: dict[Key, asyncio.Task[None]] = {}
        self._again: set[Key] = set()
        self._timers = Timers(clock, self._ring)
        self._queue: list[tuple[Decision, asyncio.Future[Any]]] = []
        self._sends = asyncio.Semaphore(settings.concurrent_sends)
        self._runs = asyncio.Semaphore(settings.concurrent_runs)

    # --- appends: one commit per tick ---

    def submit(self, decision: Decision) -> asyncio.Future[Any]:
        """The future resolves after COMMIT. Cancelling it does not undo the append."""
        loop = asyncio.get_running_loop()
        if not self._queue:
            loop.call_soon(self._flush)
        future: asyncio.Future[Any] = loop.create_future()
        self._queue.append((decision, future))
        return future

    def _flush(self) -> None:
        queue, self._queue = self._queue, []
        commit = self.journal.commit([decision for decision, _ in queue])
        for (_, future), decided in zip(queue, commit.results, strict=True):
            if future.done():
                continue  # its caller was cancelled; the append stands all the same
            if decided.error is not None:
                future.set_exception(decided.error)
            else:
                future.set_result(decided.value)
        self.moved(commit.moved, commit)

    def moved(self, moved: Mapping[str, State], commit: Commit | None = None) -> None:
        """Give every program that has something to do now a chance to do it."""
        for state in moved.values():
            if isinstance(state, Entry):
                self.legs.forget(state)
        if self.epoch:
            if commit is not None:
                self.legs.keep(commit.bodies)
            self.start(agenda.after(moved.values(), self.book, self.epoch))
            self._set_alarm()
        self._watch(commit or Commit([], dict(moved)))

    def refresh(self) -> None:
        """Take in what other processes appended."""
        moved = self.journal.refresh()
        if moved:
            self.moved(moved)

    # --- programs ---

    def start(self, keys: Iterable[Key]) -> None:
        for key in keys:
            if key in self.live:
                self._again.add(key)
            else:
                self._set_out(key)

    def _set_out(self, key: Key) -> None:
        """As far as it goes without waiting. Most programs look around and have
        nothing to do: they need no task."""
        program = agenda.program_of(key)
        try:
            effect = self._looking(key, program)
        except StopIteration as stop:
            self._ended(key, stop.value)
        except Exception:  # noqa: BLE001  a broken program must not stop the others
            self._ended(key, self._broke(key))
        else:
            task = asyncio.create_task(self._live(key, program, effect))
            self.live[key] = task

    async def _live(self, key: Key, program: Program, effect: Effect) -> None:
        until: int | None = None
        try:
            until = await self._perform(key, program, effect)
        except Exception:  # noqa: BLE001  a broken program must not stop the others
            until = self._broke(key)
        finally:
            self.live.pop(key, None)
        self._ended(key, until)

    def _broke(self, key: Key) -> int:
        """Call where its error is at hand. When to try again."""
        self.troubles += 1
        _LOG.exception("program %s %s broke; trying again later", *_named(key))
        return self.clock.now() + _SICK_MS

    def _ended(self, key: Key, until: int | None) -> None:
        if key in self._again and not self.draining:
            self._again.discard(key)
            if key.what != "run":
                self.start([key])
        elif until is not None and key.what != "run":
            self._wake_at(key, until)

    async def _perform(self, key: Key, program: Program, effect: Effect) -> Any:
        """Run a program to its end, answering its effects."""
        while True:
            answer: Any = None
            error: Exception | None = None
            try:
                answer = await self._answer(effect)
            except (StoreError, UsageError) as exc:
                error = exc
            try:
                effect = self._looking(key, program, answer, error)
            except StopIteration as stop:
                return stop.value

    def _looking(
        self,
        key: Key,
        program: Program,
        answer: Any = None,
        error: Exception | None = None,
    ) -> Effect:
        """Let a program go on to the next effect that is not a look. What happened
        before a look has been seen by it, so it is no reason to start again."""
        while True:
            effect = program.throw(error) if error else program.send(answer)
            if not isinstance(effect, Look):
                return effect
            self._again.discard(key)
            answer, error = None, None
            self._tell_probe("before", effect)
            try:
                answer = self.look(effect.question)
            except (StoreError, UsageError) as exc:
                error = exc
            else:
                self._tell_probe("after", effect)

    def _tell_probe(self, when: str, effect: Effect) -> None:
        if self._probe is not None:
            self._probe(when, effect)

    async def _answer(self, effect: Effect) -> Any:
        self._tell_probe("before", effect)
        answer = await self._effect(effect)
        self._tell_probe("after", effect)
        return answer

    async def _effect(self, effect: Effect) -> Any:
        match effect:
            case Append(decision=decision):
                return await self.submit(decision)
            case Look(question=question):
                return self.look(question)
            case MakePlan(entry=entry):
                return self._plan(entry)
            case Prepare(leg=leg):
                return await self._prepare(leg)
            case Send(leg=leg, prepared=prepared):
                return await self._send_in_turn(leg, prepared)
            case Reconcile(leg=leg):
                return await self._reconcile(leg)
            case CallHandler(turn=turn, run=run):
                return await self._run_in_turn(turn, run)
            case Wait():
                return await self._rest(effect)

    async def _run_in_turn(self, turn: str, run: int) -> RunEnd:
        try:
            await self._runs.acquire()
        except asyncio.CancelledError:
            return RunEnd("stopped", "shutdown")  # never called: not its failure
        try:
            return await self._run_handler(turn, run)
        finally:
            self._runs.release()

    def look(self, question: Callable[[Draft], Any]) -> Any:
        """Ask folded state; nothing that the question emits is kept."""
        return question(Draft(self.book, self.journal.context()))

    def entry(self, stream: str) -> Entry:
        found = self.book.state(stream)
        if not isinstance(found, Entry):
            raise NotFoundError(what="entry", id=stream)
        return found

    async def _rest(self, wait: Wait) -> None:
        if wait.trouble is not None:
            self.troubles += 1
            _LOG.warning("%s: %s; trying again", wait.where, wait.trouble)
        await asyncio.sleep(wait.ms / 1000)

    # --- channels ---

    def _desk(self, entry: Entry) -> Attached | None:
        return self.desks.get((entry.channel, entry.account))

    def _plan(self, stream: str) -> Plan | Rejected:
        entry = self.entry(stream)
        desk = self._desk(entry)
        if desk is None:
            return _detached(entry)
        try:
            body = self.journal.store.body
            payloads = [unpack(body(digest), body) for digest in entry.body]
            return desk.plan(payloads, route_of(entry), entry.kind, stream)
        except Exception as exc:  # an adapter's plan may raise anything
            if isinstance(exc, StoreError) and not isinstance(exc, MissingBodyError):
                raise  # a disk may recover; a body that is gone stays gone
            detail = f"plan: {type(exc).__name__}: {exc}"
            return Rejected(failure=FailureClass.INVALID_PAYLOAD, detail=detail)

    async def _prepare(self, leg: Leg) -> Any:
        entry = self.entry(leg.entry)
        desk = self._desk(entry)
        if desk is None or self.draining:
            return _detached(entry) if desk is None else _DRAIN
        return await self.legs.prepare(desk, leg)

    async def _send_in_turn(self, leg: Leg, prepared: Any) -> Any:
        try:
            await self._sends.acquire()
        except asyncio.CancelledError:
            return _DRAIN  # still in our hands: proven not sent
        try:
            return await self._send(leg, prepared)
        finally:
            self._sends.release()

    async def _send(self, leg: Leg, prepared: Any) -> Any:
        entry = self.entry(leg.entry)
        desk = self._desk(entry)
        return (
            _detached(entry)
            if desk is None
            else await self.legs.send(desk, leg, prepared)
        )

    async def _reconcile(self, leg: Leg) -> Asked:
        desk = self._desk(self.entry(leg.entry))
        if desk is None:
            return Asked(CannotTell(detail="channel is not attached"), _SICK_MS)
        return await self.legs.reconcile(desk, leg)

    def _late(self, leg: Leg, outcome: Accepted) -> None:
        """A call that was given up has succeeded after all: that is evidence."""
        if self.epoch or self.deposed:
            future = self.submit(
                lambda draft: settle(draft, leg.entry, leg.part, leg.attempt, outcome)
            )
            future.add_done_callback(_log_failure)

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
        self.epoch, self.deposed, self.draining = 0, True, True
        self._timers.silence()

    async def drain(self, timeout_ms: int) -> None:
        """Start nothing new; let what is on the wire end; then cut it off."""
        self.draining = True
        self._timers.silence()
        tasks = set(self.live.values())
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_ms / 1000)
        self.legs.stopping = True
        while tasks := {task for task in self.live.values() if not task.done()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=1)
        while self._queue:  # noqa: ASYNC110  the flush runs in this very loop
            await asyncio.sleep(0)
        self.epoch = 0


_DRAIN = Rejected(failure=FailureClass.DRAIN)


def _detached(entry: Entry) -> Rejected:
    detail = f"channel {entry.channel}/{entry.account} is not attached"
    return Rejected(failure=FailureClass.NOT_CONNECTED, detail=detail)


def _named(key: Key) -> tuple[str, str]:
    return key.what, key.name


def _log_failure(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and future.exception() is not None:
        _LOG.error("a late success could not be stored: %s", future.exception())
