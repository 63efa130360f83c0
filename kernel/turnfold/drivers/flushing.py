"""Everything that is appended in one tick of the loop goes into one commit.

One task decides and stores, commit after commit. Decisions that arrive while a commit
waits for the disk make the next one. A caller learns its result after the COMMIT.
Whether a commit waits in a thread is the store's own business.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Any

from turnfold.effects import Decision
from turnfold.errors import NotOpenError
from turnfold.journal import Commit, Decided, Journal
from turnfold.ports.store import Wanted

_LOG = logging.getLogger("turnfold")
Answer = asyncio.Future[Any]
_Queue = Sequence[tuple[Decision, Answer]]


class GroupCommit:
    """`stored` is told of each commit before the callers learn their results."""

    def __init__(self, journal: Journal, stored: Callable[[Commit], None]) -> None:
        self._journal, self._stored = journal, stored
        self._queue: list[tuple[Decision, Answer]] = []
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

    def append(self, decision: Decision, wanted: Wanted | None = None) -> Answer:
        """A future of the decision's answer, done after its COMMIT. Cancelling the
        future does not take the append back. `wanted`: state that the decision is
        known to ask for."""
        answer: Answer = asyncio.get_running_loop().create_future()
        if self._closed:
            answer.set_exception(NotOpenError(state="closed"))
            return answer
        self._queue.append((decision, answer))
        self._idle.clear()
        if wanted is not None:
            self._wanted.append(wanted)
        if self._work is not None and not self._work.done():
            self._work.set_result(None)
        return answer

    async def _run(self) -> None:
        while True:
            while self._queue:
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
        except Exception:  # a caller learns what is durable, whatever else goes wrong
            _LOG.exception("what follows from a commit broke; the commit stands")
        for (_, answer), decided in zip(queue, commit.results, strict=True):
            _tell(answer, decided)

    async def rested(self) -> None:
        """Return when everything that was appended is stored."""
        await self._idle.wait()

    async def close(self) -> None:
        """Refuse whatever is not being stored yet; let a commit under way end."""
        self._closed = True
        _refuse(self._queue, NotOpenError(state="closed"))
        self._queue = []
        task, self._task = self._task, None
        if task is not None:
            await self._idle.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _tell(answer: Answer, decided: Decided) -> None:
    if answer.done():
        return  # its caller was cancelled; the append stands all the same
    if decided.error is not None:
        answer.set_exception(decided.error)
    else:
        answer.set_result(decided.value)


def _refuse(queue: _Queue, exc: BaseException) -> None:
    for _, answer in queue:
        if not answer.done():
            answer.set_exception(exc)
