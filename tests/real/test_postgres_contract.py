"""The store in PostgreSQL through the public checks of a store, one test a check."""

import asyncio
import json
import signal
import subprocess
import sys
from typing import Any

import asyncpg
import pytest

from turnfold.errors import (
    DiskError,
    FateUnknownError,
    InvalidInputError,
    LostStoreError,
    NewerSchemaError,
    NotAStoreError,
    UnsafeStoreError,
)
from turnfold.ports.store import Refused, Stored, Write
from turnfold_adapters.stores.postgres import PostgresStore, reads
from turnfold_adapters.stores.postgres.connection import Place as Address
from turnfold_model.checks.store import CHECKS, Check, run_check
from turnfold_model.checks.store_kit import head_of, put, record, whole_log

from .postgres import Postgres, cut, cut_link, kill, place


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_store_keeps_its_contract(check: Check, postgres: Postgres) -> None:
    """On one shard of two. A store of one shard has no statement of its own."""
    blank = check.__name__ == "a_read_only_store_takes_no_write"
    run_check(check, lambda: place(postgres, blank=blank))


# --- ownership over hosts --------------------------------------------------------


async def opened(postgres: Postgres, schema: str, more: str = "") -> PostgresStore:
    store = PostgresStore(postgres.address(schema) + more)
    await store.open()
    return store


async def let_pass(postgres: Postgres, schema: str, ms: int) -> None:
    span = "make_interval(secs => $1)"
    sql = f"UPDATE {schema}.worker SET lease_until = lease_until - {span}"
    await postgres.execute(sql, ms / 1000)


async def pretend_elsewhere(postgres: Postgres, schema: str) -> None:
    """The worker's row is that of a machine that this one cannot look into."""
    sql = f"UPDATE {schema}.worker SET boot = 'another', host = 'another'"
    await postgres.execute(sql)


async def test_a_lease_that_is_over_is_no_proof_of_death(postgres: Postgres) -> None:
    one, two = await opened(postgres, "o1"), await opened(postgres, "o1")
    assert await one.ownership().take() is not None
    await pretend_elsewhere(postgres, "o1")
    await kill(one)
    await let_pass(postgres, "o1", 15_000)  # the lease of 10 s, and less than 30 s more
    assert await two.ownership().take() is None
    await let_pass(postgres, "o1", 30_000)
    assert await two.ownership().take() is not None
    for store in (one, two):
        await store.close()


async def test_a_worker_of_this_machine_that_is_gone_is_taken_over_at_once(
    postgres: Postgres,
) -> None:
    address = postgres.address("o2")
    program = """
import asyncio, sys, time
from turnfold_adapters.stores.postgres import PostgresStore
async def main():
    store = PostgresStore(sys.argv[1])
    await store.open()
    assert await store.ownership().take()
    print("taken", flush=True)
    time.sleep(60)
asyncio.run(main())
"""
    command = [sys.executable, "-c", program, address]
    process = await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"taken\n"
        store = await opened(postgres, "o2")
        assert await store.ownership().take() is None
        process.send_signal(signal.SIGSTOP)
        await let_pass(postgres, "o2", 9_000)
        assert await store.ownership().take() is None, "it is stopped, and may wake up"
        process.kill()
        process.wait()
        assert await store.ownership().take() is not None
        await store.close()
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


