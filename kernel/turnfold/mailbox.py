"""How a kernel that does not own its store gets commands done: through the inbox.

A posted command is durable when `post` returns; the owner logs it. A caller that needs
the owner's answer waits for it. Where no worker lives, this process takes the store for
a moment, applies the inbox, sends nothing, and gives the store back.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from turnfold.decide.inbox import result_of
from turnfold.errors import RequestedError
from turnfold.ports.store import Answer, Command, Posted, Store, Wanted

_POLL_S = 0.02
PATIENCE_S = 5.0  # how long a caller waits for the answer of a worker


class Mailbox:
    """`ring` wakes the owner. `apply_alone` takes the store if nobody has it, applies
    its inbox and gives it back; it returns at once if somebody has it."""

    def __init__(
        self,
        store: Store,
        ring: Callable[[], None],
        apply_alone: Callable[[], Awaitable[None]],
    ) -> None:
        self._store, self._ring, self._apply_alone = store, ring, apply_alone

    async def post(self, command: Command) -> Posted:
        """Durable when this returns. Raises as the store's `post` does."""
        (posted,) = await self._store.post((command,))
        self._ring()
        return posted

    async def ask(self, command: Command) -> Any:
        """Post a command and wait for the answer of the owner.

        Raises the error that the owner met, or RequestedError if no worker has answered
        after five seconds; the command is then still in the inbox and will be done.
        """
        await self.post(command)
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE_S
        answer = await self._answer(command.id)
        while answer is None and loop.time() < until:
            await self._apply_alone()
            answer = await self._answer(command.id)
            if answer is None:
                await asyncio.sleep(_POLL_S)
                answer = await self._answer(command.id)
        if answer is None:
            waited = int(PATIENCE_S * 1000)
            raise RequestedError(
                path=self._store.address, command=command.kind, waited_ms=waited
            )
        return result_of(answer.data)

    async def _answer(self, command_id: str) -> Answer | None:
        found = await self._store.fetch(Wanted(answers=frozenset((command_id,))))
        return found.answers[command_id]

    async def waits(self, command_id: str) -> bool:
        """True while a command lies in the inbox."""
        found = await self._store.fetch(Wanted(answers=frozenset((command_id,))))
        return command_id in found.waiting
