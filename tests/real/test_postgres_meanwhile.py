"""A worker comes, or dies, while a store is copied or pruned."""

import asyncio
import os
import signal
from typing import Any

import pytest

from turnfold import Kernel
from turnfold.audit import audit_store
from turnfold_adapters.stores import moving
from turnfold_adapters.stores.postgres import commit
from turnfold_cli import copy as copying
from turnfold_model.testing.gateway import until
from turnfold_model.testing.platform import Platform, PlatformChannel

from .postgres import Postgres
from .test_postgres_access import TO, gateway, send


async def test_a_worker_that_comes_during_a_copy_waits_for_its_end(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the copy would be older than its source before it has its name."""
    address, there = postgres.address("v1"), postgres.address("v1_copy")
    await send(address, 4)
    real, began, go = moving._stored, asyncio.Event(), asyncio.Event()

    async def waits(*args: Any) -> Any:
        began.set()
        await go.wait()
        return await real(*args)

    monkeypatch.setattr(moving, "_stored", waits)
    copy = asyncio.create_task(
        copying._copied(address, copying._staging(there), dry=False)
    )
    await began.wait()
    platform = Platform()
    kernel = Kernel(address)
    kernel.attach("t", PlatformChannel(platform), on_unknown="hold")
    async with kernel:
        sent = asyncio.create_task(kernel.enqueue(TO, "meanwhile", key="m"))
        await until(lambda: bool(kernel.health()["standing_by"]))
        await asyncio.sleep(0.6)  # two polls of a standby
        assert not kernel.working
        assert not platform.calls
        go.set()
        done = await copy
        assert done["copied"]
        entry = await sent
        await entry.settled(30_000)
        assert platform.contents == ["meanwhile"]
        report = await audit_store(kernel.store)
        assert report.passed, report.first


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside threads
def test_the_next_worker_takes_over_from_one_that_died_in_a_prune(
    postgres: Postgres, stored: bool
) -> None:
    """Before the commit of the prune nothing has gone; after it all has."""
    address = postgres.address(f"v2_{stored}".lower())
    asyncio.run(send(address, 4))
    pid = os.fork()
    if pid == 0:
        asyncio.run(_dies_in_a_prune(address, stored))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL

    async def goes_on() -> None:
        async with gateway(address) as kernel:
            await until(lambda: kernel.working)
            done = await kernel.prune(older_ms=0, by="ann")
            assert done.streams == (0 if stored else 4)
            report = await audit_store(kernel.store)
            assert report.passed, report.first
            found = await kernel.store.maintenance.pruned()  # type: ignore[union-attr]
            assert sum(count.count for count in found) == 4

    asyncio.run(goes_on())


async def _dies_in_a_prune(address: str, stored: bool) -> None:
    real_take, real_store = commit.take_out, commit.Committer.store

    async def take_out(*args: Any) -> None:
        await real_take(*args)
        if not stored:
            os.kill(os.getpid(), signal.SIGKILL)

    async def store(self: Any, write: Any, seat: Any) -> Any:
        done = await real_store(self, write, seat)
        if write.prune is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    commit.take_out = take_out
    commit.Committer.store = store  # type: ignore[method-assign]
    async with gateway(address) as kernel:
        await until(lambda: kernel.working)
        await kernel.prune(older_ms=0, by="ann")
