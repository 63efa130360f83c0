"""Carrying one leg to the wire and back, under a deadline, at most once.

This is where a hung adapter is told from a dead one: a call that does not end when it
is cancelled still counts as alive, so nothing may be concluded from its silence.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import lru_cache
from typing import Any

from turnfold.attached import Attached
from turnfold.clock import Clock
from turnfold.effects import Asked, Leg, Prepared
from turnfold.errors import MissingBodyError, TurnfoldError, UsageError
from turnfold.machines.entry import Entry
from turnfold.packing import unpack
from turnfold.payloads import Route
from turnfold.ports.channel import (
    Accepted,
    Attempt,
    CannotTell,
    Outcome,
    Part,
    Rejected,
    Unknown,
)
from turnfold.ports.store import Body, Store
from turnfold.settings import Settings
from turnfold.words import FailureClass, Phase

_ROOM = 4 * 1024 * 1024  # bytes of bodies that are kept at hand
_GRACE_S = 1.0  # how long a cancelled call may take to end
_SKEW_MS = 60_000  # how far a platform's clock may be behind ours in a look-up


class Legs:
    """`find` gives the folded entry; `late` is told of successes after the deadline."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        find: Callable[[str], Entry],
        late: Callable[[Leg, Accepted], None],
    ) -> None:
        self._store, self._clock, self._settings = store, clock, settings
        self._find, self._late = find, late
        self._began = clock.mono_ms()
        self._sent: dict[str, tuple[Leg, Outcome | None]] = {}
        self._quiet: dict[str, int] = {}  # entry -> when its last call ended
        self._at_hand: dict[str, bytes] = {}  # bodies just stored, by digest
        self._room = _ROOM
        self.hung: dict[str, asyncio.Task[Any]] = {}
        self._timed_out: set[str] = set()
        self.stopping = False

    def begin(self) -> None:
        """We are the worker from now on: an older one may have sent until just now,
        however long this process has been standing by."""
        self._began = self._clock.mono_ms()

    async def prepare(self, desk: Attached, leg: Leg) -> Prepared | Rejected:
        """Repeatable, and invisible to the reader: a failure is always "not sent"."""
        entry = self._find(leg.entry)
        if not _stands(entry, leg):
            return Rejected(failure=FailureClass.CANCELLED, detail="overtaken")
        try:
            part = self.part(entry)
        except TurnfoldError as exc:
            return _unreadable(exc)
        task = await self._call(desk.calling_prepare(part), leg)
        if self.stopping and (task is None or task.cancelled()):
            return Rejected(failure=FailureClass.DRAIN)
        if task is None:
            return Rejected(failure=FailureClass.TRANSIENT, detail="deadline")
        return desk.prepared(task)

    async def send(self, desk: Attached, leg: Leg, prepared: Any) -> Outcome:
        """Exactly one call for a leg in the life of this process, whatever happens."""
        before = self._sent.get(leg.entry)
        if before is not None and _same(before[0], leg):
            return before[1] or Unknown(cause="sent_before")
        entry = self._find(leg.entry)
        if not _stands(entry, leg):  # a late receipt came first (INV-4)
            return Unknown(cause="overtaken")
        try:
            part = self.part(entry)
        except TurnfoldError as exc:
            return _unreadable(exc)
        attempt = Attempt(
            number=leg.attempt,
            at_ms=entry.last_at or self._clock.now(),
            marked=entry.marked,
            prepared=prepared,
        )
        self._sent[leg.entry] = (leg, None)
        outcome = await self._send(desk, leg, part, attempt)
        self._sent[leg.entry] = (leg, outcome)
        return outcome

    async def _send(
        self, desk: Attached, leg: Leg, part: Part, attempt: Attempt
    ) -> Outcome:
        def late(task: asyncio.Task[Any]) -> None:
            outcome = desk.outcome(task)
            if isinstance(outcome, Accepted):
                self._late(leg, outcome)

        task = await self._call(desk.calling_send(part, attempt), leg, late)
        if task is None:
            return Unknown(cause="deadline")
        if task.cancelled() and self.stopping:
            return Unknown(cause="shutdown")
        if task.cancelled() and leg.entry in self._timed_out:
            return Unknown(cause="deadline")
        return desk.outcome(task)

    async def reconcile(self, desk: Attached, leg: Leg) -> Asked:
        entry = self._find(leg.entry)
        unsettled = self._unsettled(entry)
        try:
            part = self.part(entry)
        except TurnfoldError as exc:
            return Asked(CannotTell(detail=str(exc)), unsettled)
        since = (entry.first_at or entry.created) - _SKEW_MS
        call = desk.calling_reconcile(part, since)
        task = await self._call(call, leg, asks=True)
        if task is None:
            return Asked(CannotTell(detail="deadline"), unsettled)
        return Asked(desk.verdict(task), unsettled)

    def _unsettled(self, entry: Entry) -> int:
        """How long an old request may still land. Counted from the end of our own
        call, or from when we became the worker if another process made it, on a monotonic clock
        and never by the wall. Taken before the question is asked."""
        settle = entry.current.settle_ms
        if entry.stream in self.hung:
            return max(settle, 1_000)
        quiet = self._quiet.get(entry.stream, self._began)
        return max(0, quiet + settle - self._clock.mono_ms())

    def forget(self, entry: Entry) -> None:
        """The log has moved on: what is kept in hand for older attempts may go."""
        if entry.phase.closed:
            self._sent.pop(entry.stream, None)
            self._quiet.pop(entry.stream, None)
            return
        kept = self._sent.get(entry.stream)
        if kept and (kept[0].part, kept[0].attempt) != (entry.part, entry.attempt):
            del self._sent[entry.stream]

    def part(self, entry: Entry) -> Part:
        """The part that is next, with its bytes. MissingBodyError if they are gone."""
        planned = entry.current
        own = planned.body in self._at_hand
        body = self._body
        return Part(
            entry_id=entry.stream,
            index=entry.part,
            count=len(entry.parts),
            kind=planned.kind,
            payload=unpack(body(planned.body), body, own=own),
            key=planned.key,
            route=route_of(entry, entry.target),
        )

    def keep(self, bodies: Sequence[Body]) -> None:
        """What was just stored is mostly sent at once: it need not be read back."""
        for body in bodies:
            self._at_hand[body.digest] = body.data
            self._room -= len(body.data)
        if self._room < 0:
            self._at_hand.clear()
            self._room = _ROOM

    def _body(self, digest: str) -> bytes:
        data = self._at_hand.pop(digest, None)
        if data is None:
            return self._store.body(digest)
        self._room += len(data)
        return data

    async def _call(
        self,
        call: Coroutine[Any, Any, Any],
        leg: Leg,
        late: Callable[[asyncio.Task[Any]], None] | None = None,
        *,
        asks: bool = False,
    ) -> asyncio.Task[Any] | None:
        """The finished task, or none if it did not end even when cancelled."""
        self._timed_out.discard(leg.entry)
        task = asyncio.ensure_future(call)
        try:
            await _ended(task, self._settings.attempt_deadline_ms / 1e3)
        except asyncio.CancelledError:
            self.stopping = True  # only a shutdown cancels a program
        if not task.done():
            self._timed_out.add(leg.entry)
            task.cancel()
            await _ended(task, _GRACE_S)
        if not task.done():
            self._hang(task, leg, late)
            return None
        if not asks:
            self._quiet[leg.entry] = self._clock.mono_ms()
        return task

    def _hang(
        self,
        task: asyncio.Task[Any],
        leg: Leg,
        late: Callable[[asyncio.Task[Any]], None] | None,
    ) -> None:
        self.hung[leg.entry] = task

        def ended(task: asyncio.Task[Any]) -> None:
            if self.hung.get(leg.entry) is task:
                del self.hung[leg.entry]
            self._quiet[leg.entry] = self._clock.mono_ms()
            if late is not None:
                late(task)
            elif not task.cancelled():
                task.exception()

        task.add_done_callback(ended)


