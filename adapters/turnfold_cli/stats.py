"""`turnfold stats`: deliveries and failures, by channel, reason, day ..."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from turnfold.enums import Kind
from turnfold.inspect import Filter, Tally
from turnfold_cli.common import STORE, AsJson, StoreHere, StorePath, answering, ask
from turnfold_cli.filters import Kinds, Name, Reasons, split
from turnfold_cli.output import plain, say_json, screen_of, zone, zone_line
from turnfold_cli.screen import Screen, console
from turnfold_cli.times import Since, Until, Utc, span

_BAR = 16  # columns
_BLOCKS = " \u258f\u258e\u258d\u258c\u258b\u258a\u2589"
By = Annotated[
    list[str] | None,
    typer.Option(
        "--by", help="channel, account, kind, reason, status, day, hour; as a,b."
    ),
]


def stats(
    at: StoreHere = None,
    store: StorePath = STORE,
    by: By = None,
    channel: Name = None,
    account: Name = None,
    conversation: Name = None,
    reason: Reasons = None,
    kind: Kinds = None,
    since: Since = "7d",
    until: Until = None,
    utc: Utc = False,  # noqa: ARG001  its callback has chosen the zone
    as_json: AsJson = False,
) -> None:
    """Count what came in and went out in a time (7 days), with rates and a chart."""
    with answering(as_json=as_json):
        groups = split("--by", by) or ("channel",)
        low, high = span(since, until)
        want = Filter(
            channel=channel,
            account=account,
            conversation=conversation,
            reason=split("--reason", reason),
            kind=split("--kind", kind, {*Kind}),
            since=low,
            until=high,
        )
        tallies = ask(at or store, lambda i: i.stats(groups, want, zone()))
        if as_json:
            say_json({"by": groups, "rows": [plain(tally) for tally in tallies]})
        else:
            _print(console(), groups, tallies, since)


def _print(
    screen: Screen, groups: Sequence[str], tallies: Sequence[Tally], since: str | None
) -> None:
    if not tallies:
        screen.print(f"nothing that fits since {since}: --since 90d looks further back")
        return
    screen.print(f"since {since}; {zone_line()}", style="dim")
    most = max(max(tally.out, tally.turns) for tally in tallies)
    rows = [tally_cells(groups, tally, most) for tally in tallies]
    if len(rows) > 1:
        rows.append(tally_cells(groups, total_of(groups, tallies), 0))
    screen_of(rows, screen, give=("why", *groups), drop=("aborted", "chart", "turns"))


def tally_cells(groups: Sequence[str], tally: Tally, most: int) -> Mapping[str, str]:
    """A row of counts; `most`: the count of the longest bar."""
    why = ", ".join(f"{name} {count:,}" for name, count in tally.why.items())
    return {
        **{name: tally.group[name] for name in groups},
        "turns": _number(tally.turns),
        "out": _number(tally.out),
        "delivered": f"{_number(tally.delivered)} {_rate(tally)}".strip(),
        "waiting": _number(tally.waiting),
        "parked": _number(tally.parked),
        "dead": _number(tally.dead),
        "aborted": _number(tally.aborted),
        "chart": _bar(max(tally.out, tally.turns), most),
        "why": why,
    }


def _number(count: int) -> str:
    return f"{count:,}" if count else "-"


def _rate(tally: Tally) -> str:
    """The rate among closed entries; never 100 % while one did not arrive."""
    ended = tally.delivered + tally.dead + tally.parked
    if not ended:
        return ""
    share = 100 * tally.delivered / ended
    if tally.delivered < ended:
        share = min(share, 99.9)
    return f"({share:.4g}%)" if share < 1 else f"({int(share * 10) / 10:g}%)"


def _bar(count: int, most: int) -> str:
    """A bar in eighths of a column; any count above 0 is visible."""
    if not most or not count:
        return ""
    eighths = max(1, round(8 * _BAR * count / most))
    return ("\u2588" * (eighths // 8) + _BLOCKS[eighths % 8]).rstrip()


def total_of(groups: Sequence[str], tallies: Sequence[Tally]) -> Tally:
    def add(name: str) -> int:
        return sum(getattr(tally, name) for tally in tallies)

    return Tally(
        group={name: "all" if name == groups[0] else "" for name in groups},
        turns=add("turns"),
        out=add("out"),
        delivered=add("delivered"),
        waiting=add("waiting"),
        parked=add("parked"),
        dead=add("dead"),
        aborted=add("aborted"),
    )
