"""From the records of a stream to a view of it: attempts with their outcomes, runs with
their ends, and every event in words."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import define, evolve, field

from turnfold import fold
from turnfold.codec import decode
from turnfold.errors import CorruptLogError
from turnfold.events import NAMES, Event
from turnfold.events import outbox as o
from turnfold.events import turn as t
from turnfold.inspect.tell import Text, told
from turnfold.inspect.views import (
    AttemptView,
    Happening,
    InboundView,
    PartView,
    RunView,
)
from turnfold.machines.entry import Entry
from turnfold.records import Record

Preview = Callable[[str], str | None]  # the name of a body to what it says


@define
class Parts:
    """Grows part by part as the events of an entry go by."""

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
        """`entry`: as it is after a redrive. Parts that are open again are not settled,
        and their keys may be new."""
        for index, planned in enumerate(entry.parts):
            if not entry.ended(index):
                view = evolve(self.parts[index], settled=None, settled_at=None)
                self.parts[index] = evolve(view, key=planned.key)

    def ended(self, entry: Entry, event: o.FailedTerminal, at: int) -> None:
        """The last attempt of an entry that failed for good."""
        if entry.part < len(self.parts):
            text = f"ended ({event.failure or event.reason})"
            self._outcome(entry.part, text, at, event.detail)

    def _plan(self, event: o.Planned) -> None:
        """A placeholder may have gone out before; its attempts are the first part's."""
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
        for event in decode(record):
            if isinstance(event, o.FailedTerminal) and isinstance(state, Entry):
                parts.ended(state, event, record.at)
            parts.feed(event, record.at)
            state = fold.evolve(state, event, record.stream, record.at, record.position)
            if isinstance(event, o.Redriven) and isinstance(state, Entry):
                parts.redriven(state)
    return tuple(parts.parts)


def happened(records: Sequence[Record], text: Text) -> tuple[Happening, ...]:
    """Every event of these records in words; one of them for a record that cannot be
    read."""
    return tuple(h for record in records for h in _happened(record, text))


def _happened(record: Record, text: Text) -> Iterator[Happening]:
    at, stream, position = record.at, record.stream, record.position
    try:
        events = decode(record)
    except CorruptLogError as exc:
        words = f"cannot be read: {exc.problem}"
        yield Happening(position=position, at=at, stream=stream, kind="?", text=words)
        return
    for event in events:
        yield Happening(
            position=position,
            at=at,
            stream=stream,
            kind=NAMES[type(event)],
            text=told(event, text),
        )


def inbound_of(records: Sequence[Record], preview: Preview) -> tuple[InboundView, ...]:
    """The message that began a turn, and those that joined it."""
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
                text=preview(event.body),
            )
            found.append(first)
        elif isinstance(event, t.Joined) and found:
            later = evolve(
                found[0],
                message_id=event.message_id,
                event=event.event,
                at=at,
                text=preview(event.body),
            )
            found.append(later)
    return tuple(found)


def _events(records: Sequence[Record]) -> Iterator[tuple[int, Event]]:
    for record in records:
        for event in decode(record):
            yield record.at, event


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
