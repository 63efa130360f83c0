"""The verdict on a machine that has come to rest."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

from attrs import frozen

from turnfold._log.codec import decode
from turnfold._log.events import NAMES, Event
from turnfold._state.entry import Entry
from turnfold._state.fold import State, apply, family, summarize
from turnfold._state.turn import Turn
from turnfold.audit import audit_store
from turnfold.enums import FailureClass, Kind, PartEnd, Phase, TurnPhase
from turnfold.errors import CorruptLogError, TurnfoldError
from turnfold.ports.store import Record, Store, now
from turnfold_model.crash.world import World
from turnfold_model.reference import Log, as_events
from turnfold_model.reference.deaths import Deaths
from turnfold_model.testing.peek import Peek


def broken(world: World, store: Store | None = None) -> list[str]:
    """The broken rules, in words; empty if there are none. `store`: opened on the
    world's disk; none: a handle of its own."""
    handle = store or world.handle()
    now(handle.open())
    try:
        return _broken(world, handle)
    except TurnfoldError as exc:
        return [f"INV-13 the store cannot be read: {exc}"]
    finally:
        if store is None:
            now(handle.close())


def _broken(world: World, store: Store) -> list[str]:
    records: dict[str, list[Record]] = {}
    for record in Peek(store).log():
        records.setdefault(record.stream, []).append(record)
    try:
        states = {s: _fold(tuple(found)) for s, found in records.items()}
        streams = {s: _facts(tuple(found)) for s, found in records.items()}
    except CorruptLogError as exc:
        return [f"INV-13 the log does not replay: {exc}"]
    entries = [s for s in states.values() if isinstance(s, Entry)]
    turns = [s for s in states.values() if isinstance(s, Turn)]
    return [
        *_projections(store, states),
        *_doubles(world, entries),
        *_losses(world, entries, turns),
        *_order(world, entries),
        *_turns(world, turns, {e.stream: e for e in entries}),
        *_deaths(world, store),
        *_runs(world, streams, entries),
        *(wrong for e in entries for wrong in _attempts(world, streams, e)),
        *_audit(world, store),
    ]


@lru_cache(maxsize=50_000)
def _fold(records: tuple[Record, ...]) -> State:
    """The fold of some records, cached: executions share most of their logs."""
    before = _fold(records[:-1]) if len(records) > 1 else None
    return apply(before, records[-1])


@frozen
class Fact:
    """One event of a log, as the rules below speak of it."""

    position: int
    at: int
    kind: str
    by_death: bool  # of the process that attempted
    alone: bool  # ... with nothing else under way


@lru_cache(maxsize=50_000)
def _facts(records: tuple[Record, ...]) -> tuple[Fact, ...]:
    return tuple(
        Fact(r.position, r.at, NAMES[type(event)], _by_death(event), _alone(event))
        for r in records
        for event in decode(r)
    )


def _by_death(event: Event) -> bool:
    words = (getattr(event, name, None) for name in ("failure", "cause", "end"))
    return FailureClass.OWNER_DIED in words


def _alone(event: Event) -> bool:
    return _by_death(event) and getattr(event, "beside", None) == 0


_SURVIVED = (
    *("outbox.delivered", "outbox.part_delivered", "outbox.placed", "outbox.deferred"),
    *("outbox.failed_retryable", "outbox.unknown"),
)


def forget() -> None:
    """Drop the folds that are kept; for a kernel that was changed meanwhile."""
    _fold.cache_clear()
    _facts.cache_clear()


def _runs(
    world: World, streams: Mapping[str, Sequence[Fact]], entries: list[Entry]
) -> Iterator[str]:
    """The wrongs that were noticed on the way; INV-9: entries that an older run queued but did not send
    stay unsent."""
    yield from world.wrongs
    for entry in entries:
        if entry.turn is None or entry.run is None or entry.kind is not Kind.BLOCK:
            continue
        of_turn = streams[entry.turn]
        starts = [r.position for r in of_turn if r.kind == "turn.started"]
        if len(starts) > entry.run:
            later = starts[entry.run]
            yield from _outlived(world, entry, streams[entry.stream], later)


