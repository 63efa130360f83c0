"""Tasks of the kernel that last until it ends them, and programs that begin anew."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from turnfold._runtime.calls import told
from turnfold._runtime.scheduler import Key
from turnfold.logs import lines

_AGAIN_S = 1.0
_TORN_S = 0.05  # the pause of a program that was cancelled from outside
_LOG = lines()


class Lasting:
    """Work without an end, in a task. Nothing else than `stop` ends it for good: after an
    error that nobody foresaw, or a cancellation from outside (a gateway that cancels all
    tasks of its loop), it begins anew. Work that returns has ended."""

    def __init__(
        self, what: str, work: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        self._what, self._work, self._stopped = what, work, False
        self._task = self._begun()

    def _begun(self) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._work())
        task.add_done_callback(self._has_ended)
        return task

    def _again(self) -> None:
        if not self._stopped:
            self._task = self._begun()

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if self._stopped or not (task.cancelled() or error):
            return
        why = "it was cancelled from outside" if error is None else told(error)
        text = "%s ended, and begins again in %.0f s: %s"
        _LOG.error(text, self._what, _AGAIN_S, why, exc_info=error)
        asyncio.get_running_loop().call_later(_AGAIN_S, self._again)

    def end(self) -> asyncio.Task[None]:
        """End it for good; the task ends a little later."""
        self._stopped = True
        self._task.cancel()
        return self._task

    async def stop(self) -> None:
        """End it for good, and return when it has ended. Raises nothing of its own."""
        await asyncio.gather(self.end(), return_exceptions=True)


def was_cancelled() -> bool:
    """Was this task cancelled earlier, while it waited for foreign code? It recorded the
    end of that call. If the store refuses this, a new task tries again: `asyncio.run`
    waits at its end for each task that it has cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Mending:
    """The part of a Driver that begins programs anew which were cut off from outside."""

    live: dict[Key, asyncio.Task[Any] | None]
    epoch: int
    draining: bool
    _at_rest: asyncio.Event

    def start(self, keys: Iterable[Key]) -> None:
        """Begin these programs."""
        raise NotImplementedError

    def _torn(self, key: Key) -> None:
        """Call when a program ended that should have gone on. It begins anew: it keeps
        nothing that the log does not have. A run is let go: its handler may have ended."""
        if key.what == "run":
            key = Key("let go", key.name, key.run)
        asyncio.get_running_loop().call_later(_TORN_S, self._mend, key)

    def _let_go(self, key: Key) -> None:
        """Call when a program broke: any other than that of a run is begun anew later."""
        if key.what == "run":
            self._torn(key)

    def mend(self) -> None:
        """Begin the programs anew whose tasks were cancelled before they had begun: no
        line of them has run, so nobody knows yet. Call it now and then."""
        tasks = list(self.live.items())
        for key in [key for key, task in tasks if task is not None and task.done()]:
            del self.live[key]
            self._torn(key)
        if not self.live:
            self._at_rest.set()

    def _mend(self, key: Key) -> None:
        if self.epoch and not self.draining:  # else the end was our wish
            self.start([key])
