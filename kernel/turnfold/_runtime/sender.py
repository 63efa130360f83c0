"""The register of a process: the attempts that it has taken up, and the result of each.

A commit hands out the attempts that it made durable, and a lane program may find the
same ones when it looks. Each attempt is entered here before it is sent, with a note
when its call has begun. So it goes to the wire once, however often its program is
started. An attempt leaves when the log has moved past it, and its number is never used
again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import lru_cache

from turnfold._decide import rules
from turnfold._decide.outcomes import DEADLINE
from turnfold._decide.plan import split_text
from turnfold._decide.schedule import LIVE_KIND
from turnfold._decide.unit_of_work import AttemptRef
from turnfold._log.ids import part_key
from turnfold._runtime.calls import Call, CallResult, Calls
from turnfold._runtime.channel import AttachedChannel
from turnfold._runtime.plain import undecorated
from turnfold._runtime.programs import Asked, Prepared
from turnfold._runtime.stored_bodies import BodiesAtHand
from turnfold._state.entry import Entry
from turnfold._state.entry_fold import SHUTDOWN
from turnfold.clock import Clock
from turnfold.enums import (
    DISPATCHED,
    EDIT,
    ON_ITS_WAY,
    PLACEHOLDER,
    FailureClass,
    PartAct,
)
from turnfold.errors import InvalidInputError, MissingBodyError, TurnfoldError
from turnfold.messages import Payload, Route, Text, files_of
from turnfold.ports.channel import (
    Accepted,
    Attempt,
    CannotTell,
    Outcome,
    Part,
    Receipt,
    Rejected,
    Unknown,
)
from turnfold.ports.store import Store
from turnfold.settings import Settings


class Taken:
    """An attempt that was taken up, and its result so far."""

    __slots__ = ("attempt", "outcome", "sent")

    def __init__(self, attempt: AttemptRef) -> None:
        self.attempt = attempt
        self.sent = False  # its call has begun
        self.outcome: Outcome | None = None


class Register:
    """See the module. In the log at most one attempt of an entry is under way."""

    def __init__(self) -> None:
        self._taken: dict[str, Taken] = {}  # by entry
        self._lanes: dict[str, Taken] = {}  # by lane, the latest

    def enter(self, attempt: AttemptRef) -> None:
        """Take an attempt up. An attempt that is in here already keeps its note."""
        if self.find(attempt) is None:
            taken = Taken(attempt)
            self._taken[attempt.entry] = self._lanes[attempt.lane] = taken

    def find(self, attempt: AttemptRef) -> Taken | None:
        taken = self._taken.get(attempt.entry)
        if taken is None:
            return None
        mine = taken.attempt
        same = mine.part == attempt.part and mine.number == attempt.number
        return taken if same else None

    def holds(self, entry: Entry) -> bool:
        """Was the current attempt of this entry taken up?"""
        taken = self._taken.get(entry.stream)
        return taken is not None and _is_at(entry, taken.attempt)

    def moved(self, entry: Entry) -> None:
        """Learn the new state of an entry; its attempt leaves if the log has moved past
        it."""
        taken = self._taken.get(entry.stream)
        if taken is None:
            return
        if entry.phase is DISPATCHED and _is_at(entry, taken.attempt):
            return
        del self._taken[entry.stream]
        if self._lanes.get(entry.lane) is taken:
            del self._lanes[entry.lane]

    def contents(self) -> frozenset[tuple[str, int, int, bool, str]]:
        """For each attempt: entry, part, number, note and outcome."""
        return frozenset(
            (*_ref(taken.attempt), taken.sent, repr(taken.outcome))
            for taken in self._taken.values()
        )

    def speaks_for(self, lane: str) -> AttemptRef | None:
        """The attempt under way in a lane; its end moves the lane on. None: the lane's
        program must look."""
        taken = self._lanes.get(lane)
        return None if taken is None else taken.attempt


def _ref(attempt: AttemptRef) -> tuple[str, int, int]:
    return attempt.entry, attempt.part, attempt.number


def _is_at(entry: Entry, attempt: AttemptRef) -> bool:
    return attempt.part == entry.part and attempt.number == entry.attempt


# --- Taking one attempt to the wire and back, at most once in the life of a process ---


_PREVIEW_MS = 10_000  # deadline of a preview
_BYTES_MS = 32  # bytes of a file for which an attempt gets one millisecond more
DRAIN = Rejected(failure=FailureClass.DRAIN)
STALE = Rejected(failure=FailureClass.STOPPED, detail="the window of its key is over")
_STOPPED = CannotTell(detail="shutdown", failure=FailureClass.STOPPED)

Evidence = Callable[[AttemptRef, Accepted], Awaitable[None]]


class Sender:
    """`evidence` records a success that came after its call was given up."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        register: Register,
        evidence: Evidence,
    ) -> None:
        self._clock, self._register, self._evidence = clock, register, evidence
        self.bodies = BodiesAtHand(store)
        self.calls, self._settings = Calls(), settings
        self._began = clock.mono_ms()
        self._quiet: dict[str, int] = {}  # entry -> when its last call ended
        self.hung: dict[str, asyncio.Task[None]] = {}  # entry -> waits for its call
        self._previews: dict[str, asyncio.Future[CallResult | None]] = {}
        self.stopping = False

    def begin(self) -> None:
        """This process is the worker from now on. An older worker may have sent until
        just now, even if this process has been standing by for long."""
        self._began = self._clock.mono_ms()

    # --- the three calls ---

    async def prepare(
        self, channel: AttachedChannel, attempt: AttemptRef, entry: Entry
    ) -> Prepared | Rejected:
        """Prepare a part. Repeatable, and readers see nothing, so a failure is always
        "not sent"."""
        if not _stands(entry, attempt):
            return Rejected(failure=FailureClass.CANCELLED, detail="overtaken")
        try:
            part = await self._part(entry)
        except TurnfoldError as exc:
            return unreadable(exc)
        span = self._deadline_ms(part)
        call = self.calls.begin(channel.prepare, part, deadline_ms=span)
        end = call.in_time(await call.ended)
        self._over(entry.stream, call, end)
        if self.stopping and (end is None or end.cancelled):
            return DRAIN
        if end is None:
            return Rejected(failure=FailureClass.CANCELLED, detail="deadline")
        return channel.prepared(end)

    async def send(
        self,
        channel: AttachedChannel,
        attempt: AttemptRef,
        entry: Entry,
        go_on: Callable[[Outcome], None],
    ) -> Outcome:
        """Make at most one call for an attempt in the life of this process, in the
        caller's task. If the call hangs, `go_on` gets the outcome in the place of that
        task, and LeftError is raised when the call ends."""
        taken = self._register.find(attempt)
        if taken is None:  # a late receipt came first (INV-4)
            return Unknown(cause="overtaken")
        if taken.sent:
            return taken.outcome or Unknown(cause="sent_before")
        if self.stopping:
            return DRAIN  # surely not sent
        taken.sent = True
        try:
            payload = self._quick_payload(channel, entry)
            if payload is None:
                payload = await self.bodies.payload(entry.stream, entry.current.body)
                if self._register.find(attempt) is not taken:  # overtaken meanwhile
                    return Unknown(cause="overtaken")
            part = _part_of(channel, entry, payload)
        except TurnfoldError as exc:
            taken.outcome = unreadable(exc)
            return taken.outcome
        if entry.doubt and self._is_stale(channel, entry):
            taken.outcome = STALE
            return STALE
        envelope = self._envelope(attempt, entry)

        def ended(end: CallResult | None) -> Outcome:
            self._over(entry.stream, call, end, channel, attempt)
            taken.outcome = outcome = self._outcome(channel, call, end)
            return outcome

        span = self._deadline_ms(part)
        call = Call(lambda end: go_on(ended(end)), span, listens=True)
        if entry.act is EDIT:
            handle = Receipt(ids=entry.handle)
            return ended(
                await self.calls.here(call, channel.edit, handle, part, envelope)
            )
        return ended(await self.calls.here(call, channel.send, part, envelope))

    async def preview(
        self, channel: AttachedChannel, entry: Entry, text: str
    ) -> Outcome:
        """Show the text of a live reply so far, in its placeholder. It is not logged,
        and its outcome changes no state."""
        c = channel.capabilities
        piece = next(split_text(text, c.limit, c.unit), "")
        part = _part_of(channel, entry, Text(piece))
        attempt = Attempt(
            number=entry.attempt, at_ms=self._clock.wall_now(), act=PartAct.EDIT
        )
        handle = Receipt(ids=entry.handle)
        call = self.calls.begin(
            channel.edit, handle, part, attempt, deadline_ms=_PREVIEW_MS
        )
        self._previews[entry.stream] = call.ended
        try:
            end = await call.ended
        finally:
            self._previews.pop(entry.stream, None)
        if end is None or (end.cancelled and (call.timed_out or self.stopping)):
            return Unknown(cause=DEADLINE)
        return channel.outcome(end)

    async def last_words(
        self, channel: AttachedChannel, entry: Entry, text: str
    ) -> Outcome:
        """Show a text in the placeholder of a stopped live reply. Waits first for a
        preview under way, which would overwrite the text."""
        under_way = self._previews.get(entry.stream)
        if under_way is not None:
            await asyncio.wait({under_way})
        return await self.preview(channel, entry, text)

    def _quick_payload(self, channel: AttachedChannel, entry: Entry) -> Payload | None:
        """The payload of the call; None if it must be read from the store."""
        if entry.act is PLACEHOLDER:
            return Text(channel.capabilities.placeholder)
        return self.bodies.at_hand(entry.stream, entry.parts[entry.part].body)

    def _is_stale(self, channel: AttachedChannel, entry: Entry) -> bool:
        """May the platform have forgotten the key of a second send? The decision has
        asked the same before its commit. But since then this process or its machine may
        have been stopped, and the wall clock set."""
        if entry.act is not PartAct.SEND or entry.granted:
            return False  # it does not rely on the key
        claimed = channel.capabilities.of(entry.current.kind)
        held = rules.held_to(entry, rules.in_force(entry.current, claimed))
        now, sure_from = self._clock.now(), self._clock.sure_from
        age = rules.key_now(held, now, sure_from, self._clock.unlived)
        return not rules.key_window_open(held, age, sure_from)

    def _envelope(self, attempt: AttemptRef, entry: Entry) -> Attempt:
        return Attempt(
            number=attempt.number,
            at_ms=self._clock.wall_now(),
            marked=entry.marked,
            prepared=attempt.prepared,
            act=entry.act,
        )

    def _deadline_ms(self, part: Part) -> int:
        """The deadline of an attempt: longer for files, by their size."""
        if type(part.payload) is Text:
            return self._settings.attempt_deadline_ms
        size = sum(len(file.data or b"") for file in files_of(part.payload))
        return self._settings.attempt_deadline_ms + size // _BYTES_MS

    def _outcome(
        self, channel: AttachedChannel, call: Call, end: CallResult | None
    ) -> Outcome:
        if end is None or (end.cancelled and call.timed_out):
            return Unknown(cause=DEADLINE)
        if end.cancelled and self.stopping:
            return Unknown(cause=SHUTDOWN)
        return channel.outcome(end)

    async def reconcile(self, channel: AttachedChannel, entry: Entry) -> Asked:
        """Look up a part at the platform. An answer does not make an entry quiet: an
        earlier request may still take effect."""
        unsettled = self._unsettled(entry, channel)
        try:
            part = await self._part(entry)
        except TurnfoldError as exc:
            return Asked(CannotTell(detail=str(exc)), unsettled)
        since = self._since(entry, channel.skew_ms)
        span = self._settings.attempt_deadline_ms
        call = self.calls.begin(channel.reconcile, part, since, deadline_ms=span)
        end = call.in_time(await call.ended)
        if end is None:
            self._over(entry.stream, call, end)
            return Asked(CannotTell(detail="deadline"), unsettled)
        if end.cancelled and self.stopping:
            return Asked(_STOPPED, unsettled)
        return Asked(channel.verdict(end), unsettled)

    def _since(self, entry: Entry, skew_ms: int | None) -> int:
        """The wall time since when evidence counts, by the platform's clock. 0 if the
        difference of the two clocks is not known."""
        first = entry.first_at or entry.created
        date = None if skew_ms is None else self._clock.wall_of(first)
        return 0 if skew_ms is None or date is None else max(0, date - skew_ms)

    async def _part(self, entry: Entry) -> Part:
        """The next part, with its bytes. Raises MissingBodyError if they are gone."""
        body = entry.current.body
        return _part(entry, await self.bodies.payload(entry.stream, body))

    # --- calls on the wire, and the time since the last one ---

    def _unsettled(self, entry: Entry, channel: AttachedChannel) -> int:
        """How long an old request may still take effect. Counted on a monotonic clock,
        never by the wall: from the end of this process's own call, or from when it
        became the worker if another process made the call. Taken before the look-up."""
        claimed = channel.capabilities.of(entry.current.kind)
        settle = rules.in_force(entry.current, claimed).settle_ms
        if entry.stream in self.hung:
            return max(settle, 1_000)
        quiet = self._quiet.get(entry.stream, self._began)
        return max(0, quiet + settle - self._clock.mono_ms())

    def forget(self, entry: Entry) -> None:
        """Call this when an entry is closed: it is never looked up again."""
        self._quiet.pop(entry.stream, None)

    def _over(
        self,
        stream: str,
        call: Call,
        end: CallResult | None,
        channel: AttachedChannel | None = None,
        attempt: AttemptRef | None = None,
    ) -> None:
        """A call of an entry is over: the entry is quiet, unless the call hangs."""
        if end is not None:
            self._quiet[stream] = self._clock.mono_ms()
            return
        listens = self._listen(stream, call, channel, attempt)
        self.hung[stream] = asyncio.get_running_loop().create_task(listens)

    async def _listen(
        self,
        stream: str,
        call: Call,
        channel: AttachedChannel | None,
        attempt: AttemptRef | None,
    ) -> None:
        """Wait for the end of a hanging call: a success is evidence, however late."""
        end = await call.last()
        if self.hung.get(stream) is asyncio.current_task():
            del self.hung[stream]
        self._quiet[stream] = self._clock.mono_ms()
        if end.cancelled and (call.timed_out or self.stopping):
            return  # by us, and no bug of the channel
        if channel is not None and attempt is not None:
            outcome = channel.outcome(end)
            if isinstance(outcome, Accepted):
                await self._evidence(attempt, outcome)


