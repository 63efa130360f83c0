"""The read-only pages. Each has the query and the words of a command."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

from turnfold.api.acts import Act
from turnfold.inspect import (
    EntryView,
    EventView,
    Filter,
    Found,
    GateView,
    Inspect,
    Next,
    Overview,
    Row,
    Tally,
    TurnView,
    View,
)
from turnfold_cli.acting import FITS
from turnfold_cli.common import ask
from turnfold_cli.dashboard.asking import (
    ENTRIES,
    TIMES,
    TURNS,
    VERDICTS,
    Query,
    address_of,
)
from turnfold_cli.dashboard.looks import Cell, Page, link, table
from turnfold_cli.dashboard.site import Site
from turnfold_cli.filters import split
from turnfold_cli.find import window
from turnfold_cli.gates import channel_cells, gate_cells
from turnfold_cli.inbox import command_cells
from turnfold_cli.list_ import entry_cells, turn_cells
from turnfold_cli.output import clean, clock, day, now_ms, plain, when, zone
from turnfold_cli.show import (
    days_of,
    due_text,
    events_of,
    facts_of,
    verdict_of,
    what_of,
)
from turnfold_cli.stats import tally_cells, total_of
from turnfold_cli.status import facts, verdict, worker_text
from turnfold_cli.times import moment

_HOUR_MS, _HOURS = 3_600_000, 24
_ROWS, _MOST = 50, 500
_BY = ("channel", "account", "kind", "reason", "status", "day", "hour")


def _unseen(_: str) -> int | None:
    return None


Step = Mapping[str, str | None]


def steps_of(
    commands: Sequence[tuple[str, str]], seen: Callable[[str], int | None] = _unseen
) -> list[Step]:
    """The options of a person: the command to type, and the page with the same
    effect."""
    return [
        {"text": text, "command": command, "href": address_of(command, seen)}
        for text, command in commands
    ]


# --- overview -------------------------------------------------------------------------


def status(site: Site, query: Query) -> Page:
    query.check()

    async def asked(
        i: Inspect,
    ) -> tuple[Overview, tuple[Tally, ...], tuple[Tally, ...]]:
        now = now_ms()
        hours = Filter(since=now - _HOURS * _HOUR_MS)
        week = Filter(since=now - 7 * _HOURS * _HOUR_MS)
        by_hour = await i.stats(("hour",), hours, zone())
        return await i.overview(), by_hour, await i.stats(("channel",), week, zone())

    view, hours, week = ask(site.address, asked)
    told = {
        "verdict": verdict(view),
        "needed": steps_of(view.needed),
        "facts_": list(facts(view)),
        "gates": table(_gate(gate, site) for gate in view.gates[:10]),
        "hours": _bars(hours),
        "week": _tallies(("channel",), week, "/list"),
        "well": not view.needed,
    }
    data = {"well": not view.needed} | plain(view)
    return Page(template="status", title="Overview", data=data, facts=told)


def _bars(tallies: Sequence[Tally]) -> list[Mapping[str, Any]]:
    """The last hours, including those without a message, as heights in per cent."""
    known = {tally.group["hour"]: tally for tally in tallies}
    now = now_ms() // _HOUR_MS
    names = [
        when(h * _HOUR_MS, "%Y-%m-%d %H:00") for h in range(now - _HOURS + 1, now + 1)
    ]
    found = [known.get(name, Tally(group={})) for name in names]
    most = max(1, *(tally.out for tally in found))
    bars: list[Mapping[str, Any]] = []
    for name, tally in zip(names, found, strict=True):
        bad = tally.dead + tally.parked
        good = round(58 * tally.delivered / most, 2)
        lost = round(58 * bad / most, 2)
        other = round(58 * (tally.out - tally.delivered - bad) / most, 2)
        text = f"{name}: {tally.out:,} out, {tally.delivered:,} delivered, {bad:,} not"
        bars.append(
            {"text": text, "hour": name[-5:], "good": good, "bad": lost, "other": other}
        )
    return bars


def _tallies(by: Sequence[str], tallies: Sequence[Tally], path: str | None) -> Any:
    most = max(chain([1], (max(t.out, t.turns) for t in tallies)))
    rows: list[dict[str, str | Cell]] = []
    for tally in tallies:
        cells: dict[str, str | Cell] = dict(tally_cells(by, tally, most))
        cells["chart"] = Cell("", bar=100 * max(tally.out, tally.turns) / most)
        if path and "channel" in by:
            name = tally.group["channel"]
            cells["channel"] = Cell(name, link(path, {"channel": name}))
        rows.append(cells)
    if len(tallies) > 1:
        rows.append(dict(tally_cells(by, total_of(by, tallies), 0)))
    return table(rows)


# --- lists ----------------------------------------------------------------------------


def list_(site: Site, query: Query) -> Page:
    return _listed(site, query.check(*ENTRIES, *TIMES, "open"), turns=False)


def turns(site: Site, query: Query) -> Page:
    return _listed(site, query.check(*TURNS, *TIMES, "open"), turns=True)


def _listed(site: Site, query: Query, *, turns: bool) -> Page:
    want = query.wanted(turns=turns)
    limit = query.number("limit", _ROWS, _MOST) or _ROWS
    before = query.number("before", None, 10**15)
    question = want.filter(site.address, limit=limit, before=before)
    page = ask(site.address, lambda i: i.page(question))
    cells = turn_cells if turns else entry_cells
    name = "turns" if turns else "list"
    given = query.filters()
    older = given | {"before": str(page.before), "limit": str(limit)}
    told = {
        "given": {name: given.get(name) for name in _FILTERS},
        "filtered": ", ".join(
            name if value == "1" else f"{name} {value}" for name, value in given.items()
        ),
        "choices": _TURN_WORDS if turns else _ENTRY_WORDS,
        "found": table(
            (_linked(cells(row), row) for row in page.rows), leave=("updated",)
        ),
        "older": link(f"/{name}", older) if page.before is not None else None,
        "newest": link(f"/{name}", given) if before else None,
        "on_all": _acts_on_all(page.rows, given, turns=turns) if want.any else [],
    }
    rows = [plain(row) for row in page.rows]
    data = {"rows": rows, "more": page.before is not None, "before": page.before}
    title = "What came in" if turns else "What goes out"
    return Page(template="list", title=title, data=data, facts=told)


_FILTERS = dict.fromkeys((*ENTRIES, *TURNS, *TIMES, "open"))
_ENTRY_WORDS = (
    "parked",
    "failed_terminal",
    "queued",
    "attempted",
    "failed_retryable",
    "delivered",
    "aborted",
)
_TURN_WORDS = ("accepted", "running", "answered", "completed", "failed", "aborted")


def _linked(cells: Mapping[str, str], row: Row) -> dict[str, str | Cell]:
    """The id comes first, so that it is there on a narrow screen."""
    first = {"id": Cell(row.short, link("/show", {"id": row.id}))}
    return {**first, **{n: text for n, text in cells.items() if n != "id"}}


def _acts_on_all(
    rows: Sequence[Row], given: Mapping[str, str], *, turns: bool
) -> list[tuple[str, str]]:
    """The acts that fit some of these rows, for all that the filters find, each with
    the address of its preview."""
    more = {"turns": "1"} if turns else {}
    found: list[tuple[str, str]] = []
    for act, fits in FITS.items():
        if not _takes(act, turns=turns) or not any(map(fits, rows)):
            continue
        for verdict_ in VERDICTS if act is Act.RESOLVE else ("",):
            words = {"do": act, "verdict": verdict_, **given, **more}
            found.append((f"{act} {verdict_}".strip(), link("/act", words)))
    return found


def _takes(act: Act, *, turns: bool) -> bool:
    """Does the act apply to turns, or to entries?"""
    if turns:
        return act not in (Act.ACK, Act.RESOLVE)
    return act not in (Act.UNHOLD, Act.RESUBMIT)


# --- one message ----------------------------------------------------------------------


def show(site: Site, query: Query) -> Page:
    wanted = query.check("id").one("id") or ""

    async def asked(i: Inspect) -> tuple[View, tuple[Row, ...]]:
        view = await i.show(wanted)
        streams = [view.id] if isinstance(view, TurnView | EntryView) else []
        return view, await i.rows(streams)

    view, rows = ask(site.address, asked)
    seen = _versions(view)
    happened = getattr(view, "happened", None)
    told = {
        "verdict": verdict_of(view),
        "following": _next(view.next, seen),
        "others": _others(rows, view.next),
        "whose": _whose(view),
        "facts_": list(facts_of(view)),
        "entries": [
            {
                "id": e.short,
                "href": link("/show", {"id": e.id}),
                "kind": e.kind,
                "verdict": e.verdict,
                "next": _next(e.next, seen),
            }
            for e in getattr(view, "entries", ())
        ],
        "turn": link("/show", {"id": view.turn})
        if isinstance(view, EntryView) and view.turn
        else None,
        "days": _days(view) if happened is not None else [],
    }
    title = getattr(view, "short", view.id)
    data = {"what": what_of(view)} | plain(view)
    return Page(template="show", title=title, data=data, facts=told)


def _whose(view: View) -> list[tuple[str, str]]:
    """For each sender of a turn, where all that this person wrote can be erased."""
    senders = [message.sender for message in getattr(view, "inbound", ())]
    return [
        (
            f"erase all of {clean(sender)}",
            link("/act", {"do": "redact", "sender": sender}),
        )
        for sender in dict.fromkeys(senders)
        if sender
    ]


def _days(view: Any) -> list[tuple[str, list[tuple[EventView, str, str]]]]:
    return [
        (today, [(event, clock(event.at), text) for event, text in happened])
        for today, happened in days_of(events_of(view))
    ]


def _versions(view: View) -> Callable[[str], int | None]:
    """The versions that the page shows, by the ids that its commands name."""
    shown = [view, *getattr(view, "entries", ())]
    known = {
        one.short: one.version for one in shown if isinstance(one, TurnView | EntryView)
    }
    return known.get


def _next(following: Next, seen: Callable[[str], int | None]) -> Mapping[str, Any]:
    return {
        "text": following.text,
        "due": due_text(following),
        "person": following.person,
        "steps": steps_of(following.commands, seen),
    }


def _others(rows: Sequence[Row], following: Next) -> list[tuple[str, str]]:
    """Further acts that fit, besides the proposed ones."""
    proposed = {command.split()[1] for _, command in following.commands}
    return [
        (str(act), link("/act", {"do": act, "id": row.short, "seen": row.version}))
        for row in rows
        for act, fits in FITS.items()
        if act not in proposed and act is not Act.RESOLVE and fits(row)
        if _takes(act, turns=row.what == "turn")
    ]


def find(site: Site, query: Query) -> Page:
    query.check("place", "words", "at", "within", *TIMES)
    given = {n: query.one(n) for n in ("place", "words", "at", "within", *TIMES)}
    place = given["place"]
    found: tuple[Found, ...] = ()
    if place is not None:
        limit = query.number("limit", 20, 100) or 20
        times = given["at"], given["within"] or "10min", given["since"], given["until"]
        want = window(*times, limit)

        async def asked(i: Inspect) -> tuple[Found, ...]:
            return await i.find(await i.place(place), want, given["words"] or "")

        found = ask(site.address, asked)
    rows: list[dict[str, str | Cell]] = [
        {
            "id": Cell(f.turn.short, link("/show", {"id": f.turn.id})),
            "time": f"{day(f.at)} {when(f.at, '%H:%M:%S')}",
            "words": f.text or "",
            "what became of it": f.turn.verdict,
        }
        for f in found
    ]
    told = {"given": given, "found": table(rows), "asked": place is not None}
    data = {"found": [plain(one) for one in found]}
    return Page(template="find", title="Find", data=data, facts=told, moves=False)


# --- many -----------------------------------------------------------------------------


def stats(site: Site, query: Query) -> Page:
    query.check("by", "channel", "account", "conversation", "reason", "kind", *TIMES)
    groups = split("by", query.given.getlist("by")) or ("channel",)
    since = query.one("since", "7d")
    want = Filter(
        channel=query.one("channel"),
        account=query.one("account"),
        conversation=query.one("conversation"),
        reason=split("reason", query.given.getlist("reason")),
        kind=split("kind", query.given.getlist("kind")),
        since=moment(since, "since"),
        until=moment(query.one("until"), "until"),
    )
    tallies = ask(site.address, lambda i: i.stats(groups, want, zone()))
    told = {
        "found": _tallies(groups, tallies, "/list"),
        "by": ",".join(groups),
        "groups": _BY,
        "given": {n: query.one(n) for n in ("channel", "account", "reason", *TIMES)},
        "since": since,
    }
    data = {"by": groups, "rows": [plain(tally) for tally in tallies]}
    return Page(template="stats", title="Counts", data=data, facts=told)


def gates(site: Site, query: Query) -> Page:
    query.check()
    found = ask(site.address, lambda i: i.gates())
    told = {
        "found": table(_gate(gate, site) for gate in found),
        "empty": "All gates are open.",
    }
    data = {"gates": [plain(gate) for gate in found]}
    return Page(
        template="table", title="Gates", data=data, facts=told | {"closing": True}
    )


def _gate(gate: GateView, site: Site) -> dict[str, str | Cell]:
    place = Cell(gate.place, link("/show", {"id": gate.id}))
    does = Cell(gate.next, address_of(gate.next, _unseen) if site.acts else None)
    return {**gate_cells(gate), "place": place, "open it": does}


def worker(site: Site, query: Query) -> Page:
    query.check()
    found = ask(site.address, lambda i: i.worker())
    began = "" if found.since is None else f"began {when(found.since)}"
    rows = table([{"worker": worker_text(found), "since": began}])
    told = {"found": rows, "empty": "", "closing": False}
    return Page(template="table", title="Worker", data=plain(found), facts=told)


def channels(site: Site, query: Query) -> Page:
    since = query.check("since").one("since", "7d")
    want = Filter(since=moment(since, "since"))
    found = ask(site.address, lambda i: i.channels(want))
    rows = []
    for one in found:
        where = {"channel": one.channel, "account": one.account}
        cells: dict[str, str | Cell] = dict(channel_cells(one))
        cells["channel"] = Cell(f"{one.channel}/{one.account}", link("/list", where))
        rows.append(cells)
    told = {
        "found": table(rows),
        "empty": "No message has come or gone.",
        "closing": False,
    }
    data = {"channels": [plain(channel) for channel in found]}
    return Page(
        template="table", title=f"Channels, since {since}", data=data, facts=told
    )


def inbox(site: Site, query: Query) -> Page:
    query.check()
    found = ask(site.address, lambda i: i.inbox())
    rows: list[dict[str, str | Cell]] = [
        {**command_cells(c), "for": Cell(c.stream, link("/show", {"id": c.stream}))}
        for c in found[:_MOST]
    ]
    told = {"found": table(rows), "empty": "Nothing waits.", "closing": False}
    data = {"commands": [plain(command) for command in found]}
    return Page(template="table", title="Inbox", data=data, facts=told)
