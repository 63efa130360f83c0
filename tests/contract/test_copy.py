"""`turnfold copy` of shards, as far as it needs no server."""

import asyncio
import json
from pathlib import Path

from typer.testing import CliRunner

from turnfold_adapters.stores.memory import MemoryStore
from turnfold_cli import app
from turnfold_cli.copy import _difference
from turnfold_model.checks.store_kit import put
from turnfold_model.testing.gateway import Gateway, in_file


async def _with(*streams: str) -> MemoryStore:
    store = MemoryStore()
    await store.open()
    for stream in streams:
        await put(store, stream)
    return store


async def _made(path: Path) -> None:
    play = Gateway(store=in_file(path))
    await play.start()
    await play.end()


def test_a_copy_into_another_number_of_shards_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    asyncio.run(_made(path))
    target = "postgresql://nobody@127.0.0.1:1/none?shards=4"
    for words in ([], ["--dry-run"]):
        arguments = ["copy", str(path), target, "--json", *words]
        done = CliRunner().invoke(app(arguments), arguments)
        error = json.loads(done.output)["error"]
        assert (done.exit_code, error["code"]) == (2, "store.reshard"), error
        assert "copy it to a PostgreSQL address without `shards`" in error["message"]


async def test_a_copy_is_whole_if_every_shard_ends_where_its_source_ends() -> None:
    source = [await _with("entry:a"), await _with()]
    assert await _difference(source, [await _with("entry:a"), await _with()]) == ""
    behind = [await _with(), await _with()]
    said = await _difference(source, behind)
    assert said == "in shard 0, it ends at position 0, the source at 1"
    ahead = [await _with("entry:a"), await _with("entry:b")]
    said = await _difference(source, ahead)
    assert said == "in shard 1, it went on beyond the source, to position 1"
    assert await _difference(source, behind[:1]) == "it has 1 shards, the source has 2"
    assert "blank store" in await _difference(behind, behind)
