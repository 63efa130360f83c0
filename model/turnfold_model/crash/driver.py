"""The synchronous driver: one life of a process, stepped by hand, ended anywhere.

It runs the same programs as production, one effect at a time in an order that the
caller chooses, and tells `stop` before each effect and after it happened but before the
program learns of it. If the caller copies or ends the process there, that is a crash:
every crash there is. The caller acts as channels and handlers, too.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

from attrs import define, frozen

from turnfold._decide import inbox
from turnfold._decide.missing import NotLoaded
from turnfold._decide.unit_of_work import AttemptRef, UnitOfWork
from turnfold._runtime import scheduler
from turnfold._runtime.committer import Commit, Committer
from turnfold._runtime.programs import (
    Append,
    CallHandler,
    Decision,
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
    append_until_stored,
)
from turnfold._runtime.scheduler import Key
from turnfold._runtime.sender import Register
from turnfold._state.entry import Entry
from turnfold.errors import StoreError, UsageError
from turnfold.ports.channel import Outcome, Unknown
from turnfold.ports.store import Command, now

SICK_MS = 5_000  # the pause of a program that broke


class Environment(Protocol):
    """The world of one process. Each method answers an effect at once, except `send`:
    it starts a request, and `answer` collects the answer."""

    def now(self) -> int: ...

    def waiting(self) -> Sequence[Command]:
        """The commands in the inbox. Raises NotOpenError, StoreError."""

    def saw(self, commit: Commit) -> None:
        """Called after each commit, before its consequences."""

    def plan(self, effect: MakePlan) -> Any: ...

    def prepare(self, effect: Prepare) -> Any: ...

    def send(self, effect: Send) -> None: ...

    def answer(self, effect: Send) -> Any: ...

    def reconcile(self, effect: Reconcile) -> Any: ...

    def handler(self, effect: CallHandler) -> Program: ...

    def stop(self, when: str, effect: object) -> None:
        """Called around each effect; raising ends this life."""


@frozen
class Act:
    """An effect of the environment's own programs, such as acknowledging a message."""

    does: Callable[[], Any]


@define
class Live:
    """A program and the value that it is given next."""

    key: object
    program: Program
    answer: Any = None
    error: Exception | None = None
    in_flight: Send | None = None
    sent: bool = False
    attempt: AttemptRef | None = None  # of a program that sends
    until: int | None = None  # resting until then


