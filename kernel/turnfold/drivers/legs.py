"""Carrying one leg to the wire and back, at most once in the life of a process.

What was sent, what came back, and since when a platform has been quiet is kept here for
as long as it matters; the calls themselves are made in calls.py.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

from turnfold.attached import Attached, Calling, End
from turnfold.bodies import place_of, read_body
from turnfold.clock import Clock
from turnfold.decide.draft import AttemptRef
from turnfold.drivers.calls import Call, Calls, Task
from turnfold.drivers.register import Register, Taken
from turnfold.effects import Asked, Prepared
from turnfold.errors import MissingBodyError, TurnfoldError, UsageError
from turnfold.machines.entry import Entry
from turnfold.packing import fetch_payload
from turnfold.payloads import Payload, Route, Text
from turnfold.ports.channel import (
    Accepted,
    Attempt,
    CannotTell,
    Outcome,
    Part,
    Rejected,
    Unknown,
)
from turnfold.ports.store import Body, BodyRef, Store
from turnfold.settings import Settings
from turnfold.words import FailureClass, Phase

_ROOM = 4 * 1024 * 1024  # bytes of bodies that are kept at hand
_SKEW_MS = 60_000  # how far a platform's clock may be behind ours in a look-up
DRAIN = Rejected(failure=FailureClass.DRAIN)


class Legs:
    """`find` gives the folded entry; `late` is told of successes after the deadline.
    `prepare`, `send` and `reconcile` tell `tell` what came of it, once."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        find: Callable[[str], Entry],
        late: Callable[[AttemptRef, Accepted], None],
        register: Register,
    ) -> None:
        self._store, self._clock = store, clock
        self._find, self._late = find, late
        self.calls = Calls(settings)
        self._began = clock.mono_ms()
        self._register = register
        self._quiet: dict[str, int] = {}  # entry -> when its last call ended
        self._at_hand: dict[BodyRef, Body] = {}  # bodies just stored
        self._room = _ROOM
        self.hung: dict[str, Task] = {}
        self.stopping = False

    def begin(self) -> None:
        """We are the worker from now on: an older one may have sent until just now,
        however long this process has been standing by."""
        self._began = self._clock.mono_ms()

    # Each returns the call that is under way, or none if it told at once.

    def prepare(
        self,
        desk: Attached,
        leg: AttemptRef,
        tell: Callable[[Prepared | Rejected], None],
    ) -> Call | None:
        """Repeatable, and invisible to the reader: a failure is always "not sent"."""
        entry = self._find(leg.entry)
        if not _stands(entry, leg):
            tell(Rejected(failure=FailureClass.CANCELLED, detail="overtaken"))
            return None
        call = _Preparing(self, desk, leg.entry, tell)
        prepare = partial(desk.calling_prepare, tell=call.done)
        return self.calls.begin(call, self._with_part(entry, call, prepare))

    def send(
        self,
        desk: Attached,
        leg: AttemptRef,
        tell: Callable[[Outcome], None],
    ) -> Call | None:
        """Exactly one call for a leg in the life of this process, whatever happens."""
        entry = self._find(leg.entry)
        known = self._known(entry, leg)
        if known is not None:
            tell(known)
            return None
        at = entry.last_at or self._clock.now()
        attempt = Attempt(
            number=leg.number, at_ms=at, marked=entry.marked, prepared=leg.prepared
        )
        taken = self._register.find(leg)
        if taken is not None:
            taken.sent = True
        call = _Sending(self, desk, leg, taken, tell)
        send = partial(desk.calling_send, attempt=attempt, tell=call.done)
        return self.calls.begin(call, self._with_part(entry, call, send))

    def _known(self, entry: Entry, leg: AttemptRef) -> Outcome | None:
        """The outcome, if it is known without sending."""
        taken = self._register.find(leg)
        if taken is not None and taken.sent:
            return taken.outcome or Unknown(cause="sent_before")
        if self.stopping:
            return DRAIN  # still in our hands: proven not sent
        if not _stands(entry, leg):  # a late receipt came first (INV-4)
            return Unknown(cause="overtaken")
        return None

    def reconcile(
        self, desk: Attached, stream: str, tell: Callable[[Asked], None]
    ) -> Call | None:
        """Ask the platform what became of a part."""
        entry = self._find(stream)
        unsettled = self._unsettled(entry)
        since = (entry.first_at or entry.created) - _SKEW_MS
        call = _Asking(self, desk, stream, tell, unsettled)
        ask = partial(desk.calling_reconcile, since=since, tell=call.done)
        return self.calls.begin(call, self._with_part(entry, call, ask))

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
            self._quiet.pop(entry.stream, None)

    def _with_part(
        self, entry: Entry, call: "_LegCall", begin: Callable[[Part], Calling]
    ) -> Calling:
        """The call with the bytes of its part: at hand if they were stored just now,
        else fetched. Bytes that cannot be had end the call before it began."""
        payload = self._own_text(entry)
        if payload is not None:
            return begin(part_of(entry, payload))
        return self._fetched(entry, call, begin)

    async def _fetched(
        self, entry: Entry, call: "_LegCall", begin: Callable[[Part], Calling]
    ) -> End:
        try:
            part = part_of(entry, await self._payload(entry))
        except TurnfoldError as exc:
            end = End(refused=_unreadable(exc))
            call.done(end)
            return end
        except asyncio.CancelledError as exc:
            end = End(error=exc)
            call.done(end)
            return end
        return await begin(part)

    def keep(self, bodies: Sequence[Body]) -> None:
        """A part that was just stored is mostly sent at once: keep its bytes."""
        for body in bodies:
            self._at_hand[body.stream, body.number] = body
            self._room -= len(body.data)
        if self._room < 0:
            self._at_hand.clear()
            self._room = _ROOM

    def _own_text(self, entry: Entry) -> Payload | None:
        place = place_of(entry.stream, entry.current.body)
        own = self._at_hand.get(place)
        if own is None or not isinstance(own.origin, Text):
            return None
        self._taken(place)
        return own.origin

    async def _payload(self, entry: Entry) -> Payload:
        return await fetch_payload(self._read, entry.stream, entry.current.body)

    async def _read(self, stream: str, ref: str) -> bytes:
        own = self._taken(place_of(stream, ref))
        if own is not None:
            return own.data
        return await read_body(self._store, stream, ref)

    def _taken(self, place: BodyRef) -> Body | None:
        """A body that is at hand is given away once."""
        own = self._at_hand.pop(place, None)
        if own is not None:
            self._room += len(own.data)
        return own

    # --- what its calls tell ---

    def hangs(self, call: "_LegCall") -> None:
        if call.task is not None:
            self.hung[call.entry] = call.task

    def rested(self, entry: str) -> None:
        """Nothing of this entry is on the wire any more."""
        self._quiet[entry] = self._clock.mono_ms()

    def came_late(self, call: "_LegCall") -> None:
        entry = call.entry
        if self.hung.get(entry) is call.task:
            del self.hung[entry]
        self.rested(entry)

    def late(self, leg: AttemptRef, outcome: Outcome) -> None:
        """A success is evidence, however late."""
        if isinstance(outcome, Accepted):
            self._late(leg, outcome)


