"""Events in plain words, one sentence each."""

from collections.abc import Callable

from turnfold.events import Event
from turnfold.events import ledger as g
from turnfold.events import outbox as o
from turnfold.events import turn as t
from turnfold.words import PartAct, Trial

Text = Callable[[str | None], str | None]  # digest to free text, if it is still there


def told(event: Event, text: Text) -> str:
    """What an event says. `text` fetches the free text behind a digest."""
    words = _entry(event) or _entry_late(event) or _turn(event) or _ledger(event)
    detail = text(getattr(event, "detail", None) or getattr(event, "why", None))
    return f"{words}: {detail}" if detail else words


def part(index: int) -> str:
    """Parts are counted from 1 where people read."""
    return f"part {index + 1}"


def by(who: str | None) -> str:
    return f" by {who}" if who else ""


def _entry(event: Event) -> str | None:
    match event:
        case o.Queued():
            return f"queued as {event.kind}"
        case o.Imported():
            return f"imported from {event.origin} as {event.kind}"
        case o.Planned():
            kinds = ", ".join(p.kind for p in event.parts)
            return f"planned as {len(event.parts)} part(s): {kinds}"
        case o.Attempted():
            return _attempted(event)
        case o.Dispatched():
            return f"{part(event.part)} handed to the wire, attempt {event.attempt}"
        case o.Placed() | o.Tried() | o.PartRefused() | o.AmendedPart():
            return _on_the_way(event)
        case o.PartDelivered() | o.Delivered():
            return _delivered(event)
        case o.Deferred():
            return f"{part(event.part)} put off at no cost ({event.failure})"
        case o.FailedRetryable():
            return f"{part(event.part)} not accepted ({event.failure}), to be retried"
        case o.OutcomeUnknown():
            return f"{part(event.part)}: nobody knows if it arrived ({event.cause})"
        case o.Reconciled():
            return f"looked up: {part(event.part)} {_answer(event)}"
        case o.Parked():
            return f"parked ({event.reason}); a person must decide"
        case o.FailedTerminal():
            return f"ended without delivery ({event.reason}){by(event.by)}"
        case _:
            return None


def _on_the_way(event: o.Placed | o.Tried | o.PartRefused | o.AmendedPart) -> str:
    match event:
        case o.Placed() if event.stray:
            return f"{part(event.part)}: a placeholder too many, to be retracted"
        case o.Placed():
            return (
                f"{part(event.part)}: its placeholder stands, {', '.join(event.handle)}"
            )
        case o.Tried():
            what = "a plan" if event.act is Trial.PLAN else "a look-up"
            return f"{what} begins (worker {event.owner}, epoch {event.fence})"
        case o.PartRefused():
            return f"{part(event.part)} will never be accepted ({event.failure})"
        case o.AmendedPart():
            return f"{part(event.part)} goes on without its {event.dropped}"


def _answer(event: o.Reconciled) -> str:
    if event.absent:
        return "is proven absent"
    return "is not there yet" if event.early else "cannot be told from it"


def _attempted(event: o.Attempted) -> str:
    wire = ", on the wire" if event.on_wire else ""
    mark = ", marked as a possible duplicate" if event.marked else ""
    who = f"worker {event.owner}, epoch {event.fence}"
    act = "" if event.act is PartAct.SEND else f" ({event.act})"
    return f"{part(event.part)}, attempt {event.attempt}{act}{wire}{mark} ({who})"


def _delivered(event: o.PartDelivered | o.Delivered) -> str:
    if event.suppressed is not None:
        return f"{part(event.part)} suppressed ({event.suppressed})"
    how = "found by a look-up" if event.looked_up else "accepted"
    again = ", which had it already" if event.deduplicated else ""
    receipt = f", receipt {', '.join(event.receipt)}" if event.receipt else ""
    if event.by is not None:
        return f"{part(event.part)} declared delivered{by(event.by)}"
    return f"{part(event.part)} {how}{again}{receipt}"


