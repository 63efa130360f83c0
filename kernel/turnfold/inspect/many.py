"""Questions about many messages: counts, gates, the worker, places, and the needs for a
person. Each reads summaries and counts of the store, and folds only the streams that it
shows."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from shlex import quote
from typing import Any
from urllib.parse import unquote

from attrs import define, evolve, field

from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._log.codec import decode
from turnfold._log.ids import ENTRY, GATE, TURN, account_scope
from turnfold._state.fold import STORE, Gate, StoreState, restore
from turnfold.clock import Clock
from turnfold.enums import CLOSED, Phase, TurnPhase
from turnfold.errors import CorruptLogError, InvalidInputError
from turnfold.inspect.lookup import INBOX, Filter, ReadModel, listing_of, row_of
from turnfold.inspect.places import accounts, route_of_lane
from turnfold.inspect.shards import shards_of
from turnfold.inspect.times import seen_at, to_come
from turnfold.inspect.views import (
    ChannelView,
    GateView,
    Overview,
    Row,
    Tally,
    WorkerView,
)
from turnfold.ports.shards import Announcing, Host
from turnfold.ports.store import Following, Listing, Store, Wanted, summary_pages

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
WEEK_MS = 7 * DAY_MS
GROUPS = ("channel", "account", "kind", "reason", "status", "day", "hour")
_UNANSWERED = Listing(
    prefix=TURN, open=True, phases=(TurnPhase.ACCEPTED, TurnPhase.RUNNING)
)
_WAITING = tuple(p for p in Phase if not p.closed and p is not Phase.PARKED)
_FAILED = Listing(prefix=TURN, phases=(TurnPhase.FAILED,))
_LATE_MS = 60_000  # a command that waits longer has no worker
_NAMES: Mapping[str, str] = {
    Phase.DELIVERED: "delivered",
    Phase.PARKED: "parked",
    Phase.FAILED: "dead",
    Phase.ABORTED: "aborted",
}

# --- counts ---------------------------------------------------------------------------


async def stats(
    store: Store, by: Sequence[str], want: Filter, zone: tzinfo | None, clock: Clock
) -> tuple[Tally, ...]:
    """Counts by names of GROUPS, the largest group first, days and hours in order.
    `zone`: the time zone of days; None is the zone of this process."""
    odd = [name for name in by if name not in GROUPS]
    if odd:
        problem = f"no group {odd[0]!r}; there are: {', '.join(GROUPS)}"
        raise InvalidInputError(field="by", problem=problem)
    shift = clock.shift()
    stamps = _Stamps(zone, shift // HOUR_MS)
    listing = await listing_of(store, want, shift)
    columns = _columns(by)
    found: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    whys: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for count in await store.count(listing, columns):
        facts = dict(zip(columns, count.values, strict=True))
        group = tuple(_GROUP[name](facts, stamps) for name in by)
        if facts["family"] == "turn":
            if not {"kind", "reason", "status"} & {*by}:
                found[group]["turns"] += count.count
            continue
        name = _NAMES.get(str(facts["phase"]), "waiting")
        found[group][name] += count.count
        found[group]["out"] += count.count
        if name in ("dead", "parked"):
            whys[group][_why(facts)] += count.count
    tallies = [_tally(by, group, found[group], whys[group]) for group in found]
    if by and by[0] in ("day", "hour"):
        return tuple(sorted(tallies, key=lambda t: [*t.group.values()]))
    return tuple(sorted(tallies, key=lambda t: (-t.out, -t.turns, [*t.group.values()])))


def _tally(
    by: Sequence[str], group: Sequence[str], found: Counter[str], why: Counter[str]
) -> Tally:
    named = dict(zip(by, group, strict=True))
    return Tally(group=named, why=dict(why.most_common()), **found)


def _columns(by: Sequence[str]) -> list[str]:
    """The columns to count by: only the needed ones, since each makes more rows."""
    columns = ["family", "phase", "reason", "failure"]
    columns += ["place"] if {"channel", "account"} & {*by} else []
    columns += ["hour"] if {"day", "hour"} & {*by} else []
    return columns + (["kind"] if "kind" in by else [])


_Facts = Mapping[str, int | str]


def _why(facts: _Facts) -> str:
    """Why an entry ended. The failure class is more precise than "permanent"; any other
    reason is more precise than the class."""
    reason, failure = str(facts["reason"]), str(facts["failure"])
    if reason == "permanent" and failure:
        return failure
    return reason or failure or "no reason"


@define
class _Stamps:
    """Hours of log time as local days and hours, cached, since most are needed many
    times."""

    zone: tzinfo | None
    shift: int  # in hours
    known: dict[tuple[str, int], str] = field(factory=dict)

    def of(self, form: str, hour: int) -> str:
        found = self.known.get((form, hour))
        if found is None:
            at = datetime.fromtimestamp((hour - self.shift) * 3600, UTC)
            found = self.known[form, hour] = at.astimezone(self.zone).strftime(form)
        return found


_GROUP: Mapping[str, Callable[[_Facts, _Stamps], str]] = {
    "channel": lambda facts, _: route_of_lane(str(facts["place"]))[0],
    "account": lambda facts, _: "/".join(route_of_lane(str(facts["place"]))[:2]),
    "kind": lambda facts, _: str(facts["kind"]),
    "reason": lambda facts, _: (
        _why(facts) if facts["phase"] in ("failed", "parked", "aborted") else "(none)"
    ),
    "status": lambda facts, _: _NAMES.get(str(facts["phase"]), "waiting"),
    "day": lambda facts, stamps: stamps.of("%Y-%m-%d", int(facts["hour"])),
    "hour": lambda facts, stamps: stamps.of("%Y-%m-%d %H:00", int(facts["hour"])),
}


async def _one(store: Store, want: Filter, clock: Clock) -> Tally:
    found = await stats(store, (), want, UTC, clock)
    return found[0] if found else Tally(group={})


async def total(store: Store, listing: Listing) -> int:
    return sum(count.count for count in await store.count(listing))


async def first(store: Store, listing: Listing, clock: Clock) -> Row | None:
    """The oldest row that fits."""
    found = await store.list(evolve(listing, oldest=True, limit=1))
    return row_of(found[0], clock.shift()) if found else None


# --- gates, worker, channels ------------------------------------------------------------


async def gates(store: Store, clock: Clock) -> tuple[GateView, ...]:
    """The closed gates, those that wait for a person first."""
    closed = [
        state
        async for page in summary_pages(store, Listing(prefix=GATE, open=True))
        for state in map(restore, page)
        if isinstance(state, Gate) and state.holds(clock.now())
    ]
    found = [await _gate(store, state, clock) for state in closed]
    return tuple(sorted(found, key=lambda gate: (not gate.person, -gate.waiting)))


async def _gate(store: Store, gate: Gate, clock: Clock) -> GateView:
    lane = gate.stream.removeprefix(GATE)
    behind = Listing(prefix=ENTRY, open=True, phases=_WAITING, lane=lane)
    if lane.count("/") < 3:
        behind = evolve(behind, lane=None, lanes=(f"{lane}/",))
    place = "/".join(filter(None, route_of_lane(lane)))
    plain = lane if lane == place and lane.count("/") == 1 else gate.stream
    person = gate.until is None
    return GateView(
        id=gate.stream,
        place=place,
        reason=gate.reason,
        since=gate.updated - clock.shift(),
        until=to_come(gate.until, clock.shift()),
        waiting=await total(store, behind),
        oldest=await first(store, behind, clock),
        person=person,
        next=f"turnfold open {quote(plain)}",
    )


async def worker(store: Store, clock: Clock, *, alive: bool | None) -> WorkerView:
    wanted = Wanted(summaries=frozenset((STORE,)))
    summary = (await store.fetch(wanted)).summaries[STORE]
    state = None if summary is None else restore(summary)
    started = state if isinstance(state, StoreState) and state.epoch else None
    owner, last = await store.ownership().current(), await store.last()
    wire = Listing(prefix=ENTRY, open=True, phases=(Phase.DISPATCHED,))
    oldest = await first(store, wire, clock)
    return WorkerView(
        alive=alive,
        stopped=alive is not False and store.ownership().stopped,
        id=None if owner is None else owner.id,
        pid=None if owner is None else owner.pid,
        host=None if owner is None else owner.host,
        epoch=started.epoch if started else 0,
        since=started.updated - clock.shift() if started else None,
        heard=None if last is None else seen_at(last),
        sending=await total(store, wire),
        sending_since=None if oldest is None else oldest.updated,
    )


async def channels(store: Store, want: Filter, clock: Clock) -> tuple[ChannelView, ...]:
    """Every account with a message, with its counts in the filter's window."""
    closed = {gate.id: gate for gate in await gates(store, clock)}
    tallies = {
        (t.group["channel"], t.group["account"]): t
        for t in await stats(store, ("channel", "account"), want, UTC, clock)
    }
    found = []
    for channel, account in await accounts(store):
        group = {"channel": channel, "account": f"{channel}/{account}"}
        tally = tallies.get((channel, group["account"]), Tally(group=group))
        gate = closed.get(f"{GATE}{account_scope(channel, account)}")
        found.append(await _channel(store, tally, gate, clock))
    return tuple(found)


