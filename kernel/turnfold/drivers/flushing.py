"""Everything that is appended in one tick of the loop goes into one transaction.

Decided on the loop, always. Written there too while the disk is quick; where a COMMIT
would stop the loop for milliseconds it is written in a thread, and what is appended
meanwhile makes the next transaction. Nobody can tell the difference but by time:
results are handed out on the loop after COMMIT, and what is folded moves on only then.
See specs/decisions/0016.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial

from turnfold.effects import Decision
from turnfold.journal import Begun, Commit, Decided, Journal
from turnfold.words import Flush

SLOW_MS, QUICK_MS = 2.0, 1.0  # per COMMIT: above it a thread, below it the loop again
_SELDOM = 8  # commits on the loop for one that is timed
_NEW = 0.2  # the weight of the latest COMMIT in the mean

Tell = Callable[[Decided], None]
_Queue = Sequence[tuple[Decision, Tell]]


class Flusher:
    """`stored` is told of each commit before the callers learn their results."""

    def __init__(
        self, journal: Journal, flush: Flush, stored: Callable[[Commit], None]
    ) -> None:
        self._journal, self._stored = journal, stored
        self._mode = flush if journal.store.reads_while_writing else Flush.LOOP
        self._context = copy_context()
        self._queue: list[tuple[Decision, Tell]] = []
        self._thread: ThreadPoolExecutor | None = None
        self._flight: Future[float] | None = None
        self._land: Callable[[], None] = lambda: None
        self._then: Callable[[], None] | None = None
        self._unwatched = 0  # commits until the next one that is timed
        self.wait_ms = 0.0  # for the disk, per COMMIT, smoothed
        self.threaded = self._mode is Flush.THREAD

    def append(self, decision: Decision, tell: Tell) -> None:
        """From anywhere: what follows runs in the context that the kernel was opened
        in, so that nothing a caller or an adapter has set there gets any further."""
        if not self._queue:
            loop = asyncio.get_running_loop()
            loop.call_soon(self._flush, context=self._context)
        self._queue.append((decision, tell))

    def _flush(self) -> None:
        if self._flight is not None or not self._queue:
            return  # what is in the air flushes the rest when it lands
        queue, self._queue = self._queue, []
        decisions = [decision for decision, _ in queue]
        try:
            begun = self._journal.begin(decisions)
            if self.threaded:
                self._take_off(queue, begun)
                return
            self._write(begun)
            commit = self._journal.finish(begun)
        except Exception as exc:  # noqa: BLE001  it becomes the callers' results
            commit = self._journal.failed(decisions, exc)
        self._hand_out(queue, commit)

    def _write(self, begun: Begun) -> None:
        """Timed now and then: reading a thread's clock is a call to the system."""
        self._unwatched -= 1
        if self._unwatched >= 0:
            begun.write()
            return
        self._unwatched = _SELDOM
        self._saw(_timed(begun))

    def _hand_out(self, queue: _Queue, commit: Commit) -> None:
        try:
            self._stored(commit)
        finally:  # whoever waits learns what is durable, whatever else goes wrong
            for (_, tell), decided in zip(queue, commit.results, strict=True):
                tell(decided)

    # --- in a thread ---

    def _take_off(self, queue: _Queue, begun: Begun) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "turnfold-flush")
        loop = asyncio.get_running_loop()
        self._flight = flight = self._thread.submit(_timed, begun)
        self._land = partial(self._landed, flight, queue, begun)
        flight.add_done_callback(
            lambda _: loop.call_soon_threadsafe(
                self._arrive, flight, context=self._context
            )
        )

    def _arrive(self, flight: "Future[float]") -> None:
        if self._flight is flight:  # else it was waited for
            self._land()

    def _landed(self, flight: "Future[float]", queue: _Queue, begun: Begun) -> None:
        self._flight = None
        decisions = [decision for decision, _ in queue]
        try:
            self._saw(flight.result())
            commit = self._journal.finish(begun)
        except Exception as exc:  # noqa: BLE001  it becomes the callers' results
            commit = self._journal.failed(decisions, exc)
        self._hand_out(queue, commit)
        then, self._then = self._then, None
        if then is not None:
            then()
        self._flush()

    @property
    def busy(self) -> bool:
        """A transaction is open: the store's writing side belongs to its thread."""
        return self._flight is not None

    def land(self) -> None:
        """Wait, with the loop standing still, until no transaction is open: for who
        needs the writing side of the store now."""
        if self._flight is not None:
            self._flight.exception()
            self._land()

    def after(self, then: Callable[[], None]) -> None:
        """Once no transaction is open; at once if none is. The latest one wins."""
        if self._flight is None:
            then()
        else:
            self._then = then

    # --- the end ---

    async def rested(self) -> None:
        """Until everything that was appended is stored."""
        while self._queue or self._flight is not None:
            if self._flight is not None:
                await asyncio.wait({asyncio.wrap_future(self._flight)})
            await asyncio.sleep(0)

    def close(self) -> None:
        """Forget what is not in a transaction yet; end the thread."""
        self._queue.clear()
        if self._flight is not None:
            self._flight.exception()
            self._flight = None
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def _saw(self, wait_ms: float) -> None:
        self.wait_ms += _NEW * (wait_ms - self.wait_ms)
        if self._mode is Flush.AUTO:
            limit = QUICK_MS if self.threaded else SLOW_MS
            self.threaded = self.wait_ms > limit


def _timed(begun: Begun) -> float:
    """COMMIT, and how many ms of it were spent waiting: its time less the processor's,
    for the rows of a large batch are work and no reason for a thread."""
    wall, work = time.perf_counter(), time.thread_time()
    begun.write()
    return 1000 * (time.perf_counter() - wall - time.thread_time() + work)
