"""A whole store's log, event by event in the order of positions.

Rules inside one stream are `legal`'s. Here stand those between streams. The records of
one commit have no order among each other, and a log does not show where a commit ends.
So rules between streams are checked at the end of a *moment*: a run of events with the
same time. After its first violation a stream is left alone, so that one defect is
reported once.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from turnfold_model.reference_joint import Moment, outcome_follows
from turnfold_model.reference_judge import legal
from turnfold_model.reference_kinds import Breach, Record, Violation, need, whole
from turnfold_model.reference_shapes import Entry, Ledger, State, Turn

HORIZON_MS: Final = 30 * 24 * 3600 * 1000


@dataclass(slots=True)
class _Lane:
    """The entries of a lane in enqueue order, from the first that still blocks."""

    entries: list[str]
    first: int = 0


class Log:
    """Checks a log as it is fed. `streams` holds the state of each stream.

    `horizon_ms`: how long a dedupe key of an inbound message must hold (INV-9).
    """

    def __init__(self, *, horizon_ms: int = HORIZON_MS) -> None:
        self.streams: dict[str, State] = {}
        self.events = 0
        self._horizon_ms = horizon_ms
        self._versions: dict[str, int] = {}
        self._position = 0
        self._record = ""  # the stream of the last event
        self._at = 0
        self._broken: set[str] = set()
        self._lanes: dict[str, _Lane] = {}
        self._passed_by: set[str] = set()
        self._turn_lanes: dict[str, set[str]] = {}  # the running turns of each lane
        self._keys: dict[tuple[str, ...], int] = {}
        self._entries_of: dict[str, list[str]] = {}
        self._moment = Moment(at=-1, epoch=0)

    def feed(self, event: Record) -> Iterator[Violation]:
        """Takes the next event; yields what is wrong with it, or with what came
        before it in the same commit."""
        stream = str(event.get("stream"))
        position = event.get("position", self._position + 1)
        if event.get("at") != self._moment.at:
            yield from self.finish()
            self._moment = Moment(at=event.get("at"), epoch=self._epoch())
        self.events += 1
        try:
            self._placed(event, stream, position)
            if stream not in self._broken:
                self._stepped(event, stream)
        except Breach as breach:
            self._broken.add(stream)
            yield replace(breach.violation, stream=stream, position=position)

    def finish(self) -> Iterator[Violation]:
        """The checks of the last moment; call it when the log is over."""
        moment, self._moment = self._moment, Moment(at=None, epoch=self._epoch())
        for event in moment.events:
            stream = str(event["stream"])
            if stream in self._broken:
                continue
            try:
                self._joint(event, stream, moment)
            except Breach as breach:
                self._broken.add(stream)
                position = event.get("position", 0)
                yield replace(breach.violation, stream=stream, position=position)

    def _epoch(self) -> int:
        store = self.streams.get("store")
        return store.epoch if isinstance(store, Ledger) else 0

    def _placed(self, event: Record, stream: str, position: Any) -> None:
        """Positions grow from record to record, times never fall, versions grow by
        one, from one. The events of one record share its position."""
        whole_number = isinstance(position, int)
        same = position == self._position and stream == self._record
        grows = whole_number and (position > self._position or same)
        need(grows, "order", f"position {position} after {self._position}")
        self._position, self._record = position, stream
        at = whole(event, "at")
        need(at >= self._at, "order", f"time {at} after {self._at}")
        self._at = at
        version, last = whole(event, "version", 1), self._versions.get(stream, 0)
        self._versions[stream] = version
        need(version == last + 1, "order", f"version {version} after {last}")

    def _stepped(self, event: Record, stream: str) -> None:
        before = self.streams.get(stream)
        after = legal(before, event)
        if isinstance(after, Violation):
            raise Breach(after.rule, after.text)
        kind = event["kind"]
        if kind in ("turn.accepted", "turn.joined"):
            self._new_key(event, after)
        elif kind == "gate.closed" and not self._shut(stream, event["at"]):
            self._moment.opened.add(stream)
        self.streams[stream] = after
        if before is None and isinstance(after, Entry):
            self._enqueued(stream, after)
        if isinstance(after, Entry) and (not after.open or after.yielded):
            self._passed_by.add(stream)  # for good: its old place is long gone
        if isinstance(after, Turn):
            self._turn_lane(stream, after)
        self._moment.saw(event, stream)

    def _enqueued(self, stream: str, entry: Entry) -> None:
        self._lanes.setdefault(entry.lane, _Lane([])).entries.append(stream)
        if entry.turn is not None:
            self._entries_of.setdefault(_bare(entry.turn), []).append(stream)

    def _shut(self, gate: str, at: int) -> bool:
        held = self.streams.get(gate)
        if not isinstance(held, Ledger) or held.phase != "closed":
            return False
        return held.until is None or at < held.until

    def _may_go(self, stream: str, moment: Moment) -> None:
        """Gates and lane let an attempt through. A gate that was open when the moment
        began does not count."""
        entry = self.streams[stream]
        if not isinstance(entry, Entry):
            return
        for gate in _gates_of(entry.lane):
            shut = gate not in moment.opened and self._shut(gate, moment.at)
            need(not shut, "gates", f"attempted while {gate} is closed")
        lane = self._lanes[entry.lane]
        while lane.first < len(lane.entries) and self._passed(lane.entries[lane.first]):
            lane.first += 1
        waiting = lane.entries[lane.first :]
        if stream not in waiting:
            return  # it was passed once, and came back by a redrive
        for ahead in waiting:
            if ahead == stream:
                return
            passed = self._passed(ahead)
            need(passed, "INV-8", f"attempted before {ahead} of its lane")

    def _passed(self, stream: str) -> bool:
        """Later entries of the lane need not wait for this one."""
        return stream in self._passed_by or stream in self._broken

    def _new_key(self, event: Record, turn: State) -> None:
        """INV-9: one turn per inbound message, within the horizon."""
        if not isinstance(turn, Turn):
            return
        data = event["data"]
        message = str(data["message_id"])
        key = (*turn.place, message, str(data.get("event", "message")))
        seen = self._keys.get(key)
        again = seen is not None and event["at"] - seen < self._horizon_ms
        need(not again, "INV-9", f"message {message} was accepted before")
        self._keys[key] = event["at"]

    def _turn_lane(self, stream: str, turn: Turn) -> None:
        """A lane is held from started to answered; control input takes none."""
        if turn.control:
            return
        running = self._turn_lanes.setdefault(turn.lane, set())
        if turn.phase == "running":
            running.add(stream)
        else:
            running.discard(stream)

    def _alone(self, turn: State) -> None:
        if isinstance(turn, Turn) and not turn.control:
            running = self._turn_lanes[turn.lane] - self._broken
            names = " and ".join(sorted(running))
            need(len(running) <= 1, "lanes", f"{names} run in one lane")

    def _begun(self, event: Record, stream: str, moment: Moment) -> None:
        """An attempt or a run may begin: by its worker, and in its lane."""
        fence, epoch = event["data"]["fence"], self._epoch()
        known = "store" in self.streams  # pruned, or a log without workers
        current = moment.epoch <= fence <= epoch or not known
        need(current, "INV-5", f"fence {fence}, but the epoch is {epoch}")
        if event["kind"] == "outbox.attempted":
            self._may_go(stream, moment)
        else:
            self._alone(self.streams[stream])

    def _joint(self, event: Record, stream: str, moment: Moment) -> None:
        if event["kind"] in ("outbox.attempted", "turn.started"):
            self._begun(event, stream, moment)
        state, data = self.streams[stream], event["data"]
        kind = event["kind"]
        if isinstance(state, Entry) and kind == "outbox.queued" and state.turn:
            need(self._turn(state.turn) is not None, "INV-9", f"no {state.turn}")
            owned = state.kind != "final" or _bare(state.turn) in moment.answered
            need(owned, "INV-10", "a final was queued without answered")
        if not isinstance(state, Turn):
            return
        finals = [self._entry(name) for name in state.finals]
        if kind == "turn.answered":
            self._finals_queued(state, stream, moment)
        elif kind == "turn.failed":
            self._told(data, stream, moment)
        elif kind == "turn.aborted":
            self._cascaded(stream, finals, moment)
        if kind in ("turn.completed", "turn.failed", "turn.aborted"):
            owed = [e for e in finals if e is not None and e.open]
            need(not owed, "INV-10", "over while a reply is still owed")
        if kind in ("turn.completed", "turn.amended"):
            seen = self._seen(stream)
            outcome_follows(data["outcome"], finals, seen=seen)
        if kind == "turn.completed":
            closing = {_bare(name) for name in moment.closed}
            joined = any(_bare(name) in closing for name in state.finals)
            silent = _bare(stream) in moment.answered
            need(joined or silent, "INV-10", "not in the commit that closed a final")

    def _finals_queued(self, turn: Turn, stream: str, moment: Moment) -> None:
        for name in turn.finals:
            entry = self._entry(name)
            if entry is None:
                raise Breach("INV-10", f"answered names {name}, which is not there")
            own = entry.turn is not None and _bare(entry.turn) == _bare(stream)
            need(own, "INV-10", f"{name} belongs to another turn")
            need(entry.kind in ("final", "block"), "INV-10", f"a {entry.kind} as final")
            fresh = entry.kind == "block" or _bare(name) in moment.queued
            need(fresh, "INV-10", f"{name} was not queued with answered")

    def _told(self, data: Record, stream: str, moment: Moment) -> None:
        notice = data.get("notice")
        if notice is None:
            return
        entry = self._entry(notice)
        if entry is None or entry.kind != "notice":
            raise Breach("notices", f"{notice} is no notice")
        own = entry.turn is not None and _bare(entry.turn) == _bare(stream)
        need(own, "notices", f"{notice} belongs to another turn")
        fresh = _bare(notice) in moment.queued
        need(fresh, "notices", f"{notice} was not queued with failed")

    def _cascaded(
        self, stream: str, finals: list[Entry | None], moment: Moment
    ) -> None:
        for final in finals:
            if final is not None:
                clean = not final.shown and not final.doubt
                need(clean, "INV-10", "aborted, but a final was or may be delivered")
        for name in self._entries_of.get(_bare(stream), ()):
            entry = self._entry(name)
            if entry is not None and entry.kind != "notice":
                done = not entry.open or entry.abort
                need(done, "INV-11", f"aborted, but {name} is still open")
        del moment

    def _seen(self, turn: str) -> bool:
        """Whether the user saw, or may have seen, anything of this turn."""
        entries = map(self._entry, self._entries_of.get(_bare(turn), ()))
        return any(e is not None and (e.shown or e.doubt) for e in entries)

    def _entry(self, name: str) -> Entry | None:
        state = self.streams.get(name) or self.streams.get(f"entry:{name}")
        return state if isinstance(state, Entry) else None

    def _turn(self, name: str) -> Turn | None:
        state = self.streams.get(name) or self.streams.get(f"turn:{name}")
        return state if isinstance(state, Turn) else None


def _bare(name: str) -> str:
    """A stream may be named with or without its prefix."""
    return name.partition(":")[2] if name.startswith(("entry:", "turn:")) else name


def _gates_of(lane: str) -> Iterator[str]:
    """Account, conversation and route of a lane that is written as
    channel/account/conversation/thread; another notation has no gates here."""
    words = lane.split("/")
    for length in range(2, len(words) + 1):
        yield "gate:" + "/".join(words[:length])


def audit(events: Iterable[Record], **options: Any) -> Iterator[Violation]:
    """What is wrong with a whole log, in its order."""
    log = Log(**options)
    for event in events:
        yield from log.feed(event)
    yield from log.finish()


def as_events(record: Any) -> Iterator[Record]:
    """The events of a stored record, with its fields as attributes and `events` as JSON
    bytes."""
    names = ("position", "stream", "version", "count", "at")
    envelope = {name: getattr(record, name) for name in names}
    try:
        told = json.loads(record.events)
    except ValueError:
        told = None
    yield from _events(envelope, told, record.count)


def read_ndjson(lines: Iterable[str]) -> Iterator[Record]:
    """The events of an export, which has one JSON object per record."""
    for line in lines:
        if line.strip():
            record = json.loads(line)
            told = record.get("events")
            count = len(told) if isinstance(told, list) else record.get("count", 1)
            yield from _events(record, told, count)


def _events(record: Record, told: Any, count: Any) -> Iterator[Record]:
    """Each event with the envelope of its record and its own version. A damaged record
    becomes one event that says nothing, so that the checker names it."""
    version = record.get("version")
    if not _readable(told, count) or not isinstance(version, int):
        yield {**record, "kind": None, "data": None}
        return
    for number, (kind, schema, data) in enumerate(told, version - len(told) + 1):
        event = {"kind": kind, "schema": schema, "data": data, "version": number}
        yield {**record, **event}


def _readable(told: Any, count: Any) -> bool:
    return (
        isinstance(told, list)
        and len(told) == count > 0
        and all(isinstance(item, list) and len(item) == 3 for item in told)
    )
