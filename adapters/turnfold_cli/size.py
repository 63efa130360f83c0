"""`turnfold size`: the bytes of files and tables, and the room that pruning could
free."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

from turnfold.inspect.times import clock_of
from turnfold.ports.store import COUNT_BY, Listing, Store
from turnfold_cli.common import STORE, AsJson, StoreHere, StorePath, answering, opened
from turnfold_cli.keep import keeping
from turnfold_cli.output import clean, say_json, screen_of
from turnfold_cli.screen import Screen, console

_DAY_MS = 86_400_000
_AGES = (("1 day", 1), ("7 days", 7), ("30 days", 30), ("older", 1 << 30))
_FILES = ("file", "bodies")
_WORDS = {"log": "log", "body": "bodies", "late_body": "bodies", "dedupe": "keys"}


def size(
    at: StoreHere = None, store: StorePath = STORE, as_json: AsJson = False
) -> None:
    """Say what takes the room: files and tables in bytes; turns and entries by channel
    and by age, each with its share of the log and the bodies."""
    with answering(as_json=as_json):
        facts = asyncio.run(_facts(at or store))
        if as_json:
            say_json(facts)
        else:
            _print(console(), facts)


async def _facts(address: str) -> Mapping[str, Any]:
    async with opened(address) as store:
        found = await keeping(store).size()
        last = await store.last()
        tables = _tables(found)
        return {
            "store": store.address,
            "position": 0 if last is None else last.position,
            "files": {k: n for k, n in found.items() if k.startswith(_FILES)},
            "tables": tables,
            "free": found.get("free", 0),
            **await _shares(store, tables),
        }


def _tables(found: Mapping[str, int]) -> Mapping[str, int]:
    tables: Counter[str] = Counter()
    for name, amount in found.items():
        if name.startswith("table ") or name in _WORDS:
            plain = name.removeprefix("table ")
            tables[_WORDS.get(plain, plain)] += amount
    return dict(tables.most_common())


async def _shares(store: Store, tables: Mapping[str, int]) -> Mapping[str, Any]:
    """Streams by channel and age. Their bytes are a share by number: an estimate, since
    each stream would have to be read for more."""
    now = (await clock_of(store)).now()
    places: Counter[str] = Counter()
    ages: Counter[str] = Counter()
    gone: Counter[tuple[int | str, ...]] = Counter()
    for count in await keeping(store).pruned():
        facts = dict(zip(COUNT_BY, count.values, strict=True))
        gone[facts["hour"], facts["place"]] += count.count
    everything = Listing(prefix="")
    for count in await store.count(everything, ("hour", "place")):
        hour, place = count.values
        there = count.count - gone[hour, place]
        places[str(place)] += there
        days = (now - int(hour) * 3_600_000) / _DAY_MS
        ages[next(name for name, most in _AGES if days <= most)] += there
    whole, amount = (
        max(1, places.total()),
        tables.get("log", 0) + tables.get("bodies", 0),
    )
    return {
        "streams": places.total(),
        "channels": [_share(n, c, whole, amount) for n, c in places.most_common()],
        "ages": [_share(name, ages[name], whole, amount) for name, _ in _AGES],
    }


def _share(name: str, count: int, whole: int, amount: int) -> Mapping[str, Any]:
    return {"name": name, "streams": count, "bytes": amount * count // whole}


def _print(screen: Screen, facts: Mapping[str, Any]) -> None:
    screen.print(clean(str(facts["store"])), soft_wrap=True)
    rows = [
        {"what": name, "size": _bytes(amount)}
        for name, amount in (*facts["files"].items(), *facts["tables"].items())
        if amount
    ]
    rows.append({"what": "free pages", "size": _bytes(facts["free"])})
    screen_of(rows, screen)
    for name in ("channels", "ages"):
        shares = [
            {
                name[:-1]: clean(str(row["name"])),
                "streams": f"{row['streams']:,}",
                "about": _bytes(row["bytes"]),
            }
            for row in facts[name]
            if row["streams"]
        ]
        if shares:
            screen.print()
            screen_of(shares, screen)
    screen.print()
    screen.print("next: turnfold prune --older 30d --dry-run")


def _bytes(amount: int) -> str:
    value = float(amount)
    for unit in ("B", "kB", "MB"):
        if value < 1_000:
            return f"{value:.3g} {unit}"
        value /= 1_000
    return f"{value:.3g} GB"
