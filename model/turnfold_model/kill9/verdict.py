"""Judges the files of a run against the promise. The platform's list has the last word."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import define, field

from turnfold._state.entry import Entry
from turnfold._state.fold import State, apply
from turnfold._state.turn import Turn
from turnfold.audit import Acceptance, audit_store
from turnfold.enums import DeliveryClass, Kind, Phase
from turnfold.errors import CorruptLogError
from turnfold.ports.store import Store, now
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.command_kit import ROOM
from turnfold_model.kill9.child import Command, texts_of
from turnfold_model.kill9.stage import Scene, Stage, StuckError
from turnfold_model.testing.peek import Peek, at_rest

_LANES = 2  # of the commands that are played: each has one message on its way


@define
class Verdict:
    """The result of one scene."""

    scene: Scene
    stopped: Sequence[str]
    breaches: Sequence[str]
    forks: int
    troubles: int

    @property
    def all_died(self) -> bool:
        """Did every death that was wanted take place?"""
        wanted = len(self.scene.deaths) + bool(self.scene.client_dies)
        return len(self.stopped) == wanted


def play(scene: Scene, keep: Path | None = None) -> Verdict:
    """Play a scene on a new store and judge it. `keep`: the folder to leave it in."""
    with tempfile.TemporaryDirectory(prefix="turnfold-kill9-", dir=ROOM) as scratch:
        path = (keep or Path(scratch)) / "gateway.db"
        stage = Stage.of(scene, path)
        breaches: list[str] = []
        try:
            stage.play()
        except StuckError as exc:
            breaches.append(f"INV-14 {exc}")
        breaches += stage.broken
        if path.exists():
            breaches += _judge(stage)
        return Verdict(scene, stage.stopped, breaches, stage.forks, stage.troubles)


def _judge(stage: Stage) -> list[str]:
    store = SqliteStore(stage.store)
    now(store.open(read_only=True))
    try:
        return list(_breaches(stage, store))
    finally:
        now(store.close())


def _breaches(stage: Stage, store: Store) -> Iterator[str]:
    witness = [Acceptance(a.key, a.id) for a in stage.wire.arrived]
    report = now(audit_store(store, integrity=False, witness=witness))
    yield from (str(finding) for finding in report.findings)
    if not at_rest(now(store.load()).open):
        yield "INV-14 something is open that is not parked"
    if now(store.inbox()):
        yield "INV-14 a command lies in the inbox that nobody takes up"
    left = _Left.of(stage, store)
    yield from left.doubled()
    yield from left.strays()
    yield from left.parked()
    for command, answer in stage.confirmed.items():
        match command.what:
            case "accept":
                yield from left.answered(command, answer["turn"])
            case "enqueue":
                yield from left.sent(command, answer["entry"])
            case _:
                yield from left.stopped(command, answer["turn"])


def _behind_its_reply(entries: Sequence[Entry], mine: Sequence[str]) -> bool:
    """INV-8: a live reply that an earlier run has queued keeps its place in the lane, and
    yields the lane when it is placed. So the block of a later run goes somewhere behind
    the first part of that reply."""
    queued = [e for e in entries if e.phase is not Phase.ABORTED]
    queued.sort(key=lambda e: e.order)
    if [e.kind for e in queued] != [Kind.FINAL, Kind.BLOCK] or not queued[0].live:
        return False
    name = mine[0].partition(":")[0] if mine else ""
    block, *reply = texts_of(name)
    left = [text for text in mine if text != block]
    return left == reply and mine.count(block) == 1 and mine[0] != block


@define
class _Left:
    """The folded log beside the platform's list."""

    stage: Stage
    states: dict[str, State] = field(factory=dict)

    @classmethod
    def of(cls, stage: Stage, store: Store) -> "_Left":
        left = cls(stage)
        for record in Peek(store).log():
            try:
                state = apply(left.states.get(record.stream), record)
            except CorruptLogError:
                continue  # the audit has named it
            left.states[record.stream] = state
        return left

    def doubled(self) -> Iterator[str]:
        arrived = self.stage.wire.arrived
        for key, count in Counter(a.key for a in arrived).items():
            if count > 1:
                yield f"INV-2 key {key} arrived {count} times"
        told = self._keys_of(Kind.NOTICE)  # the same words to several people
        said = Counter(a.text for a in arrived if a.key not in told)
        for text, count in said.items():
            if count > 1:
                yield f"INV-9 {text!r} arrived {count} times"

    def strays(self) -> Iterator[str]:
        """A death leaves at most one placeholder in each lane that nobody knows; an
        answer that was lost leaves one."""
        stage = self.stage
        most = _LANES * len(stage.stopped) + bool(stage.scene.lose)
        if len(stage.wire.empty) > most:
            yield f"INV-2 {len(stage.wire.empty)} empty messages after {most} troubles"

    def _keys_of(self, kind: Kind) -> set[str]:
        entries = (s for s in self.states.values() if isinstance(s, Entry))
        return {part.key for e in entries if e.kind is kind for part in e.parts}

    def parked(self) -> Iterator[str]:
        if self.stage.scene.delivery is DeliveryClass.BLIND:
            return
        for entry in self.states.values():
            if not isinstance(entry, Entry) or entry.remade:
                continue  # its placeholder was in doubt twice: that is for a person
            if entry.phase not in (Phase.DELIVERED, Phase.ABORTED):
                yield f"INV-1 {entry.stream} ended in {entry.phase}: {entry.reason}"

    def answered(self, command: Command, stream: str) -> Iterator[str]:
        """A message that was confirmed: its answer arrived whole and in order, or
        stands parked, or somebody has stopped it."""
        turn = self.states.get(stream)
        if not isinstance(turn, Turn) or turn.message_id != command.name:
            yield f"INV-1 {command.name} was confirmed as {stream}; there is none"
            return
        entries = self._entries(stream)
        if turn.abort or stream in self.stage.aborted_after:
            return
        texts = [a.text for a in self.stage.wire.arrived]
        mine = [text for text in texts if text in texts_of(command.name)]
        if mine == texts_of(command.name) or _behind_its_reply(entries, mine):
            return
        wanted = [e for e in entries if e.phase is not Phase.ABORTED]
        if not any(e.phase is Phase.PARKED for e in wanted):
            yield f"INV-1 the answer to {command.name} arrived as {mine}"
        finals = [e for e in wanted if e.kind is Kind.FINAL]
        if not finals:
            yield f"INV-1 {command.name} has no final reply"

    def sent(self, command: Command, stream: str) -> Iterator[str]:
        entry = self.states.get(stream)
        if not isinstance(entry, Entry):
            yield f"INV-1 {command.name} was confirmed as {stream}; there is none"
        elif entry.phase not in (Phase.DELIVERED, Phase.PARKED):
            yield f"INV-1 {command.name} ended in {entry.phase}"

    def stopped(self, command: Command, stream: str) -> Iterator[str]:
        """After an abort was confirmed as such nothing of that turn arrives."""
        after = self.stage.aborted_after.get(stream)
        if after is None:
            return  # it was too late, and said so
        late = self.stage.wire.arrived[after:]
        keys = {
            part.key
            for entry in self._entries(stream)
            if entry.phase is Phase.ABORTED
            for part in entry.parts[entry.part :]
        }
        for arrival in late:
            if arrival.key in keys:
                yield f"INV-11 {arrival.text!r} arrived after {command.name} was stopped"

    def _entries(self, turn: str) -> list[Entry]:
        states = self.states.values()
        return [e for e in states if isinstance(e, Entry) and e.turn == turn]
