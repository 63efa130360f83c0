"""The doorbell: NOTIFY after a commit, LISTEN on a connection of its own.

A lost ring only delays the worker until its next poll. A pooler in transaction mode
does not support LISTEN; then only the poll is left.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

from turnfold.errors import StoreError
from turnfold.logs import lines
from turnfold_adapters.stores.postgres.connection import FAILURES, Link

_LOG = lines()
_AGAIN_S = 1.0  # between checks of the listening connection


def channel(schema: str) -> str:
    """The name under which the bells of a store ring."""
    digest = hashlib.sha256(schema.encode()).hexdigest()[:16]
    return f"turnfold_{digest}"


class Bells:
    """The bells of all shards: one connection that rings and one that listens.

    `ringing` and `listening`: separate links, so that no ring waits for a commit.
    """

    def __init__(self, ringing: Link, listening: Link) -> None:
        self._ringing, self._listening = ringing, listening
        self.channel = channel(ringing.place.schema)
        self.rang = False  # since a look at the shards has last asked
        self._tasks: set[asyncio.Task[None]] = set()
        self._due: set[int] = set()  # shards with a ring that is not sent yet
        self._hears: list[tuple[int, Callable[[], None]]] = []
        self._ear: asyncio.Task[None] | None = None

    def ring(self, shard: int) -> None:
        """At most one ring of a shard is under way: a second one would add nothing."""
        if shard not in self._due:
            self._due.add(shard)
            self._start(self._ring(shard))

    def listen(self, shard: int, wake: Callable[[], None]) -> Callable[[], None]:
        one = (shard, wake)
        self._hears.append(one)
        if self._ear is None or self._ear.done():
            self._ear = self._start(self._listen())
        wake()  # for lost rings

        def stop() -> None:
            if one in self._hears:
                self._hears.remove(one)
            if not self._hears and self._ear is not None:
                self._ear.cancel()
                self._ear = None

        return stop

    async def stop(self) -> None:
        tasks = [t for t in self._tasks if t.get_loop() is asyncio.get_running_loop()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._ear = None

    def _start(self, work: Any) -> asyncio.Task[None] | None:
        try:
            task = asyncio.get_running_loop().create_task(work)
        except RuntimeError:  # no loop here, so no ring can be sent
            work.close()
            self._due.clear()
            return None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _ring(self, shard: int) -> None:
        try:
            async with self._ringing.used() as connection:
                self._due.discard(shard)  # later commits ring again
                sql = "SELECT pg_notify($1, $2)"
                await connection.execute(sql, self.channel, str(shard))
        except (StoreError, *FAILURES) as exc:
            _LOG.debug("a ring was lost, the next poll finds the command: %s", exc)
        finally:
            self._due.discard(shard)

    def _rung(self, *said: object) -> None:
        self.rang = True
        for shard, wake in [*self._hears]:
            if str(shard) == said[-1]:
                wake()

    async def _listen(self) -> None:
        heard: Any = None
        while True:
            try:
                async with self._listening.used() as session:
                    if session.connection is not heard:
                        await session.add_listener(self.channel, self._rung)
                        heard = session.connection
                        for _, wake in [*self._hears]:
                            wake()  # for lost rings
            except (StoreError, *FAILURES) as exc:
                _LOG.debug("the connection for rings broke, the poll goes on: %s", exc)
            await asyncio.sleep(_AGAIN_S)


class NotifyDoorbell:
    """The bell of one shard. `is_open`: may its store be used? Ringing at a closed
    store does nothing."""

    def __init__(self, bells: Bells, shard: int, is_open: Callable[[], bool]) -> None:
        self._bells, self._shard, self._is_open = bells, shard, is_open

    def ring(self) -> None:
        if self._is_open():
            self._bells.ring(self._shard)

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        return self._bells.listen(self._shard, wake)