def _part_of(channel: AttachedChannel, entry: Entry, payload: Payload) -> Part:
    """The next part; for a live reply before its plan, its coming first part."""
    if entry.planned:
        return _part(entry, payload)
    c = channel.capabilities
    return Part(
        entry_id=entry.stream,
        index=0,
        count=1,
        kind=LIVE_KIND,
        payload=payload,
        key=part_key(entry.stream, 0, c.key_alphabet, c.key_length),
        route=route_of(entry, entry.target),
    )


def _part(entry: Entry, payload: Payload) -> Part:
    """The next part of an entry, with its payload."""
    planned, route = entry.parts[entry.part], route_of(entry, entry.target)
    if planned.dropped:
        payload, route = undecorated(payload, route, planned.dropped)
    return Part(
        entry_id=entry.stream,
        index=entry.part,
        count=len(entry.parts),
        kind=planned.kind,
        payload=payload,
        key=planned.key,
        route=route,
    )


def route_of(entry: Entry, target: str | None = None) -> Route:
    """The route of an entry; `target`: the new place of a moved conversation."""
    e = entry
    place = target or e.conversation
    return _route(e.channel, e.account, place, e.thread, e.reply_to)


@lru_cache(maxsize=1024)  # routes repeat, and making one checks its texts
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


def _stands(entry: Entry, attempt: AttemptRef) -> bool:
    """Is this attempt still the current one of the entry?"""
    in_flight = entry.phase in ON_ITS_WAY
    return in_flight and (entry.part, entry.attempt) == (attempt.part, attempt.number)


def unreadable(exc: TurnfoldError) -> Rejected:
    """The outcome of an unreadable body; nothing was sent. A missing body stays
    missing; a disk may recover."""
    gone = isinstance(exc, MissingBodyError | InvalidInputError)
    failure = FailureClass.INVALID_PAYLOAD if gone else FailureClass.TRANSIENT
    return Rejected(failure=failure, detail=str(exc))
