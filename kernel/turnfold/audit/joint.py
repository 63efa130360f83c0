"""The rules of one commit: the events that must be logged together (specs/commits.md).

A log does not show where a commit ends. So a run of events with one time counts as one
commit, a *moment*, and its rules are checked when the next time begins. The order of
the events inside of a moment does not matter to these rules.
"""

from collections.abc import Callable, Collection, Sequence

from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._state.entry import Entry
from turnfold._state.turn import Turn
from turnfold.audit.findings import Rule
from turnfold.enums import AbortReason, Kind, Phase, Reason, TurnOutcome

Say = Callable[[int, str, Rule, str], None]  # position, stream, rule, text
Find = Callable[[str], Entry | Turn | None]
_LATE = (Reason.EXPIRED, Reason.TOO_OLD)
_ENDS = (t.Completed, t.Failed, t.TurnAborted)


def outcome_of(finals: Sequence[Entry]) -> TurnOutcome:
    """The outcome of a turn, by its finals (INV-10)."""
    phases = {entry.phase for entry in finals}
    if not finals:
        return TurnOutcome.SILENT
    if phases == {Phase.DELIVERED}:
        return TurnOutcome.REPLIED
    if any(entry.receipts for entry in finals):
        return TurnOutcome.PARTIALLY_REPLIED
    if Phase.FAILED in phases:
        late = all(entry.reason in _LATE for entry in finals)
        return TurnOutcome.EXPIRED if late else TurnOutcome.FAILED
    reasons = {entry.reason for entry in finals}
    if AbortReason.SUPERSEDED in reasons:
        return TurnOutcome.SUPERSEDED
    return TurnOutcome.ABORTED if AbortReason.USER in reasons else TurnOutcome.SILENT