def _outlived(
    world: World, entry: Entry, records: Sequence[Fact], later: int
) -> Iterator[str]:
    """The fate of a block of a turn that was run again from position `later` on."""
    for before, record in pairwise(records):
        fresh = before.kind in ("outbox.planned", "outbox.failed_retryable")
        if fresh and record.kind == "outbox.attempted" and record.position > later:
            yield f"INV-9 {entry.stream} of run {entry.run} was sent in a later one"
    seen = any(r.kind.endswith("delivered") and r.position < later for r in records)
    if seen and not world.scenario.resumes:
        yield f"INV-9 {entry.stream} was seen, and its turn was run again"


def _attempts(
    world: World, streams: Mapping[str, Sequence[Fact]], entry: Entry
) -> Iterator[str]:
    """Check that no entry goes out after its turn was aborted, after its expiry, or
    after too many deaths of processes alone."""
    records, deaths, tried = streams[entry.stream], 0, False
    turn = streams.get(entry.turn or "", ())
    aborts = [r.position for r in turn if "abort" in r.kind]
    for record in records:
        tries = record.kind in ("outbox.attempted", "outbox.dispatched")
        if tries and aborts and record.position > aborts[0] and entry.kind != "notice":
            yield f"INV-11 {entry.stream} went out after its turn was aborted"
        if tries and record.at >= entry.expires_at:
            yield f"INV-12 {entry.stream} went out after its time"
        if tries and not tried and _too_old(world, entry, record.at):
            yield f"INV-12 {entry.stream} went out though it was too old"
        tried = tried or tries
        begins = record.kind in ("outbox.attempted", "outbox.tried")
        if begins and not record.by_death and deaths >= world.scenario.deaths:
            yield f"INV-14 {entry.stream} took {deaths} processes down and goes on"
        if record.kind in _SURVIVED and not record.by_death:
            deaths = 0
        deaths += record.alone


def _too_old(world: World, entry: Entry, at: int) -> bool:
    limit = world.scenario.age_ms
    return limit is not None and at - entry.created > limit


def _projections(store: Store, states: Mapping[str, State]) -> list[str]:
    return [
        f"INV-13 {stream}: projection differs from the fold"
        for stream, state in states.items()
        if family(stream) in ("entry", "turn")
        and Peek(store).summary(stream) != summarize(state)
    ]


def _deaths(world: World, store: Store) -> Iterator[str]:
    """Who was alone in a death, as the log tells it and as it was told."""
    if not world.scenario.poison:
        return
    log, deaths = Log(), Deaths(world.scenario.deaths)
    for record in Peek(store).log():
        for event in as_events(record):
            yield from map(str, log.feed(event))
            yield from deaths.feed(event, log.streams[record.stream])


def _audit(world: World, store: Store) -> list[str]:
    """Audit the log, with the platform's own list if no second send was allowed."""
    witness = None if world.scenario.zombies else world.platform.witness()
    marks = [world.confirmed] if world.confirmed else []
    report = now(audit_store(store, marks=marks, witness=witness))
    return [f"audit {finding}" for finding in report.findings]


def _doubles(world: World, entries: list[Entry]) -> list[str]:
    counts = Counter((r.entry, r.part) for r in world.platform.accepted)
    allowed = set() if world.scenario.safe else {e.stream for e in entries}
    return [
        f"INV-2 {entry} part {part} was accepted {count} times"
        for (entry, part), count in counts.items()
        if count > 1 and entry not in allowed
    ]


