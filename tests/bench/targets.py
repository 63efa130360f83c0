"""The targets, and how far a run meets them.

A target that the run did not measure has no value and says why. It is never left out.
"""

from collections.abc import Callable
from typing import Any, Literal

from attrs import frozen
from tests.bench import floor, peers, servers
from tests.bench.compare import US

Found = dict[str, dict[str, float]]
_EVENTS = floor.EventRows.name
_REDIS = servers.RedisStreams.name
_PROMISES = {kind.name: kind.promise for kind in peers.ALL}


@frozen
class Target:
    """`row` is the part of the bench that measures it, and `value` takes that part's
    figures. `sense`: whether more or less is better. `needs`: names of the parts that may
    be missing on a machine; the first that is missing is the reason for no value."""

    name: str
    row: str
    value: Callable[[dict[str, float]], float]
    must: float
    stretch: float
    sense: Literal["more", "less"]
    needs: tuple[str, ...] = ()


def _figure(name: str) -> Callable[[dict[str, float]], float]:
    return lambda figures: figures[name]


def _best_at_least_once(senders: int) -> Callable[[dict[str, float]], float]:
    """turnfold / the best peer of the run that does not lose a claimed message."""

    def value(figures: dict[str, float]) -> float:
        able = {name: figures[name] for name in _PROMISES if _able(name, figures)}
        return figures[f"{US}, {senders} / {max(able, key=able.__getitem__)}"]

    return value


def _able(name: str, figures: dict[str, float]) -> bool:
    return name in figures and _PROMISES[name] == peers.AT_LEAST_ONCE


def _spread(figures: dict[str, float]) -> float:
    """How far the last is above the first, in per cent: a claim must not grow."""
    values = list(figures.values())
    return 100 * (values[-1] / values[0] - 1)


TARGETS: tuple[Target, ...] = (
    Target(
        "k instructions per message, 100 senders",
        "instructions",
        _figure(f"{US}, 100"),
        740,
        620,
        "less",
        ("valgrind",),
    ),
    Target(
        "k instructions per message, 1 sender",
        "instructions",
        _figure(f"{US}, 1"),
        890,
        780,
        "less",
        ("valgrind",),
    ),
    Target(
        "processor time / the floor's, 100 senders",
        "FULL",
        _figure(f"{US}, 100, cpu / {_EVENTS}"),
        1.8,
        1.4,
        "less",
    ),
    Target(
        "FULL, 1 sender / best at-least-once peer",
        "FULL",
        _best_at_least_once(1),
        0.85,
        1.1,
        "more",
        ("peers",),
    ),
    Target(
        "FULL, 1 sender / huey (at most once; information)",
        "FULL",
        _figure(f"{US}, 1 / huey"),
        0.5,
        0.6,
        "more",
        ("huey",),
    ),
    Target(
        "FULL, 10 senders / best at-least-once peer",
        "FULL",
        _best_at_least_once(10),
        4,
        5,
        "more",
        ("peers",),
    ),
    Target(
        "FULL, 100 senders / best at-least-once peer",
        "FULL",
        _best_at_least_once(100),
        6.5,
        8,
        "more",
        ("peers",),
    ),
    Target(
        "FULL, 100 senders / Redis Streams always",
        "FULL",
        _figure(f"{US}, 100 / {_REDIS}"),
        1.0,
        1.4,
        "more",
        (_REDIS,),
    ),
    Target(
        "NORMAL, 1 sender / litequeue",
        "NORMAL",
        _figure(f"{US}, 1 / litequeue"),
        0.5,
        0.65,
        "more",
        ("litequeue",),
    ),
    Target(
        "NORMAL, 1 sender / eventsourcing",
        "NORMAL",
        _figure(f"{US}, 1 / eventsourcing"),
        1.5,
        1.9,
        "more",
        ("eventsourcing",),
    ),
    Target(
        "p99 at 100 senders, ms",
        "FULL",
        _figure(f"{US}, 100, p99 ms"),
        15,
        11,
        "less",
    ),
    Target(
        "p99 / p50 at 100 senders",
        "FULL",
        _figure(f"{US}, 100, p99 / p50"),
        1.5,
        1.3,
        "less",
    ),
    Target(
        "p99 at 2,000/s, open loop, ms",
        "open loop",
        _figure("2000/s, p99 ms"),
        3,
        2.5,
        "less",
    ),
    Target(
        "WAL pages per message at 100 k of history",
        "WAL pages",
        _figure("history 100000"),
        0.7,
        0.5,
        "less",
    ),
    Target(
        "commits per lone message", "commits", _figure("lone message"), 2, 2, "less"
    ),
    Target(
        "commits per message in a busy lane",
        "commits",
        _figure("busy lane"),
        1.1,
        1,
        "less",
    ),
    Target(
        "reopen to first dispatch, ms",
        "reopen",
        _figure("with history, ms"),
        100,
        20,
        "less",
    ),
    Target(
        "reopen / the same without history",
        "reopen",
        _figure("with / empty history"),
        1.5,
        1.5,
        "less",
    ),
    Target("claim over history, spread %", "history", _spread, 25, 10, "less"),
    Target("claim over backlog, spread %", "backlog", _spread, 25, 10, "less"),
    Target(
        "audit, typed, with hashes, events/s",
        "audit",
        _figure("log, events/s"),
        150_000,
        250_000,
        "more",
    ),
    Target(
        "kB on disk per delivered message",
        "audit",
        _figure("kB per message"),
        2.2,
        1.2,
        "less",
    ),
    Target(
        "kB of memory per open entry",
        "memory",
        _figure("kB per open entry"),
        4,
        2,
        "less",
    ),
    Target(
        "longest stall of the loop, commits of 200 ms in a thread, ms",
        "slow disk",
        _figure("200 ms, longest stall ms"),
        20,
        10,
        "less",
    ),
)


def judge(found: Found, missing: dict[str, str]) -> list[dict[str, Any]]:
    """One row per target: name, value, must, stretch, met, and a reason where there is
    no value. `met` is against `must`."""
    return [_judged(target, found, missing) for target in TARGETS]


def _judged(target: Target, found: Found, missing: dict[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": target.name,
        "value": None,
        "must": target.must,
        "stretch": target.stretch,
        "met": None,
    }
    try:
        value = round(target.value(found[target.row]), 3)
    except (KeyError, ValueError):
        return {**row, "reason": _reason(target, found, missing)}
    better = value >= target.must if target.sense == "more" else value <= target.must
    return {**row, "value": value, "met": better}


def _reason(target: Target, found: Found, missing: dict[str, str]) -> str:
    for name in (target.row, *target.needs):
        if name in missing:
            return f"{name}: {missing[name]}"
    if target.row not in found:
        return f"this run left out {target.row!r} (--only)"
    if target.needs:
        return f"not measured: {', '.join(target.needs)}"
    return "this run is too small for it (--quick)"