async def _channel(
    store: Store, tally: Tally, gate: GateView | None, clock: Clock
) -> ChannelView:
    channel = tally.group["channel"]
    account = tally.group["account"].removeprefix(f"{channel}/")
    lanes = (f"{account_scope(channel, account)}/",)
    found = await store.list(Listing(prefix=ENTRY, lanes=lanes, limit=1))
    latest = [row_of(summary, clock.shift()) for summary in found]
    plan = await _plan(store, latest[0].id) if latest else None
    return ChannelView(
        channel=channel,
        account=account,
        tally=tally,
        classes=tuple(map(str, plan.parts[0].classes)) if plan else None,
        ids=plan.ids if plan else None,
        last=latest[0].created if latest else None,
        gate=gate,
    )


async def _plan(store: Store, entry: str) -> o.Planned | None:
    found = await store.fetch(Wanted(streams=frozenset((entry,))))
    try:
        events = [event for r in found.streams[entry] for event in decode(r)]
    except CorruptLogError:
        return None
    plans = [event for event in events if isinstance(event, o.Planned)]
    return plans[-1] if plans else None


# --- is a person needed?
# -----------------------------------------------------------------


async def overview(store: Store, clock: Clock, *, alive: bool | None) -> Overview:
    now = clock.now() - clock.shift()
    week = now + clock.shift() - WEEK_MS
    waiting = Listing(prefix=ENTRY, open=True)
    parked = evolve(waiting, phases=(Phase.PARKED,))
    person = Listing(prefix="", person=True)
    asked = Counter[tuple[str, bool]]()
    for count in await store.count(person, ("family", "phase")):
        closed = count.values[1] in CLOSED
        asked[str(count.values[0]), closed] += count.count
    inbox = await store.inbox(INBOX)
    (start,) = await store.log(0, 1) or (None,)
    last = await store.last()
    in_parked = await total(store, parked)
    facts: dict[str, Any] = {
        "address": store.address,
        "as_of": await store.as_of() if isinstance(store, Following) else None,
        "position": 0 if last is None else last.position,
        "since": None if start is None else seen_at(start),
        "worker": await worker(store, clock, alive=alive),
        "turns": await total(store, Listing(prefix=TURN, open=True)),
        "runs": await total(store, _UNANSWERED),
        "waiting": await total(store, waiting) - in_parked,
        "oldest": await first(store, evolve(waiting, phases=_WAITING), clock),
        "parked": in_parked,
        "oldest_parked": await first(store, parked, clock) if in_parked else None,
        "dead": (await _one(store, Filter(since=now - WEEK_MS), clock)).dead,
        "unseen": asked["entry", True],
        "held": asked["turn", True] + asked["turn", False],
        "failed": await total(store, evolve(_FAILED, since=week)),
        "gates": await gates(store, clock),
        "inbox": len(inbox),
        "inbox_since": min((command.at for command in inbox), default=None),
        "hour": await _one(store, Filter(since=now - HOUR_MS), clock),
    }
    lacks = await _unattached(store, clock)
    return Overview(needed=(*_needed(facts, now), *lacks), **facts)


