"""A server that does not let us in, or not to everything, and limits that its
administrator has set: the error says what to do, and nothing is lost."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from turnfold import Kernel
from turnfold.audit import audit_store
from turnfold.errors import DiskError, NoAccessError
from turnfold.messages import Route
from turnfold_adapters.stores import moving
from turnfold_adapters.stores.postgres import PostgresStore, commit, connection
from turnfold_cli import app
from turnfold_model.checks.store_kit import put, whole_log
from turnfold_model.testing.platform import Platform, PlatformChannel

from .failover import stop_at_once
from .postgres import Postgres, in_memory

TO = Route(channel="t", conversation="1")


def gateway(address: str) -> Kernel:
    kernel = Kernel(address)
    kernel.attach("t", PlatformChannel(Platform()), on_unknown="hold")
    return kernel


async def send(address: str, count: int = 2) -> str:
    """The id of the last of some entries, which are all delivered."""
    async with gateway(address) as kernel:
        for _ in range(count):
            sent = await kernel.enqueue(TO, "x")
            await sent.settled(30_000)
    return sent.entry_id


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app([*words]), [*words])
    return done.exit_code, done.output


def test_a_role_that_may_only_read_can_look_and_is_told_why_it_cannot_act(
    postgres: Postgres, tmp_path: Path
) -> None:
    address = postgres.address("y1")
    entry = asyncio.run(send(address))
    grants = """CREATE ROLE y1_reader LOGIN; GRANT USAGE ON SCHEMA y1 TO y1_reader;
        GRANT SELECT ON ALL TABLES IN SCHEMA y1 TO y1_reader;"""
    asyncio.run(postgres.execute_all(grants))
    reader = address.replace("postgres@", "y1_reader@")
    for command in ("list", "status", "stats", "gates", "size", "head"):
        code, said = run(command, "-s", reader)
        assert code == 0, (command, said)
    code, said = run("worker", "-s", reader)
    assert code == 1, said
    assert "not running" in said
    assert run("show", entry, "-s", reader)[0] == 0
    assert run("audit", reader)[0] == 0
    for words in (
        ["certify", "w", "-s", reader, "--why", "gone"],
        ["close", "t/default", "-s", reader, "--by", "ann"],
        ["restored", "-s", reader],
        ["copy", reader, str(tmp_path / "a.db")],
    ):
        code, said = run(*words, "--json")
        assert code == 3, (words, said)
        error = json.loads(said)["error"]
        assert error["code"] == "store.no_access", error
        assert "permission denied for table" in error["message"]
        assert "let the owner of the tables grant this right" in error["message"]
    with pytest.raises(NoAccessError):
        asyncio.run(send(reader))
    before = asyncio.run(_log(address))
    assert asyncio.run(_log(reader)) == before


async def _log(address: str) -> list[object]:
    store = PostgresStore(address)
    await store.open(read_only=True)
    records = await whole_log(store)
    await store.close()
    return [*records]


async def test_a_wrong_password_and_a_refused_user_are_said_as_such(
    postgres: Postgres,
) -> None:
    address = postgres.address("y2")
    await send(address)
    await postgres.execute_all(
        "CREATE ROLE y2_right LOGIN SUPERUSER PASSWORD 'right'; CREATE ROLE y2_out LOGIN;"
    )
    [(path,)] = await postgres.execute("SHOW hba_file")
    rules = Path(path).read_text()  # noqa: ASYNC240  one small file
    ours = "local all y2_right scram-sha-256\nlocal all y2_out reject\n"
    Path(path).write_text(ours + rules)  # noqa: ASYNC240
    await postgres.execute("SELECT pg_reload_conf()")
    for user, advice in (
        ("y2_right:wrong@", "check user and password"),
        ("y2_right@", "check user and password"),
        ("y2_out@", "check the user"),
        ("y2_nobody@", "check the user"),
    ):
        for read_only in (True, False):
            store = PostgresStore(address.replace("postgres@", user))
            with pytest.raises(NoAccessError, match=advice) as raised:
                await store.open(read_only=read_only)
            assert "wrong" not in str(raised.value)
    await send(address.replace("postgres@", "y2_right:right@"))
    Path(path).write_text(rules)  # noqa: ASYNC240
    await postgres.execute("SELECT pg_reload_conf()")


async def test_a_server_without_tls_is_told_from_one_that_is_down() -> None:
    async def no_tls(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.read(8)
        writer.write(b"N")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(no_tls, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    address = f"postgresql://u@127.0.0.1:{port}/d?sslmode=require"
    with pytest.raises(NoAccessError, match="take `sslmode` out of the address"):
        await PostgresStore(address).open()
    server.close()
    await server.wait_closed()
    with pytest.raises(DiskError, match="no connection"):
        await PostgresStore(address).open()


async def test_limits_of_the_administrator_cut_nothing_off(postgres: Postgres) -> None:
    """With these no statement would end, and no connection would live."""
    limits = {
        "statement_timeout": "1ms",
        "lock_timeout": "1ms",
        "idle_in_transaction_session_timeout": "1ms",
        "idle_session_timeout": "50ms",
        "transaction_timeout": "20ms",
    }
    await postgres.execute("CREATE ROLE y3_limited LOGIN SUPERUSER")
    for name, value in limits.items():
        await postgres.execute(f"ALTER ROLE y3_limited SET {name} = '{value}'")
    address = postgres.address("y3").replace("postgres@", "y3_limited@")
    store = PostgresStore(address)
    await store.open()
    await put(store, "entry:a")
    links = [link for link in store._shared.links if link._connection is not None]
    await asyncio.sleep(0.2)
    for link in links:
        async with link.used() as session:
            for name in limits:
                sql = "SELECT current_setting($1)"
                assert await session.fetchval(sql, name) == "0"
    await put(store, "entry:b")
    await store.close()
    await send(address.replace("schema=y3", "schema=y3_sends"))


async def test_a_server_that_restarts_during_a_copy_and_a_prune(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between two commits of the copy, and in the one commit of the prune: its fate is
    looked up, and each goes on."""
    with in_memory() as folder:
        server = Postgres(folder / "pg")
        address = server.address("y4")

        def restart() -> None:
            stop_at_once(server.folder)
            server._server.ensure_postgres_running()

        try:
            await send(address, 6)
            await _copied_over_a_restart(address, monkeypatch, restart)
            await _pruned_over_a_restart(address, monkeypatch, restart)
        finally:
            server.stop()