async def test_a_host_says_for_whom_it_waits_and_how_that_ends(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = await opened(postgres, "o13"), await opened(postgres, "o13")
    owner = await one.ownership().take()
    assert owner is not None
    await pretend_elsewhere(postgres, "o13")
    assert await two.ownership().take() is None
    assert two.facts() == {}
    await let_pass(postgres, "o13", 15_000)
    for _ in range(3):
        assert await two.ownership().take() is None
    told = [r.getMessage() for r in caplog.records if "turnfold certify" in r.message]
    assert len(told) == 1
    assert owner.id in told[0]
    assert two.facts() == {"waits_for": owner.id}
    await let_pass(postgres, "o13", 30_000)
    assert await two.ownership().take() is not None
    assert "waits_for" not in two.facts()
    for store in (one, two):
        await store.close()


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("at", ["INSERT INTO worker", "UPDATE shard"])
async def test_a_take_that_lost_its_answer_is_not_waited_for(
    postgres: Postgres, stored: bool, at: str
) -> None:
    store = await opened(postgres, f"o14_{stored}_{at[:6]}".lower())
    cut_link(store._shared.life._link, stored, at)
    with pytest.raises(DiskError):
        await store.ownership().take()
    assert not store.ownership().held
    assert await store.ownership().take() is not None
    await put(store, "entry:a")
    await store.close()


async def test_all_connections_are_ended_by_the_server_and_the_work_goes_on(
    postgres: Postgres,
) -> None:
    """As by a restart of the server, between two commits."""
    store = await opened(postgres, "o15")
    owner = await store.ownership().take()
    records = await put(store, "entry:a")
    sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    await postgres.execute(f"{sql} WHERE application_name LIKE 'turnfold%'")
    assert await whole_log(store) == records
    for again in range(2):  # the connection that commits learns of it by an error
        try:
            await put(store, "entry:b")
        except (DiskError, FateUnknownError):
            assert not again
            await store.reopen()
            continue
        break
    assert len(await whole_log(store)) >= 2
    assert store.ownership().held
    assert await store.ownership().current() == owner
    await store.close()


async def test_a_question_is_asked_again_before_the_end_of_its_connection_is_seen(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last words of a server come in before the network tells of the end."""
    store = await opened(postgres, "o16")
    records = await put(store, "entry:a")
    asked = reads.log
    fails = [asyncpg.AdminShutdownError("terminating connection")]

    async def log(*args: Any) -> Any:
        if fails:
            raise fails.pop()
        return await asked(*args)

    monkeypatch.setattr(reads, "log", log)
    assert await whole_log(store) == records
    assert not fails
    await store.close()


async def test_a_worker_that_lost_its_seat_commits_nothing(postgres: Postgres) -> None:
    old, new = await opened(postgres, "o3"), await opened(postgres, "o3")
    assert await old.ownership().take() is not None
    base = await head_of(old)
    await let_pass(postgres, "o3", 60_000)
    assert await new.ownership().take() is not None
    with pytest.raises(LostStoreError):
        await old.commit([Write(base=base, records=[record(1, "entry:a", 1)])])
    assert await whole_log(new) == []
    with pytest.raises(LostStoreError):
        await old.reopen()
    assert not old.ownership().held
    for store in (old, new):
        await store.close()


async def test_a_commit_on_its_way_is_never_stored_after_the_owner_asked(
    postgres: Postgres,
) -> None:
    """The statement waits inside the server; the owner gives up on it, takes a new
    token and reads. Then the statement goes on, and must store nothing."""
    store = await opened(postgres, "o4")
    await store.ownership().take()
    base = await head_of(store)
    blocker = await asyncpg.connect(postgres.address("o4").partition("&")[0])
    lock = blocker.transaction()
    await lock.start()
    await blocker.execute("SELECT FROM o4.shard FOR UPDATE")
    write = Write(base=base, records=[record(1, "entry:a", 1)])
    late = asyncio.ensure_future(store.commit([write]))
    await asyncio.sleep(0.2)
    renewing = asyncio.ensure_future(store.ownership().renew_token())
    await asyncio.sleep(0.2)
    await lock.rollback()
    await blocker.close()
    assert await renewing
    (answer,) = await asyncio.gather(late, return_exceptions=True)
    log = await whole_log(store)
    if isinstance(answer, LostStoreError):
        assert log == []
    else:
        assert isinstance(answer, list)
        assert isinstance(answer[0], Stored | Refused)
        assert len(log) == isinstance(answer[0], Stored)
    await store.close()


async def test_an_owner_that_cannot_renew_stops_by_its_own_clock(
    postgres: Postgres,
) -> None:
    store = await opened(postgres, "o5", "&lease_ms=500")
    assert await store.ownership().take() is not None
    renewing = store._shared.life._renewing
    assert renewing is not None
    renewing.cancel()
    assert store.ownership().held
    await asyncio.sleep(0.6)
    assert not store.ownership().held
    await store.close()


async def test_a_log_that_went_back_is_not_appended_to(postgres: Postgres) -> None:
    """As after a failover to a server that lacks the last commits."""
    store = await opened(postgres, "o6")
    await store.ownership().take()
    await put(store, "entry:a", "entry:b")
    await postgres.execute("DELETE FROM o6.log WHERE position = 2")
    blank = "UPDATE o6.shard SET position = 1, head = '\\x00'"
    await postgres.execute(blank)
    with pytest.raises(LostStoreError, match="does not contain position 2"):
        await store.reopen()
    await store.close()


# --- addresses and servers that do not fit ----------------------------------------


async def test_two_that_begin_together_make_the_tables_once(postgres: Postgres) -> None:
    stores = [PostgresStore(postgres.address("o7")) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    await put(stores[0], "entry:a")
    assert len(await whole_log(stores[3])) == 1
    for store in stores:
        await store.close()


async def test_a_newer_layout_is_refused(postgres: Postgres) -> None:
    store = await opened(postgres, "o8")
    await store.close()
    await postgres.execute("UPDATE o8.layout SET number = 7, readable_by = 7")
    with pytest.raises(NewerSchemaError):
        await store.open()
    with pytest.raises(NewerSchemaError):
        await store.open(read_only=True)
    await postgres.execute("UPDATE o8.layout SET readable_by = 1")
    await store.open(read_only=True)
    await store.close()


async def test_a_server_that_may_forget_commits_is_refused(postgres: Postgres) -> None:
    await postgres.execute("ALTER SYSTEM SET synchronous_commit = 'off'")
    await postgres.execute("SELECT pg_reload_conf()")
    try:
        await asyncio.sleep(0.2)
        with pytest.raises(UnsafeStoreError, match="synchronous_commit = off"):
            await opened(postgres, "o9")
    finally:
        await postgres.execute("ALTER SYSTEM RESET synchronous_commit")
        await postgres.execute("SELECT pg_reload_conf()")
        await asyncio.sleep(0.2)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("&lease_ms=never", "lease_ms"),
        ("&lease_ms=10", "lease_ms"),
        ("&max_pause_ms=-1", "max_pause_ms"),
    ],
)
def test_odd_addresses_are_refused_in_words(more: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        PostgresStore(f"postgresql://h/db?schema=s{more}")
    with pytest.raises(InvalidInputError, match="schema"):
        PostgresStore("postgresql://h/db?schema=")
    with pytest.raises(InvalidInputError, match="a port is no number"):
        PostgresStore("postgresql://h:abc/db")


def test_without_its_driver_the_store_says_what_to_install() -> None:
    program = """
import asyncio, sys
sys.modules["asyncpg"] = None
from turnfold import Kernel, MissingExtraError
try:
    asyncio.run(Kernel("postgresql://h/db").open())
except MissingExtraError as exc:
    print(exc)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "pip install 'turnfold[postgres]'" in done.stdout


async def test_no_server_and_no_database_are_typed_errors(postgres: Postgres) -> None:
    with pytest.raises(DiskError, match="no connection"):
        await PostgresStore("postgresql://x@/postgres?host=/nowhere").open()
    wrong = postgres.address("x").replace("/postgres?", "/nothing?")
    with pytest.raises(NotAStoreError, match="nothing"):
        await PostgresStore(wrong).open()


def test_a_password_stands_in_no_address() -> None:
    place = Address.parsed("postgresql://u:secret@h:77/db?schema=s")
    assert place.address == "postgresql://u@h:77/db?schema=s"
    assert "secret" in place.dsn


async def test_a_text_with_nul_is_kept(postgres: Postgres) -> None:
    store = await opened(postgres, "o10")
    name = "entry:\0 and \x1a"
    records = await put(store, name, lane="l\0", reason="\x1a0")
    assert await whole_log(store) == records
    (row,) = (await store.load()).open
    assert (row.stream, row.lane, row.reason) == (name, "l\0", "\x1a0")
    await store.close()


async def test_a_cut_commit_is_decided_again_under_a_new_token(
    postgres: Postgres,
) -> None:
    store = await opened(postgres, "o11")
    await store.ownership().take()
    before = store.facts()["token"]
    cut(store, False)
    with pytest.raises(Exception, match="fate of a commit"):
        await put(store, "entry:a")
    await store.reopen()
    assert (before, store.facts()["token"]) == (1, 2)
    await put(store, "entry:a")
    await store.close()


# --- the main job ------------------------------------------------------------------


@pytest.mark.timeout(300, func_only=True)  # a dozen processes
def test_three_hosts_on_one_server_lose_nothing_and_double_nothing() -> None:
    """One of the smaller ones: `.ci/run` plays each class with each fault."""
    flags = "--store postgresql --hosts 3 --messages 30 --kills 2 --pauses 2 --cuts 2"
    command = [sys.executable, "-m", "turnfold_cli.demo", *flags.split()]
    command += ["--seed", "1", "--json", "--class", "lookup", "--shards", "8"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert (told["lost"], told["doubled"], told["audit"]) == (0, 0, "passed")
    facts = (told["hosts"], told["kills"], told["pauses"], told["server_cuts"])
    assert facts == (3, 2, 2, 2)
    assert told["delivered"] == 30


async def test_a_persons_word_lets_another_host_take_over_at_once(
    postgres: Postgres,
) -> None:
    one, two = await opened(postgres, "o12"), await opened(postgres, "o12")
    owner = await one.ownership().take()
    assert owner is not None
    await pretend_elsewhere(postgres, "o12")
    assert await two.ownership().take() is None
    command = [sys.executable, "-m", "turnfold", "certify", owner.id]
    command += ["--store", postgres.address("o12"), "--by", "ann", "--why", "burnt"]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert await two.ownership().take() is not None
    (row,) = await postgres.execute(
        "SELECT certified_by FROM o12.worker WHERE state = 'dead'"
    )
    assert row[0] == "ann: burnt"
    again = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False
    )
    assert again.returncode == 1
    for store in (one, two):
        await store.close()
