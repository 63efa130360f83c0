"""`turnfold tail`: prints new records of a store as they come."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer
from attrs import define, field

from turnfold.inspect import EventView, Filter, Inspect, Row, export
from turnfold.ports.store import Record, Store
from turnfold_cli.common import (
    STORE,
    AsJson,
    StoreHere,
    StorePath,
    answering,
    opened,
    place_text,
)
from turnfold_cli.filters import Name, split
from turnfold_cli.output import clean, clock, cut, day, zone_line
from turnfold_cli.screen import Line, Screen, console
from turnfold_cli.times import Utc

_POLL_S = 0.2
_FAILURES = frozenset(
    {
        "outbox.parked",
        "outbox.failed_terminal",
        "outbox.failed_retryable",
        "outbox.unknown",
        "outbox.doubted",
        "outbox.bounced",
        "outbox.part_refused",
        "turn.failed",
        "turn.run_failed",
        "turn.dead",
        "turn.held",
        "gate.closed",
    }
)
From = Annotated[
    int | None,
    typer.Option("--from", min=1, help="Begin at this position, not at the end."),
]
Count = Annotated[
    int | None, typer.Option("--count", "-n", min=1, help="Stop after so many lines.")
]
Failures = Annotated[
    bool, typer.Option("--failures", help="Only what failed, waits or is held.")
]
Of = Annotated[
    list[str] | None, typer.Option("--of", help="Only these ids, as e12,t15.")
]


@define
class Follower:
    """Prints the wanted events in the wanted form."""

    store: Store
    failures: bool
    of: frozenset[str]
    channel: str | None
    as_json: bool
    screen: Screen
    rows: dict[str, Row | None] = field(factory=dict)
    day: str = ""

    async def tell(self, records: Sequence[Record], left: int | None) -> int | None:
        """Print records. Returns how many lines are left to print."""
        if not (self.failures or self.of or self.channel) and self.as_json:
            return self._print_lines(records, left)
        inspect = Inspect(self.store)
        await self._look_up(inspect, {record.stream for record in records})
        for record in records:
            events = [e for e in await inspect.tell((record,)) if self._fits(e)]
            if self.as_json and events:
                left = self._print_lines((record,), left)
            for event in () if self.as_json else events:
                if left == 0:
                    return left
                self._show(event)
                left = None if left is None else left - 1
            if left == 0:
                return left
        return left

    def _print_lines(self, records: Sequence[Record], left: int | None) -> int | None:
        for record in records[:left]:
            typer.echo(export.dump(record))
        return None if left is None else max(0, left - len(records))

    async def _look_up(self, inspect: Inspect, streams: set[str]) -> None:
        """Look up the places of new turns and entries."""
        new = [name for name in streams if name not in self.rows]
        found = {row.id: row for row in await inspect.rows(new)}
        self.rows.update((name, found.get(name)) for name in new)

    def _fits(self, event: EventView) -> bool:
        row = self.rows.get(event.stream)
        if self.failures and event.kind not in _FAILURES:
            return False
        if self.of and event.stream not in self.of:
            return False
        return self.channel is None or (row is not None and row.channel == self.channel)

    def _show(self, event: EventView) -> None:
        if day(event.at) != self.day:
            self.day = day(event.at)
            self.screen.print(f"{self.day}  {zone_line()}", style="dim")
        row = self.rows.get(event.stream)
        name = clean(event.stream if row is None else row.short)
        place = ""
        if row is not None:
            place = place_text(row.channel, row.account, row.conversation)
        room = self.screen.width - 8 - 2 - 9
        shown = cut(place, max(8, room // 4))
        words = cut(clean(event.text), room - len(shown) - 2)
        line = Line().and_(f"{clock(event.at)}  ", "dim").and_(f"{name:<7}  ", "cyan")
        line = line.and_(f"{shown}  " if shown else "").and_(words)
        self.screen.print(line, soft_wrap=True)


def tail(
    at: StoreHere = None,
    store: StorePath = STORE,
    failures: Failures = False,
    of: Of = None,
    channel: Name = None,
    first: From = None,
    count: Count = None,
    utc: Utc = False,  # noqa: ARG001  its callback has chosen the zone
    as_json: AsJson = False,
) -> None:
    """Print new events in plain words, one a line; with --json new records, one a line,
    as `turnfold log` prints them.

    The store is opened for reading only, so nobody who writes to it waits. Ends with
    Ctrl-C.
    """
    with answering(as_json=as_json):
        names = split("--of", of)
        asyncio.run(
            _follow(at or store, names, failures, channel, first, count, as_json)
        )


async def _follow(
    address: str,
    names: Sequence[str],
    failures: bool,
    channel: str | None,
    first: int | None,
    left: int | None,
    as_json: bool,
) -> None:
    async with opened(address) as store:
        inspect = Inspect(store)
        if channel is not None and await store.places():  # one may still come up
            await inspect.list(Filter(channel=channel, limit=1))
        of = frozenset([await inspect.resolve(name) for name in names])
        teller = Follower(store, failures, of, channel, as_json, console())
        if first is None:
            last = await store.last()
            first = 1 if last is None else last.position + 1
        position = first - 1
        while left != 0:
            records = await store.log(position)
            left = await teller.tell([r for r in records if not r.pruned], left)
            if records:
                position = records[-1].position
            else:
                await asyncio.sleep(_POLL_S)