class _LegCall(Call):
    """A call for one entry; `tell` learns what came of it, once."""

    __slots__ = ("desk", "entry", "legs", "tell")

    def __init__(
        self, legs: Legs, desk: Attached, entry: str, tell: Callable[[Any], None]
    ) -> None:
        super().__init__(legs.calls)
        self.legs, self.desk, self.entry, self.tell = legs, desk, entry, tell

    def ended(self, end: End | None) -> None:
        if end is None:
            self.legs.hangs(self)
        else:
            self.legs.rested(self.entry)
        self.tell(self.meaning(end))

    def meaning(self, end: End | None) -> Any:
        raise NotImplementedError

    def late(self, end: End) -> None:  # noqa: ARG002  of no use any more, but for a send
        self.legs.came_late(self)


class _Preparing(_LegCall):
    __slots__ = ()

    def meaning(self, end: End | None) -> Prepared | Rejected:
        if self.legs.stopping and (end is None or end.cancelled):
            return DRAIN
        if end is not None and end.refused is not None:
            return end.refused
        if end is None:
            return Rejected(failure=FailureClass.TRANSIENT, detail="deadline")
        return self.desk.prepared(end)


class _Sending(_LegCall):
    __slots__ = ("attempt", "taken")

    def __init__(
        self,
        legs: Legs,
        desk: Attached,
        attempt: AttemptRef,
        taken: Taken | None,
        tell: Callable[[Any], None],
    ) -> None:
        super().__init__(legs, desk, attempt.entry, tell)
        self.attempt, self.taken = attempt, taken

    def meaning(self, end: End | None) -> Outcome:
        outcome = self._outcome(end)
        if self.taken is not None:
            self.taken.outcome = outcome
        return outcome

    def _outcome(self, end: End | None) -> Outcome:
        if end is None or (end.cancelled and self.timed_out):
            return Unknown(cause="deadline")
        if end.cancelled and self.legs.stopping:
            return Unknown(cause="shutdown")
        return end.refused or self.desk.outcome(end)

    def late(self, end: End) -> None:
        self.legs.came_late(self)
        self.legs.late(self.attempt, self.desk.outcome(end))


class _Asking(_LegCall):
    """`unsettled`: taken before the question was asked. An answer does not make an
    entry quiet: what was sent before may still land."""

    __slots__ = ("unsettled",)

    def __init__(
        self,
        legs: Legs,
        desk: Attached,
        entry: str,
        tell: Callable[[Asked], None],
        unsettled: int,
    ) -> None:
        super().__init__(legs, desk, entry, tell)
        self.unsettled = unsettled

    def ended(self, end: End | None) -> None:
        if end is None:
            self.legs.hangs(self)
        self.tell(self.meaning(end))

    def meaning(self, end: End | None) -> Asked:
        if end is not None and end.refused is not None:
            return Asked(CannotTell(detail=end.refused.detail), self.unsettled)
        silent = CannotTell(detail="deadline")
        verdict = silent if end is None else self.desk.verdict(end)
        return Asked(verdict, self.unsettled)


def part_of(entry: Entry, payload: Payload) -> Part:
    """The part of an entry that is next."""
    planned = entry.current
    return Part(
        entry_id=entry.stream,
        index=entry.part,
        count=len(entry.parts),
        kind=planned.kind,
        payload=payload,
        key=planned.key,
        route=route_of(entry, entry.target),
    )


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


def _stands(entry: Entry, leg: AttemptRef) -> bool:
    """This attempt is still the one that the log announces."""
    in_flight = entry.phase in (Phase.ATTEMPTED, Phase.DISPATCHED)
    return in_flight and (entry.part, entry.attempt) == (leg.part, leg.number)


def _unreadable(exc: TurnfoldError) -> Rejected:
    """Nothing was sent. A body that is gone stays gone; a disk may recover."""
    gone = isinstance(exc, MissingBodyError | UsageError)
    failure = FailureClass.INVALID_PAYLOAD if gone else FailureClass.TRANSIENT
    return Rejected(failure=failure, detail=str(exc))
