"""Commits of several shards of one host in one statement.

Commits that are handed in within one tick of the loop, or while a statement is under
way, go together. Each shard is compared by itself and gets an answer of its own. If the
server refuses the whole statement, surely storing nothing, each shard gets a statement
of its own, so that the culprit alone fails. If its outcome is unknown, it is unknown for
all of them: each looks for its own part in its log, as after a commit alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from attrs import define, field

from turnfold_adapters.stores.postgres.connection import (
    FAILURES,
    Link,
    Session,
    stored_nothing,
)
from turnfold_adapters.stores.postgres.statement import (
    MANY,
    ONE,
    Values,
    of_many,
    of_one,
)

_MOST_BYTES = 8_000_000  # of one statement, except where one commit alone has more
_FEWEST = 2  # commits that share a statement
_Answer = bool | Exception


def _future() -> asyncio.Future[_Answer]:
    return asyncio.get_running_loop().create_future()


@define(eq=False)
class Part:
    """The commit of one shard. `size`: in bytes. `alone`: in a statement of its own."""

    shard: int
    values: Values
    size: int
    alone: bool = False
    answer: asyncio.Future[_Answer] = field(factory=_future)

    def tell(self, answer: _Answer) -> None:
        if not self.answer.done():  # its caller was not cut off
            self.answer.set_result(answer)


class Combiner:
    """All commits of one host. `link`: the connection that writes. `several`: has the
    store several shards?"""

    def __init__(self, link: Link) -> None:
        self.link, self.several = link, True
        self._waiting: list[Part] = []
        self._task: asyncio.Task[None] | None = None

    async def stored(self, part: Part) -> bool:
        """False if its log does not end at the base, or owner and token are others.
        Raises the error of its statement, or StoreError if there is no connection."""
        answer: _Answer
        if self.several:
            self._waiting.append(part)
            if self._task is None:
                self._begin()
            answer = await part.answer
        else:  # it shares with nobody, and a task costs turns of the loop
            async with self.link.used() as session:
                answer = await self._alone(session.connection, part)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._has_ended)

    def _has_ended(self, _: object) -> None:
        """Whoever cancels all tasks of the loop cancels this one, too. What is handed in
        afterwards still needs it."""
        self._task = None
        if not all(part.answer.done() for part in self._waiting):
            self._begin()

    async def _run(self) -> None:
        await asyncio.sleep(0)  # others hand in their commits in the same tick
        while self._waiting:
            await self._next()

    async def _next(self) -> None:
        batch: list[Part] | None = None
        answers: Sequence[_Answer] = ()
        try:
            async with self.link.used() as session:
                batch = self._taken()
                answers = await self._answers(session.connection, batch)
        except Exception as exc:  # noqa: BLE001  becomes the answer of each
            if batch is None:  # no connection: nothing was sent
                batch, self._waiting = self._waiting, []
            answers = [exc] * len(batch)
        except BaseException:
            for part in batch or ():
                part.answer.cancel()
            raise
        for part, answer in zip(batch, answers, strict=True):
            part.tell(answer)

    def _taken(self) -> list[Part]:
        """The next ones that fit into one statement: at most one of each shard."""
        batch: list[Part] = []
        left: list[Part] = []
        shards: set[int] = set()
        size = 0
        for part in self._waiting:
            if part.answer.done():  # its caller was cut off
                continue
            together = not (part.alone or (batch and batch[0].alone))
            fits = part.shard not in shards and size + part.size <= _MOST_BYTES
            if not batch or (together and fits):
                batch.append(part)
                shards.add(part.shard)
                size += part.size
            else:
                left.append(part)
        self._waiting = left
        return batch

    async def _answers(
        self, connection: Any, batch: Sequence[Part]
    ) -> Sequence[_Answer]:
        if len(batch) >= _FEWEST:
            try:
                return await self._together(connection, batch)
            except FAILURES as exc:
                if not stored_nothing(exc):
                    raise
        return [await self._alone(connection, part) for part in batch]

    async def _together(self, connection: Any, batch: Sequence[Part]) -> list[bool]:
        shards = [part.shard for part in batch]
        statement = of_many(MANY, shards, [part.values for part in batch])
        stored = {row[0] for row in await connection.fetch(*statement)}
        return [shard in stored for shard in shards]

    async def _alone(self, connection: Any, part: Part) -> _Answer:
        try:
            stored = await Session(connection, part.shard).fetchval(
                *of_one(ONE, part.values)
            )
        except FAILURES as exc:
            if not stored_nothing(exc):
                raise
            return exc
        return bool(stored)
