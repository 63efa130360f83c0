"""Is a kernel well? A judgement of the facts that `Kernel.health` gives, with reasons.

Health is progress: it is judged by the age of the oldest waiting entry or run, not by a
task that is alive.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from attrs import asdict, frozen

from turnfold._decide.rules import is_live
from turnfold._log.ids import GATE, account_scope
from turnfold._runtime.driver import Driver
from turnfold._runtime.open_streams import OpenStreams
from turnfold._runtime.worker import ENDED, STOPPED, Worker
from turnfold._state.entry import Entry
from turnfold.api.callbacks import Handlers
from turnfold.api.hooks import Hooks
from turnfold.api.plugins import PluginStates
from turnfold.api.sources import Sources
from turnfold.api.spread import Spread
from turnfold.api.stalls import Stalls
from turnfold.api.unanswered import reason
from turnfold.clock import Clock
from turnfold.enums import Phase
from turnfold.logs import Lines

APPEND_MS = 5_000  # a commit takes milliseconds
DUE_MS = 60_000  # a due entry is started at once, unless a gate holds it
COMMAND_MS = 5_000  # a worker answers in milliseconds
RUN_MS = 300_000  # a run may take longer; `is_well` then names it

_LOOKED_AT = 1_000  # entries: `is_well` may be called every second with a large backlog

Facts = Mapping[str, Any]


@frozen
class Wellness:
    """True as a condition if the kernel is well; else `reasons` names the problems."""

    reasons: tuple[str, ...]

    @property
    def well(self) -> bool:
        """True if there are no problems."""
        return not self.reasons

    def __bool__(self) -> bool:
        return self.well


def due_since(entry: Entry) -> int | None:
    """Since when an entry could have been attempted or looked up; log time."""
    if entry.phase not in (Phase.QUEUED, Phase.RETRYABLE, Phase.IN_DOUBT):
        return None
    return entry.created if entry.due is None else entry.due


def oldest_due_ms(book: OpenStreams, now: int) -> int | None:
    """The age of the oldest entry that is due and not started. Entries are read in the
    order of their queueing, and mostly only the first one: no entry is due before it is
    queued. Entries behind the first thousand are not read."""
    oldest: int | None = None
    for entry in islice(book.folded(), _LOOKED_AT):
        if oldest is not None and entry.created >= oldest:
            break
        since = due_since(entry)
        if since is not None and since <= now:
            oldest = since if oldest is None else min(oldest, since)
    return None if oldest is None else now - oldest


def growing(book: OpenStreams, now: int) -> dict[str, int]:
    """The live replies that are not sealed yet, each with its age in ms. Open entries
    behind the first thousand are not read."""
    entries = islice(book.folded(), _LOOKED_AT)
    return {e.stream: now - e.created for e in entries if is_live(e)}


def gate_facts(driver: Driver, now: int) -> list[dict[str, Any]]:
    """Each closed gate: its reason, since when and until when (log ms; `until` None:
    until a person opens it). `age_ms`: since it was closed first, as far as this worker
    knows. `waiting`: lanes that wait for their turn after the gate's time is over.
    `behind`: open entries of its scope."""
    waiting, tried = driver.flow.waiting(), driver.flow.tried()
    return [
        {
            "gate": gate.stream,
            "reason": gate.reason,
            "since": gate.updated,
            "age_ms": now - driver.flow.closed_since(gate),
            "until": gate.until,
            "waiting": waiting.get(gate.stream, 0),
            "behind": driver.book.behind(gate.stream),
        }
        for gate in driver.book.closed_gates()
        if gate.holds(now) or gate.stream in tried
    ]


def paced(driver: Driver) -> dict[str, int]:
    """How many lanes wait for their turn behind each gate that is open again."""
    waiting, tried = driver.flow.waiting().items(), driver.flow.tried()
    return {name: count for name, count in waiting if count and name not in tried}


def account_facts(book: OpenStreams, now: int) -> dict[str, dict[str, int | None]]:
    """By account: how many entries are open, and the age of the oldest one; None if it
    is not among the first thousand of all accounts."""
    counts = {name.removeprefix(GATE): n for name, n in book.open_by_account().items()}
    oldest: dict[str, int] = {}
    for entry in islice(book.folded(), _LOOKED_AT):
        if len(oldest) == len(counts):
            break
        oldest.setdefault(account_scope(entry.channel, entry.account), entry.created)
    return {
        name: {
            "open": count,
            "oldest_ms": None if name not in oldest else now - oldest[name],
        }
        for name, count in counts.items()
    }


def judge(facts: Facts) -> Wellness:
    return Wellness(tuple(_reasons(facts)))


def _reasons(facts: Facts) -> Iterator[str]:
    for name, most, says in _AGES:
        if facts[name] is not None and facts[name] > most:
            yield f"{says} for {facts[name] / 1_000:.0f} s"
    for name, says in _COUNTS.items():
        found = facts[name]
        count = found if isinstance(found, int) else len(found)
        if count:
            yield f"{count} {says}"
    for name, source in facts["sources"].items():
        if source["failing_ms"] is not None:
            yield f"source {name} fails: {source['error']}"
    yield from _holds(facts)
    for name in facts["missing"]:
        yield f"something waits for what is not here: {name}"
    yield from _disk(facts)
    waits = reason(facts["unanswered"], COMMAND_MS)
    if waits is not None:
        yield waits


def of_server(facts: Facts) -> Iterator[str]:
    """The reasons of a store with a server: a statement that has had no answer for long,
    and another gateway in it."""
    waits = facts.get("statement_waits_ms") or 0
    if waits > APPEND_MS:
        where = f" ({facts['primary']})" if facts.get("primary") else ""
        yield f"the server{where} has not answered a statement for {waits // 1_000} s"
    if facts.get("strangers"):
        way = "give each gateway its own `schema`, or attach alike on every host"
        yield f"another gateway seems to share this store: {facts['strangers']}; {way}"


def _disk(facts: Facts) -> Iterator[str]:
    yield from of_server(facts)
    if facts["append_refused_ms"] is not None:
        seconds = facts["append_refused_ms"] // 1_000
        yield f"the store took no append for {seconds} s: {facts['append_error']}"
    plugins = facts["plugin_state"]
    if plugins is not None and plugins["failing"] is not None:
        yield f"plugin state is kept in memory alone: {plugins['failing']}"
    if facts["upkeep"] is not None:
        yield f"upkeep of the store fails: {facts['upkeep']}"


def _holds(facts: Facts) -> Iterator[str]:
    if facts["standing_by"] == ENDED:
        yield f"the store is held by {ENDED}"
    if facts["standing_by"] == STOPPED:
        yield STOPPED
    if facts["state"] == "drained":
        yield DRAINED
    for stall in facts["stalled"][:1]:
        seconds, more = stall["since_ms"] // 1_000, len(facts["stalled"]) - 1
        others = f" (and {more} more)" if more else ""
        yield f"lane {stall['lane']}{others} stands still for {seconds} s: {stall['cause']}"
    for gate in facts["gates"]:
        yield f"{gate['gate']} is closed: {gate['reason']}"


_AGES = (
    ("oldest_append_ms", APPEND_MS, "an append has waited"),
    ("oldest_due_ms", DUE_MS, "an entry has been due and not started"),
    ("oldest_run_ms", RUN_MS, "a run has been under way"),
)
LOST = "time(s) the store was lost (the log says to whom or why); restart the process"
DRAINED = "it was drained and sends nothing; close the kernel and open it again"
_COUNTS: Mapping[str, str] = {
    "fences_lost": LOST,
    "hung_runs": "run(s) did not end at their deadline",
    "hung_calls": "call(s) of channels have not ended at their deadline",
    "parked": "entries are parked and wait for a person",
    "corrupt_streams": "stream(s) cannot be read",
    "inbox_refused": "command(s) in the inbox cannot be done",
}


def dead_facts(book: OpenStreams) -> Mapping[str, int]:
    """Entries that ended undelivered, in this life or an earlier one, and that nobody
    has acknowledged or sent again; the same of updates that could not be read."""
    return {"dead_letters": book.dead["entry"], "dead_turns": book.dead["turn"]}


def append_facts(driver: Driver) -> Mapping[str, Any]:
    """The age of the oldest append that waits. Does the store refuse appends (a full or
    failing disk)? The error, and for how long; None after an append that it took."""
    trouble = driver.journal.trouble
    return {
        "oldest_append_ms": driver.group_commit.waiting_ms(),
        "append_refused_ms": driver.group_commit.refused_ms(),
        "append_error": None if trouble is None else str(trouble),
    }


def time_facts(clock: Clock, last_at: int) -> Mapping[str, Any]:
    """The facts about log time and wall time. `last_at`: log time of the last record,
    in ms."""
    return {
        "log_ahead_ms": max(clock.now(), last_at) - clock.wall_now(),
        "wall_trusted": clock.trusted,
        "wall_synchronised": clock.synchronised,
        "wall_steps": clock.steps,
        "last_step_ms": clock.last_step_ms,
    }


class Health(PluginStates, Spread):
    """The part of a Kernel that reports its health."""

    _unsaid_before: int
    _handlers: Handlers
    _sources: Sources
    _worker: Worker | None
    _stalls: Stalls | None
    hooks: Hooks

    def _foreign_bugs(self) -> Mapping[str, int]:
        """Errors of foreign code since the kernel was made, by their origin."""
        channels = {f"{n}/{a}": desk.bugs for (n, a), desk in self._desks.items()}
        return {
            "handler": self._handlers.bugs,
            "hooks": self.hooks.bugs,
            "log": Lines.failed - self._unsaid_before,
            "notices": self._open_driver().wording.bugs,
            **{name: bugs for name, bugs in channels.items() if bugs},
        }

    def _drained(self, driver: Driver) -> bool:
        """`drain` was called: it accepts, and sends and runs nothing more."""
        return self._state == "open" and self.working and driver.draining

    def _hung_plans(self) -> int:
        return sum(len(desk.hung_plans) for desk in self._desks.values())

    def health(self) -> Mapping[str, Any]:
        """Facts for a health endpoint, from state. Of a store of several shards: `seats`
        has those of each shard of this host; the rest is about the host."""
        self._home.check()
        if self._shards is not None:
            return {
                "state": self._state,
                **self._shards.facts(),
                "plugin_state": self._plugin_facts(),
            }
        driver, worker, store = self._open_driver(), self._worker, self.store
        trouble = worker.upkeep.trouble if worker else None
        runs = self._handlers.ages_ms()
        return {
            "state": "drained" if self._drained(driver) else self._state,
            "working": self.working,
            "taking_over_ms": driver.taking_over_ms,
            "standing_by": worker.standing_by if worker else None,
            "fences_lost": worker.fences_lost if worker else 0,
            "upkeep": None if trouble is None else str(trouble),
            "open_entries": driver.book.open_count,
            "corrupt_streams": sorted(driver.book.corrupt),
            "hung_calls": len(driver.sender.hung) + self._hung_plans(),
            "troubles": driver.troubles,
            "missing": self._missing.facts(),
            "parked": len(driver.book.parked),
            "stalled": self._stalls.facts() if self._stalls else [],
            "untold_records": self.hooks.untold,
            **dead_facts(driver.book),
            **append_facts(driver),
            "unanswered": self._mailbox.unanswered.facts(),
            "oldest_due_ms": oldest_due_ms(driver.book, self._clock.now()),
            "growing": growing(driver.book, self._clock.now()),
            "runs": len(runs),
            "runs_waiting": len(driver.flow.places.waiting),
            "oldest_run_ms": max(runs.values(), default=None),
            "hung_runs": self._handlers.hung,
            "foreign_bugs": self._foreign_bugs(),
            "sources": {n: asdict(f) for n, f in self._sources.facts().items()},
            "gates": gate_facts(driver, self._clock.now()),
            "paced": paced(driver),
            "accounts": account_facts(driver.book, self._clock.now()),
            "inbox_refused": sorted(driver.intake.unfit),
            "position": driver.book.position,
            "time": time_facts(self._clock, driver.book.last_at),
            "plugin_state": self._plugin_facts(),
            **store.facts(),
        }

    def is_well(self) -> Wellness:
        """A judgement of `health`: true if the kernel is well, else with the
        reasons."""
        facts = self.health()
        return judge(facts) if self._shards is None else self._shards.judge(facts)
