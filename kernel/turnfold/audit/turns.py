"""The rules of a turn and of what belongs to it (INV-9, INV-10, notices)."""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

from turnfold.audit.commits import Check
from turnfold.audit.entries import Moment
from turnfold.audit.findings import Rule
from turnfold.events import outbox as o
from turnfold.events import turn as t
from turnfold.machines.entry import Entry
from turnfold.machines.turn import Turn
from turnfold.words import AbortReason, Kind, Phase, Reason, TurnOutcome, TurnPhase

Broken = Iterator[tuple[Rule, str]]
FindEntry = Callable[[str], Entry | None]


class Turns:
    """Remembers which messages became turns, and which answers wait to be owned.

    `aside`: streams that cannot be read; a turn is not blamed for its entry's damage.
    """

    def __init__(self, find: FindEntry, aside: Collection[str]) -> None:
        self._find = find
        self._aside = aside
        self._inbound: set[str] = set()
        self._notices: dict[str, str] = {}
        self._finals: dict[str, tuple[str, int]] = {}  # not yet named by `answered`

    # --- what entries mean for their turn ---

    def queued(
        self, stream: str, event: o.Queued, position: int
    ) -> Sequence[tuple[Rule, str]]:
        turn = event.turn
        if turn is None:
            return ()
        if event.kind is Kind.FINAL:
            self._finals[turn] = (stream, position)
        elif event.kind is Kind.NOTICE:
            first = self._notices.setdefault(turn, stream)
            if first != stream:
                return [(Rule.NOTICE, f"a second notice of {turn}, after {first}")]
        return ()

    # --- turns ---

    def broken_by(
        self, before: Turn | None, stream: str, event: t.TurnEvent, now: Moment
    ) -> Broken:
        """The rules of the turn's own stream that `event` breaks."""
        match event:
            case t.Accepted():
                yield from self._once(inbound_key(event, event))
            case t.Joined() if before is not None:
                yield from self._once(inbound_key(before, event))
            case t.Started() if before is not None:
                yield from _started(before, event, now)
            case t.StepStarted() | t.StepDone() | t.Released() | t.RunFailed():
                yield from _same_run(before, event.run)
            case t.Answered():
                yield from _same_run(before, event.run)
                self._finals.pop(stream, None)
                if bool(event.finals) == (event.silent is not None):
                    text = "answered needs finals, or the reason of its silence"
                    yield Rule.TURN_TRUTH, text
            case _:
                pass

    def joint(
        self, before: Turn | None, stream: str, event: t.TurnEvent
    ) -> Check | None:
        """The check of `event` against the entries of the turn, if it needs one. The
        check may be asked again later in the same commit."""
        match event:
            case t.Answered():
                return partial(self._answered, stream, event)
            case t.Completed() | t.TurnAborted() if before is not None:
                return partial(self._over, before.phase, before.finals, event.outcome)
            case t.Failed() if before is not None:
                return partial(self._failed, before.phase, before.finals, stream, event)
            case t.Amended() if before is not None:
                return partial(self._as_finals, before.finals, event.outcome)
            case _:
                return None

    def _once(self, key: str) -> Broken:
        if key in self._inbound:
            yield Rule.ONE_TURN, f"the message {key} was accepted before"
        self._inbound.add(key)

    def _answered(self, stream: str, event: t.Answered) -> Broken:
        for name in event.finals:
            if name in self._aside:
                continue
            entry = self._find(name)
            if entry is None or entry.turn != stream:
                yield Rule.TURN_TRUTH, f"its final {name} is no entry of this turn"

    def _over(
        self, phase: TurnPhase, finals: Sequence[str], outcome: TurnOutcome
    ) -> Broken:
        if phase is not TurnPhase.ANSWERED or self._damaged(finals):
            return
        for name in finals:
            entry = self._find(name)
            if entry is None or entry.open:
                status = "missing" if entry is None else entry.status
                yield Rule.TURN_TRUTH, f"over while its final {name} is {status}"
                return
        yield from self._as_finals(finals, outcome)

    def _failed(
        self, phase: TurnPhase, finals: Sequence[str], stream: str, event: t.Failed
    ) -> Broken:
        yield from self._over(phase, finals, event.outcome)
        yield from self._told(stream, event.notice)

    def _damaged(self, finals: Sequence[str]) -> bool:
        return any(name in self._aside for name in finals)

    def _as_finals(self, finals: Sequence[str], outcome: TurnOutcome) -> Broken:
        if self._damaged(finals):
            return
        entries = [e for name in finals if (e := self._find(name)) is not None]
        wanted = outcome_of(entries)
        if outcome is not wanted:
            yield Rule.TURN_TRUTH, f"ended as {outcome}; its finals say {wanted}"

    def _told(self, stream: str, notice: str | None) -> Broken:
        if notice is None or notice in self._aside:
            return
        entry = self._find(notice)
        if entry is None or entry.turn != stream or entry.kind is not Kind.NOTICE:
            yield Rule.NOTICE, f"its notice {notice} is no notice of this turn"

    def end(self) -> Iterator[tuple[Rule, str, int, str]]:
        """A reply and `answered` are one commit: a final without it was split off."""
        for turn, (stream, position) in self._finals.items():
            if turn in self._aside or stream in self._aside:
                continue
            text = f"queued as the final of {turn}, which was never answered"
            yield Rule.TURN_TRUTH, text, position, stream


def _started(before: Turn, event: t.Started, now: Moment) -> Broken:
    if event.run != before.run + 1:
        yield Rule.ONE_TURN, f"run {event.run} follows run {before.run}"
    if not now.right(event.fence, event.owner):
        text = f"started by {event.owner} with fence {event.fence}"
        yield Rule.FENCE, f"{text}, but the worker is {now.owner} of epoch {now.epoch}"


def _same_run(before: Turn | None, run: int) -> Broken:
    if before is not None and run != before.run:
        yield Rule.ONE_TURN, f"said by run {run}, but run {before.run} is under way"


def outcome_of(finals: Sequence[Entry]) -> TurnOutcome:
    """How a turn ends by its finals, all of them closed (INV-10)."""
    phases = [entry.phase for entry in finals]
    if not finals:
        return TurnOutcome.SILENT
    if set(phases) == {Phase.DELIVERED}:
        return TurnOutcome.REPLIED
    if any(entry.receipts for entry in finals):
        return TurnOutcome.PARTIALLY_REPLIED
    if Phase.FAILED in phases:
        expired = all(entry.reason == Reason.EXPIRED for entry in finals)
        return TurnOutcome.EXPIRED if expired else TurnOutcome.FAILED
    reasons = {entry.reason for entry in finals}
    if AbortReason.SUPERSEDED in reasons:
        return TurnOutcome.SUPERSEDED
    return TurnOutcome.ABORTED if AbortReason.USER in reasons else TurnOutcome.SILENT


def inbound_key(place: t.Accepted | Turn, message: t.Accepted | t.Joined) -> str:
    """The dedupe key of a message, as the log format writes it."""
    parts = (
        place.channel,
        place.account,
        place.conversation,
        message.message_id,
        message.event,
    )
    return "/".join(p.replace("%", "%25").replace("/", "%2F") for p in parts)
