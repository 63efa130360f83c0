"""The rules of one outbox entry, as a log shows them (specs/design.md 2, INV-1 to INV-12).

Written anew on purpose: nothing of `guards` or `decide` is used here, so that a guard
that is wrong there is found here. Each function yields what an event breaks, given the
entry as it was before the event.
"""

from collections.abc import Callable, Iterator
from typing import Any

from turnfold.audit.findings import Rule
from turnfold.events import outbox as o
from turnfold.frozen import frozen
from turnfold.machines.entry import Entry
from turnfold.words import DeliveryClass, FailureClass, Phase, Reason

Broken = Iterator[tuple[Rule, str]]
_IN_FLIGHT = (Phase.ATTEMPTED, Phase.DISPATCHED)
_Outcome = (
    o.PartDelivered
    | o.Delivered
    | o.Deferred
    | o.FailedRetryable
    | o.OutcomeUnknown
    | o.Dispatched
)


@frozen
class Moment:
    """When an event was written, and which worker held the store then. `later`: epoch
    and owner of the one that began in the same commit, by a record behind this one."""

    at: int
    epoch: int
    owner: str | None
    later: tuple[int, str] | None = None

    def right(self, fence: int, owner: str) -> bool:
        """Whoever writes with this fence is the worker."""
        return (fence, owner) in ((self.epoch, self.owner), self.later)

    def current(self, fence: int) -> bool:
        """This fence is that of the worker."""
        return fence == self.epoch or (
            self.later is not None and fence == self.later[0]
        )


def broken_by(before: Entry, event: o.OutboxEvent, now: Moment) -> Broken:
    """What `event` breaks; legality by the transition table is not looked at."""
    match event:
        case o.Attempted():
            return _attempted(before, event, now)
        case o.Dispatched():
            return _dispatched(before, event, now)
        case o.PartDelivered() | o.Delivered():
            return _delivered(before, event, now)
        case o.Deferred() | o.FailedRetryable() | o.OutcomeUnknown():
            return _not_delivered(before, event, now)
        case o.FailedTerminal():
            return _ended(before, event, now)
        case o.LateReceipt():
            return _receipt(before, event.receipt)
        case o.Reconciled():
            return _looked_up(before, event)
        case _:
            return _changed(before, event)


# What nearly every message does is looked at in one go: if all is as usual, none of the
# rules has anything to say (a test holds that), so they need not be asked. They alone
# say what is broken.


def _usual_plan(before: Entry, _event: o.Planned, _now: Moment) -> bool:
    return not before.planned


def _usual_attempt(before: Entry, event: o.Attempted, now: Moment) -> bool:
    return (
        event.part == before.part
        and event.attempt == before.attempt + 1
        and event.fence == now.epoch
        and event.owner == now.owner
        and before.planned
        and before.used < before.budget
        and now.at < before.expires_at
        and before.abort is None
        and not before.doubt
    )


def _usual_end(
    before: Entry, event: o.PartDelivered | o.Delivered, now: Moment
) -> bool:
    return (
        event.part == before.part
        and event.attempt == before.attempt
        and before.fence == now.epoch
        and before.phase in _IN_FLIGHT
        and event.receipt != ()
        and "" not in event.receipt
    )


USUAL: dict[type, Callable[[Entry, Any, Moment], bool]] = {
    o.Planned: _usual_plan,
    o.Attempted: _usual_attempt,
    o.PartDelivered: _usual_end,
    o.Delivered: _usual_end,
}


def _changed(before: Entry, event: o.OutboxEvent) -> Broken:
    """Events that are nobody's outcome."""
    match event:
        case o.Planned() if before.planned:
            yield Rule.FROZEN_PLAN, "planned a second time"
        case o.Aborted() if before.doubt:
            yield Rule.ABORT, "aborted, though an attempt of it is in doubt"
        case o.Redriven() if before.doubt and not event.accept_duplicate:
            yield Rule.NO_DOUBLE, "redriven out of doubt, and no duplicate was accepted"
        case _:
            pass


def _attempted(before: Entry, event: o.Attempted, now: Moment) -> Broken:
    if not before.planned:
        yield Rule.FROZEN_PLAN, "attempted before its parts were frozen"
    if event.part > before.part:
        text = f"part {event.part} attempted while part {before.part} is not settled"
        yield Rule.FROZEN_PLAN, text
    if not now.right(event.fence, event.owner):
        text = f"attempted by {event.owner} with fence {event.fence}"
        yield Rule.FENCE, f"{text}, but the worker is {now.owner} of epoch {now.epoch}"
    if event.part == before.part and event.attempt != before.attempt + 1:
        text = f"attempt {event.attempt} of part {event.part} follows {before.attempt}"
        yield Rule.ATTEMPTS, text
    if before.used >= before.budget and before.planned:
        text = f"attempted with {before.used} of {before.budget} attempts spent"
        yield Rule.ATTEMPTS, text
    yield from _may_go_out(before, event.part, now, "attempted")
    if event.part == before.part and before.doubt:
        yield from _resent(before, event, now)


