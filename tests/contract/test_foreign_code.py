"""Foreign code that raises anything, answers anything, or never ends.

Every kind of misbehaviour goes through every place where the kernel calls foreign code.
For each pair: nothing hangs, the message that met it has a visible end or waits in
sight, another account goes on, health tells of it, and `close()` ends. `-s` prints the
table.
"""

import asyncio
import gc
import math
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any

import pytest

from turnfold._runtime import calls, channel, programs
from turnfold.api import sources
from turnfold.api.kernel import Kernel
from turnfold.audit import audit_store
from turnfold.enums import DeliveryClass, FailureClass
from turnfold.errors import OwnedError, StaleRunError, TurnfoldError
from turnfold.ports.channel import (
    Accepted,
    Capabilities,
    Found,
    PartClass,
    Receipt,
    Rejected,
)
from turnfold.ports.store import Summary
from turnfold.settings import Settings
from turnfold_adapters.stores.memory import MemoryDisk, MemoryStore
from turnfold_model.testing.gateway import NoJitter, inbound, until


class OwnError(BaseException):
    """Neither Exception nor anything that Python knows."""


class NoTextError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no str")

    __repr__ = __str__


class ExitingTextError(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class Evil:
    """Every look at it ends the process."""

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        raise SystemExit(4)

    def __bool__(self) -> bool:
        raise SystemExit(5)

    def __eq__(self, other: object) -> bool:
        raise SystemExit(6)

    def __getattr__(self, name: str) -> Any:
        raise SystemExit(7)


class HiddenCausesError(Exception):
    """As an error of a proxy to another process, whose attributes are calls."""

    @property
    def __cause__(self) -> Any:  # type: ignore[override]  # that is the fault
        raise OwnError("cause")

    @property
    def __context__(self) -> Any:  # type: ignore[override]  # as above
        raise OwnError("context")

    @property
    def retry_after(self) -> Any:
        raise OwnError("retry_after")

    @property
    def response(self) -> Any:
        raise OwnError("response")


class Classless:
    @property
    def __class__(self) -> Any:  # type: ignore[override]  # as above
        raise OwnError("class")


class EvilText(str):
    """A text of a class of its own, which ends the process when it is compared."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise SystemExit(8)

    def __hash__(self) -> int:
        raise SystemExit(9)

    def __str__(self) -> str:
        raise SystemExit(10)

    __repr__ = __format__ = __str__  # type: ignore[assignment]  # that is the fault


class EvilNumber(int):
    def __eq__(self, other: object) -> bool:
        raise SystemExit(11)

    __lt__ = __gt__ = __le__ = __ge__ = __eq__

    def __hash__(self) -> int:
        raise SystemExit(12)


class EvilSubclass(Accepted):
    """Is an answer, and raises when it is read."""

    def __getattribute__(self, name: str) -> Any:
        raise OwnError(name)


async def _generator() -> Any:
    yield "x"


LATE: list[Any] = []


def _late_task() -> None:
    """A task that raises when nobody waits for it any more."""

    async def fails() -> None:
        await asyncio.sleep(0.001)
        raise OwnError("in a task")

    LATE.append(asyncio.get_running_loop().create_task(fails()))


def _late_thread() -> None:
    thread = threading.Thread(target=_recursion, daemon=True)
    LATE.append(thread)
    thread.start()


def _late_callback() -> None:
    """As a client library that calls back into the loop."""
    asyncio.get_running_loop().call_soon(_raising(lambda: OwnError("in a callback")))


def _cancels_itself() -> None:
    """Asks for the cancellation of the task that it runs in."""
    task = asyncio.current_task()
    if task is not None:
        task.cancel()


def _recursion() -> None:
    _recursion()


async def _coroutine() -> str:
    return "never awaited"


def _raising(make: Callable[[], BaseException]) -> Callable[[], Any]:
    def act() -> Any:
        raise make()

    return act


ERRORS: dict[str, Callable[[], Any]] = {
    "ValueError": _raising(lambda: ValueError("x")),
    "OSError": _raising(lambda: OSError("line is down")),
    "TimeoutError": _raising(TimeoutError),
    "MemoryError": _raising(MemoryError),
    "RecursionError": _recursion,
    "StopIteration": _raising(StopIteration),
    "StopAsyncIteration": _raising(StopAsyncIteration),
    "GeneratorExit": _raising(GeneratorExit),
    "CancelledError": _raising(asyncio.CancelledError),
    "KeyboardInterrupt": _raising(KeyboardInterrupt),
    "SystemExit": _raising(lambda: SystemExit(3)),
    "own BaseException": _raising(lambda: OwnError("x")),
    "group": _raising(lambda: BaseExceptionGroup("g", [KeyboardInterrupt()])),
    "text raises": _raising(NoTextError),
    "text exits": _raising(ExitingTextError),
    "hidden causes": _raising(HiddenCausesError),
    "lone surrogate": _raising(lambda: ValueError("\ud800")),
    "huge text": _raising(lambda: ValueError("x" * 1_000_000)),
    "control characters": _raising(lambda: ValueError("\0\x1b[31m")),
    "error of turnfold": _raising(lambda: OwnedError(path="x", owner="foreign code")),
    "stale run": _raising(lambda: StaleRunError(turn="turn:x", run=1, why="foreign")),
}
ANSWERS: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "a number": lambda: 7,
    "a text": lambda: "id",
    "a mapping": lambda: {"ok": True, "id": 5},
    "no text in it": lambda: Accepted(receipt=Receipt(ids=(None,))),  # type: ignore[arg-type]  # that is the fault
    "no such class": lambda: Rejected(failure="no such"),  # type: ignore[arg-type]  # as above
    "evil": Evil,
    "hides its class": Classless,
    "a class": lambda: Accepted,
    "a coroutine": _coroutine,
    "an exception": lambda: ValueError("x"),
    "a generator": lambda: (i for i in [1]),
    "an async generator": _generator,
    "NaN": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "a wait of NaN": lambda: Rejected(
        failure=FailureClass.RATE_LIMITED,
        retry_after_ms=math.nan,  # type: ignore[arg-type]  # as above
    ),
    "an endless wait": lambda: Rejected(
        failure=FailureClass.RATE_LIMITED, retry_after_ms=10**30
    ),
    "a huge list": lambda: ["x"] * 1_000_000,
    "a huge text": lambda: "x" * 3_000_000,
    "a huge id": lambda: Accepted(receipt=Receipt(ids=("x" * 1_000_000,))),
    "ids without end": lambda: Accepted(receipt=Receipt(ids=repeat("1"))),  # type: ignore[arg-type]  # as above
    "evil text": lambda: EvilText("x"),
    "evil number": lambda: EvilNumber(1),
    "evil id": lambda: Accepted(receipt=Receipt(ids=(EvilText("x"),))),
    "evil class of failure": lambda: Rejected(failure=EvilText("auth")),  # type: ignore[arg-type]  # as above
    "evil wait": lambda: Rejected(
        failure=FailureClass.RATE_LIMITED, retry_after_ms=EvilNumber(1)
    ),
    "evil subclass": lambda: EvilSubclass(receipt=Receipt(ids=("1",))),
    "blocks the loop": lambda: time.sleep(0.1),
    "late task": _late_task,
    "late thread": _late_thread,
    "late callback": _late_callback,
    "cancels itself": _cancels_itself,
}
HANGS = ("hangs", "hangs, deaf")
KINDS = (*ERRORS, *ANSWERS, *HANGS)


async def _hangs(kind: str) -> None:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if kind == "hangs":
                raise
            DEAF.append(asyncio.current_task())
            await asyncio.sleep(0.3)  # longer than any grace
            return


DEAF: list[Any] = []


def now(kind: str) -> Any:
    """Misbehave in a plain function."""
    return (ERRORS.get(kind) or ANSWERS[kind])()


async def later(kind: str) -> Any:
    """Misbehave in an async function."""
    if kind in HANGS:
        return await _hangs(kind)
    return now(kind)


ACCEPTED = Accepted(receipt=Receipt(ids=("1",)))
LOOKUP = Capabilities(
    parts={"text": PartClass(classes=(DeliveryClass.LOOKUP,), settle_ms=0)}
)


class Good:
    async def send(self, part: Any, key: str, attempt: Any) -> Any:
        return ACCEPTED


class Bad(Good):
    """A channel that misbehaves in one place only."""

    capabilities = LOOKUP

    def __init__(self, place: str, kind: str) -> None:
        self.place, self.kind = place, kind
        self.met = 0
        if place == "prepare":
            self.prepare = self._later
        if place == "plan":
            self.plan = self._now
        if place == "classify":
            self.classify = self._now
        if place == "close":
            self.aclose = self._later

    async def _later(self, *_: Any) -> Any:
        self.met += 1
        return await later(self.kind)

    def _now(self, *_: Any) -> Any:
        self.met += 1
        return now(self.kind)

    async def send(self, part: Any, key: str, attempt: Any) -> Any:
        if self.place == "send":
            return await self._later()
        if self.place in ("reconcile", "classify"):
            raise ConnectionError("lost")
        if self.place in ("hook", "async hook"):
            return Rejected(failure=FailureClass.PERMISSION)
        return ACCEPTED

    async def reconcile(self, part: Any, since_ms: int) -> Any:
        if self.place == "reconcile":
            return await self._later()
        return Found(receipt=Receipt(ids=("x",)))


ASYNC = ("handler", "source", "async hook", "prepare", "send", "reconcile", "close")
PLACES = (*ASYNC, "hook", "plan", "classify", "read")
FAST = Settings(
    backoff_base_ms=1,
    backoff_cap_ms=2,
    max_failures=2,
    max_runs=2,
    max_lookups=2,
    attempt_deadline_ms=60,
    run_deadline_ms=60,
    hook_deadline_ms=60,
    drain_ms=1_000,
)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "GRACE_S", 0.02)
    monkeypatch.setattr(channel, "_CLOSING_S", 0.05)
    monkeypatch.setattr(sources, "_PAUSE_S", 0.001)
    monkeypatch.setattr(programs, "BACK_OFF_MS", 2)
    DEAF.clear()


def _kernel(store: MemoryStore, bad: Bad) -> Kernel:
    kernel = Kernel(store, settings=FAST, entropy=NoJitter())
    kernel.attach("bad", bad, on_unknown="hold")
    kernel.attach("good", Good(), on_unknown="hold")
    place = bad.place

    @kernel.on_turn
    async def answer(turn: Any) -> Any:
        if place == "handler" and turn.inbound.channel == "bad":
            return await bad._later()
        await turn.reply("x")
        return None

    if place == "source":
        kernel.source("bad", _source(bad))
    if place == "read":
        kernel.source("bad", _two_updates, read=partial(_read, bad))
    if place == "hook":
        kernel.hooks.on_terminal(bad._now)
    if place == "async hook":
        kernel.hooks.on_terminal(bad._later)
    return kernel


async def _two_updates(_: str | None) -> Any:
    yield "odd", "1"
    yield "even", "2"
    await asyncio.Event().wait()


def _read(bad: Bad, update: Any) -> Any:
    return bad._now() if update == "odd" else inbound("9", channel="good")


def _source(bad: Bad) -> Callable[[str | None], Any]:
    """The first start misbehaves; the second brings a message."""

    async def raises() -> Any:
        bad.met += 1
        await later(bad.kind)
        yield None, "never"

    async def brings() -> Any:
        yield inbound("9", channel="good"), "1"
        await asyncio.Event().wait()

    def start(cursor: str | None) -> Any:
        if bad.met:
            return brings()
        if bad.kind not in ANSWERS:
            return raises()
        bad.met += 1
        return now(bad.kind)

    return start


async def _one(place: str, kind: str) -> str:
    disk, bad = MemoryDisk(), Bad(place, kind)
    kernel = _kernel(MemoryStore(disk), bad)
    await kernel.open()
    await kernel.accept(inbound("1", channel="bad"))
    try:
        if place == "source" and kind not in HANGS:
            await until(lambda: kernel.health()["sources"]["bad/default"]["items"] >= 1)
            await until(lambda: kernel.health()["sources"]["bad/default"]["restarts"])
        if place == "read":
            await until(lambda: kernel.health()["sources"]["bad/default"]["items"] == 2)
        met = place in ("close", "source")
        await until(lambda: met or bad.met)
        fate = await _fate(disk, kernel)
        good = await kernel.accept(inbound("2", channel="good"))
        assert await good.settled(3_000) == "replied"
        _tells(kernel, place, kind)
    finally:
        await asyncio.wait_for(kernel.close(), 5)
    assert bad.met
    await asyncio.gather(*DEAF, return_exceptions=True)
    DEAF.clear()
    gc.collect()
    store = MemoryStore(disk)
    await store.open()
    report = await audit_store(store)
    await store.close()
    assert report.passed, report.first
    return fate


async def _fate(disk: MemoryDisk, kernel: Kernel) -> str:
    """What became of the message that met it: closed, or parked for a person, or it
    waits in sight."""

    def known() -> object:
        rest = all(map(_at_rest, disk.summaries.values()))
        return rest or kernel.health()["gates"]

    await until(known)
    met = [s for s in disk.summaries.values() if s.stream.startswith("entry:")]
    return ", ".join(sorted({s.phase for s in met})) or "silent"


def _at_rest(summary: Summary) -> bool:
    if summary.stream.startswith("turn:"):
        return summary.phase not in ("accepted", "running")
    return not summary.open or summary.phase == "parked"


# They answer None, which is a reader's word for an update without a message.
QUIET = ("None", "blocks the loop", "cancels itself")
QUIET += ("late task", "late thread", "late callback")
NO_BUGS = ("OSError", "TimeoutError")  # so a platform says that its line is down


def _tells(kernel: Kernel, place: str, kind: str) -> None:
    health = kernel.health()
    assert health["working"]
    if place == "source" and kind not in HANGS:
        facts = health["sources"]["bad/default"]
        assert (facts["restarts"], facts["state"]) == (1, "reading")
    whose = {"handler": "handler", "hook": "hooks", "async hook": "hooks"}
    told = whose.get(place, "bad/default")
    if place == "read":
        assert health["sources"]["bad/default"]["restarts"] == 0
        assert health["dead_turns"] == (kind not in QUIET)
    counted = place not in ("source", "read", "close") and kind in ERRORS
    if counted and not (told == "bad/default" and kind in NO_BUGS):
        assert health["foreign_bugs"][told], (place, kind)
    if place == "handler" and kind in HANGS:
        assert health["foreign_bugs"]["handler"] == 2


@pytest.mark.case("U01", "U06", "U09", "U11", "U12", "T05", "L07")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("place", PLACES)
async def test_no_kind_of_misbehaviour_in_any_place_stops_a_gateway(
    place: str, short: None, caplog: pytest.LogCaptureFixture
) -> None:
    kinds = [kind for kind in KINDS if kind not in HANGS or place in ASYNC]
    for kind in kinds:
        caplog.clear()
        async with asyncio.timeout(20):
            fate = await _one(place, kind)
        if kind in ERRORS and (place in NOT_A_CHANNEL or kind not in NO_BUGS):
            assert any(r.exc_info for r in caplog.records), (place, kind)
        print(f"{place:12} {kind:22} {fate}")  # noqa: T201  the table, shown by -s
    assert len(kinds) >= 32


# Where a broken connection is shown with its traceback, too.
NOT_A_CHANNEL = ("handler", "hook", "async hook", "close")


@pytest.mark.case("U06")
@pytest.mark.parametrize("kind", ERRORS)
def test_a_channel_that_cannot_be_looked_at_is_refused_by_a_typed_error(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a loop, Ctrl-C is Ctrl-C. A test runner in the background ignores it."""
    usual = signal.default_int_handler
    monkeypatch.setattr(signal, "getsignal", lambda _: usual)

    class Shy(Good):
        @property
        def capabilities(self) -> Any:
            return now(kind)

    kernel = Kernel(MemoryStore(MemoryDisk()))
    error = KeyboardInterrupt if kind == "KeyboardInterrupt" else TurnfoldError
    with pytest.raises(error):
        kernel.attach("shy", Shy(), on_unknown="hold")