def route_of(entry: Entry, target: str | None = None) -> Route:
    """Where an entry goes; `target`: where its conversation has moved to."""
    e = entry
    place = target or e.conversation
    return _route(e.channel, e.account, place, e.thread, e.reply_to)


@lru_cache(maxsize=1024)  # conversations come again, and a route checks its texts
def _route(
    channel: str,
    account: str,
    conversation: str,
    thread: str | None,
    reply_to: str | None,
) -> Route:
    return Route(
        channel=channel,
        account=account,
        conversation=conversation,
        thread=thread,
        reply_to=reply_to,
    )


async def _ended(task: asyncio.Task[Any], timeout_s: float) -> None:
    """`asyncio.wait` for just one task, in half of its time."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    task.add_done_callback(wake)
    alarm = loop.call_later(timeout_s, wake)
    try:
        await waiter
    finally:
        alarm.cancel()
        task.remove_done_callback(wake)


def _same(one: Leg, other: Leg) -> bool:
    """One attempt, whether it was seen before its dispatch or after it."""
    return (one.entry, one.part, one.attempt) == (
        other.entry,
        other.part,
        other.attempt,
    )


def _stands(entry: Entry, leg: Leg) -> bool:
    """This attempt is still the one that the log announces."""
    in_flight = entry.phase in (Phase.A, Phase.D)
    return in_flight and (entry.part, entry.attempt) == (leg.part, leg.attempt)


def _unreadable(exc: TurnfoldError) -> Rejected:
    """Nothing was sent. A body that is gone stays gone; a disk may recover."""
    gone = isinstance(exc, MissingBodyError | UsageError)
    failure = FailureClass.INVALID_PAYLOAD if gone else FailureClass.TRANSIENT
    return Rejected(failure=failure, detail=str(exc))
