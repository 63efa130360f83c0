"""The life of a kernel: one opening and one closing at a time, for all callers."""

import asyncio
from typing import Self

from turnfold.api.portal import Home, Portal
from turnfold.errors import InvalidInputError
from turnfold.logs import Lines, lines

_LOG = lines()


class Life:
    """The part of a kernel that opens and closes it; the kernel implements the methods
    used here."""

    def __init__(self) -> None:
        self._home = Home()
        self._unsaid_before = Lines.failed  # log lines that other kernels could not say
        self._state = "not open"
        self._opening: asyncio.Future[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    async def _open(self) -> None:
        """Open. If this raises, it has released everything and left the home."""
        raise NotImplementedError

    def _check_released(self) -> None:
        """Raises OwnedError while an earlier life of this kernel keeps the store."""
        raise NotImplementedError

    async def _close(self) -> None:
        """Close, and leave the home at the end."""
        raise NotImplementedError

    def _inside(self) -> bool:
        """Does the call come from foreign code that closing waits for?"""
        raise NotImplementedError

    @property
    def _where(self) -> str:
        """The address of the store, for the log."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Open the store, take up its open streams, and begin to work or stand by.
        Waits first for a closing that is under way. Channels and handlers run in the
        context (`contextvars`) of this call."""
        self._home.check()
        while (other := self._opening or self._closing) is not None:
            await asyncio.wait({other})
        if self._state == "open":
            return
        self._check_released()
        self._home.enter()
        self._opening = asyncio.get_running_loop().create_future()
        try:
            await self._open()
        finally:
            self._opening.set_result(None)
            self._opening = None

    async def close(self) -> None:
        """Drain, then release the store. Every acknowledged call is durable already.
        A call of a channel that ignores its cancellation counts as alive: closing does
        not wait for it, and the store is kept until it has ended (`keeps_store`).

        All calls wait for the same closing; cancelling a caller does not end it. A
        handler, hook, source or channel of this kernel cannot wait for its own end: its
        call begins the closing and returns."""
        self._home.check()
        while self._opening is not None:
            await asyncio.wait({self._opening})
        if self._state == "open" and self._closing is None:
            self._closing = asyncio.create_task(self._close())
            self._closing.add_done_callback(self._has_closed)
        if self._closing is not None and not self._inside():
            await asyncio.shield(self._closing)

    async def run(self) -> None:
        """Open, work until SIGINT or SIGTERM, drain, close. Raises InvalidInputError in
        another thread than the main one, which alone can hear of signals."""
        import signal  # noqa: PLC0415  only for callers of run()

        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop.set)
        except (RuntimeError, ValueError, NotImplementedError) as exc:
            problem = f"no signal can be heard here ({exc}); use `async with kernel`"
            raise InvalidInputError(field="run", problem=problem) from exc
        try:
            async with self:
                await stop.wait()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def portal(self) -> Portal:
        """Calls into this kernel from other threads. May itself be called from any
        thread."""
        return Portal(self._home)

    def _has_closed(self, closing: asyncio.Task[None]) -> None:
        self._closing = None
        error = None if closing.cancelled() else closing.exception()
        if error is not None:
            _LOG.error("%s was not closed in order: %s", self._where, error)
