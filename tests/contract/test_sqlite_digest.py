"""The digest of a SQLite store: lists and counts are the same as without one, whatever
was written and changed, on both sides of every block."""

import random
from collections.abc import Sequence
from pathlib import Path

import apsw
import pytest
from msgspec.structs import replace

from turnfold.ports.store import COUNT_BY, Listing, Store, Summary
from turnfold_adapters.stores.memory import MemoryStore
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_adapters.stores.sqlite.digest import BLOCK_BITS, blocks_of
from turnfold_model.checks.store_kit import head_of, record, summary, upkeep, write

STREAMS = 3 << BLOCK_BITS
PHASES = ("delivered", "failed", "parked", "queued", "completed")
LANES = ("t/a/1/", "t/a/1/x", "t/a/2/", "t/b/1/", "m/a/1/", "odd", None)


def fields(chance: random.Random, order: int) -> dict[str, object]:
    phase = chance.choice(PHASES)
    return {
        "phase": phase,
        "open": phase in ("parked", "queued"),
        "person": phase == "parked" or chance.random() < 0.01,
        "lane": chance.choice(LANES),
        "kind": chance.choice(("final", "block", None)),
        "reason": chance.choice(("expired", "permanent", None, None)),
        "failure": chance.choice(("permission", None, None)),
        "created": 1_000_000 * (order // 10),
    }


async def fill(stores: Sequence[Store], chance: random.Random) -> list[Summary]:
    made: list[Summary] = []
    for start in range(1, STREAMS, 1000):
        numbers = range(start, min(start + 1000, STREAMS))
        names = [f"{chance.choice(('turn', 'entry'))}:{n}" for n in numbers]
        records = [record(n, name, 1) for n, name in zip(numbers, names, strict=True)]
        rows = [
            summary(name, 1, n, **fields(chance, n))
            for n, name in zip(numbers, names, strict=True)
        ]
        for store in stores:
            await write(store, records=records, summaries=rows)
        made += rows
    return made


async def change(
    stores: Sequence[Store], rows: list[Summary], chance: random.Random
) -> None:
    for _ in range(5):
        changed = []
        for place in chance.sample(range(len(rows)), 40):
            new = fields(chance, rows[place].order) | {"created": rows[place].created}
            rows[place] = replace(rows[place], **new)
            changed.append(rows[place])
        for store in stores:
            await write(store, summaries=changed)


def listings(chance: random.Random) -> Listing:
    def some(*values: object) -> object:
        return chance.choice((None, None, *values))

    last = 1_000_000 * (STREAMS // 10)
    return Listing(
        prefix=chance.choice(("", "turn:", "entry:", "turn:10")),
        phases=chance.choice(((), (), ("failed",), ("parked", "completed"))),
        open=some(True, False),
        ending=chance.choice(("", "", "7", "4123", "y:40", "turn:4100")),
        lane=some("t/a/1/x"),
        lanes=chance.choice(((), (), ("t/a/",), ("t/a/1/",), ("t/b/", "m/a/"))),
        kinds=chance.choice(((), (), ("final",))),
        reasons=chance.choice(((), (), ("permission",), ("expired", "x"))),
        person=some(True, False),
        since=some(chance.randrange(last)),
        until=some(chance.randrange(last)),
        before=some(chance.randrange(STREAMS)),
        limit=chance.choice((1, 50, 100_000)),
        oldest=chance.random() < 0.2,
    )


async def test_commits_of_many_records_leave_no_block_behind(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db", synchronous="NORMAL")
    await store.open()
    size = 5 << (BLOCK_BITS - 1)
    for first in (1, 1 + size):
        records = [record(n, f"turn:{n}", 1) for n in range(first, first + size)]
        await write(store, records=records)
    await store.close()
    conn = apsw.Connection(str(tmp_path / "s.db"))
    assert blocks_of(conn) == ((2 * size) >> BLOCK_BITS) - 1


@pytest.mark.parametrize("seed", range(3))
async def test_lists_and_counts_are_those_of_a_scan(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    stores = [MemoryStore(), SqliteStore(tmp_path / "s.db", synchronous="NORMAL")]
    for store in stores:
        await store.open()
    rows = await fill(stores, chance)
    for stage in range(3):
        if stage == 1:
            await change(stores, rows, chance)
        if stage == 2:
            for store in stores:
                await upkeep(store).rebuild(rows)
                assert (await head_of(store)).position == STREAMS - 1
        places = [await store.places() for store in stores]
        assert places[0] == places[1] == ["m/a", "odd/", "t/a", "t/b"]
        for _ in range(25):
            want = listings(chance)
            lists = [list(await store.list(want)) for store in stores]
            assert lists[0] == lists[1], want
            by = chance.sample(COUNT_BY, chance.randrange(4))
            counts = [{*await store.count(want, by)} for store in stores]
            assert counts[0] == counts[1], (want, by)
    for store in stores:
        await store.close()
