"""An orchestrator says by name that an instance is gone: then another host goes on at
once. A word that something in sight contradicts is refused."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from turnfold import Kernel, Route
from turnfold.enums import Status
from turnfold.errors import InvalidInputError, ReadOnlyError
from turnfold_adapters.stores.postgres import PostgresStore, certificates, ownership
from turnfold_adapters.stores.postgres.certificates import Certifier
from turnfold_adapters.stores.postgres.connection import INSTANCE, Place
from turnfold_adapters.stores.processes import boot_id, start_time
from turnfold_cli import app
from turnfold_model.kill9.child import SETTINGS
from turnfold_model.testing.gateway import until

from .failover import Standby
from .postgres import Postgres, in_memory
from .test_postgres_killed import FileChannel, Scene, shown, verdicts
from .test_postgres_watchdog import certified, is_silent, running

LEASE_MS = 1000
WAITS = f"&lease_ms={LEASE_MS}&max_pause_ms=3600000"  # nobody is taken as dead by time
GONE = "node-1/gateway-7d9f/0a1b"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork, threads


async def turnfold_certify(address: str, *more: str) -> tuple[int, Any]:
    """The command, in a process of its own: its exit code and what it says."""
    words = ("certify", "-s", address, "--json", *more)
    program = "from turnfold_cli import main; main()"
    made = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *words, stdout=subprocess.PIPE
    )
    said, _ = await made.communicate()
    assert made.returncode is not None
    return made.returncode, json.loads(said)


@pytest.mark.parametrize("shards", [1, 2])
async def test_another_host_goes_on_by_the_word_of_an_orchestrator(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    """The worker was ended in the middle of a send of class `lookup`. Without the word
    the other host waits for a person; with it the message goes out once."""
    more = f"&shards={shards}" if shards > 1 else ""
    scene = Scene(postgres.address() + WAITS + more, tmp_path / "shown")
    monkeypatch.setenv(INSTANCE, GONE)
    with running(scene) as pid:
        await until(lambda: is_silent(pid), 30)
        os.kill(pid, signal.SIGKILL)
        monkeypatch.delenv(INSTANCE)
        for module in (ownership, certificates):  # which see no process of the worker
            monkeypatch.setattr(module, "room", lambda: "another host")
        async with Kernel(scene.address, settings=SETTINGS) as kernel:
            channel = FileChannel(scene.platform, scene.delivery)
            kernel.attach("t", channel, on_unknown="hold")
            await asyncio.sleep(LEASE_MS / 1000 + 1.0)
            assert len(shown(scene.platform)) == 1
            certifier = Certifier(scene.address)
            await certifier.open()
            (silent,) = await certifier.silent()
            assert (silent.instance, silent.pid) == (GONE, pid)
            verdict = await certifier.certify(GONE, "kubernetes: the node is off")
            assert (verdict.did, verdict.workers) == ("certified", (silent.worker,))
            await until(lambda: len(shown(scene.platform)) == 2, 30)
            to = Route(channel="t", conversation="1")
            again = await kernel.enqueue(to, "stop", key="stop")
            assert await again.settled(20_000) is Status.DELIVERED
            assert await certifier.silent() == []
            await certifier.close()
    assert len({*shown(scene.platform)}) == len(shown(scene.platform)) == 2
    assert await verdicts(scene.address) == [(0, None)] * shards
    assert await certified(postgres, scene, [silent.worker]) == {
        ("dead", "kubernetes: the node is off")
    }


# --- what is believed -----------------------------------------------------------------


class Table:
    """A store with rows of workers of an instance; none has a process."""

    def __init__(self, postgres: Postgres) -> None:
        self.postgres, self.address = postgres, postgres.address()
        self.schema = self.address.partition("schema=")[2]
        self.certifier = Certifier(self.address)

    async def open(self) -> None:
        store = PostgresStore(self.address)
        await store.open()
        await store.close()
        await self.certifier.open()

    async def row(self, name: str, lease_s: float = -5, **but: Any) -> None:
        values = {"boot": "another", "room": "r", "pid": 7, "started": 9}
        values |= {"state": "alive", "instance": GONE} | but
        sql = f"""INSERT INTO {self.schema}.worker (id, boot, room, pid, started, state,
            instance, host, lease_until) VALUES ($1, $2, $3, $4, $5, $6, $7, 'there',
            clock_timestamp() + make_interval(secs => $8))"""
        await self.postgres.execute(sql, name, *values.values(), lease_s)

    async def renew(self, name: str) -> None:
        sql = f"""UPDATE {self.schema}.worker
            SET lease_until = clock_timestamp() + '1 min' WHERE id = $1"""
        await self.postgres.execute(sql, name)

    async def states(self) -> dict[str, str]:
        sql = f"SELECT id, state FROM {self.schema}.worker"
        return {row["id"]: row["state"] for row in await self.postgres.execute(sql)}


@contextmanager
def process() -> Iterator[tuple[int, dict[str, Any]]]:
    """A process of this machine, and how a row names it."""
    child = subprocess.Popen(["sleep", "600"], cwd="/")
    here = {"boot": boot_id(), "room": ownership.room(), "pid": child.pid}
    try:
        yield child.pid, here | {"started": start_time(child.pid)}
    finally:
        child.kill()
        child.wait()


@asynccontextmanager
async def table_at(postgres: Postgres) -> AsyncIterator[Table]:
    made = Table(postgres)
    await made.open()
    try:
        yield made
    finally:
        await made.certifier.close()


async def test_all_lives_of_an_instance_are_certified_and_no_other(
    postgres: Postgres,
) -> None:
    """Saying it again is harmless."""
    async with table_at(postgres) as table:
        await table.row("one")
        await table.row("two", pid=8)
        await table.row("other", instance="node-1/other")
        await table.row("nameless", instance=None)
        verdict = await table.certifier.certify(GONE, "nomad")
        assert (verdict.did, sorted(verdict.workers)) == ("certified", ["one", "two"])
        assert await table.states() == {
            "one": "dead",
            "two": "dead",
            "other": "alive",
            "nameless": "alive",
        }
        assert (await table.certifier.certify(GONE, "nomad")).did == "ended"


async def test_a_name_under_which_nobody_began_is_told(postgres: Postgres) -> None:
    async with table_at(postgres) as table:
        await table.row("one")
        assert (await table.certifier.certify("nobody", "nomad")).did == "unknown"
        assert await table.states() == {"one": "alive"}
        for name in ("", "a\nb", "x" * 301):
            with pytest.raises(InvalidInputError):
                await table.certifier.certify(name, "nomad")


async def test_a_live_lease_is_waited_for(postgres: Postgres) -> None:
    async with table_at(postgres) as table:
        await table.row("one", lease_s=1.0)
        at_once = await table.certifier.certify(GONE, "nomad", wait=False)
        assert (at_once.did, at_once.workers) == ("lives", ("one",))
        assert await table.states() == {"one": "alive"}
        assert (await table.certifier.certify(GONE, "nomad")).did == "certified"


async def test_an_instance_that_renews_its_lease_lives(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The word was wrong; nobody of the instance is certified."""
    async with table_at(postgres) as table:
        await table.row("one", lease_s=0.5)
        await table.row("before")
        sleep = asyncio.sleep

        async def meanwhile(seconds: float) -> None:
            await table.renew("one")
            await sleep(seconds)

        monkeypatch.setattr(certificates.asyncio, "sleep", meanwhile)
        verdict = await table.certifier.certify(GONE, "nomad")
        assert verdict.did == "lives"
        assert "renewed" in verdict.why
        assert {*(await table.states()).values()} == {"alive"}


