"""All appends of one tick of the loop go into one commit."""

import asyncio
from collections.abc import Callable
from contextvars import Context as Variables
from contextvars import copy_context
from functools import partial
from typing import Any

from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._runtime.committer import Commit, Committer, Decided, Decision
from turnfold.errors import NotOpenError
from turnfold.logs import lines
from turnfold.ports.store import Wanted

_LOG = lines()
_Tell = Callable[[Decided], None]
_Queue = list[tuple[Decision, _Tell]]
_AGAIN_S = 0.05  # after the task was cut off
PROBE_S = 2.0  # between the probes of a store that refuses appends


class GroupCommit:
    """`stored` is called for each commit before the callers get their results.

    The task survives whoever cancels all tasks of the loop, as `asyncio.run` does at its
    end: what a gateway does then may need an append. It begins anew when there is
    work, and ends with it."""

    def __init__(self, journal: Committer, stored: Callable[[Commit], None]) -> None:
        self._journal, self._stored = journal, stored
        self._queue: _Queue = []
        self._wanted: list[Wanted] = []
        self._work: asyncio.Future[None] | None = None  # set while the task is idle
        self._task: asyncio.Task[None] | None = None
        self._context: Variables | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._since: float | None = None  # loop time since when an append waits
        self._refused: float | None = None  # since when the store takes none
        self._probing: asyncio.TimerHandle | None = None  # the next probe

    def waiting_ms(self) -> int | None:
        """The age of the oldest append that is not stored; None if there is none."""
        if self._since is None:
            return None
        return int((asyncio.get_running_loop().time() - self._since) * 1_000)

    def refused_ms(self) -> int | None:
        """Since when the store has refused every append; None if it took the last one.
        A caller gets the error; an outcome waits, and is tried again."""
        if self._refused is None:
            return None
        return int((asyncio.get_running_loop().time() - self._refused) * 1_000)

    def start(self) -> None:
        """Begin to commit. All work after a commit runs in the context of this call, so
        no context variable of one caller reaches another one."""
        self._context = copy_context()
        self._make_task(once=False)

    def _make_task(self, *, once: bool) -> None:
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run(once=once), context=self._context)
        self._task.add_done_callback(self._has_ended)

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        """Nobody asked the task to end, if appends are still taken."""
        torn = task.cancelled() or task.exception() is not None
        if self._closed:
            self._idle.set()
        elif task is self._task:
            self._task = None
            if self._queue:
                wait = _AGAIN_S if torn else 0
                asyncio.get_running_loop().call_later(wait, self._revive)

    def _revive(self) -> None:
        if self._task is None and self._context is not None and not self._closed:
            self._make_task(once=True)

    def submit(
        self, decision: Decision, wanted: Wanted | None = None
    ) -> asyncio.Future[Any]:
        """A future of the decision's answer, done after its COMMIT. Cancelling the
        future does not undo the append. `wanted`: state that the decision is known to
        need."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if wanted is not None and not self._closed:
            self._wanted.append(wanted)
        self.hand_in(decision, partial(_resolve, answer))
        return answer

    def hand_in(self, decision: Decision, tell: _Tell) -> None:
        """As `submit`, for a caller that does not wait in a task. `tell` gets the result
        right after the COMMIT, and must not raise."""
        if self._closed:
            tell(Decided(error=NotOpenError(state="closed")))
            return
        if not self._queue:
            self._begin()
        self._queue.append((decision, tell))

    def _begin(self) -> None:
        """Wake the task: an append waits."""
        self._idle.clear()
        if self._since is None:
            self._since = asyncio.get_running_loop().time()
        if self._work is not None and not self._work.done():
            self._work.set_result(None)
        elif self._task is None:
            self._revive()

    async def _run(self, *, once: bool) -> None:
        while True:
            while self._queue:
                await self._commit()
                self._since = None
                if self._queue:
                    self._since = asyncio.get_running_loop().time()
            self._idle.set()
            if once:
                return
            self._work = asyncio.get_running_loop().create_future()
            await self._work

    async def _commit(self) -> None:
        queue, self._queue = self._queue, []
        wanted, self._wanted = self._wanted, []
        try:
            commit = await self._journal.commit([d for d, _ in queue], wanted)
        except BaseException:  # cut off where it stands
            self._put_back(queue, wanted)
            raise
        self._look_at_store()
        try:
            self._stored(commit)
        except Exception:  # noqa: BLE001  callers still get durable results
            _LOG.exception("a step after a commit failed; the commit is stored")
        finally:
            for (_, tell), decided in zip(queue, commit.results, strict=True):
                tell(decided)

    def _look_at_store(self) -> None:
        """A store that refused this commit is asked again, whether or not appends come."""
        loop, trouble = asyncio.get_running_loop(), self._journal.trouble
        if trouble is None:
            self._refused = None
            return
        if self._refused is None:
            self._refused = loop.time()
            _LOG.warning("the store takes no append; it is asked again: %s", trouble)
        if self._probing is None:  # one probe at a time, however many appends came
            self._probing = loop.call_later(PROBE_S, self._probe)

    def _probe(self) -> None:
        self._probing = None
        idle = not self._queue and self._idle.is_set() and not self._closed
        if idle and self._refused is not None and self._journal.replaced is None:
            self.hand_in(probed, _ignored)

    def _put_back(self, queue: _Queue, wanted: list[Wanted]) -> None:
        """Decide these again, after a look at what of them was stored."""
        if self._closed:
            _refuse(queue, NotOpenError(state="closed"))
            return
        self._journal.cut_off()
        self._queue, self._wanted = queue + self._queue, wanted + self._wanted

    async def rested(self) -> None:
        """Return when all appends are stored."""
        await self._idle.wait()

    def abandon(self) -> None:
        """Stop at once, as in a crash: nothing more is stored, and no caller gets a
        result."""
        self._closed = True
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Refuse the appends that wait; let a commit under way end."""
        self._closed = True
        queue, self._queue = self._queue, []
        _refuse(queue, NotOpenError(state="closed"))
        task, self._task = self._task, None
        if task is not None and not task.done():
            await self._idle.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _resolve(answer: asyncio.Future[Any], decided: Decided) -> None:
    if answer.done():
        return  # its caller was cancelled; the append is stored all the same
    if isinstance(decided.error, StopIteration):  # no future takes it
        error = RuntimeError("a decision raised StopIteration")
        error.__cause__ = decided.error
        answer.set_exception(error)
    elif decided.error is not None:
        answer.set_exception(decided.error)
    else:
        answer.set_result(decided.value)


def _ignored(_decided: Decided) -> None:
    """Of a probe: the committer has noted its success or failure."""


def _refuse(queue: _Queue, error: Exception) -> None:
    for _, tell in queue:
        tell(Decided(error=error))


def probed(draft: UnitOfWork) -> None:
    """A commit that says nothing: an answer that nobody asked for. The store drops the
    oldest answers, so it is no leftover."""
    draft.take_out(f"probe:{draft.now}", b"{}")
