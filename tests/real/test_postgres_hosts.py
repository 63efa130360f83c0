"""Several hosts in the address, on real servers: after a failover running kernels find
the new primary by the address alone, and a look asks a standby only without a primary."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from turnfold import Kernel
from turnfold.enums import Phase
from turnfold.errors import DiskError
from turnfold.messages import Route
from turnfold_adapters.stores.postgres import PostgresStore, shared, staging
from turnfold_cli import app
from turnfold_model.checks.store_kit import whole_log
from turnfold_model.testing.platform import Platform, PlatformChannel

from .failover import Standby, stop_at_once
from .postgres import Postgres, in_memory
from .test_postgres_way_back import (
    CLASSES,
    TOTAL,
    Load,
    all_was_shown_once,
    wait_until,
)

TO = Route(channel="keyed", conversation="1")


@pytest.fixture
def folder() -> Iterator[Path]:
    with in_memory() as made:
        yield made


def address_of(*folders: Path, schema: str, more: str = "") -> str:
    hosts = ",".join(map(str, folders))
    role = "target_session_attrs=read-write"
    return f"postgresql://postgres@/postgres?host={hosts}&schema={schema}&{role}{more}"


def gateway(address: str, platform: Platform) -> Kernel:
    kernel = Kernel(address)
    for name, classes in CLASSES.items():
        channel = PlatformChannel(platform, *classes, settle_ms=0)
        kernel.attach(name, channel, on_unknown="hold")
    return kernel


@pytest.mark.parametrize("shards", ["", "&shards=4"])
async def test_running_kernels_follow_the_primary_by_the_address_alone(
    folder: Path, shards: str
) -> None:
    """Twice the primary is lost under load. The standby is the last of three hosts
    first, then the middle one, which was not there before; it stands first for the
    other kernel."""
    platform = Platform(keyed=True)
    places = [folder / name for name in "012"]
    more = f"&lease_ms=30000{shards}"
    with ExitStack() as stack:
        first = Postgres(places[0])
        stack.callback(stop_at_once, places[0])
        second = stack.enter_context(Standby(first, places[2]))
        await second.is_waited_for()
        kernels = [
            gateway(address_of(*order, schema="h1", more=more), platform)
            for order in (places, places[::-1])
        ]
        for kernel in kernels:
            await kernel.open()
        if shards:  # a seat that is under way gets a new worker, which does not guess
            await wait_until(lambda: [len(k.seats) for k in kernels] == [2, 2])
        load = Load(kernels)

        async def fail_over(
            life: str, lose: Any, standby: Standby
        ) -> asyncio.Task[None]:
            sending = asyncio.create_task(load.send(life))
            enough = len(load.entries) + TOTAL // 4
            await wait_until(lambda: len(load.entries) >= enough)
            await asyncio.to_thread(lose)
            assert not sending.done()
            await standby.promote()
            return sending

        sending = await fail_over("there", lambda: stop_at_once(places[0]), second)
        third = await asyncio.to_thread(stack.enter_context, Standby(second, places[1]))
        await third.is_waited_for()
        await sending
        sending = await fail_over("back", second.kill, third)
        await third.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await third.execute("SELECT pg_reload_conf()")
        await sending
        await load.send("at last")
        if shards:
            await shown_once_on_shards(load, platform, address_of(*places, schema="h1"))
        else:
            await all_was_shown_once(load, platform)
        for kernel in reversed(kernels):
            await kernel.close()


async def shown_once_on_shards(load: Load, platform: Platform, address: str) -> None:
    for entry in load.entries:
        await load.kernels[0].settled(entry, 60_000)
    assert len(set(load.entries)) == 3 * TOTAL
    assert len(platform.contents) == len(set(platform.contents)) == 3 * TOTAL
    code, said = await said_by("audit", address)
    assert code == 0, said


def processes(data: Path) -> list[psutil.Process]:
    first = psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))
    return [first, *first.children(recursive=True)]


async def test_a_primary_that_hangs_is_left_and_is_not_gone_back_to(
    folder: Path,
) -> None:
    """Its machine is frozen, so nothing says that it is lost, and the standby is promoted.
    Later it wakes up, and is still a primary."""
    platform = Platform(keyed=True)
    places = folder / "0", folder / "1"
    with ExitStack() as stack:
        old = Postgres(places[0])
        stack.callback(stop_at_once, places[0])
        new = stack.enter_context(Standby(old, places[1]))
        await new.is_waited_for()
        address = address_of(*places, schema="h2", more="&lease_ms=8000")
        kernels = [gateway(address, platform) for _ in range(2)]
        for kernel in kernels:
            await kernel.open()
        load = Load(kernels)
        await load.send("there")
        frozen = processes(places[0])
        for process in frozen:
            process.suspend()
        try:
            await new.promote()
            await new.execute("ALTER SYSTEM RESET synchronous_standby_names")
            await new.execute("SELECT pg_reload_conf()")
            await load.send("back")
        finally:
            for process in frozen:
                os.kill(process.pid, signal.SIGCONT)
        await load.send("at last")
        late = PostgresStore(address)  # a process that begins now has seen neither
        await late.open(read_only=True)
        assert len(await whole_log(late)) == len(await whole_log(kernels[0].store))
        await late.close()
        assert all(kernel.health()["fences_lost"] == 0 for kernel in kernels)
        await all_was_shown_once(load, platform)
        for kernel in reversed(kernels):
            await kernel.close()


@pytest.mark.parametrize("shards", ["", "&shards=2"])
async def test_a_statement_without_an_answer_is_in_health(
    folder: Path, shards: str
) -> None:
    """With the primary that it was sent to; both hosts are frozen, so none is left."""
    places = folder / "0", folder / "1"
    with ExitStack() as stack:
        first = Postgres(places[0])
        stack.callback(stop_at_once, places[0])
        second = stack.enter_context(Standby(first, places[1]))
        more = f"&lease_ms=60000{shards}"
        address = address_of(*places, schema="h5", more=more)
        async with gateway(address, Platform()) as kernel:
            await wait_until(lambda: kernel.working)
            assert kernel.health()["primary"] == str(places[0])
            assert kernel.health().get("statement_waits_ms") is None
            frozen = processes(places[0]) + processes(second.data)
            for process in frozen:
                process.suspend()
            try:
                begun = asyncio.ensure_future(kernel.enqueue(TO, "x", key="x"))
                await wait_until(
                    lambda: any("not answered" in r for r in kernel.is_well().reasons)
                )
                assert kernel.health()["statement_waits_ms"] > 5_000
            finally:
                for process in frozen:
                    os.kill(process.pid, signal.SIGCONT)
            await (await begun).settled(30_000)
            await wait_until(kernel.is_well)


async def test_health_names_a_statement_that_waits(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "_SILENT_MS", 50)
    store = PostgresStore(postgres.address())
    await store.open()
    asked = asyncio.ensure_future(
        store._shared.asked(lambda c: c.fetch("SELECT pg_sleep(3)"))
    )
    async with asyncio.timeout(2):
        while "statement_waits_ms" not in store.facts():
            await asyncio.sleep(0.01)
    await asked
    assert "statement_waits_ms" not in store.facts()
    await store.close()


# --- looks and commands -----------------------------------------------------------------


async def said_by(*words: str) -> tuple[int, str]:
    made = await asyncio.to_thread(CliRunner().invoke, app([*words]), [*words])
    return made.exit_code, made.output


@asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[tuple[Postgres, Standby, str]]:
    """A primary with a store of one message, its standby, and their address, which names the
    standby first."""
    with ExitStack() as stack:
        first = Postgres(folder / "0")
        stack.callback(stop_at_once, folder / "0")
        second = stack.enter_context(Standby(first, folder / "1"))
        address = address_of(folder / "1", folder / "0", schema="h3")
        async with gateway(address, Platform()) as kernel:
            await (await kernel.enqueue(TO, "x")).settled(30_000)
        await second.caught_up()
        yield first, second, address


async def test_a_look_asks_a_standby_only_if_no_primary_answers(folder: Path) -> None:
    async with pair(folder) as (_, second, address):
        code, said = await said_by("list", "-s", address)
        assert (code, "as of" in said) == (0, False), said
        for words in (["watchdog", "--once"], ["certify", "nobody"]):
            code, said = await said_by(*words, "-s", address)
            assert code in (0, 1), said  # nobody is that worker
        await asyncio.to_thread(stop_at_once, folder / "0")
        for words in (["list"], ["audit"], ["status"], ["head"]):
            code, said = await said_by(*words, "-s", address)
            assert (code, "as of" in said) == (0, True), said
        for words in (["watchdog", "--once"], ["certify", "w"], ["restored"]):
            code, said = await said_by(*words, "-s", address)
            assert (code, "no primary answers" in said) == (3, True), said
        with pytest.raises(DiskError, match="no primary answers"):
            async with Kernel(address):
                pass
        await second.promote()
        code, said = await said_by("list", "-s", address)
        assert (code, "as of" in said) == (0, False), said


async def test_a_failover_in_a_copy_leaves_no_copy(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The standby may lack the last rows of a copy that was audited on the primary."""
    async with pair(folder) as (first, second, address):
        there = address.replace("schema=h3", "schema=h3_copy")
        real = staging.StagedSchema.into_place

        async def lost(self: staging.StagedSchema) -> None:
            await second.caught_up()
            await asyncio.to_thread(stop_at_once, folder / "0")
            await second.promote()
            await real(self)

        monkeypatch.setattr(staging.StagedSchema, "into_place", lost)
        code, said = await said_by("copy", address, there, "--json")
        assert code == 3, said
        assert "failed over during the copy" in json.loads(said)["error"]["message"]
        monkeypatch.undo()
        code, said = await said_by("copy", address, there, "--json")
        assert code == 0, said
        code, said = await said_by("audit", there)
        assert code == 0, said
        del first


