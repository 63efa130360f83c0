"""The Kernel for programs without asyncio: the same one, in a thread of its own.

Handlers may be plain functions; channels stay `async def`. Every call here waits for the
COMMIT of its event, as its async twin does. `receipt(sent.entry_id)` waits for a receipt.
"""

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from attrs import frozen

from turnfold._decide.accepting import SourceCursor
from turnfold.api.handle import AcceptedTurn
from turnfold.api.kernel import Kernel
from turnfold.enums import Busy, TurnOutcome, TurnPhase
from turnfold.errors import InvalidInputError, NotOpenError
from turnfold.inbound import Inbound
from turnfold.messages import check_kind
from turnfold.wrong_calls import explained

_P = ParamSpec("_P")
_T = TypeVar("_T")


@frozen(kw_only=True)
class BlockingTurn:
    """An accepted turn; `settled()` waits for its end."""

    turn_id: str
    status: TurnPhase
    new: bool | None
    _owner: "BlockingKernel"

    def settled(self, timeout_ms: int | None = None) -> TurnOutcome:
        """Wait until the turn is over. `timeout_ms`: how long, None for ever. Raises
        NotYetError, which is a TimeoutError."""
        return TurnOutcome(self._owner.settled(self.turn_id, timeout_ms))


def _blocking(
    method: Callable[Concatenate[Kernel, _P], Coroutine[Any, Any, _T]],
) -> "Callable[Concatenate[BlockingKernel, _P], _T]":
    """The same method for callers that block: run in the kernel's thread."""

    @wraps(method)
    def blocking(self: "BlockingKernel", /, *args: _P.args, **named: _P.kwargs) -> _T:
        return self.call(method(self.kernel, *args, **named))

    return blocking


@explained
class BlockingKernel:
    """Wraps a Kernel that is not open. Use it as `with BlockingKernel(kernel):`; its
    methods may be called from any thread but the kernel's own."""

    def __init__(self, kernel: Kernel) -> None:
        check_kind("kernel", kernel, Kernel)
        self.kernel = kernel
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Start the thread and open the kernel in it. Raises the errors of
        `Kernel.open`."""
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(started,), name="turnfold", daemon=True
        )
        self._thread.start()
        self._loop = started.result()
        try:
            self.call(self.kernel.open())
        except BaseException:
            self._end()
            raise

    @staticmethod
    def _run(started: "Future[asyncio.AbstractEventLoop]") -> None:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            started.set_result(loop)
            loop.run_forever()

    def close(self) -> None:
        """Drain and close, as `async with` does at its end."""
        if self._loop is None:
            return
        self._check_process()
        try:
            self.call(self.kernel.close())
        finally:
            self._end()

    def _end(self) -> None:
        loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def _check_process(self) -> None:
        """A forked child has no thread that could answer: it would wait for ever."""
        self.kernel._home.check_process()  # noqa: SLF001  no embedder needs this

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run any coroutine of the kernel in its thread and wait for it."""
        given: object = work  # a check of `work` itself would forget its result's type
        if not inspect.iscoroutine(given):
            problem = f"expected a coroutine, got {type(given).__name__}"
            raise InvalidInputError(field="work", problem=problem)
        try:
            self._check_process()
        except NotOpenError:
            work.close()
            raise
        if self._loop is None:
            work.close()
            raise NotOpenError(state="not open")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def accept(
        self,
        inbound: Inbound,
        *,
        cursor: SourceCursor | None = None,
        busy: Busy | str = Busy.QUEUE,
        debounce_ms: int = 0,
    ) -> BlockingTurn:
        """Take a message in, as `Kernel.accept` does."""
        accepted = self.kernel.accept(
            inbound, cursor=cursor, busy=busy, debounce_ms=debounce_ms
        )
        done: AcceptedTurn = self.call(accepted)
        return BlockingTurn(
            turn_id=done.turn_id, status=done.status, new=done.new, owner=self
        )

    # The same arguments, results and errors as the methods of a Kernel.
    advance = _blocking(Kernel.advance)
    enqueue = _blocking(Kernel.enqueue)
    abort = _blocking(Kernel.abort)
    abort_lane = _blocking(Kernel.abort_lane)
    answer = _blocking(Kernel.answer)
    supersede = _blocking(Kernel.supersede)
    connected = _blocking(Kernel.connected)
    disconnected = _blocking(Kernel.disconnected)
    retry = _blocking(Kernel.retry)
    discard = _blocking(Kernel.discard)
    let_go = _blocking(Kernel.let_go)
    hold_back = _blocking(Kernel.hold_back)
    redrive = _blocking(Kernel.redrive)
    resolve = _blocking(Kernel.resolve)
    acknowledge = _blocking(Kernel.acknowledge)
    reschedule = _blocking(Kernel.reschedule)
    bounced = _blocking(Kernel.bounced)
    resubmit = _blocking(Kernel.resubmit)
    unhold = _blocking(Kernel.unhold)
    redact = _blocking(Kernel.redact)
    declare_restored = _blocking(Kernel.declare_restored)
    settled = _blocking(Kernel.settled)
    receipt = _blocking(Kernel.receipt)
    at_rest = _blocking(Kernel.at_rest)

    def ask(self, question: Callable[[Kernel], Any]) -> Any:
        """Run a function of the kernel in its thread: queries, health."""
        if not callable(question):
            problem = (
                f"expected a function of the kernel, got {type(question).__name__}"
            )
            raise InvalidInputError(field="question", problem=problem)

        async def asked() -> Any:
            return question(self.kernel)

        return self.call(asked())
