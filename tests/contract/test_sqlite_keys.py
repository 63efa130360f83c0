"""The keys of a message id: by jumps from conversation to conversation or by a look
through all of them, always those that a plain filter finds."""

import random
from pathlib import Path

import pytest

from turnfold.ports.store import Store
from turnfold_adapters.stores.memory import MemoryStore
from turnfold_adapters.stores.sqlite import SqliteStore, keys
from turnfold_model.checks.store_kit import record, write

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
@pytest.mark.parametrize("jumps", [keys.JUMPS, 5])
async def test_the_keys_of_a_message_are_those_that_a_filter_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jumps: int
) -> None:
    monkeypatch.setattr(keys, "JUMPS", jumps)
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