async def _unattached(store: Store, clock: Clock) -> Sequence[tuple[str, str]]:
    """Accounts with entries that wait for a minute, and that a worker has not attached. It
    would send them if it had; another host that has them cannot."""
    first_shard = shards_of(store)[0]
    if not isinstance(first_shard, Announcing):
        return ()
    hosts = await first_shard.hosts()
    late = Listing(
        prefix=ENTRY, open=True, phases=_WAITING, until=clock.now() - _LATE_MS
    )
    found = []
    for count in await store.count(late, ("place",)) if hosts else ():
        place = str(count.values[0])
        lacks = [h for h in hosts if h.works and _lacks(h, place)]
        if lacks:
            found.append(_lacking(place, count.count, lacks[0], hosts))
    return sorted(found)


def _lacks(host: Host, place: str) -> bool:
    return host.attached is not None and place not in host.attached


def _lacking(
    place: str, waiting: int, worker: Host, hosts: Sequence[Host]
) -> tuple[str, str]:
    has = [h.host for h in hosts if place in (h.attached or ())]
    there = f" ({', '.join(has)} has it)" if has else ""
    text = (
        f"{waiting:,} wait for {place}, which pid {worker.pid} on {worker.host} works"
    )
    text = f"{text} on and has not attached{there}: attach it on every host"
    return text, f"turnfold list --channel {unquote(place.partition('/')[0])}"