def _dispatched(before: Entry, event: o.Dispatched, now: Moment) -> Broken:
    yield from _current(before, event)
    yield from _fenced(before, now)
    yield from _may_go_out(before, event.part, now, "dispatched")


def _may_go_out(before: Entry, part: int, now: Moment, what: str) -> Broken:
    if part < before.part:
        yield Rule.EVIDENCE, f"part {part} {what} again after it was settled"
    if now.at >= before.expires_at:
        late = now.at - before.expires_at
        yield Rule.EXPIRY, f"{what} {late} ms after it had expired"
    if before.abort is not None:
        yield Rule.ABORT, f"{what} after an abort was requested ({before.abort})"


def _resent(before: Entry, event: o.Attempted, now: Moment) -> Broken:
    """A part in doubt goes out again: under its key in time, or by a logged word."""
    if before.resend:
        if before.marked and not event.marked:
            yield Rule.NO_DOUBLE, "sent again without the mark that was decided"
        return
    part = before.parts[before.part] if before.part < len(before.parts) else None
    if part is None or DeliveryClass.KEYED not in part.classes:
        classes = ", ".join(part.classes) if part and part.classes else "blind"
        text = f"sent again while in doubt; its class is {classes} and no policy spoke"
        yield Rule.NO_DOUBLE, text
        return
    since = now.at - (before.first_at if before.first_at is not None else now.at)
    window = part.key_window_ms
    # Half of the window: what a wall clock may lose across a restart (specs/design.md 2).
    if window is not None and 2 * since >= window:
        text = f"sent again under its key {since} ms after the first attempt"
        yield Rule.NO_DOUBLE, f"{text}; half of the key's window is {window // 2} ms"


def _current(before: Entry, event: _Outcome) -> Broken:
    last = (before.part, before.attempt)
    if (event.part, event.attempt) != last:
        text = f"about part {event.part}, attempt {event.attempt}"
        yield Rule.FENCE, f"{text}; the last one is part {last[0]}, attempt {last[1]}"


def _fenced(before: Entry, now: Moment) -> Broken:
    if before.phase in _IN_FLIGHT and not now.current(before.fence):
        text = f"an outcome under fence {before.fence}, but the epoch is {now.epoch}"
        yield Rule.FENCE, text


def _delivered(
    before: Entry, event: o.PartDelivered | o.Delivered, now: Moment
) -> Broken:
    if event.suppressed is not None:
        return
    yield from _current(before, event)
    if event.by is not None:
        return  # a person's word
    yield from _receipt(before, event.receipt)
    if event.looked_up:
        return
    yield from _fenced(before, now)
    if before.phase not in _IN_FLIGHT:
        yield Rule.FENCE, f"delivered in phase {before.phase}, when nobody was sending"


def _receipt(before: Entry, receipt: tuple[str, ...]) -> Broken:
    if before.ids and not (receipt and all(receipt)):
        yield Rule.NO_LOSS, "called delivered without the platform's receipt"


def _not_delivered(
    before: Entry,
    event: o.Deferred | o.FailedRetryable | o.OutcomeUnknown,
    now: Moment,
) -> Broken:
    yield from _current(before, event)
    unknown = isinstance(event, o.OutcomeUnknown)
    why = event.cause if isinstance(event, o.OutcomeUnknown) else event.failure
    if why != FailureClass.OWNER_DIED:
        yield from _fenced(before, now)
    elif before.fence == now.epoch and now.later is None and before.phase in _IN_FLIGHT:
        yield Rule.FENCE, "its owner is called dead by its own epoch"
    if before.doubt and not unknown:
        yield Rule.NO_DOUBLE, "called `not accepted` while an older attempt is in doubt"
    dead = before.phase is Phase.DISPATCHED and why == FailureClass.OWNER_DIED
    if dead and not unknown:
        yield Rule.NO_DOUBLE, "its sender died on the wire, yet it is called not sent"


def _ended(before: Entry, event: o.FailedTerminal, now: Moment) -> Broken:
    reason = event.reason
    if before.doubt and reason is not Reason.OUTCOME_UNKNOWN:
        yield Rule.EXPIRY, f"ended as {reason}, though it may have been delivered"
    if reason is Reason.EXPIRED:
        if now.at < before.expires_at:
            text = f"expired {before.expires_at - now.at} ms before its time"
            yield Rule.EXPIRY, text
        if before.phase is Phase.DISPATCHED and not before.doubt:
            yield Rule.EXPIRY, "ended as expired while it was on the wire"
    if reason is Reason.PERMANENT:
        yield from _fenced(before, now)


def _looked_up(before: Entry, event: o.Reconciled) -> Broken:
    if event.part != before.part:
        yield Rule.FENCE, f"a look-up of part {event.part}, not of part {before.part}"
    part = before.parts[before.part] if before.part < len(before.parts) else None
    if event.absent and (part is None or DeliveryClass.LOOKUP not in part.classes):
        yield Rule.NO_DOUBLE, "absence was proven where nothing can be looked up"