def _entry_late(event: Event) -> str | None:
    match event:
        case o.Resolved():
            verdict = "send it again" if event.resend else "it was not sent"
            return f"{part(event.part)}: doubt ended{by(event.by)}: {verdict}"
        case o.AbortRequested() | t.TurnAbortRequested():
            return f"abort asked for ({event.reason}){by(event.by)}"
        case o.Aborted():
            return f"aborted ({event.reason}){by(event.by)}"
        case o.LateReceipt():
            return f"{part(event.part)}: a late receipt, {', '.join(event.receipt)}"
        case o.Rescheduled():
            return f"rescheduled{by(event.by)}"
        case o.Redriven():
            risk = ", a duplicate is accepted" if event.accept_duplicate else ""
            return f"to be sent again{by(event.by)}{risk}"
        case o.Acknowledged():
            return f"seen{by(event.by)}"
        case o.Bounced():
            return f"{part(event.part)} was refused after it had been accepted"
        case o.Doubted():
            return f"in doubt ({event.reason})"
        case o.LaneYielded():
            return f"lets later entries pass ({event.reason})"
        case o.Redacted() | t.TurnRedacted():
            return f"bodies erased{by(event.by)}"
        case _:
            return None


def _turn(event: Event) -> str | None:
    match event:
        case t.Accepted():
            what = "control input" if event.control else "message"
            return f"{what} {event.message_id} accepted"
        case t.Dead():
            where = f"{event.channel}/{event.account}"
            return f"an update of {where} that nobody can read"
        case t.Joined():
            return f"message {event.message_id} joined"
        case t.Started():
            return (
                f"run {event.run} started (worker {event.owner}, epoch {event.fence})"
            )
        case t.StepStarted():
            return f"run {event.run}: step {event.key} begun"
        case t.StepDone():
            return f"run {event.run}: step {event.key} done"
        case t.LeftOpen():
            return f"run {event.run} left its turn open, to be answered by its id"
        case t.Released():
            return f"run {event.run} stopped ({event.reason}), to be run again"
        case t.RunFailed():
            return f"run {event.run} failed ({event.failure})"
        case t.Answered() if event.silent is not None:
            return f"run {event.run} ended without an answer ({event.silent})"
        case t.Answered():
            return f"run {event.run} answered; the outbox owns the answer"
        case _:
            return _turn_end(event)


def _turn_end(event: Event) -> str | None:
    match event:
        case t.Completed():
            return f"over: {event.outcome}"
        case t.Failed():
            notice = ", and the user is told" if event.notice else ""
            return f"over: {event.outcome} ({event.reason}){notice}"
        case t.TurnAborted():
            return f"over: {event.outcome}{by(event.by)}"
        case t.Amended(outcome=None):
            return f"answered again, because {event.entry} was redriven"
        case t.Amended():
            return f"now {event.outcome}, because of {event.entry}"
        case t.Held():
            return f"held ({event.reason})"
        case t.Unheld():
            return f"let go{by(event.by)}"
        case t.Resubmitted():
            return f"to be run again{by(event.by)}"
        case _:
            return None


def _ledger(event: Event) -> str:
    match event:
        case g.GateClosed():
            return f"closed ({event.reason})"
        case g.GateOpened():
            return f"opened ({event.reason})"
        case g.CursorAdvanced():
            return f"moved to {event.cursor}"
        case g.StoreCreated():
            return f"store {event.store} created"
        case g.WorkerStarted():
            return f"worker {event.owner} began epoch {event.epoch}"
        case g.Restored():
            lost = f"{event.position_seen}, found at {event.position_found}"
            return f"an older copy was put in its place: it had got to {lost}"
        case g.Pruned():
            return f"{event.streams} streams with {event.events} events were pruned"
        case g.PrunedReceipt():
            receipt = ", ".join(event.receipt)
            return f"a late receipt for {event.entry}, which is pruned: {receipt}"
        case g.WallJumped():
            way = "forward" if event.by_ms > 0 else "back"
            return f"the wall clock was set {way} by {abs(event.by_ms)} ms"
        case _:
            return type(event).__name__
