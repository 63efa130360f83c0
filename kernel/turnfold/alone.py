"""Doing the commands of an inbox where no worker lives.

A process that does not work takes the store for a moment, logs what lies in its inbox,
sends nothing and runs nothing, and gives the store back.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

import attrs

from turnfold.book import Book
from turnfold.clock import Clock
from turnfold.decide import inbox
from turnfold.decide.draft import Context
from turnfold.errors import UsageError
from turnfold.journal import Journal
from turnfold.ports.store import Command, Ownership, Store
from turnfold.upkeep import Upkeep

_LOG = logging.getLogger("turnfold")


class Alone:
    """`context` is that of the kernel. `new_id` names a store that is new."""

    def __init__(
        self,
        store: Store,
        ownership: Ownership,
        upkeep: Upkeep,
        clock: Clock,
        context: Callable[[], Context],
        new_id: Callable[[], str],
    ) -> None:
        self._store, self._ownership, self._upkeep = store, ownership, upkeep
        self._clock, self._context, self._new_id = clock, context, new_id
        self._task: asyncio.Task[None] | None = None

    async def apply(self) -> None:
        """Apply the inbox, unless somebody owns the store. One call at a time does it.
        A cancelled caller does not end it in the middle, with the store in hand."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._apply())
        await asyncio.shield(self._task)

    async def end(self) -> None:
        """Wait until the store is given back."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _apply(self) -> None:
        if await self._ownership.take() is None:
            return
        try:
            journal = Journal(self._store, Book(), self._without_rights)
            await journal.begin(self._new_id)
            self._clock.at_least(journal.book.last_at)
            if await self._upkeep.lost_history(journal.store_id) is not None:
                _LOG.warning(
                    "%s is an older copy of itself: only a worker may go on with it",
                    self._store.address,
                )
                return
            for command in await self._store.inbox():
                await self._apply_one(journal, command)
        finally:
            self._ownership.release()

    def _without_rights(self) -> Context:
        """Nothing is attempted and no turn starts: nobody would go on with it."""
        return attrs.evolve(self._context(), fence=None, runs=False)

    async def _apply_one(self, journal: Journal, command: Command) -> None:
        commit = await journal.commit([partial(inbox.apply, command=command)])
        error = commit.results[0].error
        if isinstance(error, UsageError) and command.answer:
            decision = partial(inbox.refuse, command=command, error=error)
            commit = await journal.commit([decision])
            error = commit.results[0].error
        if error is not None:
            _LOG.warning("inbox: %s %s: %s", command.kind, command.id, error)
