"""The keys of a message id: by a look into each conversation or through all keys, always
those that a plain filter finds."""

import random
from pathlib import Path

import pytest

from turnfold.ports.store import Listing, Store
from turnfold_adapters.stores.memory import MemoryStore
from turnfold_adapters.stores.sqlite import SqliteStore, keys
from turnfold_model.checks.store_kit import record, summary, write

PARTS = ("a", "a0", "a.", "b", "7", "70", "%2F", "ü", "", "-")


async def _filled(store: Store, chance: random.Random) -> Store:
    await store.open()
    names = {"out:a/b/c/7", "out:x"}
    for _ in range(300):
        parts = [chance.choice(PARTS) for _ in range(chance.choice((4, 5, 6)))]
        names.add(f"in:{'/'.join(parts)}")
    rows = [(name, "turn:a") for name in sorted(names)]
    await write(store, records=[record(1, "turn:a", 1)], keys=rows)
    lanes = sorted(
        {"/".join(name[3:].split("/")[:3]) for name in names if "in:" in name}
    )
    for position, lane in enumerate(lanes, 2):
        name = f"turn:{position}"
        row = summary(name, 1, position, lane=f"{lane}/", open=False)
        await write(store, records=[record(position, name, 1)], summaries=[row])
    return store


@pytest.mark.case("X15")
@pytest.mark.parametrize("most", [keys.CONVERSATIONS, 5])
async def test_the_keys_of_a_message_are_those_that_a_filter_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(keys, "CONVERSATIONS", most)
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
async def test_the_end_of_a_name_is_no_pattern(tmp_path: Path) -> None:
    names = ["turn:a*b", "turn:axb", "turn:a?b", "turn:a[x]b", "turn:ab", "turn:a]b"]
    for store in (MemoryStore(), SqliteStore(tmp_path / "s.db")):
        await store.open()
        for position, name in enumerate(names, 1):
            row = summary(name, 1, position)
            await write(store, records=[record(position, name, 1)], summaries=[row])
        for end in ("a*b", "a?b", "a[x]b", "]b", "*", "b"):
            found = await store.list(Listing(prefix="", ending=end))
            fit = [name for name in names if name.endswith(end)]
            assert [row.stream for row in found] == fit[::-1]
        await store.close()