def _needed(facts: Mapping[str, Any], now: int) -> Iterable[tuple[str, str]]:
    late = facts["inbox_since"] is not None and now - facts["inbox_since"] > _LATE_MS
    work = facts["waiting"] or facts["runs"] or late
    if facts["worker"].alive is False and work:
        yield "no worker is running, and messages wait", "turnfold worker"
    elif facts["worker"].stopped:
        yield "the worker's process is stopped", f"kill -CONT {facts['worker'].pid}"
    elif late:
        yield "commands wait in the inbox for a minute and more", "turnfold inbox"
    if facts["parked"]:
        yield f"{facts['parked']:,} parked", "turnfold list --parked"
    if facts["unseen"]:
        yield f"{facts['unseen']:,} dead, not yet seen", "turnfold list --dead --unseen"
    if facts["held"]:
        yield f"{facts['held']:,} turns held", "turnfold turns --held"
    for gate in facts["gates"]:
        if gate.person:
            yield f"{gate.place} is closed ({gate.reason})", gate.next


# --- the platform's words ----------------------------------------------------------------


async def with_words(store: Store, found: Sequence[Row]) -> tuple[Row, ...]:
    """Rows with their words: of a turn the user's message, of an undelivered entry the
    error text, of any other entry its own text."""
    names = [row.id for row in found]
    model = ReadModel(store)
    await model.read(names)
    await model.read_bodies(names)
    return tuple(evolve(row, words=_words(model, row)) for row in found)


async def said(store: Store, turns: Sequence[Row]) -> Mapping[str, str]:
    """The words of the message that began each of these turns, by the turn's id. Raises
    CorruptLogError for a turn that cannot be read."""
    wanted = Wanted(streams=frozenset(row.id for row in turns))
    firsts = {
        name: next((e for e in decode(records[0]) if isinstance(e, _BEGIN)), None)
        for name, records in (await store.fetch(wanted)).streams.items()
        if records
    }
    model = ReadModel(store)
    await model.read_texts({n: e.body for n, e in firsts.items() if e is not None})
    return {
        name: model.said(name, event.body, event.form) or ""
        for name, event in firsts.items()
        if event is not None
    }


_BEGIN = (t.Accepted, t.Dead)


def _words(model: ReadModel, row: Row) -> str | None:
    try:
        events = model.history(row.id)
    except CorruptLogError:
        return "(its log cannot be read)"
    details = [getattr(event, "detail", None) for event in events]
    detail = next((ref for ref in reversed(details) if ref), None)
    if row.what == "entry" and row.status != "delivered" and detail is not None:
        return model.text(row.id, detail)
    body = getattr(events[0], "body", None) if events else None
    ref = body if isinstance(body, str) or not body else body[0]
    return None if ref is None else model.preview(row.id, ref)
