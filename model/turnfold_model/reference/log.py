"""A whole store's log, event by event in the order of positions.

Rules inside one stream are `legal`'s, rules of one commit are in `joint`. Here
stand the rules between streams: the worker's epoch, lanes, gates, dedupe keys. After its
first violation a stream is left alone, so that one defect is reported once.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Any, Final

from turnfold_model.reference.joint import Joint, Moment, by_the_worker
from turnfold_model.reference.judge import legal
from turnfold_model.reference.kinds import Breach, Record, Violation, need, whole
from turnfold_model.reference.shapes import Entry, Ledger, State, Turn

PRUNED: Final = "(pruned)"  # no event: a record that is not there any more
HORIZON_MS: Final = 30 * 24 * 3600 * 1000
_FAMILIES: Final = {"outbox": "entry"}  # where the name of the events is another one


@dataclass(slots=True)
class _Lane:
    """The streams of a lane in their order, from the first that still blocks."""

    streams: list[str]
    first: int = 0


class _Lanes:
    """The order of waiting. A stream that was passed once holds nobody ever again."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._passed: set[str] = set()
        self._places: dict[str, int] = {}

    def begun(self, stream: str, lane: str, place: int) -> None:
        """`place`: its position, or that of the entry that it follows."""
        row = self._lanes.setdefault(lane, _Lane([]))
        at = len(row.streams)
        while at > row.first and self._places[row.streams[at - 1]] > place:
            at -= 1
        row.streams.insert(at, stream)
        self._places[stream] = place

    def passed(self, stream: str) -> None:
        self._passed.add(stream)

    def ahead_of(self, stream: str, lane: str) -> str | None:
        """The first stream of the lane that must go before this one."""
        row = self._lanes[lane]
        while row.first < len(row.streams) and row.streams[row.first] in self._passed:
            row.first += 1
        waiting = row.streams[row.first :]
        if not waiting or waiting[0] == stream or stream not in waiting:
            return None
        return waiting[0]


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
        self._lanes, self._turn_lanes = _Lanes(), _Lanes()
        self._running: dict[str, set[str]] = {}  # the turns that run in each lane
        self._keys: dict[tuple[str, ...], int] = {}
        self._joint = Joint(self.streams.get)
        self._gone: dict[int, list[bytes]] = {}  # by the record that pruned them
        self._pruned: dict[int, Record] = {}  # the fields of that record
        self._moment = Moment(at=-1, workers=[(0, None)])

    def feed(self, event: Record) -> Iterator[Violation]:
        """Takes the next event; yields its findings, or those about the events
        before it in the same commit."""
        stream = str(event.get("stream"))
        position = event.get("position", self._position + 1)
        if event.get("kind") == PRUNED:
            yield from self._is_gone(event)
            return
        if event.get("at") != self._moment.at:
            yield from self._judged()
            self._moment.at = event.get("at")
        self.events += 1
        try:
            self._placed(event, stream, position)
            if stream not in self._broken:
                self._stepped(event, stream)
        except Breach as breach:
            self._broken.add(stream)
            yield replace(breach.violation, stream=stream, position=position)

    def finish(self) -> Iterator[Violation]:
        """The checks of the last moment, and of pruned records; call it at the end of
        the log."""
        yield from self._judged()
        for position in sorted({*self._gone, *self._pruned}):
            gone = self._gone.get(position, [])
            said = self._pruned.get(position, {})
            digest = sha256(b"".join(gone)).hexdigest()
            told = said.get("records"), said.get("digest")
            if told != (len(gone), digest):
                text = f"{len(gone)} records are gone by it, and it names others"
                yield Violation("pruned", text, "store", position)

    def _is_gone(self, event: Record) -> Iterator[Violation]:
        """Of a pruned record its place and its hash are left."""
        position = event["position"]
        if position != self._position + 1:
            text = f"position {position}, not {self._position + 1}"
            yield Violation("order", text, "", position)
        self._position, self._record = position, ""
        place = int(position).to_bytes(8, "big")
        self._gone.setdefault(event["by"], []).append(place + event["hash"])

    def _judged(self) -> Iterator[Violation]:
        moment = self._moment
        self._moment = Moment(at=None, workers=moment.workers[-1:])
        for event, check in moment.checks:
            stream = str(event["stream"])
            if stream in self._broken:
                continue
            try:
                check(moment)
            except Breach as breach:
                self._broken.add(stream)
                position = event.get("position", 0)
                yield replace(breach.violation, stream=stream, position=position)

    def _placed(self, event: Record, stream: str, position: Any) -> None:
        """Positions run without a gap from record to record, versions from event to
        event, and times never fall. The events of one record share its position."""
        same = position == self._position and stream == self._record
        expected = self._position if same else self._position + 1
        self._position, self._record = position, stream
        need(position == expected, "order", f"position {position}, not {expected}")
        at = whole(event, "at")
        need(at >= self._at, "order", f"time {at} after {self._at}")
        self._at = at
        version, last = whole(event, "version", 1), self._versions.get(stream, 0)
        self._versions[stream] = version
        need(version == last + 1, "order", f"version {version} after {last}")
        area = str(event.get("kind")).partition(".")[0]
        family = stream.partition(":")[0]
        belongs = family == _FAMILIES.get(area, area)
        need(belongs, "table", f"{event.get('kind')} does not belong to {stream}")

    def _stepped(self, event: Record, stream: str) -> None:
        before = self.streams.get(stream)
        after = legal(before, event)
        if isinstance(after, Violation):
            raise Breach(after.rule, after.text)
        kind, moment = event["kind"], self._moment
        held = len(moment.workers) - 1
        if event["kind"] == "store.pruned":
            self._pruned[event["position"]] = event["data"]
        moment.later(event, partial(by_the_worker, event, before, held))
        moment.saw(event, before, after)
        if kind == "outbox.attempted" and isinstance(after, Entry):
            self._waits(event, partial(self._may_go, stream, after, event["at"]))
        elif kind == "turn.started" and isinstance(after, Turn) and not after.control:
            self._waits(event, partial(self._may_start, stream, after))
        elif kind in ("turn.accepted", "turn.dead", "turn.joined"):
            self._new_key(event, after)
        elif kind == "gate.closed" and not _shut(before, event["at"]):
            moment.opened.add(stream)
        self.streams[stream] = after
        if isinstance(after, Entry):
            self._entry(stream, before, after)
        elif isinstance(after, Turn):
            self._turn(stream, before, after)
        moment.later(event, partial(self._joint.judge, event))

    def _waits(self, event: Record, check: Callable[[Moment], None]) -> None:
        """The streams of one commit have no order among each other: a rule that is broken now
        is asked again when the moment is over."""
        try:
            check(self._moment)
        except Breach:
            self._moment.later(event, check)

    def _entry(self, stream: str, before: State | None, after: Entry) -> None:
        if before is None:
            here = self._position
            need(after.behind < here, "INV-8", "it follows an entry that comes later")
            self._lanes.begun(stream, after.lane, after.behind or here)
            self._joint.begun(stream, after)
        if not after.open or after.yielded:
            self._lanes.passed(stream)

    def _may_go(self, stream: str, entry: Entry, at: int, moment: Moment) -> None:
        """A gate that was open at some time of the moment does not count: the log does
        not tell whether the attempt was decided before or after it closed."""
        for gate in _gates_of(entry.lane):
            shut = gate not in moment.opened and _shut(self.streams.get(gate), at)
            need(not shut, "gates", f"attempted while {gate} is closed")
        ahead = self._lanes.ahead_of(stream, entry.lane)
        need(ahead is None, "INV-8", f"attempted before {ahead} of its lane")

    def _new_key(self, event: Record, turn: State) -> None:
        """INV-9: one turn per inbound message, within the horizon."""
        if not isinstance(turn, Turn):
            return
        data = event["data"]
        own, message = data.get("key"), data.get("message_id", "")
        if own is None and not (message and turn.place[2]):
            return  # nothing tells a repeat
        words = (message, data.get("event", "message"), data.get("revision"))
        key = (*turn.place[:2], own) if own is not None else (*turn.place, *words)
        key = (*key, "copy", data.get("copy", 0))
        seen = self._keys.get(key)
        again = seen is not None and event["at"] - seen < self._horizon_ms
        need(not again, "INV-9", f"message {own or message} was accepted before")
        self._keys[key] = event["at"]

    def _may_start(self, stream: str, turn: Turn, _moment: Moment) -> None:
        ahead = self._turn_lanes.ahead_of(stream, turn.lane)
        others = self._running.get(turn.lane, set()) - {stream}
        free = ahead is None and not others
        need(free, "lanes", f"started, and {ahead or others} of its lane is first")

    def _turn(self, stream: str, before: State | None, turn: Turn) -> None:
        """A lane is held from started to answered; control input takes none."""
        if turn.control:
            return
        if before is None:
            self._turn_lanes.begun(stream, turn.lane, self._position)
        running = self._running.setdefault(turn.lane, set())
        if turn.phase == "running" and not turn.left_open:
            running.add(stream)
        else:
            running.discard(stream)
        if turn.held or turn.left_open or turn.phase not in ("accepted", "running"):
            self._turn_lanes.passed(stream)


def _shut(held: State | None, at: int) -> bool:
    if not isinstance(held, Ledger) or held.phase != "closed":
        return False
    return held.until is None or at < held.until


def _gates_of(lane: str) -> Iterator[str]:
    """Account, conversation and route of a lane that is written as
    channel/account/conversation/thread; another notation has no gates here."""
    words = lane.split("/")
    if len(words) == 4:
        for length in (2, 3, 4):
            yield "gate:" + "/".join(words[:length])


def audit(events: Iterable[Record], **options: Any) -> Iterator[Violation]:
    """The findings about a whole log, in its order."""
    log = Log(**options)
    for event in events:
        yield from log.feed(event)
    yield from log.finish()


def as_events(record: Any) -> Iterator[Record]:
    """The events of a stored record, with its fields as attributes and `events` as JSON
    bytes."""
    if not record.stream:
        facts = {"position": record.position, "by": record.version}
        yield {**facts, "hash": record.hash, "kind": PRUNED, "stream": ""}
        return
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
            if "pruned" in record:
                digest = bytes.fromhex(record["hash"])
                facts = {"position": record["position"], "by": record["pruned"]}
                yield {**facts, "hash": digest, "kind": PRUNED, "stream": ""}
                continue
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
