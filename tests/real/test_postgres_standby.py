"""A store on a hot standby: it can be read, and nothing else."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from tests.contract.test_dashboard import TOKEN, browser
from typer.testing import CliRunner

from turnfold.api.kernel import Kernel
from turnfold.errors import ReadOnlyError
from turnfold_adapters.stores.postgres import PostgresStore
from turnfold_cli import app
from turnfold_cli.dashboard.site import Site
from turnfold_cli.serve import _look
from turnfold_model.checks.store_kit import put, whole_log

from .failover import Standby
from .postgres import Postgres, in_memory


@asynccontextmanager
async def standby_of(
    postgres: Postgres, schema: str, more: str = ""
) -> AsyncIterator[tuple[Standby, str]]:
    """A standby with a store of a record, and its address there."""
    store = PostgresStore(postgres.address(schema) + more)
    await store.open()
    part = store.shard(0)
    await part.open()
    await put(part, "entry:a")
    await part.close()
    await store.close()
    with in_memory() as folder, Standby(postgres, folder / "s") as standby:
        await standby.caught_up()
        yield standby, standby.address(schema)


async def said(*words: str) -> tuple[int, str]:
    runner = CliRunner()
    made = await asyncio.to_thread(runner.invoke, app([*words]), [*words])
    return made.exit_code, made.output


async def test_commands_that_look_read_a_standby(postgres: Postgres) -> None:
    async with standby_of(postgres, "sb1") as (_, address):
        for command in (
            "list",
            "stats",
            "log",
            "head",
            "size",
            "inbox",
            "gates",
            "channels",
        ):
            code, text = await said(command, "-s", address)
            assert (command, code) == (command, 0), text


@pytest.mark.parametrize("shards", ["", "&shards=2"])
async def test_what_is_read_from_a_standby_says_of_which_moment_it_speaks(
    postgres: Postgres, shards: str
) -> None:
    schema = "sb6" if shards else "sb7"
    async with standby_of(postgres, schema, shards) as (_, address):
        before = time.time_ns() // 1_000_000
        for command in ("status", "health"):
            words = [command, "-s", address, "--json"]
            made = await asyncio.to_thread(CliRunner().invoke, app(words), words)
            told = json.loads(made.stdout)
            assert before - 60_000 < told["as_of"] <= before
            assert "as of" in made.stderr
        _, text = await said("list", "-s", address)
        assert "ago: the last commit that this standby has" in text
        site = Site(address=address, acts=True, token=TOKEN, port=8911)
        site.shown = await _look(address)
        async with browser(site, authorization=f"Bearer {TOKEN}") as client:
            page = (await client.get("/status")).text
            assert "the last commit that this standby has" in page
            form = {"do": "discard", "id": "a", "by": "ann", "why": "x"}
            answer = await client.post("/act", data=form)
            assert answer.status_code < 500, answer.text
    _, text = await said("status", "-s", postgres.address(schema))
    assert "as of" not in text


@pytest.mark.parametrize("shards", ["", "&shards=2"])
async def test_what_writes_is_refused_on_a_standby_with_the_way_to_the_primary(
    postgres: Postgres, shards: str
) -> None:
    schema = "sb2" if shards else "sb3"
    async with standby_of(postgres, schema, shards) as (_, address):
        with pytest.raises(ReadOnlyError, match="address of the primary"):
            async with Kernel(address):
                pass
        for words in (["certify", "w"], ["restored"], ["watchdog", "--once"]):
            code, text = await said(*words, "-s", address)
            assert (words, code) == (words, 3)
            assert "give the address of the primary" in text


async def test_a_reader_goes_on_when_its_standby_is_promoted(
    postgres: Postgres,
) -> None:
    """Then it can be opened for writing, too."""
    async with standby_of(postgres, "sb4") as (standby, address):
        reader = PostgresStore(address)
        await reader.open(read_only=True)
        before = await whole_log(reader)
        await standby.promote()
        assert await whole_log(reader) == before
        await reader.close()
        writer = PostgresStore(address)
        await writer.open()
        await put(writer, "entry:c")
        await writer.close()


async def test_a_question_that_a_standby_cancels_is_asked_again(
    postgres: Postgres,
) -> None:
    """The primary cleans up rows that the question still sees, and the standby does not
    wait for it."""
    async with standby_of(postgres, "sb5") as (standby, address):
        await standby.execute("ALTER SYSTEM SET max_standby_streaming_delay = 0")
        await standby.execute("SELECT pg_reload_conf()")
        reader = PostgresStore(address)
        await reader.open(read_only=True)
        cancelled: list[Exception] = []

        async def slow(connection: Any) -> Sequence[Any]:
            pause = 0.0 if cancelled else 5.0
            sql = f"SELECT pg_sleep({pause}) FROM layout"
            try:
                return await connection.fetch(sql)  # type: ignore[no-any-return]
            except asyncpg.PostgresError as exc:
                cancelled.append(exc)
                raise

        asked = asyncio.ensure_future(reader._reading(slow))
        await asyncio.sleep(0.5)
        await postgres.execute("UPDATE sb5.layout SET number = number")
        await postgres.execute("VACUUM sb5.layout")
        assert len(await asked) == 1
        assert [exc.sqlstate for exc in cancelled] == ["40001"]
        await reader.close()
