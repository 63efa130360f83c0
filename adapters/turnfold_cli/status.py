"""`turnfold status`: is a person needed? Exit code 1 if so."""

from collections.abc import Iterator
from typing import Any

import typer

from turnfold.inspect import GateView, Overview, Row, Tally, WorkerView
from turnfold_cli import FOUND
from turnfold_cli.common import (
    STORE,
    AsJson,
    StoreHere,
    StorePath,
    answering,
    as_of_text,
    ask,
    place_text,
)
from turnfold_cli.output import (
    age,
    clean,
    cut,
    now_ms,
    plain,
    say_json,
    span,
    steps,
    until,
    when,
    zone_line,
)
from turnfold_cli.screen import Screen, console
from turnfold_cli.times import Utc

_GATES = 3  # gates to name


def status(
    at: StoreHere = None,
    store: StorePath = STORE,
    utc: Utc = False,  # noqa: ARG001  its callback has chosen the zone
    as_json: AsJson = False,
) -> None:
    """Say if a person is needed, and why. Exit code 1 if so: for cron and monitors."""
    with answering(as_json=as_json):
        view = ask(at or store, lambda inspect: inspect.overview())
        if as_json:
            say_json({"well": not view.needed} | plain(view))
        else:
            _print(console(), view)
    if view.needed:
        raise typer.Exit(FOUND)


def _print(screen: Screen, view: Overview) -> None:
    screen.print(verdict(view), style="bold magenta" if view.needed else "green")
    steps(screen, view.needed)
    screen.print()
    for name, value in facts(view):
        screen.print(
            f"{name:<10} {cut(clean(value), screen.width - 11)}", soft_wrap=True
        )
    screen.print(zone_line(), style="dim")


def verdict(view: Overview) -> str:
    return "A person is needed:" if view.needed else "Nobody is needed."


def facts(view: Overview) -> Iterator[tuple[str, str]]:
    """The facts, by name; a fact without a name continues the one before."""
    since = f", since {when(view.since, '%Y-%m-%d')}" if view.since is not None else ""
    yield "store", f"{view.address}, {view.position:,} records{since}"
    if view.as_of is not None:
        yield "as of", as_of_text(view.as_of)
    yield "worker", worker_text(view.worker)
    unanswered = f"{view.runs:,} without an answer yet, {view.turns:,} open"
    yield "turns", unanswered + _some(view.held, "held")
    if view.failed:
        yield "failed", f"{view.failed:,} in 7 days"
        yield "", "turnfold turns --status failed --since 7d"
    yield "waiting", f"{view.waiting:,}{_oldest(view.oldest)}"
    yield "parked", f"{view.parked:,}{_oldest(view.oldest_parked)}"
    unseen = _some(view.unseen, "of all not yet seen")
    yield "dead", f"{view.dead:,} in 7 days{unseen}"
    yield "gates", f"{len(view.gates)} closed" if view.gates else "all open"
    for gate in view.gates[:_GATES]:
        yield "", gate_text(gate)
    if len(view.gates) > _GATES:
        yield "", f"... {len(view.gates) - _GATES} more: turnfold gates"
    if view.inbox:
        yield "inbox", f"{view.inbox:,}, oldest {age(view.inbox_since)}"
    yield "last hour", hour_text(view.hour)


def _some(count: int, what: str) -> str:
    return f", {count:,} {what}" if count else ""


def _oldest(row: Row | None) -> str:
    if row is None:
        return ""
    where = place_text(row.channel, row.account, row.conversation)
    return f", oldest {age(row.created)} ({where}, {row.short})"


def hour_text(tally: Tally) -> str:
    counts: dict[str, Any] = {
        "turns": tally.turns,
        "out": tally.out,
        "delivered": tally.delivered,
        "dead": tally.dead,
    }
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def gate_text(gate: GateView) -> str:
    since = f"closed for {age(gate.since)}"
    ends = "" if gate.until is None else f" until {until(gate.until)}"
    return f"{gate.place} {since}{ends} ({gate.reason}), {gate.waiting:,} wait"


def worker_text(worker: WorkerView) -> str:
    if worker.id is None:
        return "none has ever run here"
    word = {True: "alive", False: "not running", None: "on another host"}[worker.alive]
    word = "stopped" if worker.stopped else word
    who = f"pid {worker.pid} on {worker.host}, epoch {worker.epoch}"
    since = "" if worker.since is None else f" for {age(worker.since)}"
    if not worker.alive:
        since = ""
    heard = "" if worker.heard is None else f"; last record {age(worker.heard)} ago"
    text = f"{word}: {who}{since}{heard}"
    if worker.sending:
        oldest = span(max(0, now_ms() - (worker.sending_since or now_ms())))
        text += f"; {worker.sending} sends on the wire, oldest {oldest}"
    return text
