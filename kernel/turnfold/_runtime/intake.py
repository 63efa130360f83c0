"""The owner's side of the inbox: commands of other processes are logged, each once.

One reading at a time. Each caller gets a reading that began after its call.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from turnfold._decide import inbox
from turnfold._log.ids import ENTRY, TURN
from turnfold._runtime.committer import TAKES_NONE, Committer
from turnfold._runtime.programs import Decision
from turnfold.errors import NotOpenError, OwnedError, TurnfoldError, UsageError
from turnfold.logs import lines
from turnfold.ports.store import Command, Wanted

_LOG = lines()
_PAGE = 100  # commands that are logged in one commit
# Errors that say nothing about a command: it can be done later.
NOT_NOW = (*TAKES_NONE, NotOpenError, OwnedError)
_Submit = Callable[[Decision, Wanted | None], Awaitable[Any]]


class Intake:
    """`owns()`: True while the store is ours. `unfit`: the commands that cannot be
    done."""

    def __init__(
        self, journal: Committer, submit: _Submit, owns: Callable[[], bool]
    ) -> None:
        self._journal, self._submit, self._owns = journal, submit, owns
        self.unfit: set[str] = set()
        self._lock = asyncio.Lock()
        self._begun = self._done = 0  # readings

    async def read(self) -> None:
        """Log all commands in the inbox. Raises StoreError or NotOpenError if the store
        cannot do that now; a later call goes on from there."""
        asked = self._begun
        async with self._lock:
            if self._done > asked:
                return  # a reading that began after this call has ended well
            self._begun += 1
            mine = self._begun
            await self._read()
            self._done = mine

    async def _read(self) -> None:
        if await self._journal.suspects():
            await self._submit(_nothing, None)  # an empty commit reads the new records
        more = True
        while more and self._owns():
            room = _PAGE + len(self.unfit)
            found = await self._journal.store.inbox(room)
            fit = [c for c in found if c.id not in self.unfit]
            await self._log(await inbox.sealed(fit, self._journal.context().salt))
            more = len(found) >= room

    async def _log(self, commands: Sequence[Command]) -> None:
        answers = [self._submit(*_decision_of(c)) for c in commands]
        done = await asyncio.gather(*answers, return_exceptions=True)
        for command, result in zip(commands, done, strict=True):
            if isinstance(result, BaseException):
                await self._failed(command, result)

    async def _failed(self, command: Command, error: BaseException) -> None:
        """A command failed. If its caller waits, answer it. Else the command stays in
        the inbox, and `health` and `inspect` show it."""
        if isinstance(error, NOT_NOW) or not isinstance(error, Exception):
            raise error
        if command.answer and isinstance(error, UsageError):
            refusal = partial(inbox.refuse, command=command, error=error)
            await self._submit(refusal, None)
            return
        self.unfit.add(command.id)
        bug = None if isinstance(error, TurnfoldError) else error
        told = command.kind, command.id, error
        _LOG.error("command %s %s stays in the inbox: %s", *told, exc_info=bug)


def _nothing(_: object) -> None:
    """An empty decision."""


def _decision_of(command: Command) -> tuple[Decision, Wanted]:
    keys = frozenset((command.key,) if command.key else ())
    # A message makes its turn without a look at the name.
    reads = command.kind != "accept" and command.stream.startswith((ENTRY, TURN))
    streams = frozenset((command.stream,) if reads else ())
    return partial(inbox.apply, command=command), Wanted(keys=keys, streams=streams)
