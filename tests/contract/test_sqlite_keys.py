"""The keys of a message id: by a look into each place or through all keys, always those
that a plain filter finds."""

import random
from pathlib import Path

import pytest

from turnfold.ports.store import Prune, Store
from turnfold_adapters.stores.memory import MemoryStore
from turnfold_adapters.stores.sqlite import SqliteStore, keys
from turnfold_model.checks.store_kit import conflict, record, write

PARTS = ("a", "a0", "a.", "b", "7", "70", "%2F", "ü", "", "-")


async def _filled(store: Store, chance: random.Random) -> Store:
    await store.open()
    names = {"out:a/b/c/7", "out:x"}
    for _ in range(300):
        parts = [chance.choice(PARTS) for _ in range(chance.choice((4, 5, 6)))]
        names.add(f"in:{'/'.join(parts)}")
    rows = [(name, "turn:a") for name in sorted(names)]
    await write(store, records=[record(1, "turn:a", 1)], keys=rows)
    return store


@pytest.mark.case("X15")
@pytest.mark.parametrize("places", [keys.PLACES, 5])
async def test_the_keys_of_a_message_are_those_that_a_filter_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: int
) -> None:
    monkeypatch.setattr(keys, "PLACES", places)
    first = await _filled(MemoryStore(), random.Random(7))
    second = await _filled(SqliteStore(tmp_path / "s.db"), random.Random(7))
    everything = [key for key, _ in await first.keys(limit=1_000)]
    for part in filter(None, PARTS):
        wanted = list(await first.keys(part=part))
        assert wanted
        for after in ("", *random.Random(3).sample(everything, 20)):
            for limit in (1, 3, 1_000):
                fits = [row for row in wanted if row[0] > after][:limit]
                assert list(await second.keys(after, limit, part)) == fits
    await first.close()
    await second.close()


@pytest.mark.case("X15")
async def test_a_pruned_key_that_comes_again_is_found(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db")
    await store.open()
    keys = [("in:t/a/c/7/m", "turn:a"), ("in:t/a/d/7/m", "turn:b")]
    records = [record(1, "turn:a", 1), record(2, "turn:b", 1)]
    await write(store, records=records, keys=keys)
    prune = Prune(by=3, streams=["turn:a"], keys=["in:t/a/c/7/m"])
    await write(store, records=[record(3, "store", 1)], prune=prune)
    assert await store.keys(part="7") == keys[1:]
    again = [("in:t/a/c/7/m", "turn:c")]
    await write(store, records=[record(4, "turn:c", 1)], keys=again)
    assert await store.keys(part="7") == again + keys[1:]
    await store.close()


async def test_a_refused_write_leaves_no_place_behind(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db")
    await store.open()
    await write(store, records=[record(1, "turn:a", 1)], keys=[("k", "turn:a")])
    keys = [("in:t/a/c/7/m", "turn:b"), ("k", "turn:b")]
    await conflict(store, records=[record(2, "turn:b", 1)], keys=keys)
    await write(store, records=[record(2, "turn:b", 1)], keys=keys[:1])
    assert await store.keys(part="7") == keys[:1]
    await store.close()