async def test_a_new_life_of_the_instance_contradicts_the_word(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with table_at(postgres) as table:
        await table.row("one", lease_s=0.5)
        sleep = asyncio.sleep

        async def meanwhile(seconds: float) -> None:
            await table.row("next", lease_s=60)
            await sleep(seconds)

        monkeypatch.setattr(certificates.asyncio, "sleep", meanwhile)
        assert (await table.certifier.certify(GONE, "nomad")).did == "lives"
        assert {*(await table.states()).values()} == {"alive"}


async def test_the_statement_itself_compares_all_leases(postgres: Postgres) -> None:
    """A renewal between the look and the statement, in another transaction that holds
    the row."""
    async with table_at(postgres) as table:
        await table.row("one")
        await table.row("two", lease_s=60)
        assert await table.certifier._certify(certificates._DEAD, GONE, "nomad") == []
        assert {*(await table.states()).values()} == {"alive"}


async def test_a_process_that_runs_here_is_not_dead(postgres: Postgres) -> None:
    """Also if its lease is over, as that of a stopped one."""
    async with table_at(postgres) as table:
        with process() as (pid, here):
            await table.row("here", **here)
            verdict = await table.certifier.certify(GONE, "systemd")
        assert verdict.did == "lives"
        assert f"process {pid} runs on this machine" in verdict.why
        assert await table.states() == {"here": "alive"}


async def test_a_process_that_is_gone_here_needs_no_wait(postgres: Postgres) -> None:
    with process() as (_, here):
        pass
    async with table_at(postgres) as table:
        await table.row("here", lease_s=600, **here)
        async with asyncio.timeout(30):
            verdict = await table.certifier.certify(GONE, "systemd")
        assert (verdict.did, verdict.workers) == ("certified", ("here",))
        assert await table.states() == {"here": "dead"}


async def test_a_standby_takes_no_word(postgres: Postgres) -> None:
    async with table_at(postgres) as table:
        await table.row("one")
        with in_memory() as folder, Standby(postgres, folder / "s") as standby:
            await standby.caught_up()
            certifier = Certifier(standby.address(table.schema))
            with pytest.raises(ReadOnlyError):
                await certifier.open()
            await certifier.close()


# --- the command, and the name ----------------------------------------------------------


async def test_the_command_says_what_became_of_the_word(postgres: Postgres) -> None:
    async with table_at(postgres) as table:
        await table.row("one")
        code, said = await turnfold_certify(table.address)
        assert (code, [each["worker"] for each in said["silent"]]) == (0, ["one"])
        name = ("--instance", GONE, "--by", "kubernetes", "--why", "its node is off")
        code, said = await turnfold_certify(table.address, *name)
        assert (code, said["did"], said["workers"]) == (0, "certified", ["one"])
        code, said = await turnfold_certify(table.address, *name)
        assert (code, said["did"]) == (0, "ended")
        await table.row("two", lease_s=60)
        code, said = await turnfold_certify(table.address, *name, "--no-wait")
        assert (code, said["did"]) == (1, "lives")
        code, said = await turnfold_certify(table.address, "--instance", "nobody")
        assert (code, said["did"]) == (1, "unknown")
        sql = f"SELECT certified_by FROM {table.schema}.worker WHERE id = 'one'"
        ((by,),) = await postgres.execute(sql)
        assert by == "kubernetes: its node is off"


async def test_the_command_in_words(postgres: Postgres) -> None:
    async with table_at(postgres) as table:
        await table.row("one")

        def run(*words: str) -> str:
            every = ["certify", "-s", table.address, *words]
            return CliRunner().invoke(app(every), every).output

        text = await asyncio.to_thread(run)
        assert f"worker one, instance {GONE}, pid 7 on there: silent for" in text
        assert "counts as dead" in await asyncio.to_thread(run, "--instance", GONE)
        assert "ended already" in await asyncio.to_thread(run, "--instance", GONE)
        assert "nobody: no worker" in await asyncio.to_thread(run, "--instance=nobody")
        assert "no worker is waited for" in await asyncio.to_thread(run)
        both = await asyncio.to_thread(run, "one", "--instance", GONE)
        assert "not both" in both


def test_the_name_comes_from_the_address_or_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(INSTANCE, raising=False)
    assert Place.parsed("postgresql://h/d").instance is None
    monkeypatch.setenv(INSTANCE, "from the variable")
    assert Place.parsed("postgresql://h/d").instance == "from the variable"
    place = Place.parsed("postgresql://h/d?instance=node%2Fpod")
    assert place.instance == "node/pod"
    assert "instance" not in place.dsn
    with pytest.raises(InvalidInputError):
        Place.parsed("postgresql://h/d?instance=a%0Ab")
