"""What programs want of channels: a plan, a preparation, a call, a look-up.

The dispatcher finds the channel as it is attached now, and keeps the number of sends
under way in bounds.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from turnfold.attached import Attached
from turnfold.bodies import read_body
from turnfold.decide.draft import AttemptRef
from turnfold.drivers.sender import DRAIN, Sender, route_of, unreadable
from turnfold.effects import Asked, Prepared
from turnfold.errors import MissingBodyError, StoreError, TurnfoldError
from turnfold.machines.entry import Entry
from turnfold.packing import fetch_payload
from turnfold.planning import Plan
from turnfold.ports.channel import CannotTell, Outcome, Rejected
from turnfold.ports.store import Store
from turnfold.words import FailureClass

_ABSENT_MS = 5_000  # how long a look-up waits for a channel that is not attached


class Dispatcher:
    """`find` gives the folded entry."""

    def __init__(
        self,
        store: Store,
        find: Callable[[str], Awaitable[Entry]],
        channels: Mapping[tuple[str, str], Attached],
        sender: Sender,
        at_once: int,
    ) -> None:
        self._store, self._find = store, find
        self._channels, self._sender = channels, sender
        self._slots = asyncio.Semaphore(at_once)
        self.draining = False

    async def plan(self, stream: str) -> Plan | Rejected:
        entry = await self._find(stream)
        channel = self._channel(entry)
        if channel is None:
            return _detached(entry)
        try:
            read = partial(read_body, self._store)
            payloads = [await fetch_payload(read, stream, ref) for ref in entry.body]
            return channel.plan(payloads, route_of(entry), entry.kind, stream)
        except Exception as exc:  # an adapter's plan may raise anything
            if isinstance(exc, StoreError) and not isinstance(exc, MissingBodyError):
                raise  # a disk may recover; a body that is gone stays gone
            detail = f"plan: {type(exc).__name__}: {exc}"
            return Rejected(failure=FailureClass.INVALID_PAYLOAD, detail=detail)

    async def prepare(self, attempt: AttemptRef) -> Prepared | Rejected:
        entry = await self._find(attempt.entry)
        channel = self._channel(entry)
        if channel is None:
            return _detached(entry)
        if self.draining:
            return DRAIN
        return await self._sender.prepare(channel, attempt, entry)

    async def send(self, attempt: AttemptRef) -> Outcome:
        """As soon as there is a slot for it."""
        async with self._slots:
            try:
                entry = await self._find(attempt.entry)
            except TurnfoldError as exc:
                return unreadable(exc)
            channel = self._channel(entry)
            if channel is None:
                return _detached(entry)
            return await self._sender.send(channel, attempt, entry)

    async def reconcile(self, stream: str) -> Asked:
        entry = await self._find(stream)
        channel = self._channel(entry)
        if channel is None:
            return Asked(CannotTell(detail="channel is not attached"), _ABSENT_MS)
        return await self._sender.reconcile(channel, entry)

    def stop(self, programs: int) -> None:
        """End the calls under way. Nothing is sent any more: so there are slots for all
        programs, and each that has waited for one learns that nothing was sent."""
        self._sender.stopping = True
        self._sender.calls.cancel_all()
        for _ in range(programs):
            self._slots.release()

    def _channel(self, entry: Entry) -> Attached | None:
        return self._channels.get((entry.channel, entry.account))


def _detached(entry: Entry) -> Rejected:
    detail = f"channel {entry.channel}/{entry.account} is not attached"
    return Rejected(failure=FailureClass.NOT_CONNECTED, detail=detail)
