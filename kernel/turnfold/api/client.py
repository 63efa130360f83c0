"""Commands of a kernel that does not own its store: they go through the inbox.

A posted command is durable when `post` returns; the owner logs it. A caller that needs
the owner's answer waits for it. If no worker lives, this process takes the store for a
moment, applies the inbox, sends nothing, and releases the store.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

from msgspec.structs import replace

from turnfold._decide import inbox
from turnfold._decide.inbox import result_of
from turnfold._decide.unit_of_work import Context
from turnfold._log import events as t
from turnfold._log.codec import decode
from turnfold._runtime.committer import Committer
from turnfold._runtime.intake import NOT_NOW
from turnfold._runtime.open_streams import OpenStreams
from turnfold._runtime.stored_bodies import read_body
from turnfold._runtime.together import Together
from turnfold._runtime.worker import Upkeep
from turnfold.api.looking import Looks
from turnfold.api.unanswered import APPLY, READ, Unanswered
from turnfold.clock import Clock
from turnfold.errors import (
    CorruptLogError,
    DamagedError,
    LostStoreError,
    MissingBodyError,
    NotOpenError,
    StoreError,
    TurnfoldError,
    UsageError,
)
from turnfold.logs import lines
from turnfold.ports.store import (
    Answer,
    Command,
    Found,
    Ownership,
    Posted,
    Store,
    Wanted,
)

_POLL_S = 0.02
_INBOX = 1_000  # the most commands of the inbox that a call reads
_PAGE = 100  # commands that are applied in one commit
PATIENCE_S = 5.0  # how long a caller waits for the answer of a worker


class Mailbox:
    """`ring` wakes the owner. `apply_alone` takes a store without an owner, applies its
    inbox and releases it; it returns at once if the store has an owner."""

    def __init__(
        self,
        store: Store,
        ring: Callable[[], None],
        apply_alone: Callable[[], Awaitable[None]],
    ) -> None:
        self._store, self._ring, self._apply_alone = store, ring, apply_alone
        self.unanswered = Unanswered(store)
        self._closed = False  # the store is closed for good
        self._posts = Together(self._post_some, store.address)
        self._looks = Together(self._look_at, store.address, _INBOX)
        self.news = Looks(self._look_for).news

    async def post(self, command: Command) -> Posted:
        """Durable when this returns, with those of other callers. Raises the errors of
        the store's `post`."""
        posted = await self._posts.ask(command)
        self._ring()
        return posted

    async def _post_some(self, commands: Sequence[Command]) -> Sequence[Posted]:
        return await self._store.post(commands)

    async def look(self, stream: str) -> Found:
        """The row of a stream, and if the command that makes it waits; among those that
        other callers look for. Raises the errors of the store's `fetch`."""
        return await self._looks.ask(stream)

    async def _look_at(self, streams: Sequence[str]) -> Sequence[Found]:
        return [await self._look_for(streams)] * len(streams)

    async def _look_for(self, streams: Sequence[str]) -> Found:
        names = frozenset(streams)
        return await self._store.fetch(Wanted(summaries=names, answers=names))

    async def emptied(self) -> bool:
        """Wait until the commands that are in the inbox now are logged; False if some
        are still there after five seconds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE_S
        first = {command.id for command in await self._store.inbox(_INBOX)}
        self._ring()
        while first:
            await self._try_alone()
            first &= {command.id for command in await self._store.inbox(_INBOX)}
            if first and loop.time() >= until:
                return False
            await asyncio.sleep(_POLL_S if first else 0)
        return True

    async def differs(self, posted: Posted, command: Command) -> bool:
        """Has the turn that holds the key of this message other bytes? The owner
        decides in the end: a message posted again without its key is compared there."""
        stream: str | None = posted.stream
        for _ in range(3):  # it may be logged between two looks, and join another turn
            if stream is not None:
                try:
                    data = await self._bytes_of(stream)
                except (CorruptLogError, DamagedError, MissingBodyError):
                    return False  # cannot be compared
                if data:
                    return command.bodies[0] not in data
            stream = await self._holder(command.key or "")
        return True

    async def _holder(self, key: str) -> str | None:
        return (await self._store.fetch(Wanted(keys=frozenset((key,))))).keys[key]

    async def _bytes_of(self, turn: str) -> list[bytes]:
        """The bytes of the messages of a turn, logged or still in the inbox."""
        records = (await self._store.fetch(Wanted(streams=frozenset((turn,))))).streams
        if records[turn]:
            told = [event for record in records[turn] for event in decode(record)]
            came = [e for e in told if isinstance(e, t.Accepted | t.Dead | t.Joined)]
            return [await read_body(self._store, turn, e.body) for e in came]
        waiting = await self._store.inbox(_INBOX)
        return [c.bodies[0] for c in waiting if c.stream == turn]

    async def ask(self, command: Command) -> Any:
        """Post a command and wait for the answer of the owner.

        Raises the error that the owner met, or RequestedError if no worker has answered
        after five seconds; the command is then still in the inbox and will be done.
        """
        (answer,) = await self.ask_all((command,))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def ask_all(self, commands: Sequence[Command]) -> Sequence[Any]:
        """Post commands in one transaction and wait for all answers, in their order. If
        a command failed, its answer is the owner's error. Raises RequestedError after
        five seconds without an answer; the rest is still in the inbox."""
        await self._store.post(commands)
        self.unanswered.posted(commands)
        self._ring()
        try:
            return await self._all_answered(commands)
        except LostStoreError:
            self.unanswered.lost(commands)  # and the inbox with them
            raise
        finally:
            self.unanswered.follow()

    async def _all_answered(self, commands: Sequence[Command]) -> Sequence[Any]:
        loop = asyncio.get_running_loop()
        found: dict[str, Any] = {}
        since = loop.time()
        while left := [c for c in commands if c.id not in found]:
            answered = await self._answers(left)
            if answered:
                found |= answered
                since = loop.time()
                continue
            if loop.time() >= since + PATIENCE_S or self._closed:
                waited = int(1000 * min(loop.time() - since, PATIENCE_S))
                raise self.unanswered.given_up(left[0], waited)
            await self._try_alone()
            if not (await self._answers(left[:1])):
                await asyncio.sleep(_POLL_S)
        return [found[command.id] for command in commands]

    async def _try_alone(self) -> None:
        """Apply the inbox if no worker lives. If the store refuses (the lock's file is
        of another user, there is no room), the commands stay in the inbox, durable: the
        caller goes on waiting for a worker, and is not told that nothing was stored.
        Raises LostStoreError: then the inbox is gone, too."""
        try:
            await self._apply_alone()
        except LostStoreError:
            raise
        except (StoreError, NotOpenError) as exc:
            self.unanswered.fails(APPLY, exc)
        else:
            self.unanswered.works(APPLY)

    async def _answers(self, commands: Sequence[Command]) -> dict[str, Any]:
        """The answers that exist by now; none while the store cannot be read."""
        wanted = Wanted(answers=frozenset(command.id for command in commands))
        try:
            answers = (await self._store.fetch(wanted)).answers
        except LostStoreError:
            raise
        except (StoreError, NotOpenError) as exc:
            self._closed = isinstance(exc, NotOpenError)
            self.unanswered.fails(READ, exc)
            return {}
        self.unanswered.works(READ)
        found = {name: _result(a) for name, a in answers.items() if a is not None}
        self.unanswered.answered(found)
        return found

    async def end(self) -> None:
        """Stop all looks: this kernel is being closed."""
        await self.unanswered.end()

    async def waits(self, command_id: str) -> bool:
        """True while a command is in the inbox."""
        found = await self._store.fetch(Wanted(answers=frozenset((command_id,))))
        return command_id in found.waiting


def _result(answer: Answer) -> Any:
    try:
        return result_of(answer.data)
    except TurnfoldError as exc:
        return exc


# --- Doing the commands of an inbox where no worker lives ---


_LOG = lines()


class Alone:
    """`context`: of the kernel. `new_id`: names a new store."""

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
        """Apply the inbox, unless another process owns the store. All callers share one
        task. Cancelling a caller does not end it in the middle, while it holds the
        store."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._apply())
        await asyncio.shield(self._task)

    async def end(self) -> None:
        """Wait until the store is released."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _apply(self) -> None:
        if await self._ownership.take() is None:
            return
        try:
            journal = Committer(self._store, OpenStreams(), self._without_rights)
            await journal.begin(self._new_id)
            lived = await self._upkeep.lived(journal.store_id)
            self._clock.begin(journal.book.last_at, lived)
            if await self._upkeep.lost_history(journal.store_id) is not None:
                _LOG.warning(
                    "%s is an older copy of itself: only a worker may go on with it",
                    self._store.address,
                )
                return
            await self._empty(journal)
        finally:
            self._ownership.release()

    def _without_rights(self) -> Context:
        """A context in which no attempt is made and no turn starts: no worker would go
        on with them."""
        return replace(self._context(), fence=None, runs=False)

    async def _empty(self, journal: Committer) -> None:
        """Apply all commands of the inbox, many in one commit."""
        unfit: set[str] = set()
        while True:
            found = await self._store.inbox(_PAGE + len(unfit))
            fit = [command for command in found if command.id not in unfit]
            mine = list(takewhile(lambda c: c.kind != inbox.DECLARE, fit))
            if not mine:
                return  # a declaration is for the next worker, before all posted later
            unfit |= await self._apply_all(journal, mine)

    async def _apply_all(
        self, journal: Committer, commands: Sequence[Command]
    ) -> set[str]:
        """Apply commands. Returns the ids of those that cannot be applied and stay in
        the inbox."""
        commands = await inbox.sealed(commands, self._context().salt)
        doing = [partial(inbox.apply, command=command) for command in commands]
        unfit = set()
        results = (await journal.commit(doing)).results
        for command, result in zip(commands, results, strict=True):
            error = result.error
            if isinstance(error, UsageError) and command.answer:
                refusal = partial(inbox.refuse, command=command, error=error)
                error = (await journal.commit([refusal])).results[0].error
            if isinstance(error, NOT_NOW):
                raise error  # of all of them, and not for long
            if error is not None:
                text = "command %s %s stays in the inbox: %s"
                _LOG.warning(text, command.kind, command.id, error)
                unfit.add(command.id)
        return unfit
