"""What is pruned leaves no bytes in the files of the store, and its room is used again."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from turnfold.ports.store import Found, Listing, Prune, Store, Wanted
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.checks.store_kit import head_of, record, summary, write

from .test_sqlite_erasing import _secret, _traces


def _name(number: int) -> str:
    return f"entry:{number}"


async def _filled(path: Path, count: int, size: Callable[[int], int]) -> SqliteStore:
    store = SqliteStore(path)
    await store.open()
    for first in range(1, count, 200):
        numbers = range(first, min(first + 200, count))
        await write(
            store,
            records=[record(n, _name(n), 1) for n in numbers],
            summaries=[
                summary(_name(n), 1, n, open=False, lane=f"t/a/{n % 9}/")
                for n in numbers
            ],
            bodies=[_secret(f"body {n}", size(n), _name(n)) for n in numbers],
        )
    return store


async def _prune(store: Store, numbers: list[int]) -> None:
    for start in range(0, len(numbers), 300):
        position = (await head_of(store)).position + 1
        names = [_name(n) for n in numbers[start : start + 300]]
        said = record(position, f"prune:{position}", 1)
        await write(store, records=[said], prune=Prune(by=position, streams=names))


async def _reclaim(store: SqliteStore) -> None:
    while not await store.reclaim():
        pass


@pytest.mark.case("N03")
async def test_no_file_holds_bytes_of_what_was_pruned(tmp_path: Path) -> None:
    """Nor of what is left and erased later, although its neighbours are gone."""
    count, dice = 3_000, random.Random(1)
    sizes = [
        dice.choice((40, 300, 1_500, 9_000, 70_000 if n % 200 == 0 else 90))
        for n in range(count)
    ]
    store = await _filled(tmp_path / "s.db", count, sizes.__getitem__)
    kept = set(dice.sample(range(1, count), 400))
    gone = [n for n in range(1, count) if n not in kept]
    await _prune(store, gone)
    await _reclaim(store)
    await store.checkpoint()
    assert not _traces(
        tmp_path, [_secret(f"body {n}", sizes[n], _name(n)) for n in gone]
    )
    position = (await head_of(store)).position + 1
    await write(
        store,
        records=[record(position, "prune:x", 1)],
        erase=[(_name(n), 0) for n in kept],
    )
    await store.checkpoint()
    assert not _traces(
        tmp_path, [_secret(f"body {n}", sizes[n], _name(n)) for n in kept]
    )
    await store.close()


async def test_its_room_is_used_again(tmp_path: Path) -> None:
    """Of a store of four blocks all but a few streams go."""
    store = await _filled(tmp_path / "s.db", 16_000, lambda _: 300)
    full = (await store.size())["file"]
    gone = [n for n in range(1, 15_000) if n % 500]
    await _prune(store, gone)
    await _reclaim(store)
    await store.checkpoint()
    size = await store.size()
    assert size["free"] > full / 3, size
    assert len(await store.bodies(None, 5_000)) > 1_000
    left = [n for n in range(1, 15_000) if n % 500 == 0]
    for n in left:
        found: Found = await store.fetch(Wanted(bodies=frozenset(((_name(n), 0),))))
        assert found.bodies[_name(n), 0] == _secret(f"body {n}", 300, _name(n))
    await store.close()


async def test_the_digest_counts_what_is_left(tmp_path: Path) -> None:
    store = await _filled(tmp_path / "s.db", 14_000, lambda _: 30)
    await _prune(store, [n for n in range(1, 9_000) if n % 10])
    rows = await store.list(Listing(prefix="entry:", lanes=("t/a/",), limit=20_000))
    assert len(rows) == 13_999 - len([n for n in range(1, 9_000) if n % 10])
    counts = await store.count(Listing(prefix="entry:"), ("family",))
    assert sum(count.count for count in counts) == len(rows)
    await store.close()
