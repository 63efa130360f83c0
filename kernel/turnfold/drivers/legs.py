"""Carrying one leg to the wire and back, at most once in the life of a process.

What was sent, what came back, and since when a platform has been quiet is kept here for
as long as it matters; the calls themselves are made in calls.py.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from turnfold.attached import Attached, End
from turnfold.clock import Clock
from turnfold.drivers.calls import Call, Calls, Task
from turnfold.effects import Asked, Leg, Prepared
from turnfold.errors import MissingBodyError, TurnfoldError, UsageError
from turnfold.machines.entry import Entry
from turnfold.packing import unpack
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
from turnfold.ports.store import Body, Store
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
        late: Callable[[Leg, Accepted], None],
    ) -> None:
        self._store, self._clock = store, clock
        self._find, self._late = find, late
        self.calls = Calls(settings)
        self._began = clock.mono_ms()
        self.sent: dict[str, tuple[Leg, Outcome | None]] = {}
        self._quiet: dict[str, int] = {}  # entry -> when its last call ended
        self._at_hand: dict[str, Body] = {}  # bodies just stored, by digest
        self._room = _ROOM
        self.hung: dict[str, Task] = {}
        self.stopping = False

    def begin(self) -> None:
        """We are the worker from now on: an older one may have sent until just now,
        however long this process has been standing by."""
        self._began = self._clock.mono_ms()

    # Each returns the call that is under way, or none if it told at once.

    def prepare(
        self, desk: Attached, leg: Leg, tell: Callable[[Prepared | Rejected], None]
    ) -> Call | None:
        """Repeatable, and invisible to the reader: a failure is always "not sent"."""
        entry = self._find(leg.entry)
        if not _stands(entry, leg):
            tell(Rejected(failure=FailureClass.CANCELLED, detail="overtaken"))
            return None
        try:
            part = self.part(entry)
        except TurnfoldError as exc:
            tell(_unreadable(exc))
            return None
        call = _Preparing(self, desk, leg, tell)
        return self.calls.begin(call, desk.calling_prepare(part, call.done))

    def send(
        self,
        desk: Attached,
        leg: Leg,
        prepared: Any,
        tell: Callable[[Outcome], None],
    ) -> Call | None:
        """Exactly one call for a leg in the life of this process, whatever happens."""
        entry = self._find(leg.entry)
        part = self._ready(entry, leg)
        if not isinstance(part, Part):
            tell(part)
            return None
        at = entry.last_at or self._clock.now()
        attempt = Attempt(
            number=leg.attempt, at_ms=at, marked=entry.marked, prepared=prepared
        )
        self.sent[leg.entry] = (leg, None)
        call = _Sending(self, desk, leg, tell)
        return self.calls.begin(call, desk.calling_send(part, attempt, call.done))

    def _ready(self, entry: Entry, leg: Leg) -> Part | Outcome:
        """The part that may go to the wire now, or what is known without sending."""
        before = self.sent.get(leg.entry)
        if before is not None and _same(before[0], leg):
            return before[1] or Unknown(cause="sent_before")
        if self.stopping:
            return DRAIN  # still in our hands: proven not sent
        if not _stands(entry, leg):  # a late receipt came first (INV-4)
            return Unknown(cause="overtaken")
        try:
            return self.part(entry)
        except TurnfoldError as exc:
            return _unreadable(exc)

    def reconcile(
        self, desk: Attached, leg: Leg, tell: Callable[[Asked], None]
    ) -> Call | None:
        """Ask the platform what became of a part."""
        entry = self._find(leg.entry)
        unsettled = self._unsettled(entry)
        try:
            part = self.part(entry)
        except TurnfoldError as exc:
            tell(Asked(CannotTell(detail=str(exc)), unsettled))
            return None
        since = (entry.first_at or entry.created) - _SKEW_MS
        call = _Asking(self, desk, leg, tell, unsettled)
        return self.calls.begin(call, desk.calling_reconcile(part, since, call.done))

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
            self.sent.pop(entry.stream, None)
            self._quiet.pop(entry.stream, None)
            return
        kept = self.sent.get(entry.stream)
        if kept and (kept[0].part, kept[0].attempt) != (entry.part, entry.attempt):
            del self.sent[entry.stream]

    def part(self, entry: Entry) -> Part:
        """The part that is next, with its bytes. MissingBodyError if they are gone."""
        planned = entry.current
        return Part(
            entry_id=entry.stream,
            index=entry.part,
            count=len(entry.parts),
            kind=planned.kind,
            payload=self._payload(planned.body),
            key=planned.key,
            route=route_of(entry, entry.target),
        )

    def keep(self, bodies: Sequence[Body]) -> None:
        """What was just stored is mostly sent at once: it need not be read back."""
        for body in bodies:
            self._at_hand[body.digest] = body
            self._room -= len(body.data)
        if self._room < 0:
            self._at_hand.clear()
            self._room = _ROOM

    def _payload(self, digest: str) -> Payload:
        own = self._taken(digest)
        if own is not None and isinstance(own.origin, Text):
            return own.origin
        data = own.data if own is not None else self._store.body(digest)
        return unpack(data, self._body)

    def _body(self, digest: str) -> bytes:
        own = self._taken(digest)
        return self._store.body(digest) if own is None else own.data

    def _taken(self, digest: str) -> Body | None:
        """What is at hand is given away once."""
        own = self._at_hand.pop(digest, None)
        if own is not None:
            self._room += len(own.data)
        return own

    # --- what its calls tell ---

    def hangs(self, call: "_LegCall") -> None:
        if call.task is not None:
            self.hung[call.leg.entry] = call.task

    def rested(self, leg: Leg) -> None:
        """Nothing of this entry is on the wire any more."""
        self._quiet[leg.entry] = self._clock.mono_ms()

    def came_late(self, call: "_LegCall") -> None:
        entry = call.leg.entry
        if self.hung.get(entry) is call.task:
            del self.hung[entry]
        self.rested(call.leg)

    def late(self, leg: Leg, outcome: Outcome) -> None:
        """A success is evidence, however late."""
        if isinstance(outcome, Accepted):
            self._late(leg, outcome)


class _LegCall(Call):
    """A call for one leg; `tell` learns what came of it, once."""

    __slots__ = ("desk", "leg", "legs", "tell")

    def __init__(
        self, legs: Legs, desk: Attached, leg: Leg, tell: Callable[[Any], None]
    ) -> None:
        super().__init__(legs.calls)
        self.legs, self.desk, self.leg, self.tell = legs, desk, leg, tell

    def ended(self, end: End | None) -> None:
        if end is None:
            self.legs.hangs(self)
        else:
            self.legs.rested(self.leg)
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
        if end is None:
            return Rejected(failure=FailureClass.TRANSIENT, detail="deadline")
        return self.desk.prepared(end)


class _Sending(_LegCall):
    __slots__ = ()

    def meaning(self, end: End | None) -> Outcome:
        outcome = self._outcome(end)
        self.legs.sent[self.leg.entry] = (self.leg, outcome)
        return outcome

    def _outcome(self, end: End | None) -> Outcome:
        if end is None or (end.cancelled and self.timed_out):
            return Unknown(cause="deadline")
        if end.cancelled and self.legs.stopping:
            return Unknown(cause="shutdown")
        return self.desk.outcome(end)

    def late(self, end: End) -> None:
        self.legs.came_late(self)
        self.legs.late(self.leg, self.desk.outcome(end))


class _Asking(_LegCall):
    """`unsettled`: taken before the question was asked. An answer does not make an
    entry quiet: what was sent before may still land."""

    __slots__ = ("unsettled",)

    def __init__(
        self,
        legs: Legs,
        desk: Attached,
        leg: Leg,
        tell: Callable[[Asked], None],
        unsettled: int,
    ) -> None:
        super().__init__(legs, desk, leg, tell)
        self.unsettled = unsettled

    def ended(self, end: End | None) -> None:
        if end is None:
            self.legs.hangs(self)
        self.tell(self.meaning(end))

    def meaning(self, end: End | None) -> Asked:
        silent = CannotTell(detail="deadline")
        verdict = silent if end is None else self.desk.verdict(end)
        return Asked(verdict, self.unsettled)


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


def _same(one: Leg, other: Leg) -> bool:
    """One attempt, whether it was seen before its dispatch or after it."""
    return (one.entry, one.part, one.attempt) == (
        other.entry,
        other.part,
        other.attempt,
    )


def _stands(entry: Entry, leg: Leg) -> bool:
    """This attempt is still the one that the log announces."""
    in_flight = entry.phase in (Phase.ATTEMPTED, Phase.DISPATCHED)
    return in_flight and (entry.part, entry.attempt) == (leg.part, leg.attempt)


def _unreadable(exc: TurnfoldError) -> Rejected:
    """Nothing was sent. A body that is gone stays gone; a disk may recover."""
    gone = isinstance(exc, MissingBodyError | UsageError)
    failure = FailureClass.INVALID_PAYLOAD if gone else FailureClass.TRANSIENT
    return Rejected(failure=failure, detail=str(exc))
