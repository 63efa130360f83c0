"""The targets, and what a run came to: `met` is against `must`."""

from collections.abc import Callable
from typing import Any

_AT_MOST_ONCE = ("huey",)
_KEEP_HISTORY = ("litequeue", "localqueue", "eventsourcing", "txoutbox")

_Found = dict[str, dict[str, float]]
# name, value, must, stretch; "-": less is better
_TARGETS: tuple[tuple[str, Callable[[_Found], float], float, float, str], ...] = (
    (
        "FULL, 1 sender / best at-least-once peer",
        lambda f: _us(f, 1) / _best(f),
        1,
        1.5,
        "+",
    ),
    (
        "FULL, 1 sender / huey (at most once)",
        lambda f: _us(f, 1) / f["FULL"]["huey"],
        0.8,
        1,
        "+",
    ),
    (
        "FULL, 10 senders / best peer",
        lambda f: _us(f, 10) / _best(f, every=True),
        4,
        8,
        "+",
    ),
    (
        "FULL, 100 senders / best peer",
        lambda f: _us(f, 100) / _best(f, every=True),
        8,
        20,
        "+",
    ),
    (
        "p99 at 100 senders, ms",
        lambda f: f["FULL"]["turnfold, 100, p99 ms"],
        15,
        4,
        "-",
    ),
    (
        "p99 at 2000/s, open loop, ms",
        lambda f: f["open loop"]["2000/s, p99 ms"],
        3,
        2,
        "-",
    ),
    (
        "NORMAL, 1 sender / best peer with history",
        lambda f: _us(f, 1, "NORMAL") / _kept(f),
        1,
        2,
        "+",
    ),
    ("commits per lone message", lambda f: f["syncs"]["lone message"], 2, 2, "-"),
    (
        "commits per message in a busy lane",
        lambda f: f["syncs"]["busy lane"],
        1.1,
        1,
        "-",
    ),
    (
        "reopen to first dispatch, ms",
        lambda f: f["reopen"]["with history, ms"],
        100,
        20,
        "-",
    ),
    ("reopen / the same without history", lambda f: _ratio(f["reopen"]), 1.5, 1.5, "-"),
    ("claim over history, spread %", lambda f: _spread(f["history"]), 25, 10, "-"),
    ("claim over backlog, spread %", lambda f: _spread(f["backlog"]), 25, 10, "-"),
    ("audit, events/s", lambda f: f["audit"]["log, events/s"], 150_000, 500_000, "+"),
    ("kB on disk per message", lambda f: f["audit"]["kB per message"], 2.2, 1.2, "-"),
    (
        "kB of memory per open entry",
        lambda f: f["memory"]["kB per open entry"],
        4,
        2,
        "-",
    ),
)


def judge(found: _Found) -> list[dict[str, Any]]:
    """One per target; `value` is none for what this run did not measure."""
    rows = []
    for name, value_of, must, stretch, sense in _TARGETS:
        try:
            value = round(value_of(found), 3)
        except (KeyError, ValueError):
            rows.append(_row(name, None, must, stretch, met=None))
            continue
        met = value >= must if sense == "+" else value <= must
        rows.append(_row(name, value, must, stretch, met=met))
    return rows


def _row(
    name: str, value: float | None, must: float, stretch: float, *, met: bool | None
) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "must": must,
        "stretch": stretch,
        "met": met,
    }


def _us(found: _Found, senders: int, level: str = "FULL") -> float:
    return found[level][f"turnfold, {senders}"]


def peers_of(figures: dict[str, float]) -> dict[str, float]:
    return {
        name: value
        for name, value in figures.items()
        if not name.startswith(("turnfold", "raw"))
    }


def _best(found: _Found, *, every: bool = False) -> float:
    peers = peers_of(found["FULL"])
    return max(v for k, v in peers.items() if every or k not in _AT_MOST_ONCE)


def _kept(found: _Found) -> float:
    peers = peers_of(found["NORMAL"])
    return max(v for k, v in peers.items() if k in _KEEP_HISTORY)


def _spread(figures: dict[str, float]) -> float:
    """How far the last is above the first, in per cent: it may not grow."""
    values = list(figures.values())
    return 100 * (values[-1] / values[0] - 1)


def _ratio(figures: dict[str, float]) -> float:
    return figures["with history, ms"] / figures["empty history, ms"]
