"""Layouts, pruning and room of a store in PostgreSQL."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from turnfold import Kernel
from turnfold.audit import audit_store
from turnfold.errors import (
    DiskError,
    InvalidInputError,
    NewerSchemaError,
    NotAStoreError,
    OlderSchemaError,
)
from turnfold.messages import Route
from turnfold_adapters.stores.postgres import PostgresStore, schema
from turnfold_adapters.stores.postgres.schema import LAYOUT
from turnfold_cli import app
from turnfold_model.checks.store_kit import put, whole_log
from turnfold_model.testing.platform import Platform, PlatformChannel

from .postgres import Postgres

TO = Route(channel="t", conversation="1")


async def make_older(postgres: Postgres, schema: str) -> None:
    """The tables as the first layout had them."""
    for table in ("pruned", "pruned_tally"):
        await postgres.execute(f"DROP TABLE {schema}.{table}")
    for table, column in (
        ("layout", "shards"),
        ("worker", "seats"),
        ("worker", "instance"),
        ("worker", "attached"),
        ("shard", "freed"),
    ):
        await postgres.execute(f"ALTER TABLE {schema}.{table} DROP COLUMN {column}")
    await postgres.execute(f"ALTER TABLE {schema}.stream DROP CONSTRAINT stream_name")
    sql = f"ALTER TABLE {schema}.stream ADD CONSTRAINT stream_name_key UNIQUE (name)"
    await postgres.execute(sql)
    await postgres.execute(f"UPDATE {schema}.layout SET number = 1")


async def test_an_older_layout_is_migrated_by_a_command_alone(
    postgres: Postgres,
) -> None:
    store = PostgresStore(postgres.address("k1"))
    with pytest.raises(NotAStoreError):
        await store.migrate()
    await store.open()
    await put(store, "entry:a")
    log = await whole_log(store)
    await store.close()
    await make_older(postgres, "k1")
    for read_only in (False, True):
        with pytest.raises(OlderSchemaError, match="turnfold migrate"):
            await store.open(read_only=read_only)
    assert await store.migrate(dry=True) == (1, LAYOUT)
    assert await store.migrate() == (1, LAYOUT)
    assert await store.migrate() == (LAYOUT, LAYOUT)
    await store.open()
    assert await whole_log(store) == log
    await store.close()
    await postgres.execute("UPDATE k1.layout SET number = 99")
    with pytest.raises(NewerSchemaError):
        await store.migrate()


async def test_a_migration_that_dies_before_its_commit_has_done_nothing(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends its connection in the last step; the same command again ends
    well."""
    store = PostgresStore(postgres.address("k4"))
    await store.open()
    await put(store, "entry:a")
    log = await whole_log(store)
    await store.close()
    await make_older(postgres, "k4")
    dies = f"{schema.STEPS[LAYOUT]}; SELECT pg_terminate_backend(pg_backend_pid())"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "STEPS", {**schema.STEPS, LAYOUT: dies})
        with pytest.raises(DiskError):
            await store.migrate()
    assert await store.migrate(dry=True) == (1, LAYOUT)
    assert await store.migrate() == (1, LAYOUT)
    await store.open()
    assert await whole_log(store) == log
    await store.close()


def test_the_commands_of_a_shared_store(postgres: Postgres, tmp_path: Path) -> None:
    address = postgres.address("k2")

    def run(*words: str) -> tuple[int, str]:
        arguments = [*words, "--store", address, "--json"]
        done = CliRunner().invoke(app(arguments), arguments)
        return done.exit_code, done.output

    async def make() -> None:
        async with Kernel(address):
            pass

    asyncio.run(make())
    code, said = run("migrate")
    assert (code, json.loads(said)["layout"]) == (0, LAYOUT)
    code, said = run("size")
    assert code == 0
    assert json.loads(said)["tables"]["log"] > 0
    code, said = run("backup", str(tmp_path / "copy.db"))
    assert code == 2
    assert "pg_dump --format=custom --schema=k2" in said


async def test_old_streams_leave_the_store_and_the_audit_passes(
    postgres: Postgres,
) -> None:
    kernel = Kernel(postgres.address("k3"))
    kernel.attach("t", PlatformChannel(Platform()), on_unknown="hold")
    await kernel.open()
    names = [(await kernel.enqueue(TO, f"{n}")).entry_id for n in range(3)]
    for name in names:
        await kernel.settled(name, 5_000)
    done = await kernel.prune(older_ms=0, by="ann")
    assert done.streams == 3
    await kernel.enqueue(TO, "after")
    report = await audit_store(kernel.store)
    assert report.passed, report.first
    found = await kernel.store.maintenance.pruned()  # type: ignore[union-attr]
    assert sum(count.count for count in found) == 3
    with pytest.raises(InvalidInputError, match="pg_dump"):
        await kernel.store.maintenance.copy(Path("x"), print)  # type: ignore[union-attr]
    await kernel.close()
