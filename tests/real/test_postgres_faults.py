"""Faults of a server and of hosts that are quick to make. `turnfold demo --faults` makes
the slow ones; specs/postgres.md has the table of all."""

import asyncio

import asyncpg
import pytest

from turnfold import Kernel
from turnfold.audit import audit_store
from turnfold.enums import Phase
from turnfold.errors import (
    DiskError,
    FateUnknownError,
    LostStoreError,
    UnsafeStoreError,
)
from turnfold.messages import Route
from turnfold_adapters.stores.postgres import PostgresStore, ownership
from turnfold_model.checks.store_kit import command, put, whole_log
from turnfold_model.testing.platform import Platform, PlatformChannel, wait_for

from .postgres import Postgres, kill

TO = Route(channel="t", conversation="1")
OTHER = Route(channel="t", conversation="2")


async def handles(postgres: Postgres, schema: str, count: int) -> list[PostgresStore]:
    stores = [PostgresStore(postgres.address(schema)) for _ in range(count)]
    for store in stores:
        await store.open()
    return stores


async def test_of_several_takers_one_gets_the_store(postgres: Postgres) -> None:
    """They come at once, and wait for the same row with the same old snapshot."""
    stores = await handles(postgres, "x1", 4)
    blocker = await asyncpg.connect(postgres.address("x1").partition("&")[0])
    lock = blocker.transaction()
    await lock.start()
    await blocker.execute("SELECT FROM x1.shard FOR UPDATE")
    taking = [asyncio.ensure_future(store.ownership().take()) for store in stores]
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    async with asyncio.timeout(20):
        while (await postgres.execute(waits))[0][0] < len(stores):
            await asyncio.sleep(0.02)
    await lock.rollback()
    await blocker.close()
    owners = [owner for owner in await asyncio.gather(*taking) if owner is not None]
    assert len(owners) == 1
    assert sum(store.ownership().held for store in stores) == 1
    (row,) = await postgres.execute("SELECT token, owner FROM x1.shard")
    assert tuple(row) == (1, owners[0].id)
    for store in stores:
        await store.close()


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_of_a_host_that_is_wrong_takes_nothing_away(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """The lease of another host is judged by the database's clock alone. A worker whose
    own clock jumps ahead stands down; one whose clock is set back finds its token gone."""
    one, two = await handles(postgres, f"x2_{hours + 1}", 2)
    assert await one.ownership().take() is not None
    real = ownership.boot_time
    monkeypatch.setattr(ownership, "boot_time", lambda: real() + hours * 3600)
    assert await two.ownership().take() is None
    assert one.ownership().held == (hours < 0)
    schema = f"x2_{hours + 1}"
    sql = f"UPDATE {schema}.worker SET boot = 'another', lease_until = now() - '1 h'::interval"
    await postgres.execute(sql)
    assert await two.ownership().take() is not None
    with pytest.raises(LostStoreError):
        await put(one, "entry:a")
    for store in (one, two):
        await kill(store)
        await store.close()


FULL = """
CREATE FUNCTION {0}.no_room() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'no space' USING ERRCODE = '53100'; END $$;
CREATE TRIGGER no_room BEFORE INSERT ON {0}.log EXECUTE FUNCTION {0}.no_room();
"""


async def test_a_full_disk_of_the_server_loses_nothing_and_ends(
    postgres: Postgres,
) -> None:
    """The message that is on the wire when the disk gets full is shown once, and its
    outcome is stored as soon as there is room."""
    platform, go = Platform(), asyncio.Event()
    platform.plays(wait_for(go))
    kernel = Kernel(postgres.address("x3"))
    kernel.attach("t", PlatformChannel(platform), on_unknown="hold")
    await kernel.open()
    first = await kernel.enqueue(TO, "first")
    async with asyncio.timeout(20):
        while not platform.calls:
            await asyncio.sleep(0.01)
    await postgres.execute_all(FULL.format("x3"))
    go.set()
    with pytest.raises(DiskError):
        await kernel.enqueue(OTHER, "refused")
    await postgres.execute_all("DROP TRIGGER no_room ON x3.log")
    second = await kernel.enqueue(OTHER, "second")
    for sent in (first, second):
        await kernel.settled(sent.entry_id, 20_000)
        shown = await kernel.inspect.show(sent.entry_id)
        assert shown.phase is Phase.DELIVERED
    assert platform.contents == ["first", "second"]
    report = await audit_store(kernel.store)
    assert report.passed, report.first
    await kernel.close()


async def test_a_pooler_is_refused_in_words(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers with the number of another process than the one that works."""
    monkeypatch.setattr(asyncpg.Connection, "get_server_pid", lambda _: 1)
    with pytest.raises(UnsafeStoreError, match="a pooler stands before the server"):
        await PostgresStore(postgres.address("x4")).open()


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.DuplicatePreparedStatementError("it is there"),
        asyncpg.InvalidSQLStatementNameError("it is not there"),
    ],
)
async def test_a_pooler_that_mixes_up_statements_is_refused_in_the_same_words(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """As PgBouncer in transaction mode, if it ignores our settings."""

    async def mixed_up(*_: object) -> None:
        raise error

    monkeypatch.setattr(asyncpg.Connection, "fetchval", mixed_up)
    with pytest.raises(UnsafeStoreError, match="a pooler stands before the server"):
        await PostgresStore(postgres.address("x4")).open()


async def test_a_lease_that_is_over_is_not_renewed(postgres: Postgres) -> None:
    """Even if nobody has taken over yet: the worker has stopped by its own clock."""
    (store,) = await handles(postgres, "x5", 1)
    assert await store.ownership().take() is not None
    (row,) = await postgres.execute("SELECT owner FROM x5.shard")
    sql = "UPDATE x5.worker SET lease_until = now() - '1 ms'::interval"
    await postgres.execute(sql)
    assert not await store._shared.life._renewed(row[0], 10.0)
    await store.close()


async def test_a_lease_is_judged_by_the_database_when_it_is_ended(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was renewed between the look at it and the word that it is over."""
    one, two = await handles(postgres, "x6", 2)
    assert await one.ownership().take() is not None
    sql = "UPDATE x6.worker SET boot = 'another', lease_until = now() - '1 h'::interval"
    await postgres.execute(sql)
    real = ownership.Life.is_over

    async def renewed_first(self: object, connection: object, row: object) -> bool:
        sql = "UPDATE x6.worker SET lease_until = now() + '10 s'::interval"
        await postgres.execute(sql)
        return await real(self, connection, row)  # type: ignore[arg-type]

    monkeypatch.setattr(ownership.Life, "is_over", renewed_first)
    assert await two.ownership().take() is None
    for store in (one, two):
        await store.close()


async def test_no_commit_goes_into_a_transaction_that_somebody_left_open(
    postgres: Postgres,
) -> None:
    """Whoever is cancelled while a transaction begins leaves it open. A commit in there
    would be called stored, and rolled back when the connection ends."""
    (store,) = await handles(postgres, "x9", 1)
    await store.ownership().take()
    async with store._shared.write.used() as connection:
        await connection.execute("BEGIN")
    records = await put(store, "entry:a")
    assert await whole_log(store) == records
    waits = asyncio.Event()

    async def cancelled() -> None:
        async with store._shared.write.used() as connection:
            waits.set()
            await connection.execute("SELECT pg_sleep(30)")

    task = asyncio.create_task(cancelled())
    await waits.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    records += await put(store, "entry:b")
    assert await whole_log(store) == records
    await store.close()


LAST_WORDS = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0"


async def test_last_words_that_nobody_waited_for_end_the_connection_alone(
    postgres: Postgres,
) -> None:
    """They come in while the connection does nothing, and its end is not seen yet: a
    question is asked again, a commit and a post are of unknown fate."""
    (store,) = await handles(postgres, "x10", 1)
    records = await put(store, "entry:a")
    write, read = store._shared.write, store._shared._read
    for link in (write, read):
        assert link._connection is not None
        size = (len(LAST_WORDS) + 4).to_bytes(4, "big")
        link._connection._protocol.data_received(b"E" + size + LAST_WORDS)
    assert await whole_log(store) == records
    with pytest.raises(FateUnknownError, match="another operation"):
        await store.post([command("c1")])
    assert [posted.new for posted in await store.post([command("c1")])] == [True]
    await store.close()


async def test_a_commit_that_no_standby_has_is_of_unknown_fate(
    postgres: Postgres,
) -> None:
    """Somebody ends its wait for a synchronous standby: a warning, and a success."""
    (store,) = await handles(postgres, "x11", 1)
    await store.ownership().take()
    await put(store, "entry:a")
    await postgres.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    await postgres.execute("SELECT pg_reload_conf()")
    try:
        commit = asyncio.ensure_future(put(store, "entry:b"))
        sql = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%log%'"
        async with asyncio.timeout(20):
            while not (waiting := await postgres.execute(sql)):
                await asyncio.sleep(0.02)
        await postgres.execute("SELECT pg_cancel_backend($1)", waiting[0][0])
        with pytest.raises(FateUnknownError, match="synchronous replication"):
            await commit
    finally:
        await postgres.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await postgres.execute("SELECT pg_reload_conf()")
    await store.reopen()
    assert len(await whole_log(store)) == 2
    await put(store, "entry:c")
    await store.close()
