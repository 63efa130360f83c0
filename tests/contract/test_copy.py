"""`turnfold copy` of shards, as far as it needs no server."""

import asyncio
import json
from contextlib import closing
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from turnfold.ports.plugins import plugin_store_at
from turnfold.ports.store import Keeping, store_at
from turnfold_adapters.stores.memory import MemoryStore
from turnfold_cli import app
from turnfold_cli.copy import _difference
from turnfold_model.checks.store_kit import put
from turnfold_model.testing.gateway import Gateway, in_file, route, spin


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


async def _pruned(path: Path) -> None:
    """Two prunes that take every second entry, and a value of a plugin."""
    play = Gateway(store=in_file(path))
    kernel = await play.start()
    for conversation in ("a", "b"):
        await kernel.enqueue(route(conversation), "kept", key=conversation)
        await kernel.enqueue(route(conversation), "goes")
        await spin()
        await play.advance(1_000)
        assert (await kernel.prune(older_ms=0, by="ann")).streams == 1
    kernel.state("p").open("n").register("k", "value")
    await play.end()


async def _whole(path: Path) -> list[Any]:
    store = store_at(path)
    await store.open(read_only=True)
    keeping = store.maintenance
    assert isinstance(keeping, Keeping)
    found = [await store.log(), await store.load(), {*await keeping.pruned()}]
    await store.close()
    plugins = plugin_store_at(path)
    assert plugins is not None
    with closing(plugins):
        return [*found, plugins.every()]


def test_a_pruned_store_and_the_state_of_plugins_are_copied(tmp_path: Path) -> None:
    """What was pruned stays pruned: the head is the same, and the audit passes."""
    path, there = tmp_path / "a.db", tmp_path / "b.db"
    asyncio.run(_pruned(path))
    whole = asyncio.run(_whole(path))
    assert any(record.pruned for record in whole[0])
    for _ in range(2):  # the second one finds it there
        arguments = ["copy", str(path), str(there), "--json"]
        done = CliRunner().invoke(app(arguments), arguments)
        said = json.loads(done.output)
        assert (done.exit_code, said["copied"], said["values"]) == (0, True, 1), said
    assert asyncio.run(_whole(there)) == whole
    audited = CliRunner().invoke(app(["audit", str(there)]), ["audit", str(there)])
    assert audited.exit_code == 0, audited.output


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
