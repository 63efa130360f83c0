"""Everything that is appended in one tick of the loop goes into one commit.

One task decides and stores, commit after commit. Decisions that arrive while a commit
waits for the disk make the next one. A caller learns its result after the COMMIT.
Whether a commit waits in a thread is the store's own business.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any

from turnfold.effects import Decision
from turnfold.errors import NotOpenError
from turnfold.journal import Commit, Decided, Journal
from turnfold.ports.store import Wanted

_LOG = logging.getLogger("turnfold")
Tell = Callable[[Decided], None]
_Queue = Sequence[tuple[Decision, Tell]]


class GroupCommit:
    """`stored` is told of each commit before the callers learn their results."""

    def __init__(self, journal: Journal, stored: Callable[[Commit], None]) -> None:
        self._journal, self._stored = journal, stored
        self._queue: list[tuple[Decision, Tell]] = []
        self._wanted: list[Wanted] = []
        self._work: asyncio.Future[None] | None = None  # set while the task is idle
        self._task: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    def start(self) -> None:
        """Begin to commit. Everything that follows from a commit runs in the context
        of this call, so no context variable of a caller reaches another one."""
        context = copy_context()
        self._task = asyncio.create_task(self._run(), context=context)

    def submit(
        self, decision: Decision, wanted: Wanted | None = None
    ) -> asyncio.Future[Any]:
        """A future of the decision's answer, done after its COMMIT. Cancelling the
        future does not take the append back. `wanted`: state that the decision is
        known to ask for."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.append(decision, partial(_resolve, answer), wanted)
        return answer

    def append(
        self, decision: Decision, tell: Tell, wanted: Wanted | None = None
    ) -> None:
        """As `submit`; `tell` is called with the result after the COMMIT."""
        if self._closed:
            tell(Decided(error=NotOpenError(state="closed")))
            return
        self._queue.append((decision, tell))
        self._idle.clear()
        if wanted is not None:
            self._wanted.append(wanted)
        if self._work is not None and not self._work.done():
            self._work.set_result(None)

    async def _run(self) -> None:
        while True:
            while self._queue:
                self._idle.clear()
                await self._commit()
            self._idle.set()
            self._work = asyncio.get_running_loop().create_future()
            await self._work

    async def _commit(self) -> None:
        queue, self._queue = self._queue, []
        wanted, self._wanted = self._wanted, []
        try:
            commit = await self._journal.commit([d for d, _ in queue], wanted)
        except BaseException as exc:
            _refuse(queue, exc)
            raise
        try:
            self._stored(commit)
        except Exception:  # noqa: BLE001  a caller learns what is durable, whatever else goes wrong
            _LOG.exception("what follows from a commit broke; the commit stands")
        for (_, tell), decided in zip(queue, commit.results, strict=True):
            _safely(tell, decided)

    async def rested(self) -> None:
        """Return when everything that was appended is stored."""
        await self._idle.wait()

    def abandon(self) -> None:
        """End where it stands, as a crash does: nothing more is stored or told."""
        self._closed = True
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Refuse whatever is not being stored yet; let a commit under way end."""
        self._closed = True
        queue, self._queue = self._queue, []
        _refuse(queue, NotOpenError(state="closed"))
        task, self._task = self._task, None
        if task is not None:
            await self._idle.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _safely(tell: Tell, decided: Decided) -> None:
    try:
        tell(decided)
    except Exception:  # noqa: BLE001  one caller's trouble is not that of the next
        _LOG.exception("a caller broke when it was told its result")


def _resolve(future: asyncio.Future[Any], decided: Decided) -> None:
    if future.done():
        return  # its caller was cancelled; the append stands all the same
    if decided.error is not None:
        future.set_exception(decided.error)
    else:
        future.set_result(decided.value)


def _refuse(queue: _Queue, exc: BaseException) -> None:
    error = exc if isinstance(exc, Exception) else NotOpenError(state="closing")
    for _, tell in queue:
        _safely(tell, Decided(error=error))
