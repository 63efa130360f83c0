"""The verdict on a day: it compares the log, the platform's list, and the sent
messages."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from attrs import define, field

from turnfold._log import outbox_events as o
from turnfold._state.entry import Entry
from turnfold._state.turn import Turn
from turnfold.audit import Acceptance, Report, audit_store
from turnfold.enums import DeliveryClass, Phase, TurnOutcome
from turnfold.ports.store import Listing, Store
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.day.life import texts_of
from turnfold_model.day.plan import Update
from turnfold_model.day.play import Day
from turnfold_model.testing.peek import Peek

_ALL = 10_000_000
_LEAST_DELIVERED = 0.95


@define
class Verdict:
    """`breaches`: the broken promises. `failed`: messages that ended without an answer
    and with a reason, by that reason."""

    accepted: int = 0
    delivered: int = 0
    parked: Counter[str] = field(factory=Counter)  # by channel
    failed: Counter[str] = field(factory=Counter)
    again: int = 0  # answered in the history that is gone, and once more after it
    lost: list[str] = field(factory=list)
    gap: list[str] = field(factory=list)
    dead: set[str] = field(factory=set)  # kept unreadable messages
    breaches: list[str] = field(factory=list)
    witness: int = 0
    audit: bool = False


async def judged(day: Day) -> Verdict:
    """Opens the store once more, to read it only."""
    store: Store = SqliteStore(day.path)
    await store.open(read_only=True)
    try:
        judge = _Judge(day, Peek(store))
        judge.look()
        await _audit(day, store, judge.verdict)
    finally:
        await store.close()
    judge.verdict.breaches[:0] = _breaches(day, judge.verdict)
    return judge.verdict


class _Judge:
    def __init__(self, day: Day, peek: Peek) -> None:
        self._day, self._peek = day, peek
        self.verdict = Verdict()
        self._shown = Counter((m.conversation, m.text) for m in day.platform.messages)
        self._turns: dict[str, Turn] = {}

    def look(self) -> None:
        for row in self._peek.list(Listing(prefix="turn:", limit=_ALL)):
            turn = self._peek.state(row.stream)
            if isinstance(turn, Turn) and turn.dead:
                raw = json.loads(self._peek.body(turn.stream, turn.body))
                self.verdict.dead.add(raw["id"])
            elif isinstance(turn, Turn):
                self._turns[turn.message_id or ""] = turn
        self._parked()
        for update in self._day.plan.updates:
            if update.poison:
                self._judge_dead(update)
            else:
                self._judge(update)

    def _parked(self) -> None:
        parked = Listing(phases=(Phase.PARKED,), limit=_ALL)
        for row in self._peek.list(parked):
            entry = self._peek.state(row.stream)
            if isinstance(entry, Entry):
                self.verdict.parked[entry.channel] += 1
                if entry.channel != DeliveryClass.BLIND:
                    text = f"parked although {entry.channel}: {row.stream}"
                    self.verdict.breaches.append(f"{text}, {row.reason}")

    def _judge_dead(self, update: Update) -> None:
        """Check that an unreadable message is kept unchanged."""
        if update.id not in self.verdict.dead:
            self._missing(update)

    def _missing(self, update: Update) -> None:
        told = self.verdict
        missing = told.gap if update.id in self._day.gap.acked else told.lost
        missing.append(f"{update.id} is not known")

    def _judge(self, update: Update) -> None:
        """Judge one message. The log's statement about it must be true, or the message
        is lost."""
        turn, told = self._turns.get(update.id), self.verdict
        told.accepted += turn is not None
        times = [self._shown[update.conversation, text] for text in texts_of(update)]
        shown = all(times)
        if max(times) > 1 and update.id in self._day.gap.answered:
            told.again += 1
        elif max(times) > 1:
            told.breaches.append(f"answered twice: {update.id}")
        told.delivered += shown and turn is not None
        if turn is None:
            self._missing(update)
        elif not shown and not self._ended(turn):
            told.lost.append(f"{update.id}: {turn.phase}, {turn.outcome}, not shown")

    def _ended(self, turn: Turn) -> bool:
        """Its reader does not have the answer, and the log says so."""
        if any(self._is_parked(final) for final in turn.finals):
            return True
        if turn.open or turn.outcome in (None, TurnOutcome.REPLIED):
            return False
        self.verdict.failed[f"{turn.outcome} {turn.reason or ''}".strip()] += 1
        return True

    def _is_parked(self, stream: str) -> bool:
        entry = self._peek.state(stream)
        return isinstance(entry, Entry) and entry.phase is Phase.PARKED


async def _audit(day: Day, store: Store, verdict: Verdict) -> None:
    """Compare the platform's list with the log, without the messages of the lost
    history."""
    announced = set(_announced(Peek(store)))
    lost = day.gap.keys - announced
    witness = [
        Acceptance(message.key, message.id)
        for message in day.platform.messages
        if message.key not in lost
    ]
    report: Report = await audit_store(store, witness=witness)
    verdict.witness, verdict.audit = len(witness), report.passed
    verdict.breaches += [f"audit: {finding}" for finding in report.findings]


def _announced(peek: Peek) -> Iterator[str]:
    """The key of every part that the log says was attempted."""
    keys: dict[str, tuple[o.PlannedPart, ...]] = {}
    for record, event in peek.happened():
        match event:
            case o.Planned(parts=parts):
                keys[record.stream] = parts
            case o.Attempted(part=part):
                if record.stream in keys:  # else the placeholder of a live reply
                    yield keys[record.stream][part].key
            case _:
                pass


def _breaches(day: Day, verdict: Verdict) -> Iterator[str]:
    if not day.rested:
        yield "not all came to rest"
    yield from (f"lost: {text}" for text in verdict.lost)
    for message in day.platform.doubled():
        yield f"doubled: {message.channel} {message.entry} part {message.part}"
    if verdict.delivered < _LEAST_DELIVERED * verdict.accepted:
        yield f"delivered: {verdict.delivered} of {verdict.accepted}"
    if day.platform.wrongly_signed:
        yield f"signed with a wrong time: {day.platform.wrongly_signed}"
    if not day.restores:
        yield "the copy was never put back"


def figures(day: Day, verdict: Verdict) -> dict[str, Any]:
    """The figures that the command prints."""
    platform = day.platform
    return {
        "seed": day.plan.seed,
        "turns": sum(not update.poison for update in day.plan.updates),
        "accepted": verdict.accepted,
        "delivered": verdict.delivered,
        "lost": len(verdict.lost),
        "doubled": len(platform.doubled()),
        "strays": len(platform.placeholders),
        "parked": verdict.parked.total(),
        "parked_blind": verdict.parked[DeliveryClass.BLIND],
        "kills": day.kills,
        "outages": day.outages,
        "jumps": day.jumps,
        "restores": day.restores,
        "acts_of_a_person": day.acted,
        "poison": len(verdict.dead),
        "failed": dict(verdict.failed),
        "gap": len(verdict.gap),
        "answered_again": verdict.again,
        "requests": platform.requests,
        "refused": platform.refused,
        "witness": verdict.witness,
        "audit": verdict.audit,
        "breaches": verdict.breaches[:20],
    }
