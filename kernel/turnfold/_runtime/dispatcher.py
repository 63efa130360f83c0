"""The calls of programs to channels: a plan, a preparation, a send, a look-up.

The dispatcher finds the channel that is attached now, and limits the sends under way.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from turnfold._decide import rules
from turnfold._decide.plan import Plan
from turnfold._decide.unit_of_work import AttemptRef
from turnfold._log.bodies import is_large
from turnfold._runtime.calls import told
from turnfold._runtime.channel import AttachedChannel
from turnfold._runtime.programs import Asked, Prepared
from turnfold._runtime.sender import DRAIN, Sender, route_of, unreadable
from turnfold._state.entry import Entry
from turnfold.enums import FailureClass, Phase
from turnfold.errors import MissingBodyError, StoreError, TurnfoldError
from turnfold.ports.channel import CannotTell, Outcome, Rejected

_ABSENT_MS = 5_000  # how long a look-up waits for a channel that is not attached


class Dispatcher:
    """`find` gives the folded entry."""

    def __init__(
        self,
        find: Callable[[str], Awaitable[Entry]],
        channels: Mapping[tuple[str, str], AttachedChannel],
        sender: Sender,
        at_once: int,
        salt: Callable[[], bytes],
    ) -> None:
        self._find, self._salt = find, salt
        self._channels, self._sender = channels, sender
        self._slots = asyncio.Semaphore(at_once)
        self.draining = False

    async def plan(self, stream: str) -> Plan | Rejected:
        entry = await self._find(stream)
        channel = self._channel(entry)
        if channel is None:
            return _detached(entry)
        try:
            bodies = self._sender.bodies
            payloads = [await bodies.for_plan(stream, ref) for ref in entry.body]
            what = payloads, route_of(entry), entry.kind, stream
            if any(map(is_large, payloads)):
                return await channel.plan_large(*what, (), self._salt)
            return channel.plan(*what)
        except Exception as exc:  # a stored payload may be malformed
            if isinstance(exc, StoreError) and not isinstance(exc, MissingBodyError):
                raise  # a disk may recover; a missing body stays missing
            detail = f"plan: {told(exc)}"
            return Rejected(failure=FailureClass.INVALID_PAYLOAD, detail=detail)

    async def prepare(self, attempt: AttemptRef) -> Prepared | Rejected:
        entry = await self._find(attempt.entry)
        channel = self._channel(entry)
        if channel is None:
            return _detached(entry)
        if self.draining:
            return DRAIN
        return await self._sender.prepare(channel, attempt, entry)

    async def send(
        self, attempt: AttemptRef, go_on: Callable[[Outcome], None]
    ) -> Outcome:
        """Send as soon as a slot is free. `go_on`: see Sender.send."""
        await self._slots.acquire()
        left = False

        def leave(outcome: Outcome) -> None:
            nonlocal left
            left = True
            self._slots.release()
            go_on(outcome)

        try:
            try:
                entry = await self._find(attempt.entry)
            except TurnfoldError as exc:
                return unreadable(exc)
            channel = self._channel(entry)
            if channel is None:
                return _detached(entry)
            return await self._sender.send(channel, attempt, entry, leave)
        finally:
            if not left:
                self._slots.release()

    async def preview(self, stream: str, text: str) -> Outcome | None:
        """Show the text of a live reply so far. None if nothing can be shown just
        now."""
        entry = await self._find(stream)
        channel = self._channel(entry)
        shows = rules.is_live(entry) and entry.handle and entry.phase is Phase.QUEUED
        if channel is None or not shows or self.draining:
            return None
        return await self._sender.preview(channel, entry, text)

    async def reconcile(self, stream: str, part: int, attempt: int) -> Asked | None:
        entry = await self._find(stream)
        if not rules.look_up_is_current(entry, part, attempt):
            return None
        channel = self._channel(entry)
        if channel is None:
            return Asked(CannotTell(detail="channel is not attached"), _ABSENT_MS)
        return await self._sender.reconcile(channel, entry)

    def stop(self, programs: int) -> None:
        """End the calls under way. Nothing is sent any more, so all slots are released:
        each program that waited for one goes on and records that nothing was sent."""
        self._sender.stopping = True
        self._sender.calls.cancel_all()
        for _ in range(programs):
            self._slots.release()

    def _channel(self, entry: Entry) -> AttachedChannel | None:
        return self._channels.get((entry.channel, entry.account))


def _detached(entry: Entry) -> Rejected:
    detail = f"channel {entry.channel}/{entry.account} is not attached"
    return Rejected(failure=FailureClass.NOT_CONNECTED, detail=detail)
