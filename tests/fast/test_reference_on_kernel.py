"""Logs of the real kernel, crashed at every step, judged by the reference; and the
same logs with one event damaged, which it must notice."""

from collections import Counter
from functools import cache

import pytest

from turnfold.enums import BlindPolicy, DeliveryClass
from turnfold.ports.store import now
from turnfold_model.crash.explore import explore
from turnfold_model.crash.scenario import Scenario
from turnfold_model.crash.world import World
from turnfold_model.reference import as_events, audit
from turnfold_model.testing.peek import Peek

SECONDS = 0.5
KEYED, LOOKUP = (DeliveryClass.KEYED,), (DeliveryClass.LOOKUP,)
SCENARIOS = [
    Scenario(name="keyed", messages=2, parts=2, blocks=1, faults=1, abort=True),
    Scenario(name="keyed-prepared", classes=KEYED, prepares=True, abort=True, faults=1),
    Scenario(name="lookup", classes=LOOKUP, parts=2, crashes=2, faults=1),
    Scenario(name="hold", classes=(), messages=2, faults=2),
    Scenario(name="drop", classes=(), policy=BlindPolicy.DROP, blocks=2, faults=1),
    Scenario(
        name="resend", classes=(), policy=BlindPolicy.RESEND_MARKED, parts=2, faults=1
    ),
    Scenario(name="few-runs", silent=True, blocks=1, crashes=2, runs=2, attempts=2),
    Scenario(name="another-client", client=True, messages=2, faults=1, ttl_ms=4_000),
]
Log = tuple[dict, ...]


@cache
def logs(scenario: Scenario) -> list[Log]:
    """The log of every execution, as far as the time allows."""
    found: list[Log] = []

    def keep(world: World) -> list[str]:
        store = world.handle()
        now(store.open())
        log = Peek(store).log()
        found.append(tuple(event for record in log for event in as_events(record)))
        return []

    explore(scenario, seconds=SECONDS, check=keep, most=10**9)
    return found


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_kernel_keeps_every_rule(scenario):
    assert logs(scenario)
    for log in logs(scenario):
        assert list(audit(log)) == []


def changed(event: dict) -> list[dict]:
    """One field of the event, made wrong."""
    data = event["data"]
    match event["kind"]:
        case "outbox.attempted":
            names = ["part", "attempt"]
        case "outbox.delivered" | "outbox.part_delivered" | "outbox.unknown":
            names = ["part", "attempt"]
        case "turn.started" | "turn.answered" | "turn.run_failed":
            names = ["run"]
        case _:
            names = []
    return [{**event, "data": {**data, n: data[n] + 1}} for n in names if n in data]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_changed_number_is_noticed(scenario):
    for log in logs(scenario)[:40]:
        for place, event in enumerate(log):
            for wrong in changed(event):
                damaged = [*log[:place], wrong, *log[place + 1 :]]
                assert list(audit(damaged)), wrong


def without(log: Log, place: int) -> list[dict]:
    """The log as if one event had never been written."""
    versions: Counter[str] = Counter()
    out = []
    for event in (*log[:place], *log[place + 1 :]):
        versions[event["stream"]] += 1
        out.append({**event, "version": versions[event["stream"]]})
    return out


# Without its first event a stream makes no sense. The others may be the last thing that
# happened before an abort or a crash, and then a log can be right without them.
ALWAYS = {"turn.accepted", "outbox.queued"}
MOSTLY = {
    "store.worker_started",
    "turn.started",
    "turn.answered",
    "outbox.planned",
    "outbox.attempted",
}


def test_a_missing_event_is_noticed():
    seen: Counter[bool] = Counter()
    for scenario in SCENARIOS:
        for log in logs(scenario)[:20]:
            for place, event in enumerate(log):
                last = all(e["stream"] != event["stream"] for e in log[place + 1 :])
                if last or event["kind"] not in ALWAYS | MOSTLY:
                    continue
                noticed = bool(list(audit(without(log, place))))
                assert noticed or event["kind"] in MOSTLY, event
                seen[noticed] += 1
    assert seen[True] > 9 * seen[False]