def once(real: Any, act: Callable[[], None]) -> Any:
    """Act before the first call is answered, after it has done its work."""
    left = [True]

    async def called(*args: Any) -> Any:
        done = await real(*args)
        if left:
            left.clear()
            await asyncio.to_thread(act)
        return done

    return called


async def _copied_over_a_restart(
    address: str, monkeypatch: pytest.MonkeyPatch, restart: Callable[[], None]
) -> None:
    there = address.replace("schema=y4", "schema=y4_copy")
    with monkeypatch.context() as patch:
        patch.setattr(moving, "_stored", once(moving._stored, restart))
        code, said = await asyncio.to_thread(run, "copy", address, there, "--json")
    assert code == 0, said
    assert await _log(there) == await _log(address)


async def _pruned_over_a_restart(
    address: str, monkeypatch: pytest.MonkeyPatch, restart: Callable[[], None]
) -> None:
    async with gateway(address) as kernel:
        with monkeypatch.context() as patch:
            patch.setattr(commit, "take_out", once(commit.take_out, restart))
            done = await kernel.prune(older_ms=0, by="ann")
        assert done.streams == 6
        sent = await kernel.enqueue(TO, "after")
        await sent.settled(30_000)
        report = await audit_store(kernel.store)
        assert report.passed, report.first


@pytest.mark.parametrize(
    "end", [ConnectionResetError("reset"), asyncio.CancelledError()]
)
def test_a_new_connection_whose_first_question_fails_is_ended(
    monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    """Nobody holds it yet: it would stay open until the collector finds it."""
    ended: list[bool] = []

    class New:
        async def fetchval(self, _sql: str) -> int:
            raise end

        def terminate(self) -> None:
            ended.append(True)

    async def connect(*_: Any, **__: Any) -> New:
        return New()

    async def ask() -> None:
        link = connection.Link(connection.Place.parsed("postgresql://u@h/d"), "test")
        async with link.used():
            pass

    monkeypatch.setattr(connection.asyncpg, "connect", connect)
    with pytest.raises((DiskError, asyncio.CancelledError)):
        asyncio.run(ask())
    assert ended == [True]
