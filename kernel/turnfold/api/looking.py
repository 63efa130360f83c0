"""One pace of looks for all callers of a process that wait for an end which another
process brings about. A process without the store gets no signal for a commit: it looks,
less and less often while nobody new waits."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import Context
from itertools import islice

from turnfold._runtime.calls import report
from turnfold.enums import Phase
from turnfold.ports.store import Found

_FIRST_S, _LONGEST_S = 0.02, 0.1
_MOST = 1_000  # streams of one look
_News = asyncio.Future[Found]


class Looks:
    """`look` reads the rows of streams, and which of their commands are in the inbox."""

    def __init__(self, look: Callable[[Sequence[str]], Awaitable[Found]]) -> None:
        self._look = look
        self._waiting: dict[_News, tuple[str, bool]] = {}
        self._pause = _FIRST_S
        self._task: asyncio.Task[None] | None = None

    async def news(self, stream: str, *, parked: bool, new: bool) -> Found:
        """The look that finds a stream closed, or parked if `parked`, or neither in the
        store nor in the inbox. `new`: its caller did not wait before. Raises the errors
        of `look`."""
        told: _News = asyncio.get_running_loop().create_future()
        self._waiting[told] = stream, parked
        if new:
            self._pause = _FIRST_S
        if self._task is None:
            self._begin()
        try:
            return await told
        finally:
            self._waiting.pop(told, None)

    def _begin(self) -> None:  # no context variable of a caller reaches others
        self._task = asyncio.Task(self._run(), context=Context())
        self._task.add_done_callback(self._has_ended)

    def _has_ended(self, task: "asyncio.Task[None]") -> None:
        """Whoever cancels all tasks of the loop cancels this one, too. A bug in here
        ends the waits of all callers: a new task would meet it again, and for ever."""
        self._task = None
        bug = None if task.cancelled() else task.exception()
        if bug is not None:
            report("the looks for streams of another process ended", bug)
            _tell_all(self._waiting, bug)
        elif self._waiting:
            self._begin()

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._pause)
            self._pause = min(1.2 * self._pause, _LONGEST_S)
            left = iter([*self._waiting])
            while some := [*islice(left, _MOST)]:
                await self._tell(some)

    async def _tell(self, some: Sequence[_News]) -> None:
        mine = {told: self._waiting[told] for told in some if told in self._waiting}
        try:
            found = await self._look([stream for stream, _ in mine.values()])
        except Exception as exc:  # noqa: BLE001  each caller gets it
            _tell_all(mine, exc)
            return
        for told, (stream, parked) in mine.items():
            if _is_news(found, stream, parked=parked) and not told.done():
                told.set_result(found)


def _tell_all(waiting: Iterable[_News], error: BaseException) -> None:
    for told in waiting:
        if not told.done():
            told.set_exception(error)


def _is_news(found: Found, stream: str, *, parked: bool) -> bool:
    row = found.summaries[stream]
    if row is None:
        return stream not in found.waiting
    return not row.open or (parked and row.phase == Phase.PARKED)