def _losses(world: World, entries: list[Entry], turns: list[Turn]) -> list[str]:
    seen = {(r.entry, r.part) for r in world.platform.accepted}
    came = [t.message_id for t in turns]
    came += [more.message_id for t in turns for more in t.joined]
    messages = Counter(came)
    keys = Counter(e.key for e in entries if e.turn is None)
    out = [
        f"INV-9 message {name} has {count} turns"
        for name, count in messages.items()
        if count > 1
    ]
    out += [
        f"INV-9 key {k} has {count} entries" for k, count in keys.items() if count > 1
    ]
    for name in world.acked:
        known = messages if name.startswith("in") else keys
        if not known[name.removeprefix("in").replace("out", "k")]:
            out.append(f"INV-1 {name} was acknowledged but is not there")
    for e in entries:
        out += _loss(world, e, seen)
    return out


def _loss(world: World, e: Entry, seen: set[tuple[str, int]]) -> list[str]:
    there = {s.part for s in e.others if s.end is PartEnd.DELIVERED}
    there |= set(range(len(e.parts))) if e.phase is Phase.DELIVERED else set()
    refused = [s.part for s in e.others if s.end is PartEnd.REFUSED]
    out = [
        f"INV-1 {e.stream} part {part} counts as delivered"
        for part in there
        if (e.stream, part) not in seen
    ]
    out += [
        f"INV-12 {e.stream} part {part} counts as refused, and it is there"
        for part in refused
        if (e.stream, part) in seen
    ]
    if e.phase not in (Phase.DELIVERED, Phase.FAILED, Phase.ABORTED, Phase.PARKED):
        out.append(f"INV-14 {e.stream} rests in {e.phase}, due {e.due}")
    if e.phase is Phase.FAILED and world.scenario.certain:
        out.append(f"INV-1 {e.stream} failed: {e.reason}")
    if e.phase is Phase.PARKED and world.scenario.certain:
        out.append(f"INV-1 {e.stream} is parked: {e.reason}")
    return out


def _order(world: World, entries: list[Entry]) -> list[str]:
    """First acceptances of a lane follow the order of queueing, except for entries that
    yielded and notices behind an entry, of which the audit knows the place."""
    if world.scenario.zombies:
        return []  # two senders at once: a fence protects only the log, not the wire
    order = {e.stream: e.order for e in entries}
    yielded = {e.stream for e in entries if e.yielded or e.behind}
    last: dict[str, tuple[int, int]] = {}
    out = []
    seen = set()
    for r in world.platform.accepted:
        if r.entry in yielded or (r.entry, r.part) in seen or r.entry not in order:
            continue
        seen.add((r.entry, r.part))
        place = (order[r.entry], r.part)
        if place < last.get(r.lane, (0, 0)):
            out.append(f"INV-8 {r.entry} part {r.part} came out of order")
        last[r.lane] = place
    return out


def _turns(world: World, turns: list[Turn], entries: dict[str, Entry]) -> list[str]:
    out = []
    for turn in turns:
        if turn.failed_runs >= world.scenario.runs:
            out.append(f"INV-14 {turn.stream} has failed {turn.failed_runs} times")
        if turn.phase is TurnPhase.FAILED and world.scenario.certain:
            out.append(f"INV-1 {turn.stream} failed: {turn.reason}")
        parked = any(entries[f].phase is Phase.PARKED for f in turn.finals)
        deadly = world.scenario.poison and turn.message_id == "0"
        deaths = world.scenario.deaths
        blamed = turn.held and turn.alone >= deaths and not world.cured
        if world.scenario.poison and turn.held and not deadly:
            out.append(f"INV-14 {turn.stream} is held, and it killed no process")
        if world.scenario.poison and turn.phase is TurnPhase.FAILED:
            out.append(f"INV-14 {turn.stream} failed, and only processes died")
        if turn.open and not ((turn.phase is TurnPhase.ANSWERED and parked) or blamed):
            out.append(f"INV-14 {turn.stream} rests in {turn.phase}")
        if not turn.open and any(entries[f].open for f in turn.finals):
            out.append(f"INV-10 {turn.stream} is over but owes a reply")
    return out
