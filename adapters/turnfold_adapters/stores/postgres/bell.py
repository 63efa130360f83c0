"""The doorbell: NOTIFY after a commit, LISTEN on a connection of its own.

A bell that is lost costs a poll of the worker, nothing else. A pooler in transaction
mode carries no LISTEN; then the poll alone is left.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from typing import Any

import asyncpg

from turnfold.errors import StoreError
from turnfold_adapters.stores.postgres.connection import FAILURES, Link

_LOG = logging.getLogger("turnfold")
_AGAIN_S = 1.0  # between looks whether the connection still listens


class NotifyDoorbell:
    """`ringing` and `listening`: links of their own, so that no ring waits for a commit.

    `is_open`: whether the store may be used; a ring at a closed store does nothing.
    """

    def __init__(
        self, ringing: Link, listening: Link, schema: str, is_open: Callable[[], bool]
    ) -> None:
        self._ringing, self._listening, self._is_open = ringing, listening, is_open
        digest = hashlib.sha256(schema.encode()).hexdigest()[:16]
        self._channel = f"turnfold_{digest}"
        self._tasks: set[asyncio.Task[None]] = set()
        self._rings = False

    def ring(self) -> None:
        """At most one ring is on its way: a second one would say nothing new."""
        if self._is_open() and not self._rings:
            self._rings = True
            self._start(self._ring())

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        task = self._start(self._listen(wake))
        return lambda: None if task is None else (task.cancel(), None)[1]

    async def stop(self) -> None:
        tasks = [t for t in self._tasks if t.get_loop() is asyncio.get_running_loop()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, work: Any) -> asyncio.Task[None] | None:
        try:
            task = asyncio.get_running_loop().create_task(work)
        except RuntimeError:  # no loop: nobody can be rung from here
            work.close()
            return None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _ring(self) -> None:
        try:
            async with self._ringing.used() as connection:
                self._rings = False  # a commit from here on rings anew
                await connection.execute("SELECT pg_notify($1, '')", self._channel)
        except (StoreError, *FAILURES) as exc:
            _LOG.debug("a bell was lost, the poll finds it: %s", exc)
        finally:
            self._rings = False

    async def _listen(self, wake: Callable[[], None]) -> None:
        def rung(*_: object) -> None:
            wake()

        heard: asyncpg.Connection | None = None
        while True:
            try:
                async with self._listening.used() as connection:
                    if connection is not heard:
                        await connection.add_listener(self._channel, rung)
                        heard = connection
                        wake()  # for rings that nobody heard
            except (StoreError, *FAILURES) as exc:
                _LOG.debug("nobody listens for bells, the poll goes on: %s", exc)
            await asyncio.sleep(_AGAIN_S)