class Joint:
    """Takes the events of entries and turns; `end` judges the moment that is over.

    `find`: the present state of a stream. `aside`: streams that cannot be read; the
    damage of an entry is no finding about its turn, nor the other way round. `say`
    takes position, stream, rule and text.
    """

    def __init__(self, find: Find, aside: Collection[str], say: Say) -> None:
        self._find = find
        self._tell = say
        self._position = 0  # of the record that is judged
        self._aside = aside
        self._entries_of: dict[str, list[str]] = {}  # of turns that are not closed
        self._notices: dict[tuple[str, str | None], str] = {}  # by turn and cause
        self._queued: dict[str, tuple[int, o.Queued]] = {}
        self._closed: set[str] = set()
        self._redriven: dict[str, int] = {}
        self._sealed: dict[str, int] = {}
        self._ended: list[tuple[int, str]] = []  # by position: a part of an entry
        self._said: list[tuple[int, str, t.TurnEvent]] = []  # events of turns to judge

    def _say(self, stream: str, rule: Rule, text: str) -> None:
        self._tell(self._position, stream, rule, text)

    # --- event by event ---

    def queued(self, position: int, stream: str, event: o.Queued) -> None:
        if event.turn is not None:
            self._queued[stream] = position, event
            self._entries_of.setdefault(event.turn, []).append(stream)

    def closed(self, stream: str) -> None:
        self._closed.add(stream)

    def part_ended(self, position: int, stream: str) -> None:
        """A part ended, and its entry may go on."""
        self._ended.append((position, stream))

    def sealed(self, position: int, stream: str) -> None:
        """A live reply was sealed."""
        self._sealed[stream] = position

    def redriven(self, position: int, stream: str) -> None:
        self._redriven[stream] = position

    def turn(self, position: int, stream: str, event: t.TurnEvent) -> None:
        if isinstance(event, (*_ENDS, t.Answered, t.Amended)):
            self._said.append((position, stream, event))

    # --- when the moment is over ---

    def end(self) -> None:
        if self._queued or self._said or self._sealed:
            self._judge()
        if self._ended:
            self._nothing_left()
        for stream, position in self._redriven.items():
            self._position = position
            self._owes_again(stream)
        self._closed.clear()
        self._redriven.clear()
        self._sealed.clear()

    def _judge(self) -> None:
        queued, said, closed = self._queued, self._said, self._closed
        self._queued, self._said = {}, []
        answered = {name for _, name, event in said if isinstance(event, t.Answered)}
        for stream, (self._position, event) in queued.items():
            self._of_a_turn(stream, event, answered)
        for stream, position in self._sealed.items():
            self._position = position
            self._seal(stream, answered)
        for self._position, stream, turn_event in said:
            turn = self._find(stream)
            if stream in self._aside or not isinstance(turn, Turn):
                continue
            match turn_event:
                case t.Answered():
                    self._owned(turn, queued)
                case t.Amended():
                    self._follows(turn)
                case _:
                    self._over(turn, turn_event, closed, answered)
                    if isinstance(turn_event, t.Failed | t.Completed):
                        self._told(turn, turn_event.notice, queued)
                    self._forget(turn)

    def _nothing_left(self) -> None:
        """An entry without an open part is closed in the commit of its last part."""
        ended, self._ended = self._ended, []
        for self._position, stream in ended:
            entry = self._find(stream)
            if not isinstance(entry, Entry) or not entry.open:
                continue
            if all(entry.ended(part) for part in range(entry.count)):
                text = "all of its parts have ended, and it is still open"
                self._say(stream, Rule.TURN_TRUTH, text)

    def _owes_again(self, stream: str) -> None:
        """A turn with a redriven final is answered again, until the final is closed."""
        entry = self._find(stream)
        if not isinstance(entry, Entry) or entry.turn is None or not entry.open:
            return
        turn = None if entry.turn in self._aside else self._find(entry.turn)
        if isinstance(turn, Turn) and not turn.open and stream in turn.finals:
            text = f"redriven, and its turn {turn.stream} stays {turn.phase}"
            self._say(stream, Rule.TURN_TRUTH, text)

    def _of_a_turn(
        self, stream: str, event: o.Queued, answered: Collection[str]
    ) -> None:
        name = str(event.turn)
        if name in self._aside:
            return
        if not isinstance(self._find(name), Turn):
            self._say(stream, Rule.ONE_TURN, f"queued for {name}, which is not there")
        if event.kind is Kind.FINAL and not event.live and name not in answered:
            text = f"queued as the final of {name}, which did not answer with it"
            self._say(stream, Rule.TURN_TRUTH, text)
        if event.kind is Kind.NOTICE:
            self._said_once(stream, name, event.cause)

    def _said_once(self, stream: str, turn: str, cause: str | None) -> None:
        """A second notice for the same cause may only replace an unseen one."""
        first = self._notices.setdefault((turn, cause), stream)
        old = self._find(first)
        self._notices[turn, cause] = stream
        unseen = isinstance(old, Entry) and old.phase is Phase.ABORTED
        if first != stream and not unseen and first not in self._aside:
            text = f"a second notice of {turn} for {cause}, after {first}"
            self._say(stream, Rule.NOTICE, text)

    def _seal(self, stream: str, answered: Collection[str]) -> None:
        entry = self._find(stream)
        if isinstance(entry, Entry) and entry.turn not in answered:
            text = f"sealed, and {entry.turn} did not answer with it"
            self._say(stream, Rule.TURN_TRUTH, text)

    def _owned(self, turn: Turn, queued: Collection[str]) -> None:
        for name in turn.finals:
            if name in self._aside:
                continue
            entry = self._find(name)
            if not isinstance(entry, Entry) or entry.turn != turn.stream:
                text = f"its final {name} is no entry of this turn"
                self._say(turn.stream, Rule.TURN_TRUTH, text)
            elif entry.live and entry.open and not entry.planned:
                text = f"its final {name} grows, and was not sealed"
                self._say(turn.stream, Rule.TURN_TRUTH, text)
            elif entry.kind is Kind.FINAL and not (entry.live or name in queued):
                text = f"its final {name} was queued in another commit"
                self._say(turn.stream, Rule.TURN_TRUTH, text)
            elif entry.kind not in (Kind.FINAL, Kind.BLOCK):
                text = f"its final {name} is a {entry.kind}"
                self._say(turn.stream, Rule.TURN_TRUTH, text)

    def _over(
        self,
        turn: Turn,
        event: t.TurnEvent,
        closed: Collection[str],
        answered: Collection[str],
    ) -> None:
        owed = [e.stream for e in self._finals(turn) if e.open]
        if self._unsaid(turn):
            pass
        elif owed and not turn.open:
            text = f"over while its final {owed[0]} is open"
            self._say(turn.stream, Rule.TURN_TRUTH, text)
        elif turn.finals or turn.silent is not None:
            self._follows(turn)
            together = turn.stream in answered or any(n in closed for n in turn.finals)
            if not together:
                text = "over in another commit than the last of its finals"
                self._say(turn.stream, Rule.TURN_TRUTH, text)
        if isinstance(event, t.TurnAborted):
            self._stopped(turn)

    def _follows(self, turn: Turn) -> None:
        """The outcome of a turn follows from its finals. A turn with an open redriven
        final has no outcome."""
        if self._unsaid(turn):
            return
        if turn.outcome is None:
            if not any(entry.open for entry in self._finals(turn)):
                text = "answered again, though none of its finals is open"
                self._say(turn.stream, Rule.TURN_TRUTH, text)
            return
        wanted = outcome_of(self._finals(turn))
        if turn.outcome is not wanted:
            text = f"ended as {turn.outcome}; its finals say {wanted}"
            self._say(turn.stream, Rule.TURN_TRUTH, text)

    def _stopped(self, turn: Turn) -> None:
        for name in self._entries_of.get(turn.stream, ()):
            entry = self._find(name)
            if name in self._aside or not isinstance(entry, Entry):
                continue
            goes_on = entry.open and entry.abort is None and name not in self._redriven
            if goes_on and entry.kind is not Kind.NOTICE:
                text = f"aborted, but its {entry.kind} {name} goes on"
                self._say(turn.stream, Rule.ABORT, text)

    def _told(self, turn: Turn, notice: str | None, queued: Collection[str]) -> None:
        if notice is None or notice in self._aside:
            return
        entry = self._find(notice)
        if not isinstance(entry, Entry) or entry.turn != turn.stream:
            text = f"its notice {notice} is no entry of this turn"
        elif entry.kind is not Kind.NOTICE:
            text = f"its notice {notice} is a {entry.kind}"
        elif notice not in queued:
            text = f"its notice {notice} was queued in another commit"
        else:
            return
        self._say(turn.stream, Rule.NOTICE, text)

    def _finals(self, turn: Turn) -> Sequence[Entry]:
        found = (self._find(name) for name in turn.finals)
        return [entry for entry in found if isinstance(entry, Entry)]

    def _unsaid(self, turn: Turn) -> bool:
        """A final of the turn cannot be read."""
        return any(name in self._aside for name in turn.finals)

    def _forget(self, turn: Turn) -> None:
        """Only a failed turn without finals can be run again."""
        if not turn.open and (turn.finals or turn.resubmitted):
            self._entries_of.pop(turn.stream, None)
