"""The rules of a turn, of gates, cursors and the store (specs/design.md 5 and 7).

The rules that need other streams (finals, notices, lanes, dedupe keys) are in `log`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from turnfold_model.reference.kinds import Record, need, one_of, texts, whole, words
from turnfold_model.reference.shapes import (
    ABORTS,
    CLASSES,
    FORMS,
    OUTCOMES,
    Ledger,
    Turn,
)


def accepted(data: Record) -> Turn:
    words(data, "body")
    need(data.get("form", "json") in FORMS, "field", "form is none of its words")
    whole({"waited_ms": 0, **data}, "waited_ms")
    place = (words(data, "channel"), words(data, "account"))
    return Turn(
        phase="accepted",
        lane=words(data, "lane"),
        control=bool(data.get("control")),
        place=(*place, words(data, "conversation")),
    )


def dead(data: Record) -> Turn:
    """An update that nobody can read, or one under the key of another message. Only its
    source is known for sure."""
    words(data, "body")
    need(data.get("form", "bytes") in FORMS, "field", "form is none of its words")
    copy, differs = data.get("copy", 0), data.get("differs") is not None
    need((copy > 0) == differs, "INV-9", "a copy differs from another turn")
    place = (words(data, "channel"), words(data, "account"))
    return Turn(
        phase="failed",
        lane=words(data, "lane"),
        control=bool(data.get("control")),
        place=(*place, str(data.get("conversation", ""))),
        outcome="failed",
    )


def joined(turn: Turn, data: Record) -> Turn:
    words(data, "body")
    need(data.get("form", "json") in FORMS, "field", "form is none of its words")
    need(turn.runs == 0, "INV-9", "a message joins before the first run")
    return turn


def started(turn: Turn, data: Record) -> Turn:
    run, fence = whole(data, "run", 1), whole(data, "fence")
    words(data, "owner")
    need(not turn.held, "held", "a held turn is not run")
    need(not turn.abort, "INV-11", "started after an abort was requested")
    need(run == turn.runs + 1, "INV-6", f"run {run} is not the next")
    need(fence >= turn.fence, "INV-5", f"fence {fence} is older than {turn.fence}")
    return replace(turn, phase="running", runs=run, fence=fence, left_open=False)


def _current(turn: Turn, data: Record) -> None:
    run = whole(data, "run", 1)
    need(run == turn.runs, "INV-5", f"of run {run}, current is {turn.runs}")


def step_started(turn: Turn, data: Record) -> Turn:
    _current(turn, data)
    key = words(data, "key")
    need(key not in turn.done, "steps", f"step {key} is done and remembered")
    return replace(turn, steps=turn.steps | {key})


def step_done(turn: Turn, data: Record) -> Turn:
    _current(turn, data)
    key = words(data, "key")
    words(data, "result")
    need(key in turn.steps, "steps", f"step {key} was never started")
    need(key not in turn.done, "steps", f"step {key} is done already")
    return replace(turn, done=turn.done | {key})


def left_open(turn: Turn, data: Record) -> Turn:
    _current(turn, data)
    whole(data, "until")
    need(not turn.left_open, "once", "this run was left open before")
    return replace(turn, left_open=True)


def released(turn: Turn, data: Record) -> Turn:
    _current(turn, data)
    died = words(data, "reason") == "owner_died"
    beside = data.get("beside")
    need(died or beside is None, "field", "only a death has something beside it")
    need(beside is None or whole(data, "beside") >= 0, "field", "beside is negative")
    return replace(turn, phase="accepted")


def run_failed(turn: Turn, data: Record) -> Turn:
    _current(turn, data)
    one_of(data, "failure", CLASSES)
    whole(data, "due")
    return replace(turn, phase="accepted")


def answered(turn: Turn, data: Record) -> Turn:
    _current(turn, data)
    finals = texts(data, "finals")
    silent = data.get("silent") is not None
    need(bool(finals) != silent, "INV-10", "either finals or a reason for silence")
    need(len(set(finals)) == len(finals), "INV-10", "a final is named twice")
    return replace(turn, phase="answered", finals=finals, silent=silent)


def completed(turn: Turn, data: Record) -> Turn:
    outcome = one_of(data, "outcome", OUTCOMES)
    return replace(turn, phase="completed", outcome=outcome)


def failed(turn: Turn, data: Record) -> Turn:
    words(data, "reason")
    outcome = one_of(data, "outcome", OUTCOMES)
    wrong = outcome in ("replied", "silent")
    need(not wrong, "INV-10", f"a failed turn is not {outcome}")
    again = turn.resubmitted and data["reason"] != "unread"
    return replace(turn, phase="failed", outcome=outcome, resubmitted=again)


def abort_requested(turn: Turn, data: Record) -> Turn:
    one_of(data, "reason", ABORTS)
    return replace(turn, abort=True)


def aborted(turn: Turn, data: Record) -> Turn:
    outcome = one_of(data, "outcome", OUTCOMES)
    stopped = outcome in ("aborted", "superseded")
    need(stopped, "INV-10", f"an aborted turn is not {outcome}")
    return replace(turn, phase="aborted", outcome=outcome)


def amended(turn: Turn, data: Record) -> Turn:
    entry = words(data, "entry")
    need(entry in turn.finals, "INV-10", f"{entry} is no final of this turn")
    if data.get("outcome") is None:  # it was redriven
        return replace(turn, phase="answered", outcome=None)
    outcome = one_of(data, "outcome", OUTCOMES)
    answered = outcome in ("replied", "partially_replied", "silent")
    phase = "completed" if answered else "failed"
    return replace(turn, phase=phase, outcome=outcome)


def held(turn: Turn, data: Record) -> Turn:
    words(data, "reason")
    return replace(turn, phase="accepted", held=True, left_open=False)


def unheld(turn: Turn, data: Record) -> Turn:
    words(data, "by")
    need(turn.held, "held", "nothing holds this turn")
    return replace(turn, held=False)


def resubmitted(turn: Turn, data: Record) -> Turn:
    words(data, "by")
    need(not turn.resubmitted, "once", "a turn is resubmitted once")
    need(not turn.finals, "INV-9", "the outbox owns its answer: redrive that")
    need(not turn.redacted, "INV-7", "the bodies are erased")
    return replace(turn, phase="accepted", resubmitted=True, silent=False, outcome=None)


def redacted(turn: Turn, data: Record) -> Turn:
    words(data, "by")
    return replace(turn, redacted=True)


def gate_closed(gate: Ledger | None, data: Record) -> Ledger:
    words(data, "reason")
    until = None if data.get("until") is None else whole(data, "until")
    _by_a_person(gate, data)
    person = data["reason"] == "operator" and until is None
    return Ledger(phase="closed", until=until, person=person)


def gate_opened(gate: Ledger | None, data: Record) -> Ledger:
    words(data, "reason")
    closed = gate is not None and gate.phase == "closed"
    need(closed, "table", "gate.opened cannot follow an open gate")
    _by_a_person(gate, data)
    return Ledger(phase="open")


def _by_a_person(gate: Ledger | None, data: Record) -> None:
    held = gate is not None and gate.person
    need(not held or bool(data.get("by")), "gates", "only a person moves this gate")


def cursor_advanced(cursor: Ledger | None, data: Record) -> Ledger:
    words(data, "cursor")
    rank = None if data.get("rank") is None else whole(data, "rank")
    before = None if cursor is None else cursor.until
    forward = rank is None or before is None or rank >= before
    need(forward, "table", "a cursor went back in the order of its source")
    return Ledger(phase="advanced", until=rank)


def store_created(store: Ledger | None, data: Record) -> Ledger:
    words(data, "store")
    before = store or Ledger(phase="new")
    need(before.phase == "new", "table", "a store is created once")
    return replace(before, phase="created")


def worker_started(store: Ledger | None, data: Record) -> Ledger:
    epoch, owner = whole(data, "epoch", 1), words(data, "owner")
    before = store or Ledger(phase="new")
    need(epoch > before.epoch, "INV-5", f"epoch {epoch} after {before.epoch}")
    return replace(before, epoch=epoch, owner=owner)


def store_restored(store: Ledger | None, data: Record) -> Ledger:
    seen = whole(data, "position_seen", 0)
    found = whole(data, "position_found", 0)
    if "by" in data:  # a person says so: nothing was seen
        words(data, "by")
        need(seen == found, "field", f"a person's word names {seen} and {found}")
    else:
        words(data, "hash")
    return store or Ledger(phase="new")


def store_pruned(store: Ledger | None, data: Record) -> Ledger:
    for name in ("streams", "events", "records"):
        whole(data, name)
    need(isinstance(data.get("before"), int), "field", "before is no time")
    words(data, "digest")
    for row in data.get("counts", ()):
        whole(row, "count", 1)
        for name in ("family", "place", "phase"):
            words(row, name)
    return store or Ledger(phase="new")


def store_late_receipt(store: Ledger | None, data: Record) -> Ledger:
    words(data, "entry")
    whole(data, "part")
    whole(data, "attempt")
    texts(data, "receipt")
    return store or Ledger(phase="new")


def store_wall_jumped(store: Ledger | None, data: Record) -> Ledger:
    need(type(data.get("by_ms")) is int, "field", "by_ms is no integer")
    return store or Ledger(phase="new")


FIRST: Final[Mapping[str, Callable[[Record], Turn]]] = MappingProxyType(
    {"turn.accepted": accepted, "turn.dead": dead}
)
_RULES: tuple[Callable[..., Any], ...] = (
    joined,
    started,
    step_started,
    step_done,
    left_open,
    released,
    run_failed,
    answered,
    completed,
    failed,
    abort_requested,
    aborted,
    amended,
    held,
    unheld,
    resubmitted,
    redacted,
)
RULES: Final[Mapping[str, Callable[[Turn, Record], Turn]]] = MappingProxyType(
    {f"turn.{rule.__name__}": rule for rule in _RULES}
)
LEDGERS: Final[Mapping[str, Callable[[Ledger | None, Record], Ledger]]] = (
    MappingProxyType(
        {
            "gate.closed": gate_closed,
            "gate.opened": gate_opened,
            "cursor.advanced": cursor_advanced,
            "store.created": store_created,
            "store.worker_started": worker_started,
            "store.restored": store_restored,
            "store.pruned": store_pruned,
            "store.late_receipt": store_late_receipt,
            "store.wall_jumped": store_wall_jumped,
        }
    )
)
