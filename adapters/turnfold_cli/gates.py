"""`turnfold gates`, `worker` and `channels`: closed gates, the worker, and the
accounts."""

from collections.abc import Mapping

import typer

from turnfold.inspect import ChannelView, Filter, GateView
from turnfold_cli import FOUND
from turnfold_cli.common import STORE, AsJson, StoreHere, StorePath, answering, ask
from turnfold_cli.output import (
    age,
    clean,
    plain,
    say_json,
    screen_of,
    steps,
    until,
    when,
    zone_line,
)
from turnfold_cli.screen import console
from turnfold_cli.status import worker_text
from turnfold_cli.times import Since, Utc, moment


def gates(
    at: StoreHere = None,
    store: StorePath = STORE,
    utc: Utc = False,  # noqa: ARG001  its callback has chosen the zone
    as_json: AsJson = False,
) -> None:
    """List what is held back, why, since when, and what waits behind it. Exit code 1 if
    one stays closed until a person opens it."""
    with answering(as_json=as_json):
        found = ask(at or store, lambda inspect: inspect.gates())
        if as_json:
            say_json({"gates": [plain(gate) for gate in found]})
        else:
            _print(found)
    if any(gate.person for gate in found):
        raise typer.Exit(FOUND)


def _print(found: tuple[GateView, ...]) -> None:
    screen = console()
    if not found:
        screen.print("all gates are open")
        return
    screen.print(zone_line(), style="dim")
    cells = [gate_cells(gate) for gate in found]
    screen_of(cells, screen, give=("why", "place"), drop=("oldest", "closed for"))
    screen.print()
    commands = [(f"open {gate.place}", gate.next) for gate in found]
    steps(screen, commands)


def gate_cells(gate: GateView) -> Mapping[str, str]:
    """A closed gate as cells of a table."""
    return {
        "place": gate.place,
        "why": gate.reason or "",
        "closed for": age(gate.since),
        "until": "a person opens it" if gate.person else until(gate.until),
        "waiting": f"{gate.waiting:,}",
        "oldest": "" if gate.oldest is None else age(gate.oldest.created),
    }


def worker(
    at: StoreHere = None,
    store: StorePath = STORE,
    utc: Utc = False,  # noqa: ARG001  its callback has chosen the zone
    as_json: AsJson = False,
) -> None:
    """Say who works on the store, and since when. Exit code 1 if nobody does."""
    with answering(as_json=as_json):
        found = ask(at or store, lambda inspect: inspect.worker())
        if as_json:
            say_json(found)
        else:
            screen = console()
            screen.print(clean(worker_text(found)))
            if found.since is not None:
                began = f"began {when(found.since)}; {zone_line()}"
                screen.print(began, style="dim")
            if found.alive is False or found.id is None:
                screen.print("next: start the gateway, and then turnfold health")
            elif found.stopped:
                screen.print(f"next: kill -CONT {found.pid}")
    if not found.alive:
        raise typer.Exit(FOUND)


def channels(
    at: StoreHere = None,
    store: StorePath = STORE,
    since: Since = "7d",
    utc: Utc = False,  # noqa: ARG001  its callback has chosen the zone
    as_json: AsJson = False,
) -> None:
    """List the accounts that had messages: counts, help of the platform, gates."""
    with answering(as_json=as_json):
        want = Filter(since=moment(since))
        found = ask(at or store, lambda inspect: inspect.channels(want))
        if as_json:
            say_json({"channels": [plain(channel) for channel in found]})
            return
        screen = console()
        if not found:
            screen.print("no message has come or gone")
            return
        screen.print(f"since {since}; {zone_line()}", style="dim")
        rows = [channel_cells(channel) for channel in found]
        drop = ("turns", "last")
        screen_of(rows, screen, give=("gate", "channel"), drop=drop)


def channel_cells(channel: ChannelView) -> Mapping[str, str]:
    """An account with its counts as cells of a table."""
    tally, gate = channel.tally, channel.gate
    classes = "" if channel.classes is None else ", ".join(channel.classes) or "blind"
    classes += ", no ids" if channel.ids is False else ""
    return {
        "channel": f"{channel.channel}/{channel.account}",
        "class": classes,
        "turns": f"{tally.turns:,}",
        "out": f"{tally.out:,}",
        "delivered": f"{tally.delivered:,}",
        "waiting": f"{tally.waiting:,}",
        "parked": f"{tally.parked:,}",
        "dead": f"{tally.dead:,}",
        "last": "" if channel.last is None else f"{age(channel.last)} ago",
        "gate": "open" if gate is None else f"closed ({gate.reason})",
    }
