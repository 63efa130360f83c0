"""Events in plain words, one sentence each."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import define, evolve, field

from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._log.canonical import Record
from turnfold._log.codec import decode
from turnfold._log.events import NAMES, Event
from turnfold._state import fold
from turnfold._state.entry import Entry
from turnfold.enums import Form, PartAct, Reason, Trial
from turnfold.errors import CorruptLogError
from turnfold.inspect.times import seen_at
from turnfold.inspect.views import (
    AttemptView,
    EventView,
    InboundView,
    PartView,
    RunView,
)

Text = Callable[[str | None], str | None]  # digest to free text; None if it is gone


def describe(event: Event, text: Text) -> str:
    """An event in words. `text` fetches the free text behind a digest."""
    words = _entry(event) or _entry_late(event) or _turn(event) or _ledger(event)
    said = text(getattr(event, "detail", None) or getattr(event, "why", None))
    said = said or getattr(event, "note", None)
    return f"{words}: {said}" if said else words


def part(index: int) -> str:
    """The name of a part for people, who count from 1."""
    return f"part {index + 1}"


def by(who: str | None) -> str:
    return f" by {who}" if who else ""


def _entry(event: Event) -> str | None:
    match event:
        case o.Queued():
            return f"queued as {event.kind}"
        case o.Imported():
            tried = f", tried {event.tries} time(s) there" if event.tries else ""
            return f"imported as {event.kind} from {event.origin}{tried}: in doubt"
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
        case o.FailedTerminal(reason=Reason.PARTIAL):
            return "ended: delivered in part, and the rest will never be accepted"
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
            if event.end is not None:
                return f"{what} has ended: {event.end.replace('_', ' ')}"
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
            edits = f", an edit of {event.changes}" if event.changes else ""
            return f"{what} {event.message_id or '(without an id)'} accepted{edits}"
        case t.Dead():
            if event.differs is not None:
                what = f"message {event.message_id or event.key}"
                return f"{what} with other bytes than {event.differs}, kept and not run"
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
        case t.Released(beside=0):
            return f"run {event.run} died with its process, with nothing beside it"
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
        case t.GateClosed():
            return f"closed ({event.reason}){by(event.by)}"
        case t.GateOpened():
            return f"opened ({event.reason}){by(event.by)}"
        case t.CursorAdvanced():
            return f"moved to {event.cursor}"
        case t.StoreCreated():
            return f"store {event.store} created"
        case t.WorkerStarted():
            return f"worker {event.owner} began epoch {event.epoch}"
        case t.Restored(by=str()):
            return f"said to be a restored copy{by(event.by)}"
        case t.Restored(failover=str(name)):
            return f"the server went on as {name}, which may lack the last commits"
        case t.Restored():
            lost = f"{event.position_seen}, found at {event.position_found}"
            return f"an older copy was put in its place: it had got to {lost}"
        case t.Pruned():
            gone = f"{event.streams} streams with {event.events} events were pruned"
            return f"{gone}{by(event.by)}"
        case t.PrunedReceipt():
            receipt = ", ".join(event.receipt)
            return f"a late receipt for {event.entry}, which is pruned: {receipt}"
        case t.WallJumped():
            way = "forward" if event.by_ms > 0 else "back"
            return f"the wall clock was set {way} by {abs(event.by_ms)} ms"
        case _:
            return type(event).__name__


# --- From the records of a stream to a view of it: attempts with their outcomes, runs with ---


Said = Callable[[str, Form], str | None]  # the same for the body of a message
Preview = Callable[[str], str | None]  # the name of a body to its text


@define
class Parts:
    """Collects the parts of an entry from its events."""

    text: Text
    preview: Preview
    parts: list[PartView] = field(factory=list)

    def feed(self, event: Event, at: int) -> None:
        match event:
            case o.Planned():
                self._plan(event)
            case o.Attempted():
                self._attempted(event, at)
            case o.Dispatched():
                self._attempt(event.part, dispatched_at=at)
            case o.PartDelivered() | o.Delivered() | o.LateReceipt():
                self._settled(event, at)
            case o.Deferred() | o.FailedRetryable():
                what = "put off" if isinstance(event, o.Deferred) else "not accepted"
                self._outcome(event.part, f"{what} ({event.failure})", at, event.detail)
            case o.OutcomeUnknown():
                text = f"unknown ({event.cause})"
                self._outcome(event.part, text, at, event.detail)
            case o.Placed() | o.PartRefused() | o.AmendedPart() | o.Bounced():
                self._changed(event, at)
            case _:
                pass

    def _changed(
        self, event: o.Placed | o.PartRefused | o.AmendedPart | o.Bounced, at: int
    ) -> None:
        view = self.parts[event.part]
        match event:
            case o.Placed(stray=False):
                self._outcome(event.part, "placeholder stands", at, None)
            case o.PartRefused():
                text = f"refused ({event.failure})"
                self._outcome(event.part, text, at, event.detail)
                view = evolve(self.parts[event.part], settled="refused", settled_at=at)
                self.parts[event.part] = view
            case o.AmendedPart():
                shown = self.preview(event.body)
                self.parts[event.part] = evolve(view, key=event.key, text=shown)
            case o.Bounced():
                bounced = evolve(view, settled="bounced", settled_at=at, receipt=())
                self.parts[event.part] = bounced
            case _:
                pass

    def redriven(self, entry: Entry) -> None:
        """`entry`: after a redrive. Reopened parts are not settled, and their keys may
        be new."""
        for index, planned in enumerate(entry.parts):
            if not entry.ended(index):
                view = evolve(self.parts[index], settled=None, settled_at=None)
                self.parts[index] = evolve(view, key=planned.key)

    def ended(self, entry: Entry, event: o.FailedTerminal, at: int) -> None:
        """The outcome of the last attempt of a dead entry."""
        if entry.part < len(self.parts):
            text = f"ended ({event.failure or event.reason})"
            self._outcome(entry.part, text, at, event.detail)

    def _plan(self, event: o.Planned) -> None:
        """Take the parts of a plan over. A placeholder may have gone out before; its
        attempts count for the first part."""
        before = self.parts
        self.parts = [self._planned(i, p) for i, p in enumerate(event.parts)]
        for index, view in enumerate(before[: len(self.parts)]):
            known = evolve(self.parts[index], attempts=view.attempts)
            self.parts[index] = known

    def _planned(self, index: int, p: o.PlannedPart) -> PartView:
        text = self.preview(p.body)
        return PartView(
            index=index, kind=p.kind, key=p.key, classes=p.classes, text=text
        )

    def _attempted(self, event: o.Attempted, at: int) -> None:
        attempt = AttemptView(
            number=event.attempt,
            at=at,
            owner=event.owner,
            fence=event.fence,
            dispatched_at=at if event.on_wire else None,
            marked=event.marked,
            target=event.target,
        )
        if not self.parts:  # a placeholder, before the plan
            first = PartView(index=0, kind="", key="", classes=event.classes, text=None)
            self.parts = [first]
        view = self.parts[event.part]
        self.parts[event.part] = evolve(view, attempts=(*view.attempts, attempt))

    def _attempt(self, part: int, **facts: Any) -> None:
        view = self.parts[part]
        if view.attempts:
            last = evolve(view.attempts[-1], **facts)
            self.parts[part] = evolve(view, attempts=(*view.attempts[:-1], last))

    def _outcome(self, part: int, text: str, at: int, detail: str | None) -> None:
        attempts = self.parts[part].attempts
        if attempts and attempts[-1].outcome is None:
            words = self.text(detail)
            self._attempt(part, outcome=text, outcome_at=at, detail=words)

    def _settled(
        self, event: o.PartDelivered | o.Delivered | o.LateReceipt, at: int
    ) -> None:
        how = _how(event)
        if how in ("delivered", "late receipt"):
            self._outcome(event.part, "accepted", at, None)
        view = self.parts[event.part]
        self.parts[event.part] = evolve(
            view, settled=how, settled_at=at, receipt=event.receipt
        )


def _how(event: o.PartDelivered | o.Delivered | o.LateReceipt) -> str:
    if isinstance(event, o.LateReceipt):
        return "late receipt"
    if event.suppressed is not None:
        return f"suppressed ({event.suppressed})"
    if event.by is not None:
        return f"declared delivered by {event.by}"
    return "found by a look-up" if event.looked_up else "delivered"


def parts_of(
    records: Sequence[Record], text: Text, preview: Preview
) -> tuple[PartView, ...]:
    parts = Parts(text, preview)
    state: fold.State | None = None
    for record in records:
        at = seen_at(record)
        for event in decode(record):
            if isinstance(event, o.FailedTerminal) and isinstance(state, Entry):
                parts.ended(state, event, at)
            parts.feed(event, at)
            state = fold.evolve(state, event, record.stream, record.at, record.position)
            if isinstance(event, o.Redriven) and isinstance(state, Entry):
                parts.redriven(state)
    return tuple(parts.parts)


def happened(records: Sequence[Record], text: Text) -> tuple[EventView, ...]:
    """Every event of these records in words; an unreadable record counts as one
    event."""
    return tuple(h for record in records for h in _happened(record, text))


def _happened(record: Record, text: Text) -> Iterator[EventView]:
    at, stream, position = seen_at(record), record.stream, record.position
    try:
        events = decode(record)
    except CorruptLogError as exc:
        words = f"cannot be read: {exc.problem}"
        yield EventView(position=position, at=at, stream=stream, kind="?", text=words)
        return
    for event in events:
        yield EventView(
            position=position,
            at=at,
            stream=stream,
            kind=NAMES[type(event)],
            text=describe(event, text),
            by=getattr(event, "by", None),
        )


def inbound_of(
    records: Sequence[Record], preview: Said, detail: Text
) -> tuple[InboundView, ...]:
    """The first message of a turn, and those that joined it."""
    found: list[InboundView] = []
    for at, event in _events(records):
        if isinstance(event, t.Accepted | t.Dead):
            first = InboundView(
                channel=event.channel,
                account=event.account,
                conversation=event.conversation,
                thread=event.thread,
                message_id=event.message_id,
                event=event.event,
                at=at,
                text=preview(event.body, event.form),
                sender=event.sender,
                sent_at=event.sent_at,
                revision=event.revision,
                problem=_problem(event, detail),
                changes=event.changes if isinstance(event, t.Accepted) else None,
            )
            found.append(first)
        elif isinstance(event, t.Joined) and found:
            later = evolve(
                found[0],
                message_id=event.message_id,
                event=event.event,
                at=at,
                text=preview(event.body, event.form),
            )
            found.append(later)
    return tuple(found)


def _problem(event: t.Accepted | t.Dead, text: Text) -> str | None:
    """Why a message became a dead turn; None for an accepted one."""
    if isinstance(event, t.Accepted):
        return None
    if event.differs is not None:
        return f"it has the key of {event.differs} and other bytes"
    return text(event.detail) or "it cannot be read"


def _events(records: Sequence[Record]) -> Iterator[tuple[int, Event]]:
    for record in records:
        for event in decode(record):
            yield seen_at(record), event


def runs_of(
    records: Sequence[Record], text: Text, entries: Sequence[tuple[str, int | None]]
) -> tuple[RunView, ...]:
    """`entries`: every entry of the turn with the run that made it."""
    runs: list[RunView] = []
    for at, event in _events(records):
        if isinstance(event, t.Started):
            mine = tuple(name for name, run in entries if run == event.run)
            run = RunView(
                number=event.run,
                at=at,
                owner=event.owner,
                fence=event.fence,
                entries=mine,
            )
            runs.append(run)
        elif runs and runs[-1].ended is None and (end := _end(event)) is not None:
            detail = text(getattr(event, "detail", None))
            runs[-1] = evolve(runs[-1], ended=end, ended_at=at, detail=detail)
    return tuple(runs)


def _end(event: Event) -> str | None:
    match event:
        case t.Answered():
            return "answered" if event.silent is None else f"silent ({event.silent})"
        case t.LeftOpen():
            return "left open"
        case t.Released():
            return f"stopped ({event.reason})"
        case t.RunFailed():
            return f"failed ({event.failure})"
        case t.Failed():
            return f"failed ({event.reason})"
        case t.TurnAborted():
            return f"{event.outcome}"
        case t.Held():
            return f"held ({event.reason})"
        case _:
            return None


def last_detail(records: Sequence[Record], text: Text) -> str | None:
    """The latest error text in the events of a stream."""
    details = [getattr(event, "detail", None) for _, event in _events(records)]
    return text(next((ref for ref in reversed(details) if ref), None))