class CrashDriver:
    """One life. `alive` holds its programs in the order they became so."""

    def __init__(self, journal: Committer, around: Environment, epoch: int) -> None:
        self.journal, self.book, self.around = journal, journal.book, around
        self.epoch = epoch  # 0: a client, which never works
        self.alive: dict[object, Live] = {}
        self.timers: dict[Key, int] = {}
        self.taking_over = False  # the inbox is not read yet
        self.register = Register()
        self._again: set[object] = set()
        self.effects = 0
        self.broken = 0  # programs that an error ended

    def begin(self) -> None:
        if self.epoch:
            self.taking_over = True
            self.start([scheduler.TAKE_OVER])

    @property
    def works(self) -> bool:
        return bool(self.epoch) and not self.taking_over

    def start(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self.timers.pop(key, None)
            if key in self.alive:
                self._again.add(key)
            else:
                self._begin(key)

    def _begin(self, key: Key) -> None:
        program = scheduler.program_of(key, self.register)
        if program is not None:
            sends = key.what == "send"
            attempt = self.register.speaks_for(key.name) if sends else None
            self.alive[key] = Live(key, program, attempt=attempt)

    def add(self, key: object, program: Program) -> None:
        """Add a program of the environment: an inbound message, an abort."""
        self.alive[key] = Live(key, program)

    def ready(self) -> list[Live]:
        """The programs that can take a step now."""
        now = self.around.now()
        return [p for p in self.alive.values() if p.until is None or p.until <= now]

    def next_time(self) -> int | None:
        """The time of the next due program, if none is ready."""
        due = [p.until for p in self.alive.values() if p.until is not None]
        due += self.timers.values()
        deadline = self.book.next_deadline()
        if self.works and deadline is not None:
            due.append(deadline)
        return min(due, default=None)

    def tick(self) -> None:
        """Time has moved: wake the programs that are due, and read a store that was in doubt."""
        if self.journal.lost:
            try:
                self.refresh()
            except StoreError:
                return  # still failing; the next tick tries again
        now = self.around.now()
        self.start([key for key, due in self.timers.items() if due <= now])
        if self.works:
            self.start(Key("expiry", s) for s in self.book.overdue(now))

    def step(self, live: Live) -> None:
        """Let one program go as far as its next effect, and do that effect."""
        live.until = None
        if live.in_flight is not None:
            self._collect(live)
            return
        try:
            effect = self._resume(live)
        except StopIteration as ended:
            self._ended(live, ended.value)
            return
        except (StoreError, UsageError):  # broken: again in a while, as in production
            self.broken += 1
            self._ended(live, self.around.now() + SICK_MS)
            return
        self._do(live, effect)

    def _resume(self, live: Live) -> Effect | Act:
        error, answer = live.error, live.answer
        live.error, live.answer = None, None
        if error is not None:
            return live.program.throw(error)
        return live.program.send(answer)

    def _do(self, live: Live, effect: Effect | Act) -> None:
        if isinstance(effect, Look | TakeUp | Work | Hear):  # no effect on the world
            self._inside(live, effect)
            self.step(live)
            return
        self.effects += 1
        self.around.stop("before", effect)
        try:
            live.answer = self._perform(live, effect)
        except (StoreError, UsageError) as exc:
            live.error = exc
        self.around.stop("after", effect)

    def _inside(self, live: Live, effect: Look | TakeUp | Work | Hear) -> None:
        try:
            match effect:
                case Look(question=question):
                    live.answer = self.look(question)
                case TakeUp(attempt=attempt):
                    self.start(scheduler.taken_up([attempt], self.register))
                case Work():
                    self.taking_over = False
                    self.start(scheduler.at_start(self.book))
                case Hear():
                    self._hear(live)
        except (StoreError, UsageError) as exc:  # as in production
            live.error = exc

    def _hear(self, live: Live) -> None:
        """Log all commands in the inbox, and repeat; answer when the inbox is empty."""
        if commands := self.around.waiting():
            live.program = _nested(_logged(commands), live.program)

    def look(self, question: Decision) -> Any:
        """Ask folded state; streams that are not in memory are fetched."""
        try:
            return question(UnitOfWork(self.book, self.journal.context()))
        except NotLoaded:
            return now(self.journal.commit([question])).results[0].get()

    def _perform(self, live: Live, effect: Effect | Act) -> Any:  # noqa: C901  one case per effect
        match effect:
            case Append(decision=decision):
                return self.append(decision)
            case MakePlan():
                return self.around.plan(effect)
            case Prepare():
                return self.around.prepare(effect)
            case Send():
                return self._send(live, effect)
            case Reconcile():
                return self.around.reconcile(effect)
            case CallHandler():
                handler = _called(self.around.handler(effect))
                live.program = _nested(handler, live.program)
                return None
            case Post(command=command):
                return now(self.journal.store.post((command,)))[0]
            case Wait(ms=ms):
                live.until = self.around.now() + ms
                return None
            case Act(does=does):
                return does()
            case Look() | TakeUp() | Work() | Hear():
                raise AssertionError  # answered above

    def _send(self, live: Live, effect: Send) -> Outcome | None:
        """A program that begins again gets the outcome of its attempt. A program with
        an attempt that a late receipt has overtaken gets the receipt, as
        `_runtime/sender.py` does. A program's act that comes twice or too early is not
        hidden: the search must find it."""
        taken = self.register.find(effect.attempt)
        if taken is None and live.attempt == effect.attempt:
            return Unknown(cause="overtaken")
        if taken is not None:
            if taken.sent and not live.sent:
                return taken.outcome or Unknown(cause="sent_before")
            taken.sent = live.sent = True
        self.around.send(effect)
        live.in_flight = effect
        return None

    def _collect(self, live: Live) -> None:
        assert live.in_flight is not None  # noqa: S101  asked by step()
        effect, live.in_flight = live.in_flight, None
        live.answer = self.around.answer(effect)
        taken = self.register.find(effect.attempt)
        if taken is not None:
            taken.outcome = live.answer
        self.around.stop("answered", effect)

    def append(self, decision: Decision) -> Any:
        commit = now(self.journal.commit([decision]))
        self.moved(commit)
        return commit.results[0].get()

    def refresh(self) -> None:
        """Read the records that memory lacks: of a commit of unknown fate, or of a worker
        that has lost its place and goes on."""
        if now(self.journal.suspects()):
            self.append(lambda _: None)

    def moved(self, commit: Commit) -> None:
        self.around.saw(commit)
        states, register = commit.moved.values(), self.register
        for state in states:
            if isinstance(state, Entry):
                register.moved(state)
        if self.works:
            self.start(scheduler.taken_up(commit.attempts, register))
            self.start(scheduler.after(states, self.book, self.epoch, register))

    def _ended(self, live: Live, until: object) -> None:
        key = live.key
        del self.alive[key]
        again = key in self._again
        self._again.discard(key)
        if not isinstance(key, Key) or key.what == "run":
            return
        if again:
            self.start([key])
        elif isinstance(until, int):
            self.timers[key] = until


def _called(handler: Program) -> Program:
    try:
        return (yield from handler)
    except UsageError as exc:  # StaleRunError: the turn is over without it
        return RunEnd("stopped", exc.code)


def _logged(commands: Sequence[Command]) -> Program:
    """The owner logs the posted commands, one per commit."""
    for command in commands:
        yield from append_until_stored(partial(inbox.apply, command=command))
    yield Hear()


def _nested(inner: Program, outer: Program) -> Program:
    """Run a program that an effect of another one asks for, then go on with that."""
    answer = error = None
    try:
        answer = yield from inner
    except (StoreError, UsageError) as exc:
        error = exc
    try:
        effect = outer.throw(error) if error else outer.send(answer)
        while True:
            try:
                answer = yield effect
            except Exception as exc:  # noqa: BLE001  it belongs to the outer program
                effect = outer.throw(exc)
            else:
                effect = outer.send(answer)
    except StopIteration as ended:
        return ended.value