async def test_a_failover_by_the_address_that_lost_commits_is_noticed(
    folder: Path,
) -> None:
    """A worker lives through it: the log of the new primary lacks what it stored. It
    sends nothing more, and takes messages in for the next worker, which doubts what was
    open."""
    platform = Platform(keyed=True)
    places = folder / "0", folder / "1"
    with ExitStack() as stack:
        first = Postgres(places[0])
        stack.callback(stop_at_once, places[0])
        second = stack.enter_context(Standby(first, places[1]))
        address = address_of(*places, schema="h5", more="&lease_ms=4000&max_pause_ms=0")
        old = gateway(address, platform)
        await old.open()
        await old.disconnected("keyed")
        waiting = await old.enqueue(TO, "it waits")
        await second.caught_up()
        await second.falls_behind()
        await old.connected("keyed")
        for name in CLASSES:
            sent = await old.enqueue(
                Route(channel=name, conversation="2"), f"{name} lost"
            )
            await sent.settled(10_000)
        await wait_until(lambda: len(platform.contents) == 4)
        await asyncio.to_thread(stop_at_once, places[0])
        await second.promote()
        await wait_until(lambda: old.health()["fences_lost"] == 1)
        late = await old.enqueue(TO, "after", key="after")
        async with gateway(address, platform) as new:
            await wait_until(lambda: new.working)
            await new.settled(late.entry_id, 30_000)
            view = await new.inspect.show(waiting.entry_id)
            assert view.phase is Phase.PARKED
            assert sorted(platform.contents) == sorted(
                ["it waits", *(f"{name} lost" for name in CLASSES), "after"]
            )
        await old.close()
        code, said = await said_by("audit", address)
        assert code == 0, said
